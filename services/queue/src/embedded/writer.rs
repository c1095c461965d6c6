//! The writer thread: the only one that changes the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use chopmark_domain::ports::PortResult;
use segment_log::{Error, Flaw, Options, Recovery, SegmentLog};
use tokio::sync::{oneshot, watch};

use super::Config;
use super::config::GROUP_BYTES_MAX;
use super::failure::Failure;
use super::files::{DirectoryLock, segment_bytes};
use super::shared::{Reserved, Shared, Tail};
use crate::bounds::MESSAGE_BYTES_MAX;
use crate::metric::Metrics;

/// First delay before the log is opened anew; it doubles with each failure in a row.
const REOPEN_DELAY_MIN: Duration = Duration::from_millis(50);
/// Longest delay: a disk that has room again is noticed within this.
const REOPEN_DELAY_MAX: Duration = Duration::from_secs(5);
/// Failures in a row, before a cause other than a full disk counts as lasting: about 20 s.
const REOPEN_TRIES_MAX: u32 = 10;

/// One publisher's messages, encoded.
pub(super) struct Publish {
    pub(super) records: Vec<Vec<u8>>,
    pub(super) room: Reserved,
    pub(super) answer: oneshot::Sender<PortResult<()>>,
}

/// What the writer is asked for. Bounded by the room that each publish holds; commits come one at
/// a time from the one consumer.
pub(super) enum Job {
    Publish(Publish),
    /// The committed offset moved.
    Truncate,
}

/// Opens the log, and says so if its end looks like more than a write cut short.
pub(super) fn open_log(
    directory: &std::path::Path,
    name: &'static str,
    options: Options,
    metrics: &Metrics,
) -> Result<(SegmentLog, Recovery), Error> {
    let (log, recovery) = SegmentLog::open(directory, options)?;
    if let Some(torn) = recovery.torn.as_ref().filter(|torn| torn.flaw != Flaw::Incomplete) {
        metrics.damaged_tail(name);
        tracing::error!(
            file = %torn.file.display(), offset = torn.offset, sequence = torn.sequence, bytes = torn.bytes,
            flaw = %torn.flaw, "the end of a log was cut off and a killed process does not explain it; unless power \
            was lost, an acknowledged message may be gone",
        );
    }
    Ok((log, recovery))
}

pub(super) fn log_options(config: &Config) -> Options {
    let record_bytes_max = u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX);
    Options { segment_bytes_max: config.segment_bytes_max, record_bytes_max, ..Options::default() }
}

/// The log, or why there is none.
enum Log {
    Open(SegmentLog),
    Closed {
        cause: Failure,
        /// `None`: never again in this process.
        retry_at: Option<Instant>,
    },
}

/// State of the writer thread.
///
/// Invariant: `tail.next` only grows, and every message below it is durable. `append` and `reopen`
/// uphold it. If it fell, the consumer would have committed messages that others take the place of.
pub(super) struct Writer {
    log: Log,
    directory: PathBuf,
    config: Config,
    jobs: Receiver<Job>,
    tail: watch::Sender<Tail>,
    shared: Arc<Shared>,
    /// Failures since the last append that worked.
    failures: u32,
    _lock: Arc<DirectoryLock>,
}

