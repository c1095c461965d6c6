//! Cosigning: every member signs the sizes and roots that it computed itself; what a quorum signed
//! is published. Signatures travel as signed notes and are checked one by one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ledger_core::{
    Hash32,
    checkpoint::Checkpoint,
    equivocation::{Equivocation, EquivocationKind, SignedMessage},
    member::{Member, MemberSet},
    merkle::TreeSize,
    note::{Note, SignatureLine},
    operation::V1,
};

use crate::bugs::{Bug, has};

/// Cosignatures kept of each member, the newest that came. What an honest member signs in three
/// seconds; more would let one member fill the memory of all.
const HEARD_MAX: usize = 32;
/// Own checkpoints that wait for others. The newest cover everything below.
const OPEN_MAX: usize = 64;
/// Signatures that have not led to a quorum are sent again this often.
pub(crate) const RESEND: Duration = Duration::from_millis(250);

/// A checkpoint that this node signed, with the cosignatures that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) checkpoint: Checkpoint,
    /// Height of the newest block that it covers.
    pub(crate) height: u64,
    /// The members whose quorum it needs.
    pub(crate) members: Arc<MemberSet>,
    /// Line by this node's log key.
    pub(crate) log_line: SignatureLine,
    /// Cosignature lines by cosigner name, this node's own among them.
    pub(crate) cosignatures: BTreeMap<String, SignatureLine>,
}

impl Open {
    fn is_complete(&self) -> bool {
        let count = self.cosignatures.len() + usize::from(has(Bug::CosigningCountsOneTooMany));
        count >= self.members.quorum() || has(Bug::PublishesWithoutQuorum)
    }

    /// The note as this node publishes it: log line, then cosigners by name.
    pub(crate) fn note(&self) -> String {
        let mut signatures = vec![self.log_line.clone()];
        signatures.extend(self.cosignatures.values().cloned());
        Note { text: self.checkpoint.text(), signatures }.render()
    }
}

struct HeardLine {
    key: Hash32,
    size: TreeSize,
    text: String,
    line: SignatureLine,
}

/// What this node signed and what it heard of others.
#[derive(Default)]
pub(crate) struct Cosigning {
    open: BTreeMap<TreeSize, Open>,
    heard: BTreeMap<String, VecDeque<HeardLine>>,
    sent_at: Duration,
}

impl Cosigning {
    /// Takes over a checkpoint that this node just signed.
    pub(crate) fn signed(&mut self, mut open: Open) {
        let text = open.checkpoint.text();
        for member in open.members.iter() {
            let name = member.cosigner_name();
            let same = |heard: &&HeardLine| {
                heard.size == open.checkpoint.size && heard.text == text && heard.key == member.cosigner_key
            };
            if let Some(heard) = self.heard.get(&name).and_then(|lines| lines.iter().find(same)) {
                open.cosignatures.insert(name, heard.line.clone());
            }
        }
        self.open.insert(open.checkpoint.size, open);
        while self.open.len() > OPEN_MAX {
            self.open.pop_first();
        }
    }

    /// A block without entries: the open checkpoint of this size covers it too.
    pub(crate) fn covers(&mut self, size: TreeSize, height: u64) {
        if let Some(open) = self.open.get_mut(&size) {
            open.height = height;
        }
    }

    /// Takes in the cosignatures of a note about the log `origin` that verify. Returns what contradicts an earlier
    /// signature of the same member.
    pub(crate) fn heard(&mut self, note: &Note, origin: &str, members: &MemberSet) -> Vec<Equivocation> {
        let checkpoint = Checkpoint::parse(&note.text).ok().filter(|checkpoint| checkpoint.origin == origin);
        let Some(checkpoint) = checkpoint else { return Vec::new() };
        members.iter().filter_map(|member| self.heard_of(member, note, &checkpoint)).collect()
    }

