//! The configuration and the files that it names: whether they are there, hold what they should, and are
//! closed to others. What secrets hold is never shown.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use chopmark_domain::auth::ApiKey;
use ledger_core::{Hash32, genesis::Genesis};

use super::{Fault, Findings};
use crate::{
    cli::DoctorRole,
    config::{Configured, ReadError, ReadFault, load_key},
    gateway::sandbox_beside_live,
    output::shown,
    secrets,
};

/// Bits of group and others.
const NOT_OWNER: u32 = 0o077;
/// Those of them that let write.
const OTHERS_WRITE: u32 = 0o022;

/// Why the configuration could not be read.
pub(super) fn refused(path: &Path, error: &anyhow::Error) -> Findings {
    let fault = match error.downcast_ref::<ReadError>().map(|error| error.fault) {
        Some(ReadFault::Missing) => Fault::ConfigMissing,
        Some(ReadFault::Unreadable) => Fault::ConfigUnreadable,
        Some(ReadFault::Syntax) => Fault::ConfigSyntax,
        Some(ReadFault::UnknownKey) => Fault::ConfigUnknownKey,
        Some(ReadFault::Invalid) | None => Fault::ConfigInvalid,
    };
    Findings::of(fault, shown(path), format!("{error:#}"))
}

pub(super) fn look(configured: &Configured, role: DoctorRole, api_key: Option<&Path>) -> Findings {
    let mut findings = tables(configured, role);
    findings.extend(passwords(configured));
    let genesis = match configured.genesis() {
        Ok(genesis) => Some(genesis),
        Err(error) => {
            findings.add(Fault::GenesisUnusable, "ledger.genesis", format!("{error:#}"));
            None
        }
    };
    if let Some(sandbox) = configured.sandbox().filter(|_| role == DoctorRole::Gateway) {
        match sandbox.genesis() {
            Err(error) => findings.add(Fault::GenesisUnusable, "sandbox.genesis", format!("{error:#}")),
            // Where the other genesis cannot be read, that is said already.
            Ok(_) if genesis.is_some() => {
                if let Err(error) = sandbox_beside_live(configured, &sandbox) {
                    findings.add(Fault::ConfigInvalid, "[sandbox]", format!("{error:#}"));
                }
            }
            Ok(_) => {}
        }
    }
    findings.extend(urls(configured, role));
    findings.extend(secret_files(configured, role));
    findings.extend(submitter(configured, role, genesis.as_ref()));
    if let (Some(path), Some(genesis)) = (api_key, genesis) {
        let beside = configured.sandbox().and_then(|sandbox| sandbox.genesis().ok());
        let networks = [Some(genesis), beside].into_iter().flatten().map(|genesis| genesis.network.as_str());
        findings.extend(key_of(path, &networks.collect::<Vec<_>>()));
    }
    findings
}

fn tables(configured: &Configured, role: DoctorRole) -> Findings {
    let config = &configured.config;
    let kafka = config.kafka.is_some();
    let needed: &[(&str, bool)] = match role {
        DoctorRole::Gateway => &[("gateway", config.gateway.is_some()), ("kafka", kafka)],
        DoctorRole::Committer => &[("committer", config.committer.is_some()), ("kafka", kafka)],
        DoctorRole::Courier => &[("courier", config.courier.is_some())],
        DoctorRole::Admin => &[],
    };
    let mut findings = Findings::default();
    for (table, _) in needed.iter().filter(|(_, is_there)| !is_there) {
        findings.add(Fault::ConfigTableMissing, format!("[{table}]"), format!("a {} needs it", role.as_str()));
    }
    findings
}

/// URLs with passwords that stand in a file which others can read.
fn passwords(configured: &Configured) -> Findings {
    let mut findings = Findings::default();
    let path = configured.file();
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode() & 0o777);
    let table = fs::read_to_string(path).ok().and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    for section in ["database", "cache"] {
        let url = table.get(section).and_then(|section| section.get("url")).and_then(toml::Value::as_str);
        if mode & NOT_OWNER != 0 && url.is_some_and(has_password) {
            let detail = format!("{} has mode {mode:o}", shown(path));
            findings.add(Fault::ConfigPasswordExposed, format!("{section}.url"), detail);
        }
    }
    findings
}

fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let user = rest.split(['/', '?']).next().and_then(|authority| authority.rsplit_once('@'));
    let in_user = user.and_then(|(user, _)| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty());
    in_user || rest.split(['?', '&']).any(|pair| pair.starts_with("password="))
}

