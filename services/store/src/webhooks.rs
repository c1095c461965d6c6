//! Webhooks: endpoints, the outbox, and deliveries with their claims.
//!
//! This file is compiled once for each database: the statements are the same, but for locks, which
//! [`super::dialect`] has. SQLite numbers parameters by where they first stand, so `$1`, `$2`, … first
//! stand in that order in every text.

use std::collections::HashMap;

use chopmark_domain::{
    id::ResourceKey,
    ports::EndpointInsertion,
    record::ProjectedBlock,
    webhook::{
        AttemptOutcome, AttemptRow, Backlog, ClaimedDelivery, DeliveryQuery, DeliveryRow, DeliveryState, EndpointRow,
        EndpointState, EventFacts, EventType, NextStep, OutboxEvent, ReplayRange, events_of,
    },
};
use diesel::{
    OptionalExtension as _, QueryableByName, RunQueryDsl as _, sql_query,
    sql_types::{BigInt, Binary, Integer, Nullable, Text},
};

use super::dialect::{Connection, LOCK, SKIP_LOCKED};
use crate::{
    failure::Failure,
    filter::TenantFilter,
    row::{ValueError, hash, resource, signed, unsigned},
};

/// Rows of one statement: more cost hardly less each, and SQLite takes 32 766 parameters.
const ROWS_AT_ONCE: usize = 500;
/// Endpoints looked at in one round of a courier, drawn by chance: nobody is always the last.
const ENDPOINTS_AT_ONCE: i64 = 1_000;

/// What a block means to those who want to be told, in the transaction that projects it. A block is told
/// of once, however often it is projected.
pub(super) fn tell_block(connection: &mut Connection, block: &ProjectedBlock) -> Result<(), Failure> {
    let advanced = sql_query(
        "INSERT INTO outbox_cursors (network, height) VALUES ($1, $2) ON CONFLICT (network)
         DO UPDATE SET height = excluded.height WHERE outbox_cursors.height < excluded.height",
    )
    .bind::<Text, _>(&block.network)
    .bind::<BigInt, _>(signed("height", block.height)?)
    .execute(connection)?;
    if advanced == 0 {
        return Ok(());
    }
    let wanted = wanted(connection, &block.network)?;
    let events = events_of(block, |tenant| wanted.contains_key(tenant));
    append(connection, &events, &wanted)
}

/// Puts events into the outbox, for every endpoint that wants them.
pub(super) fn tell(connection: &mut Connection, network: &str, events: &[OutboxEvent]) -> Result<(), Failure> {
    if events.is_empty() {
        return Ok(());
    }
    let wanted = wanted(connection, network)?;
    append(connection, events, &wanted)
}

/// An endpoint that is enabled, as far as writers of events need it.
#[derive(QueryableByName)]
struct Wanted {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = Text)]
    tenant: String,
    #[diesel(sql_type = Text)]
    events: String,
}

impl Wanted {
    fn wants(&self, event: &OutboxEvent) -> bool {
        self.events.is_empty() || self.events.split(',').any(|name| name == event.kind.as_str())
    }
}

/// Endpoints that are enabled, by tenant.
type ByTenant = HashMap<String, Vec<Wanted>>;

fn wanted(connection: &mut Connection, network: &str) -> Result<ByTenant, Failure> {
    let query = "SELECT id, tenant, events FROM webhook_endpoints WHERE network = $1 AND state = 0 ORDER BY id";
    let all: Vec<Wanted> = sql_query(query).bind::<Text, _>(network).load(connection)?;
    let mut by_tenant = ByTenant::new();
    for endpoint in all {
        by_tenant.entry(endpoint.tenant.clone()).or_default().push(endpoint);
    }
    Ok(by_tenant)
}

fn append(connection: &mut Connection, events: &[OutboxEvent], wanted: &ByTenant) -> Result<(), Failure> {
    let mut told = Vec::new();
    let mut deliveries = Vec::new();
    for event in events {
        let before = deliveries.len();
        let endpoints = wanted.get(&event.tenant).map_or(&[][..], Vec::as_slice);
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.wants(event)) {
            deliveries.push((event, resource("webhook_endpoints.id", &endpoint.id)?));
        }
        if deliveries.len() > before {
            told.push(event);
        }
    }
    insert_events(connection, &told)?;
    insert_deliveries(connection, &deliveries)
}

fn insert_events(connection: &mut Connection, events: &[&OutboxEvent]) -> Result<(), Failure> {
    for events in events.chunks(ROWS_AT_ONCE) {
        let text = format!(
            "INSERT INTO outbox_events (network, id, tenant, kind, resource, key, time, facts) VALUES {}
             ON CONFLICT (network, id) DO NOTHING",
            placeholders(events.len(), 8)
        );
        let mut query = sql_query(text).into_boxed();
        for event in events {
            let facts = serde_json::to_string(&event.facts)
                .map_err(|error| Failure::Invariant(format!("the facts of an event: {error}")))?;
            query = query
                .bind::<Text, _>(&event.network)
                .bind::<Binary, _>(&event.id.0[..])
                .bind::<Text, _>(&event.tenant)
                .bind::<Integer, _>(event.kind.number())
                .bind::<Binary, _>(&event.resource.0[..])
                .bind::<Binary, _>(&event.key.0[..])
                .bind::<BigInt, _>(signed("time of an event", event.time)?)
                .bind::<Text, _>(facts);
        }
        query.execute(connection)?;
    }
    Ok(())
}

