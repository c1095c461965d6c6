//! Operations: requested changes, as canonical JSON bytes.
//!
//! Fields of every type are declared in key order, so that serialising is canonical. A caller
//! chooses `op` (the operation id) and `request` (a keyed digest of what was asked), so that a
//! repeat can be told from another request under the same id.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::{
    codec::{DecodeError, Reader, Writer},
    digests::Digests,
    hash::{Hash32, signing_message, tagged},
    json::{INTEGER_MAX, JsonError, from_canonical, to_canonical},
    member::MemberSet,
    policy::Policy,
};

/// Largest operation; its entry is never larger than [`crate::entry::ENTRY_BYTES_MAX`].
pub const OPERATION_BYTES_MAX: usize = 15 * 1024;
/// Signatures that one operation may carry: a quorum of the largest consortium, and a tenant's.
pub const OPERATION_SIGNATURES_MAX: usize = 32;
/// Longest media type (RFC 6838: 127 characters either side; real ones stay below this).
pub const MEDIA_TYPE_BYTES_MAX: usize = 127;

/// The number 1: the format version of every record frozen with the first release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct V1;

impl Serialize for V1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(1)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(de::Error::invalid_value(de::Unexpected::Unsigned(other), &"version 1")),
        }
    }
}

/// Reads an integer that stays below 2^53.
pub(crate) fn integer53<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number > INTEGER_MAX {
        return Err(de::Error::invalid_value(de::Unexpected::Unsigned(number), &"an integer below 2^53"));
    }
    Ok(number)
}

/// Reads an optional integer that stays below 2^53.
pub(crate) fn integer53_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    integer53(deserializer).map(Some)
}

/// The types of operations that this version executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OperationType {
    /// Appends evidence to a case.
    #[serde(rename = "case.append")]
    CaseAppend,
    /// Opens a case.
    #[serde(rename = "case.open")]
    CaseOpen,
    /// Records evidence.
    #[serde(rename = "evidence")]
    Evidence,
    /// Replaces the member set.
    #[serde(rename = "members.set")]
    MembersSet,
    /// Replaces the policy.
    #[serde(rename = "policy.set")]
    PolicySet,
    /// Adds digests to evidence.
    #[serde(rename = "redigest")]
    Redigest,
    /// Registers or changes a tenant.
    #[serde(rename = "tenant.set")]
    TenantSet,
}

impl OperationType {
    /// Every type with its stable number in state values.
    pub const NUMBERS: [(Self, u8); 7] = [
        (Self::Evidence, 1),
        (Self::Redigest, 2),
        (Self::CaseOpen, 3),
        (Self::CaseAppend, 4),
        (Self::TenantSet, 5),
        (Self::MembersSet, 6),
        (Self::PolicySet, 7),
    ];

    /// Stable number of this type.
    #[must_use]
    pub fn number(self) -> u8 {
        Self::NUMBERS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }

    /// Type of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::NUMBERS.iter().find(|(_, known)| *known == number).map(|(kind, _)| *kind)
    }
}

macro_rules! operations {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        )*

        /// A parsed operation.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is the type of the same name")]
        pub enum Operation { $($name(Box<$name>),)* }

        impl Operation {
            /// The common fields.
            #[must_use]
            pub fn common(&self) -> Common {
                match self {
                    $(Self::$name(o) => Common { chain: o.chain, op: o.op, request: o.request, kind: o.kind },)*
                }
            }

            /// Canonical bytes.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Self::$name(o) => to_canonical(o.as_ref()),)* }
            }

            fn parse_as(kind: OperationType, bytes: &[u8]) -> Result<Self, JsonError> {
                match kind { $(OperationType::$name => Ok(Self::$name(Box::new(from_canonical(bytes)?))),)* }
            }
        }
    };
}

