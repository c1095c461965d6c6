//! Tenants' signing keys.

use chopmark_domain::tenant::SigningKeyRow;
use diesel::{OptionalExtension as _, SqliteConnection, prelude::*};

use super::{
    failure::write,
    statement::{Sql, Value, run},
};
use crate::{
    failure::Failure,
    row::{SigningKeyRecord, signed},
    schema::{signing_keys, tenants},
};

/// The same key again changes nothing; it does not bring a revoked key back.
pub(super) fn insert(connection: &mut SqliteConnection, key: SigningKeyRow) -> Result<(), Failure> {
    let record = SigningKeyRecord::try_from(key)?;
    write(connection, |connection| {
        let row = signing_keys::table.find(record.primary_key()).select(SigningKeyRecord::as_select());
        match row.first(connection).optional()? {
            Some(stored) => record.expect_same(&stored),
            None => {
                diesel::insert_into(signing_keys::table).values(&record).execute(connection)?;
                Ok(())
            }
        }
    })
}

pub(super) fn find(
    connection: &mut SqliteConnection,
    network: &str,
    tenant: &str,
    id: &str,
) -> Result<Option<SigningKeyRow>, Failure> {
    let row = signing_keys::table.find((network, id)).filter(signing_keys::tenant.eq(tenant));
    let record = row.select(SigningKeyRecord::as_select()).first(connection).optional()?;
    Ok(record.map(SigningKeyRow::try_from).transpose()?)
}

pub(super) fn all(
    connection: &mut SqliteConnection,
    network: &str,
    tenant: &str,
) -> Result<Vec<SigningKeyRow>, Failure> {
    let rows = signing_keys::table
        .filter(signing_keys::network.eq(network))
        .filter(signing_keys::tenant.eq(tenant))
        .order((signing_keys::created_at, signing_keys::id));
    let records: Vec<SigningKeyRecord> = rows.select(SigningKeyRecord::as_select()).load(connection)?;
    records.into_iter().map(|record| Ok(SigningKeyRow::try_from(record)?)).collect()
}

struct Revoke;

/// The earliest revocation counts.
impl Sql for Revoke {
    const TEXT: &'static str = "UPDATE signing_keys SET revoked_at = min(?, coalesce(revoked_at, 9223372036854775807)) \
        WHERE network = ? AND id = ?";
}

pub(super) fn revoke(connection: &mut SqliteConnection, network: &str, id: &str, at_ms: u64) -> Result<bool, Failure> {
    let values = [Value::Int(signed("time of a key", at_ms)?), Value::Text(network), Value::Text(id)];
    Ok(run::<Revoke, _>(connection, values)? == 1)
}

pub(super) fn set_required(
    connection: &mut SqliteConnection,
    network: &str,
    tenant: &str,
    required: bool,
) -> Result<bool, Failure> {
    let row = diesel::update(tenants::table.find((network, tenant)));
    Ok(row.set(tenants::signatures_required.eq(required)).execute(connection)? == 1)
}
