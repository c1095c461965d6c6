//! What the project loop writes: outcomes, case links, and the cursor that lets only one committer
//! write each of them. In which order rows are taken: see [`super::accept`].

use std::collections::HashSet;

use chopmark_domain::{
    record::{CaseLink, ProjectedBlock, ProjectedOperation, ProjectionCursor},
    webhook::OutboxEvent,
};
use diesel::{
    OptionalExtension as _, PgConnection,
    connection::SimpleConnection as _,
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, Text},
};

use super::{
    accept::{column, lock_known, take_sequences},
    webhooks,
};
use crate::{
    failure::Failure,
    row::{ACCEPTED, CursorRecord, Outcome, kind_number, signed},
    rules::{FIRST_HEIGHT_MAX, not_advanced},
    schema::{case_links, projection_cursors},
};

/// Longest statement of a reset, which rewrites a network's whole read model.
const RESET_TIMEOUT: &str = "1h";

pub(super) fn cursor(connection: &mut PgConnection, network: &str) -> Result<Option<ProjectionCursor>, Failure> {
    let record =
        projection_cursors::table.find(network).select(CursorRecord::as_select()).first(connection).optional()?;
    Ok(record.map(ProjectionCursor::try_from).transpose()?)
}

/// Projects `block`; callers are in a transaction. Dying before its commit leaves the cursor where it
/// was, and the block is projected again; dying after it, the cursor says so.
pub(super) fn project(connection: &mut PgConnection, block: &ProjectedBlock) -> Result<bool, Failure> {
    let settled = block.operations.iter().map(Settled::of).collect::<Result<Vec<_>, _>>()?;
    let mut keys = HashSet::new();
    if let Some(twice) = settled.iter().find(|settled| !keys.insert(settled.operation.key)) {
        return Err(Failure::Invariant(format!("{} has an outcome already", twice.operation.op)));
    }
    if !advance(connection, block)? {
        return Ok(false);
    }
    if !settled.is_empty() {
        let known = insert_missing(connection, block, &settled)?;
        settle(connection, block, &known)?;
    }
    insert_links(connection, block)?;
    webhooks::tell_block(connection, block)?;
    Ok(true)
}

/// Moves the cursor to `block` if it stands right before it. The other writer is another committer
/// that projects the same height: it waits here until this transaction ends, and then finds the
/// cursor moved.
fn advance(connection: &mut PgConnection, block: &ProjectedBlock) -> Result<bool, Failure> {
    const ADVANCE: &str = "UPDATE projection_cursors SET height = $2, hash = $3, tree_size = $4 \
        WHERE network = $1 AND height = $2 - 1";
    const FIRST: &str = "INSERT INTO projection_cursors (network, height, hash, tree_size) \
        VALUES ($1, $2, $3, $4) ON CONFLICT (network) DO NOTHING";
    let (height, tree_size) = (signed("height", block.height)?, signed("tree size", block.tree_size)?);
    let mut run = |text: &str| {
        sql_query(text)
            .bind::<Text, _>(&block.network)
            .bind::<BigInt, _>(height)
            .bind::<Binary, _>(&block.hash.0[..])
            .bind::<BigInt, _>(tree_size)
            .execute(connection)
    };
    if run(ADVANCE)? == 1 || (block.height <= FIRST_HEIGHT_MAX && run(FIRST)? == 1) {
        return Ok(true);
    }
    not_advanced(block, cursor(connection, &block.network)?)
}

/// An operation with its outcome as columns.
#[derive(Clone, Copy)]
struct Settled<'a> {
    operation: &'a ProjectedOperation,
    outcome: Outcome<'a>,
}

impl<'a> Settled<'a> {
    fn of(operation: &'a ProjectedOperation) -> Result<Self, Failure> {
        match Outcome::of(&operation.state)? {
            Some(outcome) => Ok(Self { operation, outcome }),
            None => Err(Failure::Invariant(format!("{} is projected without an outcome", operation.op))),
        }
    }
}

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Binary)]
    key: Vec<u8>,
}

/// Inserts operations that no queue brought here: governance, or from before this database. Returns the
/// others.
fn insert_missing<'a>(
    connection: &mut PgConnection,
    block: &ProjectedBlock,
    settled: &[Settled<'a>],
) -> Result<Vec<Settled<'a>>, Failure> {
    let there: Vec<Key> = sql_query("SELECT key FROM operations WHERE network = $1 AND key = ANY ($2)")
        .bind::<Text, _>(&block.network)
        .bind::<Array<Binary>, _>(column(settled, |settled| &settled.operation.key.0[..]))
        .load(connection)?;
    let there: HashSet<_> = there.into_iter().map(|row| row.key).collect();
    let is_there = |settled: &Settled<'_>| there.contains(&settled.operation.key.0[..]);
    let (mut known, missing): (Vec<_>, Vec<_>) = settled.iter().copied().partition(is_there);
    if !missing.is_empty() {
        let new = insert_settled(connection, block, &missing)?;
        // Another committer was faster with some of them.
        known.extend(missing.into_iter().filter(|settled| !new.contains(&settled.operation.key.0[..])));
    }
    Ok(known)
}

