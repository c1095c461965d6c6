//! Policy files: the example of C2SP `tlog-policy`, faults, and the policy of a member set.

use std::collections::BTreeSet;

use ledger_core::{
    member::{Member, MemberSet, MemberSetError, faults_tolerated, is_domain, quorum},
    note::{KeyType, VerifierKey},
    policy::{DEFAULT_HOLD_DAYS, HOLD_DAYS_MAX, Policy},
    policy_file::{POLICY_ITEMS_MAX, PolicyFile},
};
use proptest::prelude::*;

use crate::support::{ORIGIN, consortium, member_set, public, signing_key};

fn vkey(name: &str, key_type: KeyType, label: &str) -> String {
    VerifierKey::new(name, key_type, signing_key(label).verifying_key()).expect("a key name").vkey()
}

fn log(label: &str) -> String {
    vkey(ORIGIN, KeyType::Ed25519, label)
}

fn log_line() -> String {
    format!("log {}\n", log("log"))
}

fn witness(name: &str) -> String {
    let ascii = name.trim_matches(|character: char| !character.is_ascii());
    format!("witness {name} {}\n", vkey(&format!("{ascii}.example"), KeyType::Cosignature, name))
}

fn parse(text: &str) -> Result<PolicyFile, &'static str> {
    PolicyFile::parse(text).map_err(|error| error.fault)
}

#[test]
fn example_of_the_specification() {
    let mut text = format!("log {}\n\n", log("log"));
    ["X1", "X2", "X3"].into_iter().for_each(|name| text.push_str(&witness(name)));
    text.push_str("group X-witnesses 2 X1 X2 X3\n\n");
    ["Y1", "Y2", "Y3"].into_iter().for_each(|name| text.push_str(&witness(name)));
    text.push_str("group Y-witnesses any Y1 Y2 Y3\n\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n");
    let policy = parse(&text).unwrap();
    assert_eq!((policy.logs.len(), policy.witnesses.len(), policy.nodes.len()), (1, 6, 9));
    assert_eq!(policy.quorum_witnesses(), (0..6).collect());
    for mask in 0_u32..64 {
        let cosigned: BTreeSet<usize> = (0..6).filter(|at| mask >> at & 1 == 1).collect();
        let expected = (mask & 0b111).count_ones() >= 2 && mask & 0b111_000 != 0;
        assert_eq!(policy.satisfied_by(&cosigned), expected, "{mask:06b}");
    }
}

#[test]
fn layout_is_free_where_the_specification_says_so() {
    let text = format!(
        "  # comment \n#\n\t\n \tlog\t{}  https://example.com \t\n#\u{e9}\n{}quorum   w",
        log("log"),
        witness("w").replace('\n', " https://w.example/submit\n")
    );
    assert!(parse(&text).is_ok());
    assert!(parse(&format!("quorum none\nlog {}", log("log"))).unwrap().satisfied_by(&BTreeSet::new()));
    // Names are octets: two that are no UTF-8 are still two.
    let lines = [("a\u{fc}", 0xfc_u8), ("b\u{fd}", 0xfd)].map(|(label, byte)| {
        let mut line = witness(label).replace(&format!("witness {label} "), "witness w? ").into_bytes();
        line[9] = byte;
        line
    });
    let text = |quorum: u8| [log_line().into_bytes(), lines.concat(), b"quorum w".to_vec(), vec![quorum]].concat();
    let policy = PolicyFile::parse_bytes(&text(0xfd)).unwrap();
    assert_eq!(policy.quorum_witnesses(), BTreeSet::from([1]));
    assert!(PolicyFile::parse_bytes(&text(0xfe)).is_err());
}

