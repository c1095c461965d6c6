//! The manifests of fjall's keyspaces, checked before fjall reads them.
//!
//! fjall 3.1 keeps a checksum of each manifest and does not compare it: it asserts what the manifest
//! says, and a panic while it opens ends the process without a chance to catch it. So one flipped bit
//! would keep the node from starting, and `fsck` from saying why. The layout is that of lsm-tree 3.1:
//! `keyspaces/N/current` holds the number of the manifest `vNUMBER` (u64), its XXH3-128 (u128), and 0
//! for the kind of checksum, all little-endian. `repair.rs` of the tests fails if another version has another one.

use std::{fs, io::ErrorKind, path::Path};

use xxhash_rust::xxh3::xxh3_128;

use crate::NodeError;

const CURRENT_BYTES: usize = 25;
const XXH3: u8 = 0;

/// Compares the checksum of every keyspace's manifest in the store at `path`. A keyspace that was
/// not made to its end has none and is fjall's to remove.
pub(crate) fn check(path: &Path) -> Result<(), NodeError> {
    let keyspaces = path.join("keyspaces");
    let items = match fs::read_dir(&keyspaces) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        items => items.map_err(NodeError::io("read", &keyspaces))?,
    };
    for item in items {
        let folder = item.map_err(NodeError::io("read", &keyspaces))?.path();
        let current = folder.join("current");
        let bytes = match fs::read(&current) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            bytes => bytes.map_err(NodeError::io("read", &current))?,
        };
        let Some((number, checksum)) = parse(&bytes) else {
            return Err(NodeError::Damaged(format!("index: {} names no manifest", current.display())));
        };
        let manifest = folder.join(format!("v{number}"));
        let holds = match fs::read(&manifest) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            bytes => xxh3_128(&bytes.map_err(NodeError::io("read", &manifest))?) == checksum,
        };
        if !holds {
            return Err(NodeError::Damaged(format!("index: the checksum of {} does not hold", manifest.display())));
        }
    }
    Ok(())
}

fn parse(current: &[u8]) -> Option<(u64, u128)> {
    let current: &[u8; CURRENT_BYTES] = current.try_into().ok()?;
    let (number, rest) = current.split_first_chunk()?;
    let (checksum, kind) = rest.split_first_chunk()?;
    (kind == [XXH3]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
}
