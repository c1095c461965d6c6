//! Proposals on their way in: parts of bounded streams of known publishers, in any order.
//!
//! Nobody signs parts, so any member may send junk in another's name. What that can cost is
//! bounded by publisher: two streams, and no more bytes than a proposal has.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use malachite::app::{
    streaming::{StreamContent, StreamMessage},
    types::PeerId,
};

use super::{codec::PART_BYTES, context::Part};
use crate::{PROPOSAL_BYTES_MAX, Slot};

/// Streams of one publisher that are under way: one being replaced by the next.
const STREAMS_MAX: usize = 2;

#[derive(Default)]
struct Stream {
    init: Option<(Slot, usize)>,
    parts: BTreeMap<u64, Bytes>,
    bytes: usize,
    end: Option<u64>,
}

impl Stream {
    /// Takes a part; false if no honest stream has it.
    fn take(&mut self, sequence: u64, content: StreamContent<Part>) -> bool {
        match content {
            StreamContent::Data(Part::Init { height, round, valid_round, proposer, len }) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let slot = Slot { height, round, valid_round, proposer: proposer.0 };
                sequence == 0 && len <= PROPOSAL_BYTES_MAX && self.init.replace((slot, len)).is_none()
            }
            StreamContent::Data(Part::Data(bytes)) => {
                self.bytes += bytes.len();
                let parts_max = PROPOSAL_BYTES_MAX.div_ceil(PART_BYTES) as u64;
                let sound = (1..=parts_max).contains(&sequence) && self.bytes <= PROPOSAL_BYTES_MAX;
                sound && self.parts.insert(sequence, bytes).is_none()
            }
            StreamContent::Fin => self.end.replace(sequence).is_none(),
            StreamContent::Data(Part::Message(_)) => false,
        }
    }

    fn is_complete(&self) -> bool {
        let Some((_, len)) = self.init else { return false };
        self.end == Some(self.parts.len() as u64 + 1) && self.bytes == len
    }
}

/// The streams under way, by publisher.
#[derive(Default)]
pub(super) struct Streams {
    open: HashMap<PeerId, VecDeque<(Bytes, Stream)>>,
}

impl Streams {
    /// Takes a part; the whole proposal once it is complete.
    pub(super) fn take(&mut self, publisher: PeerId, part: StreamMessage<Part>) -> Option<(Slot, Vec<u8>)> {
        let streams = self.open.entry(publisher).or_default();
        let id = part.stream_id.to_bytes();
        let at = streams.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            // The oldest makes room: a publisher that does not finish blocks only itself.
            if streams.len() == STREAMS_MAX {
                streams.pop_front();
            }
            streams.push_back((id, Stream::default()));
            streams.len() - 1
        });
        let stream = &mut streams[at].1;
        if !stream.take(part.sequence, part.content) {
            metrics::counter!("chopmark_node_streams_refused_total").increment(1);
            streams.remove(at);
            return None;
        }
        if !stream.is_complete() {
            return None;
        }
        let (_, stream) = streams.remove(at)?;
        let (slot, len) = stream.init?;
        let mut bytes = Vec::with_capacity(len);
        stream.parts.values().for_each(|part| bytes.extend_from_slice(part));
        Some((slot, bytes))
    }
}
