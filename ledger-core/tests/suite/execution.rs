//! The state machine, rule by rule.

use ledger_core::{
    Hash32,
    batch::{Batch, Item, Submission},
    block::{STATE_DIGEST_INTERVAL, state_digest_height},
    commitment::commit,
    entry::{ENTRY_BYTES_MAX, entry_id},
    execute::{BatchError, MEMBERS_DELAY, execute, execute_genesis, omit},
    hash::sha3_256,
    json::INTEGER_MAX,
    member::quorum,
    merkle::{Frontier, leaf_hash},
    operation::{SignedOperation, TenantStatus, state_hash},
    outcome::{RejectionCode, Verdict, outcomes_root},
    state::{self, StateError, StateRead, changes_digest, key, members},
};
use serde_json::json;

use crate::support::{
    GENESIS_TIME, Ledger, MemberKeys, ORIGIN, changed_keys, consortium, genesis_of, id, member_set, public, signature,
    signing_key,
};

#[test]
fn the_genesis_makes_two_entries_and_the_first_state() {
    let genesis = genesis_of(&consortium(4));
    let executed = execute_genesis(&genesis);
    let ledger = Ledger::new(4);
    assert_eq!(executed.entries.len(), 2);
    assert_eq!(ledger.entry(0)["type"], "members.set");
    assert_eq!(ledger.entry(0)["chain"], genesis.chain_id().to_string());
    assert_eq!(
        (ledger.entry(0)["origin"].as_str(), ledger.entry(0)["time"].as_u64()),
        (Some(ORIGIN), Some(GENESIS_TIME))
    );
    assert_eq!(ledger.entry(1)["type"], "policy.set");
    assert_eq!(ledger.entry(1)["policy"]["first_hold_days"], 180);
    for entry in [ledger.entry(0), ledger.entry(1)] {
        assert!(entry.get("op").is_none() && entry.get("tenant").is_none());
    }
    let header = executed.header;
    assert_eq!((header.height, header.previous, header.tree_size, header.state), (0, Hash32::ZERO, 2, None));
    assert_eq!((header.members, header.next_members), (genesis.members.hash(), genesis.members.hash()));
    assert_eq!(header.outcomes, Frontier::new().root());
    assert_eq!(header.changes, changes_digest(&executed.changes));
    assert_eq!(changed_keys(&executed.changes), ["m", "p", "u"]);
    assert_eq!(members(&ledger.state).unwrap(), genesis.members);
}

#[test]
fn evidence_becomes_an_entry() {
    let mut ledger = Ledger::with_tenant(1);
    let operation = ledger.evidence("a file", "ten_a");
    let executed = ledger.block(vec![operation]);
    let entry = ledger.entry(3);
    assert_eq!(
        entry,
        json!({
            "digests": entry["digests"], "media_type": "application/pdf", "op": id("a file").to_string(), "size": 6,
            "tenant": "ten_a", "time": GENESIS_TIME + 2000, "type": "evidence", "v": 1,
        })
    );
    assert_eq!(entry["digests"]["sha3-256"], sha3_256(b"a file").to_string());
    assert_eq!(executed.outcomes[0].verdict, Verdict::Committed { index: 3, entry: entry_id(&executed.entries[0]) });
    assert_eq!(executed.leaves, [leaf_hash(&executed.entries[0])]);
    assert_eq!(changed_keys(&executed.changes), [format!("o{}", id("a file"))]);
    let record = state::operation_record(&ledger.state, &id("a file")).unwrap().unwrap();
    assert_eq!((record.result, record.tenant, record.request), (Ok(3), 1, id("request")));
    let header = executed.header;
    assert_eq!((header.height, header.tree_size, header.root), (2, 4, ledger.parent.frontier.root()));
    assert_eq!(header.outcomes, outcomes_root(&executed.outcomes));
}

#[test]
fn confidential_evidence_shows_only_its_commitment() {
    let mut ledger = Ledger::with_tenant(1);
    let operation = ledger.evidence_with("secret", "ten_a", |o| {
        (o.digests, o.size, o.media_type) = (None, None, None);
        (o.commitment, o.private) = (Some(commit(b"opening")), Some(commit(b"private")));
    });
    let index = ledger.commit(operation);
    let entry = ledger.entry(index);
    let mut fields: Vec<&String> = entry.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["commitment", "op", "private", "tenant", "time", "type", "v"]);
}

