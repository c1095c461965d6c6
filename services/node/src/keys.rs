//! Key files: Ed25519 private keys as PEM PKCS#8, readable by their owner alone.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, spki::der::pem::LineEnding};
use ledger_core::{Hash32, SigningKey, member::Member};
use zeroize::Zeroizing;

use crate::NodeError;

/// Keys that stand in the member set and are rotated together.
#[derive(Clone)]
pub struct SigningKeys {
    /// Signs the log line.
    pub log: SigningKey,
    /// Cosigns checkpoints.
    pub cosigner: SigningKey,
    /// Votes on blocks.
    pub validator: SigningKey,
}

/// The keys of one member's node: `KEYS/NAME.pem`, and one folder `KEYS/rotation-N` for every time
/// that they were rotated. Which of them sign is for the member set of the height to say, so that a
/// rotation needs no restart and no second in which neither key counts.
#[derive(Clone)]
pub struct NodeKeys {
    folder: PathBuf,
    /// Oldest first, at least one.
    signing: Vec<SigningKeys>,
    /// Signs "not found" statements.
    pub statement: SigningKey,
    /// Authenticates this node to the other members' nodes.
    pub network: SigningKey,
}

/// Names of the key files in a key folder.
pub const KEY_FILES: [&str; 7] = ["log", "cosigner", "validator", "statement", "network", "governance", "submitter"];
/// Names of those that a rotation draws again.
pub const ROTATED_KEY_FILES: [&str; 5] = ["log", "cosigner", "validator", "governance", "submitter"];

const ROTATION: &str = "rotation-";

impl SigningKeys {
    fn load(folder: &Path) -> Result<Self, NodeError> {
        Ok(Self {
            log: load(folder, "log")?,
            cosigner: load(folder, "cosigner")?,
            validator: load(folder, "validator")?,
        })
    }

    /// Names of those that this member's record does not have.
    fn unknown_to(&self, member: &Member) -> Vec<&'static str> {
        let keys = [
            ("log", &self.log, &member.log_key),
            ("cosigner", &self.cosigner, &member.cosigner_key),
            ("validator", &self.validator, &member.validator_key),
        ];
        let unknown = |(name, key, public): (_, &SigningKey, &Hash32)| {
            (key.verifying_key().to_bytes() != public.0).then_some(name)
        };
        keys.into_iter().filter_map(unknown).collect()
    }
}

impl NodeKeys {
    /// Loads the node's keys from a folder.
    pub fn load(folder: &Path) -> Result<Self, NodeError> {
        Ok(Self {
            folder: folder.to_owned(),
            signing: load_signing(folder)?,
            statement: load(folder, "statement")?,
            network: load(folder, "network")?,
        })
    }

    /// Keys that lie nowhere.
    #[cfg(test)]
    pub(crate) fn in_memory(signing: SigningKeys, statement: SigningKey, network: SigningKey) -> Self {
        Self { folder: PathBuf::new(), signing: vec![signing], statement, network }
    }

    /// Public half of the network key: what the other members pin.
    #[must_use]
    pub fn network_key(&self) -> Hash32 {
        Hash32(self.network.verifying_key().to_bytes())
    }

    /// The keys that stand in this member's record.
    #[must_use]
    pub fn of(&self, member: &Member) -> Option<&SigningKeys> {
        self.signing.iter().rev().find(|keys| keys.unknown_to(member).is_empty())
    }

    /// Names of the keys that differ from this member's record, in the generation that comes nearest to
    /// it; none where one [is of](Self::of) the member.
    #[must_use]
    pub fn unknown_to(&self, member: &Member) -> Vec<&'static str> {
        self.signing.iter().map(|keys| keys.unknown_to(member)).min_by_key(Vec::len).unwrap_or_default()
    }

    /// The last ones that were drawn.
    ///
    /// # Panics
    /// Never: there is always one.
    #[must_use]
    pub fn newest(&self) -> &SigningKeys {
        self.signing.last().expect("at least one generation of keys")
    }

    /// The validator keys of all generations.
    pub(crate) fn validators(&self) -> Vec<&SigningKey> {
        self.signing.iter().map(|keys| &keys.validator).collect()
    }

    /// Takes up what a rotation has drawn since.
    pub fn reload(&mut self) -> Result<(), NodeError> {
        self.signing = load_signing(&self.folder)?;
        Ok(())
    }
}

fn load_signing(folder: &Path) -> Result<Vec<SigningKeys>, NodeError> {
    // A generation that is over may have been deleted, in whole or, as at the first one, in part.
    let kept = |folder: &PathBuf| folder.join("validator.pem").exists();
    let generations: Vec<PathBuf> = generations(folder)?.into_iter().filter(kept).collect();
    let last = generations.len().saturating_sub(1);
    let loaded = generations.iter().enumerate().filter_map(|(at, folder)| match SigningKeys::load(folder) {
        Err(NodeError::Io { .. }) if at < last => None,
        loaded => Some(loaded),
    });
    let loaded: Vec<SigningKeys> = loaded.collect::<Result<_, _>>()?;
    if loaded.is_empty() {
        return Err(NodeError::Key {
            path: folder.to_owned(),
            reason: "no validator.pem, log.pem and cosigner.pem".to_owned(),
        });
    }
    Ok(loaded)
}

