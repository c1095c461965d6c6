//! Webhooks as stored: where tenants want to be told, what happened, and what came of telling them.
//!
//! An event's id follows from what happened, so that the same is told under the same id whoever projects
//! it, and however often. What an event says is public on the ledger anyway, but for ids, which the
//! courier issues: nothing private is in it.

use std::collections::BTreeMap;

use ledger_core::{
    hash::{Hash32, tagged},
    operation::OperationType,
    outcome::RejectionCode,
};
use serde::{Deserialize, Serialize};

use crate::{
    id::ResourceKey,
    record::{OperationState, ProjectedBlock, ProjectedOperation},
};

/// What happened. The numbers are stored and never change; the names are what receivers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// Evidence is in a block under a quorum checkpoint.
    EvidenceCommitted,
    /// Evidence was refused by the ledger, for ever.
    EvidenceRejected,
    /// A case was opened.
    CaseCommitted,
    /// A case was not opened.
    CaseRejected,
    /// Evidence was appended to a case.
    CaseLinkCommitted,
    /// Evidence was not appended to a case.
    CaseLinkRejected,
    /// Another request came under the idempotency key of an operation, and did nothing.
    OperationConflicted,
    /// Another endpoint of the tenant was disabled, by us.
    EndpointDisabled,
    /// A test that the tenant asked for.
    EndpointTest,
}

impl EventType {
    /// All of them, with number and name.
    pub const ALL: [(Self, i32, &'static str); 9] = [
        (Self::EvidenceCommitted, 1, "evidence.committed"),
        (Self::EvidenceRejected, 2, "evidence.rejected"),
        (Self::CaseCommitted, 3, "case.committed"),
        (Self::CaseRejected, 4, "case.rejected"),
        (Self::CaseLinkCommitted, 5, "case_link.committed"),
        (Self::CaseLinkRejected, 6, "case_link.rejected"),
        (Self::OperationConflicted, 7, "operation.conflicted"),
        (Self::EndpointDisabled, 8, "endpoint.disabled"),
        (Self::EndpointTest, 9, "endpoint.test"),
    ];

    /// The names alone.
    pub const NAMES: &'static [&'static str] = &{
        let mut names = [""; Self::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].2;
            at += 1;
        }
        names
    };

    fn row(self) -> (i32, &'static str) {
        let row = Self::ALL.iter().find(|(event, ..)| *event == self);
        row.map_or((0, ""), |(_, number, name)| (*number, name))
    }

    /// The stable number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.row().0
    }

    /// The name that receivers see and filters are written with.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Reads a number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == number).map(|(event, ..)| *event)
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(.., known)| *known == name).map(|(event, ..)| *event)
    }

    fn of(operation: &ProjectedOperation) -> Option<Self> {
        let committed = match operation.state {
            OperationState::Committed(_) => true,
            OperationState::Rejected(_) => false,
            OperationState::Accepted => return None,
        };
        Some(match (operation.kind, committed) {
            (OperationType::Evidence, true) => Self::EvidenceCommitted,
            (OperationType::Evidence, false) => Self::EvidenceRejected,
            (OperationType::CaseOpen, true) => Self::CaseCommitted,
            (OperationType::CaseOpen, false) => Self::CaseRejected,
            (OperationType::CaseAppend, true) => Self::CaseLinkCommitted,
            (OperationType::CaseAppend, false) => Self::CaseLinkRejected,
            _ => return None,
        })
    }
}

/// What an event says besides its subject; stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFacts {
    /// Leaf index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Block height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<RejectionCode>,
    /// Type of the operation that the event is about, where the event's type does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<OperationType>,
    /// Evidence of a link, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Position of a link in its case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Why an endpoint was disabled: `gone` or `failing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl EventFacts {
    /// The evidence of a link.
    #[must_use]
    pub fn evidence_key(&self) -> Option<ResourceKey> {
        let bytes = data_encoding::HEXLOWER.decode(self.evidence.as_ref()?.as_bytes()).ok()?;
        bytes.try_into().ok().map(ResourceKey)
    }
}

/// An event of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Key in ids; names the event for ever.
    pub id: ResourceKey,
    /// Network.
    pub network: String,
    /// Tenant.
    pub tenant: String,
    /// What happened.
    pub kind: EventType,
    /// Events of one resource are told in order: the case of a link, else the subject.
    pub resource: ResourceKey,
    /// The subject: an operation, or an endpoint.
    pub key: ResourceKey,
    /// When it happened, Unix ms.
    pub time: u64,
    /// What else is known.
    pub facts: EventFacts,
}

