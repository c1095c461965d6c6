//! Webhooks: endpoints, deliveries, and sending again.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{
    ProblemCode,
    ids::{DeliveryId, EndpointId, EventId},
    limits::WEBHOOK_OVERLAP_SECONDS_DEFAULT,
    page::Page,
    parse,
    problem::{FieldError, Place},
    query::DeliveriesQuery,
    request::Request as _,
    time::Timestamp,
    webhook::{
        AttemptView, DeliveryRef, DeliveryView, EndpointChangeRequest, EndpointList, EndpointRequest, EndpointView,
        ReplayRequest, ReplayView, SecretRequest,
    },
};
use chopmark_domain::{
    endpoints::{EndpointChange, Endpoints, NewEndpoint, WithSecret},
    id::{IdKind, ResourceKey},
    webhook::{AttemptRow, DeliveryQuery, DeliveryRow, DeliveryState, EndpointRow, ReplayRange},
};

use super::answer::{WriteKey, located, path_id, renderer};
use crate::{
    auth::{Reader, Writer, shared},
    body::{self, idempotency_key, no_query},
    refusal::Outcome,
    render::{Renderer, json},
};

impl Renderer<'_> {
    fn webhook_id(&self, kind: IdKind, key: &ResourceKey) -> [u8; chopmark_domain::id::ID_BYTES] {
        self.services.ids.ids(self.caller.tenant.id(), key).bytes(kind)
    }

    fn endpoint(&self, endpoint: &EndpointRow) -> EndpointView {
        let time = |at: Option<u64>| at.map(Timestamp::from_unix_ms);
        EndpointView {
            id: EndpointId::from_bytes(self.webhook_id(IdKind::Endpoint, &endpoint.id)),
            url: endpoint.url.clone(),
            events: endpoint.events.iter().map(|event| event.as_str().to_owned()).collect(),
            description: endpoint.description.clone(),
            state: endpoint.state.as_str().to_owned(),
            failing_since: time(endpoint.failing_since),
            disabled_at: time(endpoint.disabled_at),
            created_at: Timestamp::from_unix_ms(endpoint.created_at),
            previous_secret_until: time(endpoint.previous_secret.as_ref().map(|(_, until)| *until)),
            secret: None,
        }
    }

    fn with_secret(&self, found: &WithSecret) -> EndpointView {
        EndpointView { secret: Some(found.text().to_string()), ..self.endpoint(&found.endpoint) }
    }

    fn delivery(&self, delivery: &DeliveryRow) -> DeliveryView {
        let pending = delivery.state == DeliveryState::Pending;
        DeliveryView {
            id: self.delivery_id(&delivery.id),
            endpoint_id: EndpointId::from_bytes(self.webhook_id(IdKind::Endpoint, &delivery.endpoint)),
            event_id: EventId::from_bytes(self.webhook_id(IdKind::Event, &delivery.event.id)),
            event_type: delivery.event.kind.as_str().to_owned(),
            event_time: Timestamp::from_unix_ms(delivery.event.time),
            state: delivery.state.as_str().to_owned(),
            attempts: delivery.attempts,
            next_attempt_at: pending.then(|| Timestamp::from_unix_ms(delivery.next_at.max(delivery.event.time))),
            last_status: delivery.last_status,
            ended_at: delivery.ended_at.map(Timestamp::from_unix_ms),
            log: None,
        }
    }

    fn delivery_id(&self, key: &ResourceKey) -> DeliveryId {
        DeliveryId::from_bytes(self.webhook_id(IdKind::Delivery, key))
    }
}

fn attempt(row: AttemptRow) -> AttemptView {
    AttemptView {
        at: Timestamp::from_unix_ms(row.at),
        number: row.number,
        outcome: row.outcome.as_str().to_owned(),
        status: row.status,
        detail: row.detail,
        took_ms: row.took_ms,
    }
}

fn endpoints(req: &HttpRequest) -> Outcome<&Endpoints> {
    Ok(&shared(req)?.services()?.endpoints)
}

/// Add an endpoint
///
/// From then on it is told of what happens, as Standard Webhooks: `webhook-id`, `webhook-timestamp` and
/// `webhook-signature` over the body, HMAC-SHA256 under the secret that this answer shows. Attempts go on for
/// three days, in order for each resource. The same request under the same key gives the same endpoint and secret.
#[utoipa::path(
    post, path = "/v1/webhooks/endpoints", operation_id = "create_endpoint", tag = "webhooks",
    params(WriteKey),
    request_body = EndpointRequest,
    responses((status = 201, description = "The endpoint, with its secret.", body = EndpointView, headers(
        ("Location" = String, description = "The endpoint."),
    ))),
)]
pub(crate) async fn create(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let key = idempotency_key(&req)?;
    let body = body::json(&req, EndpointRequest::BODY_BYTES_MAX).await?;
    let EndpointRequest { url, events, description } = parse::<EndpointRequest>(&body)?;
    let new = NewEndpoint { url, events: events.unwrap_or_default(), description };
    let created = endpoints(&req)?.create(&writer.0, &key, new).await?;
    let view = renderer(&req, &writer.0)?.with_secret(&created);
    let response = json(StatusCode::CREATED, &view)?;
    Ok(located(&req, response, &format!("/v1/webhooks/endpoints/{}", view.id)))
}

