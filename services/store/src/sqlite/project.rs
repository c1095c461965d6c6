//! What the project loop writes: outcomes, case links, and the cursor that lets only one committer
//! write each of them.

use chopmark_domain::record::{CaseLink, ProjectedBlock, ProjectedOperation, ProjectionCursor};
use diesel::{OptionalExtension as _, SqliteConnection, prelude::*};

use super::{
    accept::{Known, known, mark_conflicted, next_sequence},
    failure::write,
    statement::{Sql, Value, run},
    webhooks,
};
use crate::{
    failure::Failure,
    row::{ACCEPTED, CursorRecord, Outcome, kind_number, signed},
    rules::{FIRST_HEIGHT_MAX, not_advanced},
    schema::{case_links, projection_cursors},
};

pub(super) fn cursor(connection: &mut SqliteConnection, network: &str) -> Result<Option<ProjectionCursor>, Failure> {
    let record =
        projection_cursors::table.find(network).select(CursorRecord::as_select()).first(connection).optional()?;
    Ok(record.map(ProjectionCursor::try_from).transpose()?)
}

/// Projects `block` in one transaction. Dying before its commit leaves the cursor where it was, and
/// the block is projected again; dying after it, the cursor says so.
pub(super) fn project(connection: &mut SqliteConnection, block: &ProjectedBlock) -> Result<bool, Failure> {
    write(connection, |connection| {
        if !advance(connection, block)? {
            return Ok(false);
        }
        let mut next = next_sequence(connection)?;
        for operation in &block.operations {
            next += i64::from(settle(connection, block, operation, next)?);
        }
        for link in &block.links {
            insert_link(connection, &block.network, link)?;
        }
        webhooks::tell_block(connection, block)?;
        Ok(true)
    })
}

struct AdvanceCursor;

impl Sql for AdvanceCursor {
    const TEXT: &'static str = "UPDATE projection_cursors SET height = height + 1, hash = ?, tree_size = ? \
        WHERE network = ? AND height = ? - 1";
}

struct FirstCursor;

impl Sql for FirstCursor {
    const TEXT: &'static str = "INSERT INTO projection_cursors (hash, tree_size, network, height) \
        VALUES (?, ?, ?, ?) ON CONFLICT (network) DO NOTHING";
}

/// Moves the cursor to `block` if it stands right before it. The other writer is another committer
/// that projects the same height; it may sit in this process or in another.
fn advance(connection: &mut SqliteConnection, block: &ProjectedBlock) -> Result<bool, Failure> {
    let values = [
        Value::Bytes(&block.hash.0),
        Value::Int(signed("tree size", block.tree_size)?),
        Value::Text(&block.network),
        Value::Int(signed("height", block.height)?),
    ];
    if run::<AdvanceCursor, _>(connection, values)? == 1 {
        return Ok(true);
    }
    if block.height <= FIRST_HEIGHT_MAX && run::<FirstCursor, _>(connection, values)? == 1 {
        return Ok(true);
    }
    not_advanced(block, cursor(connection, &block.network)?)
}

/// Writes one outcome; `true` if that took a new row, with the sequence `next`.
fn settle(
    connection: &mut SqliteConnection,
    block: &ProjectedBlock,
    operation: &ProjectedOperation,
    next: i64,
) -> Result<bool, Failure> {
    let Some(outcome) = Outcome::of(&operation.state)? else {
        return Err(Failure::Invariant(format!("{} is projected without an outcome", operation.op)));
    };
    if settle_expected(connection, block, operation, &outcome)? {
        return Ok(false);
    }
    let Some(row) = known(connection, &block.network, &operation.key)? else {
        insert_settled(connection, block, operation, &outcome, next)?;
        return Ok(true);
    };
    if row.op != operation.op.0 {
        return Err(Failure::Invariant(format!("{} has the key of another operation", operation.op)));
    }
    if row.state != ACCEPTED {
        return Err(Failure::Invariant(format!("{} has an outcome already", operation.op)));
    }
    if row.request != operation.request.0 || row.tenant != operation.tenant {
        take_over(connection, &row, operation)?;
    }
    update_settled(connection, row.sequence, operation, &outcome)?;
    let losers = [Value::Int(row.sequence), Value::Bytes(&operation.operation_hash.0)];
    run::<DeleteLosers, _>(connection, losers)?;
    Ok(false)
}

struct SettleExpected;

/// Leaves out the columns of the tenant's index: naming them would rewrite it.
impl Sql for SettleExpected {
    const TEXT: &'static str = "UPDATE operations SET state = ?, leaf_index = ?, entry = ?, height = ?, \
        block_time = ?, rejection = ? WHERE network = ? AND key = ? AND op = ? AND operation_hash = ? AND tenant = ? \
        AND request = ? AND state = 0 AND NOT EXISTS (SELECT 1 FROM private_parts WHERE \
        private_parts.sequence = operations.sequence AND private_parts.operation_hash <> operations.operation_hash)";
}

/// Settles a row in one statement where all is as nearly always: one attempt came, and it is the
/// one that the ledger chose. `false` if anything is otherwise, and then nothing was changed.
fn settle_expected(
    connection: &mut SqliteConnection,
    block: &ProjectedBlock,
    operation: &ProjectedOperation,
    outcome: &Outcome<'_>,
) -> Result<bool, Failure> {
    let values = [
        Value::Int(outcome.state.into()),
        outcome.leaf_index.into(),
        outcome.entry.map(|entry| &entry.0[..]).into(),
        Value::Int(outcome.height),
        Value::Int(outcome.block_time),
        outcome.rejection.map(i64::from).into(),
        Value::Text(&block.network),
        Value::Bytes(&operation.key.0),
        Value::Bytes(&operation.op.0),
        Value::Bytes(&operation.operation_hash.0),
        Value::Text(&operation.tenant),
        Value::Bytes(&operation.request.0),
    ];
    Ok(run::<SettleExpected, _>(connection, values)? == 1)
}

