//! Resource ids: derived from the operation id, never drawn, and recognisable as our own.
//!
//! `prefix_` and the lower-case base32 of 16 bytes of hash and an 8-byte keyed tag. The hash is
//! the same for every prefix, so an evidence id names its operation's id too; the tag depends on
//! prefix and tenant, so an id works only as what it was issued as, and for its tenant. The tags
//! of all prefixes are parts of one keyed hash, because most answers carry two ids.

use data_encoding::{Encoding, Specification};
use ledger_core::hash::{Hash32, tagged};
use std::sync::LazyLock;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::seal::KeyedHasher;

const TAG_BYTES: usize = 8;

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding().expect("a valid base32 alphabet")
});

/// Lower-case base32 (RFC 4648 alphabet) without padding.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    BASE32.encode(bytes)
}

/// The bytes of an id.
pub const ID_BYTES: usize = 16 + TAG_BYTES;

/// Reads what [`base32`] wrote, in its one canonical spelling.
#[must_use]
pub fn base32_decode(text: &str) -> Option<Vec<u8>> {
    BASE32.decode(text.as_bytes()).ok()
}

/// The hash part of an id: names one operation, or one item of it, in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey(pub [u8; 16]);

impl ResourceKey {
    /// Key of item `item` of an operation; single operations have item 0.
    #[must_use]
    pub fn of(op: &Hash32, item: u32) -> Self {
        let hash = tagged("chopmark/resource/v1", &[&op.0, &item.to_be_bytes()]);
        let mut key = [0; 16];
        key.copy_from_slice(&hash.0[..16]);
        Self(key)
    }
}

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// `evd_`
    Evidence,
    /// `opn_`
    Operation,
    /// `cas_`
    Case,
    /// `whe_`
    Endpoint,
    /// `evt_`
    Event,
    /// `dlv_`
    Delivery,
}

impl IdKind {
    /// The prefix without the underscore.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Evidence => "evd",
            Self::Operation => "opn",
            Self::Case => "cas",
            Self::Endpoint => "whe",
            Self::Event => "evt",
            Self::Delivery => "dlv",
        }
    }

    /// Where the kind's tag stands in the keyed hash.
    const fn tag_at(self) -> usize {
        match self {
            Self::Evidence => 0,
            Self::Operation => TAG_BYTES,
            Self::Case => 2 * TAG_BYTES,
            // Their keys are hashes of different domains, so that no key is that of another kind.
            Self::Endpoint | Self::Event | Self::Delivery => 3 * TAG_BYTES,
        }
    }
}

/// Issues and recognises ids.
#[derive(Clone)]
pub struct IdIssuer {
    hasher: KeyedHasher,
    #[cfg(feature = "unfiltered")]
    is_credulous: bool,
}

/// The ids of one resource, in any kind.
#[derive(Debug, Clone, Copy)]
pub struct Issued {
    key: ResourceKey,
    tags: Hash32,
}

impl Issued {
    /// Bytes of the id as `kind`.
    #[must_use]
    pub fn bytes(&self, kind: IdKind) -> [u8; ID_BYTES] {
        let mut bytes = [0_u8; ID_BYTES];
        bytes[..16].copy_from_slice(&self.key.0);
        bytes[16..].copy_from_slice(&self.tags.0[kind.tag_at()..][..TAG_BYTES]);
        bytes
    }
}

impl IdIssuer {
    /// Every gateway of a deployment has the same key. An id is of one network: where both are served, one of
    /// the other's is no id at all.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the caller's copy of the key ends here")]
    pub fn new(key: Zeroizing<[u8; 32]>, network: &str) -> Self {
        let of_network = KeyedHasher::new(key.as_ref()).hash(&[b"network", network.as_bytes()]);
        Self {
            hasher: KeyedHasher::new(&of_network.0),
            #[cfg(feature = "unfiltered")]
            is_credulous: false,
        }
    }

