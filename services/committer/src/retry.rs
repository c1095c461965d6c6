//! Trying again: exponential pauses with jitter, for as long as the dependency is away. A broken
//! port is never tried again.

use std::{future::Future, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use chopmark_domain::ports::{PortError, PortResult};
use ledger_core::genesis::Network;
use metrics::counter;

use crate::{config::Retry, metric};

/// How one loop calls its ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) network: Network,
    pub(crate) retry: Retry,
}

impl Caller {
    /// Calls until it succeeds or the port is broken.
    pub(crate) async fn call<T, F>(&self, port: &'static str, limit: Duration, call: impl Fn() -> F) -> PortResult<T>
    where
        F: Future<Output = PortResult<T>>,
    {
        let mut patience = self.patience(port);
        loop {
            let called = within(port, limit, call()).await;
            metric::answered(self.network.as_str(), port, called.is_ok());
            match called {
                Ok(value) => return Ok(value),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// The pauses of one call.
    pub(crate) fn patience(&self, port: &'static str) -> Patience {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(self.retry.first)
            .with_max_delay(self.retry.longest)
            .without_max_times()
            .with_jitter();
        Patience { caller: *self, port, pauses: pauses.build() }
    }
}

/// The pauses of one call.
pub(crate) struct Patience {
    caller: Caller,
    port: &'static str,
    pauses: ExponentialBackoff,
}

impl Patience {
    /// Sleeps before the next try; gives a broken port's error back.
    pub(crate) async fn after(&mut self, error: PortError) -> PortResult<()> {
        if matches!(error, PortError::Broken { .. }) {
            return Err(error);
        }
        let pause = self.pauses.next().unwrap_or(self.caller.retry.longest);
        let Caller { network, .. } = self.caller;
        counter!(metric::RETRIES, "network" => network.as_str(), "port" => self.port).increment(1);
        tracing::warn!(network = network.as_str(), port = self.port, pause_ms = pause.as_millis(), %error, "will try again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Bounds one call; running out of time is being away.
pub(crate) async fn within<T>(
    port: &'static str,
    limit: Duration,
    call: impl Future<Output = PortResult<T>>,
) -> PortResult<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(PortError::Unavailable { port, reason: format!("no answer within {} ms", limit.as_millis()) }),
    }
}
