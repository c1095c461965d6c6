//! `schemas/vectors/encodings.json`: every encoding that is frozen, from fixed keys and inputs.
//!
//! The test recomputes the file and compares. A difference means that a byte format moved; where
//! that is meant, `UPDATE_VECTORS=1` writes the file anew.

use std::{collections::BTreeSet, env, fs, path::Path};

use ledger_core::{
    Hash32,
    batch::{Item, Submission, batch_hash},
    block::Header,
    commitment::{EvidenceOpening, commit},
    digests::{Algorithm, Digests},
    entry::{entry_id, genesis_entries},
    execute::execute_genesis,
    json::Value as Canonical,
    member::MemberSet,
    merkle::{LeafIndex, TreeSize, consistency_proof, empty_root, inclusion_proof, leaf_hash, node_hash},
    note::Note,
    operation::{OperationType, TenantStatus, V1, approval_message, operation_hash, state_hash, tenant_message},
    outcome::{RejectionCode, outcomes_root},
    state::{StateDigest, changes_digest, key},
    tile::{TileKind, TilePath, encode_hashes, push_entry},
    verify::{FileFacts, verify},
    vote::{VoteType, address, vote_message},
};
use serde_json::{Map, Value, json};

use crate::support::{Ledger, consortium, genesis_of, id, member_set, public, schemas_dir, signing_key};

/// Longer values are given by length and hash alone.
const WHOLE_BYTES_MAX: usize = 8192;

#[derive(Default)]
struct Vectors(Vec<Value>);

impl Vectors {
    fn add(&mut self, name: &str, kind: &str, value: &[u8], shown: String, of: &str) {
        let mut vector = Map::new();
        vector.insert("name".to_owned(), json!(name));
        if !of.is_empty() {
            vector.insert("of".to_owned(), json!(of));
        }
        vector.insert("bytes".to_owned(), json!(value.len()));
        vector.insert("sha256".to_owned(), json!(Algorithm::Sha256.digest(value)));
        if value.len() <= WHOLE_BYTES_MAX {
            vector.insert(kind.to_owned(), json!(shown));
        }
        self.0.push(Value::Object(vector));
    }

    /// A value that is UTF-8 text.
    fn text(&mut self, name: &str, of: &str, value: &[u8]) {
        self.add(name, "text", value, String::from_utf8(value.to_vec()).expect("text"), of);
    }

    /// A value that is not.
    fn hex(&mut self, name: &str, of: &str, value: &[u8]) {
        self.add(name, "hex", value, hex::encode(value), of);
    }

    fn hash(&mut self, name: &str, of: &str, value: &Hash32) {
        self.hex(name, of, &value.0);
    }
}

fn canonical_json(vectors: &mut Vectors) {
    let accepted = [
        "{}",
        "[]",
        "0",
        "9007199254740991",
        "true",
        "\"\"",
        "\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"",
        "\"\\b\\t\\n\\f\\r\\u0000\\u001f\u{7f}\u{80}\u{2028}\u{ffff}\u{10ffff}\"",
        "{\"\":[],\"\\n\":1,\"1\":2,\"A\":3,\"a\":{\"b\":[true,false]},\"aa\":4}",
    ];
    let refused = [
        "",
        " {}",
        "{}\n",
        "{\"a\": 1}",
        "{\"b\":1,\"a\":2}",
        "{\"a\":1,\"a\":1}",
        "{\"é\":1}",
        "-0",
        "-1",
        "1.0",
        "1e3",
        "01",
        "9007199254740992",
        "null",
        "[1,]",
        "\"\\u0041\"",
        "\"\\/\"",
        "\"\\u000F\"",
        "\"\\ud800\"",
        "\u{feff}{}",
        "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]",
    ];
    for (at, text) in accepted.into_iter().enumerate() {
        assert!(Canonical::parse(text.as_bytes()).is_ok(), "{text}");
        vectors.text(&format!("json/accepted/{at}"), "canonical JSON", text.as_bytes());
    }
    for (at, text) in refused.into_iter().enumerate() {
        assert!(Canonical::parse(text.as_bytes()).is_err(), "{text}");
        vectors.text(&format!("json/refused/{at}"), "not canonical JSON", text.as_bytes());
    }
}

