//! The folder of an embedded network: what lies where, and how it is made the first time.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use chopmark_node::keys;
use ledger_core::{
    genesis::{Genesis, Network},
    member::MemberSet,
    operation::V1,
    policy::Policy,
};

use crate::{cli::guard_beside, system};

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

    /// Makes whatever is missing: folders, keys, genesis. A crash at any line leaves something
    /// that the next call completes.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        for folder in [self.data.clone(), self.data.join("secrets")] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&folder).with_context(|| format!("create {}", folder.display()))?;
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
