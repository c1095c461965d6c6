//! Length-prefixed binary encoding: the framing of everything that is hashed, signed or stored
//! as bytes and is not canonical JSON.
//!
//! Integers are big-endian; a byte string is its length as `u32` and then its bytes. A reader
//! refuses trailing bytes, so every value has exactly one encoding.

use thiserror::Error;

/// Appends values to a growing buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer whose first field is `domain`, as every hashed or signed message begins.
    #[must_use]
    pub fn with_domain(domain: &str) -> Self {
        let mut writer = Self(Vec::with_capacity(domain.len() + 128));
        writer.bytes(domain.as_bytes());
        writer
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// A `u32`, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A `u64`, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes of a length that the reader knows.
    pub fn fixed(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }

    /// A length-prefixed byte string.
    ///
    /// # Panics
    /// If `value` is 4 GiB or longer; every caller bounds its input far below.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let len = u32::try_from(value.len()).expect("a byte string below 4 GiB");
        self.u32(len).fixed(value)
    }

    /// A sequence length or other count.
    ///
    /// # Panics
    /// If `count` exceeds `u32::MAX`.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).expect("a count below 2^32"))
    }

    /// The bytes written so far.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// The bytes written so far, borrowed.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Why bytes could not be read.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum DecodeError {
    /// The input ends before the value does.
    #[error("input ends inside a value")]
    Short,
    /// Bytes are left over after the last value.
    #[error("bytes left over after the last value")]
    Trailing,
    /// A count, length or tag is outside its range.
    #[error("value out of range: {0}")]
    Range(&'static str),
}

/// Reads values from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the front of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// `len` bytes. Errors: [`DecodeError::Short`].
    pub fn fixed(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    /// An array of `N` bytes. Errors: [`DecodeError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.fixed(N)?);
        Ok(out)
    }

    /// One byte. Errors: [`DecodeError::Short`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A `u32`. Errors: [`DecodeError::Short`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A `u64`. Errors: [`DecodeError::Short`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A length-prefixed byte string of at most `max` bytes.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(DecodeError::Range("length"));
        }
        self.fixed(len)
    }

    /// A count of at most `max`, so that a caller may reserve room for it.
    pub fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(DecodeError::Range("count"));
        }
        Ok(count)
    }

    /// Succeeds when nothing is left. Errors: [`DecodeError::Trailing`].
    pub fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}
