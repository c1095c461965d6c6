//! What anybody may read: records by digest or by leaf index, the log itself, the network. No
//! private part comes near this module.

use std::{collections::BTreeMap, sync::Arc};

use chopmark_api::{Problem, ProblemCode, query::PageQuery};
use ledger_core::{
    digests::Algorithm,
    entry::entry_id,
    hash::Hash32,
    member::{faults_tolerated, quorum},
    merkle::{LeafIndex, TreeSize},
    note::{Note, VerifierKey},
    policy_file::PolicyFile,
    tile::TilePath,
};

use crate::{
    cursor, failure,
    id::IdIssuer,
    ports::{BlockRef, LedgerReader, LedgerReceipt, LedgerStatus},
    proof,
};

/// The public reading side.
pub struct PublicLedger {
    pub(crate) network: String,
    pub(crate) chain: Hash32,
    pub(crate) ids: IdIssuer,
    pub(crate) ledger: Arc<dyn LedgerReader>,
}

/// What a checkpoint says, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Tree size.
    pub size: TreeSize,
    /// Root.
    pub root: Hash32,
    /// "Existed no later than", Unix seconds.
    pub time: u64,
    /// Key names of the members that cosigned.
    pub cosigners: Vec<String>,
}

impl CheckpointFacts {
    pub(crate) fn of_receipt(receipt: &LedgerReceipt) -> Self {
        let cosigners = cosignatures(&receipt.receipt.checkpoint).into_iter().map(|(name, _)| name).collect();
        Self { size: receipt.size, root: receipt.root, time: receipt.time, cosigners }
    }

    fn of_status(status: &LedgerStatus) -> Self {
        let found = cosignatures(&status.checkpoint);
        let mut times: Vec<u64> = found.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        let time = times.get(faults_tolerated(times.len())).copied().unwrap_or_default();
        let cosigners = found.into_iter().map(|(name, _)| name).collect();
        Self { size: status.size, root: status.root, time, cosigners }
    }
}

/// Names and times of a checkpoint's cosignatures; the node has verified them.
fn cosignatures(checkpoint: &str) -> Vec<(String, u64)> {
    const COSIGNATURE_BYTES: usize = 8 + 64;
    let Ok(note) = Note::parse(checkpoint) else { return Vec::new() };
    let time = |payload: &[u8]| Some(u64::from_be_bytes(*payload.first_chunk()?));
    let lines = note.signatures.into_iter().filter(|line| line.payload.len() == COSIGNATURE_BYTES);
    lines.filter_map(|line| Some((line.name, time(&line.payload)?))).collect()
}

/// One public record.
#[derive(Debug, Clone)]
pub struct PublicRecord {
    /// Leaf index.
    pub index: LeafIndex,
    /// Entry bytes.
    pub entry: Vec<u8>,
    /// Entry id.
    pub entry_id: Hash32,
    /// Its block; an entry of the genesis has none.
    pub block: Option<BlockRef>,
    /// The checkpoint of its receipt.
    pub checkpoint: CheckpointFacts,
}

/// Every record of a digest, or the signed statement that there is none.
#[derive(Debug, Clone)]
pub struct Found {
    /// In the order of the log.
    pub records: Vec<PublicRecord>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
    /// The signed statement, where there is no record.
    pub statement: Option<String>,
    /// The index is complete up to this size.
    pub complete_to: TreeSize,
}

/// The network as the ledger tells it.
#[derive(Debug, Clone)]
pub struct NetworkFacts {
    /// `sandbox` or `live`.
    pub network: String,
    /// Chain id.
    pub chain: Hash32,
    /// Origin of the log.
    pub origin: String,
    /// Newest decided height.
    pub height: u64,
    /// Newest quorum checkpoint.
    pub checkpoint: CheckpointFacts,
    /// Members with their keys.
    pub members: Vec<MemberFacts>,
    /// Cosignatures that make a quorum.
    pub quorum: usize,
    /// SHA-256 of the policy file.
    pub policy_sha256: Hash32,
    /// SHA-256 of every policy file by the first tree size that it is for.
    pub policies: BTreeMap<u64, Hash32>,
}

/// One member and its `vkey` lines; a statement key is served only by a node that knows it.
#[derive(Debug, Clone)]
pub struct MemberFacts {
    /// Name in the policy.
    pub name: String,
    /// Log key.
    pub log_key: String,
    /// Cosigner key.
    pub cosigner_key: String,
    /// Statement key.
    pub statement_key: Option<String>,
}

impl PublicLedger {
    /// Over a ledger; `ids` signs the cursors of its pages.
    #[must_use]
    pub fn new(network: String, chain: Hash32, ids: IdIssuer, ledger: Arc<dyn LedgerReader>) -> Self {
        Self { network, chain, ids, ledger }
    }

    /// `sandbox` or `live`.
    #[must_use]
    pub fn network_name(&self) -> &str {
        &self.network
    }

