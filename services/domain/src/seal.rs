//! Sealing: what is private leaves the gateway only as AES-256-GCM ciphertext, under a data key
//! of its own that the tenant's key wraps, which the key-encryption key wraps in turn.

use aes_gcm::{
    Aes256Gcm, Key, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use ledger_core::hash::Hash32;
use sha3::{Digest as _, Sha3_256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    id::ResourceKey,
    ports::{PortError, Random},
    tenant::{TENANT_SECRET_BYTES, Tenant},
};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = NONCE_BYTES + 32 + TAG_BYTES;
const VERSION: u8 = 1;
/// What [`seal`] adds to what it seals.
pub(crate) const OVERHEAD_BYTES: usize = 1 + WRAPPED_BYTES + NONCE_BYTES + TAG_BYTES;

/// Why sealed bytes could not be opened, or plain ones not be sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// Wrong key, wrong place, or changed bytes.
    #[error("sealed bytes do not open under this key")]
    Open,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] PortError),
}

/// HMAC-SHA3-256 over length-prefixed fields.
#[must_use]
pub fn keyed_hash(key: &[u8], fields: &[&[u8]]) -> Hash32 {
    KeyedHasher::new(key).hash(fields)
}

/// HMAC-SHA3-256 (RFC 2104) with its key taken in once: of the four permutations of a short
/// message, the two over the padded key are spared. `hmac` offers that only for hashes that
/// show their blocks, which SHA-3 does not.
#[derive(Clone)]
pub struct KeyedHasher {
    inner: Sha3_256,
    outer: Sha3_256,
}

/// Rate of SHA3-256, which HMAC takes as its block.
const BLOCK_BYTES: usize = 136;

impl KeyedHasher {
    /// Takes in a key of any length.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        let mut block = Zeroizing::new([0_u8; BLOCK_BYTES]);
        match block.get_mut(..key.len()) {
            Some(start) => start.copy_from_slice(key),
            None => block[..32].copy_from_slice(&Sha3_256::digest(key)),
        }
        let padded = |pad: u8| Sha3_256::new_with_prefix(Zeroizing::new(block.map(|byte| byte ^ pad)).as_ref());
        Self { inner: padded(0x36), outer: padded(0x5c) }
    }

    /// HMAC over the length-prefixed `fields`.
    #[must_use]
    pub fn hash(&self, fields: &[&[u8]]) -> Hash32 {
        let mut inner = self.inner.clone();
        for field in fields {
            // Fields are bounded by the body limits, so the length fits.
            inner.update(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            inner.update(field);
        }
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        Hash32(outer.finalize().into())
    }
}

impl std::fmt::Debug for KeyedHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHasher(…)")
    }
}

/// The key-encryption key: wraps tenants' secrets.
#[derive(Clone)]
pub struct KeyEncryptionKey(Zeroizing<[u8; 32]>);

impl KeyEncryptionKey {
    /// Takes over key bytes.
    #[must_use]
    pub const fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// Wraps a tenant's secret for storage.
    pub fn wrap(
        &self,
        tenant: &str,
        secret: &[u8; TENANT_SECRET_BYTES],
        random: &dyn Random,
    ) -> Result<Vec<u8>, SealError> {
        encrypt(&self.0, secret, &context("chopmark/tenant-secret/v1", &[tenant.as_bytes()]), random)
    }

    /// Opens what [`Self::wrap`] made for the same tenant.
    pub fn unwrap(&self, tenant: &str, wrapped: &[u8]) -> Result<Zeroizing<[u8; TENANT_SECRET_BYTES]>, SealError> {
        let plain = decrypt(&self.0, wrapped, &context("chopmark/tenant-secret/v1", &[tenant.as_bytes()]))?;
        let secret: [u8; TENANT_SECRET_BYTES] = plain.as_slice().try_into().map_err(|_| SealError::Open)?;
        Ok(Zeroizing::new(secret))
    }

