//! Signing keys from the command line, over a database in a file.

use std::{fs, path::Path};

use chopmark_domain::{
    ports::TenantStore as _,
    quota::Limits,
    tenant::{SigningKeyRow, TenantRow},
};
use chopmark_store::SqliteStore;
use ed25519_dalek::{SigningKey, pkcs8::EncodePublicKey as _};
use ledger_core::Hash32;
use serde_json::Value;

use crate::support::{Ran, chopmark, folder, text};

const TENANT: &str = "ten_museum";

/// A network, secrets and a database with one tenant; returns the configuration and the database's URL.
async fn deployment(folder: &Path) -> (String, String) {
    let (net, secrets) = (text(&folder.join("net")), text(&folder.join("secrets")));
    for arguments in [
        vec!["network", "init", &net, "--domain", "log.test", "--member", "court.test=127.0.0.1:26990"],
        vec!["admin", "secrets", "--out", &secrets],
    ] {
        let made = chopmark(arguments);
        assert_eq!(made.code, 0, "{}", made.err);
    }
    let url = format!("sqlite:{}", text(&folder.join("chopmark.db")));
    let config = format!(
        "[ledger]\ngenesis = \"{net}/court.test/node/genesis.json\"\nnodes = [\"http://127.0.0.1:9\"]\n\
         [database]\nurl = \"{url}\"\n[cache]\nurl = \"memory:\"\n\
         [secrets]\nkey_encryption_key_file = \"{secrets}/kek.key\"\nids_key_file = \"{secrets}/ids.key\"\n\
         api_keys_key_file = \"{secrets}/api-keys.key\"\n"
    );
    let path = folder.join("chopmark.toml");
    fs::write(&path, config).unwrap();
    let tenant = TenantRow {
        id: TENANT.to_owned(),
        network: "sandbox".to_owned(),
        wrapped_secret: vec![7; 60],
        active: true,
        signatures_required: false,
        limits: Limits::default(),
        created_at: 0,
    };
    assert!(SqliteStore::open(&url).await.unwrap().insert_tenant(tenant).await.unwrap());
    (text(&path), url)
}

#[tokio::test]
async fn a_signing_key_is_registered_required_and_revoked() {
    let folder = folder("signing_key");
    let (config, url) = deployment(&folder).await;
    let run = |arguments: &[&str]| -> Ran {
        chopmark(["admin", "signing-key"].iter().chain(arguments).chain(&["--config", &config]))
    };
    let done = |arguments: &[&str]| {
        let ran = run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.out.trim_end().to_owned()
    };
    let public_key = SigningKey::from_bytes(&[7; 32]).verifying_key();
    let file = folder.join("signing.pub.pem");
    fs::write(&file, public_key.to_public_key_pem(Default::default()).unwrap()).unwrap();
    let file = text(&file);

    // Who has no key cannot be made to sign.
    let refused = run(&["require", TENANT]);
    assert!(refused.code == 1 && refused.err.contains("has no signing key"), "{}", refused.err);

    let public_key = Hash32(public_key.to_bytes());
    let id = SigningKeyRow::id_of("sandbox", TENANT, &public_key);
    for _ in 0..2 {
        assert_eq!(done(&["add", TENANT, "--public-key", &file]), id);
    }
    let listed = done(&["list", TENANT, "--json"]);
    let row: Value = serde_json::from_str(&listed).unwrap();
    let shown = ["key", "tenant", "network", "public_key"].map(|name| row[name].as_str().unwrap().to_owned());
    assert_eq!(shown, [id.as_str(), TENANT, "sandbox", &public_key.to_string()]);
    assert_eq!(row["revoked_at"], Value::Null);

    let required = async || {
        let store = SqliteStore::open(&url).await.unwrap();
        store.tenant("sandbox", TENANT).await.unwrap().unwrap().signatures_required
    };
    done(&["require", TENANT]);
    assert!(required().await);
    done(&["require", TENANT, "--off"]);
    assert!(!required().await);

    assert_eq!(done(&["revoke", &id]), format!("{id} is revoked"));
    let row: Value = serde_json::from_str(&done(&["list", TENANT, "--json"])).unwrap();
    assert!(row["revoked_at"].is_string(), "{row}");
    for (arguments, expected) in [
        (&["add", TENANT, "--public-key", &file][..], "it is revoked"),
        (&["require", TENANT], "has no signing key"),
        (&["revoke", "sgk_nothing"], "there is no signing key sgk_nothing"),
        (&["list", "ten_nobody"], "ten_nobody is not a tenant"),
        (&["add", "ten_nobody", "--public-key", &file], "ten_nobody is not a tenant"),
        (&["add", TENANT, "--public-key", &config], "no public key of Ed25519"),
    ] {
        let refused = run(arguments);
        assert!(refused.code == 1 && refused.err.contains(expected), "{arguments:?}: {}", refused.err);
    }
}