fn genesis(vectors: &mut Vectors) {
    for role in ["cosigner", "governance", "log", "submitter", "validator"] {
        let label = format!("a.example {role}");
        let of = format!("Ed25519 public key; its seed is SHA3-256(\"{label}\")");
        vectors.hash(&format!("key/a.example/{role}"), &of, &public(&signing_key(&label)));
    }
    let genesis = genesis_of(&consortium(4));
    vectors.text("genesis/document", "genesis of members a.example to d.example", &genesis.encode());
    vectors.hash("genesis/chain-id", "H(chopmark/genesis/v1, genesis/document)", &genesis.chain_id());
    vectors.hash(
        "genesis/members-hash",
        "H(chopmark/members/v1, the list `members` of genesis/document)",
        &genesis.members.hash(),
    );
    for (at, entry) in genesis_entries(&genesis).iter().enumerate() {
        vectors.text(&format!("genesis/entry/{at}"), "leaf data", entry);
        vectors.hash(&format!("genesis/entry/{at}/id"), "SHA3-256 of the entry", &entry_id(entry));
        vectors.hash(&format!("genesis/entry/{at}/leaf"), "RFC 9162 leaf hash", &leaf_hash(entry));
    }
    let header = execute_genesis(&genesis).header;
    vectors.text("genesis/header", "header of height 0", &header.encode());
    vectors.hash("genesis/header/hash", "H(chopmark/header/v1, genesis/header)", &header.hash());
    let one = genesis_of(&consortium(1));
    vectors.text("genesis-of-one/document", "genesis of member a.example alone", &one.encode());
    vectors.hash("genesis-of-one/chain-id", "H(chopmark/genesis/v1, genesis-of-one/document)", &one.chain_id());
    let policy = ledger_core::policy_file::PolicyFile::text_of_members(&one.origin, &one.members);
    vectors.text("genesis-of-one/policy-file", "tlog-policy of the members", policy.as_bytes());
}

fn operations(vectors: &mut Vectors) {
    let ledger = Ledger::with_tenant(4);
    let own = signing_key("tenant");
    let names = [
        "evidence",
        "evidence-minimal",
        "evidence-confidential",
        "redigest",
        "case.open",
        "case.append",
        "tenant.set",
        "tenant.set-key",
        "members.set",
        "policy.set",
    ];
    for (name, signed) in names.into_iter().zip(crate::operations::every_type(&ledger)) {
        vectors.text(&format!("operation/{name}"), "operation bytes", &signed.operation);
        vectors.hash(
            &format!("operation/{name}/hash"),
            "H(chopmark/operation/v1, operation)",
            &operation_hash(&signed.operation),
        );
        vectors.hash(
            &format!("operation/{name}/signed-hash"),
            "H(chopmark/signed-operation/v1, operation, no signatures)",
            &signed.hash(),
        );
    }
    let evidence = ledger.signed_by_tenant(ledger.evidence("evidence", "ten_a"), &own);
    let message = tenant_message(&ledger.chain, &evidence.operation);
    vectors.hex("operation/evidence/tenant-message", "what the tenant's key signs", &message);
    vectors.hex(
        "operation/evidence/tenant-signature",
        "by the key with seed SHA3-256(\"tenant\")",
        &evidence.signatures[0].signature,
    );
    vectors.hash(
        "operation/evidence/hash-with-signature",
        "H(chopmark/signed-operation/v1, operation, key and signature)",
        &evidence.hash(),
    );
    let policy = ledger.approved(ledger.policy_change("policy", |_| {}), 3);
    vectors.hex(
        "operation/policy.set/approval-message",
        "what a member's governance key signs",
        &approval_message(&ledger.chain, &policy.operation),
    );
    vectors.hex("operation/policy.set/approval-signature", "by a.example", &policy.signatures[0].signature);
    vectors.hash(
        "state-hash/policy",
        "H(chopmark/state/v1, value under `p`): `replaces` of policy.set",
        &ledger.replaced(key::POLICY),
    );
    vectors.hash("state-hash/none", "`replaces` where there is nothing to replace", &state_hash(None));

    let mut batch = ledger.batch_of(vec![evidence, ledger.case_open("case", "ten_a")]);
    batch.submissions[0].items[1] = Item::Omitted(batch.submissions[0].items[1].hash());
    let submission: &Submission = &batch.submissions[0];
    vectors.hex(
        "submission/message",
        "what the submitter of a.example signs: two items",
        &Submission::message(&ledger.chain, &submission.items),
    );
    vectors.hex("submission/bytes", "a signed evidence and an omitted case.open", &submission.encode());
    let bytes = batch.encode();
    vectors.hex("batch/bytes", "one submission", &bytes);
    vectors.hash("batch/hash", "H(chopmark/batch/v1, batch/bytes)", &batch_hash(&bytes));
    vectors.hash("batch/empty/hash", "H(chopmark/batch/v1, a count of zero)", &batch_hash(&[0; 4]));
    for (kind, number) in OperationType::NUMBERS {
        let name = serde_json::to_value(kind).expect("a name");
        vectors.hex(&format!("operation-type/{}", name.as_str().expect("text")), "number in state values", &[number]);
    }
    for (code, number) in RejectionCode::NUMBERS {
        vectors.hex(&format!("rejection-code/{}", code.as_str()), "number in state values and blocks", &[number]);
    }
}