/// Returns the keys of the rows that are new.
fn insert_settled(
    connection: &mut PgConnection,
    block: &ProjectedBlock,
    missing: &[Settled<'_>],
) -> Result<HashSet<Vec<u8>>, Failure> {
    let sequences = take_sequences(connection, missing.len())?;
    let inserted: Vec<Key> = sql_query(
        "INSERT INTO operations (sequence, network, key, op, tenant, kind, request, operation_hash, accepted_at, \
            conflicted, state, leaf_index, entry, height, block_time, rejection)
         SELECT sequence, $1, key, op, tenant, kind, request, operation_hash, $2, false, state, leaf_index, entry, $3, \
            block_time, rejection
         FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) AS new (sequence, key, op, tenant, kind, \
            request, operation_hash, state, leaf_index, entry, block_time, rejection)
         ORDER BY key ON CONFLICT (network, key) DO NOTHING RETURNING key",
    )
    .bind::<Text, _>(&block.network)
    .bind::<BigInt, _>(signed("block time", block.time)?)
    .bind::<BigInt, _>(signed("height", block.height)?)
    .bind::<Array<BigInt>, _>(sequences)
    .bind::<Array<Binary>, _>(column(missing, |settled| &settled.operation.key.0[..]))
    .bind::<Array<Binary>, _>(column(missing, |settled| &settled.operation.op.0[..]))
    .bind::<Array<Text>, _>(column(missing, |settled| settled.operation.tenant.as_str()))
    .bind::<Array<Integer>, _>(column(missing, |settled| kind_number(settled.operation.kind)))
    .bind::<Array<Binary>, _>(column(missing, |settled| &settled.operation.request.0[..]))
    .bind::<Array<Binary>, _>(column(missing, |settled| &settled.operation.operation_hash.0[..]))
    .bind::<Array<Integer>, _>(column(missing, |settled| settled.outcome.state))
    .bind::<Array<Nullable<BigInt>>, _>(column(missing, |settled| settled.outcome.leaf_index))
    .bind::<Array<Nullable<Binary>>, _>(column(missing, |settled| settled.outcome.entry.map(|entry| &entry.0[..])))
    .bind::<Array<BigInt>, _>(column(missing, |settled| settled.outcome.block_time))
    .bind::<Array<Nullable<Integer>>, _>(column(missing, |settled| settled.outcome.rejection))
    .load(connection)?;
    Ok(inserted.into_iter().map(|row| row.key).collect())
}

