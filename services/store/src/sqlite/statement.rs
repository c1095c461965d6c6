//! Statements that run thousands of times in a transaction, prepared once per connection.
//!
//! diesel does not keep the prepared form of its own `UPDATE`s and upserts, nor of `sql_query`;
//! preparing one anew costs more than running it.

use std::marker::PhantomData;

use diesel::{
    QueryResult, RunQueryDsl, SqliteConnection,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Nullable, Text},
    sqlite::Sqlite,
};

/// A statement's text, with a `?` for each value and no other.
pub(super) trait Sql: 'static {
    const TEXT: &'static str;
}

/// A value for a `?`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Null,
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Value::Null, Value::Int)
    }
}

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(value: Option<&'a [u8]>) -> Self {
        value.map_or(Value::Null, Value::Bytes)
    }
}

/// `S` with its values.
struct Statement<'a, S, const N: usize> {
    values: [Value<'a>; N],
    sql: PhantomData<S>,
}

/// Runs `S` with `values`; the number of rows it changed.
pub(super) fn run<S: Sql, const N: usize>(
    connection: &mut SqliteConnection,
    values: [Value<'_>; N],
) -> QueryResult<usize> {
    Statement::<S, N> { values, sql: PhantomData }.execute(connection)
}

impl<S: Sql, const N: usize> QueryFragment<Sqlite> for Statement<'_, S, N> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let mut pieces = S::TEXT.split('?');
        for value in &self.values {
            pass.push_sql(pieces.next().unwrap_or_default());
            match value {
                Value::Int(value) => pass.push_bind_param::<BigInt, _>(value)?,
                Value::Text(value) => pass.push_bind_param::<Text, _>(*value)?,
                Value::Bytes(value) => pass.push_bind_param::<Binary, _>(*value)?,
                Value::Null => pass.push_bind_param::<Nullable<BigInt>, _>(&None::<i64>)?,
            }
        }
        pieces.for_each(|piece| pass.push_sql(piece));
        Ok(())
    }
}

/// The text alone names the statement: SQLite's values carry their own types.
impl<S: Sql, const N: usize> QueryId for Statement<'_, S, N> {
    type QueryId = Statement<'static, S, N>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<S: Sql, const N: usize> RunQueryDsl<SqliteConnection> for Statement<'_, S, N> {}
