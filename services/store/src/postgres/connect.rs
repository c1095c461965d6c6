//! Connections, and what must be true of a database before a process works with it.

use std::{collections::BTreeSet, time::Duration};

use chopmark_domain::ports::PortError;
use diesel::{
    Connection as _, ConnectionError, PgConnection, QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    result::Error as DieselError,
    sql_query,
    sql_types::{Bool, Nullable, Text},
};
use thiserror::Error;

use super::{
    failure::port_error,
    migrate,
    settings::{PostgresRole, PostgresSettings, UrlError},
};
use crate::{failure::Failure, pool::Connect};

/// Tables without a tenant's data. Every other one has forced row-level security.
const PUBLIC_TABLES: &str = "'projection_cursors', 'outbox_cursors', '__diesel_schema_migrations'";

/// Why a database could not be opened.
#[derive(Debug, Error)]
pub enum PostgresOpenError {
    /// Not a URL of PostgreSQL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Nobody answers, or not to this user.
    #[error("connect to the database")]
    Connect(#[source] ConnectionError),
    /// The database refused to be looked at.
    #[error("look at the database")]
    Query(#[from] DieselError),
    /// The role is above row-level security.
    #[error(
        "the database role {role} is {why}, so that row-level security would not bind it; log in as {wanted}, or \
         as a role that is a member of it alone"
    )]
    Privileged {
        /// Who logged in.
        role: String,
        /// `a superuser`, …
        why: String,
        /// Who should.
        wanted: &'static str,
    },
    /// The role has other rights than the process needs.
    #[error("the database role {role} is {why}; this process has to log in as {wanted} or a member of it alone")]
    Role {
        /// Who logged in.
        role: String,
        /// What it is, or is not.
        why: String,
        /// Who should.
        wanted: &'static str,
    },
    /// A table is open to all tenants.
    #[error(
        "row-level security is not forced on the table {0}; as its owner, run: ALTER TABLE {0} ENABLE ROW LEVEL \
         SECURITY, FORCE ROW LEVEL SECURITY"
    )]
    Unforced(String),
    /// The schema lacks migrations.
    #[error("the database is at version {at}, this program needs {needed}: run `chopmark admin migrate`")]
    Behind {
        /// Newest migration in the database, or `none`.
        at: String,
        /// Newest migration here.
        needed: String,
    },
    /// The schema has migrations that are not known here.
    #[error("the database has the migration {0}, which this program does not know: a newer one has been here")]
    Newer(String),
    /// Messages in another language would be mistaken.
    #[error(
        "the server's messages come in another language than English (lc_messages is {0}), and causes are told \
         apart by them; as a superuser, run: ALTER DATABASE … SET lc_messages = 'C'"
    )]
    Language(String),
    /// The server acknowledges what is not durable.
    #[error("the server runs with fsync off: what it acknowledges may be gone after a crash; turn it on")]
    NotDurable,
    /// A migration failed; nothing was changed.
    #[error("migrate the database")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The roles were not made.
    #[error("there is no role {0}; as a superuser, run: psql --file schemas/roles/postgres.sql")]
    NoRole(&'static str),
    /// The thread that opened it did not finish.
    #[error("open database: {0}")]
    Worker(String),
}

impl Connect for PostgresSettings {
    type Connection = PgConnection;

    fn call_timeout(&self) -> Option<Duration> {
        Some(self.call_timeout)
    }

    fn connect(&self) -> Result<PgConnection, Failure> {
        let mut connection = PgConnection::establish(self.url.as_str())?;
        connection.batch_execute(&self.session())?;
        Ok(connection)
    }

    /// Every call is one transaction, reads too: the tenant that it acts for is set in it.
    fn begin(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        Ok(connection.batch_execute("BEGIN")?)
    }

    fn port_error(failure: Failure) -> PortError {
        port_error(failure)
    }
}

/// Refuses a database that this program cannot rely on, and a role that it must not have.
pub(super) fn check(settings: &PostgresSettings) -> Result<(), PostgresOpenError> {
    let mut connection = PgConnection::establish(settings.url.as_str()).map_err(PostgresOpenError::Connect)?;
    connection.batch_execute(&settings.session())?;
    check_server(&mut connection)?;
    check_privileges(&mut connection, settings.role)?;
    migrate::compare(&mut connection)?.into_result()?;
    check_role(&mut connection, settings.role)?;
    check_tables(&mut connection, settings.role)
}

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = Text)]
    messages: String,
    #[diesel(sql_type = Text)]
    fsync: String,
}