    fn heard_of(&mut self, member: &Member, note: &Note, checkpoint: &Checkpoint) -> Option<Equivocation> {
        let key = member.cosigner_verifier();
        let line = note.signatures.iter().find(|line| line.name == key.name() && line.id == key.id())?;
        // One that does not verify says nothing about anybody.
        key.verify(&note.text, &line.payload).ok()??;
        let lines = self.heard.entry(key.name().to_owned()).or_default();
        if let Some(known) =
            lines.iter().find(|known| known.size == checkpoint.size && known.key == member.cosigner_key)
        {
            return (known.text != note.text).then(|| Equivocation {
                first: signed_message(&known.text, &known.line),
                height: checkpoint.size.0,
                key: Hash32(*key.key().as_bytes()),
                kind: EquivocationKind::Checkpoint,
                member: member.domain.clone(),
                second: signed_message(&note.text, line),
                v: V1,
            });
        }
        lines.push_back(HeardLine {
            key: member.cosigner_key,
            size: checkpoint.size,
            text: note.text.clone(),
            line: line.clone(),
        });
        while lines.len() > HEARD_MAX {
            lines.pop_front();
        }
        if let Some(open) = self.open.get_mut(&checkpoint.size)
            && (open.checkpoint.text() == note.text || has(Bug::CosigningTakesAnotherRoot))
            && open.members.iter().any(|known| known.cosigner_key == member.cosigner_key)
        {
            open.cosignatures.insert(key.name().to_owned(), line.clone());
        }
        None
    }

    /// The largest checkpoint with a quorum; what it covers is done.
    pub(crate) fn take_complete(&mut self) -> Option<Open> {
        let size = *self.open.iter().rev().find(|(_, open)| open.is_complete())?.0;
        let above = self.open.split_off(&TreeSize(size.0 + 1));
        std::mem::replace(&mut self.open, above).remove(&size)
    }

    /// This node's own signature of its newest open checkpoint, when it is time to send it again.
    pub(crate) fn resend(&mut self, now: Duration, own_name: &str) -> Option<String> {
        if now.saturating_sub(self.sent_at) < RESEND || (has(Bug::CosigningNeverSendsAgain) && !self.sent_at.is_zero())
        {
            return None;
        }
        let open = self.open.last_key_value()?.1;
        let own = open.cosignatures.get(own_name)?.clone();
        self.sent_at = now;
        Some(Note { text: open.checkpoint.text(), signatures: vec![own] }.render())
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }
}

/// A cosignature as bytes and Ed25519 signature over them (C2SP `tlog-cosignature`).
fn signed_message(text: &str, line: &SignatureLine) -> SignedMessage {
    let (time, signature) = line.payload.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let message = ledger_core::note::cosigned_message(u64::from_be_bytes(*time), text);
    SignedMessage { message: hex::encode(message), signature: hex::encode(signature) }
}

#[cfg(test)]
mod tests {
    use ledger_core::{
        SigningKey,
        note::{cosign, sign},
    };

    use super::*;

    const ORIGIN: &str = "sandbox.test/log";

    fn secret(number: u8, which: u8) -> SigningKey {
        SigningKey::from_bytes(&[number * 10 + which; 32])
    }

    /// `cosigner` says which of its keys each member cosigns with.
    fn members(cosigner: [u8; 4]) -> Arc<MemberSet> {
        let public = |number, which| Hash32(secret(number, which).verifying_key().to_bytes());
        let member = |(number, cosigner): (u8, u8)| Member {
            cosigner_key: public(number, cosigner),
            domain: format!("member{number}.test"),
            governance_key: public(number, 1),
            log_key: public(number, 2),
            submitter_keys: vec![public(number, 3)],
            validator_key: public(number, 4),
        };
        Arc::new(MemberSet::new((1..=4).zip(cosigner).map(member).collect()).unwrap())
    }

    fn checkpoint(origin: &str, root: u8) -> Checkpoint {
        Checkpoint { origin: origin.to_owned(), size: TreeSize(9), root: Hash32([root; 32]) }
    }

