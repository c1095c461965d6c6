//! The submit loop: queue → database → ledger → committed positions.
//!
//! Invariant: a position is committed only when every message up to it has its outcome in the
//! ledger or stands in the dead letters. Only [`SubmitLoop::settle`] commits, from the front of
//! the pipeline. If a position ran ahead, an acknowledged operation would be lost.
//!
//! What is in memory may be dropped at any time: whatever is not committed is delivered again.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use chopmark_domain::ports::{
    Clock, Delivery, LedgerWriter, OperationStore, PortError, PortResult, QueueConsumer, QueuePosition,
};
use metrics::{counter, gauge, histogram};
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admit::Letter,
    batch::{Finished, Worker, highest},
    config::SubmitConfig,
    error::CommitterError,
    metric::{self, gauge_value},
    retry::{Caller, within},
};

/// Longest wait for the queue's lag, a metric only.
const LAG_TIMEOUT: Duration = Duration::from_secs(1);

/// What the submit loop works with.
pub struct SubmitPorts {
    /// This committer's share of the queue. It starts at the committed positions.
    pub consumer: Box<dyn QueueConsumer>,
    /// Operations and private parts.
    pub store: Arc<dyn OperationStore>,
    /// The ledger.
    pub ledger: Arc<dyn LedgerWriter>,
    /// Time for `accepted_at`.
    pub clock: Arc<dyn Clock>,
}

/// Carries operations from the queue to the ledger.
pub struct SubmitLoop {
    consumer: Box<dyn QueueConsumer>,
    worker: Arc<Worker>,
    /// Batches in the order in which they were polled.
    in_flight: VecDeque<Flight>,
    lag_read: Option<Instant>,
}

/// A batch under way.
struct Flight {
    stage: Stage,
    started: Instant,
    messages: usize,
    bytes: usize,
}

enum Stage {
    Running(AbortOnDropHandle<Result<Finished, CommitterError>>),
    Landed(Finished),
}

impl SubmitLoop {
    /// A loop over `ports`.
    #[must_use]
    pub fn new(ports: SubmitPorts, config: SubmitConfig) -> Self {
        let SubmitPorts { consumer, store, ledger, clock } = ports;
        let caller = Caller { network: config.network, retry: config.retry };
        let worker = Arc::new(Worker { store, ledger, clock, config, caller });
        Self { consumer, worker, in_flight: VecDeque::new(), lag_read: None }
    }

