//! A lying member: it follows the protocol, and beside that sends whatever its keys can sign.

use std::{collections::BTreeMap, sync::Arc};

use chopmark_consensus::{Proposal, Slot};
use ed25519_dalek::Signer as _;
use ledger_core::{
    Hash32, SigningKey,
    checkpoint::Checkpoint,
    codec::{Reader, Writer},
    execute::execute,
    note::{Note, cosign},
    vote::{Certificate, address, vote_message},
};
use rand::{Rng, RngExt as _};

use super::engine::{Message, Proposed, Vote};
use crate::{keys::NodeKeys, ledger::Ledger};

/// Old messages kept for replaying.
const OLD_MAX: usize = 64;
/// Tag of a checkpoint among the ledger's broadcasts.
const CHECKPOINT: u8 = 1;

#[derive(Default)]
pub(crate) struct Liar {
    old: Vec<Message>,
    values: Vec<Hash32>,
    /// The other proposal of a height and round: all that are lied to get the same one.
    lies: BTreeMap<(u64, u32), Option<(Proposed, Message)>>,
}

impl Liar {
    /// What goes to one peer instead of `message`.
    pub(crate) fn instead(
        &mut self,
        message: &Message,
        ledger: &Ledger,
        keys: &NodeKeys,
        domain: &str,
        random: &mut impl Rng,
    ) -> Vec<Message> {
        if self.old.len() == OLD_MAX {
            let at = random.random_range(0..OLD_MAX);
            self.old.swap_remove(at);
        }
        self.old.push(message.clone());
        let mut sent = Vec::new();
        if random.random_bool(0.9) {
            sent.push(message.clone());
        }
        if random.random_bool(0.1) {
            sent.push(self.old[random.random_range(0..self.old.len())].clone());
        }
        if random.random_bool(0.05) {
            let mut junk = vec![0; random.random_range(0..200)];
            random.fill_bytes(&mut junk);
            sent.push(Message::Ledger(junk.into()));
        }
        if random.random_bool(0.5) {
            return sent;
        }
        match message {
            Message::Vote(vote)
                if vote.address == address(&Hash32(keys.newest().validator.verifying_key().to_bytes())) =>
            {
                self.values.extend(vote.value);
                let other = match self.values.len() {
                    0 => None,
                    len => Some(self.values[random.random_range(0..len)]).filter(|_| random.random_bool(0.6)),
                };
                sent.insert(0, Message::Vote(second_vote(vote, other, ledger, &keys.newest().validator)));
            }
            Message::Stream(slot, bytes) if slot.height == ledger.parent().height + 1 => {
                let lie = self.lies.entry((slot.height, slot.round));
                let lie = lie.or_insert_with(|| other_proposal(*slot, bytes, ledger, random));
                if let Some((proposed, stream)) = lie.clone() {
                    self.values.push(proposed.value);
                    // In front of the true one or behind it: some peers see this first.
                    let at = if random.random() { 0 } else { sent.len() };
                    sent.insert(at, stream);
                    sent.insert(at, Message::Proposed(proposed));
                }
            }
            Message::Ledger(bytes) => sent.extend(other_root(bytes, keys, domain)),
            Message::Decided(bytes, certificate) => {
                sent.clear();
                sent.push(other_block(bytes, certificate, random));
            }
            _ => {}
        }
        sent
    }
}

fn second_vote(vote: &Vote, value: Option<Hash32>, ledger: &Ledger, key: &SigningKey) -> Vote {
    let chain = ledger.shared.chain;
    let message = vote_message(&chain, vote.kind, vote.height, vote.round, value.as_ref(), &vote.address);
    Vote { value, signature: key.sign(&message).to_bytes(), ..vote.clone() }
}

/// Another block for the same slot: a true one, one from the future, or one that lies.
fn other_proposal(slot: Slot, bytes: &[u8], ledger: &Ledger, random: &mut impl Rng) -> Option<(Proposed, Message)> {
    let mut proposal = Proposal::decode(bytes).ok()?;
    let (shared, parent) = (&ledger.shared, ledger.parent());
    let ahead = [1, 3_600_000][random.random_range(0..2)];
    match random.random_range(0..5) {
        0 | 1 => {
            let time = proposal.header.time + ahead;
            proposal.header = execute(&shared.state, parent, &shared.chain, &proposal.batch, time, None).ok()?.header;
        }
        2 => proposal.header.root.0[0] ^= 1,
        3 => proposal.header.changes.0[0] ^= 1,
        _ => proposal.header.tree_size += 1,
    }
    let Slot { height, round, valid_round, proposer } = slot;
    let proposed = Proposed { height, round, valid_round, value: proposal.header.hash(), address: proposer };
    Some((proposed, Message::Stream(slot, proposal.encode().into())))
}

/// A second root for the size that was just signed.
fn other_root(bytes: &[u8], keys: &NodeKeys, domain: &str) -> Option<Message> {
    let mut reader = Reader::new(bytes);
    if reader.u8().ok()? != CHECKPOINT {
        return None;
    }
    let note = Note::parse(std::str::from_utf8(reader.bytes(bytes.len()).ok()?).ok()?).ok()?;
    let mut checkpoint = Checkpoint::parse(&note.text).ok()?;
    checkpoint.root.0[0] ^= 1;
    let text = checkpoint.text();
    let line = cosign(&format!("{domain}/cosigner"), &keys.newest().cosigner, &text, 1_790_000_002).ok()?;
    let mut writer = Writer::new();
    writer.u8(CHECKPOINT).bytes(Note { text, signatures: vec![line] }.render().as_bytes());
    Some(Message::Ledger(writer.finish().into()))
}

/// A synced block that was not decided so.
fn other_block(bytes: &Arc<[u8]>, certificate: &Certificate, random: &mut impl Rng) -> Message {
    let (mut bytes, mut certificate) = (bytes.to_vec(), certificate.clone());
    match random.random_range(0..3) {
        0 => certificate.signatures.truncate(certificate.signatures.len() / 2),
        1 => {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1;
        }
        _ => certificate.round += 1,
    }
    Message::Decided(bytes.into(), certificate)
}
