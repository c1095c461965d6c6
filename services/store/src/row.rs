//! Between rows and the types of `domain`. Closed sets are stored as their stable numbers; a number
//! or a length that this version does not know is an error, never a guess.

use std::num::NonZeroU32;

use chopmark_domain::{
    id::ResourceKey,
    quota::{Limits, Rate},
    record::{CaseLink, CommittedAt, OperationRow, OperationState, ProjectionCursor, RejectedAt, StateFilter},
    tenant::{ApiKeyRow, Scope, SigningKeyRow, TenantRow},
    webhook::OutboxEvent,
};
use diesel::prelude::*;
use ipnet::IpNet;
use ledger_core::{hash::Hash32, operation::OperationType, outcome::RejectionCode};
use thiserror::Error;

use crate::{
    failure::Failure,
    schema::{api_keys, case_links, operations, projection_cursors, signing_keys, tenants},
};

/// A value that does not fit, on its way in or out.
#[derive(Debug, Error)]
#[error("{field} holds {value}, which is not known here")]
pub(crate) struct ValueError {
    field: &'static str,
    value: String,
}

impl ValueError {
    pub(crate) fn new(field: &'static str, value: impl ToString) -> Self {
        Self { field, value: value.to_string() }
    }
}

type Converted<T> = Result<T, ValueError>;

/// Stable numbers of the states.
pub(crate) const ACCEPTED: i32 = 0;
pub(crate) const COMMITTED: i32 = 1;
pub(crate) const REJECTED: i32 = 2;

pub(crate) const fn state_number(state: StateFilter) -> i32 {
    match state {
        StateFilter::Accepted => ACCEPTED,
        StateFilter::Committed => COMMITTED,
        StateFilter::Rejected => REJECTED,
    }
}

pub(crate) fn kind_number(kind: OperationType) -> i32 {
    i32::from(kind.number())
}

/// A number on its way in: databases have no unsigned ones.
pub(crate) fn signed(field: &'static str, value: u64) -> Converted<i64> {
    i64::try_from(value).map_err(|_| ValueError::new(field, value))
}

/// A bound on its way in: nothing stored lies above the largest signed number.
pub(crate) fn bound(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(field: &'static str, value: i64) -> Converted<u64> {
    u64::try_from(value).map_err(|_| ValueError::new(field, value))
}

fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Converted<[u8; N]> {
    bytes.try_into().map_err(|_| ValueError::new(field, format_args!("{} bytes", bytes.len())))
}

pub(crate) fn hash(field: &'static str, bytes: &[u8]) -> Converted<Hash32> {
    array(field, bytes).map(Hash32)
}

pub(crate) fn resource(field: &'static str, bytes: &[u8]) -> Converted<ResourceKey> {
    array(field, bytes).map(ResourceKey)
}

fn present<T>(field: &'static str, value: Option<T>) -> Converted<T> {
    value.ok_or_else(|| ValueError::new(field, "nothing"))
}

fn kind(number: i32) -> Converted<OperationType> {
    u8::try_from(number)
        .ok()
        .and_then(OperationType::from_number)
        .ok_or_else(|| ValueError::new("operations.kind", number))
}

fn rejection(number: i32) -> Converted<RejectionCode> {
    u8::try_from(number)
        .ok()
        .and_then(RejectionCode::from_number)
        .ok_or_else(|| ValueError::new("operations.rejection", number))
}

/// Where an operation ended, as columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome<'a> {
    pub(crate) state: i32,
    pub(crate) leaf_index: Option<i64>,
    pub(crate) entry: Option<&'a Hash32>,
    pub(crate) height: i64,
    pub(crate) block_time: i64,
    pub(crate) rejection: Option<i32>,
}

impl<'a> Outcome<'a> {
    /// `None` for an operation that has not ended.
    pub(crate) fn of(state: &'a OperationState) -> Converted<Option<Self>> {
        Ok(match state {
            OperationState::Accepted => None,
            OperationState::Committed(at) => Some(Self {
                state: COMMITTED,
                leaf_index: Some(signed("leaf index", at.index)?),
                entry: Some(&at.entry),
                height: signed("height", at.height)?,
                block_time: signed("block time", at.time)?,
                rejection: None,
            }),
            OperationState::Rejected(at) => Some(Self {
                state: REJECTED,
                leaf_index: None,
                entry: None,
                height: signed("height", at.height)?,
                block_time: signed("block time", at.time)?,
                rejection: Some(i32::from(at.code.number())),
            }),
        })
    }
}