/// A history with every executed type, block by block.
fn blocks(vectors: &mut Vectors) -> Ledger {
    let mut ledger = Ledger::with_tenant(4);
    let operations = vec![
        ledger.evidence("evidence", "ten_a"),
        ledger.evidence_with("confidential", "ten_a", |o| {
            (o.media_type, o.size, o.digests, o.commitment) = (None, None, None, Some(commit(&opening().encode())));
        }),
        ledger.redigest("redigest", "ten_a", id("evidence")),
        ledger.case_open("case", "ten_a"),
        ledger.case_append("link", "ten_a", id("case"), id("evidence")),
        ledger.evidence("rejected", "ten_x"),
        ledger.approved(
            ledger.tenant_change("key", "ten_b", |o| (o.tier, o.key) = (2, Some(public(&signing_key("tenant"))))),
            3,
        ),
        ledger.tenant_change("suspend", "ten_a", |o| o.status = TenantStatus::Suspended),
        ledger.approved(ledger.policy_change("policy", |_| {}), 3),
        ledger.approved(ledger.members_change("members", &consortium(1)), 3),
    ];
    let (block, executed) = ledger.decided(operations);
    vectors.text("block/header", "header of height 2", &block.header.encode());
    vectors.hash("block/header/hash", "H(chopmark/header/v1, block/header)", &block.header.hash());
    let with_state = Header { state: Some(id("state")), ..block.header.clone() };
    vectors.text("block/header-with-state", "header that carries a state digest", &with_state.encode());
    vectors.hash("block/header-with-state/hash", "H(chopmark/header/v1, block/header-with-state)", &with_state.hash());
    vectors.hex("block/batch", "batch bytes", &block.batch);
    for (at, entry) in executed.entries.iter().enumerate() {
        vectors.text(&format!("block/entry/{at}"), "leaf data", entry);
        vectors.hash(&format!("block/entry/{at}/id"), "SHA3-256 of the entry", &entry_id(entry));
    }
    for at in [0, 5] {
        let outcome = executed.outcomes[at];
        vectors.text(&format!("block/outcome/{at}"), "outcome", &outcome.encode());
        vectors.hex(&format!("block/outcome/{at}/leaf"), "leaf data in the outcomes tree", &outcome.leaf());
    }
    vectors.hash("block/outcomes-root", "root over all outcomes of the block", &outcomes_root(&executed.outcomes));
    vectors.hash("outcomes-root/none", "root over no outcome", &outcomes_root(&[]));
    for (key, value) in &executed.changes {
        let (tag, rest) = (char::from(key[0]), hex::encode(&key[1..]));
        let name =
            format!("block/change/{tag}{}{}", if rest.is_empty() { "" } else { "-" }, &rest[..rest.len().min(16)]);
        vectors.hex(&format!("{name}/key"), "state key", key);
        vectors.hex(&format!("{name}/value"), "state value", value.as_deref().expect("nothing is removed here"));
    }
    vectors.hash(
        "block/changes-digest",
        "digest of the changes of the block, in key order",
        &changes_digest(&executed.changes),
    );
    vectors.hash("changes-digest/none", "digest of no change", &changes_digest(&Default::default()));
    let validator = public(&ledger.members[0].validator);
    let (chain, value, who) = (&ledger.chain, block.header.hash(), address(&validator));
    vectors.hex("vote/address", "address of a.example's validator key", &who);
    for (name, vote, value) in [
        ("vote/prevote", VoteType::Prevote, Some(&value)),
        ("vote/precommit", VoteType::Precommit, Some(&value)),
        ("vote/precommit-nil", VoteType::Precommit, None),
    ] {
        vectors.hex(name, "height 2, round 0, by a.example", &vote_message(chain, vote, 2, 0, value, &who));
    }
    vectors.text("block/certificate", "precommits of all four validators", &block.certificate.encode());
    vectors.hex("block/bytes", "the whole block", &block.encode());

    let executed = ledger.block(ledger.batch_of(Vec::new()).operations().cloned().collect());
    vectors.hash("block-empty/changes-digest", "a block that changes nothing", &executed.header.changes);
    let mut digest = StateDigest::default();
    ledger.state.iter().for_each(|(key, value)| digest.update(key, value));
    vectors.hash("state-digest", "whole state after height 2 of a network with ten_a alone", &digest.finish());
    vectors.hash("state-digest/empty", "no key at all", &StateDigest::default().finish());
    ledger
}