/// In the order given, which is the order that a resource's events are delivered in.
fn insert_deliveries(connection: &mut Connection, deliveries: &[(&OutboxEvent, ResourceKey)]) -> Result<(), Failure> {
    for deliveries in deliveries.chunks(ROWS_AT_ONCE) {
        let text = format!(
            "INSERT INTO webhook_deliveries (network, tenant, id, endpoint, event, resource, event_time, state, \
                attempts, next_at)
             VALUES {} ON CONFLICT (network, id) DO NOTHING",
            placeholders(deliveries.len(), 10)
        );
        let mut query = sql_query(text).into_boxed();
        for (event, endpoint) in deliveries {
            let time = signed("time of an event", event.time)?;
            query = query
                .bind::<Text, _>(&event.network)
                .bind::<Text, _>(&event.tenant)
                .bind::<Binary, _>(event.delivery_to(endpoint).0.to_vec())
                .bind::<Binary, _>(endpoint.0.to_vec())
                .bind::<Binary, _>(&event.id.0[..])
                .bind::<Binary, _>(&event.resource.0[..])
                .bind::<BigInt, _>(time)
                .bind::<Integer, _>(DeliveryState::Pending.number())
                .bind::<Integer, _>(0)
                // Due at once; a block's time may lie a little ahead of a courier's clock.
                .bind::<BigInt, _>(0);
        }
        query.execute(connection)?;
    }
    Ok(())
}

/// `($1, $2), ($3, $4)` and so on.
fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let values: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", values.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// The condition that a row is its tenant's: the network is the parameter `first`, the tenant the next.
fn theirs(filter: TenantFilter, table: &str, first: usize) -> String {
    let second = first + 1;
    if filter.is_on() {
        format!("{table}.network = ${first} AND {table}.tenant = ${second}")
    } else {
        format!("${first} <> '' AND ${second} <> ''")
    }
}

const ENDPOINT: &str = "webhook_endpoints.network, webhook_endpoints.id, webhook_endpoints.tenant, request, url, events, \
    description, secret, previous_secret, previous_until, webhook_endpoints.state, disabled_at, failing_since, \
    created_at, version";

#[derive(QueryableByName)]
struct EndpointRecord {
    #[diesel(sql_type = Text)]
    network: String,
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = Text)]
    tenant: String,
    #[diesel(sql_type = Binary)]
    request: Vec<u8>,
    #[diesel(sql_type = Text)]
    url: String,
    #[diesel(sql_type = Text)]
    events: String,
    #[diesel(sql_type = Nullable<Text>)]
    description: Option<String>,
    #[diesel(sql_type = Binary)]
    secret: Vec<u8>,
    #[diesel(sql_type = Nullable<Binary>)]
    previous_secret: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<BigInt>)]
    previous_until: Option<i64>,
    #[diesel(sql_type = Integer)]
    state: i32,
    #[diesel(sql_type = Nullable<BigInt>)]
    disabled_at: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    failing_since: Option<i64>,
    #[diesel(sql_type = BigInt)]
    created_at: i64,
    #[diesel(sql_type = BigInt)]
    version: i64,
}

impl TryFrom<EndpointRecord> for EndpointRow {
    type Error = ValueError;

    fn try_from(record: EndpointRecord) -> Result<Self, ValueError> {
        let time = |value: Option<i64>| value.map(|at| unsigned("time of an endpoint", at)).transpose();
        let state = EndpointState::from_number(record.state);
        let event =
            |name: &str| EventType::parse(name).ok_or_else(|| ValueError::new("webhook_endpoints.events", name));
        let names = record.events.split(',').filter(|name| !name.is_empty());
        let mut events = names.map(event).collect::<Result<Vec<_>, _>>()?;
        events.sort_unstable();
        Ok(Self {
            id: resource("webhook_endpoints.id", &record.id)?,
            request: hash("webhook_endpoints.request", &record.request)?,
            events,
            previous_secret: record.previous_secret.zip(time(record.previous_until)?),
            state: state.ok_or_else(|| ValueError::new("webhook_endpoints.state", record.state))?,
            disabled_at: time(record.disabled_at)?,
            failing_since: time(record.failing_since)?,
            created_at: unsigned("webhook_endpoints.created_at", record.created_at)?,
            version: unsigned("webhook_endpoints.version", record.version)?,
            network: record.network,
            tenant: record.tenant,
            url: record.url,
            description: record.description,
            secret: record.secret,
        })
    }
}

