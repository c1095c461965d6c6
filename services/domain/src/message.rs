//! The queue message: the contract between gateways and committers.

use ledger_core::{
    codec::{DecodeError, Reader, Writer},
    hash::Hash32,
    operation::OPERATION_BYTES_MAX,
};

/// Largest sealed private part: title, external id and provenance are bounded far below.
pub const SEALED_BYTES_MAX: usize = 32 * 1024;
/// Longest of the short text fields.
const TEXT_BYTES_MAX: usize = 256;
const VERSION: u8 = 1;

/// One accepted operation on its way to the ledger. Fields in the order of their encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueMessage {
    /// `sandbox` or `live`.
    pub network: String,
    /// Tenant id.
    pub tenant: String,
    /// Operation id.
    pub op: Hash32,
    /// Keyed digest of the parsed request.
    pub request_digest: Hash32,
    /// Messages with the same order key stay in order: the operation id for evidence.
    pub order_key: Vec<u8>,
    /// Trace context of the request (W3C `traceparent`), or empty.
    pub trace: String,
    /// Canonical operation bytes.
    pub operation: Vec<u8>,
    /// Sealed private part, or empty.
    pub sealed_private: Vec<u8>,
    /// Keyed blind index of the external id, if one was given.
    pub external_index: Option<Hash32>,
}

impl QueueMessage {
    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).bytes(self.network.as_bytes()).bytes(self.tenant.as_bytes());
        writer.fixed(&self.op.0).fixed(&self.request_digest.0);
        writer.bytes(&self.order_key).bytes(self.trace.as_bytes());
        writer.bytes(&self.operation).bytes(&self.sealed_private);
        writer.bytes(self.external_index.as_ref().map_or(&[], |index| &index.0[..]));
        writer.finish()
    }

    /// Reads one message.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(DecodeError::Range("message version"));
        }
        let message = Self {
            network: text(&mut reader)?,
            tenant: text(&mut reader)?,
            op: Hash32(reader.array()?),
            request_digest: Hash32(reader.array()?),
            order_key: reader.bytes(TEXT_BYTES_MAX)?.to_vec(),
            trace: text(&mut reader)?,
            operation: reader.bytes(OPERATION_BYTES_MAX)?.to_vec(),
            sealed_private: reader.bytes(SEALED_BYTES_MAX)?.to_vec(),
            external_index: match reader.bytes(32)? {
                [] => None,
                index => Some(Hash32(index.try_into().map_err(|_| DecodeError::Range("external index"))?)),
            },
        };
        reader.end()?;
        Ok(message)
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let bytes = reader.bytes(TEXT_BYTES_MAX)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Range("text"))
}
