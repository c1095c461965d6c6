//! Evidence: what a platform sends to have a file recorded, and what it reads
//! back. Files travel as digests; the file call computes them here.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::{Algorithm, Hash32};
use crate::ids::EvidenceId;
use crate::ledger::{BlockView, CheckpointView, EntryRef};
use crate::limits::{
    self, BATCH_BODY_BYTES_MAX, BATCH_ITEMS_MAX, EXTERNAL_ID_CHARS_MAX, PROVENANCE_CHARS_MAX,
    PROVENANCE_TEXT_CHARS_MAX, SIZE_MAX, TITLE_CHARS_MAX,
};
use crate::operation::{OperationRef, OperationState};
use crate::problem::ProblemBody;
use crate::request::{ArrayShape, Request, request};
use crate::signature::SubmitterSignatureView;
use crate::time::Timestamp;
use crate::warning::{Warning, WarningCode};

use crate::request::Shape;

const DIGEST: Shape = Shape::Text(limits::digest);
const SIZE: Shape = Shape::Integer { max: SIZE_MAX };
const MEDIA_TYPE: Shape = Shape::Text(limits::media_type);
const TITLE: Shape = Shape::Text(limits::line::<TITLE_CHARS_MAX>);
const EXTERNAL_ID: Shape = Shape::Text(limits::line::<EXTERNAL_ID_CHARS_MAX>);
const IDEMPOTENCY_KEY: Shape = Shape::Text(limits::idempotency_key);
const NOTE: Shape = Shape::Text(limits::line::<PROVENANCE_CHARS_MAX>);
const LONG_NOTE: Shape = Shape::Text(limits::lines::<PROVENANCE_TEXT_CHARS_MAX>);
const MOMENT: Shape = Shape::Text(limits::moment);

/// A file smaller than this is warned about unless confidential: short contents
/// can be found by trying, given their digest.
const GUESSABLE_SIZE_END: u64 = 64;

request! {
    /// Digests of one file: at least one, two of different families are better,
    /// since a record outlives the hash it rests on only by another.
    #[derive(Default)]
    #[schema(example = json!({
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    }))]
    pub struct Digests {
        unknown DigestAlgorithmUnknown;
        needs_one DigestMissing;
        required {}
        optional {
            /// SHA-256 (FIPS 180-4).
            "sha256" sha256: Hash32 = DIGEST;
            /// SHA3-256 (FIPS 202).
            "sha3-256" sha3_256: Hash32 = DIGEST;
            /// SM3 (GB/T 32905).
            "sm3" sm3: Hash32 = DIGEST;
        }
    }
}

impl Digests {
    #[must_use]
    pub fn get(&self, algorithm: Algorithm) -> Option<Hash32> {
        match algorithm {
            Algorithm::Sha256 => self.sha256,
            Algorithm::Sha3_256 => self.sha3_256,
            Algorithm::Sm3 => self.sm3,
        }
    }

    /// The digests that are there, in the order of the algorithms.
    pub fn iter(&self) -> impl Iterator<Item = (Algorithm, Hash32)> + '_ {
        Algorithm::ALL.into_iter().filter_map(|algorithm| Some((algorithm, self.get(algorithm)?)))
    }
}

request! {
    /// How the evidence was obtained before it reached the ledger. Private: it is
    /// sealed at the gateway, and only its commitment goes on the ledger.
    #[derive(Default)]
    pub struct Provenance {
        required {}
        optional {
            /// Where the content came from: an address, a person, a channel.
            #[schema(max_length = 256, example = "https://example.com/listing/42")]
            "source" source: String = NOTE;
            /// The device that captured it.
            #[schema(max_length = 256, example = "iPhone 17, serial on file")]
            "device" device: String = NOTE;
            /// The application that captured it.
            #[schema(max_length = 256, example = "Example Capture 4.2")]
            "application" application: String = NOTE;
            /// Who operated the device.
            #[schema(max_length = 256, example = "notary clerk 7")]
            "operator" operator: String = NOTE;
            /// How it was captured.
            #[schema(max_length = 256, example = "screen recording")]
            "method" method: String = NOTE;
            /// When it was captured, by the device's clock (RFC 3339).
            #[schema(format = DateTime, example = "2026-11-22T08:00:00.000Z")]
            "captured_at" captured_at: String = MOMENT;
            /// What that clock was set by, and how far off it was.
            #[schema(max_length = 256, example = "ntp.ntsc.ac.cn, offset 12 ms")]
            "time_source" time_source: String = NOTE;
            /// What was checked before the capture: network, proxies, clean state.
            #[schema(max_length = 2000, example = "no proxy; hosts file default; virus scan clean")]
            "environment_checks" environment_checks: String = LONG_NOTE;
            /// The tool that computed the digests, with its version.
            #[schema(max_length = 256, example = "chopmark 0.1.0")]
            "tool_version" tool_version: String = NOTE;
            /// Anything else that a court should know.
            #[schema(max_length = 2000)]
            "notes" notes: String = LONG_NOTE;
        }
    }
}

