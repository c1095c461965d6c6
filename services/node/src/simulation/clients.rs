//! Clients: they make operations, submit them where they like, try again, and hold every answer to
//! what was decided.

use std::{collections::BTreeSet, sync::Arc};

use ed25519_dalek::Signer as _;
use ledger_core::{
    Hash32,
    batch::Submission,
    digests::Digests,
    hash::sha3_256,
    operation::{
        CaseAppend, CaseOpen, Evidence, MembersSet, Operation, OperationSignature, OperationType, SignedOperation,
        TenantSet, TenantStatus, V1, approval_message,
    },
};
use rand::{RngExt as _, seq::SliceRandom as _};
use tokio::sync::oneshot;

use super::{
    checker::Fault,
    profile::{domain, keys, member_set, public},
    world::{Event, World},
};
use crate::{NodeHandle, Submitted};

const TENANT: &str = "ten_sim";
const CLIENT_EVERY: u64 = 120_000;
/// A submission without an answer is tried elsewhere after this.
const PATIENCE: u64 = 1_500_000;

pub(super) struct Asked {
    pub(super) ops: Vec<Hash32>,
    pub(super) outcome: oneshot::Receiver<Vec<Submitted>>,
}

pub(super) struct Pending {
    pub(super) signed: SignedOperation,
    /// When it was submitted last.
    pub(super) tried: Option<u64>,
}

impl World {
    pub(super) fn client(&mut self) -> Result<(), Fault> {
        if self.submissions < self.profile.submissions && self.has_something_to_submit() {
            self.submissions += 1;
            self.make_operations();
        }
        let impatient = |pending: &&mut Pending| pending.tried.is_none_or(|at| self.now > at + PATIENCE);
        let mut again = Vec::new();
        for pending in self.pending.values_mut().filter(impatient) {
            pending.tried = Some(self.now);
            again.push(pending.signed.clone());
        }
        // Some in a submission of their own, some together, in any order.
        while !again.is_empty() {
            let count = if again.len() > 64 { again.len() } else { self.random.random_range(1..=again.len()) };
            let signed: Vec<SignedOperation> = again.drain(..count).collect();
            self.submit(signed)?;
        }
        self.schedule(self.now + CLIENT_EVERY, Event::Client);
        Ok(())
    }

