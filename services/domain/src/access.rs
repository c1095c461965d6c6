//! Who is calling: from the text of an API key to a tenant with its secrets opened.

use std::{net::IpAddr, sync::Arc, time::Duration};

use chopmark_api::{
    Problem, ProblemCode,
    problem::{Arg, Fault},
};
use ledger_core::hash::Hash32;

use crate::{
    auth::ApiKey,
    failure,
    ports::{Clock, TenantStore},
    seal::{KeyEncryptionKey, KeyedHasher},
    tenant::{ApiKeyRow, Scope, SigningKeyRow, Tenant},
};

/// How long a looked-up key is believed: short, so that a revocation bites.
pub const KEY_CACHE_TTL: Duration = Duration::from_secs(5);
/// Looked-up keys held at a time, about 2 KiB each.
const KEY_CACHE_KEYS_MAX: u64 = 10_000;

/// More characters than any key has.
const KEY_CHARS_MAX: usize = 128;

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its tenant.
    pub tenant: Arc<Tenant>,
    key: Arc<ApiKeyRow>,
    active: bool,
    signatures_required: bool,
}

impl Caller {
    /// The key's id, for limits and logs.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key.id
    }

    /// Whether it writes under a request signature only.
    #[must_use]
    pub const fn must_sign(&self) -> bool {
        self.signatures_required
    }

    /// Refuses a caller whose key may not be used from this address.
    pub fn require_address(&self, address: IpAddr) -> Result<(), Problem> {
        if self.key.allows(address) {
            Ok(())
        } else {
            Err(Problem::header(ProblemCode::ApiKeyAddressNotAllowed, "Authorization"))
        }
    }

    /// Refuses a caller whose key lacks the scope, or who may not write at present.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if !self.key.scopes.contains(&scope) {
            return Err(Fault::new(ProblemCode::ApiKeyScopeMissing).with("scope", Arg::Name(scope.as_str())).into());
        }
        if scope == Scope::Write && !self.active {
            return Err(ProblemCode::TenantSuspended.into());
        }
        Ok(())
    }
}

/// Authenticates API keys.
pub struct Access {
    tenants: Arc<dyn TenantStore>,
    clock: Arc<dyn Clock>,
    kek: KeyEncryptionKey,
    hasher: KeyedHasher,
    network: String,
    cache: moka::sync::Cache<Hash32, Caller>,
    /// By tenant and id. Only what is there is held: a key that was just added is found.
    signing_keys: moka::sync::Cache<(String, String), Arc<SigningKeyRow>>,
}

impl Access {
    /// `hashing_key` is the one that stored keys were hashed with.
    #[must_use]
    pub fn new(
        tenants: Arc<dyn TenantStore>,
        clock: Arc<dyn Clock>,
        kek: KeyEncryptionKey,
        hashing_key: &[u8; 32],
        network: String,
        ttl: Duration,
    ) -> Self {
        let cache = moka::sync::Cache::builder().max_capacity(KEY_CACHE_KEYS_MAX).time_to_live(ttl).build();
        let signing_keys = moka::sync::Cache::builder().max_capacity(KEY_CACHE_KEYS_MAX).time_to_live(ttl).build();
        Self { tenants, clock, kek, hasher: KeyedHasher::new(hashing_key), network, cache, signing_keys }
    }

    /// Unix milliseconds, by the clock that keys are judged by.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The caller's own signing key of this id, unless it is revoked.
    pub async fn signing_key(&self, caller: &Caller, id: &str) -> Result<Arc<SigningKeyRow>, Problem> {
        let tenant = caller.tenant.id();
        let held = (tenant.to_owned(), id.to_owned());
        let row = match self.signing_keys.get(&held) {
            Some(row) => row,
            None => {
                let found = self.tenants.signing_key(&self.network, tenant, id).await;
                let found = found.map_err(|error| failure::port(&error))?.ok_or(ProblemCode::SignatureKeyUnknown)?;
                let row = Arc::new(found);
                self.signing_keys.insert(held, Arc::clone(&row));
                row
            }
        };
        if row.revoked_at.is_some() {
            return Err(ProblemCode::SignatureKeyRevoked.into());
        }
        Ok(row)
    }

    /// The caller behind a key's text.
    pub async fn authenticate(&self, text: &str) -> Result<Caller, Problem> {
        if text.len() > KEY_CHARS_MAX {
            return Err(ProblemCode::ApiKeyMalformed.into());
        }
        // The hash of a key that is held says all that taking it apart would.
        let hash = self.hasher.hash(&[text.as_bytes()]);
        let caller = match self.cache.get(&hash) {
            Some(caller) => caller,
            None => {
                let key = ApiKey::parse(text).ok_or(ProblemCode::ApiKeyMalformed)?;
                if key.network() != self.network {
                    return Err(ProblemCode::ApiKeyWrongNetwork.into());
                }
                self.look_up(key.hash_by(&self.hasher)).await?
            }
        };
        let now = self.clock.now_ms();
        if caller.key.revoked_at.is_some() {
            return Err(ProblemCode::ApiKeyRevoked.into());
        }
        if caller.key.expires_at.is_some_and(|at| at <= now) {
            return Err(ProblemCode::ApiKeyExpired.into());
        }
        Ok(caller)
    }

    async fn look_up(&self, hash: Hash32) -> Result<Caller, Problem> {
        let row = self.tenants.api_key(&hash).await.map_err(|error| failure::port(&error))?;
        let row = row.filter(|row| row.network == self.network).ok_or(ProblemCode::ApiKeyUnknown)?;
        let tenant = self.tenants.tenant(&row.network, &row.tenant).await.map_err(|error| failure::port(&error))?;
        let tenant = tenant.ok_or_else(|| failure::broken("an API key without its tenant"))?;
        let (active, signatures_required) = (tenant.active, tenant.signatures_required);
        let tenant = Tenant::open(&tenant, &self.kek).map_err(|error| failure::seal(&error))?;
        let caller = Caller { tenant: Arc::new(tenant), key: Arc::new(row), active, signatures_required };
        self.cache.insert(hash, caller.clone());
        Ok(caller)
    }
}
