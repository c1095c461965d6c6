//! The verified chain: what every block has to satisfy before its outcomes are believed, and the
//! little state that this takes. Pure and without I/O; refuses to guess.

use std::sync::Arc;

use chopmark_domain::{
    id::ResourceKey,
    ports::LedgerBlock,
    record::{CaseLink, CommittedAt, OperationState, ProjectedBlock, ProjectedOperation, RejectedAt},
};
use ledger_core::{
    batch::{Batch, batch_hash},
    block::{Block, Header},
    entry::{entry_id, members_active},
    execute::{MEMBERS_DELAY, execute_genesis},
    genesis::Genesis,
    hash::Hash32,
    member::MemberSet,
    merkle::{Frontier, TreeSize, leaf_hash},
    operation::{Operation, OperationType, operation_hash},
    outcome::{Outcome, Verdict, outcomes_root},
};
use serde::Deserialize;

use crate::error::CheckError;

/// The chain up to its tip, all of it verified.
///
/// Invariant: `frontier` is the right edge of the tree whose root and size the tip's header
/// names, and `members` is the set whose hash it names as next. Only [`Chain::verify`] moves
/// them, and all together.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    network: &'static str,
    id: Hash32,
    height: u64,
    hash: Hash32,
    time: u64,
    frontier: Frontier,
    /// In force at the next height.
    members: Arc<MemberSet>,
    /// Whether the next height is their first.
    opens: bool,
    /// A decided set that waits for a later height than the next.
    waiting: Option<Arc<MemberSet>>,
}

/// The last projected block and what the ledger's rules still owe after it.
pub(crate) struct Resumed<'a> {
    /// Its header.
    pub(crate) header: &'a Header,
    /// Right edge of the tree after it; the caller has compared its root.
    pub(crate) frontier: Frontier,
    /// In force at the next height.
    pub(crate) members: Arc<MemberSet>,
    /// Whether the block before decided a member set, whose first height then is the next.
    pub(crate) opens: bool,
    /// The member set that the block itself decided.
    pub(crate) waiting: Option<MemberSet>,
}

/// A verified block and the members that decided it.
pub(crate) struct Verified {
    pub(crate) projected: ProjectedBlock,
    pub(crate) members: Arc<MemberSet>,
}

impl Chain {
    /// The chain that has only its genesis.
    pub(crate) fn genesis(genesis: &Genesis) -> Self {
        let executed = execute_genesis(genesis);
        Self {
            network: genesis.network.as_str(),
            id: executed.header.chain,
            height: 0,
            hash: executed.header.hash(),
            time: executed.header.time,
            frontier: executed.frontier,
            members: Arc::new(genesis.members.clone()),
            opens: false,
            waiting: None,
        }
    }

    /// The chain as of a block that was verified in an earlier life.
    pub(crate) fn resume(genesis: &Genesis, resumed: Resumed<'_>) -> Self {
        let Resumed { header, frontier, members, opens, waiting } = resumed;
        Self {
            network: genesis.network.as_str(),
            id: header.chain,
            height: header.height,
            hash: header.hash(),
            time: header.time,
            frontier,
            members,
            opens,
            waiting: waiting.map(Arc::new),
        }
    }

    /// Height of the tip.
    pub(crate) const fn height(&self) -> u64 {
        self.height
    }

    /// Header hash of the tip.
    pub(crate) const fn hash(&self) -> Hash32 {
        self.hash
    }

    /// Size of the log after the tip.
    pub(crate) const fn size(&self) -> TreeSize {
        self.frontier.size()
    }

    /// Root of the log after the tip.
    pub(crate) fn root(&self) -> Hash32 {
        self.frontier.root()
    }

    /// Members in force at the next height.
    pub(crate) fn members(&self) -> &Arc<MemberSet> {
        &self.members
    }