#[test]
fn redigest_needs_evidence_of_the_same_tenant() {
    let mut ledger = Ledger::with_tenant(1);
    let other = ledger.tenant_set("tenant b", "ten_b");
    ledger.commit(other);
    let evidence = ledger.evidence("evidence", "ten_a");
    let case = ledger.case_open("case", "ten_a");
    let refused = ledger.evidence("refused", "ten_x");
    ledger.block(vec![evidence, case, refused]);

    let index = ledger.commit(ledger.redigest("redigest", "ten_a", id("evidence")));
    let entry = ledger.entry(index);
    assert_eq!(
        (entry["evidence"].as_str(), entry["evidence_index"].as_u64()),
        (Some(&*id("evidence").to_string()), Some(4))
    );
    for (label, tenant, evidence) in [
        ("of nothing", "ten_a", id("nothing")),
        ("of another tenant's", "ten_b", id("evidence")),
        ("of a case", "ten_a", id("case")),
        ("of a rejected one", "ten_a", id("refused")),
        ("of a redigest", "ten_a", id("redigest")),
    ] {
        assert_eq!(ledger.reject(ledger.redigest(label, tenant, evidence)), RejectionCode::EvidenceUnknown, "{label}");
    }
}

#[test]
fn a_case_is_a_chain() {
    let mut ledger = Ledger::with_tenant(1);
    let other = ledger.tenant_set("tenant b", "ten_b");
    ledger.commit(other);
    let evidence: Vec<_> = ["e1", "e2", "e3"].iter().map(|label| ledger.evidence(label, "ten_a")).collect();
    let foreign = ledger.evidence("foreign", "ten_b");
    ledger.block([evidence, vec![foreign]].concat());
    let opening = ledger.commit(ledger.case_open("case", "ten_a"));
    let opened = entry_id(&ledger.entries[usize::try_from(opening).unwrap()]);

    let first = ledger.commit(ledger.case_append("l1", "ten_a", id("case"), id("e2")));
    assert_eq!(ledger.entry(first)["position"], 1);
    assert_eq!(ledger.entry(first)["previous"], opened.to_string());
    // Two more in one block, in its order.
    let links = vec![
        ledger.case_append("l2", "ten_a", id("case"), id("e1")),
        ledger.case_append("l3", "ten_a", id("case"), id("e3")),
    ];
    let executed = ledger.block(links);
    let second = ledger.entry(first + 1);
    let third = ledger.entry(first + 2);
    assert_eq!((second["position"].as_u64(), third["position"].as_u64()), (Some(2), Some(3)));
    assert_eq!(third["previous"], entry_id(&executed.entries[0]).to_string());
    assert_eq!(second["previous"], entry_id(&ledger.entries[usize::try_from(first).unwrap()]).to_string());
    assert_eq!(second["evidence_index"], 4);

    let reject = |ledger: &mut Ledger, label: &str, tenant: &str, case: Hash32, evidence: Hash32| {
        let operation = ledger.case_append(label, tenant, case, evidence);
        ledger.reject(operation)
    };
    assert_eq!(reject(&mut ledger, "again", "ten_a", id("case"), id("e1")), RejectionCode::EvidenceInCase);
    assert_eq!(reject(&mut ledger, "no case", "ten_a", id("nothing"), id("e1")), RejectionCode::CaseUnknown);
    assert_eq!(reject(&mut ledger, "evidence", "ten_a", id("e1"), id("e1")), RejectionCode::CaseUnknown);
    assert_eq!(reject(&mut ledger, "not theirs", "ten_b", id("case"), id("foreign")), RejectionCode::CaseUnknown);
    assert_eq!(reject(&mut ledger, "not ours", "ten_a", id("case"), id("foreign")), RejectionCode::EvidenceUnknown);
    assert_eq!(reject(&mut ledger, "no evidence", "ten_a", id("case"), id("nothing")), RejectionCode::EvidenceUnknown);

    // The same evidence may stand in another case; opening and first link in one block.
    let both = vec![ledger.case_open("case 2", "ten_a"), ledger.case_append("m1", "ten_a", id("case 2"), id("e1"))];
    let executed = ledger.block(both);
    let link: serde_json::Value = serde_json::from_slice(&executed.entries[1]).unwrap();
    assert_eq!(link["previous"], entry_id(&executed.entries[0]).to_string());
    assert_eq!(link["position"], 1);
}