/// The block at which a new member set takes over.
fn members_active(vectors: &mut Vectors) {
    let mut ledger = Ledger::new(4);
    ledger.block(vec![ledger.approved(ledger.members_change("members", &consortium(1)), 3)]);
    let waiting = ledger.block(Vec::new());
    vectors.text("handover/header-before", "names the next members", &waiting.header.encode());
    let executed = ledger.block(Vec::new());
    vectors.text("handover/entry", "members.active", &executed.entries[0]);
    vectors.text("handover/header", "names the new members", &executed.header.encode());
    vectors.hash("handover/changes-digest", "`m` is set, `n` removed", &executed.header.changes);
}

fn opening() -> EvidenceOpening {
    EvidenceOpening {
        digests: Digests::of(b"secret"),
        media_type: Some("text/plain".to_owned()),
        salt: id("salt"),
        size: Some(6),
        v: V1,
    }
}

fn commitments(vectors: &mut Vectors) {
    let bytes = opening().encode();
    vectors.text("commitment/opening", "opening of a confidential evidence", &bytes);
    for (algorithm, digest) in commit(&bytes).iter() {
        let of = "H(\"chopmark/commit/v1\\n\" and the opening)";
        vectors.hash(&format!("commitment/{}", algorithm.as_str()), of, &digest);
    }
}

fn log(vectors: &mut Vectors) {
    vectors.hash("tree/empty", "root of no leaf", &empty_root());
    let leaves: Vec<Hash32> = (0_u8..7).map(|at| leaf_hash(&[at])).collect();
    vectors.hash("tree/leaf", "leaf hash of the byte 00", &leaves[0]);
    vectors.hash("tree/node", "over the leaves 00 and 01", &node_hash(&leaves[0], &leaves[1]));
    let Ok(path) = inclusion_proof(LeafIndex(4), TreeSize(7), leaves.as_slice());
    vectors.hex("tree/inclusion-4-of-7", "leaves 00 to 06", &encode_hashes(&path));
    let Ok(path) = consistency_proof(TreeSize(3), TreeSize(7), leaves.as_slice());
    vectors.hex("tree/consistency-3-to-7", "leaves 00 to 06", &encode_hashes(&path));
    vectors.hex("tile/hashes", "partial tile tile/0/000.p/7", &encode_hashes(&leaves));
    let mut bundle = Vec::new();
    [&b"{}"[..], b"{\"v\":1}"].into_iter().for_each(|entry| push_entry(&mut bundle, entry));
    vectors.hex("tile/entries", "bundle of {} and {\"v\":1}", &bundle);
    let path = TilePath { kind: TileKind::Entries, index: 1_234_067, width: 17 }.path();
    vectors.text("tile/path", "bundle 1234067 with 17 entries", path.as_bytes());

    let mut ledger = Ledger::with_tenant(4);
    ledger.commit(ledger.evidence("evidence", "ten_a"));
    let members: MemberSet = member_set(&ledger.members);
    let member = members.iter().next().expect("a member");
    vectors.text("note/log-vkey", "a.example's log key", member.log_verifier("ledger.example/log").vkey().as_bytes());
    vectors.text("note/cosigner-vkey", "a.example's cosigner key", member.cosigner_verifier().vkey().as_bytes());
    let note = Note::parse(&ledger.checkpoint(3)).expect("a note");
    vectors.text("note/checkpoint", "the text that log keys sign", note.text.as_bytes());
    let cosigned = format!("cosignature/v1\ntime 1800000000\n{}", note.text);
    vectors.text("note/cosigned", "the message of a.example's cosignature", cosigned.as_bytes());
    vectors.text("note/log-line", "by a.example", note.signatures[0].line().as_bytes());
    vectors.text("note/cosignature-line", "by a.example at 1800000000", note.signatures[4].line().as_bytes());
    vectors.text("note/signed-checkpoint", "four log lines, three cosignatures", note.render().as_bytes());
    vectors.text("policy-file", "of a.example to d.example", ledger.policy_text().as_bytes());
    let receipt = ledger.receipt(3, 3).render();
    vectors.text("receipt/entry", "the entry", &ledger.entries[3]);
    vectors.text("receipt/receipt", "tlog-proof of the entry", receipt.as_bytes());
    let file = FileFacts { digests: Digests::of(b"evidence"), size: 8 };
    let verdict = verify(Some(&file), &ledger.entries[3], receipt.as_bytes(), ledger.policy_text().as_bytes());
    vectors.text("receipt/verdict", "for the file `evidence`, under policy-file", verdict.to_string().as_bytes());
}

