//! The user's policies: one file, or the history of a network as `<first-size>.txt`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ledger_core::checkpoint::decimal_u63;

use super::read_part;
use crate::{bundle::PART_BYTES_MAX, output::shown};

/// Policies that receipts are judged by.
pub(super) enum Policies {
    One(Policy),
    /// By the first log size that each is in force for (design 5): it holds until the next one's.
    History {
        dir: PathBuf,
        by_first_size: BTreeMap<u64, PathBuf>,
    },
}

/// One policy.
#[derive(Clone)]
pub(super) struct Policy {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Policy {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = read_part(path, PART_BYTES_MAX).context("no policy")?;
        Ok(Self { path: path.to_owned(), bytes })
    }
}

impl Policies {
    /// A file, a folder of policies, or a folder with such a folder named `policies` in it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.is_dir() {
            return Ok(Self::One(Policy::read(path)?));
        }
        for dir in [path.to_owned(), path.join("policies")] {
            let by_first_size = list(&dir)?;
            if !by_first_size.is_empty() {
                return Ok(Self::History { dir, by_first_size });
            }
        }
        anyhow::bail!(
            "no policy in the folder {}: it should hold <first-size>.txt, such as 2.txt, each named after the first \
             log size that it is in force for; or name one file",
            shown(path)
        )
    }

    /// The policy for a log of this size. A receipt that cannot be read is not valid under any.
    pub(super) fn pick(&self, size: Option<u64>) -> anyhow::Result<Policy> {
        match self {
            Self::One(policy) => Ok(policy.clone()),
            Self::History { dir, by_first_size } => {
                let newest = by_first_size.range(..=size.unwrap_or(u64::MAX)).next_back();
                let (_, path) = newest.with_context(|| {
                    let first = by_first_size.keys().next().copied().unwrap_or_default();
                    let size = size.unwrap_or_default();
                    let dir = shown(dir);
                    format!("{dir} has no policy for a log of size {size}: its oldest is in force from size {first} on")
                })?;
                Policy::read(path)
            }
        }
    }
}

fn list(dir: &Path) -> anyhow::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    if !dir.is_dir() {
        return Ok(found);
    }
    let context = || format!("cannot list the folder {}", shown(dir));
    for item in fs::read_dir(dir).with_context(context)? {
        let path = item.with_context(context)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(first_size) = name.and_then(|name| name.strip_suffix(".txt")).and_then(decimal_u63) {
            found.insert(first_size, path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_in_force_from_its_first_size_to_the_next_ones() {
        let dir = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo")).join("no-such-folder");
        let by_first_size = [2, 10, 500].map(|size| (size, dir.join(format!("{size}.txt")))).into();
        let history = Policies::History { dir, by_first_size };
        let picked = |size| format!("{:#}", history.pick(size).err().unwrap());
        for (size, name) in [(2, "2.txt"), (9, "2.txt"), (10, "10.txt"), (499, "10.txt"), (500, "500.txt")] {
            assert!(picked(Some(size)).contains(&format!("/{name}")), "{size}");
        }
        assert!(picked(None).contains("/500.txt"));
        assert!(picked(Some(1)).contains("its oldest is in force from size 2"));
    }
}
