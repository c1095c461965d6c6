//! Connections, and the way onto them from async code.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chopmark_domain::ports::{PortError, PortResult};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use crate::{PORT, failure::Failure};

/// How long a call waits for a connection: longer than the longest transaction, shorter than any
/// client's patience.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the connections of a pool.
pub(crate) trait Connect: Debug + Send + Sync + 'static {
    type Connection: Send + 'static;

    /// After this the caller is told that the database is away, whatever the connection waits for.
    fn call_timeout(&self) -> Option<Duration>;

    fn connect(&self) -> Result<Self::Connection, Failure>;

    /// Begins a call. Nothing has been asked of the database before, so that a connection that turns
    /// out to be dead here is replaced and nobody notices.
    fn begin(&self, connection: &mut Self::Connection) -> Result<(), Failure>;

    fn port_error(failure: Failure) -> PortError;
}

/// A bounded set of connections. Waiting for one happens in order of arrival and on no thread.
pub(crate) struct Pool<C: Connect> {
    permits: Arc<Semaphore>,
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connect> {
    connect: C,
    idle: Mutex<Vec<C::Connection>>,
}

impl<C: Connect> Pool<C> {
    pub(crate) fn new(connect: C, connections: usize) -> Self {
        let shared = Shared { connect, idle: Mutex::new(Vec::with_capacity(connections)) };
        Self { permits: Arc::new(Semaphore::new(connections)), shared: Arc::new(shared) }
    }

    /// Runs `work` on a connection and a blocking thread. Work that has begun is finished even if
    /// the caller goes away or its time is over; until then it keeps its place in the pool.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut C::Connection) -> Result<T, Failure> + Send + 'static,
    ) -> PortResult<T> {
        self.run_within(self.shared.connect.call_timeout(), work).await
    }

    /// As [`Self::run`], with another limit.
    pub(crate) async fn run_within<T: Send + 'static>(
        &self,
        limit: Option<Duration>,
        work: impl FnOnce(&mut C::Connection) -> Result<T, Failure> + Send + 'static,
    ) -> PortResult<T> {
        let permit = self.permit().await?;
        let shared = Arc::clone(&self.shared);
        let task = spawn_blocking(move || {
            let result = shared.run(work);
            drop(permit);
            result
        });
        let ended = match limit {
            Some(limit) => timeout(limit, task).await.map_err(|_| unavailable("no answer in time"))?,
            None => task.await,
        };
        match ended {
            Ok(result) => result.map_err(C::port_error),
            Err(error) => Err(PortError::Broken { port: PORT, reason: error.to_string() }),
        }
    }

    async fn permit(&self) -> PortResult<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        match timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(unavailable("closed")),
            Err(_) => Err(unavailable("no connection became free in time")),
        }
    }
}

fn unavailable(reason: &str) -> PortError {
    PortError::Unavailable { port: PORT, reason: reason.to_owned() }
}

impl<C: Connect> Shared<C> {
    /// A connection that met an error, or a panic, is not used again: in what state it is would be
    /// a guess. The next caller opens another.
    fn run<T>(&self, work: impl FnOnce(&mut C::Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut connection = self.ready()?;
        let value = work(&mut connection)?;
        self.lock().push(connection);
        Ok(value)
    }

    fn ready(&self) -> Result<C::Connection, Failure> {
        loop {
            let idle = self.lock().pop();
            let Some(mut connection) = idle else { break };
            match self.connect.begin(&mut connection) {
                Ok(()) => return Ok(connection),
                Err(error) => tracing::debug!(%error, "an idle connection to the database was gone"),
            }
        }
        let mut connection = self.connect.connect()?;
        self.connect.begin(&mut connection)?;
        Ok(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<C::Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connect> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { permits: Arc::clone(&self.permits), shared: Arc::clone(&self.shared) }
    }
}

impl<C: Connect> Debug for Pool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("connect", &self.shared.connect).finish_non_exhaustive()
    }
}
