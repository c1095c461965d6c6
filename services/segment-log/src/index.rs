//! Where in a segment a record is, roughly.

use crate::format::FILE_HEADER_BYTES;

/// Distance of two marks. A read walks at most this far over frame headers, some 50 µs from the
/// page cache; a segment of 64 MiB costs 256 marks of 16 bytes.
const STRIDE_BYTES: u64 = 256 << 10;

/// Some frames of one segment, at most one every `STRIDE_BYTES`.
#[derive(Debug)]
pub(crate) struct SparseIndex {
    /// Invariant: starts with the segment's first frame; both fields of the marks increase.
    marks: Vec<Mark>,
}

/// A frame and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
}

impl SparseIndex {
    pub(crate) fn new(first_sequence: u64) -> Self {
        Self { marks: vec![Mark { sequence: first_sequence, offset: FILE_HEADER_BYTES }] }
    }

    /// Takes note of the next frame, if it is far enough from the last mark.
    pub(crate) fn note(&mut self, sequence: u64, offset: u64) {
        let due = self.marks.last().is_none_or(|last| offset - last.offset >= STRIDE_BYTES);
        if due {
            self.marks.push(Mark { sequence, offset });
        }
    }

    /// The last mark at or before `sequence`, which is not before the segment.
    pub(crate) fn mark_before(&self, sequence: u64) -> Mark {
        let after = self.marks.partition_point(|mark| mark.sequence <= sequence);
        self.marks[after.saturating_sub(1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_a_stride_apart_and_found() {
        let mut index = SparseIndex::new(100);
        for frame in 0..10_000_u64 {
            index.note(100 + frame, FILE_HEADER_BYTES + frame * 1024);
        }
        assert_eq!(index.marks.len(), 10_000_usize.div_ceil(256));
        assert_eq!(index.mark_before(100), Mark { sequence: 100, offset: FILE_HEADER_BYTES });
        assert_eq!(index.mark_before(355).sequence, 100);
        assert_eq!(index.mark_before(356).sequence, 356);
        assert_eq!(index.mark_before(u64::MAX).sequence, 100 + 9984);
    }
}