/// The folders that hold a member's keys: the first one, then each rotation in order.
pub fn generations(folder: &Path) -> Result<Vec<PathBuf>, NodeError> {
    let mut rotations: BTreeMap<u32, PathBuf> = BTreeMap::new();
    for item in fs::read_dir(folder).map_err(NodeError::io("read keys", folder))? {
        let path = item.map_err(NodeError::io("read keys", folder))?.path();
        if let Some(number) = rotation_number(&path) {
            rotations.insert(number, path);
        }
    }
    Ok(std::iter::once(folder.to_owned()).chain(rotations.into_values()).collect())
}

fn rotation_number(folder: &Path) -> Option<u32> {
    folder.file_name()?.to_str()?.strip_prefix(ROTATION)?.parse().ok()
}

/// The private half of `public` among all generations of a key; `None` if this member never had it.
pub fn find(folder: &Path, name: &str, public: &[Hash32]) -> Result<Option<SigningKey>, NodeError> {
    for folder in generations(folder)?.iter().rev() {
        // Kept elsewhere, or deleted when it was over.
        if !folder.join(format!("{name}.pem")).exists() {
            continue;
        }
        let key = load(folder, name)?;
        if public.contains(&Hash32(key.verifying_key().to_bytes())) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Draws the next generation of keys beside those in use. Returns its folder, which gets its name
/// last: what a crash leaves is drawn again.
pub fn rotate(folder: &Path) -> Result<PathBuf, NodeError> {
    let number = generations(folder)?.iter().filter_map(|folder| rotation_number(folder)).max().unwrap_or(0) + 1;
    let (unfinished, next) = (folder.join("rotation.new"), folder.join(format!("{ROTATION}{number}")));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(NodeError::io("remove unfinished keys", &unfinished))?;
    }
    draw(&unfinished, &ROTATED_KEY_FILES)?;
    fs::rename(&unfinished, &next).map_err(NodeError::io("name keys", &next))?;
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(NodeError::io("sync folder", folder))?;
    Ok(next)
}

/// Draws every key of a member into `folder`, which must not hold any.
pub fn generate(folder: &Path) -> Result<(), NodeError> {
    draw(folder, &KEY_FILES)
}

fn draw(folder: &Path, names: &[&str]) -> Result<(), NodeError> {
    fs::create_dir_all(folder).map_err(NodeError::io("create folder", folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(NodeError::io("protect folder", folder))?;
    for name in names {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut())
            .map_err(|error| NodeError::Key { path: folder.join(name), reason: format!("no randomness: {error}") })?;
        save(folder, name, &SigningKey::from_bytes(&seed))?;
    }
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(NodeError::io("sync folder", folder))
}

/// The public side of the keys in `folder`, as a member of a consortium.
pub fn public_member(folder: &Path, domain: &str) -> Result<Member, NodeError> {
    let public = |name| Ok::<_, NodeError>(Hash32(load(folder, name)?.verifying_key().to_bytes()));
    Ok(Member {
        cosigner_key: public("cosigner")?,
        domain: domain.to_owned(),
        governance_key: public("governance")?,
        log_key: public("log")?,
        submitter_keys: vec![public("submitter")?],
        validator_key: public("validator")?,
    })
}

fn save(folder: &Path, name: &str, key: &SigningKey) -> Result<(), NodeError> {
    let path = folder.join(format!("{name}.pem"));
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| NodeError::Key { path: path.clone(), reason: error.to_string() })?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(NodeError::io("create key", &path))?;
    file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(NodeError::io("write key", &path))
}

/// Loads one key; a file that others can read is refused, and so is a folder that they can write to,
/// for they could put a key of theirs into it.
pub fn load(folder: &Path, name: &str) -> Result<SigningKey, NodeError> {
    let mode = fs::metadata(folder).map_err(NodeError::io("read keys", folder))?.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        let reason = format!(
            "others can change this folder (mode {mode:o}); run `chmod 700` on it, and rotate the keys if anybody else \
             had access"
        );
        return Err(NodeError::Key { path: folder.to_owned(), reason });
    }
    let path = folder.join(format!("{name}.pem"));
    let metadata = fs::metadata(&path).map_err(NodeError::io("read key", &path))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let reason =
            "others can read it; run `chmod 600` on it, and rotate the key if anybody else had access".to_owned();
        return Err(NodeError::Key { path, reason });
    }
    let pem = Zeroizing::new(fs::read_to_string(&path).map_err(NodeError::io("read key", &path))?);
    SigningKey::from_pkcs8_pem(&pem)
        .map_err(|_| NodeError::Key { path, reason: "not an Ed25519 private key in PEM PKCS#8".to_owned() })
}
