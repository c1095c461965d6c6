//! Certificates that the configuration names: whether they can be read, and when they end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use x509_parser::pem::Pem;

use super::{Fault, Findings};
use crate::{cli::DoctorRole, config::Configured, output::shown, system};

/// Time to get another one, with a holiday in it.
const SOON_SECONDS: i64 = 30 * 86_400;

/// What a file of certificates is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Authorities: one of them that is valid will do.
    Trust,
    /// Our own certificate, which comes first, and those that it hangs on.
    Own,
}

/// When a certificate is valid, Unix seconds.
#[derive(Debug, Clone, Copy)]
struct Validity {
    from: i64,
    to: i64,
}

pub(super) fn look(configured: &Configured, role: DoctorRole) -> Findings {
    let mut findings = Findings::default();
    let now = i64::try_from(system::now_ms() / 1000).unwrap_or_default();
    for (key, path, purpose) in certificates(configured, role) {
        let named = shown(&path);
        match read(&path, purpose) {
            Ok(validity) if validity.to <= now || validity.from > now => {
                let detail = format!("{named} is valid from {} to {} (Unix seconds)", validity.from, validity.to);
                findings.add(Fault::TlsExpired, key, detail);
            }
            Ok(validity) if validity.to - now < SOON_SECONDS => {
                let detail = format!("{named} ends in {} days", (validity.to - now) / 86_400);
                findings.add(Fault::TlsExpiresSoon, key, detail);
            }
            Ok(_) => {}
            Err(error) => findings.add(Fault::TlsFileUnusable, key, format!("{named}: {error}")),
        }
    }
    findings
}

fn certificates(configured: &Configured, role: DoctorRole) -> Vec<(&'static str, PathBuf, Purpose)> {
    let mut found = Vec::new();
    let tls = configured.config.kafka.as_ref().and_then(|kafka| kafka.tls.as_ref());
    if let Some(tls) = tls.filter(|_| matches!(role, DoctorRole::Gateway | DoctorRole::Committer)) {
        let files =
            [("kafka.tls.ca", &tls.ca, Purpose::Trust), ("kafka.tls.certificate", &tls.certificate, Purpose::Own)];
        let named = files.into_iter().filter_map(|(key, path, purpose)| Some((key, path.as_ref()?, purpose)));
        found.extend(named.map(|(key, path, purpose)| (key, configured.at(path), purpose)));
    }
    if role == DoctorRole::Courier {
        let files = configured.webhooks().ca_files.iter();
        found.extend(files.map(|path| ("webhooks.ca_files", configured.at(path), Purpose::Trust)));
    }
    let url = configured.database().unwrap_or_default();
    for (parameter, key, purpose) in [
        ("sslrootcert=", "sslrootcert of the database's URL", Purpose::Trust),
        ("sslcert=", "sslcert of the database's URL", Purpose::Own),
    ] {
        let value = url.split(['?', '&']).skip(1).find_map(|pair| pair.strip_prefix(parameter));
        // libpq's word for the system's authorities; and its escapes are not ours to undo.
        if let Some(path) = value.filter(|path| *path != "system" && !path.contains('%')) {
            found.push((key, PathBuf::from(path), purpose));
        }
    }
    found
}

/// Of authorities, the validity that lasts longest.
fn read(path: &Path, purpose: Purpose) -> Result<Validity, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for pem in Pem::iter_from_buffer(&bytes) {
        let pem = pem.map_err(|_| "it is not PEM".to_owned())?;
        if pem.label == "CERTIFICATE" {
            let certificate = pem.parse_x509().map_err(|_| "a certificate in it cannot be read".to_owned())?;
            let validity = certificate.validity();
            all.push(Validity { from: validity.not_before.timestamp(), to: validity.not_after.timestamp() });
        }
    }
    let one = match purpose {
        Purpose::Own => all.into_iter().next(),
        Purpose::Trust => all.into_iter().max_by_key(|validity| validity.to),
    };
    one.ok_or_else(|| "it has no certificate".to_owned())
}