fn names(events: &[EventType]) -> String {
    let mut names: Vec<_> = events.iter().map(|event| event.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

pub(super) fn insert_endpoint(
    connection: &mut Connection,
    endpoint: &EndpointRow,
    most: u32,
) -> Result<EndpointInsertion, Failure> {
    // Two at once may both find room for one: the bound is there for the sake of committers, not of anybody's money.
    let others: Count = sql_query("SELECT count(*) AS count FROM webhook_endpoints WHERE network = $1 AND tenant = $2")
        .bind::<Text, _>(&endpoint.network)
        .bind::<Text, _>(&endpoint.tenant)
        .get_result(connection)?;
    if let Some(known) = find_endpoint(connection, &endpoint.network, &endpoint.id)? {
        return Ok(EndpointInsertion::Known(Box::new(known)));
    }
    if others.count >= i64::from(most) {
        return Ok(EndpointInsertion::TooMany);
    }
    let previous = endpoint.previous_secret.as_ref();
    let time = |value: Option<u64>| value.map(|at| signed("time of an endpoint", at)).transpose();
    let inserted = sql_query(
        "INSERT INTO webhook_endpoints (network, id, tenant, request, url, events, description, secret, \
            previous_secret, previous_until, state, disabled_at, failing_since, created_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (network, id) DO NOTHING",
    )
    .bind::<Text, _>(&endpoint.network)
    .bind::<Binary, _>(&endpoint.id.0[..])
    .bind::<Text, _>(&endpoint.tenant)
    .bind::<Binary, _>(&endpoint.request.0[..])
    .bind::<Text, _>(&endpoint.url)
    .bind::<Text, _>(names(&endpoint.events))
    .bind::<Nullable<Text>, _>(endpoint.description.as_deref())
    .bind::<Binary, _>(&endpoint.secret)
    .bind::<Nullable<Binary>, _>(previous.map(|(secret, _)| &secret[..]))
    .bind::<Nullable<BigInt>, _>(time(previous.map(|(_, until)| *until))?)
    .bind::<Integer, _>(endpoint.state.number())
    .bind::<Nullable<BigInt>, _>(time(endpoint.disabled_at)?)
    .bind::<Nullable<BigInt>, _>(time(endpoint.failing_since)?)
    .bind::<BigInt, _>(signed("created_at", endpoint.created_at)?)
    .bind::<BigInt, _>(signed("version", endpoint.version)?)
    .execute(connection)?;
    if inserted == 1 {
        return Ok(EndpointInsertion::New);
    }
    match find_endpoint(connection, &endpoint.network, &endpoint.id)? {
        Some(known) => Ok(EndpointInsertion::Known(Box::new(known))),
        None => Err(Failure::Invariant("an endpoint is there and is not".to_owned())),
    }
}

fn find_endpoint(connection: &mut Connection, network: &str, id: &ResourceKey) -> Result<Option<EndpointRow>, Failure> {
    let record: Option<EndpointRecord> =
        sql_query(format!("SELECT {ENDPOINT} FROM webhook_endpoints WHERE network = $1 AND id = $2"))
            .bind::<Text, _>(network)
            .bind::<Binary, _>(&id.0[..])
            .get_result(connection)
            .optional()?;
    Ok(record.map(EndpointRow::try_from).transpose()?)
}

pub(super) fn endpoints(
    connection: &mut Connection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
) -> Result<Vec<EndpointRow>, Failure> {
    let query = format!(
        "SELECT {ENDPOINT} FROM webhook_endpoints WHERE {} ORDER BY created_at, id",
        theirs(filter, "webhook_endpoints", 1)
    );
    let records: Vec<EndpointRecord> =
        sql_query(query).bind::<Text, _>(network).bind::<Text, _>(tenant).load(connection)?;
    records.into_iter().map(|record| Ok(EndpointRow::try_from(record)?)).collect()
}

pub(super) fn update_endpoint(
    connection: &mut Connection,
    filter: TenantFilter,
    endpoint: &EndpointRow,
) -> Result<bool, Failure> {
    let previous = endpoint.previous_secret.as_ref();
    let time = |value: Option<u64>| value.map(|at| signed("time of an endpoint", at)).transpose();
    let version = signed("version", endpoint.version)?;
    let updated = sql_query(format!(
        "UPDATE webhook_endpoints SET url = $1, events = $2, description = $3, secret = $4, previous_secret = $5, \
            previous_until = $6, disabled_at = CASE WHEN $7 = 0 THEN NULL ELSE $8 END,
            failing_since = CASE WHEN $7 = 0 AND state <> 0 THEN NULL ELSE failing_since END, state = $7, version = $9
         WHERE {} AND id = $12 AND version = $9 - 1",
        theirs(filter, "webhook_endpoints", 10)
    ))
    .bind::<Text, _>(&endpoint.url)
    .bind::<Text, _>(names(&endpoint.events))
    .bind::<Nullable<Text>, _>(endpoint.description.as_deref())
    .bind::<Binary, _>(&endpoint.secret)
    .bind::<Nullable<Binary>, _>(previous.map(|(secret, _)| &secret[..]))
    .bind::<Nullable<BigInt>, _>(time(previous.map(|(_, until)| *until))?)
    .bind::<Integer, _>(endpoint.state.number())
    .bind::<Nullable<BigInt>, _>(time(endpoint.disabled_at)?)
    .bind::<BigInt, _>(version)
    .bind::<Text, _>(&endpoint.network)
    .bind::<Text, _>(&endpoint.tenant)
    .bind::<Binary, _>(&endpoint.id.0[..])
    .execute(connection)?;
    if updated == 1 && endpoint.state != EndpointState::Enabled {
        let at = endpoint.disabled_at.unwrap_or(endpoint.created_at);
        bury(connection, &endpoint.network, &endpoint.id, at)?;
    }
    Ok(updated == 1)
}

/// Gives up everything that is pending for an endpoint.
fn bury(connection: &mut Connection, network: &str, endpoint: &ResourceKey, at: u64) -> Result<(), Failure> {
    sql_query(
        "UPDATE webhook_deliveries SET state = 2, claim = NULL, ended_at = $1
         WHERE network = $2 AND endpoint = $3 AND state = 0",
    )
    .bind::<BigInt, _>(signed("ended_at", at)?)
    .bind::<Text, _>(network)
    .bind::<Binary, _>(&endpoint.0[..])
    .execute(connection)?;
    Ok(())
}

pub(super) fn delete_endpoint(
    connection: &mut Connection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    id: &ResourceKey,
) -> Result<bool, Failure> {
    let statement = |table: &str, column: &str| {
        sql_query(format!("DELETE FROM {table} WHERE {} AND {column} = $3", theirs(filter, table, 1)))
            .bind::<Text, _>(network.to_owned())
            .bind::<Text, _>(tenant.to_owned())
            .bind::<Binary, _>(id.0.to_vec())
    };
    let deleted = statement("webhook_endpoints", "id").execute(connection)?;
    statement("webhook_deliveries", "endpoint").execute(connection)?;
    Ok(deleted == 1)
}

pub(super) fn push_event(
    connection: &mut Connection,
    event: &OutboxEvent,
    endpoint: &ResourceKey,
) -> Result<(), Failure> {
    insert_events(connection, &[event])?;
    insert_deliveries(connection, &[(event, *endpoint)])
}

const EVENT: &str = "outbox_events.id AS event, outbox_events.tenant AS event_tenant, outbox_events.kind, \
    outbox_events.resource, outbox_events.key, outbox_events.time, outbox_events.facts";

#[derive(QueryableByName)]
struct EventRecord {
    #[diesel(sql_type = Binary)]
    event: Vec<u8>,
    #[diesel(sql_type = Text)]
    event_tenant: String,
    #[diesel(sql_type = Integer)]
    kind: i32,
    #[diesel(sql_type = Binary)]
    resource: Vec<u8>,
    #[diesel(sql_type = Binary)]
    key: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    time: i64,
    #[diesel(sql_type = Text)]
    facts: String,
}

impl EventRecord {
    fn event(self, network: &str) -> Result<OutboxEvent, ValueError> {
        let kind = EventType::from_number(self.kind);
        let facts: Result<EventFacts, _> = serde_json::from_str(&self.facts);
        Ok(OutboxEvent {
            id: resource("outbox_events.id", &self.event)?,
            network: network.to_owned(),
            kind: kind.ok_or_else(|| ValueError::new("outbox_events.kind", self.kind))?,
            resource: resource("outbox_events.resource", &self.resource)?,
            key: resource("outbox_events.key", &self.key)?,
            time: unsigned("outbox_events.time", self.time)?,
            facts: facts.map_err(|_| ValueError::new("outbox_events.facts", "other members"))?,
            tenant: self.event_tenant,
        })
    }
}

const DELIVERY: &str = "webhook_deliveries.sequence, webhook_deliveries.id AS delivery, webhook_deliveries.endpoint, \
    webhook_deliveries.state AS delivery_state, attempts, next_at, last_status, ended_at";

#[derive(QueryableByName)]
struct DeliveryRecord {
    #[diesel(sql_type = BigInt)]
    sequence: i64,
    #[diesel(sql_type = Binary)]
    delivery: Vec<u8>,
    #[diesel(sql_type = Binary)]
    endpoint: Vec<u8>,
    #[diesel(sql_type = Integer)]
    delivery_state: i32,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = BigInt)]
    next_at: i64,
    #[diesel(sql_type = Nullable<Integer>)]
    last_status: Option<i32>,
    #[diesel(sql_type = Nullable<BigInt>)]
    ended_at: Option<i64>,
    #[diesel(embed)]
    event: EventRecord,
}