    /// Runs until `stop`, then finishes and commits what is under way. An error means that a port
    /// is broken: nothing more was committed, and a new loop needs a new consumer.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), CommitterError> {
        // Dropping the work at any await is harmless: what was polled and not started is not
        // committed either, and the pipeline survives in `self`.
        let result = match stop.run_until_cancelled(self.work()).await {
            Some(Ok(never)) => match never {},
            Some(Err(error)) => Err(error),
            None => self.drain().await,
        };
        gauge!(metric::IN_FLIGHT, "network" => self.network()).set(0.0);
        result.inspect_err(|error| {
            counter!(metric::STOPPED, "network" => self.network(), "loop" => "submit", "cause" => error.label())
                .increment(1);
            tracing::error!(network = self.network(), %error, "submit loop stopped");
        })
    }

    async fn work(&mut self) -> Result<Infallible, CommitterError> {
        loop {
            self.report().await;
            if self.has_room() {
                let deliveries = self.take().await?;
                self.start(deliveries);
            } else if let Ok(landed) = timeout(self.config().lag_interval, self.land_front()).await {
                landed?;
            }
            self.settle().await?;
        }
    }

    /// Finishes what is under way, within bounds.
    async fn drain(&mut self) -> Result<(), CommitterError> {
        let limit = self.config().drain_timeout;
        let finish = async {
            while !self.in_flight.is_empty() {
                self.land_front().await?;
                self.settle().await?;
            }
            Ok(())
        };
        let Ok(result) = timeout(limit, finish).await else {
            let messages: usize = self.in_flight.iter().map(|flight| flight.messages).sum();
            tracing::warn!(
                network = self.network(),
                messages,
                "stopped before all had an outcome; they will be delivered again"
            );
            return Ok(());
        };
        result
    }

    fn has_room(&self) -> bool {
        let bytes: usize = self.in_flight.iter().map(|flight| flight.bytes).sum();
        self.in_flight.len() < self.config().batches_in_flight_max.max(1) && bytes < self.config().in_flight_bytes_max
    }

    /// The next messages. With work under way a poll lingers, so that the next block is fuller;
    /// with none the first message goes at once, with whatever stands behind it.
    async fn take(&mut self) -> PortResult<Vec<Delivery>> {
        let max = self.config().batch_operations_max.max(1);
        if !self.in_flight.is_empty() {
            return self.poll(max).await;
        }
        let mut deliveries = self.poll(1).await?;
        if !deliveries.is_empty() && max > 1 {
            match self.poll_once(max - 1, Duration::ZERO).await {
                Ok(more) => deliveries.extend(more),
                Err(error @ PortError::Broken { .. }) => return Err(error),
                // The message in hand goes on; the next poll will meet the error again.
                Err(error) => tracing::debug!(%error, "failed to read behind the first message"),
            }
        }
        Ok(deliveries)
    }

    async fn poll(&mut self, max: usize) -> PortResult<Vec<Delivery>> {
        let mut patience = self.worker.caller.patience("queue");
        loop {
            let polled = self.poll_once(max, self.config().linger).await;
            metric::answered(self.network(), "queue", polled.is_ok());
            match polled {
                Ok(deliveries) => return Ok(deliveries),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// A poll that does not return in time is not tried again but ends the loop: dropping it may
    /// drop messages that it holds already, and a later commit would pass over them.
    async fn poll_once(&mut self, max: usize, linger: Duration) -> PortResult<Vec<Delivery>> {
        let limit = self.config().call_timeout.saturating_add(linger);
        timeout(limit, self.consumer.poll(max, linger)).await.unwrap_or_else(|_| {
            let reason = format!("a poll did not return within {} ms", limit.as_millis());
            Err(PortError::Broken { port: "queue", reason })
        })
    }

    fn start(&mut self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let (messages, bytes) = (deliveries.len(), deliveries.iter().map(size).sum());
        let task = tokio::spawn(Arc::clone(&self.worker).process(deliveries));
        let stage = Stage::Running(AbortOnDropHandle::new(task));
        self.in_flight.push_back(Flight { stage, started: Instant::now(), messages, bytes });
    }

    /// Waits until the oldest batch has its outcomes. Safe to drop.
    async fn land_front(&mut self) -> Result<(), CommitterError> {
        match self.in_flight.front_mut() {
            Some(flight) => flight.land().await,
            None => Ok(()),
        }
    }

    /// Puts aside and commits what has landed at the front of the pipeline.
    ///
    /// Durable on entry: the outcomes. Dying before or between the dead letters puts them aside
    /// once more, under the same positions; dying before the commit repeats the batch, which
    /// changes nothing; after it the queue has forgotten the messages, and all are settled.
    async fn settle(&mut self) -> Result<(), CommitterError> {
        let mut landed = 0;
        while let Some(flight) = self.in_flight.get_mut(landed).filter(|flight| flight.is_over()) {
            flight.land().await?;
            landed += 1;
        }
        if landed == 0 {
            return Ok(());
        }
        let Self { consumer, worker, in_flight, .. } = self;
        for flight in in_flight.iter_mut().take(landed) {
            put_aside(consumer.as_mut(), worker, flight).await?;
        }
        let upto = highest(in_flight.iter().take(landed).flat_map(Flight::positions));
        let upto: Vec<QueuePosition> = upto.into_values().collect();
        commit(consumer.as_mut(), worker, &upto).await?;
        for flight in in_flight.drain(..landed) {
            histogram!(metric::BATCH_SECONDS, "network" => worker.config.network.as_str())
                .record(flight.started.elapsed());
        }
        Ok(())
    }

    /// Sets the gauges; also while the ledger stalls, when they matter most.
    async fn report(&mut self) {
        let messages: usize = self.in_flight.iter().map(|flight| flight.messages).sum();
        gauge!(metric::IN_FLIGHT, "network" => self.network()).set(gauge_value(messages as u64));
        if self.lag_read.is_some_and(|at| at.elapsed() < self.config().lag_interval) {
            return;
        }
        self.lag_read = Some(Instant::now());
        match within("queue", LAG_TIMEOUT, self.consumer.lag()).await {
            Ok(lag) => gauge!(metric::QUEUE_LAG, "network" => self.network()).set(gauge_value(lag)),
            Err(error) => tracing::debug!(%error, "failed to read the queue's lag"),
        }
    }

    fn config(&self) -> &SubmitConfig {
        &self.worker.config
    }

    fn network(&self) -> &'static str {
        self.config().network.as_str()
    }
}

impl Flight {
    fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Running(task) => task.is_finished(),
            Stage::Landed(_) => true,
        }
    }

    async fn land(&mut self) -> Result<(), CommitterError> {
        if let Stage::Running(task) = &mut self.stage {
            self.stage = Stage::Landed(task.await.map_err(|_| CommitterError::Worker)??);
        }
        Ok(())
    }

    fn positions(&self) -> impl Iterator<Item = QueuePosition> {
        let finished = match &self.stage {
            Stage::Running(_) => None,
            Stage::Landed(finished) => Some(finished),
        };
        finished.into_iter().flat_map(|finished| finished.upto.values().copied())
    }
}

/// Puts a batch's poison aside; each letter leaves the list once it is durable.
async fn put_aside(consumer: &mut dyn QueueConsumer, worker: &Worker, flight: &mut Flight) -> PortResult<()> {
    let Stage::Landed(finished) = &mut flight.stage else { return Ok(()) };
    let network = worker.config.network.as_str();
    while let Some(Letter { position, bytes, poison }) = finished.letters.front() {
        let reason = poison.reason();
        let mut patience = worker.caller.patience("queue");
        while let Err(error) =
            within("queue", worker.config.call_timeout, consumer.dead_letter(*position, bytes, &reason)).await
        {
            patience.after(error).await?;
        }
        counter!(metric::DEAD_LETTERED, "network" => network, "reason" => poison.label()).increment(1);
        let QueuePosition { partition, offset } = *position;
        tracing::error!(network, partition, offset, reason = poison.label(), "message put aside");
        finished.letters.pop_front();
    }
    Ok(())
}

async fn commit(consumer: &mut dyn QueueConsumer, worker: &Worker, upto: &[QueuePosition]) -> Result<(), PortError> {
    let mut patience = worker.caller.patience("queue");
    while let Err(error) = within("queue", worker.config.call_timeout, consumer.commit(upto)).await {
        patience.after(error).await?;
    }
    Ok(())
}

/// Bytes that a delivery holds.
fn size(delivery: &Delivery) -> usize {
    match &delivery.message {
        Ok(message) => message.operation.len() + message.sealed_private.len(),
        Err(poison) => poison.bytes.len(),
    }
}
