//! Cosigning: every member signs the sizes and roots that it computed itself; what a quorum signed
//! is published. Signatures travel as signed notes and are checked one by one. Every member sends
//! its newest one, whether the quorum needed it or not, so that all see who is there.

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
use parking_lot::Mutex;

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

/// The newest cosignature of a member that this node has seen, of whichever checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCosignature {
    /// The member.
    pub domain: String,
    /// Tree size and Unix seconds of the cosignature; `None` where none has been seen since this node
    /// was started.
    pub last: Option<(TreeSize, u64)>,
    /// For how many milliseconds larger checkpoints are published and this member cosigns none.
    pub missing_ms: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    last: Option<(TreeSize, u64)>,
    /// Unix milliseconds.
    missing_since: Option<u64>,
}

/// What was seen of every cosigner, by its name; shared with whoever asks.
#[derive(Debug, Default, Clone)]
pub(crate) struct SeenCosignatures(Arc<Mutex<BTreeMap<String, Seen>>>);

impl SeenCosignatures {
    /// Of these members, in their order.
    pub(crate) fn of(&self, members: &MemberSet, now_ms: u64) -> Vec<LastCosignature> {
        let seen = self.0.lock();
        let of = |member: &Member| {
            let Seen { last, missing_since } = seen.get(&member.cosigner_name()).copied().unwrap_or_default();
            let missing_ms = missing_since.map(|since| now_ms.saturating_sub(since));
            LastCosignature { domain: member.domain.clone(), last, missing_ms }
        };
        members.iter().map(of).collect()
    }

    /// Takes in a line that holds; `published` is the size of the newest checkpoint with a quorum.
    fn add(&self, name: &str, size: TreeSize, line: &SignatureLine, published: TreeSize, now_ms: u64) {
        let Some((time, _)) = line.payload.split_first_chunk::<8>() else { return };
        let (new, mut all) = (Some((size, u64::from_be_bytes(*time))), self.0.lock());
        let seen = all.entry(name.to_owned()).or_default();
        if seen.last < new {
            // Behind, but it goes on: a slow member is not a missing one.
            seen.missing_since = seen.missing_since.filter(|_| size < published).map(|_| now_ms);
            seen.last = new;
            metrics::gauge!("chopmark_node_cosigned_size", "member" => name.to_owned()).set(size.0 as f64);
            let time = u64::from_be_bytes(*time) as f64;
            metrics::gauge!("chopmark_node_cosigned_timestamp_seconds", "member" => name.to_owned()).set(time);
        }
    }

    /// A checkpoint was published: whoever has not cosigned as much is missing from now on.
    fn published(&self, members: &MemberSet, size: TreeSize, now_ms: u64) {
        let mut all = self.0.lock();
        for member in members.iter() {
            let seen = all.entry(member.cosigner_name()).or_default();
            if seen.last.is_none_or(|(signed, _)| signed < size) {
                seen.missing_since.get_or_insert(now_ms);
            }
        }
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
    seen: SeenCosignatures,
    /// Largest size that this node signed or published itself. A cosignature of more says nothing yet:
    /// anybody can sign any number.
    known: TreeSize,
    /// Size of the newest checkpoint with a quorum.
    published: TreeSize,
    sent_at: Duration,
    /// Size of the last signature that was sent.
    sent: TreeSize,
    /// The newest checkpoint that this node has signed and that has its quorum, with all its lines.
    newest: Option<(TreeSize, String)>,
}

impl Cosigning {
    pub(crate) fn new(seen: SeenCosignatures) -> Self {
        Self { seen, ..Self::default() }
    }

    /// Takes over a checkpoint that this node just signed.
    pub(crate) fn signed(&mut self, mut open: Open, now_ms: u64) {
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
        for (name, line) in &open.cosignatures {
            self.seen.add(name, open.checkpoint.size, line, self.published, now_ms);
        }
        self.knows(open.checkpoint.size, now_ms);
        self.open.insert(open.checkpoint.size, open);
        while self.open.len() > OPEN_MAX {
            self.open.pop_first();
        }
    }

    /// Cosignatures up to this size say something from now on.
    fn knows(&mut self, size: TreeSize, now_ms: u64) {
        self.known = self.known.max(size);
        for (name, lines) in &self.heard {
            for heard in lines.iter().filter(|heard| heard.size <= self.known) {
                self.seen.add(name, heard.size, &heard.line, self.published, now_ms);
            }
        }
    }