impl DeliveryRecord {
    fn row(self, network: &str) -> Result<DeliveryRow, ValueError> {
        let state = DeliveryState::from_number(self.delivery_state);
        Ok(DeliveryRow {
            sequence: unsigned("webhook_deliveries.sequence", self.sequence)?,
            id: resource("webhook_deliveries.id", &self.delivery)?,
            endpoint: resource("webhook_deliveries.endpoint", &self.endpoint)?,
            event: self.event.event(network)?,
            state: state.ok_or_else(|| ValueError::new("webhook_deliveries.state", self.delivery_state))?,
            attempts: counted("webhook_deliveries.attempts", self.attempts)?,
            next_at: unsigned("webhook_deliveries.next_at", self.next_at)?,
            last_status: self.last_status.map(status).transpose()?,
            ended_at: self.ended_at.map(|at| unsigned("webhook_deliveries.ended_at", at)).transpose()?,
        })
    }
}

fn counted(field: &'static str, value: i32) -> Result<u32, ValueError> {
    u32::try_from(value).map_err(|_| ValueError::new(field, value))
}

fn status(value: i32) -> Result<u16, ValueError> {
    u16::try_from(value).map_err(|_| ValueError::new("status of an answer", value))
}

const JOINED: &str = "webhook_deliveries JOIN outbox_events ON outbox_events.network = webhook_deliveries.network \
    AND outbox_events.id = webhook_deliveries.event";

