//! The operations of the API, as the document of the repository lists them.

use std::fs;

use chopmark_tests::repository;
use serde_json::Value;

/// A method of a path.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) method: String,
    /// With names in braces where values stand.
    pub(crate) path: String,
    /// Whether it asks for an API key.
    pub(crate) is_keyed: bool,
}

impl Operation {
    /// `GET /v1/evidence/{id}`
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Every operation of `schemas/openapi.yaml`.
pub(crate) fn operations() -> Vec<Operation> {
    let text = fs::read_to_string(repository().join("schemas/openapi.yaml")).unwrap();
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let paths = document["paths"].as_object().expect("the document has paths");
    let found = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("a path has methods").iter();
        methods.map(|(method, operation)| Operation {
            method: method.to_uppercase(),
            path: path.clone(),
            is_keyed: operation.get("security").is_some(),
        })
    });
    found.collect()
}