    /// Takes over a checkpoint that has the quorum of these members, whose lines were verified.
    /// `now_ms` is `None` at a start: of what was published before, nobody knows who cosigned it late.
    pub(crate) fn published(&mut self, size: TreeSize, text: &str, members: &MemberSet, now_ms: Option<u64>) {
        let Ok(note) = Note::parse(text) else { return };
        self.published = self.published.max(size);
        self.knows(size, now_ms.unwrap_or_default());
        for line in &note.signatures {
            if members.iter().any(|member| member.cosigner_name() == line.name) {
                self.seen.add(&line.name, size, line, self.published, now_ms.unwrap_or_default());
            }
        }
        match now_ms {
            Some(now_ms) => self.seen.published(members, size, now_ms),
            // All that is left of what this node sent.
            None => self.newest = Some((size, text.to_owned())),
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
    pub(crate) fn heard(&mut self, note: &Note, origin: &str, members: &MemberSet, now_ms: u64) -> Vec<Equivocation> {
        let checkpoint = Checkpoint::parse(&note.text).ok().filter(|checkpoint| checkpoint.origin == origin);
        let Some(checkpoint) = checkpoint else { return Vec::new() };
        members.iter().filter_map(|member| self.heard_of(member, note, &checkpoint, now_ms)).collect()
    }

    fn heard_of(&mut self, member: &Member, note: &Note, checkpoint: &Checkpoint, now_ms: u64) -> Option<Equivocation> {
        let key = member.cosigner_verifier();
        let line = note.signatures.iter().find(|line| line.name == key.name() && line.id == key.id())?;
        // One that does not verify says nothing about anybody.
        key.verify(&note.text, &line.payload).ok()??;
        if checkpoint.size <= self.known {
            self.seen.add(key.name(), checkpoint.size, line, self.published, now_ms);
        }
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
        let complete = std::mem::replace(&mut self.open, above).remove(&size);
        self.newest = complete.as_ref().map(|open| (size, open.note()));
        complete
    }

    /// This node's own signature, when it is time to send it: of its newest open checkpoint again and
    /// again, and of one that got its quorum without it once. That one goes with the lines of the
    /// others, so that nobody thinks that they are missing here.
    pub(crate) fn resend(&mut self, now: Duration, own_name: &str) -> Option<String> {
        if now.saturating_sub(self.sent_at) < RESEND || (has(Bug::CosigningNeverSendsAgain) && !self.sent_at.is_zero())
        {
            return None;
        }
        let (size, note) = match self.open.last_key_value() {
            Some((size, open)) => {
                let own = open.cosignatures.get(own_name)?.clone();
                (*size, Note { text: open.checkpoint.text(), signatures: vec![own] }.render())
            }
            None => self.unsent()?.clone(),
        };
        (self.sent, self.sent_at) = (size, now);
        Some(note)
    }

    /// Has this node's newest signature sent once more: others may have been started since.
    pub(crate) fn say_again(&mut self) {
        self.sent = TreeSize(0);
    }

    /// Whether there is a signature to send, now or later.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.open.is_empty() || self.unsent().is_some()
    }

    /// What has its quorum and was not sent from here. It helps whoever lacks a line of it.
    fn unsent(&self) -> Option<&(TreeSize, String)> {
        self.newest.as_ref().filter(|(size, _)| *size > self.sent && !has(Bug::HelpsNobody))
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
    const NOW_MS: u64 = 1_000_000;

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
        cosigning.signed(Open { checkpoint, height: 3, members: Arc::clone(members), log_line, cosignatures }, NOW_MS);
    }

    #[test]
    fn a_quorum_completes_whatever_came_first() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        assert!(cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS).is_empty());
        signed_by_first(&mut cosigning, &members);
        assert!(cosigning.take_complete().is_none(), "two of four");
        // The same again counts once.
        cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS);
        assert!(cosigning.take_complete().is_none());
        cosigning.heard(&note(4, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS);
        let complete = cosigning.take_complete().unwrap();
        assert_eq!(complete.cosignatures.len(), 3);
        // Its own line was not sent yet.
        assert!(cosigning.is_waiting() && cosigning.resend(RESEND, "member1.test/cosigner").is_some());
        assert!(!cosigning.is_waiting());
    }

    #[test]
    fn signatures_of_others_logs_roots_and_keys_do_not_count() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        signed_by_first(&mut cosigning, &members);
        cosigning.heard(&note(2, 0, &checkpoint("other.test/log", 7)), ORIGIN, &members, NOW_MS);
        cosigning.heard(&note(3, 0, &checkpoint(ORIGIN, 8)), ORIGIN, &members, NOW_MS);
        let mut forged = note(4, 0, &checkpoint(ORIGIN, 7));
        forged.signatures[0].payload[20] ^= 1;
        cosigning.heard(&forged, ORIGIN, &members, NOW_MS);
        cosigning.heard(&note(2, 5, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS);
        assert!(cosigning.take_complete().is_none());
        // What did not count did not stand in the way of the real ones either.
        cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS);
        cosigning.heard(&note(4, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS);
        assert!(cosigning.take_complete().is_some());
    }

