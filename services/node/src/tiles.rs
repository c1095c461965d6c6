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
    tile::{TILE_WIDTH, TileKind, TilePath, decode_bundle, decode_hashes},
};

use crate::NodeError;

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
            File::create(&temporary)
                .and_then(|mut file| file.write_all(&tile.bytes).and_then(|()| file.sync_data()))
                .map_err(NodeError::io("write tile", &temporary))?;
            fs::rename(&temporary, &path).map_err(NodeError::io("name tile", &path))?;
            folders.insert(folder);
        }
        for folder in folders {
            File::open(&folder).and_then(|file| file.sync_all()).map_err(NodeError::io("sync folder", &folder))?;
        }
        Ok(())
    }

    /// Bytes of a full tile or bundle; `None` if there is no such file.
    pub(crate) fn read(&self, kind: TileKind, index: u64) -> Result<Option<Vec<u8>>, NodeError> {
        let path = self.path(kind, index);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(NodeError::io("read tile", path)(error)),
        }
    }

    /// Hashes of a full tile that must exist.
    pub(crate) fn hashes(&self, level: u8, index: u64) -> Result<Vec<Hash32>, NodeError> {
        let path = self.path(TileKind::Hashes(level), index);
        let bytes = self.read(TileKind::Hashes(level), index)?.ok_or_else(|| missing(&path))?;
        decode_hashes(&bytes, 256)
            .ok_or_else(|| NodeError::Damaged(format!("tile {} has the wrong length", path.display())))
    }

    /// One entry of a full bundle that must exist.
    pub(crate) fn entry(&self, index: u64) -> Result<Vec<u8>, NodeError> {
        let (bundle, at) = (index / TILE_WIDTH, usize::try_from(index % TILE_WIDTH).unwrap_or_default());
        let path = self.path(TileKind::Entries, bundle);
        let bytes = self.read(TileKind::Entries, bundle)?.ok_or_else(|| missing(&path))?;
        let entries = decode_bundle(&bytes, 256)
            .map_err(|_| NodeError::Damaged(format!("entry bundle {} is malformed", path.display())))?;
        Ok(entries[at].to_vec())
    }
}

fn missing(path: &Path) -> NodeError {
    NodeError::Damaged(format!("{} is missing", path.display()))
}
