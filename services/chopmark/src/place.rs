//! The folder of an embedded network: what lies where, and how it is made the first time.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use chopmark_domain::ports::Random;
use chopmark_node::keys;
use ledger_core::{
    genesis::{Genesis, Network},
    member::MemberSet,
    operation::V1,
    policy::Policy,
};

use crate::{cli::guard_beside, secrets, system};

/// Names of the secrets: key-encryption key, tags of ids, hashes of API keys.
pub(crate) const KEK: &str = "kek.key";
pub(crate) const IDS: &str = "ids.key";
pub(crate) const API_KEYS: &str = "api-keys.key";
const SECRETS: [&str; 3] = [KEK, IDS, API_KEYS];

/// Domain of the only member of an embedded network.
pub(crate) const DOMAIN: &str = "operator.localhost";
/// Origin of an embedded network's log.
pub(crate) const ORIGIN: &str = "sandbox.localhost/log";

/// An embedded network's folder.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    pub(crate) guard: PathBuf,
}

impl Place {
    /// `guard` defaults to `DIR.guard`, beside the folder, so that a copy of the folder is not a
    /// copy of the guard.
    pub(crate) fn new(data: &Path, guard: Option<&Path>) -> anyhow::Result<Self> {
        let absolute = |path: &Path| std::path::absolute(path).with_context(|| format!("find {}", path.display()));
        let data = absolute(data)?;
        let guard = guard.map_or_else(|| Ok(guard_beside(&data)), absolute)?;
        Ok(Self { data, guard })
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.data.join("node")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }

    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.data.join("secrets").join(name)
    }

    pub(crate) fn queue(&self) -> PathBuf {
        self.data.join("queue")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data.join("chopmark.db")
    }

    pub(crate) fn originals(&self) -> PathBuf {
        self.data.join("originals")
    }

    pub(crate) fn dev_json(&self) -> PathBuf {
        self.data.join("dev.json")
    }

    pub(crate) fn policy(&self) -> PathBuf {
        self.data.join("policy.txt")
    }

    /// Makes whatever is missing: folders, keys, secrets, genesis. A crash at any line leaves
    /// something that the next call completes; the genesis comes last.
    pub(crate) fn make(&self, random: &dyn Random) -> anyhow::Result<()> {
        if self.data.exists() && !self.data.is_dir() {
            bail!("{} is a file: give a folder, which may be new", self.data.display());
        }
        let folders = [self.data.clone(), self.data.join("secrets"), self.originals(), self.queue()];
        for folder in folders.iter().filter(|_| self.node().exists()) {
            // Made before the node: one that is missing now was lost, with what it held.
            if !folder.exists() {
                bail!("{} is missing: restore it from a backup", folder.display());
            }
        }
        for folder in &folders {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let parent = self.data.parent().unwrap_or(Path::new("/"));
        fs::File::open(parent).and_then(|folder| folder.sync_all()).context("sync the folder above the data")?;
        // The folder itself may have been there before, open to others.
        for folder in &folders[1..] {
            let owner_only = fs::Permissions::from_mode(0o700);
            fs::set_permissions(folder, owner_only).with_context(|| format!("close {} to others", folder.display()))?;
        }
        if !self.keys().exists() {
            let unfinished = self.data.join("keys.new");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
            }
            keys::generate(&unfinished)?;
            fs::rename(&unfinished, self.keys()).context("name the key folder")?;
            fs::File::open(&self.data).and_then(|folder| folder.sync_all()).context("sync the data folder")?;
        }
        if !self.node().exists() {
            for name in SECRETS {
                secrets::draw(&self.secret(name), random)?;
            }
            let genesis = Genesis {
                members: MemberSet::new(vec![keys::public_member(&self.keys(), DOMAIN)?])?,
                network: Network::Sandbox,
                origin: ORIGIN.to_owned(),
                policy: Policy::default(),
                time: system::now_ms(),
                v: V1,
            };
            chopmark_node::init(&self.node(), &self.guard, &genesis)?;
        }
        Ok(())
    }
}
