//! The bytes of a segment: constants, encoding, decoding, file names.
//!
//! The layout is drawn in the crate documentation. Nothing here touches a file.

use std::path::{Path, PathBuf};

use crc32c::{crc32c, crc32c_append};

/// First bytes of every segment.
pub const FILE_MAGIC: [u8; 8] = *b"chopseg\n";

/// The only version of the format. The file header keeps its length, and the places of version and
/// checksum, in every version.
pub const FORMAT_VERSION: u32 = 1;

/// Length of the file header: 8 magic + 4 version + 8 first + 8 previous first + 8 previous bytes
/// + 8 salt + 4 checksum.
pub const FILE_HEADER_BYTES: u64 = 48;

/// Length of a frame before its payload: 4 length + 8 sequence + 4 position + 4 + 4 checksums.
pub const FRAME_HEADER_BYTES: u64 = 24;

/// Longest record that the format is meant for. One checksum of 32 bits should not cover more, and
/// an append is built in memory.
pub const RECORD_BYTES_LIMIT: u32 = 256 << 20;

/// Largest first sequence number: half the range, so that adding to a number never overflows.
pub const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Ending of a segment's name.
pub const SEGMENT_SUFFIX: &str = ".seg";

/// Ending of the name of a segment under construction.
pub const TEMPORARY_SUFFIX: &str = ".seg.tmp";

/// Name of the file that is locked.
pub const LOCK_NAME: &str = "LOCK";

/// Digits in a segment's name: those of `u64::MAX`, so that names sort like numbers.
const NAME_DIGITS: usize = 20;

/// Length of the file header as an array index.
pub(crate) const FILE_HEADER_LEN: usize = 48;

/// Length of the frame header as an array index.
pub(crate) const FRAME_HEADER_LEN: usize = 24;

const _: () = assert!(FILE_HEADER_BYTES == FILE_HEADER_LEN as u64);
const _: () = assert!(FRAME_HEADER_BYTES == FRAME_HEADER_LEN as u64);

pub(crate) fn segment_path(directory: &Path, first_sequence: u64) -> PathBuf {
    directory.join(format!("{first_sequence:0NAME_DIGITS$}{SEGMENT_SUFFIX}"))
}

pub(crate) fn temporary_path(directory: &Path, first_sequence: u64) -> PathBuf {
    directory.join(format!("{first_sequence:0NAME_DIGITS$}{TEMPORARY_SUFFIX}"))
}

/// The first sequence number that a file name states, if it is the name of a segment.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let plain = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) first_sequence: u64,
    /// First sequence of the segment before this one; its own, if it is the log's first.
    pub(crate) previous_first: u64,
    /// Final length of the segment before this one; 0 if there is none.
    pub(crate) previous_bytes: u64,
    pub(crate) salt: u64,
}

/// Why a file header was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileHeaderFlaw {
    Damaged,
    Version(u32),
}

impl FileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FILE_HEADER_LEN);
        out.extend_from_slice(&FILE_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        for field in [self.first_sequence, self.previous_first, self.previous_bytes, self.salt] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.extend_from_slice(&crc32c(&out).to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; FILE_HEADER_LEN]) -> Result<Self, FileHeaderFlaw> {
        let mut fields = Fields(bytes);
        let magic = fields.take::<8>();
        let version = fields.u32();
        let header = Self {
            first_sequence: fields.u64(),
            previous_first: fields.u64(),
            previous_bytes: fields.u64(),
            salt: fields.u64(),
        };
        let covered = &bytes[..FILE_HEADER_LEN - 4];
        if magic != FILE_MAGIC || fields.u32() != crc32c(covered) {
            return Err(FileHeaderFlaw::Damaged);
        }
        if version != FORMAT_VERSION {
            return Err(FileHeaderFlaw::Version(version));
        }
        Ok(header)
    }

    /// Checksum that every checksum of the segment's frames continues.
    pub(crate) fn seed(&self) -> u32 {
        crc32c(&self.salt.to_be_bytes())
    }
}

/// The header of a frame, its own checksum verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_len: u32,
    pub(crate) sequence: u64,
    /// Sequence of the first frame that was written by the same append.
    ///
    /// Invariant: when a frame exists, every record below its `append_first` was synced before.
    /// `SegmentLog::append` and recovery uphold it by syncing before anything further is written;
    /// without it a torn tail would be taken for damage, or damage for a torn tail.
    pub(crate) append_first: u64,
    header_crc: u32,
    payload_crc: u32,
}