#[test]
fn evidence_and_what_refers_to_it_in_one_block() {
    let mut ledger = Ledger::with_tenant(1);
    let operations = vec![
        ledger.redigest("too early", "ten_a", id("evidence")),
        ledger.evidence("evidence", "ten_a"),
        ledger.redigest("in time", "ten_a", id("evidence")),
    ];
    let executed = ledger.block(operations);
    let verdicts: Vec<_> = executed.outcomes.iter().map(|outcome| outcome.verdict).collect();
    assert_eq!(verdicts[0], Verdict::Rejected(RejectionCode::EvidenceUnknown));
    assert!(matches!(verdicts[1..], [Verdict::Committed { index: 3, .. }, Verdict::Committed { index: 4, .. }]));
}

#[test]
fn tenants_widen_by_quorum_and_narrow_without() {
    let mut ledger = Ledger::new(4);
    let insufficient = RejectionCode::ApprovalInsufficient;
    let key = Some(public(&signing_key("tenant key")));
    // New: tier 1 without a key is free, everything more is not.
    ledger.commit(ledger.tenant_set("new", "ten_a"));
    assert_eq!(ledger.entry(2)["tenant"], "ten_a");
    assert_eq!(ledger.reject(ledger.tenant_change("new at 2", "ten_b", |o| o.tier = 2)), insufficient);
    assert_eq!(ledger.reject(ledger.tenant_change("new with key", "ten_b", |o| o.key = key)), insufficient);
    let approved = ledger.approved(ledger.tenant_change("approved at 2", "ten_b", |o| o.tier = 2), 3);
    ledger.commit(approved);
    // Numbers run on over commits only.
    let record = |ledger: &Ledger, tenant: &str| -> serde_json::Value {
        serde_json::from_slice(&ledger.state[&key::tenant(tenant)]).unwrap()
    };
    assert_eq!(
        (record(&ledger, "ten_a")["number"].as_u64(), record(&ledger, "ten_b")["number"].as_u64()),
        (Some(1), Some(2))
    );

    // Higher, then lower.
    assert_eq!(ledger.reject(ledger.tenant_change("raise", "ten_a", |o| o.tier = 3)), insufficient);
    let raise = ledger.tenant_change("raise approved", "ten_a", |o| o.tier = 3);
    ledger.commit(ledger.approved(raise, 3));
    ledger.commit(ledger.tenant_change("lower", "ten_a", |o| o.tier = 2));
    assert_eq!(record(&ledger, "ten_a"), json!({"number": 1, "status": "active", "tier": 2}));
    // Suspended without, reactivated with a quorum.
    ledger.commit(ledger.tenant_change("suspend", "ten_a", |o| (o.status, o.tier) = (TenantStatus::Suspended, 2)));
    assert_eq!(ledger.reject(ledger.evidence("while suspended", "ten_a")), RejectionCode::TenantSuspended);
    assert_eq!(ledger.reject(ledger.tenant_change("resume", "ten_a", |o| o.tier = 2)), insufficient);
    let resume = ledger.tenant_change("resume approved", "ten_a", |o| o.tier = 2);
    ledger.commit(ledger.approved(resume, 4));
    ledger.commit(ledger.evidence("after", "ten_a"));
    // Set, changed and removed keys are changes of authority.
    for (label, key) in [("set", key), ("change", Some(id("x"))), ("remove", None)] {
        let change =
            |ledger: &Ledger, label: &str| ledger.tenant_change(label, "ten_a", |o| (o.tier, o.key) = (2, key));
        let bare = change(&ledger, &format!("{label} key"));
        assert_eq!(ledger.reject(bare), insufficient, "{label}");
        let approved = ledger.approved(change(&ledger, &format!("{label} key approved")), 3);
        ledger.commit(approved);
    }
}

