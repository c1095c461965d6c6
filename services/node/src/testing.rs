//! What several unit tests need.

use ledger_core::{
    Hash32, SigningKey,
    member::{Member, MemberSet},
};

pub(crate) fn domain(number: u8) -> String {
    format!("member{number}.test")
}

/// `member1.test` and so on, each with keys of its own.
pub(crate) fn members(count: u8) -> MemberSet {
    let key =
        |number: u8, which: u8| Hash32(SigningKey::from_bytes(&[number * 10 + which; 32]).verifying_key().to_bytes());
    let member = |number: u8| Member {
        cosigner_key: key(number, 0),
        domain: domain(number),
        governance_key: key(number, 1),
        log_key: key(number, 2),
        submitter_keys: vec![key(number, 3)],
        validator_key: key(number, 4),
    };
    MemberSet::new((1..=count).map(member).collect()).unwrap()
}
