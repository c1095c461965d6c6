//! What the submit loop writes: accepted operations and their private parts.
//!
//! Several committers write at once. Every transaction, here and in [`super::project`], first inserts
//! what is new, in the order of keys, and then locks what was known, in the order of keys. An insertion
//! waits only for a transaction that inserted the same key, and a lock only for one that is past its
//! insertions; so nobody waits in a circle.

use std::collections::{HashMap, HashSet};

use chopmark_domain::{
    record::{AcceptedOperation, SealedPrivate},
    webhook::OutboxEvent,
};
use diesel::{
    PgConnection, QueryResult, QueryableByName, RunQueryDsl as _, sql_query,
    sql_types::{Array, BigInt, Binary, Integer, Nullable, Text},
};

use super::webhooks;
use crate::{
    failure::Failure,
    row::{ACCEPTED, Conflicted, kind_number, signed},
    rules::check_private_keys,
};

/// Inserts `rows`; callers are in a transaction.
pub(super) fn insert(connection: &mut PgConnection, rows: &[AcceptedOperation]) -> Result<(), Failure> {
    check_private_keys(rows)?;
    let sequences = take_sequences(connection, rows.len())?;
    let new = insert_operations(connection, rows, &sequences)?;
    let mut parts = PrivateParts::default();
    let mut met = Vec::new();
    for (row, sequence) in rows.iter().zip(&sequences) {
        match &row.private {
            _ if !new.contains(sequence) => met.push(row),
            Some(private) => parts.push(*sequence, row, private)?,
            None => {}
        }
    }
    if !met.is_empty() {
        meet_known(connection, &met, &mut parts)?;
    }
    parts.insert(connection)
}

#[derive(QueryableByName)]
struct Sequence {
    #[diesel(sql_type = BigInt)]
    sequence: i64,
}