request! {
    /// One file to be recorded by its digests.
    pub struct EvidenceRequest {
        required {
            /// Digests of the file.
            "digests" digests: Digests = Digests::SHAPE, else DigestMissing;
        }
        optional {
            /// Size of the file in bytes.
            #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 48213)]
            "size" size: u64 = SIZE;
            /// Media type of the file, lower case, without parameters (RFC 6838).
            #[schema(max_length = 127, example = "application/pdf")]
            "media_type" media_type: String = MEDIA_TYPE;
            /// A name for people; never on the ledger.
            #[schema(max_length = 256, example = "Lease agreement, signed")]
            "title" title: String = TITLE;
            /// Put only salted commitments on the ledger. Choose it for documents
            /// whose contents could be guessed; they are then not found by digest.
            "confidential" confidential: bool = Shape::Boolean;
            /// How the evidence was obtained; never on the ledger in plain text.
            "provenance" provenance: Box<Provenance> = Provenance::SHAPE;
            /// Your own identifier, to find the record by; never on the ledger.
            #[schema(max_length = 128, example = "order-2026-0017")]
            "external_id" external_id: String = EXTERNAL_ID;
        }
    }
}

request! {
    /// One file of a batch: an evidence request with its own idempotency key.
    pub struct EvidenceBatchItem {
        required {
            /// Names this item's operation; repeat it when you retry.
            #[schema(min_length = 1, max_length = 255, example = "order-2026-0017")]
            "idempotency_key" idempotency_key: String = IDEMPOTENCY_KEY, else IdempotencyKeyMissing;
            /// Digests of the file.
            "digests" digests: Digests = Digests::SHAPE, else DigestMissing;
        }
        optional {
            /// Size of the file in bytes.
            #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 48213)]
            "size" size: u64 = SIZE;
            /// Media type of the file, lower case, without parameters (RFC 6838).
            #[schema(max_length = 127, example = "application/pdf")]
            "media_type" media_type: String = MEDIA_TYPE;
            /// A name for people; never on the ledger.
            #[schema(max_length = 256, example = "Lease agreement, signed")]
            "title" title: String = TITLE;
            /// Put only salted commitments on the ledger.
            "confidential" confidential: bool = Shape::Boolean;
            /// How the evidence was obtained; never on the ledger in plain text.
            "provenance" provenance: Box<Provenance> = Provenance::SHAPE;
            /// Your own identifier, to find the record by; never on the ledger.
            #[schema(max_length = 128, example = "order-2026-0017")]
            "external_id" external_id: String = EXTERNAL_ID;
        }
    }
}

impl EvidenceBatchItem {
    /// The item's idempotency key and the request it stands for.
    #[must_use]
    pub fn into_parts(self) -> (String, EvidenceRequest) {
        let request = EvidenceRequest {
            digests: self.digests,
            size: self.size,
            media_type: self.media_type,
            title: self.title,
            confidential: self.confidential,
            provenance: self.provenance,
            external_id: self.external_id,
        };
        (self.idempotency_key, request.normalized())
    }
}

static BATCH_ITEMS: ArrayShape = ArrayShape {
    item: EvidenceBatchItem::SHAPE,
    items_max: BATCH_ITEMS_MAX,
    empty: crate::problem::ProblemCode::BatchEmpty,
    over: crate::problem::ProblemCode::BatchTooLarge,
};

request! {
    /// Many files in one call; each is idempotent on its own.
    pub struct EvidenceBatchRequest {
        body_bytes_max BATCH_BODY_BYTES_MAX;
        required {
            /// 1 to 1000 items.
            #[schema(min_items = 1, max_items = 1000)]
            "items" items: Vec<EvidenceBatchItem> = Shape::Array(&BATCH_ITEMS), else FieldMissing;
        }
        optional {}
    }
}

request! {
    /// The part `metadata` of the file call: all that an evidence request says,
    /// except that the server computes the digests.
    #[derive(Default)]
    pub struct FileMetadata {
        required {}
        optional {
            /// Digests that the file must have; it is refused when one differs.
            "digests" digests: Digests = Digests::SHAPE;
            /// Size that the file must have; it is refused when it differs.
            #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 48213)]
            "size" size: u64 = SIZE;
            /// Media type of the file, lower case, without parameters (RFC 6838).
            #[schema(max_length = 127, example = "application/pdf")]
            "media_type" media_type: String = MEDIA_TYPE;
            /// A name for people; never on the ledger.
            #[schema(max_length = 256, example = "Lease agreement, signed")]
            "title" title: String = TITLE;
            /// Put only salted commitments on the ledger.
            "confidential" confidential: bool = Shape::Boolean;
            /// How the evidence was obtained; never on the ledger in plain text.
            "provenance" provenance: Box<Provenance> = Provenance::SHAPE;
            /// Your own identifier, to find the record by; never on the ledger.
            #[schema(max_length = 128, example = "order-2026-0017")]
            "external_id" external_id: String = EXTERNAL_ID;
            /// Keep the original in the object store. Without it no original is kept.
            "retain" retain: bool = Shape::Boolean;
        }
    }
}

