//! A consortium with fixed keys, and builders of the operations it executes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signer as _, SigningKey};
use ledger_core::{
    Hash32,
    batch::{Batch, Submission},
    block::{Block, Header},
    checkpoint::Checkpoint,
    digests::Digests,
    execute::{BatchError, Executed, Parent, execute, execute_genesis},
    genesis::{Genesis, Network},
    hash::sha3_256,
    member::{Member, MemberSet},
    merkle::{LeafIndex, inclusion_proof},
    note::{Note, cosign, sign},
    operation::{
        CaseAppend, CaseOpen, Evidence, MembersSet, Operation, OperationSignature, OperationType, PolicySet, Redigest,
        SignedOperation, TenantSet, TenantStatus, V1, approval_message, state_hash, tenant_message,
    },
    outcome::{RejectionCode, Verdict},
    policy::Policy,
    policy_file::PolicyFile,
    receipt::Receipt,
    state::{self, Changes, StateDigest, apply_changes, key},
    vote::{Certificate, precommit},
};

/// 2026-11-22T08:00:00Z in Unix ms: the genesis time of every test network.
pub(crate) const GENESIS_TIME: u64 = 1_795_334_400_000;
pub(crate) const ORIGIN: &str = "ledger.example/log";

/// The folder `schemas/` of the repository.
pub(crate) fn schemas_dir() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo")).join("../schemas")
}

/// A 32-byte id that says what it is: SHA3-256 of a label.
pub(crate) fn id(label: &str) -> Hash32 {
    sha3_256(label.as_bytes())
}

/// A signing key that only its label decides.
pub(crate) fn signing_key(label: &str) -> SigningKey {
    SigningKey::from_bytes(&id(label).0)
}

pub(crate) fn public(key: &SigningKey) -> Hash32 {
    Hash32(key.verifying_key().to_bytes())
}

/// The keys of one member.
#[derive(Clone)]
pub(crate) struct MemberKeys {
    pub(crate) domain: String,
    pub(crate) cosigner: SigningKey,
    pub(crate) governance: SigningKey,
    pub(crate) log: SigningKey,
    pub(crate) submitter: SigningKey,
    pub(crate) validator: SigningKey,
}

impl MemberKeys {
    pub(crate) fn new(domain: &str) -> Self {
        let key = |role: &str| signing_key(&format!("{domain} {role}"));
        Self {
            domain: domain.to_owned(),
            cosigner: key("cosigner"),
            governance: key("governance"),
            log: key("log"),
            submitter: key("submitter"),
            validator: key("validator"),
        }
    }

    pub(crate) fn member(&self) -> Member {
        Member {
            cosigner_key: public(&self.cosigner),
            domain: self.domain.clone(),
            governance_key: public(&self.governance),
            log_key: public(&self.log),
            submitter_keys: vec![public(&self.submitter)],
            validator_key: public(&self.validator),
        }
    }
}

/// `count` members, `a.example` onwards.
pub(crate) fn consortium(count: u8) -> Vec<MemberKeys> {
    (0..count).map(|at| MemberKeys::new(&format!("{}.example", char::from(b'a' + at)))).collect()
}

pub(crate) fn member_set(members: &[MemberKeys]) -> MemberSet {
    MemberSet::new(members.iter().map(MemberKeys::member).collect()).expect("members of a consortium")
}

pub(crate) fn genesis_of(members: &[MemberKeys]) -> Genesis {
    Genesis {
        members: member_set(members),
        network: Network::Sandbox,
        origin: ORIGIN.to_owned(),
        policy: Policy::default(),
        time: GENESIS_TIME,
        v: V1,
    }
}

/// A ledger in memory: what a node keeps, without consensus.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) members: Vec<MemberKeys>,
    pub(crate) chain: Hash32,
    pub(crate) state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) parent: Parent,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) leaves: Vec<Hash32>,
    /// Batch bytes and header of every block after the genesis.
    pub(crate) blocks: Vec<(Vec<u8>, Header)>,
}