pub(super) fn deliveries(
    connection: &mut Connection,
    filter: TenantFilter,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRow>, Failure> {
    let mut text =
        format!("SELECT {DELIVERY}, {EVENT} FROM {JOINED} WHERE {}", theirs(filter, "webhook_deliveries", 1));
    // Each bound has its own place even where it is not asked for: one statement for all queries of a shape.
    let mut number = 2;
    let mut add = |present: bool, condition: &str| {
        if present {
            number += 1;
            text.push_str(&format!(" AND webhook_deliveries.{condition} ${number}"));
        }
    };
    add(query.endpoint.is_some(), "endpoint =");
    add(query.state.is_some(), "state =");
    add(query.from.is_some(), "event_time >=");
    add(query.to.is_some(), "event_time <");
    add(query.before.is_some(), "sequence <");
    text.push_str(&format!(" ORDER BY webhook_deliveries.sequence DESC LIMIT ${}", number + 1));
    let mut statement = sql_query(text).into_boxed().bind::<Text, _>(&query.network).bind::<Text, _>(&query.tenant);
    if let Some(endpoint) = &query.endpoint {
        statement = statement.bind::<Binary, _>(&endpoint.0[..]);
    }
    if let Some(state) = query.state {
        statement = statement.bind::<Integer, _>(state.number());
    }
    for bound in [query.from, query.to, query.before].into_iter().flatten() {
        statement = statement.bind::<BigInt, _>(crate::row::bound(bound));
    }
    let records: Vec<DeliveryRecord> = statement.bind::<BigInt, _>(i64::from(query.limit)).load(connection)?;
    records.into_iter().map(|record| Ok(record.row(&query.network)?)).collect()
}

#[derive(QueryableByName)]
struct AttemptRecord {
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = Integer)]
    number: i32,
    #[diesel(sql_type = Integer)]
    outcome: i32,
    #[diesel(sql_type = Nullable<Integer>)]
    status: Option<i32>,
    #[diesel(sql_type = Text)]
    detail: String,
    #[diesel(sql_type = BigInt)]
    took_ms: i64,
}

impl TryFrom<AttemptRecord> for AttemptRow {
    type Error = ValueError;

    fn try_from(record: AttemptRecord) -> Result<Self, ValueError> {
        let outcome = AttemptOutcome::from_number(record.outcome);
        Ok(Self {
            at: unsigned("webhook_attempts.at", record.at)?,
            number: counted("webhook_attempts.number", record.number)?,
            outcome: outcome.ok_or_else(|| ValueError::new("webhook_attempts.outcome", record.outcome))?,
            status: record.status.map(status).transpose()?,
            detail: record.detail,
            took_ms: unsigned("webhook_attempts.took_ms", record.took_ms)?,
        })
    }
}

pub(super) fn delivery(
    connection: &mut Connection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    id: &ResourceKey,
) -> Result<Option<(DeliveryRow, Vec<AttemptRow>)>, Failure> {
    let query = format!(
        "SELECT {DELIVERY}, {EVENT} FROM {JOINED}
         WHERE {} AND webhook_deliveries.id = $3",
        theirs(filter, "webhook_deliveries", 1)
    );
    let record: Option<DeliveryRecord> = sql_query(query)
        .bind::<Text, _>(network)
        .bind::<Text, _>(tenant)
        .bind::<Binary, _>(&id.0[..])
        .get_result(connection)
        .optional()?;
    let Some(record) = record else { return Ok(None) };
    let attempts: Vec<AttemptRecord> = sql_query(
        "SELECT at, number, outcome, status, detail, took_ms FROM webhook_attempts
         WHERE delivery = $1 AND network = $2 AND tenant = $3 ORDER BY at, number",
    )
    .bind::<BigInt, _>(record.sequence)
    .bind::<Text, _>(network)
    .bind::<Text, _>(tenant)
    .load(connection)?;
    let attempts = attempts.into_iter().map(AttemptRow::try_from).collect::<Result<_, _>>()?;
    Ok(Some((record.row(network)?, attempts)))
}