pub(super) fn check_server(connection: &mut PgConnection) -> Result<(), PostgresOpenError> {
    let query = "SELECT current_setting('lc_messages') AS messages, current_setting('fsync') AS fsync";
    let server: Server = sql_query(query).get_result(connection)?;
    let messages = server.messages;
    if !["", "C", "POSIX"].contains(&messages.as_str()) && !messages.starts_with("C.") && !messages.starts_with("en") {
        return Err(PostgresOpenError::Language(messages));
    }
    if server.fsync == "on" { Ok(()) } else { Err(PostgresOpenError::NotDurable) }
}

#[derive(QueryableByName)]
struct Privilege {
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Nullable<Text>)]
    why: Option<String>,
}

/// What a role may become counts as what it is: `SET ROLE` is one statement away.
pub(super) fn check_privileges(connection: &mut PgConnection, wanted: PostgresRole) -> Result<(), PostgresOpenError> {
    let query = "SELECT session_user::text AS role, (
            SELECT CASE WHEN r.rolsuper THEN 'a superuser' ELSE 'allowed to bypass row-level security' END
                || CASE WHEN r.rolname = session_user THEN '' ELSE ' by its membership of ' || r.rolname END
            FROM pg_roles r
            WHERE (r.rolsuper OR r.rolbypassrls)
                AND (pg_has_role(session_user, r.oid, 'MEMBER') OR pg_has_role(current_user, r.oid, 'MEMBER'))
            ORDER BY r.rolname = session_user DESC, r.rolname LIMIT 1
        ) AS why";
    let Privilege { role, why } = sql_query(query).get_result(connection)?;
    why.map_or(Ok(()), |why| Err(PostgresOpenError::Privileged { role, why, wanted: wanted.as_str() }))
}

#[derive(QueryableByName)]
struct Membership {
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    member: bool,
}

pub(super) fn check_role(connection: &mut PgConnection, wanted: PostgresRole) -> Result<(), PostgresOpenError> {
    for role in PostgresRole::ALL {
        let name = role.as_str();
        let query = "SELECT session_user::text AS role, coalesce((SELECT pg_has_role(session_user, oid, 'MEMBER') \
            FROM pg_roles WHERE rolname = $1), false) AS member";
        let found: Membership = sql_query(query).bind::<Text, _>(name).get_result(connection)?;
        if found.member != (role == wanted) {
            let why = format!("{} {name}", if found.member { "a member of" } else { "no member of" });
            return Err(PostgresOpenError::Role { role: found.role, why, wanted: wanted.as_str() });
        }
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    forced: bool,
    #[diesel(sql_type = Bool)]
    owned: bool,
    #[diesel(sql_type = Text)]
    role: String,
}

pub(super) fn check_tables(connection: &mut PgConnection, wanted: PostgresRole) -> Result<(), PostgresOpenError> {
    let query = format!(
        "SELECT relname::text AS name, relname IN ({PUBLIC_TABLES}) OR (relrowsecurity AND relforcerowsecurity) AS forced,
            pg_has_role(session_user, relowner, 'MEMBER') AS owned, session_user::text AS role
         FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname"
    );
    let tables: Vec<Table> = sql_query(query).load(connection)?;
    for table in &tables {
        if table.owned {
            let why = format!("owner of the table {}", table.name);
            return Err(PostgresOpenError::Privileged { role: table.role.clone(), why, wanted: wanted.as_str() });
        }
        if !table.forced {
            return Err(PostgresOpenError::Unforced(table.name.clone()));
        }
    }
    let names: BTreeSet<_> = tables.iter().map(|table| table.name.as_str()).collect();
    const OF_TENANTS: [&str; 10] = [
        "api_keys",
        "case_links",
        "operations",
        "outbox_events",
        "private_parts",
        "signing_keys",
        "tenants",
        "webhook_attempts",
        "webhook_deliveries",
        "webhook_endpoints",
    ];
    match OF_TENANTS.iter().find(|name| !names.contains(*name)) {
        Some(missing) => Err(PostgresOpenError::Unforced((*missing).to_owned())),
        None => Ok(()),
    }
}
