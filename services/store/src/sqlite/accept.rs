//! What the submit loop writes: accepted operations and their private parts.

use chopmark_domain::{
    id::ResourceKey,
    record::{AcceptedOperation, SealedPrivate},
};
use diesel::{OptionalExtension as _, SqliteConnection, dsl::max, prelude::*};

use super::{
    failure::write,
    statement::{Sql, Value, run},
    webhooks,
};
use crate::{
    failure::Failure,
    row::{ACCEPTED, Conflicted, kind_number, signed},
    rules::check_private_keys,
    schema::operations,
};

/// Inserts `rows` in one transaction.
pub(super) fn insert(connection: &mut SqliteConnection, rows: &[AcceptedOperation]) -> Result<(), Failure> {
    check_private_keys(rows)?;
    write(connection, |connection| insert_all(connection, rows))
}

/// Callers hold the write lock.
pub(super) fn insert_all(connection: &mut SqliteConnection, rows: &[AcceptedOperation]) -> Result<(), Failure> {
    let mut next = next_sequence(connection)?;
    for row in rows {
        if insert_operation(connection, next, row)? {
            if let Some(private) = &row.private {
                insert_private(connection, next, row, private)?;
            }
            next += 1;
        } else {
            meet_known(connection, row)?;
        }
    }
    Ok(())
}

/// The sequence of the next row. Callers hold the write lock.
pub(super) fn next_sequence(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let newest: Option<i64> = operations::table.select(max(operations::sequence)).first(connection)?;
    Ok(newest.unwrap_or(0) + 1)
}

struct InsertOperation;

impl Sql for InsertOperation {
    const TEXT: &'static str = "INSERT INTO operations (sequence, network, key, op, tenant, kind, request, \
        operation_hash, accepted_at, conflicted, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0) \
        ON CONFLICT (network, key) DO NOTHING";
}

/// `false` if there is a row with this key.
fn insert_operation(
    connection: &mut SqliteConnection,
    sequence: i64,
    row: &AcceptedOperation,
) -> Result<bool, Failure> {
    let values = [
        Value::Int(sequence),
        Value::Text(&row.network),
        Value::Bytes(&row.key.0),
        Value::Bytes(&row.op.0),
        Value::Text(&row.tenant),
        Value::Int(kind_number(row.kind).into()),
        Value::Bytes(&row.request.0),
        Value::Bytes(&row.operation_hash.0),
        Value::Int(signed("accepted_at", row.accepted_at)?),
    ];
    Ok(run::<InsertOperation, _>(connection, values)? == 1)
}

struct InsertPrivate;

impl Sql for InsertPrivate {
    const TEXT: &'static str = "INSERT INTO private_parts (sequence, operation_hash, sealed, external_index, \
        accepted_at, network, tenant) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sequence, operation_hash) DO NOTHING";
}

fn insert_private(
    connection: &mut SqliteConnection,
    sequence: i64,
    row: &AcceptedOperation,
    private: &SealedPrivate,
) -> Result<(), Failure> {
    let values = [
        Value::Int(sequence),
        Value::Bytes(&row.operation_hash.0),
        Value::Bytes(&private.sealed),
        private.external_index.as_ref().map(|index| &index.0[..]).into(),
        Value::Int(signed("accepted_at", row.accepted_at)?),
        Value::Text(&row.network),
        Value::Text(&row.tenant),
    ];
    run::<InsertPrivate, _>(connection, values)?;
    Ok(())
}

/// The row of a key, as far as writers need it.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = operations)]
pub(super) struct Known {
    pub(super) sequence: i64,
    pub(super) op: Vec<u8>,
    pub(super) tenant: String,
    pub(super) request: Vec<u8>,
    pub(super) operation_hash: Vec<u8>,
    pub(super) state: i32,
}

/// The row of `key`, if there is one.
pub(super) fn known(connection: &mut SqliteConnection, network: &str, key: &ResourceKey) -> QueryResult<Option<Known>> {
    operations::table
        .filter(operations::network.eq(network).and(operations::key.eq(&key.0[..])))
        .select(Known::as_select())
        .first(connection)
        .optional()
}

/// A row that came before keeps all it says; that another request came is noted. Each attempt's
/// private part is kept until the ledger has chosen one; afterwards only the chosen one's is.
fn meet_known(connection: &mut SqliteConnection, row: &AcceptedOperation) -> Result<(), Failure> {
    let Some(known) = known(connection, &row.network, &row.key)? else {
        return Err(Failure::Invariant(format!("the row of {} is there and is not", row.op)));
    };
    if known.op != row.op.0 {
        return Err(Failure::Invariant(format!("{} has the key of another operation", row.op)));
    }
    if known.request != row.request.0 || known.tenant != row.tenant {
        mark_conflicted(connection, known.sequence)?;
    }
    match &row.private {
        Some(private) if known.state == ACCEPTED || known.operation_hash == row.operation_hash.0 => {
            insert_private(connection, known.sequence, row, private)
        }
        _ => Ok(()),
    }
}

struct MarkConflicted;

impl Sql for MarkConflicted {
    const TEXT: &'static str = "UPDATE operations SET conflicted = 1 WHERE sequence = ? AND conflicted = 0";
}

/// Marks an operation whose id another request holds, and tells its tenant, once.
pub(super) fn mark_conflicted(connection: &mut SqliteConnection, sequence: i64) -> Result<(), Failure> {
    if run::<MarkConflicted, _>(connection, [Value::Int(sequence)])? == 0 {
        return Ok(());
    }
    let row: Conflicted = operations::table.find(sequence).select(Conflicted::as_select()).first(connection)?;
    let event = row.event()?;
    webhooks::tell(connection, &event.network, std::slice::from_ref(&event))
}