impl FrameHeader {
    /// `None` if the header is not one of this segment: a checksum that differs, or a length of
    /// zero, so that zeros are a frame under no salt.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_LEN], seed: u32) -> Option<Self> {
        let mut fields = Fields(bytes);
        let payload_len = fields.u32();
        let sequence = fields.u64();
        let position = fields.u32();
        let header_crc = fields.u32();
        let payload_crc = fields.u32();
        if payload_len == 0 || header_crc != crc32c_append(seed, &bytes[..16]) {
            return None;
        }
        let append_first = sequence.checked_sub(u64::from(position))?;
        Some(Self { payload_len, sequence, append_first, header_crc, payload_crc })
    }

    /// Length of header and payload.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES + u64::from(self.payload_len)
    }

    pub(crate) fn payload_matches(&self, payload: &[u8]) -> bool {
        crc32c_append(self.header_crc, payload) == self.payload_crc
    }
}

/// Adds one frame to `out`. The payload is neither empty nor longer than a `u32` can say; the
/// caller has checked both, and passes its length in that form.
pub(crate) fn encode_frame(
    out: &mut Vec<u8>,
    seed: u32,
    sequence: u64,
    position: u32,
    payload: &[u8],
    payload_len: u32,
) {
    debug_assert!(payload_len > 0 && payload.len() as u64 == u64::from(payload_len));
    let start = out.len();
    out.extend_from_slice(&payload_len.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&position.to_be_bytes());
    let header_crc = crc32c_append(seed, &out[start..]);
    out.extend_from_slice(&header_crc.to_be_bytes());
    out.extend_from_slice(&crc32c_append(header_crc, payload).to_be_bytes());
    out.extend_from_slice(payload);
}

/// Reads fields from the front of a header whose length the type has checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => unreachable!("a header is as long as its fields"),
        }
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FileHeader =
        FileHeader { first_sequence: 7, previous_first: 3, previous_bytes: 99, salt: 0x0123_4567 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
        *bytes.first_chunk().expect("long enough")
    }

    /// Stored logs must stay readable: these bytes change only with `FORMAT_VERSION`.
    #[test]
    fn bytes_are_pinned() {
        assert_eq!(hex(&HEADER.encode()), PINNED_FILE_HEADER);
        let mut frame = Vec::new();
        encode_frame(&mut frame, HEADER.seed(), 9, 2, b"block", 5);
        assert_eq!(hex(&frame), PINNED_FRAME);
    }

    const PINNED_FILE_HEADER: &str =
        "63686f707365670a000000010000000000000007000000000000000300000000000000630000000001234567b53cdf44";
    const PINNED_FRAME: &str = "00000005000000000000000900000002edb721d38f285bf4626c6f636b";

    #[test]
    fn headers_come_back() {
        let bytes = fixed(&HEADER.encode());
        assert_eq!(FileHeader::decode(&bytes), Ok(HEADER));

        let mut frame = Vec::new();
        encode_frame(&mut frame, HEADER.seed(), 9, 2, b"block", 5);
        let header = FrameHeader::decode(&fixed(&frame), HEADER.seed()).expect("sound");
        assert_eq!((header.sequence, header.append_first, header.payload_len), (9, 7, 5));
        assert!(header.payload_matches(b"block"));
        assert!(!header.payload_matches(b"blocK"));
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = HEADER.encode();
        bytes[11] = 2;
        assert_eq!(FileHeader::decode(&fixed(&bytes)), Err(FileHeaderFlaw::Damaged));
        let crc = crc32c(&bytes[..44]).to_be_bytes();
        bytes[44..].copy_from_slice(&crc);
        assert_eq!(FileHeader::decode(&fixed(&bytes)), Err(FileHeaderFlaw::Version(2)));
    }

    #[test]
    fn a_frame_is_bound_to_its_salt_and_zeros_are_none() {
        let mut frame = Vec::new();
        encode_frame(&mut frame, 1, 9, 0, b"block", 5);
        assert!(FrameHeader::decode(&fixed(&frame), 2).is_none());
        // Under this seed the checksum of sixteen zeros is zero; the length rules them out.
        let seed = 0x111c_2232;
        assert_eq!(crc32c_append(seed, &[0; 16]), 0);
        assert!(FrameHeader::decode(&[0; 24], seed).is_none());
    }

    #[test]
    fn names_sort_like_numbers_and_strangers_are_left_alone() {
        let path = segment_path(Path::new("log"), 42);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(name, "00000000000000000042.seg");
        assert_eq!(parse_segment_name(name), Some(42));
        for other in ["42.seg", "+0000000000000000042.seg", "99999999999999999999.seg", "LOCK"] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }
}
