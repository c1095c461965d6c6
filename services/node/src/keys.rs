//! Key files: Ed25519 private keys as PEM PKCS#8, readable by their owner alone.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, spki::der::pem::LineEnding};
use ledger_core::{Hash32, SigningKey, member::Member};
use zeroize::Zeroizing;

use crate::NodeError;

/// The keys of one member's node.
#[derive(Clone)]
pub struct NodeKeys {
    /// Signs the log line.
    pub log: SigningKey,
    /// Cosigns checkpoints.
    pub cosigner: SigningKey,
    /// Votes on blocks.
    pub validator: SigningKey,
    /// Signs "not found" statements.
    pub statement: SigningKey,
    /// Authenticates this node to the other members' nodes.
    pub network: SigningKey,
}

/// Names of the key files in a key folder.
pub const KEY_FILES: [&str; 7] = ["log", "cosigner", "validator", "statement", "network", "governance", "submitter"];

impl NodeKeys {
    /// Loads the node's keys from a folder.
    pub fn load(folder: &Path) -> Result<Self, NodeError> {
        Ok(Self {
            log: load(folder, "log")?,
            cosigner: load(folder, "cosigner")?,
            validator: load(folder, "validator")?,
            statement: load(folder, "statement")?,
            network: load(folder, "network")?,
        })
    }
}

impl NodeKeys {
    /// Public half of the network key: what the other members pin.
    #[must_use]
    pub fn network_key(&self) -> Hash32 {
        Hash32(self.network.verifying_key().to_bytes())
    }
}

/// Draws every key of a member into `folder`, which must not hold any.
pub fn generate(folder: &Path) -> Result<(), NodeError> {
    fs::create_dir_all(folder).map_err(NodeError::io("create folder", folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(NodeError::io("protect folder", folder))?;
    for name in KEY_FILES {
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

/// Loads one key; a file that others can read is refused.
pub fn load(folder: &Path, name: &str) -> Result<SigningKey, NodeError> {
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