impl Ledger {
    /// A network of `count` members, at its genesis.
    pub(crate) fn new(count: u8) -> Self {
        let members = consortium(count);
        let genesis = genesis_of(&members);
        let executed = execute_genesis(&genesis);
        let parent = Parent {
            height: 0,
            time: genesis.time,
            hash: executed.header.hash(),
            frontier: ledger_core::merkle::Frontier::new(),
        };
        let mut ledger = Self {
            members,
            chain: genesis.chain_id(),
            state: BTreeMap::new(),
            parent,
            entries: Vec::new(),
            leaves: Vec::new(),
            blocks: Vec::new(),
        };
        ledger.take(&executed);
        ledger
    }

    /// A network with tenant `ten_a` at tier 1.
    pub(crate) fn with_tenant(count: u8) -> Self {
        let mut ledger = Self::new(count);
        let operation = ledger.tenant_set("first tenant", "ten_a");
        ledger.commit(operation);
        ledger
    }

    fn take(&mut self, executed: &Executed) {
        apply_changes(&mut self.state, executed.changes.clone());
        self.entries.extend(executed.entries.iter().cloned());
        self.leaves.extend(executed.leaves.iter().copied());
        self.parent = Parent {
            height: executed.header.height,
            time: executed.header.time,
            hash: executed.header.hash(),
            frontier: executed.frontier.clone(),
        };
    }

    /// The batch of one submission by the first member.
    pub(crate) fn batch_of(&self, operations: Vec<SignedOperation>) -> Batch {
        Batch { submissions: vec![Submission::sign(&self.chain, &self.members[0].submitter, operations)] }
    }

    /// Executes without taking over.
    pub(crate) fn attempt(&self, batch: &Batch) -> Result<Executed, BatchError> {
        execute(&self.state, &self.parent, &self.chain, &batch.encode(), self.parent.time + 1000, None)
    }