#[test]
fn a_change_names_what_it_replaces_and_when_it_expires() {
    let mut ledger = Ledger::with_tenant(1);
    let height = ledger.parent.height;
    let stale = ledger.tenant_change("stale", "ten_a", |o| o.replaces = Hash32::ZERO);
    assert_eq!(ledger.reject(stale), RejectionCode::StateReplaced);
    let unknown = ledger.tenant_change("unknown", "ten_z", |o| o.replaces = id("something"));
    assert_eq!(ledger.reject(unknown), RejectionCode::StateReplaced);
    // `expires` is the last height at which a change may execute.
    let last = ledger.tenant_change("last", "ten_a", |o| o.expires = height + 3);
    ledger.commit(last);
    let late = ledger.tenant_change("late", "ten_a", |o| o.expires = height + 3);
    assert_eq!(ledger.reject(late), RejectionCode::ApprovalExpired);
    // Of two changes of one state in one block the second comes too late.
    let two = vec![
        ledger.tenant_change("one", "ten_a", |o| o.status = TenantStatus::Suspended),
        ledger.tenant_change("two", "ten_a", |_| {}),
    ];
    let executed = ledger.block(two);
    assert_eq!(executed.outcomes[1].verdict, Verdict::Rejected(RejectionCode::StateReplaced));
}

#[test]
fn a_tenant_with_a_key_signs_itself() {
    let (own, wrong) = (signing_key("own"), signing_key("wrong"));
    let mut ledger = Ledger::new(1);
    let set = ledger.tenant_change("tenant", "ten_a", |o| o.key = Some(public(&own)));
    ledger.commit(ledger.approved(set, 1));
    let missing = RejectionCode::TenantSignatureMissing;
    assert_eq!(ledger.reject(ledger.evidence("bare", "ten_a")), missing);
    assert_eq!(ledger.reject(ledger.signed_by_tenant(ledger.evidence("wrong", "ten_a"), &wrong)), missing);
    // A signature for another operation, for another network, or of another kind.
    let mut moved = ledger.evidence("moved", "ten_a");
    moved.signatures = ledger.signed_by_tenant(ledger.evidence("elsewhere", "ten_a"), &own).signatures;
    assert_eq!(ledger.reject(moved), missing);
    let mut foreign = ledger.evidence("foreign", "ten_a");
    let message = ledger_core::operation::tenant_message(&id("another chain"), &foreign.operation);
    foreign.signatures = vec![signature(&own, &message)];
    assert_eq!(ledger.reject(foreign), missing);
    let mut approval = ledger.evidence("approval", "ten_a");
    let message = ledger_core::operation::approval_message(&ledger.chain, &approval.operation);
    approval.signatures = vec![signature(&own, &message)];
    assert_eq!(ledger.reject(approval), missing);
    // The right one counts, among others too.
    let signed = ledger.signed_by_tenant(ledger.evidence("signed", "ten_a"), &wrong);
    ledger.commit(ledger.signed_by_tenant(signed, &own));
    for (at, operation) in [
        ledger.case_open("case", "ten_a"),
        ledger.case_append("link", "ten_a", id("case"), id("signed")),
        ledger.redigest("redigest", "ten_a", id("signed")),
    ]
    .into_iter()
    .enumerate()
    {
        let signed = ledger.signed_by_tenant(operation.clone(), &own);
        assert_eq!(ledger.attempt(&ledger.batch_of(vec![operation])).unwrap().entries.len(), 0, "{at}");
        ledger.commit(signed);
    }
    let record = state::operation_record(&ledger.state, &id("bare")).unwrap().unwrap();
    assert_eq!((record.tenant, record.result), (1, Err(missing)));
    let unknown = ledger.signed_by_tenant(ledger.evidence("unknown", "ten_b"), &own);
    assert_eq!(ledger.reject(unknown), RejectionCode::TenantUnknown);
}

