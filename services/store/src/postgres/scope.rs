//! What a transaction acts for, as row-level security sees it.

use diesel::{
    PgConnection, RunQueryDsl as _, define_sql_function, select,
    sql_types::{Bool, Text},
};
use ledger_core::hash::Hash32;

use crate::failure::Failure;

define_sql_function! {
    /// The setting holds until the end of the transaction where `local` is true.
    fn set_config(name: Text, value: Text, local: Bool) -> Text;
}

/// Set in the transaction itself and gone with it: a connection carries nothing over to its next user.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// One tenant's rows of one network.
    Tenant { network: String, tenant: String },
    /// The API key with this keyed hash.
    ApiKey(Hash32),
    /// No tenant's rows in particular: what there is depends on the role alone.
    Role,
}

impl Scope {
    pub(super) fn tenant(network: &str, tenant: &str) -> Self {
        Self::Tenant { network: network.to_owned(), tenant: tenant.to_owned() }
    }

    pub(super) fn enter(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        match self {
            Self::Tenant { network, tenant } => {
                let network = set_config("chopmark.network", network.as_str(), true);
                let tenant = set_config("chopmark.tenant", tenant.as_str(), true);
                select((network, tenant)).execute(connection)?;
            }
            Self::ApiKey(hash) => {
                select(set_config("chopmark.api_key", hash.to_string(), true)).execute(connection)?;
            }
            Self::Role => {}
        }
        Ok(())
    }
}
