//! Waiting for operations to end. One task for the whole process asks the database how far the
//! projection is, and only while somebody waits; when it has moved, one query for each
//! tenant re-reads every operation that is waited for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    id::ResourceKey,
    ports::{OperationStore, PortResult, ProjectionStore},
    record::{OperationRow, OperationState, ProjectionCursor},
};

/// Pause between two looks at the projection: far below a block's 100 ms.
const POLL_PAUSE: Duration = Duration::from_millis(20);
/// Operations waited for at a time; whoever comes later is answered without waiting.
const WAITS_MAX: usize = 20_000;
/// Keys looked up in one query.
const KEYS_PER_QUERY: usize = 1000;

/// Tells waiters when their operations have ended.
pub struct CommitWatch {
    network: String,
    store: Arc<dyn OperationStore>,
    projection: Arc<dyn ProjectionStore>,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    open: HashMap<ResourceKey, Wait>,
    /// Not looked up since they came.
    fresh: Vec<ResourceKey>,
    running: bool,
}

/// Those who wait for one operation.
struct Wait {
    tenant: Arc<str>,
    senders: Vec<oneshot::Sender<OperationRow>>,
}

impl CommitWatch {
    /// A watch over one network.
    #[must_use]
    pub fn new(network: String, store: Arc<dyn OperationStore>, projection: Arc<dyn ProjectionStore>) -> Self {
        Self { network, store, projection, waits: Mutex::default() }
    }

    /// Waits until every one of a tenant's operations has ended or the time is over; `None` for those
    /// that have not.
    pub async fn ended(
        self: &Arc<Self>,
        tenant: &str,
        keys: &[ResourceKey],
        limit: Duration,
    ) -> Vec<Option<OperationRow>> {
        let deadline = Instant::now() + limit;
        let mut rows = Vec::with_capacity(keys.len());
        for receiver in self.register(tenant, keys) {
            rows.push(timeout_at(deadline, receiver).await.ok().and_then(Result::ok));
        }
        rows
    }

    fn register(self: &Arc<Self>, tenant: &str, keys: &[ResourceKey]) -> Vec<oneshot::Receiver<OperationRow>> {
        let tenant: Arc<str> = tenant.into();
        let mut waits = self.waits.lock();
        let mut receivers = Vec::with_capacity(keys.len());
        for key in keys {
            let (sender, receiver) = oneshot::channel();
            if waits.open.len() < WAITS_MAX {
                let wait = || Wait { tenant: Arc::clone(&tenant), senders: Vec::new() };
                waits.open.entry(*key).or_insert_with(wait).senders.push(sender);
                waits.fresh.push(*key);
            }
            receivers.push(receiver);
        }
        if !waits.running && !waits.fresh.is_empty() {
            waits.running = true;
            tokio::spawn(Arc::clone(self).watch());
        }
        receivers
    }

    async fn watch(self: Arc<Self>) {
        let mut running = Running { waits: &self.waits, ended: false };
        let mut seen = None;
        while self.is_waited_for() {
            if let Err(error) = self.look(&mut seen).await {
                tracing::warn!(%error, "waiters are not told of commits");
            }
            sleep(POLL_PAUSE).await;
        }
        running.ended = true;
    }

    /// Drops waits whose waiter is gone; `false` ends the task, under the same lock under which
    /// a new waiter would find it running.
    fn is_waited_for(&self) -> bool {
        let mut waits = self.waits.lock();
        waits.open.retain(|_, wait| {
            wait.senders.retain(|sender| !sender.is_closed());
            !wait.senders.is_empty()
        });
        waits.running = !waits.open.is_empty();
        if !waits.running {
            waits.fresh.clear();
        }
        waits.running
    }

    async fn look(&self, seen: &mut Option<ProjectionCursor>) -> PortResult<()> {
        let cursor = self.projection.cursor(&self.network).await?;
        let keys = {
            let mut waits = self.waits.lock();
            let fresh = std::mem::take(&mut waits.fresh);
            if cursor == *seen { fresh } else { waits.open.keys().copied().collect() }
        };
        if let Err(error) = self.look_up(&keys).await {
            self.waits.lock().fresh.extend(keys);
            return Err(error);
        }
        *seen = cursor;
        Ok(())
    }

    async fn look_up(&self, keys: &[ResourceKey]) -> PortResult<()> {
        for (tenant, keys) in self.by_tenant(keys) {
            for keys in keys.chunks(KEYS_PER_QUERY) {
                self.tell(self.store.find(&self.network, &tenant, keys).await?);
            }
        }
        Ok(())
    }

    /// A key that nobody waits for any more is left out.
    fn by_tenant(&self, keys: &[ResourceKey]) -> BTreeMap<Arc<str>, Vec<ResourceKey>> {
        let waits = self.waits.lock();
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for key in keys {
            if let Some(wait) = waits.open.get(key) {
                found.entry(Arc::clone(&wait.tenant)).or_default().push(*key);
            }
        }
        found
    }

    fn tell(&self, rows: Vec<Option<OperationRow>>) {
        let mut waits = self.waits.lock();
        for row in rows.into_iter().flatten().filter(|row| row.state != OperationState::Accepted) {
            for sender in waits.open.remove(&row.key).map(|wait| wait.senders).unwrap_or_default() {
                // A waiter that has gone meanwhile needs no answer.
                let _ = sender.send(row.clone());
            }
        }
    }
}

/// However the task is cut short, the next waiter starts it anew.
struct Running<'a> {
    waits: &'a Mutex<Waits>,
    ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.waits.lock().running = false;
        }
    }
}
