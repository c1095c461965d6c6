//! The mark of data that are being rebuilt: it says how far they reached when the node first found
//! them behind its guard, as when they were lost, or are an older copy.
//!
//! What the guard remembers as decided is no measure of such data. Up to the mark they were
//! acknowledged; above it stands what was taken over from others, which comes again, so that a torn
//! append there is an unfinished write.
//!
//! Invariant: a mark stands only while the data end below `guard.decided`. It goes before the guard is
//! told of a height that these data have decided, or of anything that is signed over them: were it
//! there after that, the loss of an acknowledged block could pass for an unfinished write.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use ledger_core::codec::{DecodeError, Reader, Writer};

use crate::{
    NodeError,
    disk::{self, Extent},
};

const MAGIC: &[u8; 8] = b"CMREBLD1";

/// The mark, which stands or not.
#[derive(Debug)]
pub(crate) struct RebuildMark {
    path: PathBuf,
    height: Option<u64>,
}

impl RebuildMark {
    /// Reads the mark. A damaged one says nothing: the guard alone counts then.
    pub(crate) fn open(path: PathBuf) -> Result<Self, NodeError> {
        let height = match fs::read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(height) => Some(height),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the mark of a rebuild is damaged and not heeded");
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(NodeError::io("read", path)(error)),
        };
        Ok(Self { path, height })
    }

    /// Last height that the data had before anything was taken over again; `None` where they are whole.
    pub(crate) const fn height(&self) -> Option<u64> {
        self.height
    }

    /// Notes how the data, which end at `tip`, stand to a guard that remembers `decided`.
    pub(crate) fn compare(&mut self, tip: u64, decided: u64) -> Result<(), NodeError> {
        match self.height {
            None if tip < decided => self.set(tip),
            Some(_) if tip >= decided => self.remove(),
            _ => Ok(()),
        }
    }

    /// Durable when it returns. Dying before that leaves the data as they were: nothing was taken over yet.
    fn set(&mut self, height: u64) -> Result<(), NodeError> {
        let temporary = self.path.with_extension("tmp");
        let mut writer = Writer::new();
        writer.fixed(MAGIC).u64(height);
        let crc = crc32c::crc32c(writer.as_slice());
        writer.u32(crc);
        File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(writer.as_slice())?;
                disk::sync(&file, &temporary, Extent::Data)
            })
            .map_err(NodeError::io("write", &temporary))?;
        fs::rename(&temporary, &self.path).map_err(NodeError::io("name", &self.path))?;
        self.sync_folder()?;
        self.height = Some(height);
        Ok(())
    }

    /// Durable when it returns. Dying before that leaves data that have caught up, with a mark that the
    /// next start removes.
    fn remove(&mut self) -> Result<(), NodeError> {
        fs::remove_file(&self.path).map_err(NodeError::io("remove", &self.path))?;
        self.sync_folder()?;
        self.height = None;
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), NodeError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|file| disk::sync(&file, folder, Extent::All))
            .map_err(NodeError::io("sync folder", folder))
    }
}

fn decode(bytes: &[u8]) -> Result<u64, DecodeError> {
    let (body, rest) = bytes.split_at_checked(MAGIC.len() + 8).ok_or(DecodeError::Short)?;
    let (mut reader, mut rest) = (Reader::new(body), Reader::new(rest));
    if reader.array::<8>()? != *MAGIC {
        return Err(DecodeError::Range("magic"));
    }
    if rest.u32()? != crc32c::crc32c(body) {
        return Err(DecodeError::Range("checksum"));
    }
    rest.end()?;
    reader.u64()
}