#[test]
fn approvals_count_members_once() {
    for count in [1_u8, 3, 4] {
        let ledger = Ledger::new(count);
        let needed = quorum(count.into());
        let change = |label: &str| ledger.members_change(label, &consortium(count + 1));
        let verdict = |operation: SignedOperation| {
            let executed = ledger.attempt(&ledger.batch_of(vec![operation])).unwrap();
            match executed.outcomes[0].verdict {
                Verdict::Committed { .. } => None,
                Verdict::Rejected(code) => Some(code),
            }
        };
        let insufficient = Some(RejectionCode::ApprovalInsufficient);
        assert_eq!(verdict(ledger.approved(change("enough"), needed)), None);
        assert_eq!(verdict(ledger.approved(change("all"), count.into())), None);
        assert_eq!(verdict(ledger.approved(change("one short"), needed - 1)), insufficient);
        // One member many times, outsiders, and members with a key of another role.
        let twice = (0..needed + 1).fold(change("twice"), |operation, _| ledger.approved(operation, 1));
        assert_eq!(verdict(twice), if needed == 1 { None } else { insufficient });
        let outsiders: Vec<_> = (0..9).map(|at| MemberKeys::new(&format!("outsider{at}.example"))).collect();
        assert_eq!(verdict(ledger.approved_by(change("outsiders"), &outsiders)), insufficient);
        let mut roles = ledger.members.clone();
        roles.iter_mut().for_each(|member| member.governance = member.validator.clone());
        assert_eq!(verdict(ledger.approved_by(change("roles"), &roles)), insufficient);
        // Approvals of another change do not carry over.
        let mut replayed = change("replayed");
        replayed.signatures = ledger.approved(change("approved"), count.into()).signatures;
        assert_eq!(verdict(replayed), insufficient);
        // Key and signature of different members.
        let mut crossed = ledger.approved(change("crossed"), count.into());
        let keys: Vec<Hash32> = crossed.signatures.iter().map(|signature| signature.key).collect();
        for (at, signature) in crossed.signatures.iter_mut().enumerate() {
            signature.key = keys[(at + 1) % keys.len()];
        }
        assert_eq!(verdict(crossed), if count == 1 { None } else { insufficient });
    }
}

#[test]
fn members_change_two_heights_later() {
    let mut ledger = Ledger::new(4);
    let old = member_set(&ledger.members);
    let newcomers: Vec<MemberKeys> = ["v.example", "w.example", "x.example"].map(MemberKeys::new).to_vec();
    let new = member_set(&newcomers);
    let change = ledger.members_change("change", &newcomers);
    let approved = ledger.approved(change, 3);
    let executed = ledger.block(vec![approved.clone()]);
    let at = executed.header.height;
    let entry = ledger.entry(2);
    assert_eq!((entry["type"].as_str(), entry["effective"].as_u64()), (Some("members.set"), Some(at + MEMBERS_DELAY)));
    assert_eq!((executed.header.members, executed.header.next_members), (old.hash(), old.hash()));

    // One height later: still the old members; a second change has to wait.
    let second = ledger.members_change("second", &consortium(5));
    let second = ledger.approved(second, 4);
    let executed = ledger.block(vec![second]);
    assert_eq!(executed.outcomes[0].verdict, Verdict::Rejected(RejectionCode::ChangePending));
    assert_eq!((executed.header.members, executed.header.next_members), (old.hash(), new.hash()));

    // Then the block begins with `members.active`, and only the new submitters are heard.
    let by_old = ledger.batch_of(Vec::new());
    assert!(matches!(ledger.attempt(&by_old), Err(BatchError::Submitter(0))));
    ledger.members = newcomers;
    let operation = ledger.tenant_set("tenant", "ten_a");
    let executed = ledger.block(vec![operation]);
    assert_eq!((executed.header.members, executed.header.next_members), (new.hash(), new.hash()));
    assert_eq!(executed.entries.len(), 2);
    let active: serde_json::Value = serde_json::from_slice(&executed.entries[0]).unwrap();
    assert_eq!(
        active,
        json!({"height": at + 2, "members": new.hash().to_string(), "time": executed.header.time, "type": "members.active", "v": 1})
    );
    assert!(executed.changes.get(key::PENDING_MEMBERS).is_some_and(Option::is_none));
    assert_eq!(members(&ledger.state).unwrap(), new);
    assert!(!ledger.state.contains_key(key::PENDING_MEMBERS));

    // The approval cannot be used again: not under its own id, and the state it replaces is gone.
    let replay = ledger.batch_of(vec![approved]);
    assert!(matches!(ledger.attempt(&replay), Err(BatchError::Repeated(0))));
    // Old members approve nothing any more.
    let change = ledger.members_change("by the old", &consortium(4));
    let by_old = ledger.approved_by(change, &consortium(4));
    assert_eq!(ledger.reject(by_old), RejectionCode::ApprovalInsufficient);
    // A block without operations still opens with `members.active`.
    let back = ledger.approved(ledger.members_change("back", &consortium(4)), 3);
    ledger.commit(back);
    ledger.block(Vec::new());
    ledger.members = consortium(4);
    let size = ledger.parent.frontier.size().0;
    ledger.apply(&Batch::default()).unwrap();
    assert_eq!(ledger.parent.frontier.size().0, size + 1);
    assert_eq!(ledger.entry(size)["type"], "members.active");
}