/// What a replay makes of a delivery. Whoever holds a claim on it loses it: what that attempt brings counts for nothing.
const DUE_AGAIN: &str =
    "UPDATE webhook_deliveries SET state = 0, attempts = 0, next_at = $1, claim = NULL, ended_at = NULL";

pub(super) fn replay(
    connection: &mut Connection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    id: &ResourceKey,
    now: u64,
) -> Result<bool, Failure> {
    let replayed = sql_query(format!("{DUE_AGAIN} WHERE {} AND id = $4", theirs(filter, "webhook_deliveries", 2)))
        .bind::<BigInt, _>(signed("next_at", now)?)
        .bind::<Text, _>(network)
        .bind::<Text, _>(tenant)
        .bind::<Binary, _>(&id.0[..])
        .execute(connection)?;
    Ok(replayed == 1)
}

pub(super) fn replay_range(
    connection: &mut Connection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    endpoint: &ResourceKey,
    range: ReplayRange,
    now: u64,
) -> Result<u64, Failure> {
    let replayed = sql_query(format!(
        "{DUE_AGAIN} WHERE {} AND endpoint = $4 AND event_time >= $5 AND event_time < $6 \
            AND ($7 < 0 OR state = $7)",
        theirs(filter, "webhook_deliveries", 2)
    ))
    .bind::<BigInt, _>(signed("next_at", now)?)
    .bind::<Text, _>(network)
    .bind::<Text, _>(tenant)
    .bind::<Binary, _>(&endpoint.0[..])
    .bind::<BigInt, _>(crate::row::bound(range.from))
    .bind::<BigInt, _>(crate::row::bound(range.to))
    .bind::<Integer, _>(range.state.map_or(-1, DeliveryState::number))
    .execute(connection)?;
    Ok(replayed as u64)
}

#[derive(QueryableByName)]
struct Due {
    #[diesel(sql_type = Binary)]
    endpoint: Vec<u8>,
}

pub(super) fn due_endpoints(connection: &mut Connection, network: &str, now: u64) -> Result<Vec<ResourceKey>, Failure> {
    let due: Vec<Due> = sql_query(
        "SELECT webhook_deliveries.endpoint FROM webhook_deliveries
         JOIN webhook_endpoints ON webhook_endpoints.network = webhook_deliveries.network
            AND webhook_endpoints.id = webhook_deliveries.endpoint AND webhook_endpoints.state = 0
         WHERE webhook_deliveries.network = $1 AND webhook_deliveries.state = 0 AND next_at <= $2
         GROUP BY webhook_deliveries.endpoint ORDER BY random() LIMIT $3",
    )
    .bind::<Text, _>(network)
    .bind::<BigInt, _>(crate::row::bound(now))
    .bind::<BigInt, _>(ENDPOINTS_AT_ONCE)
    .load(connection)?;
    due.iter().map(|due| Ok(resource("webhook_deliveries.endpoint", &due.endpoint)?)).collect()
}

/// A claim is a time and a name: it ends by itself, and who comes too late finds another's name.
///
/// That nothing comes before is asked row by row, in a form that cannot be planned as a join of everything
/// that is pending with itself: rows come in order, and the first few are enough.
pub(super) fn claim(
    connection: &mut Connection,
    network: &str,
    endpoint: &ResourceKey,
    claim: ResourceKey,
    (now, until): (u64, u64),
    limit: u32,
) -> Result<Vec<ClaimedDelivery>, Failure> {
    let Some(endpoint) = find_endpoint(connection, network, endpoint)? else { return Ok(Vec::new()) };
    if endpoint.state != EndpointState::Enabled {
        return Ok(Vec::new());
    }
    let claimed = sql_query(format!(
        "WITH due AS (
            SELECT d.sequence FROM webhook_deliveries d
            WHERE d.network = $1 AND d.endpoint = $2 AND d.state = 0 AND d.next_at <= $3
                AND d.sequence = (SELECT head.sequence FROM webhook_deliveries head WHERE head.network = d.network
                    AND head.endpoint = d.endpoint AND head.resource = d.resource AND head.state = 0
                    ORDER BY head.sequence LIMIT 1)
            ORDER BY d.sequence LIMIT $4 {SKIP_LOCKED})
         UPDATE webhook_deliveries SET next_at = $5, claim = $6 WHERE sequence IN (SELECT sequence FROM due)"
    ))
    .bind::<Text, _>(network)
    .bind::<Binary, _>(&endpoint.id.0[..])
    .bind::<BigInt, _>(crate::row::bound(now))
    .bind::<BigInt, _>(i64::from(limit))
    .bind::<BigInt, _>(crate::row::bound(until))
    .bind::<Binary, _>(&claim.0[..])
    .execute(connection)?;
    if claimed == 0 {
        return Ok(Vec::new());
    }
    let records: Vec<DeliveryRecord> = sql_query(format!(
        "SELECT {DELIVERY}, {EVENT} FROM {JOINED} WHERE webhook_deliveries.network = $1
            AND webhook_deliveries.endpoint = $2 AND webhook_deliveries.state = 0 AND webhook_deliveries.claim = $3
         ORDER BY webhook_deliveries.sequence"
    ))
    .bind::<Text, _>(network)
    .bind::<Binary, _>(&endpoint.id.0[..])
    .bind::<Binary, _>(&claim.0[..])
    .load(connection)?;
    // One that this version cannot read is left to another: its claim ends, and nobody else waits for it.
    let claimed = |record: DeliveryRecord| match record.row(network) {
        Ok(row) => {
            let endpoint = endpoint.clone();
            Some(ClaimedDelivery { sequence: row.sequence, claim, endpoint, attempts: row.attempts, event: row.event })
        }
        Err(error) => {
            tracing::error!(%error, "a webhook delivery cannot be read by this version");
            None
        }
    };
    Ok(records.into_iter().filter_map(claimed).collect())
}