    /// Verifies the next block and moves the tip onto it. After an error the chain is of no use.
    pub(crate) fn verify(&mut self, block: &LedgerBlock) -> Result<Verified, CheckError> {
        let LedgerBlock { block, entries } = block;
        let header = &block.header;
        let hash = self.check_header(block)?;
        let batch = block.decode_batch().map_err(|_| CheckError::Batch)?;
        let operations = named(block, &batch)?;
        let mut projected = ProjectedBlock {
            network: self.network.to_owned(),
            height: header.height,
            hash,
            time: header.time,
            tree_size: header.tree_size,
            operations: Vec::with_capacity(operations.len()),
            links: Vec::new(),
        };
        self.append(block, &operations, entries, &mut projected)?;
        let decided_by = self.follow_members(header, decided_members(&operations)?)?;
        (self.height, self.hash, self.time) = (header.height, hash, header.time);
        Ok(Verified { projected, members: decided_by })
    }

    /// Everything that the header shows by itself, and the quorum's signatures over it.
    fn check_header(&self, block: &Block) -> Result<Hash32, CheckError> {
        let header = &block.header;
        let ensure = |holds: bool, error: CheckError| if holds { Ok(()) } else { Err(error) };
        ensure(header.height == self.height + 1, CheckError::Height(header.height))?;
        ensure(header.previous == self.hash, CheckError::Previous)?;
        ensure(header.chain == self.id, CheckError::Chain)?;
        ensure(header.time >= self.time, CheckError::Time)?;
        ensure(header.members == self.members.hash(), CheckError::Members)?;
        let hash = header.hash();
        block.certificate.verify(&self.id, header.height, &hash, &self.members)?;
        Ok(hash)
    }

    /// Appends the entries to the tree, each the one that its verdict names, and compares the
    /// root. A block at the first height of a member set starts with `members.active`.
    fn append(
        &mut self,
        block: &Block,
        operations: &[Named<'_>],
        entries: &[Vec<u8>],
        projected: &mut ProjectedBlock,
    ) -> Result<(), CheckError> {
        let header = &block.header;
        let mut entries = entries.iter();
        if self.opens {
            let entry = entries.next().ok_or(CheckError::Entries)?;
            if *entry != members_active(header.members, header.height, header.time) {
                return Err(CheckError::Entry(self.frontier.size().0));
            }
            self.frontier.push(leaf_hash(entry));
        }
        for operation in operations {
            if let Verdict::Committed { index, entry: id } = operation.verdict {
                let entry = entries.next().ok_or(CheckError::Entries)?;
                if index != self.frontier.size().0 || entry_id(entry) != id {
                    return Err(CheckError::Entry(index));
                }
                self.frontier.push(leaf_hash(entry));
                projected.links.extend(operation.link(entry, header.time)?);
            }
            projected.operations.push(operation.projected(header));
        }
        if entries.next().is_some() {
            return Err(CheckError::Entries);
        }
        let same = self.frontier.size().0 == header.tree_size && self.frontier.root() == header.root;
        if same { Ok(()) } else { Err(CheckError::Root) }
    }

    /// Moves to the members of the next height: a decided set is in force [`MEMBERS_DELAY`]
    /// heights after the block that decided it, and no other may be decided while one waits.
    /// Returns the members that decided this block.
    fn follow_members(&mut self, header: &Header, decided: Option<MemberSet>) -> Result<Arc<MemberSet>, CheckError> {
        const { assert!(MEMBERS_DELAY == 2, "a set decided at h waits while h + 1 is verified") };
        let waited = self.waiting.take();
        if waited.is_some() && decided.is_some() {
            return Err(CheckError::Members);
        }
        self.opens = waited.is_some();
        let next = waited.unwrap_or_else(|| Arc::clone(&self.members));
        if header.next_members != next.hash() {
            return Err(CheckError::Members);
        }
        self.waiting = decided.map(Arc::new);
        Ok(std::mem::replace(&mut self.members, next))
    }
}

/// The member set that a block decided, if any; batch and verdicts are checked against the
/// header, the header itself is not.
pub(crate) fn announced(block: &Block) -> Result<Option<MemberSet>, CheckError> {
    let batch = block.decode_batch().map_err(|_| CheckError::Batch)?;
    decided_members(&named(block, &batch)?)
}

fn decided_members(operations: &[Named<'_>]) -> Result<Option<MemberSet>, CheckError> {
    let decided = |named: &&Named<'_>| {
        named.fields.kind == OperationType::MembersSet && matches!(named.verdict, Verdict::Committed { .. })
    };
    let mut decided = operations.iter().filter(decided);
    let (first, second) = (decided.next(), decided.next());
    let Some(first) = first else { return Ok(None) };
    match (Operation::parse(first.bytes), second) {
        (Ok(Operation::MembersSet(change)), None) => Ok(Some(change.members)),
        _ => Err(CheckError::Members),
    }
}

/// What the projection needs of an operation. The rest was checked by the quorum that signed
/// the batch's hash, so it is not parsed again.
#[derive(Deserialize)]
struct Fields<'a> {
    op: Hash32,
    request: Hash32,
    #[serde(borrow, default)]
    tenant: Option<&'a str>,
    #[serde(rename = "type")]
    kind: OperationType,
}