#[test]
fn policy_versions_count_up() {
    let mut ledger = Ledger::new(4);
    let set = |ledger: &Ledger, label: &str, version: u64| {
        ledger.approved(ledger.policy_change(label, |o| o.policy.version = version), 3)
    };
    for (label, version) in [("same", 1), ("skipped", 3), ("zero", 0)] {
        let operation = set(&ledger, label, version);
        assert_eq!(ledger.reject(operation), RejectionCode::PolicyVersion, "{label}");
    }
    let bare = ledger.policy_change("bare", |_| {});
    assert_eq!(ledger.reject(bare), RejectionCode::ApprovalInsufficient);
    let stale = ledger.approved(ledger.policy_change("stale", |o| o.replaces = state_hash(None)), 4);
    assert_eq!(ledger.reject(stale), RejectionCode::StateReplaced);
    // Two versions in one block, each replacing the one before it.
    let second = set(&ledger, "second", 2);
    let mut next = ledger.clone();
    next.commit(second.clone());
    let third = set(&next, "third", 3);
    let executed = ledger.block(vec![second, third]);
    assert_eq!(executed.entries.len(), 2);
    assert_eq!(state::policy(&ledger.state).unwrap().version, 3);
    assert_eq!(ledger.entry(3)["policy"]["version"], 3);
}

#[test]
fn an_operation_id_is_used_once() {
    let mut ledger = Ledger::with_tenant(1);
    let operation = ledger.evidence("one", "ten_a");
    let twice = ledger.batch_of(vec![operation.clone(), operation.clone()]);
    assert!(matches!(ledger.attempt(&twice), Err(BatchError::Repeated(1))));
    let submissions = vec![operation.clone(), operation.clone()]
        .into_iter()
        .flat_map(|operation| ledger.batch_of(vec![operation]).submissions)
        .collect();
    assert!(matches!(ledger.attempt(&Batch { submissions }), Err(BatchError::Repeated(1))));
    ledger.commit(operation.clone());
    let again = ledger.batch_of(vec![ledger.evidence("other", "ten_a"), operation]);
    assert!(matches!(ledger.attempt(&again), Err(BatchError::Repeated(1))));
    // Another operation, another tenant, a rejected one: the id is taken all the same.
    let case = ledger.batch_of(vec![ledger.case_open("one", "ten_a")]);
    assert!(matches!(ledger.attempt(&case), Err(BatchError::Repeated(0))));
    ledger.reject(ledger.evidence("rejected", "ten_x"));
    let retry = ledger.batch_of(vec![ledger.evidence("rejected", "ten_a")]);
    assert!(matches!(ledger.attempt(&retry), Err(BatchError::Repeated(0))));
}

#[test]
fn only_submitters_of_the_members_in_force_are_heard() {
    let ledger = Ledger::with_tenant(4);
    let sign = |key: &ed25519_dalek::SigningKey, chain: &Hash32| Batch {
        submissions: vec![Submission::sign(chain, key, vec![ledger.evidence("one", "ten_a")])],
    };
    for member in &ledger.members {
        assert!(ledger.attempt(&sign(&member.submitter, &ledger.chain)).is_ok());
        for key in [&member.governance, &member.validator, &member.log, &member.cosigner] {
            assert!(matches!(ledger.attempt(&sign(key, &ledger.chain)), Err(BatchError::Submitter(0))));
        }
    }
    assert!(matches!(ledger.attempt(&sign(&signing_key("outsider"), &ledger.chain)), Err(BatchError::Submitter(0))));
    let submitter = &ledger.members[0].submitter;
    assert!(matches!(ledger.attempt(&sign(submitter, &id("another chain"))), Err(BatchError::Submitter(0))));
    let mut tampered = sign(submitter, &ledger.chain);
    tampered.submissions[0].signature[7] ^= 1;
    assert!(matches!(ledger.attempt(&tampered), Err(BatchError::Submitter(0))));
    let mut reordered = ledger.batch_of(vec![ledger.evidence("one", "ten_a"), ledger.evidence("two", "ten_a")]);
    reordered.submissions[0].items.swap(0, 1);
    assert!(matches!(ledger.attempt(&reordered), Err(BatchError::Submitter(0))));
    let mut shortened = ledger.batch_of(vec![ledger.evidence("one", "ten_a"), ledger.evidence("two", "ten_a")]);
    shortened.submissions[0].items.pop();
    assert!(matches!(ledger.attempt(&shortened), Err(BatchError::Submitter(0))));
}