#[test]
fn faults_are_named() {
    let log_line = format!("log {}\n", log("log"));
    let base = format!("{log_line}{}{}", witness("a"), witness("b"));
    assert!(parse(&format!("{base}group g 2 a b\nquorum g\n")).is_ok());
    let faults = [
        (String::new(), "no quorum line"),
        (base.clone(), "no quorum line"),
        ("quorum none\n".to_owned(), "no log line"),
        (format!("{base}quorum a\nquorum b\n"), "second quorum line"),
        (format!("{base}quorum a\nquorum none\n"), "second quorum line"),
        (format!("{base}quorum c\n"), "quorum is not defined above"),
        (format!("{log_line}quorum a\n{}", witness("a")), "quorum is not defined above"),
        (format!("{base}quorum\n"), "not a log, witness, group or quorum line"),
        (format!("{base}quorum a b\n"), "not a log, witness, group or quorum line"),
        (format!("{base}Quorum a\n"), "not a log, witness, group or quorum line"),
        (format!("{base}group g\n"), "not a log, witness, group or quorum line"),
        (format!("{base}group g 1\n"), "group threshold is not between 1 and its members"),
        (format!("{base}group g any\n"), "group threshold is not between 1 and its members"),
        (format!("{base}group g 0 a\n"), "group threshold is not between 1 and its members"),
        (format!("{base}group g 3 a b\n"), "group threshold is not between 1 and its members"),
        (format!("{base}group g -1 a b\n"), "group threshold is not a number, 'any' or 'all'"),
        (format!("{base}group g +1 a b\n"), "group threshold is not a number, 'any' or 'all'"),
        (format!("{base}group g 01 a b\n"), "group threshold is not a number, 'any' or 'all'"),
        (format!("{base}group g ANY a b\n"), "group threshold is not a number, 'any' or 'all'"),
        (format!("{base}group g 18446744073709551617 a b\n"), "group threshold is not a number, 'any' or 'all'"),
        (format!("{base}group g 1 a a\n"), "group member is in a group already"),
        (format!("{base}group g 1 a\ngroup h 1 a\n"), "group member is in a group already"),
        (format!("{base}group g 1 g\n"), "group member is not defined above"),
        (format!("{base}group g 1 none\n"), "group member is not defined above"),
        (format!("{base}group g 1 h\ngroup h 1 a\n"), "group member is not defined above"),
        (format!("{base}group a 1 b\n"), "name is taken"),
        (format!("{base}group none 1 a\n"), "name is taken"),
        (format!("{base}{}", witness("b").replace("witness b ", "witness c ")), "witness key twice"),
        (format!("{base}witness a {}\n", vkey("c.example", KeyType::Cosignature, "c")), "name is taken"),
        (format!("{base}witness none {}\n", vkey("c.example", KeyType::Cosignature, "c")), "name is taken"),
        (
            format!("{base}witness c {}\n", vkey("c.example", KeyType::Ed25519, "c")),
            "a witness key has signature type 0x04",
        ),
        (format!("{base}witness c {}x\n", vkey("c.example", KeyType::Cosignature, "c")), "witness key is malformed"),
        (format!("{base}log {}\n", log("log")), "log key twice"),
        (format!("{base}log {}\n", vkey("other.example/log", KeyType::Ed25519, "log")), "log key twice"),
        (
            format!("{base}log {}\nquorum none\n", vkey("other.example/log", KeyType::Ed25519, "other")),
            "log keys under different origins",
        ),
        (format!("log {}\n", vkey(ORIGIN, KeyType::Cosignature, "log")), "a log key has signature type 0x01"),
        ("log x\n".to_owned(), "log key is malformed"),
        (format!("{base}quorum a\r\n"), "control character"),
        (format!("{base}# \u{7f}\nquorum a\n"), "control character"),
        (format!("{base}# \u{0}\nquorum a\n"), "control character"),
    ];
    for (text, fault) in faults {
        assert_eq!(parse(&text), Err(fault), "{text}");
    }
    let error = PolicyFile::parse(&format!("{log_line}\nquorum a\n")).unwrap_err();
    assert_eq!(error.to_string(), "policy line 3: quorum is not defined above");
}

