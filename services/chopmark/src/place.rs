//! The folder of an embedded network: what lies where, and how it is made the first time.

use std::{
    ffi::OsStr,
    fs, io,
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

use crate::{cli::guard_beside, secrets, system, unfinished::Unfinished};

/// Names of the secrets: key-encryption key, tags of ids, hashes of API keys.
pub(crate) const KEK: &str = "kek.key";
pub(crate) const IDS: &str = "ids.key";
pub(crate) const API_KEYS: &str = "api-keys.key";
pub(crate) const SECRETS: [&str; 3] = [KEK, IDS, API_KEYS];

/// Most members of an embedded network: each runs a whole node in this process.
pub(crate) const MEMBERS_MAX: usize = 7;
/// The operator, whose committer submits: the first member.
const OPERATOR: &str = "operator.localhost";
/// The others in the order in which a network takes them in.
const OTHERS: [&str; MEMBERS_MAX - 1] = [
    "court.localhost",
    "notary.localhost",
    "association.localhost",
    "arbitration.localhost",
    "university.localhost",
    "archive.localhost",
];
/// Folder of their folders.
const MEMBERS: &str = "members";
/// Origin of an embedded network's log.
pub(crate) const ORIGIN: &str = "sandbox.localhost/log";

/// An embedded network's folder.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    pub(crate) guard: PathBuf,
}

/// Where one member of an embedded network keeps its own.
#[derive(Debug, Clone)]
pub(crate) struct MemberPlace {
    pub(crate) domain: &'static str,
    pub(crate) keys: PathBuf,
    pub(crate) node: PathBuf,
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

    /// The members: the operator in the folder itself, the others below it. Guards lie outside.
    pub(crate) fn members(&self, count: usize) -> Vec<MemberPlace> {
        let operator =
            MemberPlace { domain: OPERATOR, keys: self.keys(), node: self.node(), guard: self.guard.clone() };
        let others = OTHERS.iter().take(count.saturating_sub(1)).map(|domain| {
            let folder = self.data.join(MEMBERS).join(domain);
            let guard = other_guard(&self.guard, domain.as_ref());
            MemberPlace { domain, keys: folder.join("keys"), node: folder.join("node"), guard }
        });
        std::iter::once(operator).chain(others).collect()
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
    pub(crate) fn make(&self, random: &dyn Random, members: usize) -> anyhow::Result<()> {
        if self.data.exists() && !self.data.is_dir() {
            bail!("{} is a file: give a folder, which may be new", self.data.display());
        }
        let folders = [self.data.clone(), self.data.join("secrets"), self.originals(), self.queue()];
        // Made before the node: one that is missing now was lost, with what it held.
        if self.node().exists()
            && let Some(lost) = folders.iter().find(|folder| !folder.exists())
        {
            bail!("{} is missing: restore it from a backup", lost.display());
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
        let places = self.members(members);
        // Finished last: whatever a member lacks beside it was lost.
        let finished = self.node().exists();
        if finished && let Some(lost) = places.iter().find(|place| !place.keys.exists() || !place.node.exists()) {
            let folder = if lost.keys.exists() { &lost.node } else { &lost.keys };
            bail!("{} is missing: restore it from a backup, or start with the --members of before", folder.display());
        }
        for place in &places {
            make_keys(place)?;
        }
        if finished {
            let genesis = fs::read(self.node().join("genesis.json")).context("read the genesis")?;
            let born = Genesis::parse(&genesis)?.members.len();
            if born != members {
                bail!("{} is a network of {born} members: start it with --members {born}", self.data.display());
            }
        } else {
            for name in SECRETS {
                secrets::draw(&self.secret(name), random)?;
            }
        }
        let genesis = self.genesis(&places)?;
        // The operator's node last: what was begun and not finished is begun again.
        for place in places.iter().rev().filter(|place| !place.node.exists()) {
            chopmark_node::init(&place.node, &place.guard, &genesis)?;
        }
        Ok(())
    }

    /// The genesis that some member has already, or a new one.
    fn genesis(&self, places: &[MemberPlace]) -> anyhow::Result<Genesis> {
        for place in places {
            match fs::read(place.node.join("genesis.json")) {
                Ok(bytes) => return Ok(Genesis::parse(&bytes)?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("read the genesis"),
            }
        }
        let mut members =
            places.iter().map(|place| keys::public_member(&place.keys, place.domain)).collect::<Result<Vec<_>, _>>()?;
        members.sort_by(|a, b| a.domain.cmp(&b.domain));
        Ok(Genesis {
            members: MemberSet::new(members)?,
            network: Network::Sandbox,
            origin: ORIGIN.to_owned(),
            policy: Policy::default(),
            time: system::now_ms(),
            v: V1,
        })
    }
}

/// The guard of another member than the operator, whose guard it lies beside.
pub(crate) fn other_guard(operators: &Path, domain: &OsStr) -> PathBuf {
    let mut guard = operators.as_os_str().to_owned();
    guard.push(".");
    guard.push(domain);
    guard.into()
}

/// Folders of the other members than the operator, as far as there are any in this folder.
pub(crate) fn other_members(data: &Path) -> io::Result<Vec<PathBuf>> {
    let items = match fs::read_dir(data.join(MEMBERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items?,
    };
    let mut folders = items.map(|item| Ok(item?.path())).collect::<io::Result<Vec<_>>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}

/// Draws a member's keys, all or none.
fn make_keys(place: &MemberPlace) -> anyhow::Result<()> {
    if place.keys.exists() {
        return Ok(());
    }
    let unfinished = Unfinished::folder(&place.keys)?;
    keys::generate(unfinished.path())?;
    unfinished.finish()
}
