//! Opening the queue, and its publishing end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use chopmark_domain::message::QueueMessage;
use chopmark_domain::ports::{PortResult, Queue};
use parking_lot::Mutex;
use segment_log::Recovery;
use segment_log::format::FRAME_HEADER_BYTES;
use tokio::sync::{oneshot, watch};

use super::Config;
use super::committed::{CommittedFile, Mark};
use super::consumer::EmbeddedConsumer;
use super::dead_letter::{DeadLetter, DeadLetters};
use super::failure::{broken, from_log, unavailable};
use super::files::{DirectoryLock, create_directory, from_io, segment_bytes};
use super::shared::{Shared, Tail};
use super::writer::{Job, Publish, Writer, log_options, open_log};
use crate::bounds::MESSAGE_BYTES_MAX;
use crate::metric::Metrics;

/// The only partition.
pub(super) const PARTITION: u32 = 0;

/// A queue in a directory. Clones are handles of the same queue.
///
/// It closes when the last handle and the consumer are dropped, which waits for the append under
/// way.
#[derive(Debug, Clone)]
pub struct EmbeddedQueue {
    inner: Arc<Inner>,
}

/// What the handles and the consumer share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) directory: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) tail: watch::Receiver<Tail>,
    pub(super) committed: Mutex<CommittedFile>,
    pub(super) dead_letters: DeadLetters,
    pub(super) has_consumer: AtomicBool,
    /// `None` only while closing.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

/// Where a queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Offset of the next message.
    pub next: u64,
    /// Messages below this offset are done.
    pub committed: u64,
    /// Appends since opening, each with one sync.
    pub appends: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
}

impl EmbeddedQueue {
    /// Opens the queue in `directory`, making it if there is none. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// `Unavailable` while another opener has it, or if the system refuses; `DiskFull`; `Broken`
    /// if acknowledged messages are damaged or missing.
    pub fn open(directory: impl AsRef<Path>, config: Config) -> PortResult<Self> {
        config.check().map_err(broken)?;
        let directory = directory.as_ref().to_owned();
        create_directory(&directory)?;
        let lock = Arc::new(DirectoryLock::take(&directory)?);
        let metrics = Metrics::new(config.network.clone());

        let log_directory = directory.join("log");
        let (log, recovery) =
            open_log(&log_directory, "log", log_options(&config), &metrics).map_err(|error| from_log(&error))?;
        let committed = open_committed(&directory, &recovery, Arc::clone(&lock))?;
        let dead_letters = DeadLetters::open(
            directory.join("dead-letter"),
            config.dead_letter_bytes_max,
            metrics.clone(),
            Arc::clone(&lock),
        )?;
        let log_bytes = segment_bytes(&log_directory).map_err(|error| from_io("list", &log_directory, &error))?;
        let (next, mark) = (recovery.next_sequence, committed.mark());
        let shared = Arc::new(Shared::new(&config, mark.committed, next, log_bytes, metrics));
        shared.metrics.depth(shared.lag());

        #[expect(clippy::disallowed_methods, reason = "bounded by the bytes that are reserved before a job is sent")]
        let (jobs, receiver) = mpsc::channel();
        let writer = Writer::new(log, log_directory, config, receiver, Arc::clone(&shared), lock);
        let tail = writer.subscribe();
        let thread = thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| unavailable(format!("start the writer: {error}")))?;
        let inner = Inner {
            directory,
            shared,
            tail,
            committed: Mutex::new(committed),
            dead_letters,
            has_consumer: AtomicBool::new(false),
            jobs: Some(jobs),
            writer: Some(thread),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The consumer, starting behind what is committed.
    ///
    /// # Errors
    ///
    /// `Unavailable` while there is one: two would deliver everything twice and commit past each
    /// other.
    pub fn consumer(&self) -> PortResult<EmbeddedConsumer> {
        if self.inner.has_consumer.swap(true, Ordering::AcqRel) {
            return Err(unavailable("there is a consumer already"));
        }
        Ok(EmbeddedConsumer::new(Arc::clone(&self.inner)))
    }

    /// At most `max` dead letters, from number `from` on, counted from 0. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// `Broken` if one is damaged, `Unavailable` if the system refuses.
    pub fn dead_letters(&self, from: u64, max: usize) -> PortResult<Vec<DeadLetter>> {
        self.inner.dead_letters.read(from, max)
    }

    /// Where the queue stands.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        Stats {
            next: shared.next.load(Ordering::Acquire),
            committed: shared.committed.load(Ordering::Acquire),
            appends: shared.appends.load(Ordering::Relaxed),
            log_bytes: shared.log_bytes.load(Ordering::Acquire),
        }
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    /// Dropped before it returns, it still publishes.
    async fn publish(&self, messages: Vec<QueueMessage>) -> PortResult<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let records: Vec<Vec<u8>> = messages.iter().map(QueueMessage::encode).collect();
        if let Some(record) = records.iter().find(|record| record.len() > MESSAGE_BYTES_MAX) {
            // Alone it fails here; in the log it would fail the messages of others beside it.
            return Err(broken(format!("a message of {} bytes, and {MESSAGE_BYTES_MAX} are allowed", record.len())));
        }
        let bytes = records.iter().map(|record| record.len() as u64 + FRAME_HEADER_BYTES).sum();
        let room = self.inner.shared.reserve(bytes)?;
        let (answer, answered) = oneshot::channel();
        self.inner.send(Job::Publish(Publish { records, room, answer }))?;
        answered.await.map_err(|_| broken("the writer has ended"))?
    }
}

impl Inner {
    fn send(&self, job: Job) -> PortResult<()> {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        if let Some(Ok(())) = sent { Ok(()) } else { Err(broken("the writer has ended")) }
    }

    /// Asks the writer to delete what is committed. Without a writer nothing is deleted.
    pub(super) fn wake_writer(&self) {
        let _ = self.send(Job::Truncate);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!(directory = %self.directory.display(), "the queue's writer panicked");
        }
    }
}

/// Opens or makes the file `committed`, and compares it with the log.
fn open_committed(directory: &Path, recovery: &Recovery, lock: Arc<DirectoryLock>) -> PortResult<CommittedFile> {
    let path = CommittedFile::path(directory);
    let refused = |error| from_io("open", &path, &error);
    let (first, next) = (recovery.first_sequence, recovery.next_sequence);
    let Some(file) = CommittedFile::open(directory, Arc::clone(&lock)).map_err(refused)? else {
        if next > 0 {
            tracing::warn!(file = %path.display(), first, next,
                "the committed position is missing; everything that is kept will be delivered again");
        }
        let mark = Mark { committed: first, log_end: next };
        return CommittedFile::create(directory, mark, lock).map_err(refused);
    };
    let Mark { committed, log_end } = file.mark();
    let lost = |what: String| {
        let remedy = "restore it, or remove the file `committed` to have all that is kept delivered again";
        Err(broken(format!("queue in {}: {what}; {remedy}", directory.display())))
    };
    if next < committed.max(log_end) {
        return lost(format!(
            "the log ends at message {next} and has held {log_end}, of which {committed} are committed"
        ));
    }
    if committed < first {
        return lost(format!("messages {committed} to {first} are missing and were never committed"));
    }
    Ok(file)
}
