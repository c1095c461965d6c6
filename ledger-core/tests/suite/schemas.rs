//! The JSON Schemas of entries: valid, closed, free of free text, and true of what the ledger
//! really writes.

use std::{collections::BTreeMap, fs};

use jsonschema::{Validator, draft202012};
use ledger_core::{
    commitment::{commit, commit_sha256},
    operation::{OperationType, TenantStatus},
};
use serde_json::{Value, json};

use crate::support::{Ledger, consortium, id, public, schemas_dir, signing_key};

/// Every entry type of the design; the first eight are executed now.
const TYPES: [&str; 34] = [
    "case.append",
    "case.open",
    "evidence",
    "members.active",
    "members.set",
    "policy.set",
    "redigest",
    "tenant.set",
    "agreement.set",
    "anchor",
    "attestation.revoke",
    "burn",
    "channel.set",
    "clock.advance",
    "freeze",
    "lock",
    "mint",
    "protocol.set",
    "redeem",
    "series.create",
    "series.review",
    "series.update",
    "shadow.roots",
    "subject.revoke",
    "takedown",
    "takedown.reverse",
    "transfer",
    "transfer.cancel",
    "transfer.offer",
    "unfreeze",
    "wallet.bind",
    "wallet.open",
    "wallet.rotate",
    "wallet.unbind",
];
const EXECUTED: usize = 8;
/// Types of the system, which come from no operation.
const SYSTEM: [&str; 2] = ["members.active", "shadow.roots"];

fn schemas() -> BTreeMap<String, Value> {
    let files = fs::read_dir(schemas_dir().join("entries")).expect("schemas/entries");
    files
        .map(|file| file.expect("a file").path())
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            let name = name.strip_suffix(".json").expect("a .json file").to_owned();
            (name, serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON"))
        })
        .collect()
}

fn validators() -> BTreeMap<String, Validator> {
    let compile = |schema: &Value| draft202012::new(schema).expect("a schema");
    schemas().iter().map(|(name, schema)| (name.clone(), compile(schema))).collect()
}

/// One entry of every type and form that the ledger executes.
fn entries() -> Vec<Value> {
    let mut ledger = Ledger::new(4);
    let key = Some(public(&signing_key("tenant")));
    ledger.commit(ledger.tenant_set("tenant a", "ten_a"));
    let wide = ledger.tenant_change("tenant b", "ten_b", |o| (o.tier, o.key) = (3, key));
    ledger.commit(ledger.approved(wide, 3));
    let suspended = ledger.tenant_change("tenant c", "ten_c", |o| o.status = TenantStatus::Suspended);
    let operations = vec![
        ledger.evidence("plain", "ten_a"),
        ledger.evidence_with("minimal", "ten_a", |o| (o.media_type, o.size) = (None, None)),
        ledger.evidence_with("confidential", "ten_a", |o| {
            (o.media_type, o.size, o.digests) = (None, None, None);
            (o.commitment, o.private) = (Some(commit(b"opening")), Some(commit_sha256(b"private")));
        }),
        ledger.redigest("redigest", "ten_a", id("plain")),
        ledger.case_open("case", "ten_a"),
        ledger.case_append("link", "ten_a", id("case"), id("plain")),
        suspended,
        ledger.approved(ledger.members_change("members", &consortium(5)), 3),
        ledger.approved(ledger.policy_change("policy", |_| {}), 3),
    ];
    let count = operations.len();
    let executed = ledger.block(operations);
    assert_eq!(executed.entries.len(), count);
    ledger.block(Vec::new());
    ledger.block(Vec::new());
    ledger.entries.iter().map(|entry| serde_json::from_slice(entry).expect("an entry")).collect()
}

