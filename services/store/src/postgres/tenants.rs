//! Tenants and their API keys.

use chopmark_domain::{
    quota::Limits,
    tenant::{ApiKeyRow, TenantRow},
};
use diesel::{
    OptionalExtension as _, PgConnection,
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};
use ledger_core::hash::Hash32;

use crate::{
    failure::Failure,
    filter::TenantFilter,
    row::{ApiKeyRecord, LimitsRecord, TenantRecord, signed},
    schema::{api_keys, tenants},
};

pub(super) fn insert(connection: &mut PgConnection, tenant: TenantRow) -> Result<bool, Failure> {
    let record = TenantRecord::try_from(tenant)?;
    let inserted = diesel::insert_into(tenants::table).values(&record).on_conflict_do_nothing().execute(connection)?;
    Ok(inserted == 1)
}

pub(super) fn find(
    connection: &mut PgConnection,
    filter: TenantFilter,
    network: &str,
    id: &str,
) -> Result<Option<TenantRow>, Failure> {
    let mut rows = tenants::table.select(TenantRecord::as_select()).into_boxed();
    if filter.is_on() {
        rows = rows.filter(tenants::network.eq(network).and(tenants::id.eq(id)));
    }
    let record: Option<TenantRecord> = rows.first(connection).optional()?;
    Ok(record.map(TenantRow::try_from).transpose()?)
}

/// The same key again changes nothing, so that a caller may retry; it does not bring a revoked key
/// back. The other writer may be adding the same key right now: it is waited for.
pub(super) fn insert_key(connection: &mut PgConnection, key: ApiKeyRow) -> Result<(), Failure> {
    let record = ApiKeyRecord::try_from(key)?;
    let inserted = diesel::insert_into(api_keys::table)
        .values(&record)
        .on_conflict(api_keys::id)
        .do_nothing()
        .execute(connection)?;
    if inserted == 1 {
        return Ok(());
    }
    let stored: ApiKeyRecord = api_keys::table.find(record.id()).select(ApiKeyRecord::as_select()).first(connection)?;
    if stored.same_key(&record) {
        Ok(())
    } else {
        Err(Failure::Invariant(format!("{} names another API key", record.id())))
    }
}

pub(super) fn find_key(connection: &mut PgConnection, hash: &Hash32) -> Result<Option<ApiKeyRow>, Failure> {
    let record = api_keys::table
        .filter(api_keys::hash.eq(&hash.0[..]))
        .select(ApiKeyRecord::as_select())
        .first(connection)
        .optional()?;
    Ok(record.map(ApiKeyRow::try_from).transpose()?)
}

/// The earliest revocation counts.
pub(super) fn revoke_key(connection: &mut PgConnection, id: &str, at_ms: u64) -> Result<bool, Failure> {
    let revoked = sql_query("UPDATE api_keys SET revoked_at = least($1, revoked_at) WHERE id = $2")
        .bind::<BigInt, _>(signed("time of a key", at_ms)?)
        .bind::<Text, _>(id)
        .execute(connection)?;
    Ok(revoked == 1)
}

pub(super) fn all(connection: &mut PgConnection, network: &str) -> Result<Vec<TenantRow>, Failure> {
    let rows = tenants::table.filter(tenants::network.eq(network)).order(tenants::id);
    let records: Vec<TenantRecord> = rows.select(TenantRecord::as_select()).load(connection)?;
    records.into_iter().map(|record| Ok(TenantRow::try_from(record)?)).collect()
}

pub(super) fn set_active(
    connection: &mut PgConnection,
    network: &str,
    id: &str,
    active: bool,
) -> Result<bool, Failure> {
    let row = diesel::update(tenants::table.find((network, id)));
    Ok(row.set(tenants::active.eq(active)).execute(connection)? == 1)
}

pub(super) fn set_limits(
    connection: &mut PgConnection,
    network: &str,
    id: &str,
    limits: Limits,
) -> Result<bool, Failure> {
    let row = diesel::update(tenants::table.find((network, id)));
    Ok(row.set(LimitsRecord::try_from(limits)?).execute(connection)? == 1)
}

pub(super) fn keys(connection: &mut PgConnection, network: &str, tenant: &str) -> Result<Vec<ApiKeyRow>, Failure> {
    let rows = api_keys::table
        .filter(api_keys::network.eq(network))
        .filter(api_keys::tenant.eq(tenant))
        .order((api_keys::created_at, api_keys::id));
    let records: Vec<ApiKeyRecord> = rows.select(ApiKeyRecord::as_select()).load(connection)?;
    records.into_iter().map(|record| Ok(ApiKeyRow::try_from(record)?)).collect()
}

/// The earliest end counts.
pub(super) fn expire_key(connection: &mut PgConnection, id: &str, at_ms: u64) -> Result<bool, Failure> {
    let at = signed("time of a key", at_ms)?;
    let is_there: i64 = api_keys::table.filter(api_keys::id.eq(id)).count().get_result(connection)?;
    let later = api_keys::expires_at.is_null().or(api_keys::expires_at.gt(at));
    let row = diesel::update(api_keys::table.filter(api_keys::id.eq(id)).filter(later));
    row.set(api_keys::expires_at.eq(at)).execute(connection)?;
    Ok(is_there == 1)
}
