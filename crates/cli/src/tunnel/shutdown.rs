//! How `serve` and `forward` end: the first signal drains, the second one cuts.

use std::sync::Arc;
use std::time::Duration;

use ringmux::Listener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use ringmux_measure::failure::Failure;

/// How long connections may take to end after their streams were cut.
const CUT_TIME: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on the signals do not end the process by themselves.
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new("cannot listen for signals").because(&error))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Shuts a listener and its sessions down, and returns the report; cut short by another signal.
    pub(crate) async fn shut_down(
        &mut self,
        listener: &Listener,
        open: &OpenConnections,
        grace: Duration,
    ) -> Result<(), Failure> {
        tracing::info!(open = open.count(), ?grace, "shutting down");
        let report = tokio::select! {
            report = listener.shutdown(grace) => report,
            () = self.next() => return Err(insisted()),
        };
        let (finished, refused) = (report.finished, report.refused);
        let (cut, forced) = (report.cancelled, report.forced);
        if cut == 0 && forced == 0 {
            tracing::info!(finished, refused, cut, forced, "shut down");
        } else {
            tracing::warn!(
                finished,
                refused,
                cut,
                forced,
                "shut down, not all connections ended in time"
            );
        }
        // Cut connections are reset on their other side.
        let _ = timeout(CUT_TIME, open.all_ended()).await;
        Ok(())
    }

    /// Waits until all connections have ended, at most for `grace`; cut short by another signal.
    pub(crate) async fn drain(
        &mut self,
        open: &OpenConnections,
        grace: Duration,
    ) -> Result<(), Failure> {
        tracing::info!(open = open.count(), ?grace, "shutting down");
        tokio::select! {
            all_ended = timeout(grace, open.all_ended()) => {
                if all_ended.is_err() {
                    tracing::warn!(open = open.count(), ?grace, "cutting connections that have not ended in time");
                }
                Ok(())
            }
            () = self.next() => Err(insisted()),
        }
    }
}

fn insisted() -> Failure {
    Failure::new("stopped at once by a second signal")
}

/// Counts open connections, and bounds them.
#[derive(Clone, Debug)]
pub(crate) struct OpenConnections {
    places: Arc<Semaphore>,
    max: u32,
}

impl OpenConnections {
    pub(crate) fn new(max: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max as usize)),
            max,
        }
    }

    /// Waits for a place, held until it is dropped.
    pub(crate) async fn enter(&self) -> OwnedSemaphorePermit {
        if let Some(place) = self.try_enter() {
            return place;
        }
        tracing::warn!(
            open = self.max,
            "as many connections are open as --max-connections: new ones wait"
        );
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// A place if there is one.
    pub(crate) fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    pub(crate) fn count(&self) -> usize {
        self.max as usize - self.places.available_permits()
    }

    async fn all_ended(&self) {
        let all = self.places.acquire_many(self.max).await;
        drop(all.expect("the semaphore is never closed"));
    }
}