impl FileMetadata {
    /// The evidence request for the file that was received.
    #[must_use]
    pub fn into_request(self, digests: Digests, size: u64) -> EvidenceRequest {
        EvidenceRequest {
            digests,
            size: Some(size),
            media_type: self.media_type,
            title: self.title,
            confidential: self.confidential,
            provenance: self.provenance,
            external_id: self.external_id,
        }
        .normalized()
    }
}

impl EvidenceRequest {
    /// The request with what says nothing left out, so that two requests of one
    /// meaning are equal; to be called before requests are compared or digested.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.confidential = self.confidential.filter(|confidential| *confidential);
        self.provenance = self.provenance.filter(|provenance| **provenance != Provenance::default());
        self
    }

    #[must_use]
    pub fn is_confidential(&self) -> bool {
        self.confidential.unwrap_or(false)
    }

    /// What is allowed but worth a second thought; depends on the request alone,
    /// so that a repeated request gets the same warnings.
    #[must_use]
    pub fn warnings(&self) -> Vec<WarningCode> {
        let mut warnings = Vec::new();
        if self.digests.iter().count() == 1 {
            warnings.push(WarningCode::SingleDigest);
        }
        if self.digests.iter().any(|(algorithm, digest)| digest == algorithm.of_nothing()) {
            warnings.push(WarningCode::EmptyFile);
        } else if !self.is_confidential() && self.size.is_some_and(|size| size < GUESSABLE_SIZE_END) {
            warnings.push(WarningCode::GuessableContent);
        }
        warnings
    }
}

/// The answer to a write that was accepted (202).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceAccepted {
    pub id: EvidenceId,
    pub operation: OperationRef,
    /// What is allowed but worth a second thought.
    pub warnings: Vec<Warning>,
}

/// One piece of evidence, as its owner reads it. What the ledger adds is there
/// once the state is `committed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceView {
    pub id: EvidenceId,
    pub state: OperationState,
    pub operation: OperationRef,
    /// Of confidential evidence from its opening; absent until committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub digests: Option<Digests>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 48213)]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "application/pdf")]
    pub media_type: Option<String>,
    /// Whether the ledger holds only salted commitments; absent until committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = false)]
    pub confidential: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Lease agreement, signed")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "order-2026-0017")]
    pub external_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub provenance: Option<Box<Provenance>>,
    /// Whether the original is kept in the object store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retained: bool,
    /// What the request was signed with, if it was; of a single record only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub signature: Option<Box<SubmitterSignatureView>>,
    /// When the request was accepted; not evidence of time, which the block and
    /// the cosignatures are. Absent for the moment until it is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub created_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub entry: Option<EntryRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub block: Option<BlockView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub checkpoint: Option<CheckpointView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub links: Option<EvidenceLinks>,
    /// What is allowed but worth a second thought.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// Where the proofs of a committed record are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceLinks {
    /// The receipt (C2SP tlog-proof, text).
    pub receipt: String,
    /// The entry, byte for byte.
    pub entry: String,
    /// The bundle (zip) with everything that an offline verifier needs.
    pub proof: String,
    /// The public look-up; absent for confidential evidence, which has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub verify: Option<String>,
}

/// The answer to a batch, item by item in the order sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceBatchResult {
    pub items: Vec<EvidenceItemResult>,
}

/// What came of one item: an id and an operation, or a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceItemResult {
    /// The HTTP status that the item would have had alone.
    #[schema(example = 202)]
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<EvidenceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub operation: Option<OperationRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<Box<ProblemBody>>,
}

impl EvidenceItemResult {
    #[must_use]
    pub fn accepted(status: u16, accepted: EvidenceAccepted) -> Self {
        let EvidenceAccepted { id, operation, warnings } = accepted;
        Self { status, id: Some(id), operation: Some(operation), warnings, problem: None }
    }

    #[must_use]
    pub fn refused(problem: ProblemBody) -> Self {
        Self {
            status: problem.status,
            id: None,
            operation: None,
            warnings: Vec::new(),
            problem: Some(Box::new(problem)),
        }
    }
}