    /// Executes and takes over.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<Executed, BatchError> {
        let executed = self.attempt(batch)?;
        self.take(&executed);
        self.blocks.push((batch.encode(), executed.header.clone()));
        Ok(executed)
    }

    /// One block with these operations.
    pub(crate) fn block(&mut self, operations: Vec<SignedOperation>) -> Executed {
        let batch = self.batch_of(operations);
        self.apply(&batch).expect("a batch of an honest proposer")
    }

    /// One block with one operation, which must be committed; its leaf index.
    pub(crate) fn commit(&mut self, operation: SignedOperation) -> u64 {
        match self.verdict(operation) {
            Verdict::Committed { index, .. } => index,
            Verdict::Rejected(code) => panic!("rejected: {}", code.as_str()),
        }
    }

    /// One block with one operation, which must be rejected.
    pub(crate) fn reject(&mut self, operation: SignedOperation) -> RejectionCode {
        match self.verdict(operation) {
            Verdict::Committed { index, .. } => panic!("committed at {index}"),
            Verdict::Rejected(code) => code,
        }
    }

    fn verdict(&mut self, operation: SignedOperation) -> Verdict {
        self.block(vec![operation]).outcomes[0].verdict
    }

    /// The entry at `index` as JSON.
    pub(crate) fn entry(&self, index: u64) -> serde_json::Value {
        serde_json::from_slice(&self.entries[usize::try_from(index).expect("an index")]).expect("an entry")
    }

    pub(crate) fn state_digest(&self) -> Hash32 {
        let mut digest = StateDigest::default();
        self.state.iter().for_each(|(key, value)| digest.update(key, value));
        digest.finish()
    }

    /// Hash of the state value that a governance operation replaces.
    pub(crate) fn replaced(&self, key: &[u8]) -> Hash32 {
        state_hash(self.state.get(key).map(Vec::as_slice))
    }

    /// `tenant.set` as [`tenant_set`](Self::tenant_set) builds it, changed, unsigned.
    pub(crate) fn tenant_change(
        &self,
        label: &str,
        tenant: &str,
        change: impl FnOnce(&mut TenantSet),
    ) -> SignedOperation {
        let mut operation = TenantSet {
            chain: self.chain,
            expires: self.parent.height + 10,
            key: None,
            op: id(label),
            replaces: self.replaced(&key::tenant(tenant)),
            request: id("request"),
            status: TenantStatus::Active,
            tenant: tenant.to_owned(),
            tier: 1,
            kind: OperationType::TenantSet,
            v: V1,
        };
        change(&mut operation);
        unsigned(Operation::TenantSet(Box::new(operation)))
    }

    /// An active tenant at tier 1 without a key: needs no approval when new.
    pub(crate) fn tenant_set(&self, label: &str, tenant: &str) -> SignedOperation {
        self.tenant_change(label, tenant, |_| {})
    }

    pub(crate) fn members_change(&self, label: &str, members: &[MemberKeys]) -> SignedOperation {
        let in_force = state::members(&self.state).expect("members in force");
        unsigned(Operation::MembersSet(Box::new(MembersSet {
            chain: self.chain,
            expires: self.parent.height + 10,
            members: member_set(members),
            op: id(label),
            replaces: in_force.hash(),
            request: id("request"),
            kind: OperationType::MembersSet,
            v: V1,
        })))
    }

    pub(crate) fn policy_change(&self, label: &str, change: impl FnOnce(&mut PolicySet)) -> SignedOperation {
        let current = state::policy(&self.state).expect("policy in force");
        let mut operation = PolicySet {
            chain: self.chain,
            expires: self.parent.height + 10,
            op: id(label),
            policy: Policy { version: current.version + 1, ..current },
            replaces: self.replaced(key::POLICY),
            request: id("request"),
            kind: OperationType::PolicySet,
            v: V1,
        };
        change(&mut operation);
        unsigned(Operation::PolicySet(Box::new(operation)))
    }

    /// Adds the approvals of the first `count` members.
    pub(crate) fn approved(&self, operation: SignedOperation, count: usize) -> SignedOperation {
        self.approved_by(operation, self.members.iter().take(count))
    }

    pub(crate) fn approved_by<'a>(
        &self,
        mut operation: SignedOperation,
        members: impl IntoIterator<Item = &'a MemberKeys>,
    ) -> SignedOperation {
        let message = approval_message(&self.chain, &operation.operation);
        for member in members {
            operation.signatures.push(signature(&member.governance, &message));
        }
        operation
    }

    /// Adds the signature of a tenant's key.
    pub(crate) fn signed_by_tenant(&self, mut operation: SignedOperation, key: &SigningKey) -> SignedOperation {
        operation.signatures.push(signature(key, &tenant_message(&self.chain, &operation.operation)));
        operation
    }

    pub(crate) fn evidence(&self, label: &str, tenant: &str) -> SignedOperation {
        self.evidence_with(label, tenant, |_| {})
    }

    pub(crate) fn evidence_with(
        &self,
        label: &str,
        tenant: &str,
        change: impl FnOnce(&mut Evidence),
    ) -> SignedOperation {
        let mut operation = Evidence {
            chain: self.chain,
            commitment: None,
            digests: Some(Digests::of(label.as_bytes())),
            media_type: Some("application/pdf".to_owned()),
            op: id(label),
            private: None,
            request: id("request"),
            size: Some(label.len() as u64),
            tenant: tenant.to_owned(),
            kind: OperationType::Evidence,
            v: V1,
        };
        change(&mut operation);
        unsigned(Operation::Evidence(Box::new(operation)))
    }

    pub(crate) fn redigest(&self, label: &str, tenant: &str, evidence: Hash32) -> SignedOperation {
        unsigned(Operation::Redigest(Box::new(Redigest {
            chain: self.chain,
            digests: Digests { sm3: Some(id("sm3")), ..Digests::default() },
            evidence,
            op: id(label),
            request: id("request"),
            tenant: tenant.to_owned(),
            kind: OperationType::Redigest,
            v: V1,
        })))
    }

    pub(crate) fn case_open(&self, label: &str, tenant: &str) -> SignedOperation {
        unsigned(Operation::CaseOpen(Box::new(CaseOpen {
            chain: self.chain,
            op: id(label),
            private: None,
            request: id("request"),
            tenant: tenant.to_owned(),
            kind: OperationType::CaseOpen,
            v: V1,
        })))
    }

    pub(crate) fn case_append(&self, label: &str, tenant: &str, case: Hash32, evidence: Hash32) -> SignedOperation {
        unsigned(Operation::CaseAppend(Box::new(CaseAppend {
            case,
            chain: self.chain,
            evidence,
            op: id(label),
            request: id("request"),
            tenant: tenant.to_owned(),
            kind: OperationType::CaseAppend,
            v: V1,
        })))
    }

    /// The checkpoint of the log as it is, with all log lines and the cosignatures of the first
    /// `cosigners` members, the first at Unix second 1 800 000 000, each a second later.
    pub(crate) fn checkpoint(&self, cosigners: usize) -> String {
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size: self.parent.frontier.size(),
            root: self.parent.frontier.root(),
        };
        let text = checkpoint.text();
        let logs = self.members.iter().map(|member| sign(ORIGIN, &member.log, &text));
        let cosigners = self.members.iter().take(cosigners).zip(1_800_000_000..).map(|(member, time)| {
            let name = member.member().cosigner_name();
            cosign(&name, &member.cosigner, &text, time)
        });
        let signatures = logs.chain(cosigners).collect::<Result<Vec<_>, _>>().expect("a checkpoint's signatures");
        Note { text, signatures }.render()
    }

    /// The receipt of the entry at `index` under [`Self::checkpoint`].
    pub(crate) fn receipt(&self, index: u64, cosigners: usize) -> Receipt {
        let size = self.parent.frontier.size();
        let Ok(path) = inclusion_proof(LeafIndex(index), size, self.leaves.as_slice());
        Receipt { extra: None, index: LeafIndex(index), path, checkpoint: self.checkpoint(cosigners) }
    }

    pub(crate) fn policy_text(&self) -> String {
        PolicyFile::text_of_members(ORIGIN, &member_set(&self.members))
    }

    /// A decided block of these operations, on top of the ledger, which stays as it is.
    pub(crate) fn decided(&self, operations: Vec<SignedOperation>) -> (Block, Executed) {
        let batch = self.batch_of(operations);
        let executed = self.attempt(&batch).expect("a batch of an honest proposer");
        let (height, value) = (executed.header.height, executed.header.hash());
        let precommits: Vec<(Hash32, [u8; 64])> = self
            .members
            .iter()
            .map(|member| (public(&member.validator), precommit(&self.chain, height, 0, &value, &member.validator)))
            .collect();
        let block = Block {
            header: executed.header.clone(),
            batch: batch.encode(),
            verdicts: executed.outcomes.iter().map(|outcome| outcome.verdict).collect(),
            certificate: Certificate::new(height, 0, value, &precommits),
        };
        (block, executed)
    }
}

pub(crate) fn unsigned(operation: Operation) -> SignedOperation {
    SignedOperation::unsigned(operation.encode())
}

pub(crate) fn signature(key: &SigningKey, message: &[u8]) -> OperationSignature {
    OperationSignature { key: public(key), signature: key.sign(message).to_bytes() }
}

/// Keys that a block changed, as text: one letter and the rest in hex.
pub(crate) fn changed_keys(changes: &Changes) -> Vec<String> {
    changes.keys().map(|key| format!("{}{}", char::from(key[0]), hex::encode(&key[1..]))).collect()
}
