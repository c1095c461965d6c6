//! What `chopmark doctor` asks of a database: all that [`super::connect`] refuses, and not only the first
//! of it, and what makes a database weaker than it could be. Changes nothing.

use diesel::{
    Connection as _, ConnectionError, PgConnection, QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    sql_query,
    sql_types::{BigInt, Text},
};
use tokio::task::spawn_blocking;

use super::{
    PostgresStore,
    connect::{self, PostgresOpenError},
    migrate::{self, Schema},
    settings::PostgresSettings,
};

/// Why there is no connection, as far as the server or the library says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFault {
    /// The server knows neither this user nor this password, or not from here.
    Authentication,
    /// The server has no such database.
    NoDatabase,
    /// All places for connections are taken.
    Full,
    /// The connection is not encrypted as the URL asks, or the server's certificate is not the right one.
    Tls,
    /// Somebody takes the connection, and says nothing.
    Hangs,
    /// Whoever answers speaks another protocol.
    OtherProtocol,
    /// Nobody answers.
    Away,
}

impl ConnectFault {
    /// libpq gives a text only. Those of the server are English, as [`super::failure`] says; what is not
    /// known counts as away.
    #[must_use]
    pub fn of(error: &ConnectionError) -> Self {
        let text = error.to_string();
        let says = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
        let refused = ["authentication failed", "no pg_hba.conf entry", "no password supplied", "pg_hba.conf rejects"];
        let is_unknown = says(&["role \"", "user \""]) && text.contains("does not exist");
        if says(&refused) || is_unknown {
            Self::Authentication
        } else if text.contains("database \"") && text.contains("does not exist") {
            Self::NoDatabase
        } else if says(&["too many clients", "remaining connection slots", "too many connections"]) {
            Self::Full
        } else if says(&["timeout expired"]) {
            Self::Hangs
        } else if says(&["invalid response to SSL negotiation", "expected authentication request"]) {
            Self::OtherProtocol
        } else if says(&["SSL", "certificate"]) {
            Self::Tls
        } else {
            Self::Away
        }
    }
}

/// A database as it was found.
#[derive(Debug)]
pub struct PostgresExamination {
    /// Why a process would not start on it. One for each thing that is wrong.
    pub refusals: Vec<PostgresOpenError>,
    /// The server's clock in Unix milliseconds, at some moment of the question.
    pub time_ms: u64,
    /// Encoding of the database; `UTF8` is right.
    pub encoding: String,
    /// What sessions of this user begin with, unless they say otherwise. Ours say `on` in place of `off`
    /// and `local`.
    pub synchronous_commit: String,
    /// Connections that the server would still take from a user that is no superuser.
    pub connections_left: u64,
    /// Connections at a time, at most, that one process takes.
    pub connections_wanted: usize,
}

#[derive(QueryableByName)]
struct Facts {
    #[diesel(sql_type = BigInt)]
    time_ms: i64,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Text)]
    synchronous_commit: String,
    #[diesel(sql_type = BigInt)]
    connections_left: i64,
}

/// Every user may count the sessions of a server, though not see what kind they are: those of clients have
/// both a database and a user. The limits of the database and of the role count too: -1 is none.
const FACTS: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS time_ms,
    pg_encoding_to_char(d.encoding)::text AS encoding,
    (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit,
    least(
        current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
            - (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL AND usename IS NOT NULL),
        CASE WHEN d.datconnlimit < 0 THEN 1000000
            ELSE d.datconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE datname = d.datname) END,
        CASE WHEN r.rolconnlimit < 0 THEN 1000000
            ELSE r.rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usename = r.rolname) END
    )::bigint AS connections_left
    FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = session_user";

impl PostgresStore {
    /// Looks at a database as a process that would start on it, and changes nothing. It takes one connection.
    ///
    /// # Errors
    ///
    /// `Connect` or `Query` where it cannot be looked at, `Worker` where this process has no thread.
    pub async fn examine(settings: PostgresSettings) -> Result<PostgresExamination, PostgresOpenError> {
        let task = spawn_blocking(move || examine(&settings));
        task.await.map_err(|error| PostgresOpenError::Worker(error.to_string()))?
    }
}

fn examine(settings: &PostgresSettings) -> Result<PostgresExamination, PostgresOpenError> {
    let mut connection = PgConnection::establish(settings.url.as_str()).map_err(PostgresOpenError::Connect)?;
    connection.batch_execute(&settings.session())?;
    let facts: Facts = sql_query(FACTS).get_result(&mut connection)?;
    Ok(PostgresExamination {
        refusals: refusals(&mut connection, settings)?,
        time_ms: facts.time_ms.try_into().unwrap_or_default(),
        encoding: facts.encoding,
        synchronous_commit: facts.synchronous_commit,
        connections_left: facts.connections_left.try_into().unwrap_or_default(),
        connections_wanted: settings.connections,
    })
}

/// The checks of [`connect::check`], in its order, without an end at the first that fails.
fn refusals(
    connection: &mut PgConnection,
    settings: &PostgresSettings,
) -> Result<Vec<PostgresOpenError>, PostgresOpenError> {
    let mut refusals = Vec::new();
    let mut note = |result: Result<(), PostgresOpenError>| match result {
        Err(error @ (PostgresOpenError::Connect(_) | PostgresOpenError::Query(_))) => Err(error),
        Err(refusal) => {
            refusals.push(refusal);
            Ok(())
        }
        Ok(()) => Ok(()),
    };
    note(connect::check_server(connection))?;
    note(connect::check_privileges(connection, settings.role))?;
    let schema = migrate::compare(connection)?;
    let is_equal = schema == Schema::Equal;
    note(schema.into_result())?;
    note(connect::check_role(connection, settings.role))?;
    // Which tables there are is known for this version only.
    if is_equal {
        note(connect::check_tables(connection, settings.role))?;
    }
    Ok(refusals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_apart_by_their_texts() {
        for (text, fault) in [
            ("FATAL:  password authentication failed for user \"chopmark_app\"", ConnectFault::Authentication),
            (
                "FATAL:  no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
                ConnectFault::Authentication,
            ),
            ("fe_sendauth: no password supplied", ConnectFault::Authentication),
            ("FATAL:  role \"nobody\" does not exist", ConnectFault::Authentication),
            ("FATAL:  database \"chopmark\" does not exist", ConnectFault::NoDatabase),
            ("FATAL:  sorry, too many clients already", ConnectFault::Full),
            (
                "FATAL:  remaining connection slots are reserved for non-replication superuser connections",
                ConnectFault::Full,
            ),
            ("connection to server at \"h\", port 1 failed: timeout expired", ConnectFault::Hangs),
            ("received invalid response to SSL negotiation: H", ConnectFault::OtherProtocol),
            ("expected authentication request from server, but received H", ConnectFault::OtherProtocol),
            ("server does not support SSL, but SSL was required", ConnectFault::Tls),
            ("root certificate file \"/x\" does not exist", ConnectFault::Tls),
            ("connection to server at \"127.0.0.1\", port 1 failed: Connection refused", ConnectFault::Away),
        ] {
            assert_eq!(ConnectFault::of(&ConnectionError::BadConnection(text.to_owned())), fault, "{text}");
        }
    }
}