operations! {
    /// Records evidence: either `digests` (with `size` and `media_type` at will) or, for
    /// confidential evidence, only `commitment`.
    Evidence {
        /// Chain id.
        chain: Hash32,
        /// Commitment to an [`crate::commitment::EvidenceOpening`].
        #[serde(skip_serializing_if = "Option::is_none", default)]
        commitment: Option<Digests>,
        /// Digests of the file.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        digests: Option<Digests>,
        /// Media type of the file (RFC 6838), lower-case.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        media_type: Option<String>,
        /// Operation id.
        op: Hash32,
        /// Commitment to the private part.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        private: Option<Digests>,
        /// Keyed digest of the request.
        request: Hash32,
        /// Bytes of the file.
        #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "integer53_option")]
        size: Option<u64>,
        /// Tenant id.
        tenant: String,
        /// Type.
        #[serde(rename = "type")]
        kind: OperationType,
        /// Version.
        v: V1,
    }
    /// Adds digests of the same file to evidence, while an old digest still stands.
    Redigest {
        /// Chain id.
        chain: Hash32,
        /// The added digests.
        digests: Digests,
        /// Operation id of the evidence.
        evidence: Hash32,
        /// Operation id.
        op: Hash32,
        /// Keyed digest of the request.
        request: Hash32,
        /// Tenant id.
        tenant: String,
        /// Type.
        #[serde(rename = "type")]
        kind: OperationType,
        /// Version.
        v: V1,
    }
    /// Opens a case: an ordered chain of evidence, named by this operation's id.
    CaseOpen {
        /// Chain id.
        chain: Hash32,
        /// Operation id.
        op: Hash32,
        /// Commitment to the private part.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        private: Option<Digests>,
        /// Keyed digest of the request.
        request: Hash32,
        /// Tenant id.
        tenant: String,
        /// Type.
        #[serde(rename = "type")]
        kind: OperationType,
        /// Version.
        v: V1,
    }
    /// Appends committed evidence to a case; the predecessor is assigned by the ledger.
    CaseAppend {
        /// Operation id of the case.
        case: Hash32,
        /// Chain id.
        chain: Hash32,
        /// Operation id of the evidence.
        evidence: Hash32,
        /// Operation id.
        op: Hash32,
        /// Keyed digest of the request.
        request: Hash32,
        /// Tenant id.
        tenant: String,
        /// Type.
        #[serde(rename = "type")]
        kind: OperationType,
        /// Version.
        v: V1,
    }
    /// Registers a tenant or replaces its record. Whatever widens what it may do (a new tenant
    /// above tier 1, a higher tier, reactivation, another key) needs a quorum of members.
    TenantSet {
        /// Chain id.
        chain: Hash32,
        /// Last height at which this change may execute.
        #[serde(deserialize_with = "integer53")]
        expires: u64,
        /// The tenant's own Ed25519 key; once set, it must sign the tenant's operations.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        key: Option<Hash32>,
        /// Operation id.
        op: Hash32,
        /// Hash of the state replaced ([`state_hash`]); zeros for a new tenant.
        replaces: Hash32,
        /// Keyed digest of the request.
        request: Hash32,
        /// Whether the tenant may act.
        status: TenantStatus,
        /// Tenant id.
        tenant: String,
        /// Risk tier, 1 to 3.
        tier: u8,
        /// Type.
        #[serde(rename = "type")]
        kind: OperationType,
        /// Version.
        v: V1,
    }
    /// Replaces the member set, two heights after the block it stands in.
    MembersSet {
        /// Chain id.
        chain: Hash32,
        /// Last height at which this change may execute.
        #[serde(deserialize_with = "integer53")]
        expires: u64,
        /// The new members.
        members: MemberSet,
        /// Operation id.
        op: Hash32,
        /// Hash of the member set replaced.
        replaces: Hash32,
        /// Keyed digest of the request.
        request: Hash32,
        /// Type.
        #[serde(rename = "type")]
        kind: OperationType,
        /// Version.
        v: V1,
    }
    /// Replaces the policy.
    PolicySet {
        /// Chain id.
        chain: Hash32,
        /// Last height at which this change may execute.
        #[serde(deserialize_with = "integer53")]
        expires: u64,
        /// Operation id.
        op: Hash32,
        /// The new policy.
        policy: Policy,
        /// Hash of the policy replaced ([`state_hash`]).
        replaces: Hash32,
        /// Keyed digest of the request.
        request: Hash32,
        /// Type.
        #[serde(rename = "type")]
        kind: OperationType,
        /// Version.
        v: V1,
    }
}

