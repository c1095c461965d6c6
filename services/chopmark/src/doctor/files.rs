//! The data folder: who may read it, its keys, its room, its guard.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use chopmark_node::{NodeError, guard::Guard};

use super::Check;
use crate::{cli::guard_beside, dev::DevFile, output::shown, place::other_members};

/// Below this the next segments of block log, queue and database may not fit.
pub(super) const FREE_BYTES_MIN: u64 = 256 << 20;
/// Below this there is time to act: about ten million records.
pub(super) const FREE_BYTES_COMFORTABLE: u64 = 4 << 30;
/// Bits of group and others.
const NOT_OWNER: u32 = 0o077;
/// Those of them that let write.
const OTHERS_WRITE: u32 = 0o022;

pub(super) fn look(data: &Path, dev: Option<&DevFile>, running: bool) -> Vec<Check> {
    let metadata = match fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let fix = "name another with --data, or move the file away";
            return vec![Check::fail("data", format!("{} is not a folder", shown(data)), fix)];
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut checks =
                vec![Check::ok("data", format!("{} is not there yet; `chopmark dev` makes it", shown(data)))];
            let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            checks.extend(disk(parent));
            return checks;
        }
        Err(error) => {
            let fix = "run as the user that the server runs as, or change the owner of the folder";
            return vec![Check::fail("data", format!("{}: {error}", shown(data)), fix)];
        }
    };
    let mut checks = vec![folder(data, &metadata)];
    checks.extend(keys(data));
    checks.extend(disk(data));
    checks.extend(guard(data, dev, running));
    checks
}

fn folder(data: &Path, metadata: &fs::Metadata) -> Check {
    let mode = metadata.permissions().mode() & 0o777;
    let named = shown(data);
    let owner = rustix::process::geteuid().as_raw();
    if metadata.uid() != owner && owner != 0 {
        let fix = format!("run as that user, or `chown -R` {named}");
        return Check::fail("data", format!("{named} belongs to user {}, you are {owner}", metadata.uid()), fix);
    }
    if mode & OTHERS_WRITE != 0 {
        return Check::fail("data", format!("others may change {named} (mode {mode:o})"), format!("chmod 700 {named}"));
    }
    if mode & NOT_OWNER != 0 {
        return Check::warn(
            "data",
            format!("others may look into {named} (mode {mode:o})"),
            format!("chmod 700 {named}"),
        );
    }
    Check::ok("data", format!("{named}, for its owner alone"))
}

/// Every file that holds a secret, and the folders that they lie in: of this member, of all its
/// generations of keys, and of the other members of an embedded network.
fn keys(data: &Path) -> Vec<Check> {
    let mut roots: Vec<PathBuf> = ["keys", "secrets"].map(|name| data.join(name)).into();
    roots.extend(other_members(data).into_iter().flatten().map(|member| member.join("keys")));
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    roots.iter().for_each(|root| gather(root, &mut folders, &mut files));
    files.extend([data.join("dev.json")].into_iter().filter(|path| path.exists()));
    let mode = |path: &Path| fs::metadata(path).map_or(0, |found| found.permissions().mode() & 0o777);
    let open: Vec<String> = files.iter().filter(|path| mode(path) & NOT_OWNER != 0).map(|path| shown(path)).collect();
    let mut checks = Vec::new();
    for folder in folders.iter().filter(|folder| mode(folder) & OTHERS_WRITE != 0) {
        let fix = format!("chmod 700 {}; replace the keys if anybody else had access to this machine", shown(folder));
        let detail = format!("others may change {} (mode {:o})", shown(folder), mode(folder));
        checks.push(Check::fail("keys", detail, fix));
    }
    if !open.is_empty() {
        let fix = format!("chmod 600 {}; replace them if anybody else had access to this machine", open.join(" "));
        checks.push(Check::fail("keys", format!("others may read {}", open.join(", ")), fix));
    }
    if checks.is_empty() {
        checks.push(Check::ok("keys", format!("{} secret files, readable by their owner alone", files.len())));
    }
    checks
}

/// A folder with all that lies below it; one that is not there has nothing.
fn gather(folder: &Path, folders: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) {
    let Ok(items) = fs::read_dir(folder) else { return };
    folders.push(folder.to_owned());
    let mut paths: Vec<PathBuf> = items.flatten().map(|item| item.path()).collect();
    paths.sort();
    for path in paths {
        // A link is followed to a file, and not into a folder, from where it could lead back.
        if path.is_dir() && !path.is_symlink() {
            gather(&path, folders, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

/// Bytes that this user may still write where `folder` lies; none without room for another file.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    let is_out_of_inodes = found.f_favail == 0 && found.f_files > 0;
    Some(if is_out_of_inodes { 0 } else { found.f_bavail.saturating_mul(found.f_frsize) })
}

fn disk(folder: &Path) -> Option<Check> {
    let found = rustix::fs::statvfs(folder).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let detail = format!("{} MiB free where {} lies", free >> 20, shown(folder));
    let fix = "make room, or move the folder to a larger disk; a full disk stops the server, and loses nothing";
    Some(if free < FREE_BYTES_MIN {
        Check::fail("disk", detail, fix)
    } else if free < FREE_BYTES_COMFORTABLE || found.f_favail == 0 && found.f_files > 0 {
        Check::warn("disk", detail, fix)
    } else {
        Check::ok("disk", detail)
    })
}

fn guard(data: &Path, dev: Option<&DevFile>, running: bool) -> Vec<Check> {
    const NAME: &str = "guard";
    let path = dev.map_or_else(|| guard_beside(data), |dev| dev.guard_path.clone());
    let named = shown(&path);
    if !data.join("node").exists() {
        return vec![Check::ok(NAME, "not needed yet: there is no node")];
    }
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fix = format!(
                "restore it from where it is kept, or name it with --guard when you start; only if it is lost for good \
                 and no other copy of this node runs: chopmark admin guard adopt --data {} --guard {named} --yes",
                shown(data)
            );
            return vec![Check::fail(NAME, format!("{named} is missing: the node refuses to start"), fix)];
        }
        Err(error) => {
            let fix = "run as the user that the server runs as, or change the owner of the guard";
            return vec![Check::fail(NAME, format!("{named}: {error}"), fix)];
        }
    };
    let mut checks = Vec::new();
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS_WRITE != 0 {
        checks.push(Check::fail(
            NAME,
            format!("others may change {named} (mode {mode:o})"),
            format!("chmod 600 {named}"),
        ));
    }
    if is_inside(&path, data) {
        let fix = "move it elsewhere and start with --guard: restored together with old data, it cannot notice";
        checks.push(Check::warn(NAME, format!("{named} lies inside the data folder"), fix));
    }
    // A running node holds the guard's lock, which is proof enough that it can read it.
    if running {
        checks.push(Check::ok(NAME, format!("{named}, in use by the running server")));
        return checks;
    }
    checks.push(match Guard::open(&path) {
        Ok(guard) => Check::ok(NAME, format!("{named} remembers a signature for size {}", guard.promise().size.0)),
        Err(NodeError::Guard { reason, .. }) => {
            let fix = "stop whatever uses it; restore it from where it is kept if it is damaged";
            Check::fail(NAME, format!("{named}: {reason}"), fix)
        }
        Err(error) => {
            let fix = "run as the user that the server runs as, or change the owner of the guard";
            Check::fail(NAME, error.to_string(), fix)
        }
    });
    checks
}

fn is_inside(path: &Path, folder: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(path).zip(real(folder)).is_some_and(|(path, folder)| path.starts_with(folder))
}
