//! What OpenAPI says of the requests against what their readers do.

use chopmark_api::case::{CaseAppendRequest, CaseRequest};
use chopmark_api::evidence::{Digests, FileMetadata, Provenance};
use chopmark_api::evidence::{EvidenceBatchItem, EvidenceBatchRequest, EvidenceRequest, EvidenceView};
use chopmark_api::limits;
use chopmark_api::request::{Request, Shape};
use chopmark_api::verify::{VerifyBatchItem, VerifyBatchRequest};
use serde_json::{Value, json};
use utoipa::PartialSchema;

fn schema<T: PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).expect("a schema")
}

#[test]
fn members_and_requirements_are_those_of_the_reader() {
    fn check<T: Request + PartialSchema>() {
        let schema = schema::<T>();
        let Shape::Object(object) = T::SHAPE else { panic!("a request is an object") };
        assert_eq!(schema["additionalProperties"], json!(false), "{schema}");
        let properties = schema["properties"].as_object().expect("properties");
        let mut names: Vec<_> = properties.keys().map(String::as_str).collect();
        let mut expected = object.names.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for member in object.members {
            let required = schema["required"].as_array().is_some_and(|all| all.contains(&json!(member.name)));
            assert_eq!(required, member.missing.is_some(), "{}", member.name);
            let described = properties[member.name].to_string();
            assert!(!described.contains("null"), "{described}");
            assert!(described.contains("description"), "{described}");
        }
    }
    check::<Digests>();
    check::<Provenance>();
    check::<EvidenceRequest>();
    check::<EvidenceBatchItem>();
    check::<EvidenceBatchRequest>();
    check::<FileMetadata>();
    check::<CaseRequest>();
    check::<CaseAppendRequest>();
    check::<VerifyBatchItem>();
    check::<VerifyBatchRequest>();
}

#[test]
fn limits_are_those_of_the_reader() {
    for schema in [schema::<EvidenceRequest>(), schema::<EvidenceBatchItem>(), schema::<FileMetadata>()] {
        let properties = &schema["properties"];
        assert_eq!(properties["title"]["maxLength"], json!(limits::TITLE_CHARS_MAX));
        assert_eq!(properties["external_id"]["maxLength"], json!(limits::EXTERNAL_ID_CHARS_MAX));
        assert_eq!(properties["media_type"]["maxLength"], json!(limits::MEDIA_TYPE_CHARS_MAX));
        assert_eq!(properties["size"]["maximum"], json!(limits::SIZE_MAX));
    }
    let item = schema::<EvidenceBatchItem>();
    let key = &item["properties"]["idempotency_key"];
    assert_eq!(key["maxLength"], json!(limits::IDEMPOTENCY_KEY_CHARS_MAX));
    for (batch, items_max) in [
        (schema::<EvidenceBatchRequest>(), limits::BATCH_ITEMS_MAX),
        (schema::<VerifyBatchRequest>(), limits::VERIFY_ITEMS_MAX),
    ] {
        assert_eq!(batch["properties"]["items"]["maxItems"], json!(items_max));
    }
    let provenance = schema::<Provenance>();
    for (name, member) in provenance["properties"].as_object().expect("properties") {
        let limit = match name.as_str() {
            "captured_at" => continue,
            "notes" | "environment_checks" => limits::PROVENANCE_TEXT_CHARS_MAX,
            _ => limits::PROVENANCE_CHARS_MAX,
        };
        assert_eq!(member["maxLength"], json!(limit), "{name}");
    }
}

#[test]
fn answers_leave_out_what_is_not_there_rather_than_send_null() {
    let schema = schema::<EvidenceView>().to_string();
    assert!(!schema.contains("null"), "{schema}");
    assert!(schema.contains("date-time") || schema.contains("Timestamp"));
}

#[test]
fn enumerations_are_spelled_as_they_are_sent() {
    use chopmark_api::digest::Algorithm;
    use chopmark_api::operation::OperationState;
    use chopmark_api::warning::WarningCode;
    assert_eq!(schema::<Algorithm>()["enum"], json!(Algorithm::NAMES));
    assert_eq!(schema::<OperationState>()["enum"], json!(OperationState::NAMES));
    assert_eq!(schema::<WarningCode>()["enum"], json!(WarningCode::ALL));
    let codes = schema::<chopmark_api::ProblemCode>();
    assert_eq!(codes["enum"], json!(chopmark_api::ProblemCode::ALL));
}
