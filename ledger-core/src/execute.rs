//! The state machine: `execute(state, batch) -> outcomes, entries, changes`, deterministic and
//! without clock, network or randomness. Every node runs it over every block.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, VerifyingKey};
use thiserror::Error;

use crate::{
    batch::{Batch, Item, batch_hash},
    block::{Header, state_digest_height},
    codec::DecodeError,
    entry::{self, entry_id},
    genesis::Genesis,
    hash::Hash32,
    json::INTEGER_MAX,
    member::MemberSet,
    merkle::{Frontier, leaf_hash},
    operation::{
        Operation, OperationError, OperationSignature, SignedOperation, TenantSet, TenantStatus, V1, approval_message,
        state_hash, tenant_message,
    },
    outcome::{Outcome, RejectionCode, Verdict, outcomes_root},
    state::{
        CaseRecord, Changes, OperationRecord, PendingMembers, StateError, StateRead, TenantRecord, changes_digest,
        json_value, key, members, operation_record, policy, read_json,
    },
};

/// Heights between a `members.set` and its effect.
pub const MEMBERS_DELAY: u64 = 2;

/// The block that the next one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its height.
    pub height: u64,
    /// Its time, Unix ms.
    pub time: u64,
    /// Its header hash.
    pub hash: Hash32,
    /// Right edge of the log after it.
    pub frontier: Frontier,
}

/// What a block does: everything that its header commits to.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Entries in log order, system entries first.
    pub entries: Vec<Vec<u8>>,
    /// Outcome of each operation in batch order.
    pub outcomes: Vec<Outcome>,
    /// State changes.
    pub changes: Changes,
    /// Right edge of the log after the block.
    pub frontier: Frontier,
    /// Leaf hash of each entry.
    pub leaves: Vec<Hash32>,
    /// The header.
    pub header: Header,
}