/// List the endpoints
#[utoipa::path(
    get, path = "/v1/webhooks/endpoints", operation_id = "list_endpoints", tag = "webhooks",
    responses((status = 200, description = "All endpoints, the oldest first.", body = EndpointList)),
)]
pub(crate) async fn list(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let all = endpoints(&req)?.all(&reader.0).await?;
    let renderer = renderer(&req, &reader.0)?;
    json(StatusCode::OK, &EndpointList { items: all.iter().map(|endpoint| renderer.endpoint(endpoint)).collect() })
}

/// Read an endpoint
#[utoipa::path(
    get, path = "/v1/webhooks/endpoints/{id}", operation_id = "read_endpoint", tag = "webhooks",
    params(("id" = EndpointId, Path, description = "Id of the endpoint.")),
    responses((status = 200, description = "The endpoint.", body = EndpointView)),
)]
pub(crate) async fn read(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: EndpointId = path_id(&req, EndpointId::FORM)?;
    let endpoint = endpoints(&req)?.read(&reader.0, id.as_bytes()).await?;
    json(StatusCode::OK, &renderer(&req, &reader.0)?.endpoint(&endpoint))
}

/// Change an endpoint
///
/// What is not given stays. One that answered 410, or took nothing for five days, is disabled by us;
/// `enabled: true` puts it back.
#[utoipa::path(
    patch, path = "/v1/webhooks/endpoints/{id}", operation_id = "change_endpoint", tag = "webhooks",
    params(("id" = EndpointId, Path, description = "Id of the endpoint.")),
    request_body = EndpointChangeRequest,
    responses((status = 200, description = "The endpoint as it is now.", body = EndpointView)),
)]
pub(crate) async fn change(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: EndpointId = path_id(&req, EndpointId::FORM)?;
    let body = body::json(&req, EndpointChangeRequest::BODY_BYTES_MAX).await?;
    let EndpointChangeRequest { url, events, description, enabled } = parse::<EndpointChangeRequest>(&body)?;
    let change = EndpointChange { url, events, description, enabled };
    let endpoint = endpoints(&req)?.change(&writer.0, id.as_bytes(), change).await?;
    json(StatusCode::OK, &renderer(&req, &writer.0)?.endpoint(&endpoint))
}

/// Remove an endpoint
///
/// With its deliveries and their logs.
#[utoipa::path(
    delete, path = "/v1/webhooks/endpoints/{id}", operation_id = "delete_endpoint", tag = "webhooks",
    params(("id" = EndpointId, Path, description = "Id of the endpoint.")),
    responses((status = 204, description = "It is gone.")),
)]
pub(crate) async fn delete(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: EndpointId = path_id(&req, EndpointId::FORM)?;
    endpoints(&req)?.delete(&writer.0, id.as_bytes()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Replace the secret of an endpoint
///
/// For a while messages carry two signatures, the new secret's first. The same request under the same key
/// shows the same secret.
#[utoipa::path(
    post, path = "/v1/webhooks/endpoints/{id}/secret", operation_id = "rotate_endpoint_secret", tag = "webhooks",
    params(("id" = EndpointId, Path, description = "Id of the endpoint."), WriteKey),
    request_body = SecretRequest,
    responses((status = 200, description = "The endpoint, with its new secret.", body = EndpointView)),
)]
pub(crate) async fn rotate(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: EndpointId = path_id(&req, EndpointId::FORM)?;
    let key = idempotency_key(&req)?;
    let body = body::json(&req, SecretRequest::BODY_BYTES_MAX).await?;
    let overlap = parse::<SecretRequest>(&body)?.overlap_seconds.unwrap_or(WEBHOOK_OVERLAP_SECONDS_DEFAULT);
    let rotated = endpoints(&req)?.rotate(&writer.0, id.as_bytes(), &key, overlap * 1000).await?;
    json(StatusCode::OK, &renderer(&req, &writer.0)?.with_secret(&rotated))
}

/// Send a test
///
/// An `endpoint.test` message; its delivery tells what came of it.
#[utoipa::path(
    post, path = "/v1/webhooks/endpoints/{id}/test", operation_id = "test_endpoint", tag = "webhooks",
    params(("id" = EndpointId, Path, description = "Id of the endpoint.")),
    responses((status = 202, description = "It is on its way.", body = DeliveryRef)),
)]
pub(crate) async fn test(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: EndpointId = path_id(&req, EndpointId::FORM)?;
    let delivery = endpoints(&req)?.test(&writer.0, id.as_bytes()).await?;
    let renderer = renderer(&req, &writer.0)?;
    let view = DeliveryRef { delivery_id: renderer.delivery_id(&delivery) };
    let response = json(StatusCode::ACCEPTED, &view)?;
    Ok(located(&req, response, &format!("/v1/webhooks/deliveries/{}", view.delivery_id)))
}

