//! What is made under a name of its own beside its place, and gets its name last: whoever finds the
//! name finds the whole.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::output::shown;

/// A folder or file beside the place that it will have, removed again unless it was finished.
///
/// Invariant: `path` was made by this process, under a name that was drawn; nothing that was there
/// before is ever removed or written to. What a crash leaves stays until somebody removes it.
pub(crate) struct Unfinished {
    path: PathBuf,
    place: PathBuf,
}

impl Unfinished {
    /// A new folder that only its owner enters.
    ///
    /// # Errors
    /// Where something has the name already that this is to have.
    pub(crate) fn folder(place: &Path) -> anyhow::Result<Self> {
        let path = drawn_name(place)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            private_folder(parent)?;
        }
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("create {}", shown(&path)))?;
        Ok(Self { path, place: place.to_owned() })
    }

    /// A new file. Errors as for [`Self::folder`].
    pub(crate) fn file(place: &Path) -> anyhow::Result<(Self, File)> {
        let path = drawn_name(place)?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
        let file = made.with_context(|| format!("create {}", shown(&path)))?;
        Ok((Self { path, place: place.to_owned() }, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, which nothing else may have got meanwhile; when this returns, it has it also
    /// after a loss of power.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        rename_to_new(&self.path, &self.place).with_context(|| format!("name {}", shown(&self.place)))?;
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("sync {}", shown(parent)))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once finished there is nothing at this path. What cannot be removed is in nobody's way.
        let _left = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
    }
}

/// `NAME.unfinished-` and 16 digits that nobody else has drawn.
fn drawn_name(place: &Path) -> anyhow::Result<PathBuf> {
    if place.symlink_metadata().is_ok() {
        bail!("{} exists already", shown(place));
    }
    let mut drawn = [0; 8];
    getrandom::fill(&mut drawn).context("no randomness")?;
    let mut name = place.file_name().with_context(|| format!("{} has no name", shown(place)))?.to_owned();
    name.push(format!(".unfinished-{}", hex::encode(drawn)));
    Ok(place.with_file_name(name))
}

/// Renames, and refuses where there is something already.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot do both at once.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// Makes a folder that only its owner enters, unless there is one.
pub(crate) fn private_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("create {}", shown(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let items = fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
        items.collect()
    }

    #[test]
    fn what_is_not_finished_is_gone() {
        let folder = std::env::temp_dir().join(format!("chopmark-unfinished-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let made = Unfinished::folder(&folder.join("net")).unwrap();
        fs::write(made.path().join("a"), "a").unwrap();
        drop(made);
        drop(Unfinished::file(&folder.join("file")).unwrap());
        assert_eq!(names(&folder), Vec::<String>::new());
        Unfinished::folder(&folder.join("net")).unwrap().finish().unwrap();
        assert_eq!(names(&folder), ["net"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_came_meanwhile_is_not_replaced() {
        let folder = std::env::temp_dir().join(format!("chopmark-meanwhile-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (made, _file) = Unfinished::file(&folder.join("snapshot")).unwrap();
        fs::write(folder.join("snapshot"), "another's").unwrap();
        assert!(made.finish().is_err());
        assert_eq!(fs::read(folder.join("snapshot")).unwrap(), b"another's");
        assert_eq!(names(&folder), ["snapshot"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
