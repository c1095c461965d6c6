//! Tenants and API keys as stored, and a tenant with its secrets opened.

use std::net::IpAddr;

use ipnet::IpNet;
use ledger_core::hash::Hash32;
use zeroize::Zeroizing;

use crate::{
    quota::Limits,
    seal::{KeyEncryptionKey, KeyedHasher, SealError, keyed_hash},
};

/// Length of a tenant's secret.
pub const TENANT_SECRET_BYTES: usize = 32;

/// A tenant as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// `ten_…`.
    pub id: String,
    /// Network.
    pub network: String,
    /// The tenant's secret, wrapped by the key-encryption key.
    pub wrapped_secret: Vec<u8>,
    /// Whether it may write.
    pub active: bool,
    /// Whether it writes under a request signature only.
    pub signatures_required: bool,
    /// What it may use.
    pub limits: Limits,
    /// Unix ms.
    pub created_at: u64,
}

/// A public key of Ed25519 that a tenant signs requests with, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// `sgk_…`, from [`SigningKeyRow::id_of`].
    pub id: String,
    /// Network.
    pub network: String,
    /// Tenant.
    pub tenant: String,
    /// The key's 32 bytes (RFC 8032).
    pub public_key: Hash32,
    /// Unix ms.
    pub created_at: u64,
    /// Unix ms.
    pub revoked_at: Option<u64>,
}

/// What the id of a signing key begins with.
pub const SIGNING_KEY_PREFIX: &str = "sgk_";

impl SigningKeyRow {
    /// The id of a key. It follows from network, tenant and key: a signature names it in `keyid`, so that
    /// what was signed for one network or tenant says nothing under another.
    #[must_use]
    pub fn id_of(network: &str, tenant: &str, public_key: &Hash32) -> String {
        let fields: [&[u8]; 3] = [network.as_bytes(), tenant.as_bytes(), &public_key.0];
        let hash = ledger_core::hash::tagged("chopmark/signing-key-id/v1", &fields);
        format!("{SIGNING_KEY_PREFIX}{}", &hash.to_string()[..24])
    }
}

/// An API key as stored; the key itself is shown once and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRow {
    /// `key_…`.
    pub id: String,
    /// Keyed hash of the key's text.
    pub hash: Hash32,
    /// Tenant.
    pub tenant: String,
    /// Network.
    pub network: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; empty: from anywhere.
    pub allowed: Vec<IpNet>,
    /// Unix ms.
    pub created_at: u64,
    /// Unix ms; `None` never.
    pub expires_at: Option<u64>,
    /// Unix ms.
    pub revoked_at: Option<u64>,
}

impl ApiKeyRow {
    /// Whether the key may be used from an address. One of IPv4 that is written as IPv6 is that of IPv4.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(&address.to_canonical()))
    }
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Read the tenant's own records.
    Read,
    /// Record evidence and cases.
    Write,
}

impl Scope {
    /// The name in storage and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Read, Self::Write].into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A tenant whose secret is open: every keyed value of the tenant comes from here. Its keys are
/// derived once, so that a request costs no more than its own hashes.
#[derive(Clone)]
pub struct Tenant {
    id: String,
    network: String,
    limits: Limits,
    operation: KeyedHasher,
    request: KeyedHasher,
    external: KeyedHasher,
    webhook: KeyedHasher,
    data: Zeroizing<[u8; 32]>,
}

impl Tenant {
    /// Unwraps a stored tenant's secret.
    pub fn open(row: &TenantRow, kek: &KeyEncryptionKey) -> Result<Self, SealError> {
        let secret = kek.unwrap(&row.id, &row.wrapped_secret)?;
        let key = |label: &str| {
            let domain = format!("chopmark/tenant-{label}/v1");
            Zeroizing::new(keyed_hash(secret.as_ref(), &[domain.as_bytes()]).0)
        };
        Ok(Self {
            id: row.id.clone(),
            network: row.network.clone(),
            limits: row.limits,
            operation: KeyedHasher::new(key("operation").as_ref()),
            request: KeyedHasher::new(key("request").as_ref()),
            external: KeyedHasher::new(key("external").as_ref()),
            webhook: KeyedHasher::new(key("webhook").as_ref()),
            data: key("data"),
        })
    }

    /// `ten_…`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Network.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.network
    }

    /// What it may use.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Operation id of an idempotency key: unique per tenant for ever, and silent about the key.
    #[must_use]
    pub fn operation_id(&self, idempotency_key: &str) -> Hash32 {
        self.operation.hash(&[idempotency_key.as_bytes()])
    }

    /// Keyed digest of a parsed request.
    #[must_use]
    pub fn request_digest(&self, kind: &str, request: &[u8]) -> Hash32 {
        self.request.hash(&[kind.as_bytes(), request])
    }

    /// Blind index of an external id.
    #[must_use]
    pub fn external_index(&self, external_id: &str) -> Hash32 {
        self.external.hash(&[external_id.as_bytes()])
    }

    /// What names an endpoint, and the secrets that sign to it: the same for the same idempotency key, so
    /// that a caller who missed an answer asks again.
    #[must_use]
    pub(crate) fn webhook(&self, what: &str, fields: [&[u8]; 2]) -> Zeroizing<[u8; 32]> {
        let [first, second] = fields;
        Zeroizing::new(self.webhook.hash(&[what.as_bytes(), first, second]).0)
    }

    /// The key that wraps the data keys of this tenant's records.
    #[must_use]
    pub(crate) fn data_key(&self) -> &Zeroizing<[u8; 32]> {
        &self.data
    }
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant").field("id", &self.id).finish_non_exhaustive()
    }
}
