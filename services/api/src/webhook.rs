//! Webhooks: where a platform is told what happened, and what came of telling it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{DeliveryId, EndpointId, EventId};
use crate::limits::{self, TITLE_CHARS_MAX, WEBHOOK_EVENTS_MAX, WEBHOOK_OVERLAP_SECONDS_MAX, WEBHOOK_URL_CHARS_MAX};
use crate::problem::ProblemCode;
use crate::request::{ArrayShape, Shape, request};
use crate::time::Timestamp;

const URL: Shape = Shape::Text(limits::line::<WEBHOOK_URL_CHARS_MAX>);
const DESCRIPTION: Shape = Shape::Text(limits::line::<TITLE_CHARS_MAX>);
const EVENTS: Shape = Shape::Array(&ArrayShape {
    item: Shape::Text(limits::line::<64>),
    items_max: WEBHOOK_EVENTS_MAX,
    empty: ProblemCode::WebhookEventsEmpty,
    over: ProblemCode::WebhookEventUnknown,
});
const MOMENT: Shape = Shape::Text(limits::moment);

request! {
    /// An endpoint to be added.
    pub struct EndpointRequest {
        required {
            /// Where messages are sent to: `https`, a public name, without user and fragment.
            #[schema(max_length = 2048, example = "https://shop.example/hooks/chopmark")]
            "url" url: String = URL, else FieldMissing;
        }
        optional {
            /// Names of the events that it is told of; all, if this is not given.
            #[schema(min_items = 1, max_items = 32, example = json!(["evidence.committed", "evidence.rejected"]))]
            "events" events: Vec<String> = EVENTS;
            /// For people.
            #[schema(max_length = 256, example = "order service")]
            "description" description: String = DESCRIPTION;
        }
    }
}

request! {
    /// What changes of an endpoint; what is not given stays.
    #[derive(Default)]
    pub struct EndpointChangeRequest {
        required {}
        optional {
            /// Where messages are sent to.
            #[schema(max_length = 2048, example = "https://shop.example/hooks/chopmark")]
            "url" url: String = URL;
            /// Names of the events that it is told of.
            #[schema(min_items = 1, max_items = 32, example = json!(["evidence.committed"]))]
            "events" events: Vec<String> = EVENTS;
            /// For people.
            #[schema(max_length = 256, example = "order service")]
            "description" description: String = DESCRIPTION;
            /// Whether it is told anything. What is pending for an endpoint that is disabled is given up;
            /// a replay sends it after all.
            "enabled" enabled: bool = Shape::Boolean;
        }
    }
}

request! {
    /// How a secret is replaced.
    #[derive(Default)]
    pub struct SecretRequest {
        required {}
        optional {
            /// For how long the secret before signs too; a day by default, at most a week.
            #[schema(maximum = 604800, example = 86400)]
            "overlap_seconds" overlap_seconds: u64 = Shape::Integer { max: WEBHOOK_OVERLAP_SECONDS_MAX };
        }
    }
}

request! {
    /// Which messages are sent again.
    pub struct ReplayRequest {
        required {
            /// Of events at or after this time (RFC 3339).
            #[schema(format = DateTime, example = "2026-11-22T08:00:00.000Z")]
            "from" from: String = MOMENT, else FieldMissing;
            /// Of events before this time.
            #[schema(format = DateTime, example = "2026-11-22T09:00:00.000Z")]
            "to" to: String = MOMENT, else FieldMissing;
        }
        optional {
            /// Only those in this state: `delivered` or `dead`; all, if this is not given.
            #[schema(example = "dead")]
            "state" state: String = Shape::Text(limits::delivery_state);
        }
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointView {
    pub id: EndpointId,
    #[schema(example = "https://shop.example/hooks/chopmark")]
    pub url: String,
    /// What it is told of; empty: everything.
    pub events: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    /// `enabled`, `disabled` (by you), `gone` (it answered 410) or `failing` (it took nothing for five days).
    #[schema(example = "enabled")]
    pub state: String,
    /// Since when nothing could be delivered, if the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failing_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disabled_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// Until when the secret before the last rotation signs too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub previous_secret_until: Option<Timestamp>,
    /// Signs messages (Standard Webhooks); only in the answers that make or replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazfLF5Qh2Vg=")]
    pub secret: Option<String>,
}

/// All endpoints of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointList {
    /// The oldest first.
    pub items: Vec<EndpointView>,
}

/// One event on its way to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryView {
    pub id: DeliveryId,
    pub endpoint_id: EndpointId,
    /// `webhook-id` of the message: the same in every attempt and at every endpoint.
    pub event_id: EventId,
    #[schema(example = "evidence.committed")]
    pub event_type: String,
    /// When it happened.
    pub event_time: Timestamp,
    /// `pending`, `delivered` or `dead` (given up).
    #[schema(example = "delivered")]
    pub state: String,
    /// Attempts since it was due first, or was sent again.
    #[schema(example = 1)]
    pub attempts: u32,
    /// When the next attempt is due, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_attempt_at: Option<Timestamp>,
    /// HTTP status of the last answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 204)]
    pub last_status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<Timestamp>,
    /// The log of the attempts, the newest last; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub log: Option<Vec<AttemptView>>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    pub at: Timestamp,
    #[schema(example = 1)]
    pub number: u32,
    /// `delivered`, `failed`, `refused` (not sent: its address is not a public one) or `gone`.
    #[schema(example = "failed")]
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 503)]
    pub status: Option<u16>,
    /// What happened, for people.
    #[schema(example = "503 Service Unavailable")]
    pub detail: String,
    #[schema(example = 132)]
    pub took_ms: u64,
}

/// A message that was put on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryRef {
    pub delivery_id: DeliveryId,
}

/// How many messages are sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayView {
    #[schema(example = 17)]
    pub replayed: u64,
}
