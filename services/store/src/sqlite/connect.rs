//! From a URL to a connection: the file, its settings, its migrations.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use diesel::{
    Connection, ConnectionError, QueryableByName, RunQueryDsl, SqliteConnection, connection::SimpleConnection,
    result::Error as DieselError, sql_query, sql_types::Text,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use thiserror::Error;
use tracing::info;

use chopmark_domain::ports::PortError;

use super::failure::{is_busy, port_error};
use crate::{failure::Failure, pool::Connect};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../schemas/migrations/sqlite");

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT_MS: u32 = 5_000;
/// How long opening waits to switch a new file to WAL: SQLite does not wait there by itself.
const WAL_SWITCH_TIMEOUT: Duration = Duration::from_secs(10);
const WAL_SWITCH_PAUSE: Duration = Duration::from_millis(10);
/// The index over keys is hit at random: 64 MiB hold that of 1.5 million rows.
const WRITER_CACHE_KIB: u32 = 64 * 1024;
const READER_CACHE_KIB: u32 = 8 * 1024;
/// 16 MiB of 4 KiB pages between checkpoints. At SQLite's 1000 pages every batch of a thousand rows
/// ends in one; more pages cost less work a row, but one commit has to wait for all of it.
const CHECKPOINT_PAGES: u32 = 4096;
/// A log that a long read made grow is cut back to this.
const WAL_KEPT_BYTES: u64 = 64 << 20;

