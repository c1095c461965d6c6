//! Folders that the role writes to, and how many files it may open.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::{Fault, Findings};
use crate::{
    cli::DoctorRole,
    config::Configured,
    doctor::{files, machine},
    output::shown,
};

pub(super) fn look(configured: &Configured, role: DoctorRole) -> Findings {
    let mut findings = Findings::default();
    for (key, path) in folders(configured, role) {
        folder(key, &path, &mut findings);
    }
    if role != DoctorRole::Admin
        && let Some(limit) = machine::open_files()
    {
        let detail = format!("at most {limit}");
        if limit < machine::FILES_MIN {
            findings.add(Fault::OpenFilesFew, "limit of open files", detail);
        } else if limit < machine::FILES_COMFORTABLE {
            findings.add(Fault::OpenFilesLow, "limit of open files", detail);
        }
    }
    findings
}

fn folders(configured: &Configured, role: DoctorRole) -> Vec<(&'static str, PathBuf)> {
    let gateway = configured.config.gateway.as_ref().filter(|_| role == DoctorRole::Gateway);
    let originals = gateway.and_then(|gateway| configured.originals(gateway));
    let database = configured.database().ok();
    let file = database.as_ref().and_then(|url| url.strip_prefix("sqlite:")).map(PathBuf::from);
    let sqlite = file.and_then(|file| file.parent().map(Path::to_owned));
    let found = [("gateway.originals", originals), ("database", sqlite)];
    found.into_iter().filter_map(|(key, path)| Some((key, path?))).collect()
}

fn folder(key: &str, path: &Path, findings: &mut Findings) {
    let folder = match nearest(path) {
        Ok(folder) => folder,
        Err(error) => return findings.add(Fault::FolderUnusable, key, format!("{}: {error}", shown(path))),
    };
    if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        return findings.add(Fault::FolderReadOnly, key, format!("{}: {error}", shown(folder)));
    }
    let Some(free) = files::free_bytes(folder) else { return };
    let detail = format!("{} MiB are free where {} lies", free >> 20, shown(path));
    if free < files::FREE_BYTES_MIN {
        findings.add(Fault::DiskFull, key, detail);
    } else if free < files::FREE_BYTES_COMFORTABLE {
        findings.add(Fault::DiskLow, key, detail);
    }
}

/// The folder, or the one in which the role would make it at its start.
fn nearest(path: &Path) -> io::Result<&Path> {
    for folder in path.ancestors() {
        match fs::metadata(folder) {
            Ok(found) if found.is_dir() => return Ok(folder),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