#[test]
fn a_proposer_cannot_drop_or_add_the_signatures_of_an_operation() {
    let own = signing_key("own");
    let mut ledger = Ledger::new(4);
    let set = ledger.tenant_change("tenant", "ten_a", |o| o.key = Some(public(&own)));
    ledger.commit(ledger.approved(set, 3));
    let signed = ledger.signed_by_tenant(ledger.evidence("one", "ten_a"), &own);
    let honest = ledger.batch_of(vec![signed]);
    assert_eq!(ledger.attempt(&honest).unwrap().entries.len(), 1);
    for change in [
        |signed: &mut SignedOperation| signed.signatures.clear(),
        |signed: &mut SignedOperation| {
            signed.signatures.push(signed.signatures[0]);
        },
    ] {
        let mut altered = honest.clone();
        if let Item::Full(signed) = &mut altered.submissions[0].items[0] {
            change(signed);
        }
        assert!(matches!(ledger.attempt(&altered), Err(BatchError::Submitter(0))));
    }
}

#[test]
fn malformed_and_foreign_operations_make_no_block() {
    let ledger = Ledger::with_tenant(1);
    let good = ledger.evidence("good", "ten_a");
    let foreign = ledger.evidence_with("foreign", "ten_a", |o| o.chain = id("another chain"));
    let batch = ledger.batch_of(vec![good.clone(), foreign]);
    assert!(matches!(ledger.attempt(&batch), Err(BatchError::Chain(1))));
    let batch = ledger.batch_of(vec![good, SignedOperation::unsigned(b"{}".to_vec())]);
    assert!(matches!(ledger.attempt(&batch), Err(BatchError::Operation { op: 1, .. })));
    let run = |bytes: &[u8]| execute(&ledger.state, &ledger.parent, &ledger.chain, bytes, ledger.parent.time, None);
    assert!(matches!(run(b""), Err(BatchError::Decode(_))));
    assert!(matches!(run(b"\0\0\0\x01"), Err(BatchError::Decode(_))));
    assert!(matches!(run(b"\0\0\0\0\0"), Err(BatchError::Decode(_))));
    assert!(run(b"\0\0\0\0").is_ok());
}

#[test]
fn omitted_items_keep_the_signature_and_do_nothing() {
    let mut ledger = Ledger::with_tenant(1);
    let labels = ["one", "two", "three"];
    let mut batch = ledger.batch_of(labels.iter().map(|label| ledger.evidence(label, "ten_a")).collect());
    ledger.commit(ledger.evidence("two", "ten_a"));
    assert!(matches!(ledger.attempt(&batch), Err(BatchError::Repeated(1))));
    let hash = batch.submissions[0].items[1].hash();
    omit(&mut batch.submissions[0].items[1]);
    assert_eq!(batch.submissions[0].items[1], Item::Omitted(hash));
    omit(&mut batch.submissions[0].items[1]);
    assert_eq!(batch.submissions[0].items[1].hash(), hash);
    let executed = ledger.apply(&batch).unwrap();
    let ops: Vec<Hash32> = executed.outcomes.iter().map(|outcome| outcome.op).collect();
    assert_eq!(ops, [id("one"), id("three")]);
    assert_eq!(batch.operations().count(), 2);
    // Another hash in its place, and the submission no longer stands.
    batch.submissions[0].items[1] = Item::Omitted(id("something else"));
    assert!(!batch.submissions[0].verify(&ledger.chain));
}