impl OutboxEvent {
    /// Id of the delivery of this event to an endpoint.
    #[must_use]
    pub fn delivery_to(&self, endpoint: &ResourceKey) -> ResourceKey {
        derived("chopmark/webhook-delivery/v1", &[&self.id.0, &endpoint.0])
    }

    /// That another request came under an operation's key.
    #[must_use]
    pub fn conflict(
        network: &str,
        tenant: &str,
        (key, op, kind): (ResourceKey, &Hash32, OperationType),
        time: u64,
    ) -> Self {
        let event = EventType::OperationConflicted;
        Self {
            id: event_id(network, event, &op.0),
            network: network.to_owned(),
            tenant: tenant.to_owned(),
            kind: event,
            resource: key,
            key,
            time,
            facts: EventFacts { kind: Some(kind), ..EventFacts::default() },
        }
    }

    /// That an endpoint was disabled, for the tenant's other endpoints.
    #[must_use]
    pub fn disabled(endpoint: &EndpointRow, reason: EndpointState, time: u64) -> Self {
        let event = EventType::EndpointDisabled;
        Self {
            id: event_id(&endpoint.network, event, &[&endpoint.id.0[..], &time.to_be_bytes()].concat()),
            network: endpoint.network.clone(),
            tenant: endpoint.tenant.clone(),
            kind: event,
            resource: endpoint.id,
            key: endpoint.id,
            time,
            facts: EventFacts { reason: Some(reason.as_str().to_owned()), ..EventFacts::default() },
        }
    }

    /// A test of an endpoint; `nonce` tells tests apart.
    #[must_use]
    pub fn test(endpoint: &EndpointRow, nonce: &[u8], time: u64) -> Self {
        let event = EventType::EndpointTest;
        let id = event_id(&endpoint.network, event, &[&endpoint.id.0[..], nonce].concat());
        Self {
            id,
            network: endpoint.network.clone(),
            tenant: endpoint.tenant.clone(),
            kind: event,
            // Waits for nothing.
            resource: id,
            key: endpoint.id,
            time,
            facts: EventFacts::default(),
        }
    }
}

/// The events of a block for those tenants that want any, in the order of its operations.
#[must_use]
pub fn events_of(block: &ProjectedBlock, wants: impl Fn(&str) -> bool) -> Vec<OutboxEvent> {
    let links: BTreeMap<_, _> = block.links.iter().map(|link| (link.index, link)).collect();
    let mut events = Vec::new();
    for operation in block.operations.iter().filter(|operation| wants(&operation.tenant)) {
        let Some(kind) = EventType::of(operation) else { continue };
        let mut facts = EventFacts { height: Some(block.height), ..EventFacts::default() };
        let mut resource = operation.key;
        match operation.state {
            OperationState::Committed(at) => {
                facts.index = Some(at.index);
                if let Some(link) = links.get(&at.index) {
                    resource = link.case;
                    facts.evidence = Some(hex(&link.evidence.0));
                    facts.position = Some(link.position);
                }
            }
            OperationState::Rejected(at) => facts.rejection = Some(at.code),
            OperationState::Accepted => continue,
        }
        events.push(OutboxEvent {
            id: event_id(&block.network, kind, &operation.op.0),
            network: block.network.clone(),
            tenant: operation.tenant.clone(),
            kind,
            resource,
            key: operation.key,
            time: block.time,
            facts,
        });
    }
    events
}

fn event_id(network: &str, kind: EventType, subject: &[u8]) -> ResourceKey {
    derived("chopmark/webhook-event/v1", &[network.as_bytes(), kind.as_str().as_bytes(), subject])
}

fn derived(domain: &str, fields: &[&[u8]]) -> ResourceKey {
    let mut key = [0; 16];
    key.copy_from_slice(&tagged(domain, fields).0[..16]);
    ResourceKey(key)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Whether an endpoint is told anything; if not, why. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It is.
    Enabled,
    /// Its tenant disabled it.
    Disabled,
    /// It answered 410.
    Gone,
    /// It took nothing for days.
    Failing,
}