fn urls(configured: &Configured, role: DoctorRole) -> Findings {
    let (database, cache) = (&configured.config.database, &configured.config.cache);
    let is_gateway = role == DoctorRole::Gateway;
    let sections = [
        ("database", database.url.is_some(), &database.url_file, true),
        ("cache", cache.url.is_some(), &cache.url_file, is_gateway),
    ];
    let mut findings = Findings::default();
    for (section, has_url, file, _) in sections.into_iter().filter(|(.., is_needed)| *is_needed) {
        match (has_url, file) {
            (true, None) => {}
            (false, Some(file)) => {
                secret(&format!("{section}.url_file"), &configured.at(file), "no URL", is_text, &mut findings);
            }
            _ => findings.add(Fault::ConfigInvalid, section, "give url or url_file, and not both"),
        }
    }
    findings
}

fn secret_files(configured: &Configured, role: DoctorRole) -> Findings {
    let mut findings = Findings::default();
    if role != DoctorRole::Committer {
        let section = &configured.config.secrets;
        for (key, path) in [
            ("secrets.key_encryption_key_file", &section.key_encryption_key_file),
            ("secrets.ids_key_file", &section.ids_key_file),
            ("secrets.api_keys_key_file", &section.api_keys_key_file),
        ] {
            let holds = |path: &Path| secrets::load(path).is_ok();
            secret(key, &configured.at(path), "not 64 hexadecimal digits", holds, &mut findings);
        }
    }
    let kafka = configured.config.kafka.as_ref();
    if let Some(kafka) = kafka.filter(|_| matches!(role, DoctorRole::Gateway | DoctorRole::Committer)) {
        if let Some(sasl) = &kafka.sasl {
            let (key, path) = ("kafka.sasl.password_file", configured.at(&sasl.password_file));
            secret(key, &path, "no password", is_text, &mut findings);
        }
        if let Some(path) = kafka.tls.as_ref().and_then(|tls| tls.key.as_ref()) {
            secret("kafka.tls.key", &configured.at(path), "no PEM", is_text, &mut findings);
        }
    }
    findings
}

fn submitter(configured: &Configured, role: DoctorRole, genesis: Option<&Genesis>) -> Findings {
    const KEY: &str = "ledger.submitter_key_file";
    let mut findings = Findings::default();
    if !matches!(role, DoctorRole::Committer | DoctorRole::Admin) {
        return findings;
    }
    let Some(path) = configured.config.ledger.submitter_key_file.as_ref().map(|path| configured.at(path)) else {
        if role == DoctorRole::Committer {
            findings.add(Fault::ConfigInvalid, KEY, "it is missing: nobody takes a submission that is not signed");
        }
        return findings;
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    if mode(folder).is_ok_and(|mode| mode & OTHERS_WRITE != 0) {
        findings.add(Fault::SecretExposed, KEY, format!("others can change {}", shown(folder)));
        return findings;
    }
    secret(KEY, &path, "no Ed25519 key in PEM, named NAME.pem", |path| load_key(path).is_ok(), &mut findings);
    if let (Ok(key), Some(genesis)) = (load_key(&path), genesis)
        && !genesis.members.is_submitter(&Hash32(key.verifying_key().to_bytes()))
    {
        findings.add(Fault::SubmitterKeyUnknown, KEY, format!("no member of the genesis has {}", shown(&path)));
    }
    findings
}

fn key_of(path: &Path, networks: &[&str]) -> Findings {
    const ABOUT: &str = "--api-key-file";
    let mut findings = Findings::default();
    secret(ABOUT, path, "no text", is_text, &mut findings);
    if findings.0.is_empty() {
        let text = secrets::read(path).unwrap_or_default();
        match ApiKey::parse(text.trim()) {
            Some(key) if networks.contains(&key.network()) => {}
            Some(key) => {
                let detail = format!("the key is of {}, the network is {}", key.network(), networks.join(" and "));
                findings.add(Fault::ApiKeyNetwork, ABOUT, detail);
            }
            None => findings.add(Fault::ApiKeyNetwork, ABOUT, "not an API key, or mistyped"),
        }
    }
    findings
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

/// One file with a secret. `lacks` says what it does not hold, where `holds` says no.
fn secret(key: &str, path: &Path, lacks: &str, holds: impl Fn(&Path) -> bool, findings: &mut Findings) {
    let named = shown(path);
    match mode(path) {
        Err(error) => findings.add(Fault::SecretMissing, key, format!("{named}: {error}")),
        Ok(mode) if mode & NOT_OWNER != 0 => {
            findings.add(Fault::SecretExposed, key, format!("{named} has mode {mode:o}"));
        }
        Ok(_) if !holds(path) => findings.add(Fault::SecretMalformed, key, format!("{named}: {lacks}")),
        Ok(_) => {}
    }
}

fn is_text(path: &Path) -> bool {
    secrets::read(path).is_ok_and(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_seen() {
        for url in ["postgres://u:p@h/d", "redis://:p@h:1", "postgres://h/d?user=u&password=p"] {
            assert!(has_password(url), "{url}");
        }
        for url in ["postgres://u@h:5432/d", "redis://h:1", "sqlite:a:b@c", "postgres://u:@h/d"] {
            assert!(!has_password(url), "{url}");
        }
    }
}