    /// Wraps the secret that signs a tenant's webhooks to one endpoint.
    pub fn wrap_webhook_secret(
        &self,
        tenant: &str,
        endpoint: &ResourceKey,
        secret: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, SealError> {
        encrypt(&self.0, secret, &webhook_context(tenant, endpoint), random)
    }

    /// Opens what [`Self::wrap_webhook_secret`] made for the same endpoint.
    pub fn unwrap_webhook_secret(
        &self,
        tenant: &str,
        endpoint: &ResourceKey,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        decrypt(&self.0, wrapped, &webhook_context(tenant, endpoint))
    }
}

impl std::fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyEncryptionKey(…)")
    }
}

/// Seals the private part of one attempt at an operation. It opens only for the same tenant,
/// operation and operation bytes.
pub fn seal(
    tenant: &Tenant,
    op: &Hash32,
    operation_hash: &Hash32,
    plain: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    let context = private_context(tenant, op, operation_hash);
    let mut data_key = Zeroizing::new([0_u8; 32]);
    random.fill(data_key.as_mut())?;
    let mut out = vec![VERSION];
    out.extend(encrypt(tenant.data_key(), data_key.as_ref(), &context, random)?);
    out.extend(encrypt(&data_key, plain, &context, random)?);
    Ok(out)
}

/// Opens what [`seal`] made.
pub fn open(
    tenant: &Tenant,
    op: &Hash32,
    operation_hash: &Hash32,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let context = private_context(tenant, op, operation_hash);
    let (version, rest) = sealed.split_first().ok_or(SealError::Open)?;
    let (wrapped, body) = rest.split_at_checked(WRAPPED_BYTES).ok_or(SealError::Open)?;
    if *version != VERSION {
        return Err(SealError::Open);
    }
    let data_key = decrypt(tenant.data_key(), wrapped, &context)?;
    let data_key: [u8; 32] = data_key.as_slice().try_into().map_err(|_| SealError::Open)?;
    decrypt(&Zeroizing::new(data_key), body, &context)
}

fn private_context(tenant: &Tenant, op: &Hash32, operation_hash: &Hash32) -> Vec<u8> {
    context("chopmark/sealed-private/v1", &[tenant.id().as_bytes(), &op.0, &operation_hash.0])
}

fn webhook_context(tenant: &str, endpoint: &ResourceKey) -> Vec<u8> {
    context("chopmark/webhook-secret/v1", &[tenant.as_bytes(), &endpoint.0])
}

fn context(domain: &str, fields: &[&[u8]]) -> Vec<u8> {
    ledger_core::hash::signing_message(domain, fields)
}

fn encrypt(key: &[u8; 32], plain: &[u8], aad: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0_u8; NONCE_BYTES];
    random.fill(&mut nonce)?;
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key));
    let body = cipher.encrypt(&Nonce::from(nonce), Payload { msg: plain, aad }).map_err(|_| SealError::Open)?;
    Ok([&nonce[..], &body].concat())
}

fn decrypt(key: &[u8; 32], sealed: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Open)?;
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key));
    let plain = cipher.decrypt(&Nonce::from(*nonce), Payload { msg: body, aad }).map_err(|_| SealError::Open)?;
    Ok(Zeroizing::new(plain))
}

#[cfg(test)]
mod tests {
    use hmac::{Mac as _, SimpleHmac};

    use super::*;

    #[test]
    fn keyed_hashes_are_hmac() {
        for key in [vec![], vec![7; 32], vec![1; BLOCK_BYTES], vec![9; BLOCK_BYTES + 1], vec![3; 1000]] {
            let cases: [&[&[u8]]; 4] = [&[], &[b"a"], &[b"", b"bc"], &[&[5; 500]]];
            for fields in cases {
                let mut mac = SimpleHmac::<Sha3_256>::new_from_slice(&key).unwrap();
                for field in fields {
                    mac.update(&u32::try_from(field.len()).unwrap().to_be_bytes());
                    mac.update(field);
                }
                assert_eq!(keyed_hash(&key, fields).0, <[u8; 32]>::from(mac.finalize().into_bytes()));
            }
        }
    }
}
