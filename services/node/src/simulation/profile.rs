//! What kind of world a seed is, and whose keys are in it.

use std::{collections::BTreeSet, sync::OnceLock};

use ledger_core::{
    Hash32, SigningKey,
    hash::sha3_256,
    member::{Member, MemberSet, faults_tolerated},
};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::keys::{NodeKeys, SigningKeys};

pub(super) const MEMBERS_MAX: usize = 5;

pub(super) struct Keys {
    pub(super) node: NodeKeys,
    pub(super) governance: SigningKey,
    pub(super) submitter: SigningKey,
}

pub(super) fn keys(member: usize) -> &'static Keys {
    static KEYS: OnceLock<Vec<Keys>> = OnceLock::new();
    let of = |member: u8| {
        let key = |which: u8| SigningKey::from_bytes(&sha3_256(&[b's', member, which]).0);
        Keys {
            node: NodeKeys::in_memory(SigningKeys { log: key(0), cosigner: key(1), validator: key(2) }, key(3), key(4)),
            governance: key(5),
            submitter: key(6),
        }
    };
    &KEYS.get_or_init(|| (0..u8::try_from(MEMBERS_MAX).unwrap()).map(of).collect())[member]
}

pub(super) fn domain(member: usize) -> String {
    format!("member{member}.test")
}

pub(super) fn public(key: &SigningKey) -> Hash32 {
    Hash32(key.verifying_key().to_bytes())
}

pub(super) fn member_set(members: &BTreeSet<usize>) -> MemberSet {
    let member = |at: &usize| {
        let keys = keys(*at);
        Member {
            cosigner_key: public(&keys.node.newest().cosigner),
            domain: domain(*at),
            governance_key: public(&keys.governance),
            log_key: public(&keys.node.newest().log),
            submitter_keys: vec![public(&keys.submitter)],
            validator_key: public(&keys.node.newest().validator),
        }
    };
    MemberSet::new(members.iter().map(member).collect()).unwrap()
}

/// What kind of world a seed is.
pub(super) struct Profile {
    pub(super) nodes: usize,
    pub(super) members: usize,
    pub(super) delay: (u64, u64),
    pub(super) loss: f64,
    pub(super) double: f64,
    /// Chance that index and tiles are brought up to date after an event.
    pub(super) derive: f64,
    pub(super) submissions: usize,
    /// Operations of one submission that fills tiles.
    pub(super) large: usize,
    /// How many such submissions there are.
    pub(super) larges: usize,
    pub(super) faults: usize,
    pub(super) liar: Option<usize>,
    pub(super) older_copies: bool,
    pub(super) changes_members: bool,
    /// Whose engine's log is lost at every crash; it crashes where it has just locked, too.
    pub(super) forgetful: Option<usize>,
}

impl Profile {
    pub(super) fn draw(random: &mut ChaCha8Rng) -> Self {
        let members = [1, 1, 2, 3, 4, 4, 4, 4, 4, 5][random.random_range(0..10)];
        let changes_members = members > 1 && random.random_bool(0.2);
        let nodes = MEMBERS_MAX.min(members + usize::from(changes_members));
        let liar = (faults_tolerated(members) > 0 && !changes_members && random.random_bool(0.35))
            .then(|| random.random_range(0..members));
        let slow = [2_000, 20_000, 100_000][random.random_range(0..3)];
        let rough = random.random_bool(0.5);
        let older_copies = liar.is_none() && !changes_members && random.random_bool(0.5);
        let forgetful = (faults_tolerated(members) > 0 && liar.is_none() && !changes_members && !older_copies)
            .then(|| random.random_range(0..members));
        Self {
            nodes,
            members,
            delay: (500, slow),
            loss: if rough { random.random_range(0.0..0.15) } else { 0.0 }
                + if forgetful.is_some() { 0.2 } else { 0.0 },
            double: if rough { random.random_range(0.0..0.1) } else { 0.0 },
            derive: [0.02, 0.2, 1.0][random.random_range(0..3)],
            submissions: random.random_range(3..7),
            large: if random.random_bool(0.06) { random.random_range(256..300) } else { 0 },
            larges: 1,
            faults: random.random_range(1..10),
            liar,
            older_copies,
            changes_members,
            forgetful,
        }
    }
}