impl Writer {
    pub(super) fn new(
        log: SegmentLog,
        directory: PathBuf,
        config: Config,
        jobs: Receiver<Job>,
        shared: Arc<Shared>,
        lock: Arc<DirectoryLock>,
    ) -> Self {
        let tail = watch::Sender::new(Tail { next: log.next_sequence(), opening: 0, reader: log.reader() });
        Self { log: Log::Open(log), directory, config, jobs, tail, shared, failures: 0, _lock: lock }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Tail> {
        self.tail.subscribe()
    }

    /// Runs until every sender of jobs is gone and every job is answered.
    pub(super) fn run(mut self) {
        loop {
            let first = match self.wait() {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.reopen_if_due();
            let group = self.group(first);
            if !group.is_empty() {
                self.publish(group);
            }
            self.truncate();
        }
    }

    /// The next job, or the moment to open the log anew.
    fn wait(&self) -> Result<Job, RecvTimeoutError> {
        match &self.log {
            Log::Closed { retry_at: Some(at), .. } => {
                self.jobs.recv_timeout(at.saturating_duration_since(Instant::now()))
            }
            _ => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Everything that waits, up to a bound and the publish that crosses it.
    fn group(&self, first: Option<Job>) -> Vec<Publish> {
        let (mut group, mut bytes, mut next) = (Vec::new(), 0, first);
        while let Some(job) = next {
            if let Job::Publish(publish) = job {
                bytes += publish.room.bytes;
                group.push(publish);
            }
            next = if bytes < GROUP_BYTES_MAX { self.jobs.try_recv().ok() } else { None };
        }
        group
    }

    fn publish(&mut self, group: Vec<Publish>) {
        let outcome = self.append(&group);
        for Publish { room, answer, .. } in group {
            drop(room);
            // A publisher that has gone does not want to know.
            let _ = answer.send(outcome.clone().map_err(Into::into));
        }
    }

    fn append(&mut self, group: &[Publish]) -> Result<(), Failure> {
        let log = match &mut self.log {
            Log::Open(log) => log,
            Log::Closed { cause, .. } => return Err(cause.clone()),
        };
        let records: Vec<&[u8]> = group.iter().flat_map(|publish| &publish.records).map(Vec::as_slice).collect();
        let started = Instant::now();
        if let Err(error) = log.append(&records) {
            return Err(self.close(Failure::from(&error)));
        }
        // Durable now. Dying here loses the answers only: the publishers learn nothing, ask again,
        // and their messages are delivered twice.
        let next = log.next_sequence();
        self.failures = 0;
        let shared = &self.shared;
        shared.appends.fetch_add(1, Ordering::Relaxed);
        shared.log_bytes.fetch_add(group.iter().map(|publish| publish.room.bytes).sum(), Ordering::AcqRel);
        shared.next.store(next, Ordering::Release);
        self.tail.send_modify(|tail| tail.next = next);
        shared.metrics.appended(records.len() as u64, started.elapsed());
        shared.metrics.depth(shared.lag());
        Ok(())
    }

    /// Deletes segments that are committed and no longer retained.
    fn truncate(&mut self) {
        let Log::Open(log) = &mut self.log else { return };
        let committed = self.shared.committed.load(Ordering::Acquire);
        let before = committed.saturating_sub(self.config.retained_messages);
        let first = log.first_sequence();
        if before <= first {
            return;
        }
        let outcome = log.truncate_front(before);
        if log.first_sequence() != first {
            self.count_bytes();
        }
        if let Err(error) = outcome {
            self.close(Failure::from(&error));
        }
    }

    fn count_bytes(&self) {
        match segment_bytes(&self.directory) {
            Ok(bytes) => self.shared.log_bytes.store(bytes, Ordering::Release),
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "cannot count the bytes of the queue");
            }
        }
    }

    /// Gives up the log and says when to open it anew, if ever. Answers what publishers learn.
    fn close(&mut self, cause: Failure) -> Failure {
        self.failures = self.failures.saturating_add(1);
        let cause = match cause {
            Failure::Unavailable(reason) if self.failures > REOPEN_TRIES_MAX => {
                Failure::Broken(format!("{REOPEN_TRIES_MAX} failures in a row, the last: {reason}"))
            }
            other => other,
        };
        let delay = REOPEN_DELAY_MIN.saturating_mul(1 << (self.failures - 1).min(16)).min(REOPEN_DELAY_MAX);
        let (label, retry_at) = match &cause {
            Failure::DiskFull => ("disk_full", Some(Instant::now() + delay)),
            Failure::Unavailable(_) => ("unavailable", Some(Instant::now() + delay)),
            Failure::Broken(_) => ("broken", None),
        };
        self.shared.metrics.failed(label);
        tracing::error!(directory = %self.directory.display(), ?cause, retry = retry_at.is_some(),
            "the queue's log is closed");
        self.log = Log::Closed { cause: cause.clone(), retry_at };
        cause
    }

    fn reopen_if_due(&mut self) {
        let Log::Closed { retry_at: Some(at), .. } = &self.log else { return };
        if *at > Instant::now() {
            return;
        }
        match open_log(&self.directory, "log", log_options(&self.config), &self.shared.metrics) {
            Ok((log, recovery)) => self.resume(log, &recovery),
            Err(error) => {
                self.close(Failure::from(&error));
            }
        }
    }

    /// Carries on with the log as found on disk, if it holds all that was acknowledged.
    fn resume(&mut self, log: SegmentLog, recovery: &Recovery) {
        let (acknowledged, next) = (self.tail.borrow().next, recovery.next_sequence);
        if next < acknowledged {
            let directory = self.directory.display();
            self.close(Failure::Broken(format!(
                "{directory} ends at message {next}, and {acknowledged} were acknowledged"
            )));
            return;
        }
        // Messages of the failed append may be there on top: the port allows that, and they are
        // durable since the opening.
        self.shared.next.store(next, Ordering::Release);
        self.tail.send_modify(|tail| {
            *tail = Tail { next, opening: tail.opening + 1, reader: log.reader() };
        });
        self.log = Log::Open(log);
        self.count_bytes();
        tracing::info!(directory = %self.directory.display(), next, "the queue's log is open again");
    }
}
