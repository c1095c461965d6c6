//! Walking over frames, and telling a torn tail from damage.

use std::io;

use crate::error::Flaw;
use crate::format::{FILE_HEADER_BYTES, FRAME_HEADER_BYTES, FRAME_HEADER_LEN, FrameHeader};
use crate::source::Source;
use crate::state::Segment;

/// How much is searched at a time for the trace of a later append.
const SEARCH_BYTES: u64 = 128 << 10;

/// Where a walk ended: behind the last sound frame.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) offset: u64,
    /// Number of the frame that would stand at `offset`.
    pub(crate) sequence: u64,
    /// What stands there instead; `None` at the end of the source.
    pub(crate) flaw: Option<Flaw>,
}

/// Whether a walk reads payloads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Headers,
    Payloads,
}

/// Walks over all frames of a segment up to the source's limit and calls `visit` with the number
/// and the offset of each sound one.
pub(crate) fn walk(
    source: &mut Source,
    segment: Segment,
    check: Check,
    mut visit: impl FnMut(u64, u64),
) -> io::Result<End> {
    let mut end = End { offset: FILE_HEADER_BYTES, sequence: segment.first, flaw: None };
    while end.offset < source.limit() {
        let header = match header_at(source, segment.seed, end.offset, end.sequence)? {
            Ok(header) => header,
            Err(flaw) => {
                return Ok(End { flaw: Some(flaw), ..end });
            }
        };
        if check == Check::Payloads
            && let Err(flaw) = payload_at(source, &header, end.offset)?
        {
            return Ok(End { flaw: Some(flaw), ..end });
        }
        visit(end.sequence, end.offset);
        end.offset += header.frame_bytes();
        end.sequence += 1;
    }
    Ok(end)
}

/// The header of frame `sequence` at `offset`, if it is sound and the frame complete in length.
pub(crate) fn header_at(
    source: &mut Source,
    seed: u32,
    offset: u64,
    sequence: u64,
) -> io::Result<Result<FrameHeader, Flaw>> {
    let left = source.limit().saturating_sub(offset);
    let Some(bytes) = source.bytes(offset, FRAME_HEADER_BYTES)? else {
        return Ok(Err(Flaw::Incomplete));
    };
    Ok(match decode(bytes, seed) {
        None => Err(Flaw::FrameHeader),
        Some(header) if header.sequence != sequence => Err(Flaw::Sequence),
        Some(header) if header.frame_bytes() > left => Err(Flaw::Incomplete),
        Some(header) => Ok(header),
    })
}

/// The payload of the frame at `offset`, if its checksum is right.
pub(crate) fn payload_at<'a>(
    source: &'a mut Source,
    header: &FrameHeader,
    offset: u64,
) -> io::Result<Result<&'a [u8], Flaw>> {
    let payload = source.bytes(offset + FRAME_HEADER_BYTES, u64::from(header.payload_len))?;
    Ok(match payload {
        None => Err(Flaw::Incomplete),
        Some(payload) if !header.payload_matches(payload) => Err(Flaw::Payload),
        Some(payload) => Ok(payload),
    })
}

/// Whether the bytes from `end.offset` on prove that the frame which failed there had been
/// acknowledged: they hold the header of a frame whose append began after it.
///
/// A header is enough. Its checksum is salted, so no payload can imitate it, and that a later
/// append was begun is all the proof needed, even if it is itself torn. Frames of the failed
/// frame's own append prove nothing: a loss of power can keep the later of them and lose the
/// earlier.
pub(crate) fn acknowledged(source: &mut Source, seed: u32, end: &End) -> io::Result<bool> {
    // A sound header with a number that cannot stand here is no remnant of an unfinished append.
    if end.flaw == Some(Flaw::Sequence) {
        return Ok(true);
    }
    let limit = source.limit();
    let mut from = end.offset + 1;
    while limit.saturating_sub(from) >= FRAME_HEADER_BYTES {
        let len = SEARCH_BYTES.min(limit - from);
        let Some(bytes) = source.bytes(from, len)? else {
            return Ok(false);
        };
        let later = |window: &[u8]| {
            decode_if_after(window, seed, end.sequence, limit).is_some_and(|header| header.append_first > end.sequence)
        };
        if bytes.windows(FRAME_HEADER_LEN).any(later) {
            return Ok(true);
        }
        // The next window is the one that starts with the last 23 bytes of this one.
        from += len - (FRAME_HEADER_BYTES - 1);
    }
    Ok(false)
}

/// Decodes a header only if the number in it may follow `sequence` in a file of `file_bytes`, in
/// which each record takes more than a byte. This spares nearly all checksums of the search.
fn decode_if_after(window: &[u8], seed: u32, sequence: u64, file_bytes: u64) -> Option<FrameHeader> {
    let (_, rest) = window.split_first_chunk::<4>()?;
    let found = u64::from_be_bytes(*rest.first_chunk()?);
    let ahead = found.checked_sub(sequence)?;
    if (1..=file_bytes).contains(&ahead) { decode(window, seed) } else { None }
}

fn decode(bytes: &[u8], seed: u32) -> Option<FrameHeader> {
    FrameHeader::decode(bytes.first_chunk()?, seed)
}
