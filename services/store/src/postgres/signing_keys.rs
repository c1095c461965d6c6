//! Tenants' signing keys.

use chopmark_domain::tenant::SigningKeyRow;
use diesel::{
    OptionalExtension as _, PgConnection,
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};

use crate::{
    failure::Failure,
    filter::TenantFilter,
    row::{SigningKeyRecord, signed},
    schema::{signing_keys, tenants},
};

/// The same key again changes nothing; it does not bring a revoked key back. The other writer may be
/// adding the same key right now: it is waited for.
pub(super) fn insert(connection: &mut PgConnection, key: SigningKeyRow) -> Result<(), Failure> {
    let record = SigningKeyRecord::try_from(key)?;
    let inserted =
        diesel::insert_into(signing_keys::table).values(&record).on_conflict_do_nothing().execute(connection)?;
    if inserted == 1 {
        return Ok(());
    }
    let stored = signing_keys::table.find(record.primary_key()).select(SigningKeyRecord::as_select());
    record.expect_same(&stored.first(connection)?)
}

pub(super) fn find(
    connection: &mut PgConnection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    id: &str,
) -> Result<Option<SigningKeyRow>, Failure> {
    let rows = signing_keys::table.filter(signing_keys::id.eq(id)).select(SigningKeyRecord::as_select());
    let mut rows = rows.into_boxed();
    if filter.is_on() {
        rows = rows.filter(signing_keys::network.eq(network).and(signing_keys::tenant.eq(tenant)));
    }
    let record: Option<SigningKeyRecord> = rows.first(connection).optional()?;
    Ok(record.map(SigningKeyRow::try_from).transpose()?)
}

pub(super) fn all(connection: &mut PgConnection, network: &str, tenant: &str) -> Result<Vec<SigningKeyRow>, Failure> {
    let rows = signing_keys::table
        .filter(signing_keys::network.eq(network))
        .filter(signing_keys::tenant.eq(tenant))
        .order((signing_keys::created_at, signing_keys::id));
    let records: Vec<SigningKeyRecord> = rows.select(SigningKeyRecord::as_select()).load(connection)?;
    records.into_iter().map(|record| Ok(SigningKeyRow::try_from(record)?)).collect()
}

/// The earliest revocation counts.
pub(super) fn revoke(connection: &mut PgConnection, network: &str, id: &str, at_ms: u64) -> Result<bool, Failure> {
    let revoked =
        sql_query("UPDATE signing_keys SET revoked_at = least($1, revoked_at) WHERE network = $2 AND id = $3")
            .bind::<BigInt, _>(signed("time of a key", at_ms)?)
            .bind::<Text, _>(network)
            .bind::<Text, _>(id)
            .execute(connection)?;
    Ok(revoked == 1)
}

pub(super) fn set_required(
    connection: &mut PgConnection,
    network: &str,
    tenant: &str,
    required: bool,
) -> Result<bool, Failure> {
    let row = diesel::update(tenants::table.find((network, tenant)));
    Ok(row.set(tenants::signatures_required.eq(required)).execute(connection)? == 1)
}
