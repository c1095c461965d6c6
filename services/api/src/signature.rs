//! Signatures of requests, as they are kept with records.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::Hash32;

/// The signature of the request that made a record (RFC 9421). To verify it: the
/// signature holds under the public key over the bytes of `signature_base`, whose
/// line `"content-digest"` has the SHA-256 of the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmitterSignatureView {
    /// By its name in the registry of RFC 9421.
    #[schema(example = "ed25519")]
    pub algorithm: String,
    /// Id of the signing key.
    #[schema(example = "sgk_0123456789abcdef01234567")]
    pub key_id: String,
    /// The 32 bytes of the public key (RFC 8032), hex.
    pub public_key: Hash32,
    /// The 64 bytes of the signature, hex.
    #[schema(min_length = 128, max_length = 128, pattern = "^[0-9a-f]{128}$")]
    pub signature: String,
    /// Exactly what was signed (RFC 9421, section 2.5): ASCII, lines parted by a line feed.
    pub signature_base: String,
    /// The exact body, UTF-8. Absent where it is longer than 16 KiB, is that of a
    /// form with a file, is of a batch whose copies would take more than 64 KiB,
    /// or does not fit beside the record's own private part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body: Option<String>,
    /// Length of the body in bytes, kept or not.
    #[schema(example = 312)]
    pub body_bytes: u64,
    /// Position of the record in the batch that was signed, from zero on; absent
    /// where the request was for one record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 0)]
    pub item: Option<u64>,
}
