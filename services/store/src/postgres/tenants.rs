//! Tenants and their API keys.

use chopmark_domain::tenant::{ApiKeyRow, TenantRow};
use diesel::{
    OptionalExtension as _, PgConnection,
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};
use ledger_core::hash::Hash32;

use crate::{
    failure::Failure,
    row::{ApiKeyRecord, TenantRecord, signed},
    schema::{api_keys, tenants},
};

pub(super) fn insert(connection: &mut PgConnection, tenant: TenantRow) -> Result<bool, Failure> {
    let record = TenantRecord::try_from(tenant)?;
    let inserted = diesel::insert_into(tenants::table).values(&record).on_conflict_do_nothing().execute(connection)?;
    Ok(inserted == 1)
}

pub(super) fn find(connection: &mut PgConnection, network: &str, id: &str) -> Result<Option<TenantRow>, Failure> {
    let record = tenants::table.find((network, id)).select(TenantRecord::as_select()).first(connection).optional()?;
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
