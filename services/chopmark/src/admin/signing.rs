//! The keys that tenants sign requests with (RFC 9421), and who has to sign.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use chopmark_domain::tenant::SigningKeyRow;
use clap::{Args, Subcommand};
use ed25519_dalek::{VerifyingKey, pkcs8::DecodePublicKey as _};
use ledger_core::Hash32;
use serde_json::json;

use super::accounts::{Books, ConfigArgs, TenantArgs, View, show, time};
use crate::{output::Out, system};

/// Keys that tenants sign requests with
#[derive(Debug, Subcommand)]
pub(crate) enum SigningKeyCommand {
    Add(AddArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
    Require(RequireArgs),
}

/// Registers a public key of a tenant and prints its id
#[derive(Debug, Args)]
#[command(
    long_about = "Registers a public key of Ed25519 that a tenant signs its requests with (RFC 9421), and prints the \
                  id that signatures name as keyid. The private key stays with the tenant. Repeating the command \
                  changes nothing; a revoked key does not come back.",
    after_long_help = "\
Example, the first two lines at the tenant:
  openssl genpkey -algorithm ed25519 -out signing.pem
  openssl pkey -in signing.pem -pubout -out signing.pub.pem
  chopmark admin signing-key add ten_museum --public-key signing.pub.pem --config chopmark.toml

Exit status: 0 registered; 1 refused or failed."
)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    of: TenantArgs,

    /// The public key, PEM
    #[arg(long, value_name = "KEY.pem")]
    public_key: PathBuf,
}

/// Lists the signing keys of a tenant
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    of: TenantArgs,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Revokes a signing key: gateways refuse it within five seconds, and it never comes back
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Id of the key, as `signing-key list` shows it
    #[arg(value_name = "KEY")]
    key: String,

    #[command(flatten)]
    place: ConfigArgs,
}

/// Says that a tenant writes under a signature only, or lifts that
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  chopmark admin signing-key require ten_museum
  chopmark admin signing-key require ten_museum --off

Gateways follow within five seconds. Exit status: 0 set; 1 refused or failed.")]
pub(crate) struct RequireArgs {
    #[command(flatten)]
    of: TenantArgs,

    /// Take requests without a signature again
    #[arg(long)]
    off: bool,
}

pub(super) async fn run(command: SigningKeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        SigningKeyCommand::Add(args) => add(&args).await?,
        SigningKeyCommand::List(args) => {
            let books = Books::open(args.of.config()).await?;
            books.require_tenant(args.of.id()).await?;
            for row in books.tenants.signing_keys(books.network, args.of.id()).await? {
                show(&view(&row), args.json)?;
            }
        }
        SigningKeyCommand::Revoke(args) => {
            let books = Books::open(args.place.config()).await?;
            if !books.tenants.revoke_signing_key(books.network, &args.key, system::now_ms()).await? {
                bail!("there is no signing key {}: `chopmark admin signing-key list` shows a tenant's", args.key);
            }
            writeln!(Out::lock(), "{} is revoked", args.key)?;
        }
        SigningKeyCommand::Require(args) => require(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: &AddArgs) -> anyhow::Result<()> {
    let public_key = public_key(&args.public_key)?;
    let books = Books::open(args.of.config()).await?;
    let tenant = args.of.id();
    books.require_tenant(tenant).await?;
    let id = SigningKeyRow::id_of(books.network, tenant, &public_key);
    let known = books.tenants.signing_key(books.network, tenant, &id).await?;
    if known.is_some_and(|row| row.revoked_at.is_some()) {
        bail!("{id} is this key, and it is revoked: register another one");
    }
    let (network, tenant) = (books.network.to_owned(), tenant.to_owned());
    let row =
        SigningKeyRow { id: id.clone(), network, tenant, public_key, created_at: system::now_ms(), revoked_at: None };
    books.tenants.insert_signing_key(row).await?;
    writeln!(Out::lock(), "{id}")?;
    Ok(())
}

/// A key under which every signature holds would be nobody's.
fn public_key(path: &Path) -> anyhow::Result<Hash32> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let key = VerifyingKey::from_public_key_pem(text.trim())
        .with_context(|| format!("{} is no public key of Ed25519 in PEM", path.display()))?;
    if key.is_weak() {
        bail!("{} is a weak key: anybody could sign for it", path.display());
    }
    Ok(Hash32(key.to_bytes()))
}

async fn require(args: &RequireArgs) -> anyhow::Result<()> {
    let books = Books::open(args.of.config()).await?;
    let tenant = args.of.id();
    let live = books.tenants.signing_keys(books.network, tenant).await?;
    if !args.off && !live.iter().any(|row| row.revoked_at.is_none()) {
        bail!("{tenant} has no signing key, so that it could not write at all: run `chopmark admin signing-key add`");
    }
    if !books.tenants.set_signatures_required(books.network, tenant, !args.off).await? {
        return Err(books.no_tenant(tenant));
    }
    let state = if args.off { "with and without" } else { "only with" };
    writeln!(Out::lock(), "{tenant} writes {state} a signature; gateways follow within five seconds")?;
    Ok(())
}

fn view(row: &SigningKeyRow) -> View {
    View(json!({
        "key": row.id,
        "tenant": row.tenant,
        "network": row.network,
        "public_key": row.public_key.to_string(),
        "created_at": time(Some(row.created_at)),
        "revoked_at": time(row.revoked_at),
    }))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{SigningKey, pkcs8::EncodePublicKey as _};

    use super::*;

    #[test]
    fn a_public_key_is_read_and_a_weak_or_foreign_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let write = |text: &str| fs::write(&path, text).unwrap();
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        write(&key.to_public_key_pem(Default::default()).unwrap());
        assert_eq!(public_key(&path).unwrap(), Hash32(key.to_bytes()));
        // The neutral element: any message "is signed" under it.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let weak = VerifyingKey::from_bytes(&neutral).unwrap();
        write(&weak.to_public_key_pem(Default::default()).unwrap());
        assert!(public_key(&path).unwrap_err().to_string().contains("weak"));
        write("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
        assert!(public_key(&path).unwrap_err().to_string().contains("no public key of Ed25519"));
        assert!(public_key(&folder.path().join("none")).is_err());
    }
}