#[test]
fn at_least_32_of_each_and_no_more_than_the_bounds() {
    let witnesses = |count: usize| (0..count).map(|at| witness(&format!("w{at}"))).collect::<String>();
    let logs = |count: usize| (0..count).map(|at| format!("log {}\n", log(&format!("log {at}")))).collect::<String>();
    let groups = |count: usize| (0..count).map(|at| format!("group g{at} 1 w{at}\n")).collect::<String>();
    assert!(parse(&format!("{}{}{}quorum g31\n", logs(32), witnesses(32), groups(32))).is_ok());
    assert!(parse(&format!("{}quorum none\n", logs(POLICY_ITEMS_MAX))).is_ok());
    assert_eq!(parse(&logs(POLICY_ITEMS_MAX + 1)), Err("too many logs"));
    assert_eq!(parse(&witnesses(2 * POLICY_ITEMS_MAX + 1)), Err("too many witnesses and groups"));
    // Groups as deep as the bound allows.
    let mut text = format!("log {}\n{}group g0 1 w\n", log("log"), witness("w"));
    (1..2 * POLICY_ITEMS_MAX - 1).for_each(|at| text.push_str(&format!("group g{at} all g{}\n", at - 1)));
    let policy = parse(&format!("{text}quorum g{}\n", 2 * POLICY_ITEMS_MAX - 2)).unwrap();
    assert!(policy.satisfied_by(&BTreeSet::from([0])));
    assert!(!policy.satisfied_by(&BTreeSet::new()));
}

#[test]
fn quorums_of_the_design() {
    assert_eq!([1, 2, 3, 4, 5, 6, 7].map(quorum), [1, 2, 3, 3, 4, 5, 5]);
    assert_eq!([0, 1, 2, 3, 4, 6, 7, 10].map(faults_tolerated), [0, 0, 0, 0, 1, 1, 2, 3]);
    for n in 1..=31 {
        // Two quorums share an honest member, and the honest alone are a quorum.
        assert!(2 * quorum(n) - n > faults_tolerated(n));
        assert!(n - faults_tolerated(n) >= quorum(n) || n < 4);
    }
}

#[test]
fn policy_of_a_member_set() {
    for count in [1, 3, 4, 7] {
        let members = member_set(&consortium(count));
        let text = PolicyFile::text_of_members(ORIGIN, &members);
        let policy = parse(&text).unwrap();
        assert!(policy.logs.iter().all(|log| log.name() == ORIGIN));
        assert_eq!(policy.logs.len(), usize::from(count));
        for (member, witness) in members.iter().zip(&policy.witnesses) {
            assert_eq!(witness.name(), format!("{}/cosigner", member.domain));
        }
        let cosigned = |k: usize| policy.satisfied_by(&(0..k).collect());
        assert!(cosigned(quorum(count.into())) && !cosigned(quorum(count.into()) - 1));
        assert_eq!(policy.quorum_witnesses().len(), usize::from(count));
    }
    let text = PolicyFile::text_of_members(ORIGIN, &member_set(&consortium(4)));
    assert!(text.starts_with("# Chopmark trust policy of ledger.example/log\nlog ledger.example/log+"));
    assert!(text.ends_with("group members 3 a.example b.example c.example d.example\nquorum members\n"));
}

