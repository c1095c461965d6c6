//! Positioned reading through one buffer, never past a limit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is read ahead: a few dozen small records, little beside one large block.
const CHUNK_BYTES: u64 = 128 << 10;

/// A segment open for reading, up to `limit`.
///
/// Invariant: no byte at or past `limit` is ever in the buffer. Behind the limit an appender may be
/// writing; a byte read there could be half of a frame that is acknowledged a moment later, and
/// would then look like damage.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    limit: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Source {
    pub(crate) fn new(file: File, limit: u64) -> Self {
        Self { file, limit, start: 0, buffer: Vec::new() }
    }

    /// Moves the limit to a later acknowledged end.
    pub(crate) fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The `len` bytes from `offset`; `None` if they pass the limit, or the file ends before them.
    pub(crate) fn bytes(&mut self, offset: u64, len: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.limit) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.buffer.len() as u64 {
            self.fill(offset, len.max(CHUNK_BYTES).min(self.limit - offset))?;
        }
        let from = index(offset - self.start)?;
        Ok(self.buffer.get(from..from.saturating_add(index(len)?)))
    }

    fn fill(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.buffer.resize(index(len)?, 0);
        self.start = offset;
        let mut filled = 0;
        while filled < self.buffer.len() {
            match self.file.read_at(&mut self.buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}

fn index(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_behind_the_limit_are_not_read_before_their_time() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[1; 50], 0).expect("write");
        file.write_all_at(b"half of a frame", 50).expect("write");
        let mut source = Source::new(file.try_clone().expect("clone"), 50);
        assert_eq!(source.bytes(0, 50).expect("read"), Some(&[1; 50][..]));
        assert_eq!(source.bytes(49, 2).expect("read"), None);

        file.write_all_at(b"a whole frame", 50).expect("write");
        source.extend(63);
        assert_eq!(source.bytes(50, 13).expect("read"), Some(&b"a whole frame"[..]));
    }

    #[test]
    fn a_file_shorter_than_its_limit_reads_as_cut_short() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[1; 50], 0).expect("write");
        let mut source = Source::new(file, 1000);
        assert_eq!(source.bytes(0, 50).expect("read"), Some(&[1; 50][..]));
        assert_eq!(source.bytes(40, 11).expect("read"), None);
        assert_eq!(source.bytes(50, 1).expect("read"), None);
        assert_eq!(source.bytes(u64::MAX, 2).expect("read"), None);
    }
}