/// Why a batch can not become a block: no honest proposer sends it.
#[derive(Debug, Error)]
pub enum BatchError {
    /// The batch bytes cannot be read.
    #[error("batch cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// A submission is not signed by a submitter of the members in force.
    #[error("submission {0} is not signed by a submitter key of the members in force")]
    Submitter(usize),
    /// An operation is malformed.
    #[error("operation {op} is malformed: {source}")]
    Operation {
        /// Position among the operations of the batch.
        op: usize,
        /// What is wrong.
        source: OperationError,
    },
    /// An operation belongs to another network.
    #[error("operation {0} names another chain")]
    Chain(usize),
    /// An operation id has an outcome already, or stands in the batch twice.
    #[error("operation {0} repeats an operation id")]
    Repeated(usize),
    /// Block time before the previous block's, or not below 2^53.
    #[error("block time runs backwards or out of range")]
    Time,
    /// A state digest where none belongs, or none where one does.
    #[error("state digest does not belong to this height, or is missing")]
    StateDigest,
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The genesis: its two entries, the first state, and the header of height 0.
#[must_use]
pub fn execute_genesis(genesis: &Genesis) -> Executed {
    let entries = entry::genesis_entries(genesis).to_vec();
    let mut changes = Changes::new();
    changes.insert(key::MEMBERS.to_vec(), json_value(&genesis.members));
    changes.insert(key::POLICY.to_vec(), json_value(&genesis.policy));
    changes.insert(key::TENANT_COUNT.to_vec(), json_value(&0_u64));
    let leaves: Vec<Hash32> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    let members = genesis.members.hash();
    let header = Header {
        batch: batch_hash(&Batch::default().encode()),
        chain: genesis.chain_id(),
        changes: changes_digest(&changes),
        height: 0,
        members,
        next_members: members,
        outcomes: outcomes_root(&[]),
        previous: Hash32::ZERO,
        root: frontier.root(),
        state: None,
        time: genesis.time,
        tree_size: frontier.size().0,
        v: V1,
    };
    Executed { entries, outcomes: Vec::new(), changes, frontier, leaves, header }
}

/// Executes `batch` on top of `parent`.
///
/// `time` is the block time; `state_digest` is what the header must carry at this height: the
/// digest of the state at [`state_digest_height`], `None` where that is `None`. Two nodes with the same state get byte-equal results; a validator
/// calls this too and votes only if the header equals the proposer's.
pub fn execute(
    state: &(impl StateRead + ?Sized),
    parent: &Parent,
    chain: &Hash32,
    batch_bytes: &[u8],
    time: u64,
    state_digest: Option<Hash32>,
) -> Result<Executed, BatchError> {
    if time < parent.time || time > INTEGER_MAX {
        return Err(BatchError::Time);
    }
    if state_digest.is_some() != state_digest_height(parent.height + 1).is_some() {
        return Err(BatchError::StateDigest);
    }
    let batch = Batch::decode(batch_bytes)?;
    let mut block = Execution::new(state, parent, *chain, time)?;
    for (at, submission) in batch.submissions.iter().enumerate() {
        if !block.members.is_submitter(&submission.key) || !submission.verify(chain) {
            return Err(BatchError::Submitter(at));
        }
        for item in &submission.items {
            if let Item::Full(signed) = item {
                block.operation(signed)?;
            }
        }
    }
    block.finish(parent, batch_bytes, state_digest)
}

/// Checks one operation the way a batch will, without state: for a pool, before it is queued.
pub fn admit(chain: &Hash32, signed: &SignedOperation) -> Result<Operation, BatchError> {
    let operation = Operation::parse(&signed.operation).map_err(|source| BatchError::Operation { op: 0, source })?;
    if operation.common().chain == *chain { Ok(operation) } else { Err(BatchError::Chain(0)) }
}

/// A block under execution.
struct Execution<'s, S: ?Sized> {
    state: &'s S,
    chain: Hash32,
    height: u64,
    time: u64,
    members: MemberSet,
    pending: Option<PendingMembers>,
    tenants: BTreeMap<String, Option<TenantRecord>>,
    frontier: Frontier,
    entries: Vec<Vec<u8>>,
    leaves: Vec<Hash32>,
    outcomes: Vec<Outcome>,
    changes: Changes,
}

type Rejectable<T> = Result<Result<T, RejectionCode>, StateError>;

impl<'s, S: StateRead + ?Sized> Execution<'s, S> {
    fn new(state: &'s S, parent: &Parent, chain: Hash32, time: u64) -> Result<Self, StateError> {
        let height = parent.height + 1;
        let mut block = Self {
            state,
            chain,
            height,
            time,
            members: members(state)?,
            pending: read_json(state, key::PENDING_MEMBERS)?,
            tenants: BTreeMap::new(),
            frontier: parent.frontier.clone(),
            entries: Vec::new(),
            leaves: Vec::new(),
            outcomes: Vec::new(),
            changes: Changes::new(),
        };
        if let Some(pending) = block.pending.take_if(|pending| pending.effective == height) {
            block.members = pending.members;
            block.changes.insert(key::MEMBERS.to_vec(), json_value(&block.members));
            block.changes.insert(key::PENDING_MEMBERS.to_vec(), None);
            block.append(entry::members_active(block.members.hash(), height, time));
        }
        Ok(block)
    }

