//! Entries: the leaves of the log, canonical JSON of at most 16 KiB.
//!
//! An entry is what the ledger made of an operation: the operation's fields without `chain` and
//! `request`, with block time and whatever the ledger assigned. System entries come from no
//! operation and have no `op` and no `tenant`.

use serde::{Deserialize, Serialize};

use crate::{
    digests::Digests,
    genesis::{Genesis, Network},
    hash::{Hash32, sha3_256},
    json::to_canonical,
    member::MemberSet,
    operation::{CaseAppend, CaseOpen, Evidence, MembersSet, PolicySet, Redigest, TenantSet, TenantStatus, V1},
    policy::Policy,
};

/// Largest entry.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024;

/// Entry id, what users call the transaction hash: SHA3-256 of the entry bytes.
#[must_use]
pub fn entry_id(entry: &[u8]) -> Hash32 {
    sha3_256(entry)
}

/// `evidence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields as in the operation of the same name; `time` is block time")]
pub struct EvidenceEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commitment: Option<Digests>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digests: Option<Digests>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub media_type: Option<&'a str>,
    pub op: Hash32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub private: Option<Digests>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    pub tenant: &'a str,
    pub time: u64,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub v: V1,
}

/// `evidence` from its operation.
#[must_use]
pub fn evidence(o: &Evidence, time: u64) -> Vec<u8> {
    to_canonical(&EvidenceEntry {
        commitment: o.commitment,
        digests: o.digests,
        media_type: o.media_type.as_deref(),
        op: o.op,
        private: o.private,
        size: o.size,
        tenant: &o.tenant,
        time,
        kind: "evidence",
        v: V1,
    })
}

/// `redigest`: `evidence_index` is the leaf index of the evidence it adds to.
#[must_use]
pub fn redigest(o: &Redigest, evidence_index: u64, time: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        digests: Digests,
        evidence: Hash32,
        evidence_index: u64,
        op: Hash32,
        tenant: &'a str,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    to_canonical(&Entry {
        digests: o.digests,
        evidence: o.evidence,
        evidence_index,
        op: o.op,
        tenant: &o.tenant,
        time,
        r#type: "redigest",
        v: V1,
    })
}

/// `case.open`.
#[must_use]
pub fn case_open(o: &CaseOpen, time: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        op: Hash32,
        #[serde(skip_serializing_if = "Option::is_none")]
        private: Option<Digests>,
        tenant: &'a str,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    to_canonical(&Entry { op: o.op, private: o.private, tenant: &o.tenant, time, r#type: "case.open", v: V1 })
}

/// Where an appended link stands in its case.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Leaf index of the evidence.
    pub evidence_index: u64,
    /// Position in the case, from 1.
    pub position: u64,
    /// Entry id of the previous link, or of the case's opening.
    pub previous: Hash32,
}

/// `case.append`.
#[must_use]
pub fn case_append(o: &CaseAppend, link: Link, time: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        case: Hash32,
        evidence: Hash32,
        evidence_index: u64,
        op: Hash32,
        position: u64,
        previous: Hash32,
        tenant: &'a str,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    to_canonical(&Entry {
        case: o.case,
        evidence: o.evidence,
        evidence_index: link.evidence_index,
        op: o.op,
        position: link.position,
        previous: link.previous,
        tenant: &o.tenant,
        time,
        r#type: "case.append",
        v: V1,
    })
}

/// `tenant.set`.
#[must_use]
pub fn tenant_set(o: &TenantSet, time: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<Hash32>,
        op: Hash32,
        status: TenantStatus,
        tenant: &'a str,
        tier: u8,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    to_canonical(&Entry {
        key: o.key,
        op: o.op,
        status: o.status,
        tenant: &o.tenant,
        tier: o.tier,
        time,
        r#type: "tenant.set",
        v: V1,
    })
}

/// `members.set` that an operation asked for; it takes effect at height `effective`.
#[must_use]
pub fn members_set(o: &MembersSet, effective: u64, time: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        effective: u64,
        members: &'a MemberSet,
        op: Hash32,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    to_canonical(&Entry { effective, members: &o.members, op: o.op, time, r#type: "members.set", v: V1 })
}

/// `policy.set` that an operation asked for.
#[must_use]
pub fn policy_set(o: &PolicySet, time: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        op: Hash32,
        policy: &'a Policy,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    to_canonical(&Entry { op: o.op, policy: &o.policy, time, r#type: "policy.set", v: V1 })
}

/// `members.active`: opens the block from whose height on `members` (hash) are in force.
#[must_use]
pub fn members_active(members: Hash32, height: u64, time: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        height: u64,
        members: Hash32,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    to_canonical(&Entry { height, members, time, r#type: "members.active", v: V1 })
}

/// Entries 0 and 1 of every log: the genesis `members.set` and `policy.set`.
#[must_use]
pub fn genesis_entries(genesis: &Genesis) -> [Vec<u8>; 2] {
    #[derive(Serialize)]
    struct Members<'a> {
        chain: Hash32,
        members: &'a MemberSet,
        network: Network,
        origin: &'a str,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    #[derive(Serialize)]
    struct FirstPolicy<'a> {
        policy: &'a Policy,
        time: u64,
        r#type: &'a str,
        v: V1,
    }
    let time = genesis.time;
    [
        to_canonical(&Members {
            chain: genesis.chain_id(),
            members: &genesis.members,
            network: genesis.network,
            origin: &genesis.origin,
            time,
            r#type: "members.set",
            v: V1,
        }),
        to_canonical(&FirstPolicy { policy: &genesis.policy, time, r#type: "policy.set", v: V1 }),
    ]
}
