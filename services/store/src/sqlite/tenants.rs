//! Tenants and their API keys.

use chopmark_domain::{
    quota::Limits,
    tenant::{ApiKeyRow, TenantRow},
};
use diesel::{OptionalExtension as _, SqliteConnection, prelude::*};
use ledger_core::hash::Hash32;

use super::{
    failure::write,
    statement::{Sql, Value, run},
};
use crate::{
    failure::Failure,
    row::{ApiKeyRecord, LimitsRecord, TenantRecord, signed},
    schema::{api_keys, tenants},
};

pub(super) fn insert(connection: &mut SqliteConnection, tenant: TenantRow) -> Result<bool, Failure> {
    let record = TenantRecord::try_from(tenant)?;
    let inserted = diesel::insert_into(tenants::table).values(&record).on_conflict_do_nothing().execute(connection)?;
    Ok(inserted == 1)
}

pub(super) fn find(connection: &mut SqliteConnection, network: &str, id: &str) -> Result<Option<TenantRow>, Failure> {
    let record = tenants::table.find((network, id)).select(TenantRecord::as_select()).first(connection).optional()?;
    Ok(record.map(TenantRow::try_from).transpose()?)
}

/// The same key again changes nothing, so that a caller may retry; it does not bring a revoked key
/// back.
pub(super) fn insert_key(connection: &mut SqliteConnection, key: ApiKeyRow) -> Result<(), Failure> {
    let record = ApiKeyRecord::try_from(key)?;
    write(connection, |connection| {
        let same_id =
            api_keys::table.find(record.id()).select(ApiKeyRecord::as_select()).first(connection).optional()?;
        match same_id {
            Some(stored) if stored.same_key(&record) => Ok(()),
            Some(_) => Err(Failure::Invariant(format!("{} names another API key", record.id()))),
            None => {
                diesel::insert_into(api_keys::table).values(&record).execute(connection)?;
                Ok(())
            }
        }
    })
}

pub(super) fn find_key(connection: &mut SqliteConnection, hash: &Hash32) -> Result<Option<ApiKeyRow>, Failure> {
    let record = api_keys::table
        .filter(api_keys::hash.eq(&hash.0[..]))
        .select(ApiKeyRecord::as_select())
        .first(connection)
        .optional()?;
    Ok(record.map(ApiKeyRow::try_from).transpose()?)
}

struct Revoke;

/// The earliest revocation counts.
impl Sql for Revoke {
    const TEXT: &'static str = "UPDATE api_keys SET revoked_at = min(?, coalesce(revoked_at, 9223372036854775807)) \
        WHERE id = ?";
}

pub(super) fn revoke_key(connection: &mut SqliteConnection, id: &str, at_ms: u64) -> Result<bool, Failure> {
    let values = [Value::Int(signed("time of a key", at_ms)?), Value::Text(id)];
    Ok(run::<Revoke, _>(connection, values)? == 1)
}

pub(super) fn all(connection: &mut SqliteConnection, network: &str) -> Result<Vec<TenantRow>, Failure> {
    let rows = tenants::table.filter(tenants::network.eq(network)).order(tenants::id);
    let records: Vec<TenantRecord> = rows.select(TenantRecord::as_select()).load(connection)?;
    records.into_iter().map(|record| Ok(TenantRow::try_from(record)?)).collect()
}

pub(super) fn set_active(
    connection: &mut SqliteConnection,
    network: &str,
    id: &str,
    active: bool,
) -> Result<bool, Failure> {
    let row = diesel::update(tenants::table.find((network, id)));
    Ok(row.set(tenants::active.eq(active)).execute(connection)? == 1)
}

pub(super) fn set_limits(
    connection: &mut SqliteConnection,
    network: &str,
    id: &str,
    limits: Limits,
) -> Result<bool, Failure> {
    let row = diesel::update(tenants::table.find((network, id)));
    Ok(row.set(LimitsRecord::try_from(limits)?).execute(connection)? == 1)
}

pub(super) fn keys(connection: &mut SqliteConnection, network: &str, tenant: &str) -> Result<Vec<ApiKeyRow>, Failure> {
    let rows = api_keys::table
        .filter(api_keys::network.eq(network))
        .filter(api_keys::tenant.eq(tenant))
        .order((api_keys::created_at, api_keys::id));
    let records: Vec<ApiKeyRecord> = rows.select(ApiKeyRecord::as_select()).load(connection)?;
    records.into_iter().map(|record| Ok(ApiKeyRow::try_from(record)?)).collect()
}

/// The earliest end counts.
pub(super) fn expire_key(connection: &mut SqliteConnection, id: &str, at_ms: u64) -> Result<bool, Failure> {
    let at = signed("time of a key", at_ms)?;
    let is_there: i64 = api_keys::table.filter(api_keys::id.eq(id)).count().get_result(connection)?;
    let later = api_keys::expires_at.is_null().or(api_keys::expires_at.gt(at));
    let row = diesel::update(api_keys::table.filter(api_keys::id.eq(id)).filter(later));
    row.set(api_keys::expires_at.eq(at)).execute(connection)?;
    Ok(is_there == 1)
}