/// An operation of a block with its verdict.
struct Named<'a> {
    bytes: &'a [u8],
    fields: Fields<'a>,
    verdict: Verdict,
}

/// The operations of a block, once batch hash and outcomes root hold.
fn named<'a>(block: &Block, batch: &'a Batch) -> Result<Vec<Named<'a>>, CheckError> {
    if batch_hash(&block.batch) != block.header.batch {
        return Err(CheckError::Batch);
    }
    let mut verdicts = block.verdicts.iter();
    let mut named = Vec::with_capacity(verdicts.len());
    for signed in batch.operations() {
        let bytes = signed.operation.as_slice();
        let fields = serde_json::from_slice(bytes).map_err(|_| CheckError::Batch)?;
        named.push(Named { bytes, fields, verdict: *verdicts.next().ok_or(CheckError::Outcomes)? });
    }
    let outcomes: Vec<Outcome> = named.iter().map(Named::outcome).collect();
    let same = verdicts.next().is_none() && outcomes_root(&outcomes) == block.header.outcomes;
    if same { Ok(named) } else { Err(CheckError::Outcomes) }
}

impl Named<'_> {
    const fn outcome(&self) -> Outcome {
        Outcome { op: self.fields.op, request: self.fields.request, verdict: self.verdict }
    }

    fn projected(&self, header: &Header) -> ProjectedOperation {
        let Header { height, time, .. } = *header;
        let state = match self.verdict {
            Verdict::Committed { index, entry } => {
                OperationState::Committed(CommittedAt { index, entry, height, time })
            }
            Verdict::Rejected(code) => OperationState::Rejected(RejectedAt { code, height, time }),
        };
        let governance =
            matches!(self.fields.kind, OperationType::TenantSet | OperationType::MembersSet | OperationType::PolicySet);
        ProjectedOperation {
            key: ResourceKey::of(&self.fields.op, 0),
            op: self.fields.op,
            tenant: self.fields.tenant.filter(|_| !governance).unwrap_or_default().to_owned(),
            kind: self.fields.kind,
            request: self.fields.request,
            operation_hash: operation_hash(self.bytes),
            state,
        }
    }

    /// The link that a `case.append` entry records.
    fn link(&self, entry: &[u8], time: u64) -> Result<Option<CaseLink>, CheckError> {
        #[derive(Deserialize)]
        struct Link {
            case: Hash32,
            evidence: Hash32,
            position: u64,
            previous: Hash32,
        }
        let Verdict::Committed { index, entry: id } = self.verdict else { return Ok(None) };
        if self.fields.kind != OperationType::CaseAppend {
            return Ok(None);
        }
        let link: Link = serde_json::from_slice(entry).map_err(|_| CheckError::Entry(index))?;
        Ok(Some(CaseLink {
            tenant: self.fields.tenant.unwrap_or_default().to_owned(),
            case: ResourceKey::of(&link.case, 0),
            position: link.position,
            evidence: ResourceKey::of(&link.evidence, 0),
            index,
            entry: id,
            previous: link.previous,
            time,
        }))
    }
}
