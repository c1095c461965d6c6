//! All use cases of a gateway, wired over one set of ports.

use std::{sync::Arc, time::Duration};

use ledger_core::hash::Hash32;
use zeroize::Zeroizing;

use crate::{
    accept::Acceptor,
    access::{Access, KEY_CACHE_TTL},
    endpoints::{Endpoints, WebhookPorts},
    id::IdIssuer,
    lookup::PublicLedger,
    notarize::Notary,
    ports::{
        Clock, IdempotencyCache, LedgerReader, OperationStore, OriginalStore, ProjectionStore, Queue, Random,
        TenantStore,
    },
    quota::Quotas,
    read::Records,
    seal::KeyEncryptionKey,
    waiting::CommitWatch,
};

/// The outside, as the use cases need it.
#[derive(Clone)]
#[expect(missing_docs, reason = "each port's trait says what it is")]
pub struct Ports {
    pub queue: Arc<dyn Queue>,
    pub cache: Arc<dyn IdempotencyCache>,
    pub store: Arc<dyn OperationStore>,
    pub projection: Arc<dyn ProjectionStore>,
    pub tenants: Arc<dyn TenantStore>,
    pub ledger: Arc<dyn LedgerReader>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub quotas: Arc<dyn Quotas>,
    /// `None`: originals are not kept here.
    pub originals: Option<Arc<dyn OriginalStore>>,
    pub webhooks: WebhookPorts,
}

/// Names and keys of a deployment.
pub struct Settings {
    /// `sandbox` or `live`.
    pub network: String,
    /// Chain id that operations name.
    pub chain: Hash32,
    /// Issues and recognises ids and cursors; the same at every gateway.
    pub ids: IdIssuer,
    /// Opens tenants' secrets.
    pub kek: KeyEncryptionKey,
    /// Hashes API keys; the same that stored keys were hashed with.
    pub api_key_hashing_key: Zeroizing<[u8; 32]>,
    /// How long a looked-up API key is believed; [`KEY_CACHE_TTL`] unless a test says otherwise.
    pub key_cache_ttl: Duration,
}

impl Settings {
    /// Settings with the default life of looked-up keys.
    #[must_use]
    pub fn new(
        network: impl Into<String>,
        chain: Hash32,
        ids: IdIssuer,
        kek: KeyEncryptionKey,
        api_key_hashing_key: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self { network: network.into(), chain, ids, kek, api_key_hashing_key, key_cache_ttl: KEY_CACHE_TTL }
    }
}

/// All use cases of a gateway for one network.
pub struct Services {
    /// Who is calling.
    pub access: Access,
    /// Writing.
    pub notary: Notary,
    /// Reading one's own.
    pub records: Records,
    /// Webhooks.
    pub endpoints: Endpoints,
    /// Reading what is public.
    pub ledger: Arc<PublicLedger>,
    /// Issues ids.
    pub ids: IdIssuer,
    /// `sandbox` or `live`.
    pub network: String,
    ports: Ports,
}

impl Services {
    /// Wires the use cases.
    #[must_use]
    pub fn new(ports: Ports, settings: Settings) -> Self {
        let Settings { network, chain, ids, kek, api_key_hashing_key, key_cache_ttl } = settings;
        let acceptor = Acceptor::new(network.clone(), chain, &ports);
        let Ports { store, projection, tenants, ledger, clock, random, originals, webhooks, .. } = ports.clone();
        let watch = CommitWatch::new(network.clone(), Arc::clone(&store), projection);
        let endpoints = Endpoints {
            network: network.clone(),
            ids: ids.clone(),
            ports: webhooks,
            kek: kek.clone(),
            clock: Arc::clone(&clock),
            random,
        };
        Self {
            endpoints,
            access: Access::new(tenants, clock, kek, &api_key_hashing_key, network.clone(), key_cache_ttl),
            notary: Notary {
                network: network.clone(),
                ids: ids.clone(),
                acceptor: Arc::new(acceptor),
                store: Arc::clone(&store),
                watch: Arc::new(watch),
                originals,
            },
            records: Records { network: network.clone(), ids: ids.clone(), store, ledger: Arc::clone(&ledger) },
            ledger: Arc::new(PublicLedger::new(network.clone(), chain, ids.clone(), ledger)),
            ids,
            network,
            ports,
        }
    }

    /// What health checks look at.
    #[must_use]
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }
}