    fn submit(&mut self, signed: Vec<SignedOperation>) -> Result<(), Fault> {
        let submitter = &keys(0).submitter;
        let ops: Vec<Hash32> =
            signed.iter().map(|signed| Operation::parse(&signed.operation).unwrap().common().op).collect();
        let submission = Submission::sign(&self.genesis.chain_id(), submitter, signed);
        let mut nodes: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].running.is_some()).collect();
        nodes.shuffle(&mut self.random);
        nodes.truncate(self.random.random_range(1..=self.nodes.len()));
        for at in nodes {
            let (submission, ops) = (submission.clone(), ops.clone());
            let mut asked = None;
            self.on_node(at, 6, |running, now, out| {
                asked = NodeHandle(Arc::clone(&running.ledger.shared)).enter(submission).ok();
                running.engine.changed(&mut running.ledger, now, out)
            })?;
            if let Some(outcome) = asked.filter(|_| self.nodes[at].running.is_some()) {
                self.nodes[at].asked.push(Asked { ops, outcome });
                self.answers(at)?;
            }
        }
        Ok(())
    }

    fn make_operations(&mut self) {
        let chain = self.genesis.chain_id();
        let mut made = Vec::new();
        let is_large = (3..3 + self.profile.larges).contains(&self.submissions);
        let large = if is_large { self.profile.large } else { 0 };
        let count = if large > 0 { large } else { self.random.random_range(1..4) };
        for _ in 0..count {
            let number = (self.operations.len() + made.len()).to_be_bytes();
            let op = sha3_256(&[&b"op"[..], &number].concat());
            let request = sha3_256(&[&b"request"[..], &number].concat());
            let tenant = TENANT.to_owned();
            let first = self.operations.is_empty() && made.is_empty();
            let choice = if large > 0 { 0 } else { self.random.random_range(0..8) };
            let operation = match (choice, self.case, self.evidence.last().copied()) {
                _ if first => Operation::TenantSet(Box::new(TenantSet {
                    chain,
                    expires: 1_000_000,
                    key: None,
                    kind: OperationType::TenantSet,
                    op,
                    replaces: Hash32::ZERO,
                    request,
                    status: TenantStatus::Active,
                    tenant,
                    tier: 1,
                    v: V1,
                })),
                (0, None, _) if large == 0 => {
                    self.case = Some(op);
                    let (kind, private) = (OperationType::CaseOpen, None);
                    Operation::CaseOpen(Box::new(CaseOpen { chain, op, private, request, tenant, kind, v: V1 }))
                }
                (1..=4, Some(case), Some(evidence)) => {
                    self.evidence.pop();
                    let kind = OperationType::CaseAppend;
                    Operation::CaseAppend(Box::new(CaseAppend {
                        case,
                        chain,
                        evidence,
                        op,
                        request,
                        tenant,
                        kind,
                        v: V1,
                    }))
                }
                _ => {
                    if large == 0 {
                        self.evidence.push(op);
                    }
                    Operation::Evidence(Box::new(Evidence {
                        chain,
                        commitment: None,
                        digests: Some(content(&op)),
                        kind: OperationType::Evidence,
                        media_type: None,
                        op,
                        private: None,
                        request,
                        size: Some(32),
                        tenant,
                        v: V1,
                    }))
                }
            };
            made.push((op, SignedOperation::unsigned(operation.encode())));
        }
        if self.profile.changes_members && self.submissions > 2 && self.random.random_bool(0.5) {
            made.push(self.change_of_members(self.operations.len() + made.len()));
        }
        for (op, signed) in made {
            self.operations.push(op);
            self.pending.insert(op, Pending { signed, tried: None });
        }
    }

    /// Adds a member that is not there, or takes one away that is; never the one who submits.
    fn change_of_members(&mut self, number: usize) -> (Hash32, SignedOperation) {
        let chain = self.genesis.chain_id();
        let current = self.checker.members();
        let mut members: BTreeSet<usize> =
            (0..self.nodes.len()).filter(|at| current.iter().any(|member| member.domain == domain(*at))).collect();
        let other = self.random.random_range(1..self.nodes.len());
        if !members.remove(&other) {
            members.insert(other);
        }
        let op = sha3_256(&[&b"op"[..], &number.to_be_bytes()].concat());
        let operation = Operation::MembersSet(Box::new(MembersSet {
            chain,
            expires: 1_000_000,
            kind: OperationType::MembersSet,
            members: member_set(&members),
            op,
            replaces: current.hash(),
            request: sha3_256(&[&b"request"[..], &number.to_be_bytes()].concat()),
            v: V1,
        }))
        .encode();
        let message = approval_message(&chain, &operation);
        let approve = |at: usize| {
            let key = &keys(at).governance;
            OperationSignature { key: public(key), signature: key.sign(&message).to_bytes() }
        };
        let signatures = (0..self.nodes.len()).map(approve).collect();
        (op, SignedOperation { operation, signatures })
    }

    /// Looks for answers to what was submitted at a node.
    pub(super) fn answers(&mut self, at: usize) -> Result<(), Fault> {
        let promise = self.promise(at);
        let asked = std::mem::take(&mut self.nodes[at].asked);
        for mut asked in asked {
            match asked.outcome.try_recv() {
                Ok(outcomes) if self.is_honest(at) => {
                    if outcomes.len() != asked.ops.len() {
                        return Err(format!("{} outcomes for {} operations", outcomes.len(), asked.ops.len()));
                    }
                    for (op, ended) in asked.ops.iter().zip(outcomes) {
                        self.checker.told(op, ended.request, ended.result, &promise)?;
                        self.pending.remove(op);
                    }
                }
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => {}
                Err(oneshot::error::TryRecvError::Empty) => self.nodes[at].asked.push(asked),
            }
        }
        Ok(())
    }
}

pub(super) fn content(op: &Hash32) -> Digests {
    Digests::of(&op.0)
}
