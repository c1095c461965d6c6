//! The schema: its version, and the way to the newest one.

use std::collections::BTreeSet;

use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    migration::{Migration, MigrationSource as _},
    pg::Pg,
    result::Error as DieselError,
    sql_query,
    sql_types::{Bool, Text},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::{
    connect::PostgresOpenError,
    settings::{DatabaseUrl, PostgresRole},
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../schemas/migrations/postgres");

/// Owns the tables.
const OWNER: &str = "chopmark_owner";

/// Names the lock of whoever migrates a database; any number that nobody else takes.
const LOCK: i64 = 0x63_6d_6d_69_67_72_61_74;
/// Another migration is waited for, so long.
const LOCK_WAIT: &str = "10min";
/// A table that is in use is waited for, and everybody who wants it meanwhile waits behind.
const TABLE_WAIT: &str = "15s";

/// The schema of a database beside that of this program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Schema {
    Equal,
    Behind { at: String, needed: String },
    Newer(String),
}

impl Schema {
    /// Any but the equal one is a reason not to open the database.
    pub(super) fn into_result(self) -> Result<(), PostgresOpenError> {
        match self {
            Self::Equal => Ok(()),
            Self::Behind { at, needed } => Err(PostgresOpenError::Behind { at, needed }),
            Self::Newer(version) => Err(PostgresOpenError::Newer(version)),
        }
    }
}

#[derive(QueryableByName)]
struct There {
    #[diesel(sql_type = Bool)]
    there: bool,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Compares, and changes nothing.
pub(super) fn compare(connection: &mut PgConnection) -> Result<Schema, PostgresOpenError> {
    let query = "SELECT coalesce(has_table_privilege(to_regclass('public.__diesel_schema_migrations'), 'SELECT'), \
        false) AS there";
    let applied: BTreeSet<String> = if sql_query(query).get_result::<There>(connection)?.there {
        let query = "SELECT version::text AS version FROM public.__diesel_schema_migrations";
        sql_query(query).load::<Version>(connection)?.into_iter().map(|row| row.version).collect()
    } else {
        BTreeSet::new()
    };
    let known = known()?;
    if let Some(newer) = applied.difference(&known).last() {
        return Ok(Schema::Newer(newer.clone()));
    }
    if applied == known {
        return Ok(Schema::Equal);
    }
    let newest = |versions: &BTreeSet<String>| versions.last().map_or("none", String::as_str).to_owned();
    Ok(Schema::Behind { at: newest(&applied), needed: newest(&known) })
}

fn migrations() -> Result<Vec<Box<dyn Migration<Pg>>>, PostgresOpenError> {
    MIGRATIONS.migrations().map_err(PostgresOpenError::Migration)
}

fn known() -> Result<BTreeSet<String>, PostgresOpenError> {
    Ok(migrations()?.iter().map(|migration| migration.name().version().to_string()).collect())
}

/// Applies what the database lacks, all of it in one transaction, and says which. Of two at once the
/// second finds nothing left to do. Dying in here leaves the schema as it was.
pub(super) fn migrate(url: &DatabaseUrl) -> Result<Vec<String>, PostgresOpenError> {
    let mut connection = PgConnection::establish(url.as_str()).map_err(PostgresOpenError::Connect)?;
    connection.batch_execute("SET search_path = public, pg_temp; SET statement_timeout = 0")?;
    for role in [OWNER].into_iter().chain(PostgresRole::ALL.map(PostgresRole::as_str)) {
        let query = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS there";
        if !sql_query(query).bind::<Text, _>(role).get_result::<There>(&mut connection)?.there {
            return Err(PostgresOpenError::NoRole(role));
        }
    }
    let mut failed = None;
    let result = connection.transaction(|connection| {
        apply(connection).map_err(|error| {
            failed = Some(error);
            DieselError::RollbackTransaction
        })
    });
    result.map_err(|error| failed.unwrap_or(PostgresOpenError::Query(error)))
}

fn apply(connection: &mut PgConnection) -> Result<Vec<String>, PostgresOpenError> {
    // Whoever runs this, the tables are the owner's.
    connection.batch_execute(&format!(
        "SET LOCAL ROLE {OWNER};
         SET LOCAL lock_timeout = '{LOCK_WAIT}';
         SELECT pg_advisory_xact_lock({LOCK});
         SET LOCAL lock_timeout = '{TABLE_WAIT}';"
    ))?;
    if let Schema::Newer(version) = compare(connection)? {
        return Err(PostgresOpenError::Newer(version));
    }
    let applied = connection.run_pending_migrations(MIGRATIONS).map_err(PostgresOpenError::Migration)?;
    Ok(applied.into_iter().map(|version| version.to_string()).collect())
}