impl EndpointState {
    const ALL: [(Self, i32, &'static str); 4] = [
        (Self::Enabled, 0, "enabled"),
        (Self::Disabled, 1, "disabled"),
        (Self::Gone, 2, "gone"),
        (Self::Failing, 3, "failing"),
    ];

    /// The stable number.
    #[must_use]
    pub fn number(self) -> i32 {
        Self::ALL.iter().find(|(state, ..)| *state == self).map_or(0, |(_, number, _)| *number)
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, ..)| *state == self).map_or("", |(.., name)| name)
    }

    /// Reads a number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == number).map(|(state, ..)| *state)
    }
}

/// An endpoint as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// Network.
    pub network: String,
    /// Key in ids.
    pub id: ResourceKey,
    /// Tenant.
    pub tenant: String,
    /// Keyed digest of the request that made it.
    pub request: Hash32,
    /// Where to; may hold a token, so that logs never show it.
    pub url: String,
    /// What it wants to be told; empty: everything.
    pub events: Vec<EventType>,
    /// For people.
    pub description: Option<String>,
    /// Signs messages; under the key-encryption key, as the next.
    pub secret: Vec<u8>,
    /// Signs too, until the time (Unix ms).
    pub previous_secret: Option<(Vec<u8>, u64)>,
    /// State.
    pub state: EndpointState,
    /// Since when it is disabled, Unix ms.
    pub disabled_at: Option<u64>,
    /// Since when nothing could be delivered, Unix ms.
    pub failing_since: Option<u64>,
    /// Unix ms.
    pub created_at: u64,
    /// Counts what its tenant changed.
    pub version: u64,
}

impl EndpointRow {
    /// Whether it wants to be told of `event`.
    #[must_use]
    pub fn wants(&self, event: EventType) -> bool {
        self.events.is_empty() || self.events.contains(&event)
    }
}

impl std::fmt::Debug for EndpointRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointRow")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Where a delivery stands. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be tried, for the first time or again.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// Given up; only a replay tries it again.
    Dead,
}

impl DeliveryState {
    /// All of them, with number and name.
    pub const ALL: [(Self, i32, &'static str); 3] =
        [(Self::Pending, 0, "pending"), (Self::Delivered, 1, "delivered"), (Self::Dead, 2, "dead")];

    /// The stable number.
    #[must_use]
    pub fn number(self) -> i32 {
        Self::ALL.iter().find(|(state, ..)| *state == self).map_or(0, |(_, number, _)| *number)
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, ..)| *state == self).map_or("", |(.., name)| name)
    }

    /// Reads a number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == number).map(|(state, ..)| *state)
    }
}

/// How one attempt ended. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// 2xx.
    Delivered,
    /// Anything else that may pass.
    Failed,
    /// Not sent: its address is not one that we send to.
    Refused,
    /// 410.
    Gone,
}

impl AttemptOutcome {
    /// All of them, with number and name.
    pub const ALL: [(Self, i32, &'static str); 4] = [
        (Self::Delivered, 1, "delivered"),
        (Self::Failed, 2, "failed"),
        (Self::Refused, 3, "refused"),
        (Self::Gone, 4, "gone"),
    ];

    /// The stable number.
    #[must_use]
    pub fn number(self) -> i32 {
        Self::ALL.iter().find(|(outcome, ..)| *outcome == self).map_or(0, |(_, number, _)| *number)
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, ..)| *outcome == self).map_or("", |(.., name)| name)
    }

    /// Reads a number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == number).map(|(outcome, ..)| *outcome)
    }
}

/// One attempt, as its log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// When it began, Unix ms.
    pub at: u64,
    /// From 1; anew after a replay.
    pub number: u32,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Status of HTTP, if there was an answer.
    pub status: Option<u16>,
    /// What happened, for people.
    pub detail: String,
    /// How long it took.
    pub took_ms: u64,
}

/// A delivery as its tenant reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Position for paging.
    pub sequence: u64,
    /// Key in ids.
    pub id: ResourceKey,
    /// To which endpoint.
    pub endpoint: ResourceKey,
    /// The event.
    pub event: OutboxEvent,
    /// State.
    pub state: DeliveryState,
    /// Attempts since it was due first, or was replayed.
    pub attempts: u32,
    /// When the next one is due, Unix ms.
    pub next_at: u64,
    /// Status of the last answer.
    pub last_status: Option<u16>,
    /// When it was delivered or given up, Unix ms.
    pub ended_at: Option<u64>,
}