/// Writes the outcomes of rows that are there. Where another request than the one stored was first in the
/// log, the row becomes its, of whatever type it is, and the caller of the first one learns of the conflict
/// from the mark.
fn settle(connection: &mut PgConnection, block: &ProjectedBlock, settled: &[Settled<'_>]) -> Result<(), Failure> {
    let networks = column(settled, |_| block.network.as_str());
    let rows = lock_known(connection, networks, column(settled, |settled| &settled.operation.key.0[..]))?;
    let (mut sequences, mut taken_over) = (Vec::with_capacity(settled.len()), Vec::with_capacity(settled.len()));
    for Settled { operation, .. } in settled {
        let Some(row) = rows.get(&(block.network.clone(), operation.key.0.to_vec())) else {
            return Err(Failure::Invariant(format!("the row of {} is there and is not", operation.op)));
        };
        if row.op != operation.op.0 {
            return Err(Failure::Invariant(format!("{} has the key of another operation", operation.op)));
        }
        if row.state != ACCEPTED {
            return Err(Failure::Invariant(format!("{} has an outcome already", operation.op)));
        }
        sequences.push(row.sequence);
        taken_over.push(row.request != operation.request.0 || row.tenant != operation.tenant);
    }
    let conflicts: Vec<_> = settled.iter().zip(&taken_over).filter(|(_, taken_over)| **taken_over).collect();
    let conflicts: Vec<_> = conflicts.iter().map(|(Settled { operation, .. }, _)| conflict(block, operation)).collect();
    update_settled(connection, settled, &sequences, taken_over)?;
    webhooks::tell(connection, &block.network, &conflicts)?;
    sql_query(
        "DELETE FROM private_parts USING unnest($1, $2) AS settled (sequence, operation_hash)
         WHERE private_parts.sequence = settled.sequence AND private_parts.operation_hash <> settled.operation_hash",
    )
    .bind::<Array<BigInt>, _>(sequences)
    .bind::<Array<Binary>, _>(column(settled, |settled| &settled.operation.operation_hash.0[..]))
    .execute(connection)?;
    Ok(())
}

/// The row had another request's operation until now: its tenant is told as if the mark had come before.
fn conflict(block: &ProjectedBlock, operation: &ProjectedOperation) -> OutboxEvent {
    let subject = (operation.key, &operation.op, operation.kind);
    OutboxEvent::conflict(&block.network, &operation.tenant, subject, block.time)
}

fn update_settled(
    connection: &mut PgConnection,
    settled: &[Settled<'_>],
    sequences: &[i64],
    taken_over: Vec<bool>,
) -> Result<(), Failure> {
    let updated = sql_query(
        "UPDATE operations SET operation_hash = settled.operation_hash, state = settled.state, \
            leaf_index = settled.leaf_index, entry = settled.entry, height = settled.height, \
            block_time = settled.block_time, rejection = settled.rejection,
            tenant = CASE WHEN taken_over THEN settled.tenant ELSE operations.tenant END,
            kind = CASE WHEN taken_over THEN settled.kind ELSE operations.kind END,
            request = settled.request, conflicted = operations.conflicted OR taken_over
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS settled (sequence, operation_hash, state, \
            leaf_index, entry, height, block_time, rejection, tenant, kind, request, taken_over)
         WHERE operations.sequence = settled.sequence",
    )
    .bind::<Array<BigInt>, _>(sequences)
    .bind::<Array<Binary>, _>(column(settled, |settled| &settled.operation.operation_hash.0[..]))
    .bind::<Array<Integer>, _>(column(settled, |settled| settled.outcome.state))
    .bind::<Array<Nullable<BigInt>>, _>(column(settled, |settled| settled.outcome.leaf_index))
    .bind::<Array<Nullable<Binary>>, _>(column(settled, |settled| settled.outcome.entry.map(|entry| &entry.0[..])))
    .bind::<Array<BigInt>, _>(column(settled, |settled| settled.outcome.height))
    .bind::<Array<BigInt>, _>(column(settled, |settled| settled.outcome.block_time))
    .bind::<Array<Nullable<Integer>>, _>(column(settled, |settled| settled.outcome.rejection))
    .bind::<Array<Text>, _>(column(settled, |settled| settled.operation.tenant.as_str()))
    .bind::<Array<Integer>, _>(column(settled, |settled| kind_number(settled.operation.kind)))
    .bind::<Array<Binary>, _>(column(settled, |settled| &settled.operation.request.0[..]))
    .bind::<Array<Bool>, _>(taken_over)
    .execute(connection)?;
    if updated == settled.len() {
        Ok(())
    } else {
        Err(Failure::Invariant(format!("{updated} rows took {} outcomes", settled.len())))
    }
}

/// A position that is taken is an error: it was removed with the cursor, or the ledger gave it twice.
fn insert_links(connection: &mut PgConnection, block: &ProjectedBlock) -> Result<(), Failure> {
    let links = &block.links;
    if links.is_empty() {
        return Ok(());
    }
    let numbers = |field, value: fn(&CaseLink) -> u64| {
        links.iter().map(|link| signed(field, value(link))).collect::<Result<Vec<_>, _>>()
    };
    sql_query(
        "INSERT INTO case_links (network, case_key, position, evidence, leaf_index, entry, previous, block_time, tenant)
         SELECT $1, new.* FROM unnest($2, $3, $4, $5, $6, $7, $8, $9) AS new",
    )
    .bind::<Text, _>(&block.network)
    .bind::<Array<Binary>, _>(column(links, |link| &link.case.0[..]))
    .bind::<Array<BigInt>, _>(numbers("position", |link| link.position)?)
    .bind::<Array<Binary>, _>(column(links, |link| &link.evidence.0[..]))
    .bind::<Array<BigInt>, _>(numbers("leaf index", |link| link.index)?)
    .bind::<Array<Binary>, _>(column(links, |link| &link.entry.0[..]))
    .bind::<Array<Binary>, _>(column(links, |link| &link.previous.0[..]))
    .bind::<Array<BigInt>, _>(numbers("block time", |link| link.time)?)
    .bind::<Array<Text>, _>(column(links, |link| link.tenant.as_str()))
    .execute(connection)?;
    Ok(())
}

/// Turns every row back to accepted. Sequence, time, request and the mark of a conflict stay: they
/// are no part of what the ledger says, or say the same once it is projected again.
///
/// It takes rows in no order, so it takes the whole table from other writers: those that have begun are
/// waited for, the others wait. Projectors wait at the cursor already.
pub(super) fn reset(connection: &mut PgConnection, network: &str) -> Result<(), Failure> {
    connection.batch_execute(&format!("SET LOCAL statement_timeout = '{RESET_TIMEOUT}'"))?;
    diesel::delete(projection_cursors::table.find(network)).execute(connection)?;
    connection.batch_execute("LOCK TABLE operations IN SHARE ROW EXCLUSIVE MODE")?;
    diesel::delete(case_links::table.filter(case_links::network.eq(network))).execute(connection)?;
    sql_query(
        "UPDATE operations SET state = 0, leaf_index = NULL, entry = NULL, height = NULL, block_time = NULL, \
            rejection = NULL WHERE network = $1 AND state <> 0",
    )
    .bind::<Text, _>(network)
    .execute(connection)?;
    Ok(())
}
