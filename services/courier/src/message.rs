//! What receivers read: an event as the JSON of Standard Webhooks. The bytes follow from the event alone, so
//! that every attempt carries the same.

use chopmark_api::time::Timestamp;
use chopmark_domain::{
    id::{IdIssuer, IdKind, ResourceKey},
    webhook::{EndpointRow, EventType, OutboxEvent},
};
use ledger_core::operation::OperationType;
use serde::Serialize;

/// The envelope.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

/// Everything that some event says; each says what it has.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
struct Data<'a> {
    network: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    case_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    href: Option<String>,
}

/// `webhook-id` of an event: the same in every attempt, at every endpoint.
pub(crate) fn id(ids: &IdIssuer, event: &OutboxEvent) -> String {
    ids.issue(IdKind::Event, &event.tenant, &event.id)
}

/// The id of an endpoint, for the log.
pub(crate) fn endpoint_id(ids: &IdIssuer, endpoint: &EndpointRow) -> String {
    ids.issue(IdKind::Endpoint, &endpoint.tenant, &endpoint.id)
}

/// The body.
pub(crate) fn body(ids: &IdIssuer, event: &OutboxEvent) -> Result<Vec<u8>, serde_json::Error> {
    let issue = |kind, key: &ResourceKey| ids.issue(kind, &event.tenant, key);
    let facts = &event.facts;
    let mut data = Data {
        network: &event.network,
        id: None,
        case_id: None,
        evidence_id: None,
        endpoint_id: None,
        operation_id: None,
        state: None,
        index: facts.index,
        height: facts.height,
        position: facts.position,
        code: facts.rejection.map(|code| code.as_str()),
        reason: facts.reason.as_deref(),
        href: None,
    };
    let operation = || Some(issue(IdKind::Operation, &event.key));
    match event.kind {
        EventType::EvidenceCommitted | EventType::EvidenceRejected => {
            let id = issue(IdKind::Evidence, &event.key);
            data.href = Some(format!("/v1/evidence/{id}"));
            (data.id, data.operation_id) = (Some(id), operation());
        }
        EventType::CaseCommitted | EventType::CaseRejected => {
            let id = issue(IdKind::Case, &event.key);
            data.href = Some(format!("/v1/cases/{id}"));
            (data.id, data.operation_id) = (Some(id), operation());
        }
        EventType::CaseLinkCommitted => {
            let case = issue(IdKind::Case, &event.resource);
            data.href = Some(format!("/v1/cases/{case}"));
            data.evidence_id = facts.evidence_key().map(|key| issue(IdKind::Evidence, &key));
            (data.case_id, data.operation_id) = (Some(case), operation());
        }
        EventType::CaseLinkRejected | EventType::OperationConflicted => {
            data.operation_id = operation();
            data.href = data.operation_id.as_ref().map(|id| format!("/v1/operations/{id}"));
            // What holds the key; links have no id of their own.
            data.id = match facts.kind {
                Some(OperationType::Evidence) => Some(issue(IdKind::Evidence, &event.key)),
                Some(OperationType::CaseOpen) => Some(issue(IdKind::Case, &event.key)),
                _ => None,
            };
        }
        EventType::EndpointDisabled | EventType::EndpointTest => {
            let id = issue(IdKind::Endpoint, &event.key);
            data.href = Some(format!("/v1/webhooks/endpoints/{id}"));
            data.endpoint_id = Some(id);
        }
    }
    data.state = match event.kind {
        EventType::EvidenceCommitted | EventType::CaseCommitted | EventType::CaseLinkCommitted => Some("committed"),
        EventType::EvidenceRejected | EventType::CaseRejected | EventType::CaseLinkRejected => Some("rejected"),
        _ => None,
    };
    serde_json::to_vec(&Message { kind: event.kind.as_str(), timestamp: Timestamp::from_unix_ms(event.time), data })
}

#[cfg(test)]
mod tests {
    use chopmark_domain::webhook::EventFacts;
    use zeroize::Zeroizing;

    use super::*;

    fn event(kind: EventType, facts: EventFacts) -> OutboxEvent {
        OutboxEvent {
            id: ResourceKey([1; 16]),
            network: "sandbox".to_owned(),
            tenant: "ten_a".to_owned(),
            kind,
            resource: ResourceKey([2; 16]),
            key: ResourceKey([3; 16]),
            time: 1_795_334_400_000,
            facts,
        }
    }

    #[test]
    fn messages_name_what_the_api_knows() {
        let ids = IdIssuer::new(Zeroizing::new([7; 32]), "sandbox");
        for (kind, ..) in EventType::ALL {
            let facts = EventFacts {
                index: Some(3),
                height: Some(2),
                evidence: Some("04".repeat(16)),
                position: Some(1),
                ..EventFacts::default()
            };
            let text = body(&ids, &event(kind, facts)).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(read["type"], kind.as_str());
            assert_eq!(read["timestamp"], "2026-11-22T08:00:00.000Z");
            assert!(read["data"]["href"].as_str().unwrap().starts_with("/v1/"), "{read}");
            assert!(read["data"]["network"] == "sandbox");
        }
        let link = EventFacts { evidence: Some("04".repeat(16)), position: Some(1), ..EventFacts::default() };
        let link = body(&ids, &event(EventType::CaseLinkCommitted, link)).unwrap();
        let link: serde_json::Value = serde_json::from_slice(&link).unwrap();
        let case = ids.issue(IdKind::Case, "ten_a", &ResourceKey([2; 16]));
        let evidence = ids.issue(IdKind::Evidence, "ten_a", &ResourceKey([4; 16]));
        assert_eq!((&link["data"]["case_id"], &link["data"]["evidence_id"]), (&case.into(), &evidence.into()));
    }
}