pub(super) fn record(
    connection: &mut Connection,
    delivery: &ClaimedDelivery,
    attempt: &AttemptRow,
    next: NextStep,
) -> Result<bool, Failure> {
    let at = signed("time of an attempt", attempt.at.saturating_add(attempt.took_ms))?;
    let (state, next_at, ended_at) = match next {
        NextStep::Done => (DeliveryState::Delivered, 0, Some(at)),
        NextStep::Again(next) => (DeliveryState::Pending, signed("next_at", next)?, None),
        NextStep::Dead | NextStep::Disable(_) => (DeliveryState::Dead, 0, Some(at)),
    };
    let sequence = signed("sequence", delivery.sequence)?;
    // Before the delivery is written, and only where the endpoint changes: all of its deliveries meet at its row,
    // and who disables it gives up what others are writing.
    let changes = match next {
        NextStep::Done => "AND failing_since IS NOT NULL",
        NextStep::Again(_) | NextStep::Dead => "AND failing_since IS NULL",
        NextStep::Disable(_) => "",
    };
    let is_held = hold_endpoint(connection, &delivery.endpoint, changes)?;
    let updated = sql_query(
        "UPDATE webhook_deliveries SET state = $1, attempts = $2, next_at = $3, claim = NULL, last_status = $4, \
            ended_at = $5
         WHERE sequence = $6 AND claim = $7 AND state = 0",
    )
    .bind::<Integer, _>(state.number())
    .bind::<Integer, _>(attempt_number(attempt)?)
    .bind::<BigInt, _>(next_at)
    .bind::<Nullable<Integer>, _>(attempt.status.map(i32::from))
    .bind::<Nullable<BigInt>, _>(ended_at)
    .bind::<BigInt, _>(sequence)
    .bind::<Binary, _>(&delivery.claim.0[..])
    .execute(connection)?;
    if updated == 0 {
        return Ok(false);
    }
    sql_query(
        "INSERT INTO webhook_attempts (delivery, at, number, network, tenant, outcome, status, detail, took_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (delivery, at, number) DO NOTHING",
    )
    .bind::<BigInt, _>(sequence)
    .bind::<BigInt, _>(signed("time of an attempt", attempt.at)?)
    .bind::<Integer, _>(attempt_number(attempt)?)
    .bind::<Text, _>(&delivery.endpoint.network)
    .bind::<Text, _>(&delivery.endpoint.tenant)
    .bind::<Integer, _>(attempt.outcome.number())
    .bind::<Nullable<Integer>, _>(attempt.status.map(i32::from))
    .bind::<Text, _>(&attempt.detail)
    .bind::<BigInt, _>(signed("took_ms", attempt.took_ms)?)
    .execute(connection)?;
    if is_held {
        tell_endpoint(connection, delivery, next, attempt.at)?;
    }
    Ok(true)
}

/// Takes the row of an endpoint for this transaction if it is as `condition` says.
fn hold_endpoint(connection: &mut Connection, endpoint: &EndpointRow, condition: &str) -> Result<bool, Failure> {
    let query =
        format!("SELECT id AS endpoint FROM webhook_endpoints WHERE network = $1 AND id = $2 {condition} {LOCK}");
    let held: Vec<Due> =
        sql_query(query).bind::<Text, _>(&endpoint.network).bind::<Binary, _>(&endpoint.id.0[..]).load(connection)?;
    Ok(!held.is_empty())
}

fn attempt_number(attempt: &AttemptRow) -> Result<i32, Failure> {
    i32::try_from(attempt.number).map_err(|_| Failure::Invariant("more attempts than numbers".to_owned()))
}

