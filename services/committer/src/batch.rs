//! One batch on its way from the queue to its outcomes. Several run at once; none of them
//! touches the queue, so that positions are committed in one place and in order.
//!
//! What is durable after each step, and why dying on the next line is harmless:
//!
//! 1. *check*: nothing. The queue delivers the messages again.
//! 2. *insert*: rows and private parts. Inserting them again changes nothing.
//! 3. *submit*: outcomes, in the ledger, under the operation id. Submitting again answers the
//!    same outcome and makes no second entry.
//! 4. *mark conflicts*: the mark. Marking again changes nothing.
//!
//! Only then the submit loop puts poison aside and commits the positions.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use chopmark_domain::{
    ports::{Clock, Delivery, LedgerWriter, OperationStore, PortError, PortResult, QueuePosition, SubmitResult},
    record::AcceptedOperation,
};
use ledger_core::{batch::SUBMISSION_OPERATIONS_MAX, hash::Hash32, operation::SignedOperation, outcome::RejectionCode};
use metrics::{counter, histogram};

use crate::{
    admit::{Admitted, Letter, admit},
    config::SubmitConfig,
    error::CommitterError,
    metric,
    retry::Caller,
};

/// What batches need.
pub(crate) struct Worker {
    pub(crate) store: Arc<dyn OperationStore>,
    pub(crate) ledger: Arc<dyn LedgerWriter>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: SubmitConfig,
    pub(crate) caller: Caller,
}

/// A batch in which every operation has its outcome.
#[derive(Debug)]
pub(crate) struct Finished {
    /// To be put aside before the positions are committed.
    pub(crate) letters: VecDeque<Letter>,
    /// The highest position of each partition.
    pub(crate) upto: BTreeMap<u32, QueuePosition>,
}

/// An operation with its outcome.
struct Ended {
    admitted: Admitted,
    request: Hash32,
    result: Result<u64, RejectionCode>,
}

impl Worker {
    /// Brings every delivered operation to its outcome. Fails only where a port is broken.
    pub(crate) async fn process(self: Arc<Self>, deliveries: Vec<Delivery>) -> Result<Finished, CommitterError> {
        let upto = highest(deliveries.iter().map(|delivery| delivery.position));
        let (admitted, mut letters) = self.check(deliveries).await?;
        self.insert(&admitted).await?;
        let ended = self.outcomes(admitted, &mut letters).await?;
        self.mark_conflicts(&ended).await?;
        self.count(&ended);
        Ok(Finished { letters: letters.into(), upto })
    }

    async fn check(&self, deliveries: Vec<Delivery>) -> Result<(Vec<Admitted>, Vec<Letter>), CommitterError> {
        let (network, chain) = (self.config.network, self.ledger.chain());
        // 2 048 operations are several milliseconds of parsing and hashing.
        tokio::task::spawn_blocking(move || admit(network, &chain, deliveries))
            .await
            .map_err(|_| CommitterError::Worker)
    }