/// A row of `operations`, but for the network.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = operations)]
pub(crate) struct OperationRecord {
    sequence: i64,
    key: Vec<u8>,
    op: Vec<u8>,
    tenant: String,
    kind: i32,
    request: Vec<u8>,
    operation_hash: Vec<u8>,
    accepted_at: i64,
    conflicted: bool,
    state: i32,
    leaf_index: Option<i64>,
    entry: Option<Vec<u8>>,
    height: Option<i64>,
    block_time: Option<i64>,
    rejection: Option<i32>,
}

impl OperationRecord {
    fn outcome(&self) -> Converted<OperationState> {
        let at = || -> Converted<(u64, u64)> {
            let height = unsigned("operations.height", present("operations.height", self.height)?)?;
            let time = unsigned("operations.block_time", present("operations.block_time", self.block_time)?)?;
            Ok((height, time))
        };
        match self.state {
            ACCEPTED => Ok(OperationState::Accepted),
            COMMITTED => {
                let (height, time) = at()?;
                let index = unsigned("operations.leaf_index", present("operations.leaf_index", self.leaf_index)?)?;
                let entry = hash("operations.entry", present("operations.entry", self.entry.as_deref())?)?;
                Ok(OperationState::Committed(CommittedAt { index, entry, height, time }))
            }
            REJECTED => {
                let (height, time) = at()?;
                let code = rejection(present("operations.rejection", self.rejection)?)?;
                Ok(OperationState::Rejected(RejectedAt { code, height, time }))
            }
            other => Err(ValueError::new("operations.state", other)),
        }
    }
}

impl TryFrom<OperationRecord> for OperationRow {
    type Error = ValueError;

    fn try_from(record: OperationRecord) -> Converted<Self> {
        Ok(Self {
            sequence: unsigned("operations.sequence", record.sequence)?,
            key: resource("operations.key", &record.key)?,
            op: hash("operations.op", &record.op)?,
            kind: kind(record.kind)?,
            request: hash("operations.request", &record.request)?,
            operation_hash: hash("operations.operation_hash", &record.operation_hash)?,
            accepted_at: unsigned("operations.accepted_at", record.accepted_at)?,
            state: record.outcome()?,
            conflicted: record.conflicted,
            tenant: record.tenant,
        })
    }
}

/// The row of an operation whose id another request holds, as far as its tenant is told.
#[derive(Debug, Queryable, Selectable, QueryableByName)]
#[diesel(table_name = operations)]
pub(crate) struct Conflicted {
    network: String,
    tenant: String,
    key: Vec<u8>,
    op: Vec<u8>,
    kind: i32,
    accepted_at: i64,
}

impl Conflicted {
    pub(crate) fn event(&self) -> Converted<OutboxEvent> {
        let subject = (resource("operations.key", &self.key)?, &hash("operations.op", &self.op)?, kind(self.kind)?);
        let time = unsigned("operations.accepted_at", self.accepted_at)?;
        Ok(OutboxEvent::conflict(&self.network, &self.tenant, subject, time))
    }
}

/// A row of `case_links`, but for the network.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = case_links)]
pub(crate) struct CaseLinkRecord {
    tenant: String,
    case_key: Vec<u8>,
    position: i64,
    evidence: Vec<u8>,
    leaf_index: i64,
    entry: Vec<u8>,
    previous: Vec<u8>,
    block_time: i64,
}

impl TryFrom<CaseLinkRecord> for CaseLink {
    type Error = ValueError;

    fn try_from(record: CaseLinkRecord) -> Converted<Self> {
        Ok(Self {
            tenant: record.tenant,
            case: resource("case_links.case_key", &record.case_key)?,
            position: unsigned("case_links.position", record.position)?,
            evidence: resource("case_links.evidence", &record.evidence)?,
            index: unsigned("case_links.leaf_index", record.leaf_index)?,
            entry: hash("case_links.entry", &record.entry)?,
            previous: hash("case_links.previous", &record.previous)?,
            time: unsigned("case_links.block_time", record.block_time)?,
        })
    }
}

/// A row of `projection_cursors`, but for the network.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = projection_cursors)]
pub(crate) struct CursorRecord {
    height: i64,
    hash: Vec<u8>,
    tree_size: i64,
}

