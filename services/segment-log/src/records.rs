//! Reading records in order.

use std::sync::Arc;

use crate::error::{Error, Flaw};
use crate::format::FILE_HEADER_BYTES;
use crate::scan;
use crate::source::Source;
use crate::state::{Segment, Shared};

/// A record and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number in the log.
    pub sequence: u64,
    /// Its bytes, as they were appended.
    pub payload: Vec<u8>,
}

/// The records of a log from some number on; made by
/// [`SegmentReader::iter_from`](crate::SegmentReader::iter_from).
///
/// `None` says that the end of what is acknowledged was reached. More may be appended, and the
/// next call yields it: a consumer that follows the log keeps the iterator. It is therefore not
/// fused. An error is yielded once and ends the iterator for good; nothing behind it is ever
/// yielded.
#[derive(Debug)]
pub struct Records {
    shared: Arc<Shared>,
    /// Number of the record that comes next.
    sequence: u64,
    cursor: Option<Cursor>,
    failed: bool,
}

/// The place of the next record in an open segment.
#[derive(Debug)]
struct Cursor {
    segment_first: u64,
    source: Source,
    offset: u64,
}

impl Records {
    pub(crate) fn new(shared: Arc<Shared>, sequence: u64) -> Self {
        Self { shared, sequence, cursor: None, failed: false }
    }

    /// Number of the record that the next call yields once it exists.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.sequence
    }

    fn advance(&mut self) -> Result<Option<Record>, Error> {
        let Some(segment) = self.shared.state().segment_of(self.sequence)? else {
            return Ok(None);
        };
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.segment_first == segment.first => cursor,
            _ => self.enter(segment)?,
        };
        cursor.source.extend(segment.bytes);
        let (payload, end) = self.frame(&mut cursor, segment)?;
        let record = Record { sequence: self.sequence, payload };
        cursor.offset = end;
        self.cursor = Some(cursor);
        self.sequence += 1;
        Ok(Some(record))
    }

    fn enter(&self, segment: Segment) -> Result<Cursor, Error> {
        let mut source = self.shared.source(segment, self.sequence)?;
        let offset = if self.sequence == segment.first {
            FILE_HEADER_BYTES
        } else {
            self.shared.offset_of(&mut source, segment, self.sequence)?
        };
        Ok(Cursor { segment_first: segment.first, source, offset })
    }

    /// The payload of the record that is next, and where its frame ends.
    fn frame(&self, cursor: &mut Cursor, segment: Segment) -> Result<(Vec<u8>, u64), Error> {
        let Cursor { source, offset, .. } = cursor;
        let unreadable = |error| self.shared.unreadable(segment, error);
        let corrupt = |flaw: Flaw| self.shared.corrupt(segment, *offset, self.sequence, flaw);
        let header =
            scan::header_at(source, segment.seed, *offset, self.sequence).map_err(unreadable)?.map_err(corrupt)?;
        let payload = scan::payload_at(source, &header, *offset).map_err(unreadable)?.map_err(corrupt)?;
        Ok((payload.to_vec(), *offset + header.frame_bytes()))
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let outcome = self.advance();
        self.failed = outcome.is_err();
        outcome.transpose()
    }
}