/// Send again what an endpoint was sent in a range of time
///
/// Under the same `webhook-id` as before, in order for each resource. Messages are kept for 30 days after they
/// were delivered or given up.
#[utoipa::path(
    post, path = "/v1/webhooks/endpoints/{id}/replay", operation_id = "replay_endpoint", tag = "webhooks",
    params(("id" = EndpointId, Path, description = "Id of the endpoint.")),
    request_body = ReplayRequest,
    responses((status = 202, description = "They are on their way.", body = ReplayView)),
)]
pub(crate) async fn replay_range(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: EndpointId = path_id(&req, EndpointId::FORM)?;
    let body = body::json(&req, ReplayRequest::BODY_BYTES_MAX).await?;
    let ReplayRequest { from, to, state } = parse::<ReplayRequest>(&body)?;
    let moment = |text: &str| Timestamp::parse(text).map_or(0, Timestamp::unix_ms);
    let range = ReplayRange { from: moment(&from), to: moment(&to), state: state.as_deref().and_then(named) };
    if range.from >= range.to {
        let place = Place::Pointer("/from".to_owned());
        let problem: chopmark_api::Problem = FieldError { place, fault: ProblemCode::TimeRangeInvalid.into() }.into();
        return Err(problem.into());
    }
    let replayed = endpoints(&req)?.replay_range(&writer.0, id.as_bytes(), range).await?;
    json(StatusCode::ACCEPTED, &ReplayView { replayed })
}

fn named(state: &str) -> Option<DeliveryState> {
    DeliveryState::ALL.iter().find(|(.., name)| *name == state).map(|(state, ..)| *state)
}

/// List deliveries
///
/// The newest first.
#[utoipa::path(
    get, path = "/v1/webhooks/deliveries", operation_id = "list_deliveries", tag = "webhooks",
    params(
        ("endpoint_id" = Option<EndpointId>, Query, description = "Only to this endpoint."),
        ("state" = Option<String>, Query, description = "Only `pending`, `delivered` or `dead`."),
        ("from" = Option<Timestamp>, Query, description = "Only of events at or after this time."),
        ("to" = Option<Timestamp>, Query, description = "Only of events before this time."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Deliveries of a page; 50 by default."),
    ),
    responses((status = 200, description = "A page of deliveries.", body = Page<DeliveryView>)),
)]
pub(crate) async fn deliveries(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    let query = DeliveriesQuery::parse(req.query_string())?;
    let filter = DeliveryQuery {
        state: query.state.and_then(named),
        from: query.from.map(Timestamp::unix_ms),
        to: query.to.map(Timestamp::unix_ms),
        ..DeliveryQuery::default()
    };
    let endpoint = query.endpoint_id.as_ref().map(EndpointId::as_bytes);
    let page = (query.page.cursor.as_ref(), query.page.limit);
    let found = endpoints(&req)?.deliveries(&reader.0, endpoint, filter, page).await?;
    let renderer = renderer(&req, &reader.0)?;
    let items = found.items.iter().map(|delivery| renderer.delivery(delivery)).collect();
    json(StatusCode::OK, &Page { items, next_cursor: found.next_cursor })
}

/// Read a delivery
///
/// With the log of its attempts.
#[utoipa::path(
    get, path = "/v1/webhooks/deliveries/{id}", operation_id = "read_delivery", tag = "webhooks",
    params(("id" = DeliveryId, Path, description = "Id of the delivery.")),
    responses((status = 200, description = "The delivery.", body = DeliveryView)),
)]
pub(crate) async fn delivery(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: DeliveryId = path_id(&req, DeliveryId::FORM)?;
    let (row, attempts) = endpoints(&req)?.delivery(&reader.0, id.as_bytes()).await?;
    let view = renderer(&req, &reader.0)?.delivery(&row);
    json(StatusCode::OK, &DeliveryView { log: Some(attempts.into_iter().map(attempt).collect()), ..view })
}

/// Send one message again
///
/// Whatever came of it, under the same `webhook-id`.
#[utoipa::path(
    post, path = "/v1/webhooks/deliveries/{id}/replay", operation_id = "replay_delivery", tag = "webhooks",
    params(("id" = DeliveryId, Path, description = "Id of the delivery.")),
    responses((status = 202, description = "It is on its way.", body = DeliveryView)),
)]
pub(crate) async fn replay(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: DeliveryId = path_id(&req, DeliveryId::FORM)?;
    let row = endpoints(&req)?.replay(&writer.0, id.as_bytes()).await?;
    json(StatusCode::ACCEPTED, &renderer(&req, &writer.0)?.delivery(&row))
}
