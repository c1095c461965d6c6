//! Tiles and entry bundles as plain files, in the layout of C2SP `tlog-tiles`.
//!
//! Only full tiles and full bundles are files; they never change. A file gets its name only
//! after its bytes are durable. The right edge lives in [`crate::tail`].

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use ledger_core::{
    Hash32,
    tile::{TileKind, TilePath, decode_hashes},
};
use rustix::io::Errno;

use crate::{
    NodeError,
    bugs::{Bug, has},
    damage::Part,
    disk::{self, Extent},
};

/// The folder of tiles.
#[derive(Debug, Clone)]
pub(crate) struct TileFiles {
    root: PathBuf,
}

/// A full tile or bundle to be written.
#[derive(Debug, Clone)]
pub(crate) struct FullTile {
    pub(crate) kind: TileKind,
    pub(crate) index: u64,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn full(kind: TileKind, index: u64) -> TilePath {
    TilePath { kind, index, width: 256 }
}

impl TileFiles {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, kind: TileKind, index: u64) -> PathBuf {
        self.root.join(full(kind, index).path())
    }

    /// Writes full tiles; when it returns, they are durable under their names.
    pub(crate) fn write(&self, tiles: &[FullTile]) -> Result<(), NodeError> {
        let mut folders = BTreeSet::new();
        for tile in tiles {
            let path = self.path(tile.kind, tile.index);
            let folder = path.parent().unwrap_or(&self.root).to_owned();
            if !folder.is_dir() {
                fs::create_dir_all(&folder).map_err(NodeError::io("create folder", &folder))?;
                for ancestor in folder.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(&self.root)) {
                    folders.insert(ancestor.to_owned());
                }
                // The root itself may have been made just now: it was moved away to be derived anew.
                folders.extend(self.root.parent().map(Path::to_owned));
            }
            let temporary = path.with_extension("tmp");
            let sync = |file: &File| match has(Bug::TilesSkipSync) {
                false => disk::sync(file, &temporary, Extent::Data),
                true => Ok(()),
            };
            File::create(&temporary)
                .and_then(|mut file| file.write_all(&tile.bytes).and_then(|()| sync(&file)))
                .map_err(NodeError::io("write tile", &temporary))?;
            fs::rename(&temporary, &path).map_err(NodeError::io("name tile", &path))?;
            folders.insert(folder);
        }
        if has(Bug::TilesSkipFolderSync) {
            return Ok(());
        }
        for folder in folders {
            File::open(&folder)
                .and_then(|file| disk::sync(&file, &folder, Extent::All))
                .map_err(NodeError::io("sync folder", &folder))?;
        }
        Ok(())
    }

    /// Bytes of a full tile or bundle that must exist. They are not checked.
    pub(crate) fn read(&self, kind: TileKind, index: u64) -> Result<Vec<u8>, NodeError> {
        let path = self.path(kind, index);
        fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.damaged(kind, index, "is missing"),
            // A sector that cannot be read: the file gets another one when it is written anew.
            _ if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                self.damaged(kind, index, "cannot be read from the disk")
            }
            _ => NodeError::io("read tile", path)(error),
        })
    }

    /// Hashes of a full tile that must exist. They are not checked.
    pub(crate) fn hashes(&self, level: u8, index: u64) -> Result<Vec<Hash32>, NodeError> {
        let kind = TileKind::Hashes(level);
        decode_hashes(&self.read(kind, index)?, 256).ok_or_else(|| self.damaged(kind, index, "has the wrong length"))
    }

    /// Damage to a full tile or bundle.
    pub(crate) fn damaged(&self, kind: TileKind, index: u64, what: &str) -> NodeError {
        let reason = format!("{} {what}", self.path(kind, index).display());
        NodeError::DamagedPart { part: Part::Tile(kind, index), reason }
    }
}