/// Which deliveries to list: the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// Network.
    pub network: String,
    /// Tenant.
    pub tenant: String,
    /// Only to this endpoint.
    pub endpoint: Option<ResourceKey>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only of events at or after, Unix ms.
    pub from: Option<u64>,
    /// Only of events before, Unix ms.
    pub to: Option<u64>,
    /// Only before this sequence.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// Which deliveries to an endpoint to make again: those of events from `from` on and before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRange {
    /// Unix ms.
    pub from: u64,
    /// Unix ms.
    pub to: u64,
    /// Only those in this state.
    pub state: Option<DeliveryState>,
}

/// A delivery that a courier holds until its claim ends.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    /// The row.
    pub sequence: u64,
    /// Names the claim.
    pub claim: ResourceKey,
    /// Whereto, as whom.
    pub endpoint: EndpointRow,
    /// What.
    pub event: OutboxEvent,
    /// Attempts before this one.
    pub attempts: u32,
}

/// What an attempt makes of its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// It was delivered.
    Done,
    /// It is due again, Unix ms.
    Again(u64),
    /// It is given up.
    Dead,
    /// It is given up, and with it everything to this endpoint, which is disabled.
    Disable(EndpointState),
}

/// The backlog of a network's webhooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Deliveries that are pending; 100 000 also stands for more.
    pub pending: u64,
    /// When the oldest of them happened, Unix ms.
    pub oldest: Option<u64>,
    /// Endpoints that are enabled.
    pub enabled: u64,
    /// Endpoints that are not.
    pub disabled: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{CaseLink, CommittedAt, RejectedAt};

    #[test]
    fn numbers_and_names_are_one_to_one() {
        for (event, number, name) in EventType::ALL {
            assert_eq!(EventType::from_number(number), Some(event));
            assert_eq!(EventType::parse(name), Some(event));
            assert_eq!((event.number(), event.as_str()), (number, name));
        }
        assert_eq!(EventType::from_number(0), None);
        assert_eq!(EventType::parse(""), None);
        for state in [EndpointState::Enabled, EndpointState::Disabled, EndpointState::Gone, EndpointState::Failing] {
            assert_eq!(EndpointState::from_number(state.number()), Some(state));
        }
    }

    fn operation(n: u8, kind: OperationType, state: OperationState) -> ProjectedOperation {
        let op = Hash32([n; 32]);
        ProjectedOperation {
            key: ResourceKey::of(&op, 0),
            op,
            tenant: "ten_a".to_owned(),
            kind,
            request: op,
            operation_hash: op,
            state,
        }
    }

    #[test]
    fn a_block_has_the_events_of_those_who_want_them() {
        let committed =
            |index| OperationState::Committed(CommittedAt { index, entry: Hash32([9; 32]), height: 7, time: 70 });
        let rejected = OperationState::Rejected(RejectedAt { code: RejectionCode::CaseUnknown, height: 7, time: 70 });
        let case = ResourceKey([5; 16]);
        let mut other = operation(4, OperationType::Evidence, committed(3));
        other.tenant = "ten_b".to_owned();
        let block = ProjectedBlock {
            network: "sandbox".to_owned(),
            height: 7,
            hash: Hash32([0; 32]),
            time: 70,
            tree_size: 4,
            operations: vec![
                operation(1, OperationType::Evidence, committed(1)),
                operation(2, OperationType::CaseAppend, committed(2)),
                operation(3, OperationType::Evidence, rejected),
                other,
                operation(5, OperationType::TenantSet, committed(4)),
            ],
            links: vec![CaseLink {
                tenant: "ten_a".to_owned(),
                case,
                position: 1,
                evidence: ResourceKey([6; 16]),
                index: 2,
                entry: Hash32([9; 32]),
                previous: Hash32([8; 32]),
                time: 70,
            }],
        };
        let events = events_of(&block, |tenant| tenant == "ten_a");
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["evidence.committed", "case_link.committed", "evidence.rejected"]);
        assert_eq!((events[1].resource, events[1].facts.position), (case, Some(1)));
        assert_eq!(events[0].resource, events[0].key);
        assert!(events[2].facts.rejection.is_some());
        assert_eq!(events, events_of(&block, |tenant| tenant == "ten_a"));
        let ids: std::collections::HashSet<_> = events_of(&block, |_| true).iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), 4);
    }
}
