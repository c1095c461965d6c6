//! Public verification: what anyone may learn of a digest, without a key.
//! Refuses to name a tenant that did not choose so, a title or a subject.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::digest::{Algorithm, Hash32};
use crate::ledger::{BlockView, CheckpointView};
use crate::limits::{self, VERIFY_ITEMS_MAX};
use crate::problem::ProblemCode;
use crate::request::{ArrayShape, Request, Shape, request};

/// Every record of one digest, or the signed statement that there is none.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VerifyView {
    pub algorithm: Algorithm,
    pub digest: Hash32,
    /// In the order of the log: the first is the earliest.
    pub records: Vec<VerifyRecord>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
    /// Where there is no record: a note, signed by the node's statement key, that
    /// its index had none up to this tree size. A statement, never a proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub statement: Option<String>,
    /// The tree size up to which the index is complete.
    #[schema(example = 4712)]
    pub tree_size: u64,
}

/// One record of a digest.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VerifyRecord {
    /// SHA3-256 of the entry bytes.
    pub entry_id: Hash32,
    /// The leaf's index in the log, from zero.
    #[schema(example = 4711)]
    pub index: u64,
    /// The block that it was agreed in; an entry of the genesis has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub block: Option<BlockView>,
    /// The entry, byte for byte as it was hashed.
    #[schema(value_type = Object)]
    pub entry: Box<RawValue>,
    pub checkpoint: CheckpointView,
    pub links: VerifyLinks,
}

/// Where a record's proofs are; no key is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyLinks {
    /// The receipt (C2SP tlog-proof, text).
    pub receipt: String,
    /// The entry, byte for byte.
    pub entry: String,
    /// The bundle (zip) with everything that an offline verifier needs.
    pub proof: String,
}

request! {
    /// One digest to look up.
    pub struct VerifyBatchItem {
        required {
            /// The algorithm of the digest.
            "algorithm" algorithm: Algorithm = Shape::Text(limits::algorithm), else FieldMissing;
            /// The digest.
            "digest" digest: Hash32 = Shape::Text(limits::digest), else DigestMissing;
        }
        optional {}
    }
}

static ITEMS: ArrayShape = ArrayShape {
    item: VerifyBatchItem::SHAPE,
    items_max: VERIFY_ITEMS_MAX,
    empty: ProblemCode::BatchEmpty,
    over: ProblemCode::BatchTooLarge,
};

request! {
    /// Many digests to look up in one call.
    pub struct VerifyBatchRequest {
        required {
            /// 1 to 100 digests.
            #[schema(min_items = 1, max_items = 100)]
            "items" items: Vec<VerifyBatchItem> = Shape::Array(&ITEMS), else FieldMissing;
        }
        optional {}
    }
}

/// The answer to a batch look-up, in the order asked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VerifyBatchView {
    pub items: Vec<VerifyView>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn an_entry_is_shown_byte_for_byte() {
        let bytes = r#"{"z":1, "a":[ 2 ],"time":9007199254740991}"#;
        let entry: Box<RawValue> = serde_json::from_str(bytes).expect("json");
        let view = VerifyBatchView {
            items: vec![VerifyView {
                algorithm: Algorithm::Sm3,
                digest: Hash32::from_bytes([1; 32]),
                records: vec![VerifyRecord {
                    entry_id: Hash32::from_bytes([2; 32]),
                    index: 4711,
                    block: Some(BlockView {
                        height: 42,
                        time: Timestamp::from_unix_ms(0),
                        hash: Hash32::from_bytes([3; 32]),
                    }),
                    entry,
                    checkpoint: CheckpointView {
                        size: 4712,
                        root: Hash32::from_bytes([4; 32]),
                        time: Timestamp::from_unix_ms(0),
                        cosigners: vec!["court.example/witness".to_owned()],
                    },
                    links: VerifyLinks { receipt: String::new(), entry: String::new(), proof: String::new() },
                }],
                next_cursor: None,
                statement: None,
                tree_size: 4712,
            }],
        };
        let sent = serde_json::to_string(&view).expect("json");
        assert!(sent.contains(bytes));
        let read: VerifyBatchView = serde_json::from_str(&sent).expect("a view");
        assert_eq!(read.items[0].records[0].entry.get(), bytes);
    }
}
