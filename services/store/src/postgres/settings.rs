//! Where the database is, as whom, and the bounds of every wait.

use std::{fmt, time::Duration};

use thiserror::Error;

/// More than cores at the database only queue there; a process needs no more to keep them busy.
const CONNECTIONS_DEFAULT: usize = 8;
/// Many times the longest statement, half the 30 s after which HTTP clients give up.
const STATEMENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Whoever holds a row so long is stuck.
const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longer than a statement may take, shorter than the 30 s after which HTTP clients give up. It is what
/// ends a wait for a server that has stopped without closing its connections.
const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);
/// A process that stopped between two statements must not hold its rows for long.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// What libpq is told unless the URL says otherwise: 5 s to connect to each host, and a peer that
/// acknowledges nothing for 10 s is gone.
const PARAMETERS: [(&str, &str); 6] = [
    ("connect_timeout", "5"),
    ("tcp_user_timeout", "10000"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "2"),
    ("application_name", "chopmark"),
];

/// On whose behalf a process uses the database. Each may do what its part of the work needs, and row-level
/// security keeps to the rest (ADR 0017).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresRole {
    /// `chopmark_app`: a gateway; reads for one tenant at a time.
    Gateway,
    /// `chopmark_committer`: inserts and projects for all tenants; reads nothing that they sealed.
    Committer,
    /// `chopmark_courier`: delivers webhooks for all tenants; reads no operation.
    Courier,
    /// `chopmark_admin`: adds tenants and keys.
    Admin,
}

impl PostgresRole {
    pub(super) const ALL: [Self; 4] = [Self::Gateway, Self::Committer, Self::Courier, Self::Admin];

    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "chopmark_app",
            Self::Committer => "chopmark_committer",
            Self::Courier => "chopmark_courier",
            Self::Admin => "chopmark_admin",
        }
    }
}

/// How to reach the database.
#[derive(Clone)]
pub struct PostgresSettings {
    pub(super) url: DatabaseUrl,
    /// On whose behalf.
    pub role: PostgresRole,
    /// Connections at a time, at most. Default 8.
    pub connections: usize,
    /// After this a statement has failed; Default 10 s.
    pub statement_timeout: Duration,
    /// After this a wait for a lock has failed; Default 5 s.
    pub lock_timeout: Duration,
    /// After this a call has failed, whatever the server says or does not. Default 20 s.
    pub call_timeout: Duration,
}

impl PostgresSettings {
    /// The defaults for the database at `url`.
    pub fn new(url: &str, role: PostgresRole) -> Result<Self, UrlError> {
        Ok(Self {
            url: DatabaseUrl::parse(url)?,
            role,
            connections: CONNECTIONS_DEFAULT,
            statement_timeout: STATEMENT_TIMEOUT_DEFAULT,
            lock_timeout: LOCK_TIMEOUT_DEFAULT,
            call_timeout: CALL_TIMEOUT_DEFAULT,
        })
    }

    /// What a session begins with. A database whose default is to acknowledge before it is durable is
    /// overruled; one that waits for more replicas than one is not.
    pub(super) fn session(&self) -> String {
        format!(
            "SET search_path = public, pg_temp;
             SET statement_timeout = {};
             SET lock_timeout = {};
             SET idle_in_transaction_session_timeout = {};
             SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') IN ('off', 'local');",
            self.statement_timeout.as_millis(),
            self.lock_timeout.as_millis(),
            IDLE_IN_TRANSACTION_TIMEOUT.as_millis()
        )
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("role", &self.role)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// A URL that is none, without a word of it: it may hold a password.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Another scheme.
    #[error("the database URL is not of the form postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?PARAMETERS]")]
    Form,
    /// The library would take a part of the password for something else, and name it in its errors.
    #[error(
        "the database URL has a character out of place: in user and password, write @ as %40, / as %2F, ? as %3F, # as %23"
    )]
    Character,
}

/// A URL whose parts are where libpq looks for them. It is never shown.
#[derive(Clone)]
pub(super) struct DatabaseUrl(String);

impl DatabaseUrl {
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        let url = url.trim();
        let rest =
            url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(UrlError::Form)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let ats = |text: &str| text.matches('@').count();
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) || url.contains('#') {
            return Err(UrlError::Character);
        }
        if ats(rest) > 1 || ats(authority) != ats(rest) {
            return Err(UrlError::Character);
        }
        let mut full = url.to_owned();
        for (name, value) in PARAMETERS {
            if !Self::names(rest, name) {
                full.push(if full.contains('?') { '&' } else { '?' });
                full.push_str(&format!("{name}={value}"));
            }
        }
        Ok(Self(full))
    }

    fn names(url: &str, parameter: &str) -> bool {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|pair| pair.split('=').next() == Some(parameter))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_url_says_is_kept() {
        let url = DatabaseUrl::parse("postgres://u:p%40@h:1/d?sslmode=verify-full&connect_timeout=9\n").unwrap();
        assert!(url.as_str().starts_with("postgres://u:p%40@h:1/d?sslmode=verify-full&connect_timeout=9&tcp_user"));
        assert_eq!(url.as_str().matches("connect_timeout").count(), 1);
        let bare = DatabaseUrl::parse("postgresql:///d").unwrap();
        assert!(bare.as_str().starts_with("postgresql:///d?connect_timeout=5&"), "{}", bare.as_str());
    }

    #[test]
    fn a_password_out_of_place_is_not_shown() {
        for bad in
            ["u:se@cret@h/d", "u:se/cret@h/d", "u:se?cret@h/d", "u:se#cret@h/d", "u:se cret@h/d", "h/d?x=se@cret"]
        {
            let error = PostgresSettings::new(&format!("postgres://{bad}"), PostgresRole::Gateway).unwrap_err();
            assert_eq!(error, UrlError::Character, "{bad}");
            assert!(!error.to_string().contains("cret"));
        }
        for bad in ["", "sqlite:chopmark.db", "mysql://u:secret@h/d"] {
            assert_eq!(PostgresSettings::new(bad, PostgresRole::Admin).unwrap_err(), UrlError::Form, "{bad}");
        }
        let settings = PostgresSettings::new("postgres://u:secret@h/d", PostgresRole::Admin).unwrap();
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