#[test]
fn time_does_not_run_backwards() {
    let ledger = Ledger::new(1);
    let empty = Batch::default().encode();
    let at = |time: u64| execute(&ledger.state, &ledger.parent, &ledger.chain, &empty, time, None);
    assert!(matches!(at(GENESIS_TIME - 1), Err(BatchError::Time)));
    assert_eq!(at(GENESIS_TIME).unwrap().header.time, GENESIS_TIME);
    assert_eq!(at(INTEGER_MAX).unwrap().header.time, INTEGER_MAX);
    assert!(matches!(at(INTEGER_MAX + 1), Err(BatchError::Time)));
}

#[test]
fn an_empty_block_adds_a_header_and_nothing_else() {
    let mut ledger = Ledger::with_tenant(1);
    let before = (ledger.parent.frontier.clone(), ledger.state.clone(), ledger.parent.hash);
    let executed = ledger.apply(&Batch::default()).unwrap();
    assert!(executed.entries.is_empty() && executed.outcomes.is_empty() && executed.changes.is_empty());
    assert_eq!((&ledger.parent.frontier, &ledger.state), (&before.0, &before.1));
    assert_eq!((executed.header.previous, executed.header.height), (before.2, 2));
}

#[test]
fn state_digests_stand_at_their_heights() {
    assert_eq!(state_digest_height(0), None);
    assert_eq!(state_digest_height(STATE_DIGEST_INTERVAL), None);
    assert_eq!(state_digest_height(2 * STATE_DIGEST_INTERVAL), Some(STATE_DIGEST_INTERVAL));
    assert_eq!(state_digest_height(2 * STATE_DIGEST_INTERVAL + 1), None);
    let mut ledger = Ledger::new(1);
    ledger.parent.height = 2 * STATE_DIGEST_INTERVAL - 1;
    let empty = Batch::default().encode();
    let at = |digest| execute(&ledger.state, &ledger.parent, &ledger.chain, &empty, GENESIS_TIME, digest);
    assert!(matches!(at(None), Err(BatchError::StateDigest)));
    assert_eq!(at(Some(id("state"))).unwrap().header.state, Some(id("state")));
    ledger.parent.height += 1;
    let at = |digest| execute(&ledger.state, &ledger.parent, &ledger.chain, &empty, GENESIS_TIME, digest);
    assert!(matches!(at(Some(id("state"))), Err(BatchError::StateDigest)));
}

#[test]
fn damaged_state_stops_execution() {
    struct Failing;
    impl StateRead for Failing {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
            Err(StateError::Storage("disk".to_owned()))
        }
    }
    let ledger = Ledger::with_tenant(1);
    let empty = Batch::default().encode();
    let failed = execute(&Failing, &ledger.parent, &ledger.chain, &empty, GENESIS_TIME + 5000, None);
    assert!(matches!(failed, Err(BatchError::State(StateError::Storage(_)))));
    let operations = vec![
        ledger.evidence("one", "ten_a"),
        ledger.tenant_set("new", "ten_b"),
        ledger.case_append("link", "ten_a", id("case"), id("one")),
    ];
    let mut cased = ledger.clone();
    cased.block(vec![ledger.case_open("case", "ten_a")]);
    for damaged in [key::MEMBERS.to_vec(), key::TENANT_COUNT.to_vec(), key::tenant("ten_a"), key::case(&id("case"))] {
        let mut ledger = cased.clone();
        ledger.state.insert(damaged.clone(), b"{".to_vec());
        let batch = ledger.batch_of(operations.clone());
        assert!(
            matches!(ledger.attempt(&batch), Err(BatchError::State(StateError::Damaged(_)))),
            "{}",
            String::from_utf8_lossy(&damaged)
        );
    }
    let mut ledger = cased;
    ledger.state.insert(key::operation(&id("one")), vec![9]);
    let batch = ledger.batch_of(operations);
    assert!(matches!(ledger.attempt(&batch), Err(BatchError::State(StateError::Damaged(_)))));
}

#[test]
fn the_largest_entries_fit() {
    let mut ledger = Ledger::new(1);
    let many: Vec<_> = (0..31).map(|at| MemberKeys::new(&format!("m{at:02}.example"))).collect();
    let change = ledger.members_change("many", &many);
    let index = ledger.commit(ledger.approved(change, 1));
    assert!(ledger.entries[usize::try_from(index).unwrap()].len() <= ENTRY_BYTES_MAX);
}