    /// One that takes every id and every cursor for the caller's own, whatever its tag says. For the test
    /// that shows what row-level security holds back by itself, and nothing else (ADR 0023).
    #[cfg(feature = "unfiltered")]
    #[must_use]
    pub fn credulous(key: Zeroizing<[u8; 32]>, network: &str) -> Self {
        Self { is_credulous: true, ..Self::new(key, network) }
    }

    /// Whether tags are not looked at: never, but in that one test.
    #[cfg(feature = "unfiltered")]
    pub(crate) const fn is_credulous(&self) -> bool {
        self.is_credulous
    }

    /// Whether tags are not looked at: never, but in that one test.
    #[cfg(not(feature = "unfiltered"))]
    pub(crate) const fn is_credulous(&self) -> bool {
        false
    }

    /// The ids of `key` for `tenant`.
    #[must_use]
    pub fn ids(&self, tenant: &str, key: &ResourceKey) -> Issued {
        Issued { key: *key, tags: self.hasher.hash(&[b"id", tenant.as_bytes(), &key.0]) }
    }

    /// The id of `key` as `kind`, for `tenant`.
    #[must_use]
    pub fn issue(&self, kind: IdKind, tenant: &str, key: &ResourceKey) -> String {
        format!("{}_{}", kind.prefix(), base32(&self.ids(tenant, key).bytes(kind)))
    }

    /// The key in an id that this deployment issued as `kind` to `tenant`; else `None`.
    #[must_use]
    pub fn recognise(&self, kind: IdKind, tenant: &str, id: &str) -> Option<ResourceKey> {
        let body = id.strip_prefix(kind.prefix())?.strip_prefix('_')?;
        self.recognise_bytes(kind, tenant, &base32_decode(body)?.try_into().ok()?)
    }

    /// As [`Self::recognise`], of an id that is taken apart already.
    #[must_use]
    pub fn recognise_bytes(&self, kind: IdKind, tenant: &str, id: &[u8; ID_BYTES]) -> Option<ResourceKey> {
        let (key, _) = id.split_first_chunk::<16>()?;
        let key = ResourceKey(*key);
        (bool::from(self.ids(tenant, &key).bytes(kind).ct_eq(id)) || self.is_credulous()).then_some(key)
    }

    /// Seals what a cursor says: only we can have issued it.
    pub(crate) fn cursor_tag(&self, scope: &[&[u8]]) -> Hash32 {
        let fields: Vec<&[u8]> = std::iter::once(&b"cursor"[..]).chain(scope.iter().copied()).collect();
        self.hasher.hash(&fields)
    }
}

impl std::fmt::Debug for IdIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdIssuer(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_work_only_as_what_they_were_issued_as() {
        let issuer = IdIssuer::new(Zeroizing::new([7; 32]), "sandbox");
        let key = ResourceKey::of(&Hash32([1; 32]), 0);
        let id = issuer.issue(IdKind::Evidence, "ten_a", &key);
        assert_eq!(id.len(), 43);
        assert_eq!(issuer.recognise(IdKind::Evidence, "ten_a", &id), Some(key));
        assert_eq!(issuer.recognise(IdKind::Evidence, "ten_b", &id), None);
        assert_eq!(issuer.recognise(IdKind::Operation, "ten_a", &id.replace("evd_", "opn_")), None);
        for other in
            [(8, "sandbox"), (7, "live")].map(|(key, network)| IdIssuer::new(Zeroizing::new([key; 32]), network))
        {
            assert_eq!(other.recognise(IdKind::Evidence, "ten_a", &id), None);
        }
        for kind in [IdKind::Evidence, IdKind::Operation, IdKind::Case] {
            let bytes = issuer.ids("ten_a", &key).bytes(kind);
            assert_eq!(issuer.issue(kind, "ten_a", &key), format!("{}_{}", kind.prefix(), base32(&bytes)));
            let forged = bytes.map(|byte| byte ^ 1);
            assert_eq!(issuer.recognise_bytes(kind, "ten_a", &forged), None);
        }
    }
}