    fn line(number: u8, which: u8, checkpoint: &Checkpoint) -> SignatureLine {
        cosign(&format!("member{number}.test/cosigner"), &secret(number, which), &checkpoint.text(), 5).unwrap()
    }

    fn note(number: u8, which: u8, checkpoint: &Checkpoint) -> Note {
        Note { text: checkpoint.text(), signatures: vec![line(number, which, checkpoint)] }
    }

    fn signed_by_first(cosigning: &mut Cosigning, members: &Arc<MemberSet>) {
        let checkpoint = checkpoint(ORIGIN, 7);
        let log_line = sign(ORIGIN, &secret(1, 2), &checkpoint.text()).unwrap();
        let own = line(1, 0, &checkpoint);
        let cosignatures = BTreeMap::from([(own.name.clone(), own)]);
        cosigning.signed(Open { checkpoint, height: 3, members: Arc::clone(members), log_line, cosignatures });
    }

    #[test]
    fn a_quorum_completes_whatever_came_first() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        assert!(cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members).is_empty());
        signed_by_first(&mut cosigning, &members);
        assert!(cosigning.take_complete().is_none(), "two of four");
        // The same again counts once.
        cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members);
        assert!(cosigning.take_complete().is_none());
        cosigning.heard(&note(4, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members);
        let complete = cosigning.take_complete().unwrap();
        assert_eq!(complete.cosignatures.len(), 3);
        assert!(!cosigning.is_waiting());
    }

    #[test]
    fn signatures_of_others_logs_roots_and_keys_do_not_count() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        signed_by_first(&mut cosigning, &members);
        cosigning.heard(&note(2, 0, &checkpoint("other.test/log", 7)), ORIGIN, &members);
        cosigning.heard(&note(3, 0, &checkpoint(ORIGIN, 8)), ORIGIN, &members);
        let mut forged = note(4, 0, &checkpoint(ORIGIN, 7));
        forged.signatures[0].payload[20] ^= 1;
        cosigning.heard(&forged, ORIGIN, &members);
        cosigning.heard(&note(2, 5, &checkpoint(ORIGIN, 7)), ORIGIN, &members);
        assert!(cosigning.take_complete().is_none());
        // What did not count did not stand in the way of the real ones either.
        cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members);
        cosigning.heard(&note(4, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members);
        assert!(cosigning.take_complete().is_some());
    }

    #[test]
    fn a_replaced_key_does_not_count_for_the_new_set() {
        let mut cosigning = Cosigning::default();
        let (old, new) = (members([0; 4]), members([0, 5, 5, 0]));
        cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &old);
        cosigning.heard(&note(3, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &old);
        signed_by_first(&mut cosigning, &new);
        assert!(cosigning.take_complete().is_none(), "two lines by keys of before");
        cosigning.heard(&note(2, 5, &checkpoint(ORIGIN, 7)), ORIGIN, &new);
        cosigning.heard(&note(3, 5, &checkpoint(ORIGIN, 7)), ORIGIN, &new);
        assert!(cosigning.take_complete().is_some());
    }

    #[test]
    fn two_roots_for_one_size_are_an_equivocation() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        assert!(cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members).is_empty());
        let found = cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 8)), ORIGIN, &members);
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.kind, found.height, &*found.member), (EquivocationKind::Checkpoint, 9, "member2.test"));
        let key = ed25519_dalek::VerifyingKey::from_bytes(&found.key.0).unwrap();
        for signed in [&found.first, &found.second] {
            let signature = hex::decode(&signed.signature).unwrap();
            let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
            key.verify_strict(&hex::decode(&signed.message).unwrap(), &signature).unwrap();
        }
    }

    #[test]
    fn one_member_cannot_fill_the_memory() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        for size in 10..1000 {
            let checkpoint = Checkpoint { size: TreeSize(size), ..checkpoint(ORIGIN, 7) };
            cosigning.heard(&note(2, 0, &checkpoint), ORIGIN, &members);
        }
        assert_eq!(cosigning.heard.values().map(VecDeque::len).sum::<usize>(), HEARD_MAX);
    }
}