/// So many numbers, ascending.
pub(super) fn take_sequences(connection: &mut PgConnection, count: usize) -> Result<Vec<i64>, Failure> {
    let count = i64::try_from(count).map_err(|_| Failure::Invariant("more rows than numbers".to_owned()))?;
    let query = "SELECT nextval('operation_sequence') AS sequence FROM generate_series(1, $1)";
    let taken: Vec<Sequence> = sql_query(query).bind::<BigInt, _>(count).load(connection)?;
    let mut numbers: Vec<_> = taken.into_iter().map(|row| row.sequence).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Of rows with one key the first counts. Returns the sequences of the rows that are new.
fn insert_operations(
    connection: &mut PgConnection,
    rows: &[AcceptedOperation],
    sequences: &[i64],
) -> Result<HashSet<i64>, Failure> {
    let accepted_at = rows.iter().map(|row| signed("accepted_at", row.accepted_at)).collect::<Result<Vec<_>, _>>()?;
    let inserted: Vec<Sequence> = sql_query(
        "INSERT INTO operations (sequence, network, key, op, tenant, kind, request, operation_hash, accepted_at, \
            conflicted, state)
         SELECT sequence, network, key, op, tenant, kind, request, operation_hash, accepted_at, false, 0
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
            AS new (sequence, network, key, op, tenant, kind, request, operation_hash, accepted_at)
         ORDER BY network COLLATE \"C\", key, sequence
         ON CONFLICT (network, key) DO NOTHING RETURNING sequence",
    )
    .bind::<Array<BigInt>, _>(sequences)
    .bind::<Array<Text>, _>(column(rows, |row| row.network.as_str()))
    .bind::<Array<Binary>, _>(column(rows, |row| &row.key.0[..]))
    .bind::<Array<Binary>, _>(column(rows, |row| &row.op.0[..]))
    .bind::<Array<Text>, _>(column(rows, |row| row.tenant.as_str()))
    .bind::<Array<Integer>, _>(column(rows, |row| kind_number(row.kind)))
    .bind::<Array<Binary>, _>(column(rows, |row| &row.request.0[..]))
    .bind::<Array<Binary>, _>(column(rows, |row| &row.operation_hash.0[..]))
    .bind::<Array<BigInt>, _>(accepted_at)
    .load(connection)?;
    Ok(inserted.into_iter().map(|row| row.sequence).collect())
}

/// One column of rows, for an array.
pub(super) fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// The row of a key, as far as writers need it.
#[derive(Debug, QueryableByName)]
pub(super) struct Known {
    #[diesel(sql_type = BigInt)]
    pub(super) sequence: i64,
    #[diesel(sql_type = Text)]
    network: String,
    #[diesel(sql_type = Binary)]
    key: Vec<u8>,
    #[diesel(sql_type = Binary)]
    pub(super) op: Vec<u8>,
    #[diesel(sql_type = Text)]
    pub(super) tenant: String,
    #[diesel(sql_type = Binary)]
    pub(super) request: Vec<u8>,
    #[diesel(sql_type = Binary)]
    pub(super) operation_hash: Vec<u8>,
    #[diesel(sql_type = Integer)]
    pub(super) state: i32,
}

/// Rows by network and key.
pub(super) type KnownRows = HashMap<(String, Vec<u8>), Known>;

/// Locks the rows with these keys until the end of the transaction, and returns those that there are.
pub(super) fn lock_known(
    connection: &mut PgConnection,
    networks: Vec<&str>,
    keys: Vec<&[u8]>,
) -> QueryResult<KnownRows> {
    let rows: Vec<Known> = sql_query(
        "SELECT sequence, network, key, op, tenant, request, operation_hash, state FROM operations
         WHERE (network, key) IN (SELECT * FROM unnest($1, $2))
         ORDER BY network, key FOR NO KEY UPDATE",
    )
    .bind::<Array<Text>, _>(networks)
    .bind::<Array<Binary>, _>(keys)
    .load(connection)?;
    Ok(rows.into_iter().map(|row| ((row.network.clone(), row.key.clone()), row)).collect())
}

/// A row that came before keeps all it says; that another request came is noted. Each attempt's
/// private part is kept until the ledger has chosen one; afterwards only the chosen one's is.
fn meet_known<'a>(
    connection: &mut PgConnection,
    met: &[&'a AcceptedOperation],
    parts: &mut PrivateParts<'a>,
) -> Result<(), Failure> {
    let (networks, keys) = (column(met, |row| row.network.as_str()), column(met, |row| &row.key.0[..]));
    let known = lock_known(connection, networks, keys)?;
    let mut conflicted = Vec::new();
    for row in met {
        let Some(known) = known.get(&(row.network.clone(), row.key.0.to_vec())) else {
            return Err(Failure::Invariant(format!("the row of {} is there and is not", row.op)));
        };
        if known.op != row.op.0 {
            return Err(Failure::Invariant(format!("{} has the key of another operation", row.op)));
        }
        if known.request != row.request.0 || known.tenant != row.tenant {
            conflicted.push(known.sequence);
        }
        if let Some(private) = &row.private
            && (known.state == ACCEPTED || known.operation_hash == row.operation_hash.0)
        {
            parts.push(known.sequence, row, private)?;
        }
    }
    if !conflicted.is_empty() {
        let marked: Vec<Conflicted> = sql_query(
            "UPDATE operations SET conflicted = true WHERE sequence = ANY ($1) AND NOT conflicted
             RETURNING network, tenant, key, op, kind, accepted_at",
        )
        .bind::<Array<BigInt>, _>(conflicted)
        .load(connection)?;
        tell_conflicts(connection, &marked)?;
    }
    Ok(())
}

/// Tells the tenants of operations that were just marked.
fn tell_conflicts(connection: &mut PgConnection, marked: &[Conflicted]) -> Result<(), Failure> {
    let mut by_network: HashMap<String, Vec<OutboxEvent>> = HashMap::new();
    for row in marked {
        let event = row.event()?;
        by_network.entry(event.network.clone()).or_default().push(event);
    }
    for (network, events) in by_network {
        webhooks::tell(connection, &network, &events)?;
    }
    Ok(())
}

/// Private parts to insert, as columns. Whoever adds one holds the row of its operation: it is new, or locked.
#[derive(Default)]
struct PrivateParts<'a> {
    sequences: Vec<i64>,
    networks: Vec<&'a str>,
    tenants: Vec<&'a str>,
    attempts: Vec<&'a [u8]>,
    sealed: Vec<&'a [u8]>,
    external: Vec<Option<&'a [u8]>>,
    accepted_at: Vec<i64>,
}

impl<'a> PrivateParts<'a> {
    fn push(&mut self, sequence: i64, row: &'a AcceptedOperation, private: &'a SealedPrivate) -> Result<(), Failure> {
        self.sequences.push(sequence);
        self.networks.push(&row.network);
        self.tenants.push(&row.tenant);
        self.attempts.push(&row.operation_hash.0);
        self.sealed.push(&private.sealed);
        self.external.push(private.external_index.as_ref().map(|index| &index.0[..]));
        self.accepted_at.push(signed("accepted_at", row.accepted_at)?);
        Ok(())
    }

    fn insert(self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.sequences.is_empty() {
            return Ok(());
        }
        sql_query(
            "INSERT INTO private_parts (sequence, network, tenant, operation_hash, sealed, external_index, accepted_at)
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (sequence, operation_hash) DO NOTHING",
        )
        .bind::<Array<BigInt>, _>(self.sequences)
        .bind::<Array<Text>, _>(self.networks)
        .bind::<Array<Text>, _>(self.tenants)
        .bind::<Array<Binary>, _>(self.attempts)
        .bind::<Array<Binary>, _>(self.sealed)
        .bind::<Array<Nullable<Binary>>, _>(self.external)
        .bind::<Array<BigInt>, _>(self.accepted_at)
        .execute(connection)?;
        Ok(())
    }
}