/// Whether a tenant may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// It may.
    Active,
    /// Its operations are rejected.
    Suspended,
}

/// What every operation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Common {
    /// Chain id.
    pub chain: Hash32,
    /// Operation id.
    pub op: Hash32,
    /// Keyed digest of the request.
    pub request: Hash32,
    /// Type.
    pub kind: OperationType,
}

/// Why bytes are not an operation.
#[derive(Debug, Error)]
pub enum OperationError {
    /// Larger than [`OPERATION_BYTES_MAX`].
    #[error("operation is larger than {OPERATION_BYTES_MAX} bytes")]
    TooLarge,
    /// Not the canonical form of a known type.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field's value is outside its rules.
    #[error("operation field {0} is not valid")]
    Field(&'static str),
}

/// The type where `"type":…,"v":1}` ends the bytes.
fn type_at_end(bytes: &[u8]) -> Option<TypeOnly> {
    const LONGEST: usize = 48;
    let end = &bytes[bytes.len().saturating_sub(LONGEST)..];
    let at = end.windows(8).rposition(|window| window == b",\"type\":")?;
    let mut object = vec![b'{'];
    object.extend_from_slice(&end[at + 1..]);
    serde_json::from_slice(&object).ok()
}

#[derive(Deserialize)]
struct TypeOnly {
    #[serde(rename = "type")]
    kind: OperationType,
}

impl Operation {
    /// Reads canonical bytes and checks every rule that needs no state.
    pub fn parse(bytes: &[u8]) -> Result<Self, OperationError> {
        if bytes.len() > OPERATION_BYTES_MAX {
            return Err(OperationError::TooLarge);
        }
        // Keys are sorted, so canonical bytes end in type and version: there the type is read
        // without reading the rest twice. Bytes that end otherwise are refused below with a reason.
        let TypeOnly { kind } = match type_at_end(bytes) {
            Some(found) => found,
            None => serde_json::from_slice(bytes).map_err(JsonError::from)?,
        };
        let operation = Self::parse_as(kind, bytes)?;
        if operation.common().kind != kind {
            return Err(OperationError::Field("type"));
        }
        operation.check_fields()?;
        Ok(operation)
    }

    fn check_fields(&self) -> Result<(), OperationError> {
        let check = |valid: bool, field: &'static str| if valid { Ok(()) } else { Err(OperationError::Field(field)) };
        match self {
            Self::Evidence(o) => {
                check(is_tenant_id(&o.tenant), "tenant")?;
                check(o.digests.is_some() != o.commitment.is_some(), "digests")?;
                check(o.digests.as_ref().is_none_or(|digests| !digests.is_empty()), "digests")?;
                check(o.commitment.as_ref().is_none_or(|digests| !digests.is_empty()), "commitment")?;
                check(o.private.as_ref().is_none_or(|digests| !digests.is_empty()), "private")?;
                check(o.commitment.is_none() || (o.size.is_none() && o.media_type.is_none()), "commitment")?;
                check(o.media_type.as_deref().is_none_or(is_media_type), "media_type")
            }
            Self::Redigest(o) => {
                check(is_tenant_id(&o.tenant), "tenant")?;
                check(!o.digests.is_empty(), "digests")
            }
            Self::CaseOpen(o) => {
                check(is_tenant_id(&o.tenant), "tenant")?;
                check(o.private.as_ref().is_none_or(|digests| !digests.is_empty()), "private")
            }
            Self::CaseAppend(o) => check(is_tenant_id(&o.tenant), "tenant"),
            Self::TenantSet(o) => {
                check(is_tenant_id(&o.tenant), "tenant")?;
                check((1..=3).contains(&o.tier), "tier")
            }
            Self::MembersSet(_) => Ok(()),
            Self::PolicySet(o) => check(o.policy.is_valid(), "policy"),
        }
    }