#[test]
fn there_is_a_schema_of_every_type() {
    let schemas = schemas();
    let mut types = TYPES;
    types.sort_unstable();
    assert!(schemas.keys().eq(types.iter()));
    for (name, schema) in &schemas {
        draft202012::meta::validate(schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(schema["$id"], format!("urn:chopmark:entry:v1:{name}"));
        assert_eq!(schema["properties"]["type"], json!({ "const": name }));
        assert_eq!(schema["properties"]["v"], json!({ "const": 1 }));
        let executed = TYPES[..EXECUTED].contains(&name.as_str());
        assert_eq!(schema["x-status"], if executed { "executed" } else { "reserved" }, "{name}");
        let required = schema["required"].as_array().unwrap();
        for field in ["time", "type", "v"] {
            assert!(required.contains(&field.into()), "{name} requires {field}");
        }
        let system = SYSTEM.contains(&name.as_str());
        assert_eq!(schema["properties"].get("op").is_none(), system, "{name}");
        assert!(!system || schema["properties"].get("tenant").is_none());
    }
    for (kind, _) in OperationType::NUMBERS {
        let name = serde_json::to_value(kind).unwrap();
        assert_eq!(schemas[name.as_str().unwrap()]["x-status"], "executed");
    }
}

/// Calls `check` with every subschema.
fn walk(schema: &Value, at: &str, check: &dyn Fn(&Value, &str)) {
    check(schema, at);
    let Some(members) = schema.as_object() else { return };
    for (key, value) in members {
        let at = format!("{at}/{key}");
        match key.as_str() {
            "properties" | "$defs" => {
                let members = value.as_object().expect("named subschemas");
                members.iter().for_each(|(name, schema)| walk(schema, &format!("{at}/{name}"), check));
            }
            "oneOf" | "anyOf" | "allOf" => {
                value.as_array().expect("subschemas").iter().for_each(|s| walk(s, &at, check))
            }
            "items" | "not" => walk(value, &at, check),
            _ => {}
        }
    }
}

#[test]
fn every_schema_is_closed_and_has_no_room_for_free_text() {
    const PERSONAL: [&str; 14] = [
        "name",
        "title",
        "email",
        "phone",
        "mobile",
        "address",
        "id_card",
        "file_name",
        "filename",
        "note",
        "reason",
        "description",
        "comment",
        "url",
    ];
    for (name, schema) in schemas() {
        walk(&schema, &name, &|schema, at| {
            if schema["type"] == "object" {
                assert_eq!(schema["additionalProperties"], false, "{at}");
            }
            if schema["type"] == "string" {
                let pattern = schema["pattern"].as_str().unwrap_or_else(|| panic!("{at} has no pattern"));
                assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{at}");
                assert!(pattern.contains('{') || schema["maxLength"].is_u64(), "{at} is not bounded");
            }
            if schema["type"] == "array" {
                assert!(schema["maxItems"].is_u64() && schema.get("items").is_some(), "{at}");
            }
            if schema["type"] == "integer" {
                assert!(schema["minimum"].is_u64() && schema["maximum"].as_u64() < Some(1 << 53), "{at}");
            }
            for key in schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys) {
                assert!(!PERSONAL.contains(&key.as_str()), "{at} has {key}");
            }
        });
    }
}

#[test]
fn real_entries_fit_their_schema_and_no_other() {
    let (schemas, entries) = (validators(), entries());
    let mut seen: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    for entry in &entries {
        for (name, schema) in &schemas {
            assert_eq!(schema.is_valid(entry), entry["type"] == **name, "{entry} and {name}");
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, &TYPES[..EXECUTED]);
}

#[test]
fn changed_entries_do_not_fit() {
    let schemas = validators();
    for entry in entries() {
        let schema = &schemas[entry["type"].as_str().unwrap()];
        let fields = entry.as_object().unwrap();
        let refused = |change: &dyn Fn(&mut serde_json::Map<String, Value>), what: &str| {
            let mut changed = fields.clone();
            change(&mut changed);
            assert!(!schema.is_valid(&Value::Object(changed)), "{what} in {entry}");
        };
        for extra in ["name", "subject", "z", "chain ", "request"] {
            refused(&|entry| drop(entry.insert(extra.to_owned(), json!("x"))), extra);
        }
        for (field, value) in fields {
            // The first policy came of no operation.
            let optional = ["private", "media_type", "size", "key"].contains(&field.as_str())
                || (field == "op" && entry["type"] == "policy.set");
            if !optional {
                refused(&|entry| drop(entry.remove(field)), field);
            }
            for odd in [json!(null), json!(1.5), json!([]), json!({}), json!({"a": 1}), json!("free text"), json!(-1)] {
                refused(&|entry| drop(entry.insert(field.clone(), odd.clone())), field);
            }
            let text = value.as_str().filter(|text| text.len() == 64);
            if let Some(text) = text {
                refused(
                    &|entry| drop(entry.insert(field.clone(), json!(text.to_uppercase().replace('0', "A")))),
                    field,
                );
                refused(&|entry| drop(entry.insert(field.clone(), json!(text[1..]))), field);
            }
            if value.is_u64() {
                refused(&|entry| drop(entry.insert(field.clone(), json!(1_u64 << 53))), field);
            }
        }
    }
}