    /// Whether the node behind it decides and signs.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.ledger.is_well()
    }

    /// Records of a digest from the cursor on.
    pub async fn find(&self, algorithm: Algorithm, digest: &Hash32, page: &PageQuery) -> Result<Found, Problem> {
        let scope = [b"verify-from", self.network.as_bytes(), algorithm.as_str().as_bytes(), &digest.0];
        let cursor = cursor::read(&self.ids, &scope, page.cursor.as_ref())?;
        let (from, limit) = (LeafIndex(cursor.unwrap_or(0)), usize::from(page.limit));
        let hits = self.ledger.find_digest(algorithm, digest, from, limit + 1).await;
        let hits = hits.map_err(|error| failure::port(&error))?;
        let mut records = Vec::new();
        for index in hits.indexes.iter().take(limit) {
            records.push(self.record(*index).await?);
        }
        let statement = if hits.indexes.is_empty() && cursor.is_none() {
            let note = self.ledger.not_found_statement(algorithm, digest).await;
            Some(note.map_err(|error| failure::port(&error))?)
        } else {
            None
        };
        let next_cursor = hits.indexes.get(limit).map(|next| cursor::issue(&self.ids, &scope, next.0));
        Ok(Found { records, next_cursor, statement, complete_to: hits.complete_to })
    }

    pub(crate) async fn record(&self, index: LeafIndex) -> Result<PublicRecord, Problem> {
        let entry = self.entry(index).await?;
        let block = self.ledger.block_of(index).await.map_err(|error| failure::port(&error))?;
        let receipt = self.ledger_receipt(index).await?;
        Ok(PublicRecord {
            index,
            entry_id: entry_id(&entry),
            entry,
            block,
            checkpoint: CheckpointFacts::of_receipt(&receipt),
        })
    }

    /// Exact bytes of an entry that a checkpoint covers.
    pub async fn entry(&self, index: LeafIndex) -> Result<Vec<u8>, Problem> {
        let entry = self.ledger.entry(index).await.map_err(|error| failure::port(&error))?;
        entry.ok_or_else(|| ProblemCode::CheckpointNotFound.into())
    }

    /// The public receipt: without any opening.
    pub async fn receipt(&self, index: LeafIndex) -> Result<String, Problem> {
        Ok(self.ledger_receipt(index).await?.receipt.render())
    }

    async fn ledger_receipt(&self, index: LeafIndex) -> Result<LedgerReceipt, Problem> {
        let receipt = self.ledger.receipt(index).await.map_err(|error| failure::port(&error))?;
        receipt.ok_or_else(|| ProblemCode::CheckpointNotFound.into())
    }

    /// The public bundle.
    pub async fn bundle(&self, index: LeafIndex) -> Result<Vec<u8>, Problem> {
        let entry = self.entry(index).await?;
        let receipt = self.receipt(index).await?;
        proof::bundle(&entry, &receipt, &self.policy().await?)
    }

    /// The newest checkpoint, as served.
    pub async fn checkpoint(&self) -> Result<String, Problem> {
        Ok(self.status().await?.checkpoint)
    }

    /// The newest published state.
    pub async fn status(&self) -> Result<LedgerStatus, Problem> {
        self.ledger.status().await.map_err(|error| failure::port(&error))
    }

    /// The policy file for verifiers.
    pub async fn policy(&self) -> Result<String, Problem> {
        self.ledger.policy().await.map_err(|error| failure::port(&error))
    }

    /// The policy file for tree sizes from `first_size` on.
    pub async fn policy_from(&self, first_size: u64) -> Result<String, Problem> {
        self.policies().await?.remove(&first_size).ok_or_else(|| ProblemCode::PolicyNotFound.into())
    }

    async fn policies(&self) -> Result<BTreeMap<u64, String>, Problem> {
        self.ledger.policies().await.map_err(|error| failure::port(&error))
    }

    /// A tile or bundle of the published tree.
    pub async fn tile(&self, path: TilePath) -> Result<Vec<u8>, Problem> {
        let tile = self.ledger.tile(path).await.map_err(|error| failure::port(&error))?;
        tile.ok_or_else(|| ProblemCode::TileNotFound.into())
    }

    /// The network.
    pub async fn network(&self) -> Result<NetworkFacts, Problem> {
        let status = self.status().await?;
        let text = self.policy().await?;
        let policy = PolicyFile::parse(&text).map_err(|_| failure::broken("a policy file that is none"))?;
        let statement_keys = self.ledger.statement_keys().await.map_err(|error| failure::port(&error))?;
        let policies = self.policies().await?.into_iter();
        Ok(NetworkFacts {
            network: self.network.clone(),
            chain: self.chain,
            origin: self.ledger.origin(),
            height: status.height,
            checkpoint: CheckpointFacts::of_status(&status),
            quorum: quorum(policy.witnesses.len()),
            members: members(&policy, &statement_keys),
            policy_sha256: Algorithm::Sha256.digest(text.as_bytes()),
            policies: policies.map(|(size, text)| (size, Algorithm::Sha256.digest(text.as_bytes()))).collect(),
        })
    }
}

/// The policy lists the members' log keys and cosigner keys in the same order; key names tell
/// the domain: `<domain>/cosigner`, `<domain>/statement`.
fn members(policy: &PolicyFile, statement_keys: &[String]) -> Vec<MemberFacts> {
    let domain = |key: &VerifierKey| key.name().rsplit_once('/').map_or(key.name(), |(domain, _)| domain).to_owned();
    let member = |(log, cosigner): (&VerifierKey, &VerifierKey)| {
        let name = domain(cosigner);
        let prefix = format!("{name}/statement+");
        MemberFacts {
            log_key: log.vkey(),
            cosigner_key: cosigner.vkey(),
            statement_key: statement_keys.iter().find(|key| key.starts_with(&prefix)).cloned(),
            name,
        }
    };
    policy.logs.iter().zip(&policy.witnesses).map(member).collect()
}
