//! The checked-in OpenAPI document is the generated one, and it describes every route.

use std::{collections::BTreeSet, path::Path};

use chopmark_gateway::{openapi_document, openapi_yaml};

use crate::{client::Req, world::World};

#[test]
fn the_document_is_checked_in() {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo")).join("../../schemas/openapi.yaml");
    let generated = openapi_yaml();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(checked_in == generated, "schemas/openapi.yaml is out of date; UPDATE=1 rewrites it");
}

#[test]
fn every_operation_is_described() {
    let document = serde_json::to_value(openapi_document()).unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
            let hooks = path.starts_with("/v1/webhooks");
            let of_tenants = ["/v1/evidence", "/v1/operations", "/v1/cases"];
            let keyed = hooks || of_tenants.iter().any(|prefix| path.starts_with(prefix));
            assert_eq!(operation.get("security").is_some(), keyed, "{path}");
            let responses = operation["responses"].as_object().unwrap();
            assert_eq!(responses.contains_key("401"), keyed, "{path}");
            assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
            // Those take effect at once.
            if method == "post" && keyed && !hooks {
                let names: Vec<_> =
                    operation["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
                assert!(names.contains(&"Prefer"), "{path}");
                assert_eq!(names.contains(&"Idempotency-Key"), !path.ends_with("/batch"), "{path}");
            }
        }
    }
    // Nothing refers to a schema that is not there.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

/// Every documented operation is served, and no method that is not documented.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_the_routes_agree() {
    let world = World::start().await;
    let document = serde_json::to_value(openapi_document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{id}", "x").replace("{index}", "x").replace("{algorithm}", "x");
        let concrete = concrete.replace("{digest}", "x").replace("{path}", "x").replace("{code}", "x");
        let concrete = concrete.replace("{height}", "x").replace("{first_size}", "x");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let res = world.call(Req::new(method, &concrete)).await;
            let documented = item.get(method.to_lowercase()).is_some();
            assert_eq!(res.status != 405, documented, "{method} {path}: {}", res.text());
            assert!(!res.text().contains("\"code\":\"route_not_found\""), "{path}");
        }
    }
}