    #[test]
    fn a_replaced_key_does_not_count_for_the_new_set() {
        let mut cosigning = Cosigning::default();
        let (old, new) = (members([0; 4]), members([0, 5, 5, 0]));
        cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &old, NOW_MS);
        cosigning.heard(&note(3, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &old, NOW_MS);
        signed_by_first(&mut cosigning, &new);
        assert!(cosigning.take_complete().is_none(), "two lines by keys of before");
        cosigning.heard(&note(2, 5, &checkpoint(ORIGIN, 7)), ORIGIN, &new, NOW_MS);
        cosigning.heard(&note(3, 5, &checkpoint(ORIGIN, 7)), ORIGIN, &new, NOW_MS);
        assert!(cosigning.take_complete().is_some());
    }

    #[test]
    fn two_roots_for_one_size_are_an_equivocation() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        assert!(cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS).is_empty());
        let found = cosigning.heard(&note(2, 0, &checkpoint(ORIGIN, 8)), ORIGIN, &members, NOW_MS);
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
            cosigning.heard(&note(2, 0, &checkpoint), ORIGIN, &members, NOW_MS);
        }
        assert_eq!(cosigning.heard.values().map(VecDeque::len).sum::<usize>(), HEARD_MAX);
    }

    fn seen(cosigning: &Cosigning, members: &MemberSet, now_ms: u64) -> Vec<(Option<u64>, Option<u64>)> {
        let seen = cosigning.seen.of(members, now_ms).into_iter();
        seen.map(|seen| (seen.last.map(|(size, _)| size.0), seen.missing_ms)).collect()
    }

    fn publish(cosigning: &mut Cosigning, members: &MemberSet, now_ms: u64) {
        let complete = cosigning.take_complete().unwrap();
        cosigning.published(complete.checkpoint.size, &complete.note(), members, Some(now_ms));
    }

    #[test]
    fn who_cosigned_last_is_seen_of_all_also_of_those_that_came_late() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        let nine = checkpoint(ORIGIN, 7);
        cosigning.heard(&note(2, 0, &nine), ORIGIN, &members, NOW_MS);
        // Nobody can push itself forward with a size that is not there.
        cosigning.heard(&note(3, 0, &Checkpoint { size: TreeSize(1000), ..nine.clone() }), ORIGIN, &members, NOW_MS);
        assert_eq!(seen(&cosigning, &members, NOW_MS), [(None, None); 4]);
        signed_by_first(&mut cosigning, &members);
        cosigning.heard(&note(3, 0, &nine), ORIGIN, &members, NOW_MS);
        publish(&mut cosigning, &members, NOW_MS);
        let (there, missing) = ((Some(9), None), (None, Some(50)));
        assert_eq!(seen(&cosigning, &members, NOW_MS + 50), [there, there, there, missing]);
        // What is no signature of its own changes nothing.
        cosigning.heard(&note(4, 5, &nine), ORIGIN, &members, NOW_MS + 60);
        assert_eq!(seen(&cosigning, &members, NOW_MS + 60)[3], (None, Some(60)));
        cosigning.heard(&note(4, 0, &nine), ORIGIN, &members, NOW_MS + 70);
        assert_eq!(seen(&cosigning, &members, NOW_MS + 70)[3], there);
        // It goes on behind the others, and then it does not.
        let twelve = Checkpoint { size: TreeSize(12), ..nine.clone() };
        cosigning.published(TreeSize(12), &note(2, 0, &twelve).render(), &members, Some(NOW_MS + 100));
        cosigning.heard(&note(4, 0, &Checkpoint { size: TreeSize(11), ..nine }), ORIGIN, &members, NOW_MS + 300);
        assert_eq!(seen(&cosigning, &members, NOW_MS + 400)[3], (Some(11), Some(100)));
        assert_eq!(seen(&cosigning, &members, NOW_MS + 400)[1], (Some(12), None));
    }

    #[test]
    fn a_signature_that_the_quorum_did_not_need_is_sent_too() {
        let (mut cosigning, members) = (Cosigning::default(), members([0; 4]));
        for number in 2..=4 {
            cosigning.heard(&note(number, 0, &checkpoint(ORIGIN, 7)), ORIGIN, &members, NOW_MS);
        }
        signed_by_first(&mut cosigning, &members);
        publish(&mut cosigning, &members, NOW_MS);
        assert!(cosigning.is_waiting());
        let sent = cosigning.resend(RESEND, "member1.test/cosigner").unwrap();
        let sent = Note::parse(&sent).unwrap();
        assert!(sent.signatures.iter().any(|line| line.name == "member1.test/cosigner"));
        // Whoever sends fewer is helped.
        assert!(sent.signatures.len() >= members.quorum());
        assert!(!cosigning.is_waiting() && cosigning.resend(RESEND * 2, "member1.test/cosigner").is_none());
        cosigning.say_again();
        assert!(cosigning.resend(RESEND * 3, "member1.test/cosigner").is_some());
    }
}
