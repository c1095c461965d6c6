//! What could not be processed, put aside with the reason. Nothing is ever deleted here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chopmark_domain::ports::{PortError, PortResult, QueuePosition};
use ledger_core::codec::{DecodeError, Reader, Writer};
use parking_lot::Mutex;
use segment_log::{Options, SegmentLog};

use super::failure::{broken, from_log};
use super::files::{DirectoryLock, from_io, segment_bytes};
use super::writer::open_log;
use crate::bounds::{MESSAGE_BYTES_MAX, REASON_BYTES_MAX};
use crate::metric::Metrics;

const VERSION: u8 = 1;
/// Bytes around the payload: version, position, two lengths and the reason.
const OVERHEAD_BYTES_MAX: usize = 1 + 12 + 8 + REASON_BYTES_MAX;
/// Longest payload. The log holds nothing longer than a message; other bytes are cut off here.
const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// One message that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stood in the queue.
    pub position: QueuePosition,
    /// Why it was put aside.
    pub reason: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl DeadLetter {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).u32(self.position.partition).u64(self.position.offset);
        writer.bytes(self.reason.as_bytes()).bytes(&self.bytes);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(DecodeError::Range("dead letter version"));
        }
        let position = QueuePosition { partition: reader.u32()?, offset: reader.u64()? };
        let reason = String::from_utf8_lossy(reader.bytes(REASON_BYTES_MAX)?).into_owned();
        let bytes = reader.bytes(PAYLOAD_BYTES_MAX)?.to_vec();
        reader.end()?;
        Ok(Self { position, reason, bytes })
    }
}

/// The dead letters of one queue. Blocking.
#[derive(Debug)]
pub(super) struct DeadLetters {
    directory: PathBuf,
    bytes_max: u64,
    metrics: Metrics,
    /// `None` after a failed append, until the next call opens it anew.
    log: Mutex<Option<Log>>,
    _lock: Arc<DirectoryLock>,
}

#[derive(Debug)]
struct Log {
    log: SegmentLog,
    bytes: u64,
}

impl DeadLetters {
    pub(super) fn open(
        directory: PathBuf,
        bytes_max: u64,
        metrics: Metrics,
        lock: Arc<DirectoryLock>,
    ) -> PortResult<Self> {
        let log = open(&directory, &metrics)?;
        Ok(Self { directory, bytes_max, metrics, log: Mutex::new(Some(log)), _lock: lock })
    }

    /// Durable when it returns. Called again, it puts the same message aside again.
    pub(super) fn put(&self, position: QueuePosition, bytes: &[u8], reason: &str) -> PortResult<()> {
        let reason = reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned();
        let bytes = bytes[..bytes.len().min(PAYLOAD_BYTES_MAX)].to_vec();
        let record = DeadLetter { position, reason, bytes }.encode();
        let mut slot = self.log.lock();
        let open = match slot.as_mut() {
            Some(open) => open,
            None => slot.insert(open(&self.directory, &self.metrics)?),
        };
        let bytes = open.bytes + record.len() as u64 + segment_log::format::FRAME_HEADER_BYTES;
        if bytes > self.bytes_max {
            return Err(PortError::Full("dead letter"));
        }
        if let Err(error) = open.log.append(&[&record]) {
            *slot = None;
            return Err(from_log(&error));
        }
        open.bytes = bytes;
        self.metrics.dead_letter();
        Ok(())
    }

    /// At most `max` dead letters, from number `from` on.
    pub(super) fn read(&self, from: u64, max: usize) -> PortResult<Vec<DeadLetter>> {
        let mut slot = self.log.lock();
        let open = match slot.as_mut() {
            Some(open) => open,
            None => slot.insert(open(&self.directory, &self.metrics)?),
        };
        let records = open.log.iter_from(from.max(open.log.first_sequence()));
        drop(slot);
        let decode = |record: Result<segment_log::Record, segment_log::Error>| {
            let record = record.map_err(|error| from_log(&error))?;
            DeadLetter::decode(&record.payload).map_err(|error| {
                broken(format!("dead letter {} in {}: {error}", record.sequence, self.directory.display()))
            })
        };
        records.take(max).map(decode).collect()
    }
}

fn open(directory: &Path, metrics: &Metrics) -> PortResult<Log> {
    let record_bytes_max = u32::try_from(PAYLOAD_BYTES_MAX + OVERHEAD_BYTES_MAX).unwrap_or(u32::MAX);
    let options = Options { record_bytes_max, ..Options::default() };
    let (log, _) = open_log(directory, "dead_letter", options, metrics).map_err(|error| from_log(&error))?;
    let bytes = segment_bytes(directory).map_err(|error| from_io("list", directory, &error))?;
    Ok(Log { log, bytes })
}