    async fn insert(&self, admitted: &[Admitted]) -> PortResult<()> {
        let now = self.clock.now_ms();
        for round in rounds(admitted) {
            self.insert_rows(&round.iter().map(|item| item.row(now)).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    async fn insert_rows(&self, rows: &[AcceptedOperation]) -> PortResult<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let insert = || self.store.insert_accepted(rows.to_vec());
        self.caller.call("database", self.config.call_timeout, insert).await
    }

    /// Submits until everything has ended. Of several messages under one operation id the first
    /// goes to the ledger; its outcome is that of all.
    async fn outcomes(&self, admitted: Vec<Admitted>, letters: &mut Vec<Letter>) -> PortResult<Vec<Ended>> {
        let (mut open, mut ended) = (admitted, Vec::new());
        // Ends: every turn settles at least the first message of each operation id.
        while !open.is_empty() {
            let results = self.submit_first_of_each(&open).await?;
            for admitted in std::mem::take(&mut open) {
                match results.get(&admitted.message.op) {
                    Some((_, SubmitResult::Ended { request, result })) => {
                        ended.push(Ended { request: *request, result: *result, admitted });
                    }
                    Some((hash, SubmitResult::Malformed(reason))) if *hash == admitted.operation_hash => {
                        letters.push(admitted.malformed(reason.clone()));
                    }
                    _ => open.push(admitted),
                }
            }
        }
        Ok(ended)
    }

    /// Results by operation id, with the hash of the operation bytes that got them.
    async fn submit_first_of_each(&self, open: &[Admitted]) -> PortResult<HashMap<Hash32, (Hash32, SubmitResult)>> {
        let mut seen = HashSet::with_capacity(open.len());
        let first: Vec<&Admitted> = open.iter().filter(|item| seen.insert(item.message.op)).collect();
        let mut results = HashMap::with_capacity(first.len());
        for submission in submissions(&first, self.config.submission_bytes_max) {
            for (item, result) in submission.iter().zip(self.submit(submission).await?) {
                results.insert(item.message.op, (item.operation_hash, result));
            }
        }
        Ok(results)
    }

    async fn submit(&self, submission: &[&Admitted]) -> PortResult<Vec<SubmitResult>> {
        let operations: Vec<SignedOperation> =
            submission.iter().map(|item| SignedOperation::unsigned(item.message.operation.clone())).collect();
        let submit = || self.ledger.submit(operations.clone());
        let started = Instant::now();
        let results = self.caller.call("ledger", self.config.submit_timeout, submit).await?;
        histogram!(metric::LEDGER_SECONDS, "network" => self.config.network.as_str()).record(started.elapsed());
        if results.len() == operations.len() {
            return Ok(results);
        }
        let reason = format!("{} results for {} operations", results.len(), operations.len());
        Err(PortError::Broken { port: "ledger", reason })
    }

    /// Marks operations whose id another request won.
    ///
    /// The row may be the loser's (inserted above) or already the winner's (by projection), and
    /// a projection may turn the one into the other at any time. So both requests are shown to
    /// the store, which marks a row on meeting any request but its own: first the winner's,
    /// which marks a row that is still the loser's, then the loser's, which marks a row that
    /// was the winner's already. In this order no projection in between escapes; the other way
    /// round one would.
    async fn mark_conflicts(&self, ended: &[Ended]) -> PortResult<()> {
        let now = self.clock.now_ms();
        let mut seen = HashSet::new();
        let lost = ended.iter().filter(|item| item.lost() && seen.insert(item.admitted.message.op));
        let (winners, losers): (Vec<_>, Vec<_>) = lost
            .map(|item| {
                let loser = AcceptedOperation { private: None, ..item.admitted.row(now) };
                // The winner's bytes are not known here. They matter only where no row exists,
                // and then projection writes them.
                (AcceptedOperation { request: item.request, operation_hash: Hash32::ZERO, ..loser.clone() }, loser)
            })
            .unzip();
        self.insert_rows(&winners).await?;
        self.insert_rows(&losers).await
    }

    fn count(&self, ended: &[Ended]) {
        let network = self.config.network.as_str();
        counter!(metric::SUBMITTED, "network" => network).increment(ended.len() as u64);
        for item in ended {
            if let Err(code) = item.result {
                counter!(metric::REJECTED, "network" => network, "code" => code.as_str()).increment(1);
            }
            if item.lost() {
                counter!(metric::CONFLICTS, "network" => network).increment(1);
            }
        }
    }
}

impl Ended {
    /// Whether another request holds the operation id.
    fn lost(&self) -> bool {
        self.request != self.admitted.message.request_digest
    }
}

/// The highest position of each partition.
pub(crate) fn highest(positions: impl Iterator<Item = QueuePosition>) -> BTreeMap<u32, QueuePosition> {
    let mut highest = BTreeMap::new();
    for position in positions {
        let known = highest.entry(position.partition).or_insert(position);
        *known = position.max(*known);
    }
    highest
}

/// Distinct attempts in rounds in which no operation id stands twice: a later round finds the
/// rows of the earlier ones, so that the store sees a conflict inside one batch as well.
fn rounds(admitted: &[Admitted]) -> Vec<Vec<&Admitted>> {
    let (mut attempts, mut attempts_of) = (HashSet::new(), HashMap::<Hash32, usize>::new());
    let mut rounds: Vec<Vec<&Admitted>> = Vec::new();
    for item in admitted.iter().filter(|item| attempts.insert((item.message.op, item.operation_hash))) {
        let round = attempts_of.entry(item.message.op).or_default();
        match rounds.get_mut(*round) {
            Some(items) => items.push(item),
            None => rounds.push(vec![item]),
        }
        *round += 1;
    }
    rounds
}

/// Cuts operations into submissions of bounded size, each of at least one operation.
fn submissions<'a, 'b>(mut items: &'a [&'b Admitted], bytes_max: usize) -> Vec<&'a [&'b Admitted]> {
    let mut cut = Vec::new();
    while !items.is_empty() {
        let mut bytes = 0;
        let fits = items.iter().take(SUBMISSION_OPERATIONS_MAX).take_while(|item| {
            bytes += item.message.operation.len();
            bytes <= bytes_max
        });
        let (submission, rest) = items.split_at(fits.count().max(1));
        cut.push(submission);
        items = rest;
    }
    cut
}