    /// The tenant whose operation this is; governance has none.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Evidence(o) => Some(&o.tenant),
            Self::Redigest(o) => Some(&o.tenant),
            Self::CaseOpen(o) => Some(&o.tenant),
            Self::CaseAppend(o) => Some(&o.tenant),
            Self::TenantSet(_) | Self::MembersSet(_) | Self::PolicySet(_) => None,
        }
    }
}

/// Tenant ids: `ten_` and 1 to 60 of `a-z 0-9`; opaque by rule, public by nature.
#[must_use]
pub fn is_tenant_id(text: &str) -> bool {
    text.strip_prefix("ten_").is_some_and(|rest| {
        (1..=60).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// Media types: `type/subtype` of RFC 6838 restricted names, lower-case, no parameters.
#[must_use]
pub fn is_media_type(text: &str) -> bool {
    const TOP_LEVEL: [&str; 10] =
        ["application", "audio", "font", "haptics", "image", "message", "model", "multipart", "text", "video"];
    let Some((top, sub)) = text.split_once('/') else { return false };
    let restricted = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'&' | b'-' | b'^' | b'_' | b'.' | b'+');
    text.len() <= MEDIA_TYPE_BYTES_MAX
        && TOP_LEVEL.contains(&top)
        && sub.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && sub.bytes().all(restricted)
}

/// Hash of operation bytes: what private rows are keyed by. Submissions sign
/// [`SignedOperation::hash`].
#[must_use]
pub fn operation_hash(bytes: &[u8]) -> Hash32 {
    tagged("chopmark/operation/v1", &[bytes])
}

/// Hash of a state value that a governance change replaces; zeros where there is none.
#[must_use]
pub fn state_hash(value: Option<&[u8]>) -> Hash32 {
    value.map_or(Hash32::ZERO, |value| tagged("chopmark/state/v1", &[value]))
}

/// What a tenant's registered key signs.
#[must_use]
pub fn tenant_message(chain: &Hash32, operation: &[u8]) -> Vec<u8> {
    signing_message("chopmark/tenant-operation/v1", &[&chain.0, operation])
}

/// What a member's governance key signs to approve a change.
#[must_use]
pub fn approval_message(chain: &Hash32, operation: &[u8]) -> Vec<u8> {
    signing_message("chopmark/approval/v1", &[&chain.0, operation])
}

/// A signature that travels with one operation: a tenant's or an approving member's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationSignature {
    /// Ed25519 public key.
    pub key: Hash32,
    /// Ed25519 signature.
    pub signature: [u8; 64],
}

/// An operation with its signatures, as a submission carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOperation {
    /// Canonical operation bytes.
    pub operation: Vec<u8>,
    /// Signatures by the tenant or by approving members.
    pub signatures: Vec<OperationSignature>,
}

impl SignedOperation {
    /// An operation that needs no signature of its own.
    #[must_use]
    pub const fn unsigned(operation: Vec<u8>) -> Self {
        Self { operation, signatures: Vec::new() }
    }

    /// Hash over the operation and its signatures in their order.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let mut signatures = Writer::new();
        self.signatures_into(&mut signatures);
        tagged("chopmark/signed-operation/v1", &[&self.operation, signatures.as_slice()])
    }

    fn signatures_into(&self, writer: &mut Writer) {
        for signature in &self.signatures {
            writer.fixed(&signature.key.0).fixed(&signature.signature);
        }
    }

    pub(crate) fn encode_into(&self, writer: &mut Writer) {
        self.signatures_into(writer.bytes(&self.operation).count(self.signatures.len()));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let operation = reader.bytes(OPERATION_BYTES_MAX)?.to_vec();
        let mut signatures = Vec::new();
        for _ in 0..reader.count(OPERATION_SIGNATURES_MAX)? {
            signatures.push(OperationSignature { key: Hash32(reader.array()?), signature: reader.array()? });
        }
        Ok(Self { operation, signatures })
    }
}