struct DeleteLosers;

impl Sql for DeleteLosers {
    const TEXT: &'static str = "DELETE FROM private_parts WHERE sequence = ? AND operation_hash <> ?";
}

struct InsertSettled;

impl Sql for InsertSettled {
    const TEXT: &'static str = "INSERT INTO operations (sequence, network, key, op, tenant, kind, request, \
        operation_hash, accepted_at, conflicted, state, leaf_index, entry, height, block_time, rejection) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)";
}

/// An operation that no queue brought here: governance, or from before this database.
fn insert_settled(
    connection: &mut SqliteConnection,
    block: &ProjectedBlock,
    operation: &ProjectedOperation,
    outcome: &Outcome<'_>,
    sequence: i64,
) -> Result<(), Failure> {
    let values = [
        Value::Int(sequence),
        Value::Text(&block.network),
        Value::Bytes(&operation.key.0),
        Value::Bytes(&operation.op.0),
        Value::Text(&operation.tenant),
        Value::Int(kind_number(operation.kind).into()),
        Value::Bytes(&operation.request.0),
        Value::Bytes(&operation.operation_hash.0),
        Value::Int(signed("block time", block.time)?),
        Value::Int(outcome.state.into()),
        outcome.leaf_index.into(),
        outcome.entry.map(|entry| &entry.0[..]).into(),
        Value::Int(outcome.height),
        Value::Int(outcome.block_time),
        outcome.rejection.map(i64::from).into(),
    ];
    run::<InsertSettled, _>(connection, values)?;
    Ok(())
}

struct UpdateSettled;

/// Leaves out the columns of the tenant's index: naming them would rewrite it.
impl Sql for UpdateSettled {
    const TEXT: &'static str = "UPDATE operations SET operation_hash = ?, state = ?, leaf_index = ?, entry = ?, \
        height = ?, block_time = ?, rejection = ? WHERE sequence = ?";
}

fn update_settled(
    connection: &mut SqliteConnection,
    sequence: i64,
    operation: &ProjectedOperation,
    outcome: &Outcome<'_>,
) -> Result<(), Failure> {
    let values = [
        Value::Bytes(&operation.operation_hash.0),
        Value::Int(outcome.state.into()),
        outcome.leaf_index.into(),
        outcome.entry.map(|entry| &entry.0[..]).into(),
        Value::Int(outcome.height),
        Value::Int(outcome.block_time),
        outcome.rejection.map(i64::from).into(),
        Value::Int(sequence),
    ];
    run::<UpdateSettled, _>(connection, values)?;
    Ok(())
}

struct TakeOver;

impl Sql for TakeOver {
    const TEXT: &'static str = "UPDATE operations SET tenant = ?, kind = ?, request = ? WHERE sequence = ?";
}

/// Another request than the one stored was first in the log: the row becomes its, of whatever type
/// it is, and the caller of the first one learns of the conflict from the mark.
fn take_over(connection: &mut SqliteConnection, row: &Known, operation: &ProjectedOperation) -> Result<(), Failure> {
    let values = [
        Value::Text(&operation.tenant),
        Value::Int(kind_number(operation.kind).into()),
        Value::Bytes(&operation.request.0),
        Value::Int(row.sequence),
    ];
    run::<TakeOver, _>(connection, values)?;
    mark_conflicted(connection, row.sequence)
}

struct InsertLink;

/// A position that is taken is an error: it was removed with the cursor, or the ledger gave it
/// twice.
impl Sql for InsertLink {
    const TEXT: &'static str = "INSERT INTO case_links (network, case_key, position, evidence, leaf_index, entry, \
        previous, block_time, tenant) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
}

fn insert_link(connection: &mut SqliteConnection, network: &str, link: &CaseLink) -> Result<(), Failure> {
    let values = [
        Value::Text(network),
        Value::Bytes(&link.case.0),
        Value::Int(signed("position", link.position)?),
        Value::Bytes(&link.evidence.0),
        Value::Int(signed("leaf index", link.index)?),
        Value::Bytes(&link.entry.0),
        Value::Bytes(&link.previous.0),
        Value::Int(signed("block time", link.time)?),
        Value::Text(&link.tenant),
    ];
    run::<InsertLink, _>(connection, values)?;
    Ok(())
}

struct ClearOutcomes;

impl Sql for ClearOutcomes {
    const TEXT: &'static str = "UPDATE operations SET state = 0, leaf_index = NULL, entry = NULL, height = NULL, \
        block_time = NULL, rejection = NULL WHERE network = ? AND state <> 0";
}

/// Turns every row back to accepted. Sequence, time, request and the mark of a conflict stay: they
/// are no part of what the ledger says, or say the same once it is projected again.
pub(super) fn reset(connection: &mut SqliteConnection, network: &str) -> Result<(), Failure> {
    write(connection, |connection| {
        diesel::delete(projection_cursors::table.find(network)).execute(connection)?;
        diesel::delete(case_links::table.filter(case_links::network.eq(network))).execute(connection)?;
        run::<ClearOutcomes, _>(connection, [Value::Text(network)])?;
        Ok(())
    })
}
