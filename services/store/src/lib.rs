//! The database behind the ports of `domain`: operations and their private parts, the read model of
//! the ledger, tenants and API keys.
//!
//! One contract suite (`tests/contract`) says what a back-end promises; every back-end is
//! instantiated there. Nothing outside this package names diesel.
//!
//! A private part belongs to its operation and hangs on the row of the operation's first item,
//! [`ResourceKey::of`]`(op, 0)`: the store refuses one that comes with any other key. So no index
//! over operation ids is needed beside the one over keys.
//!
//! [`ResourceKey::of`]: chopmark_domain::id::ResourceKey::of

mod failure;
mod filter;
mod pool;
mod postgres;
mod row;
mod rules;
mod schema;
mod sqlite;

pub use postgres::{
    ConnectFault, PostgresExamination, PostgresOpenError, PostgresRole, PostgresSettings, PostgresStore, UrlError,
};
pub use sqlite::{OpenError, SqliteStore};

/// Name of this port in errors.
const PORT: &str = "database";

/// Most rows that one call of `list` or `case_links` returns, whatever it asks for.
pub const PAGE_ROWS_MAX: u32 = 10_000;

/// Most leaf indexes that one call of `list` takes.
pub const LIST_INDEXES_MAX: usize = 1000;