    /// Reads through the block's own changes.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.state.get(key),
        }
    }

    fn append(&mut self, entry: Vec<u8>) -> (u64, Hash32) {
        let index = self.frontier.size().0;
        let (leaf, id) = (leaf_hash(&entry), entry_id(&entry));
        self.frontier.push(leaf);
        self.leaves.push(leaf);
        self.entries.push(entry);
        (index, id)
    }

    fn operation(&mut self, signed: &SignedOperation) -> Result<(), BatchError> {
        let at = self.outcomes.len();
        let operation =
            Operation::parse(&signed.operation).map_err(|source| BatchError::Operation { op: at, source })?;
        let common = operation.common();
        if common.chain != self.chain {
            return Err(BatchError::Chain(at));
        }
        let key = key::operation(&common.op);
        if self.changes.contains_key(&key) || operation_record(self.state, &common.op)?.is_some() {
            return Err(BatchError::Repeated(at));
        }
        let (tenant, result) = self.run(&operation, signed)?;
        let verdict = match result {
            Ok(entry) => {
                let (index, entry) = self.append(entry);
                self.remember_case(&operation, entry)?;
                Verdict::Committed { index, entry }
            }
            Err(code) => Verdict::Rejected(code),
        };
        let record = OperationRecord {
            kind: common.kind,
            tenant,
            request: common.request,
            result: OperationRecord::result_of(&verdict),
        };
        self.changes.insert(key, Some(record.encode()));
        self.outcomes.push(Outcome { op: common.op, request: common.request, verdict });
        Ok(())
    }

    /// The tenant's number, and the entry or the rejection. State changes other than the
    /// outcome are made only where an entry comes of it.
    fn run(
        &mut self,
        operation: &Operation,
        signed: &SignedOperation,
    ) -> Result<(u64, Result<Vec<u8>, RejectionCode>), StateError> {
        let tenant = match operation.tenant() {
            None => return Ok((0, self.governance(operation, signed)?)),
            Some(id) => match self.acting_tenant(id, signed)? {
                Ok(number) => number,
                Err((number, code)) => return Ok((number, Err(code))),
            },
        };
        let result = match operation {
            Operation::Evidence(o) => Ok(entry::evidence(o, self.time)),
            Operation::Redigest(o) => {
                self.evidence_of(tenant, &o.evidence)?.map(|index| entry::redigest(o, index, self.time))
            }
            Operation::CaseOpen(o) => Ok(entry::case_open(o, self.time)),
            Operation::CaseAppend(o) => self.next_link(tenant, o)?.map(|link| entry::case_append(o, link, self.time)),
            Operation::TenantSet(_) | Operation::MembersSet(_) | Operation::PolicySet(_) => {
                self.governance(operation, signed)?
            }
        };
        if let (Operation::CaseOpen(o), Ok(_)) = (operation, &result) {
            let record = CaseRecord { head: Hash32::ZERO, links: 0, tenant };
            self.changes.insert(key::case(&o.op), json_value(&record));
        }
        Ok((tenant, result))
    }

    /// The number of a tenant that may act and, where it registered a key, has signed.
    fn acting_tenant(
        &mut self,
        id: &str,
        signed: &SignedOperation,
    ) -> Result<Result<u64, (u64, RejectionCode)>, StateError> {
        let Some(tenant) = self.tenant(id)? else {
            return Ok(Err((0, RejectionCode::TenantUnknown)));
        };
        if tenant.status != TenantStatus::Active {
            return Ok(Err((tenant.number, RejectionCode::TenantSuspended)));
        }
        if let Some(key) = tenant.key {
            let message = tenant_message(&self.chain, &signed.operation);
            if !signed.signatures.iter().any(|signature| signature.key == key && signature_holds(signature, &message)) {
                return Ok(Err((tenant.number, RejectionCode::TenantSignatureMissing)));
            }
        }
        Ok(Ok(tenant.number))
    }

    fn tenant(&mut self, id: &str) -> Result<Option<TenantRecord>, StateError> {
        if let Some(known) = self.tenants.get(id) {
            return Ok(known.clone());
        }
        let record: Option<TenantRecord> = read_json(self.state, &key::tenant(id))?;
        self.tenants.insert(id.to_owned(), record.clone());
        Ok(record)
    }

    /// Leaf index of committed evidence of this tenant.
    fn evidence_of(&self, tenant: u64, op: &Hash32) -> Rejectable<u64> {
        let record = self.get(&key::operation(op))?.map(|bytes| OperationRecord::decode(&bytes));
        let record = record.transpose().map_err(|_| StateError::Damaged(op.to_string()))?;
        let of_tenant = |record: &OperationRecord| {
            record.kind == crate::operation::OperationType::Evidence && record.tenant == tenant
        };
        Ok(record.filter(of_tenant).and_then(|record| record.result.ok()).ok_or(RejectionCode::EvidenceUnknown))
    }

    fn case(&self, op: &Hash32) -> Result<Option<CaseRecord>, StateError> {
        let bytes = self.get(&key::case(op))?;
        bytes
            .map(|bytes| crate::json::from_canonical(&bytes).map_err(|_| StateError::Damaged(op.to_string())))
            .transpose()
    }

    fn next_link(&self, tenant: u64, o: &crate::operation::CaseAppend) -> Rejectable<entry::Link> {
        let Some(case) = self.case(&o.case)?.filter(|case| case.tenant == tenant) else {
            return Ok(Err(RejectionCode::CaseUnknown));
        };
        let evidence_index = match self.evidence_of(tenant, &o.evidence)? {
            Ok(index) => index,
            Err(code) => return Ok(Err(code)),
        };
        if self.get(&key::case_link(&o.case, &o.evidence))?.is_some() {
            return Ok(Err(RejectionCode::EvidenceInCase));
        }
        Ok(Ok(entry::Link { evidence_index, position: case.links + 1, previous: case.head }))
    }

    /// Moves a case's head to the entry just appended.
    ///
    /// Invariant: `head` is the entry id of the link at `links`, or of the opening at 0; every
    /// `case.append` names it as `previous`, so a case cannot fork.
    fn remember_case(&mut self, operation: &Operation, entry: Hash32) -> Result<(), StateError> {
        let (case_op, link) = match operation {
            Operation::CaseOpen(o) => (o.op, None),
            Operation::CaseAppend(o) => (o.case, Some(o.evidence)),
            _ => return Ok(()),
        };
        let mut case = self.case(&case_op)?.ok_or_else(|| StateError::Damaged(case_op.to_string()))?;
        case.head = entry;
        if let Some(evidence) = link {
            case.links += 1;
            self.changes.insert(key::case_link(&case_op, &evidence), json_value(&case.links));
        }
        self.changes.insert(key::case(&case_op), json_value(&case));
        Ok(())
    }

    fn governance(&mut self, operation: &Operation, signed: &SignedOperation) -> Rejectable<Vec<u8>> {
        match operation {
            Operation::TenantSet(o) => self.tenant_set(o, signed),
            Operation::MembersSet(o) => {
                if let Err(code) = self.approved(signed, o.expires, o.replaces == self.members.hash()) {
                    return Ok(Err(code));
                }
                if self.pending.is_some() {
                    return Ok(Err(RejectionCode::ChangePending));
                }
                let pending = PendingMembers { effective: self.height + MEMBERS_DELAY, members: o.members.clone() };
                let entry = entry::members_set(o, pending.effective, self.time);
                self.changes.insert(key::PENDING_MEMBERS.to_vec(), json_value(&pending));
                self.pending = Some(pending);
                Ok(Ok(entry))
            }
            Operation::PolicySet(o) => {
                let current = self.get(key::POLICY)?;
                if let Err(code) = self.approved(signed, o.expires, o.replaces == state_hash(current.as_deref())) {
                    return Ok(Err(code));
                }
                if o.policy.version != policy(&Overlay(self))?.version + 1 {
                    return Ok(Err(RejectionCode::PolicyVersion));
                }
                self.changes.insert(key::POLICY.to_vec(), json_value(&o.policy));
                Ok(Ok(entry::policy_set(o, self.time)))
            }
            _ => Ok(Err(RejectionCode::ApprovalInsufficient)),
        }
    }

    fn tenant_set(&mut self, o: &TenantSet, signed: &SignedOperation) -> Rejectable<Vec<u8>> {
        let current = self.tenant(&o.tenant)?;
        let stored = current.as_ref().and_then(json_value);
        let fits = o.replaces == state_hash(stored.as_deref());
        let widens = current.as_ref().map_or(o.tier > 1 || o.key.is_some(), |current| {
            o.tier > current.tier
                || o.key != current.key
                || (current.status == TenantStatus::Suspended && o.status == TenantStatus::Active)
        });
        let decision = if widens { self.approved(signed, o.expires, fits) } else { self.timely(o.expires, fits) };
        if let Err(code) = decision {
            return Ok(Err(code));
        }
        let number = match current {
            Some(current) => current.number,
            None => {
                let count = self.get(key::TENANT_COUNT)?;
                let count = count.and_then(|bytes| crate::json::from_canonical::<u64>(&bytes).ok());
                let number = count.ok_or_else(|| StateError::Damaged("tenant count".to_owned()))? + 1;
                self.changes.insert(key::TENANT_COUNT.to_vec(), json_value(&number));
                number
            }
        };
        let record = TenantRecord { key: o.key, number, status: o.status, tier: o.tier };
        self.changes.insert(key::tenant(&o.tenant), json_value(&record));
        self.tenants.insert(o.tenant.clone(), Some(record));
        Ok(Ok(entry::tenant_set(o, self.time)))
    }

    fn timely(&self, expires: u64, fits: bool) -> Result<(), RejectionCode> {
        match (self.height <= expires, fits) {
            (false, _) => Err(RejectionCode::ApprovalExpired),
            (true, false) => Err(RejectionCode::StateReplaced),
            (true, true) => Ok(()),
        }
    }

    /// Whether a quorum of the members in force approved this very change of the current state.
    fn approved(&self, signed: &SignedOperation, expires: u64, fits: bool) -> Result<(), RejectionCode> {
        self.timely(expires, fits)?;
        let message = approval_message(&self.chain, &signed.operation);
        let holds = |key: &Hash32| {
            signed.signatures.iter().any(|signature| signature.key == *key && signature_holds(signature, &message))
        };
        let approvals: BTreeSet<&Hash32> =
            self.members.iter().map(|member| &member.governance_key).filter(|key| holds(key)).collect();
        if approvals.len() >= self.members.quorum() { Ok(()) } else { Err(RejectionCode::ApprovalInsufficient) }
    }

    fn finish(self, parent: &Parent, batch: &[u8], state: Option<Hash32>) -> Result<Executed, BatchError> {
        let in_force = self.members.hash();
        let next = self.pending.as_ref().filter(|pending| pending.effective == self.height + 1);
        let header = Header {
            batch: batch_hash(batch),
            chain: self.chain,
            changes: changes_digest(&self.changes),
            height: self.height,
            members: in_force,
            next_members: next.map_or(in_force, |pending| pending.members.hash()),
            outcomes: outcomes_root(&self.outcomes),
            previous: parent.hash,
            root: self.frontier.root(),
            state,
            time: self.time,
            tree_size: self.frontier.size().0,
            v: V1,
        };
        Ok(Executed {
            entries: self.entries,
            outcomes: self.outcomes,
            changes: self.changes,
            frontier: self.frontier,
            leaves: self.leaves,
            header,
        })
    }
}

/// The state as the block under execution sees it.
struct Overlay<'a, 's, S: ?Sized>(&'a Execution<'s, S>);

impl<S: StateRead + ?Sized> StateRead for Overlay<'_, '_, S> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(key)
    }
}

fn signature_holds(signature: &OperationSignature, message: &[u8]) -> bool {
    VerifyingKey::from_bytes(&signature.key.0)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(&signature.signature)).is_ok())
}

/// Replaces an operation that has an outcome by its hash, so that the rest of its submission can
/// go into a block and the submission's signature still verifies.
pub fn omit(item: &mut Item) {
    *item = Item::Omitted(item.hash());
}
