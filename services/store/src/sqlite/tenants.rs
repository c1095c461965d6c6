//! Tenants and their API keys.

use chopmark_domain::tenant::{ApiKeyRow, TenantRow};
use diesel::{OptionalExtension as _, SqliteConnection, prelude::*};
use ledger_core::hash::Hash32;

use super::{
    failure::write,
    statement::{Sql, Value, run},
};
use crate::{
    failure::Failure,
    row::{ApiKeyRecord, TenantRecord, signed},
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