/// Why a database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Not `sqlite:PATH`.
    #[error("the database URL is not of the form sqlite:PATH")]
    Url,
    /// The file cannot be made or used.
    #[error("open database file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be opened as a database.
    #[error("open database")]
    Connect(#[source] ConnectionError),
    /// The database refused to be set up.
    #[error("set up database")]
    Setup(#[source] DieselError),
    /// The file system cannot share memory between readers and the writer.
    #[error("the file system does not support SQLite's write-ahead log (journal mode is {0})")]
    NoWal(String),
    /// A migration failed; nothing was changed.
    #[error("migrate database")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread that opened it did not finish.
    #[error("open database: {0}")]
    Worker(String),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// The absolute path in `sqlite:PATH`: absolute, so that SQLite can take nothing in it for a URI or
/// for a database in memory.
pub(super) fn path_of(url: &str) -> Result<PathBuf, OpenError> {
    let path = url.strip_prefix("sqlite:").ok_or(OpenError::Url)?;
    if path.is_empty() || path.starts_with("//") || path.starts_with(':') {
        return Err(OpenError::Url);
    }
    std::path::absolute(path).map_err(|source| OpenError::File { path: path.into(), source })
}

/// Creates the file if there is none, switches it to WAL and applies the migrations it lacks.
pub(super) fn prepare(path: &Path) -> Result<(), OpenError> {
    create(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    let mut connection = establish(path).map_err(OpenError::Connect)?;
    configure(&mut connection, Role::Writer).map_err(OpenError::Setup)?;
    switch_to_wal(&mut connection)?;
    migrate(&mut connection)
}

/// A prepared file, and what it is opened for.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) role: Role,
}

impl Connect for File {
    type Connection = SqliteConnection;

    /// Every wait in SQLite has a bound of its own.
    fn call_timeout(&self) -> Option<Duration> {
        None
    }

    fn connect(&self) -> Result<SqliteConnection, Failure> {
        connect(&self.path, self.role)
    }

    fn begin(&self, _: &mut SqliteConnection) -> Result<(), Failure> {
        Ok(())
    }

    fn port_error(failure: Failure) -> PortError {
        port_error(failure)
    }
}

/// A connection to a prepared database.
pub(super) fn connect(path: &Path, role: Role) -> Result<SqliteConnection, Failure> {
    let mut connection = establish(path)?;
    configure(&mut connection, role)?;
    Ok(connection)
}

/// Only the owner may read what platforms sealed; SQLite gives its side files the mode of this one.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn establish(path: &Path) -> Result<SqliteConnection, ConnectionError> {
    let path = path.to_str().ok_or_else(|| ConnectionError::InvalidConnectionUrl("path is not UTF-8".to_owned()))?;
    SqliteConnection::establish(path)
}

fn configure(connection: &mut SqliteConnection, role: Role) -> Result<(), DieselError> {
    let role = match role {
        Role::Writer => format!(
            "PRAGMA cache_size = -{WRITER_CACHE_KIB};
             PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {WAL_KEPT_BYTES};"
        ),
        Role::Reader => format!("PRAGMA cache_size = -{READER_CACHE_KIB}; PRAGMA query_only = ON;"),
    };
    connection.batch_execute(&format!(
        "PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         {role}"
    ))
}

#[derive(QueryableByName)]
struct JournalMode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

/// The switch needs the file alone, and SQLite does not call the busy handler for it.
fn switch_to_wal(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let deadline = Instant::now() + WAL_SWITCH_TIMEOUT;
    loop {
        match sql_query("PRAGMA journal_mode = WAL").get_result::<JournalMode>(connection) {
            Ok(mode) if mode.journal_mode == "wal" => return Ok(()),
            Ok(mode) => return Err(OpenError::NoWal(mode.journal_mode)),
            Err(error) if is_busy(&error) && Instant::now() < deadline => sleep(WAL_SWITCH_PAUSE),
            Err(error) => return Err(OpenError::Setup(error)),
        }
    }
}

/// What is pending is looked up under the write lock: of two processes, the second finds nothing
/// left to do. Dying in here leaves the schema as it was.
fn migrate(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let mut failed = None;
    let result = connection.immediate_transaction(|connection| match connection.run_pending_migrations(MIGRATIONS) {
        Ok(applied) => Ok(applied.into_iter().map(|version| version.to_string()).collect::<Vec<_>>()),
        Err(error) => {
            failed = Some(error);
            Err(DieselError::RollbackTransaction)
        }
    });
    match (result, failed) {
        (_, Some(error)) => Err(OpenError::Migration(error)),
        (Err(error), None) => Err(OpenError::Setup(error)),
        (Ok(applied), None) => {
            if !applied.is_empty() {
                info!(?applied, "database migrated");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(QueryableByName, Debug, PartialEq)]
    struct Definition {
        #[diesel(sql_type = Text)]
        sql: String,
    }

    fn definitions(connection: &mut SqliteConnection) -> Vec<Definition> {
        let query = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL \
             AND name NOT GLOB '__diesel*' AND name NOT GLOB 'sqlite_*' ORDER BY name";
        sql_query(query).load(connection).unwrap()
    }

    #[test]
    fn migrations_run_once_and_go_back() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("chopmark.db");
        prepare(&path).unwrap();
        prepare(&path).unwrap();
        let mut connection = connect(&path, Role::Writer).unwrap();
        let migrated = definitions(&mut connection);
        assert!(migrated.len() > 6, "{migrated:?}");
        assert!(!connection.has_pending_migration(MIGRATIONS).unwrap());

        connection.revert_all_migrations(MIGRATIONS).unwrap();
        assert_eq!(definitions(&mut connection), []);
        migrate(&mut connection).unwrap();
        assert_eq!(definitions(&mut connection), migrated);
    }

    #[test]
    fn urls_name_a_file() {
        assert_eq!(path_of("sqlite:/data/chopmark.db").unwrap(), Path::new("/data/chopmark.db"));
        assert!(path_of("sqlite:chopmark.db").unwrap().is_absolute());
        assert!(path_of("sqlite:file:chopmark.db?mode=memory").unwrap().is_absolute());
        for bad in ["", "sqlite:", "sqlite::memory:", "sqlite://chopmark.db", "postgres:chopmark", "/chopmark.db"] {
            assert!(matches!(path_of(bad), Err(OpenError::Url)), "{bad}");
        }
    }
}