#[test]
fn member_sets_are_checked() {
    let members: Vec<Member> = consortium(3).iter().map(super::support::MemberKeys::member).collect();
    let changed = |change: &dyn Fn(&mut Vec<Member>)| {
        let mut members = members.clone();
        change(&mut members);
        MemberSet::new(members)
    };
    assert!(changed(&|_| {}).is_ok());
    assert_eq!(changed(&Vec::clear), Err(MemberSetError::Count));
    assert_eq!(changed(&|members| members.reverse()), Err(MemberSetError::Order));
    assert_eq!(changed(&|members| members[1] = members[0].clone()), Err(MemberSetError::Order));
    assert_eq!(changed(&|members| members[0].domain = "A.example".to_owned()), Err(MemberSetError::Domain));
    let key_fault = Err(MemberSetError::Key("c.example".to_owned()));
    assert_eq!(changed(&|members| members[2].log_key = members[0].validator_key), key_fault);
    assert_eq!(changed(&|members| members[2].log_key = members[2].cosigner_key), key_fault);
    assert_eq!(changed(&|members| members[2].submitter_keys = vec![members[2].governance_key]), key_fault);
    // The identity of the curve, a point of order two, and no point at all.
    for bytes in [[1; 1].as_slice(), &[0xec], &[2]] {
        let mut key = [if bytes == [0xec] { 0xff } else { 0 }; 32];
        key[0] = bytes[0];
        if bytes == [0xec] {
            key[31] = 0x7f;
        }
        assert_eq!(changed(&|members| members[2].validator_key.0 = key), key_fault, "{key:?}");
    }
    let keys = |count: usize| (0..count).map(|at| public(&signing_key(&format!("submitter {at}")))).collect::<Vec<_>>();
    assert!(changed(&|members| members[0].submitter_keys = keys(16)).is_ok());
    assert!(changed(&|members| members[0].submitter_keys = Vec::new()).is_ok());
    assert_eq!(
        changed(&|members| members[0].submitter_keys = keys(17)),
        Err(MemberSetError::Submitters("a.example".to_owned()))
    );
    let many = |count: u32| -> Vec<Member> {
        (0..count).map(|at| super::support::MemberKeys::new(&format!("m{at:02}.example")).member()).collect()
    };
    assert!(MemberSet::new(many(31)).is_ok());
    assert_eq!(MemberSet::new(many(32)), Err(MemberSetError::Count));
}

#[test]
fn domains() {
    for domain in ["a.b", "xn--fiqs8s.example", "a-b.c0", "0.1", &format!("{}.example", "a".repeat(63))] {
        assert!(is_domain(domain), "{domain}");
    }
    for domain in [
        "",
        "a",
        ".a",
        "a.",
        "a..b",
        "A.b",
        "-a.b",
        "a-.b",
        "a_b.c",
        "a b.c",
        "é.fr",
        "a.b/",
        "a+b.c",
        &format!("{}.example", "a".repeat(64)),
        &format!("{}a", "a.".repeat(127)),
    ] {
        assert!(!is_domain(domain), "{domain}");
    }
    assert!(is_domain(&format!("{}a", "a.".repeat(126))));
}

#[test]
fn policies_make_sense_in_themselves() {
    let valid = |change: &dyn Fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.is_valid()
    };
    assert_eq!(Policy::default().first_hold_days, DEFAULT_HOLD_DAYS);
    assert!(valid(&|_| {}) && valid(&|policy| policy.tiers.clear()));
    assert!(valid(&|policy| policy.first_hold_days = HOLD_DAYS_MAX));
    assert!(!valid(&|policy| policy.first_hold_days = HOLD_DAYS_MAX + 1));
    assert!(!valid(&|policy| policy.next_hold_days = HOLD_DAYS_MAX + 1));
    assert!(!valid(&|policy| policy.minimum_age = 151));
    for tiers in [vec![0], vec![4], vec![1, 1], vec![2, 1], vec![1, 2, 3, 4]] {
        assert!(!valid(&|policy| policy.tiers.clone_from(&tiers)));
    }
    assert!(HOLD_DAYS_MAX.checked_mul(86_400_000).is_some_and(|ms| ms < 1 << 53));
}

proptest! {
    #[test]
    fn hostile_policies_do_not_panic(lines in prop::collection::vec("(log|witness|group|quorum)?[ \t]?[a-c0-9+# ]{0,12}|\\PC{0,20}", 0..12)) {
        let _ = PolicyFile::parse(&lines.join("\n"));
    }
}