impl TryFrom<CursorRecord> for ProjectionCursor {
    type Error = ValueError;

    fn try_from(record: CursorRecord) -> Converted<Self> {
        Ok(Self {
            height: unsigned("projection_cursors.height", record.height)?,
            hash: hash("projection_cursors.hash", &record.hash)?,
            tree_size: unsigned("projection_cursors.tree_size", record.tree_size)?,
        })
    }
}

/// A row of `tenants`.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = tenants, treat_none_as_default_value = false)]
pub(crate) struct TenantRecord {
    network: String,
    id: String,
    wrapped_secret: Vec<u8>,
    active: bool,
    created_at: i64,
    signatures_required: bool,
    #[diesel(embed)]
    limits: LimitsRecord,
}

impl TryFrom<TenantRow> for TenantRecord {
    type Error = ValueError;

    fn try_from(row: TenantRow) -> Converted<Self> {
        Ok(Self {
            created_at: signed("created_at", row.created_at)?,
            limits: row.limits.try_into()?,
            network: row.network,
            id: row.id,
            wrapped_secret: row.wrapped_secret,
            active: row.active,
            signatures_required: row.signatures_required,
        })
    }
}

impl TryFrom<TenantRecord> for TenantRow {
    type Error = ValueError;

    fn try_from(record: TenantRecord) -> Converted<Self> {
        Ok(Self {
            created_at: unsigned("tenants.created_at", record.created_at)?,
            limits: record.limits.try_into()?,
            id: record.id,
            network: record.network,
            wrapped_secret: record.wrapped_secret,
            active: record.active,
            signatures_required: record.signatures_required,
        })
    }
}

/// What a tenant may use.
#[derive(Debug, Clone, Copy, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = tenants, treat_none_as_default_value = false, treat_none_as_null = true)]
pub(crate) struct LimitsRecord {
    requests_per_second: Option<i64>,
    requests_burst: Option<i64>,
    records_per_day: Option<i64>,
}

impl TryFrom<Limits> for LimitsRecord {
    type Error = ValueError;

    fn try_from(limits: Limits) -> Converted<Self> {
        Ok(Self {
            requests_per_second: limits.rate.map(|rate| i64::from(rate.per_second.get())),
            requests_burst: limits.rate.map(|rate| i64::from(rate.burst.get())),
            records_per_day: limits.records_per_day.map(|limit| signed("records_per_day", limit)).transpose()?,
        })
    }
}

impl TryFrom<LimitsRecord> for Limits {
    type Error = ValueError;

    fn try_from(record: LimitsRecord) -> Converted<Self> {
        let number = |field, value: i64| {
            let number = u32::try_from(value).ok().and_then(NonZeroU32::new);
            number.ok_or_else(|| ValueError::new(field, value))
        };
        let rate = match (record.requests_per_second, record.requests_burst) {
            (Some(per_second), Some(burst)) => Some(Rate {
                per_second: number("tenants.requests_per_second", per_second)?,
                burst: number("tenants.requests_burst", burst)?,
            }),
            (None, None) => None,
            _ => return Err(ValueError::new("tenants.requests_burst", "a half of a rate")),
        };
        let records = record.records_per_day.map(|limit| unsigned("tenants.records_per_day", limit));
        Ok(Self { rate, records_per_day: records.transpose()? })
    }
}

/// A row of `api_keys`.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = api_keys, treat_none_as_default_value = false)]
pub(crate) struct ApiKeyRecord {
    id: String,
    hash: Vec<u8>,
    network: String,
    tenant: String,
    scopes: String,
    allowed_networks: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl ApiKeyRecord {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether both are the same key, revoked or ended meanwhile or not.
    pub(crate) fn same_key(&self, other: &Self) -> bool {
        let Self { expires_at, revoked_at, .. } = *self;
        *self == Self { expires_at, revoked_at, ..other.clone() }
    }
}

impl TryFrom<ApiKeyRow> for ApiKeyRecord {
    type Error = ValueError;

