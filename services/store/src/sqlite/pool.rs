//! Connections, and the way onto them from async code.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chopmark_domain::ports::{PortError, PortResult};
use diesel::SqliteConnection;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    connect::{self, Role},
    failure::Failure,
};
use crate::PORT;

/// How long a call waits for a connection: longer than the longest transaction, shorter than any
/// client's patience.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// A bounded set of connections of one role. Waiting for one happens in order of arrival and on no
/// thread.
#[derive(Clone)]
pub(super) struct Pool {
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    role: Role,
    idle: Mutex<Vec<SqliteConnection>>,
}

impl Pool {
    pub(super) fn new(path: &Path, role: Role, connections: usize) -> Self {
        let shared = Shared { path: path.to_owned(), role, idle: Mutex::new(Vec::with_capacity(connections)) };
        Self { permits: Arc::new(Semaphore::new(connections)), shared: Arc::new(shared) }
    }

    /// Runs `work` on a connection and a blocking thread. Work that has begun is finished even if
    /// the caller goes away.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, Failure> + Send + 'static,
    ) -> PortResult<T> {
        let permit = self.permit().await?;
        let shared = Arc::clone(&self.shared);
        let task = spawn_blocking(move || {
            let result = shared.run(work);
            drop(permit);
            result
        });
        match task.await {
            Ok(result) => result.map_err(PortError::from),
            Err(error) => Err(PortError::Broken { port: PORT, reason: error.to_string() }),
        }
    }

    async fn permit(&self) -> PortResult<OwnedSemaphorePermit> {
        let unavailable = |reason: &str| PortError::Unavailable { port: PORT, reason: reason.to_owned() };
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

impl Shared {
    /// A connection that met an error, or a panic, is not used again: in what state it is would be
    /// a guess. The next caller opens another.
    fn run<T>(&self, work: impl FnOnce(&mut SqliteConnection) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect::connect(&self.path, self.role)?,
        };
        let value = work(&mut connection)?;
        self.lock().push(connection);
        Ok(value)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("path", &self.shared.path).field("role", &self.shared.role).finish_non_exhaustive()
    }
}
