//! Changes of the consortium that wait for approvals: the exact operation, and who has signed it.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use chopmark_node::Governance;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use ledger_core::{
    Hash32, SigningKey,
    member::{Member, MemberSet},
    operation::{
        OPERATION_BYTES_MAX, Operation, OperationSignature, SignedOperation, approval_message, operation_hash,
    },
};
use serde::{Deserialize, Serialize};

use super::card::{PeerCard, fingerprint};

/// Largest proposal: an operation and a signature of every member.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 64 << 10;

/// A change that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proposal {
    pub(crate) approvals: Vec<Approval>,
    /// How the node of a new member is met.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) card: Option<PeerCard>,
    /// Canonical JSON of the operation: what is signed.
    pub(crate) operation: String,
    pub(crate) v: u64,
}

/// A member's signature over a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approval {
    /// Governance key.
    pub(crate) key: Hash32,
    pub(crate) signature: String,
}

/// Where a change stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits for approvals, or for being submitted.
    Open { approved_by: Vec<String>, quorum: usize },
    /// Its last height is over.
    Expired,
    /// What it was to replace has been replaced.
    Overtaken,
}

impl Approval {
    fn signature(&self) -> Option<OperationSignature> {
        let mut signature = [0; 64];
        hex::decode_to_slice(&self.signature, &mut signature).ok()?;
        Some(OperationSignature { key: self.key, signature })
    }

    fn holds(&self, message: &[u8]) -> bool {
        let Some(OperationSignature { key, signature }) = self.signature() else { return false };
        VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(&signature)).is_ok())
    }
}

impl Proposal {
    pub(crate) fn new(operation: &Operation, card: Option<PeerCard>) -> anyhow::Result<Self> {
        let operation = String::from_utf8(operation.encode()).context("operations are text")?;
        ensure!(
            operation.len() <= OPERATION_BYTES_MAX,
            "the members' records do not fit into one operation of {OPERATION_BYTES_MAX} bytes: list fewer submitter keys"
        );
        Ok(Self { approvals: Vec::new(), card, operation, v: 1 })
    }

    /// The change, if it is one that members decide on.
    pub(crate) fn change(&self) -> anyhow::Result<Operation> {
        match Operation::parse(self.operation.as_bytes()).context("the operation cannot be read")? {
            change @ (Operation::MembersSet(_) | Operation::PolicySet(_)) => Ok(change),
            _ => bail!("it is neither a change of members nor of the policy"),
        }
    }

    /// Names the change by its content: whoever approves an id approves exactly this.
    pub(crate) fn id(&self) -> Hash32 {
        operation_hash(self.operation.as_bytes())
    }

    pub(crate) fn approve(&mut self, chain: &Hash32, governance: &SigningKey) {
        let message = approval_message(chain, self.operation.as_bytes());
        let signature = hex::encode(governance.sign(&message).to_bytes());
        self.approvals.push(Approval { key: Hash32(governance.verifying_key().to_bytes()), signature });
    }

    /// Leaves one approval of each member in force, and none of anybody else.
    pub(crate) fn keep_sound(&mut self, chain: &Hash32, members: &MemberSet) {
        let message = approval_message(chain, self.operation.as_bytes());
        let mut seen = BTreeSet::new();
        let counts = |approval: &Approval| members.iter().any(|member| member.governance_key == approval.key);
        // In this order: what is junk costs no more than one check for each member.
        self.approvals.retain(|approval| counts(approval) && seen.insert(approval.key) && approval.holds(&message));
        self.approvals.sort();
    }

    pub(crate) fn standing(&self, governance: &Governance) -> anyhow::Result<Standing> {
        let (expires, fits) = match self.change()? {
            Operation::MembersSet(change) => {
                (change.expires, change.replaces == governance.members.hash() && governance.pending.is_none())
            }
            Operation::PolicySet(change) => (change.expires, change.replaces == governance.policy_hash),
            _ => bail!("it is neither a change of members nor of the policy"),
        };
        Ok(match (governance.height < expires, fits) {
            (false, _) => Standing::Expired,
            (true, false) => Standing::Overtaken,
            (true, true) => {
                let approved =
                    |member: &&Member| self.approvals.iter().any(|approval| approval.key == member.governance_key);
                let approved_by = governance.members.iter().filter(approved).map(|member| member.domain.clone());
                Standing::Open { approved_by: approved_by.collect(), quorum: governance.members.quorum() }
            }
        })
    }

    /// The operation with its approvals, as the ledger takes it.
    pub(crate) fn signed(&self) -> SignedOperation {
        let signatures = self.approvals.iter().filter_map(Approval::signature).collect();
        SignedOperation { operation: self.operation.clone().into_bytes(), signatures }
    }

    /// Members that stay, and would have other keys.
    pub(crate) fn rekeyed(&self, governance: &Governance) -> Vec<Member> {
        let new = self.members();
        let other = |member: &&Member| new.iter().flatten().any(|new| new.domain == member.domain && new != *member);
        governance.members.iter().filter(other).cloned().collect()
    }

    /// The members that there would be.
    pub(crate) fn members(&self) -> Option<MemberSet> {
        match self.change() {
            Ok(Operation::MembersSet(change)) => Some(change.members),
            _ => None,
        }
    }

    /// What would be different, a line each.
    pub(crate) fn differences(&self, governance: &Governance) -> anyhow::Result<Vec<String>> {
        Ok(match self.change()? {
            Operation::MembersSet(change) => member_differences(&governance.members, &change.members),
            Operation::PolicySet(change) => {
                let (old, new) = (serde_json::to_value(&governance.policy)?, serde_json::to_value(&change.policy)?);
                let new = new.as_object().context("a policy is an object")?.clone();
                let changed = new.into_iter().filter(|(name, value)| old.get(name) != Some(value));
                changed.map(|(name, value)| format!("policy {name}: {} becomes {value}", old[&name])).collect()
            }
            _ => Vec::new(),
        })
    }
}

fn member_differences(old: &MemberSet, new: &MemberSet) -> Vec<String> {
    let find = |set: &MemberSet, domain: &str| set.iter().find(|member| member.domain == domain).cloned();
    let mut lines = Vec::new();
    for member in new {
        match find(old, &member.domain) {
            None => lines.push(format!("add {}, all keys {}", member.domain, fingerprint(member))),
            Some(before) if before == *member => {}
            Some(before) => {
                let keys = [
                    ("log", before.log_key != member.log_key),
                    ("cosigner", before.cosigner_key != member.cosigner_key),
                    ("validator", before.validator_key != member.validator_key),
                    ("governance", before.governance_key != member.governance_key),
                    ("submitter", before.submitter_keys != member.submitter_keys),
                ];
                let changed: Vec<&str> = keys.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
                lines.push(format!(
                    "other keys of {} ({}), all keys {}",
                    member.domain,
                    changed.join(", "),
                    fingerprint(member)
                ));
            }
        }
    }
    let gone = old.iter().filter(|member| find(new, &member.domain).is_none());
    lines.extend(gone.map(|member| format!("remove {}", member.domain)));
    lines.push(format!("{} members, {} make a quorum", new.len(), new.quorum()));
    lines
}
