//! A gateway in which nothing but row-level security keeps one tenant from another's records, for the test
//! that shows that this is enough (ADR 0023). Without the feature of this name there is none.

use std::path::Path;

use anyhow::Context as _;
use chopmark_domain::id::IdIssuer;
use chopmark_gateway::Serving;
use chopmark_store::{PostgresRole, PostgresSettings, PostgresStore};

use crate::{
    adapters::Stores,
    config::Configured,
    gateway::{self, Fence},
};

/// Opens such a gateway by a configuration like every gateway's: the same routes, handlers, queue, nodes
/// and role in the database, but queries that name no tenant, and ids and cursors whose tags are not
/// looked at. It serves no metrics.
pub async fn unfiltered_gateway(config: &Path) -> anyhow::Result<Serving> {
    let configured = Configured::read(config)?;
    let settings = PostgresSettings::new(&configured.database()?, PostgresRole::Gateway).context("database.url")?;
    let stores = Stores::of(PostgresStore::open_unfiltered(settings).await?);
    gateway::open(&configured, Fence { stores, issuer: IdIssuer::credulous }, String::new).await
}