/// What an attempt means for the endpoint as a whole, which the caller holds.
fn tell_endpoint(
    connection: &mut Connection,
    delivery: &ClaimedDelivery,
    next: NextStep,
    at: u64,
) -> Result<(), Failure> {
    let endpoint = &delivery.endpoint;
    let when = signed("time of an endpoint", at)?;
    match next {
        NextStep::Done => {
            sql_query(
                "UPDATE webhook_endpoints SET failing_since = NULL
                 WHERE network = $1 AND id = $2 AND failing_since IS NOT NULL",
            )
            .bind::<Text, _>(&endpoint.network)
            .bind::<Binary, _>(&endpoint.id.0[..])
            .execute(connection)?;
        }
        NextStep::Again(_) | NextStep::Dead => {
            sql_query(
                "UPDATE webhook_endpoints SET failing_since = $1
                 WHERE network = $2 AND id = $3 AND failing_since IS NULL",
            )
            .bind::<BigInt, _>(when)
            .bind::<Text, _>(&endpoint.network)
            .bind::<Binary, _>(&endpoint.id.0[..])
            .execute(connection)?;
        }
        NextStep::Disable(reason) => {
            let disabled = sql_query(
                "UPDATE webhook_endpoints SET state = $1, disabled_at = $2, version = version + 1
                 WHERE network = $3 AND id = $4 AND state = 0",
            )
            .bind::<Integer, _>(reason.number())
            .bind::<BigInt, _>(when)
            .bind::<Text, _>(&endpoint.network)
            .bind::<Binary, _>(&endpoint.id.0[..])
            .execute(connection)?;
            if disabled == 1 {
                bury(connection, &endpoint.network, &endpoint.id, at)?;
                tell(connection, &endpoint.network, &[OutboxEvent::disabled(endpoint, reason, at)])?;
            }
        }
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Pending {
    #[diesel(sql_type = BigInt)]
    pending: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
    #[diesel(sql_type = BigInt)]
    enabled: i64,
    #[diesel(sql_type = BigInt)]
    endpoints: i64,
}

pub(super) fn backlog(connection: &mut Connection, network: &str) -> Result<Backlog, Failure> {
    let found: Pending = sql_query(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM webhook_deliveries WHERE network = $1 AND state = 0 LIMIT 100000)
                AS counted) AS pending,
            (SELECT min(event_time) FROM webhook_deliveries WHERE network = $1 AND state = 0) AS oldest,
            (SELECT count(*) FROM webhook_endpoints WHERE network = $1 AND state = 0) AS enabled,
            (SELECT count(*) FROM webhook_endpoints WHERE network = $1) AS endpoints",
    )
    .bind::<Text, _>(network)
    .get_result(connection)?;
    Ok(Backlog {
        pending: unsigned("pending", found.pending)?,
        oldest: found.oldest.map(|at| unsigned("oldest", at)).transpose()?,
        enabled: unsigned("enabled", found.enabled)?,
        disabled: unsigned("endpoints", found.endpoints - found.enabled)?,
    })
}

/// Gives up what was put on its way to an endpoint while that was disabled, and removes what was for one that is gone.
pub(super) fn sweep(connection: &mut Connection, network: &str, now: u64, limit: u32) -> Result<u64, Failure> {
    let given_up = sql_query(
        "UPDATE webhook_deliveries SET state = 2, claim = NULL, ended_at = $1 WHERE sequence IN (
            SELECT d.sequence FROM webhook_deliveries d WHERE d.network = $2 AND d.state = 0
                AND NOT EXISTS (SELECT 1 FROM webhook_endpoints e WHERE e.network = d.network AND e.id = d.endpoint
                    AND e.state = 0)
            LIMIT $3)",
    )
    .bind::<BigInt, _>(crate::row::bound(now))
    .bind::<Text, _>(network)
    .bind::<BigInt, _>(i64::from(limit))
    .execute(connection)?;
    Ok(given_up as u64)
}

pub(super) fn prune(connection: &mut Connection, network: &str, before: u64, limit: u32) -> Result<u64, Failure> {
    let before = crate::row::bound(before);
    let deleted = sql_query(
        "DELETE FROM webhook_deliveries WHERE sequence IN (SELECT sequence FROM webhook_deliveries
            WHERE network = $1 AND state <> 0 AND ended_at < $2 LIMIT $3)",
    )
    .bind::<Text, _>(network)
    .bind::<BigInt, _>(before)
    .bind::<BigInt, _>(i64::from(limit))
    .execute(connection)?;
    sql_query(
        "DELETE FROM outbox_events WHERE network = $1 AND id IN (SELECT id FROM outbox_events old
            WHERE old.network = $1 AND old.time < $2 AND NOT EXISTS (SELECT 1 FROM webhook_deliveries
                WHERE webhook_deliveries.network = old.network AND webhook_deliveries.event = old.id) LIMIT $3)",
    )
    .bind::<Text, _>(network)
    .bind::<BigInt, _>(before)
    .bind::<BigInt, _>(i64::from(limit))
    .execute(connection)?;
    Ok(deleted as u64)
}
