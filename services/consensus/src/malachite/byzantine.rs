//! The engine's own equivocating network, and parts as a liar wants them.

use bytes::Bytes;
use ledger_core::Hash32;
use malachite::{ByzantineContext, app::streaming::StreamContent};
use malachite_byzantine::{ByzantineConfig, Trigger};
use malachite_engine::network::NetworkIdentity;

use super::{
    codec::Wire,
    context::{Address, Engine, GuardedSigner, Part, Value},
};
use crate::{
    Slot,
    byzantine::{ForgedContent, Misbehaviour},
};

fn when(wanted: bool) -> Trigger {
    if wanted { Trigger::Always } else { Trigger::Never }
}

pub(super) fn network(
    identity: NetworkIdentity,
    address: Address,
    signer: GuardedSigner,
    misbehaviour: Misbehaviour,
) -> ByzantineContext<Engine, Wire> {
    tracing::warn!(?misbehaviour, "this engine lies");
    let Misbehaviour { second_vote, second_proposal, withholds_votes, withholds_proposals } = misbehaviour;
    let config = ByzantineConfig {
        equivocate_votes: when(second_vote.is_some()),
        equivocate_proposals: when(second_proposal.is_some()),
        drop_votes: when(withholds_votes),
        drop_proposals: when(withholds_proposals),
        ..ByzantineConfig::default()
    };
    ByzantineContext {
        identity,
        codec: Wire,
        config,
        signer: Box::new(signer),
        address,
        conflicting_value_fn: second_proposal
            .map(|other| Box::new(move |value: &Value| Value(other(Hash32(value.0)).0)) as Box<_>),
        conflicting_vote_value_fn: second_vote.map(|other| {
            Box::new(move |value: Option<&Value>| Value(other(value.map_or(Hash32::ZERO, |value| Hash32(value.0))).0))
                as Box<_>
        }),
    }
}

pub(super) fn content(content: ForgedContent) -> StreamContent<Part> {
    match content {
        ForgedContent::Init(Slot { height, round, valid_round, proposer }, len) => {
            StreamContent::Data(Part::Init { height, round, valid_round, proposer: Address(proposer), len })
        }
        ForgedContent::Data(bytes) => StreamContent::Data(Part::Data(Bytes::from(bytes))),
        ForgedContent::Message(bytes) => StreamContent::Data(Part::Message(Bytes::from(bytes))),
        ForgedContent::Fin => StreamContent::Fin,
    }
}