    fn try_from(row: ApiKeyRow) -> Converted<Self> {
        let time = |value: Option<u64>| value.map(|value| signed("time of a key", value)).transpose();
        Ok(Self {
            hash: row.hash.0.to_vec(),
            scopes: scope_names(row.scopes),
            allowed_networks: row.allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            created_at: signed("created_at", row.created_at)?,
            expires_at: time(row.expires_at)?,
            revoked_at: time(row.revoked_at)?,
            id: row.id,
            network: row.network,
            tenant: row.tenant,
        })
    }
}

impl TryFrom<ApiKeyRecord> for ApiKeyRow {
    type Error = ValueError;

    fn try_from(record: ApiKeyRecord) -> Converted<Self> {
        let time = |value: Option<i64>| value.map(|value| unsigned("time of a key", value)).transpose();
        Ok(Self {
            hash: hash("api_keys.hash", &record.hash)?,
            scopes: scopes(&record.scopes)?,
            allowed: networks(&record.allowed_networks)?,
            created_at: unsigned("api_keys.created_at", record.created_at)?,
            expires_at: time(record.expires_at)?,
            revoked_at: time(record.revoked_at)?,
            id: record.id,
            tenant: record.tenant,
            network: record.network,
        })
    }
}

/// A row of `signing_keys`.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = signing_keys, treat_none_as_default_value = false)]
pub(crate) struct SigningKeyRecord {
    network: String,
    id: String,
    tenant: String,
    public_key: Vec<u8>,
    created_at: i64,
    revoked_at: Option<i64>,
}

impl SigningKeyRecord {
    pub(crate) fn primary_key(&self) -> (&str, &str) {
        (&self.network, &self.id)
    }

    /// The stored row of this id has to be the same key, whenever it was added, revoked meanwhile or not.
    pub(crate) fn expect_same(&self, stored: &Self) -> Result<(), Failure> {
        if (&self.tenant, &self.public_key) == (&stored.tenant, &stored.public_key) {
            Ok(())
        } else {
            Err(Failure::Invariant(format!("{} names another signing key", self.id)))
        }
    }
}

impl TryFrom<SigningKeyRow> for SigningKeyRecord {
    type Error = ValueError;

    fn try_from(row: SigningKeyRow) -> Converted<Self> {
        Ok(Self {
            public_key: row.public_key.0.to_vec(),
            created_at: signed("created_at", row.created_at)?,
            revoked_at: row.revoked_at.map(|at| signed("time of a key", at)).transpose()?,
            network: row.network,
            id: row.id,
            tenant: row.tenant,
        })
    }
}

impl TryFrom<SigningKeyRecord> for SigningKeyRow {
    type Error = ValueError;

    fn try_from(record: SigningKeyRecord) -> Converted<Self> {
        Ok(Self {
            public_key: hash("signing_keys.public_key", &record.public_key)?,
            created_at: unsigned("signing_keys.created_at", record.created_at)?,
            revoked_at: record.revoked_at.map(|at| unsigned("time of a key", at)).transpose()?,
            network: record.network,
            id: record.id,
            tenant: record.tenant,
        })
    }
}

fn scope_names(mut scopes: Vec<Scope>) -> String {
    scopes.sort_unstable();
    scopes.dedup();
    scopes.into_iter().map(Scope::as_str).collect::<Vec<_>>().join(",")
}

/// A key with a scope that is not known here opens nothing.
fn scopes(names: &str) -> Converted<Vec<Scope>> {
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| Scope::parse(name).ok_or_else(|| ValueError::new("api_keys.scopes", name)))
        .collect()
}

/// A key with a network that cannot be read opens nothing: an empty list would open it to everybody.
fn networks(names: &str) -> Converted<Vec<IpNet>> {
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.parse().map_err(|_| ValueError::new("api_keys.allowed_networks", name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_stored_sorted_and_once() {
        assert_eq!(scope_names(vec![Scope::Write, Scope::Read, Scope::Write]), "read,write");
        assert_eq!(scopes("read,write").unwrap(), [Scope::Read, Scope::Write]);
        assert_eq!(scopes("").unwrap(), []);
        assert!(scopes("read,admin").is_err());
    }

    #[test]
    fn unknown_numbers_are_errors() {
        assert!(kind(0).is_err() && kind(300).is_err() && kind(-1).is_err());
        assert!(rejection(0).is_err() && rejection(-1).is_err());
        assert!(hash("op", &[0; 31]).is_err() && hash("op", &[0; 33]).is_err());
        assert!(signed("height", u64::MAX).is_err() && unsigned("height", -1).is_err());
    }
}