fn all() -> Value {
    let mut vectors = Vectors::default();
    canonical_json(&mut vectors);
    genesis(&mut vectors);
    operations(&mut vectors);
    blocks(&mut vectors);
    members_active(&mut vectors);
    commitments(&mut vectors);
    log(&mut vectors);
    json!({
        "about": "Frozen encodings; docs/FORMATS.md explains them. `H(domain, a, b)` is SHA3-256 over the \
                  length-prefixed domain and fields. `bytes` and `sha256` are of the value itself; values of up to \
                  8192 bytes are given whole, as `text` (UTF-8) or `hex`. Operation ids and other 32-byte inputs are \
                  SHA3-256 of their labels.",
        "vectors": vectors.0,
    })
}

#[test]
fn no_byte_format_moved() {
    let path = schemas_dir().join("vectors/encodings.json");
    let computed = all();
    let text = format!("{}\n", serde_json::to_string_pretty(&computed).unwrap());
    if env::var_os("UPDATE_VECTORS").is_some_and(|value| value == "1") {
        fs::write(&path, &text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let named = |vectors: &Value| -> Vec<(String, Value)> {
        let vectors = vectors["vectors"].as_array().unwrap();
        vectors.iter().map(|vector| (vector["name"].as_str().unwrap().to_owned(), vector.clone())).collect()
    };
    let (computed_vectors, stored_vectors) = (named(&computed), named(&stored));
    for ((name, computed), (_, stored)) in computed_vectors.iter().zip(&stored_vectors) {
        assert_eq!(computed, stored, "{name} moved");
    }
    assert_eq!(computed_vectors.len(), stored_vectors.len());
    assert_eq!(text, fs::read_to_string(&path).unwrap());
    let names: BTreeSet<&String> = computed_vectors.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), computed_vectors.len(), "every vector has a name of its own");
}

/// Every `chopmark/<what>/v<n>` that a file mentions.
fn domains(text: &str) -> BTreeSet<String> {
    let word = |character: char| character.is_ascii_alphanumeric() || character == '-';
    text.match_indices("chopmark/")
        .filter_map(|(at, prefix)| {
            let (what, rest) = text[at + prefix.len()..].split_once("/v")?;
            let version: String = rest.chars().take_while(char::is_ascii_digit).collect();
            (!what.is_empty() && what.chars().all(word) && !version.is_empty())
                .then(|| format!("chopmark/{what}/v{version}"))
        })
        .collect()
}

#[test]
fn the_document_names_every_domain_number_and_bound() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo");
    let root = Path::new(&root);
    let document = fs::read_to_string(root.join("../docs/FORMATS.md")).unwrap();
    let sources: String =
        fs::read_dir(root.join("src")).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert_eq!(domains(&document), domains(&sources));
    for (kind, number) in OperationType::NUMBERS {
        let name = serde_json::to_value(kind).unwrap();
        assert!(document.contains(&format!("| {number} | `{}` |", name.as_str().unwrap())), "{name}");
    }
    for (code, number) in RejectionCode::NUMBERS {
        assert!(document.contains(&format!("| {number} | `{}` |", code.as_str())), "{}", code.as_str());
    }
    let bounds = [
        ("operation", ledger_core::operation::OPERATION_BYTES_MAX),
        ("entry", ledger_core::entry::ENTRY_BYTES_MAX),
        ("batch", ledger_core::batch::BATCH_BYTES_MAX),
        ("header", ledger_core::block::HEADER_BYTES_MAX),
        ("certificate", ledger_core::vote::CERTIFICATE_BYTES_MAX),
        ("receipt", ledger_core::receipt::RECEIPT_BYTES_MAX),
        ("submissions in a batch", ledger_core::batch::BATCH_SUBMISSIONS_MAX),
        ("items in a submission", ledger_core::batch::SUBMISSION_OPERATIONS_MAX),
        ("signatures of an operation", ledger_core::operation::OPERATION_SIGNATURES_MAX),
        ("members", ledger_core::member::MEMBERS_MAX),
        ("submitter keys of a member", ledger_core::member::SUBMITTER_KEYS_MAX),
        ("depth of JSON", ledger_core::json::DEPTH_MAX),
        ("signature lines of a note", ledger_core::note::SIGNATURE_LINES_MAX),
        ("hashes in a path", ledger_core::merkle::PROOF_HASHES_MAX),
    ];
    for (what, bound) in bounds {
        assert!(document.contains(&format!("| {what} | {bound} |")), "{what}: {bound}");
    }
}
