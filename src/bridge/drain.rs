//! The request for a shutdown, and its report.

use std::time::Duration;

use super::counter::Counter;
use crate::sync::{AtomicU64, Ordering};

/// The report of a shutdown. From [`Session::shutdown`](crate::Session::shutdown) and
/// [`Listener::shutdown`](crate::Listener::shutdown).
///
/// Every stream that was alive when the shutdown began, or was opened before the peer could know of it, is counted once:
/// as `finished`, `refused` or `cancelled`.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let (a, b) = tokio::io::duplex(4096);
/// let (client, connection) = ringmux::client(a, &ringmux::Config::default());
/// tokio::spawn(connection);
/// let (server, connection) = ringmux::server(b, &ringmux::Config::default());
/// tokio::spawn(connection);
/// let _stream = client.open("").await?;
/// let accepted = server.accept().await?.unwrap();
/// // The stream goes on for longer than the grace.
/// let drained = server.shutdown(Duration::from_millis(10)).await;
/// assert_eq!((drained.finished, drained.cancelled, drained.forced), (0, 1, 1));
/// # drop(accepted);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Streams that ended without intervention.
    pub finished: u64,
    /// Streams that no application accepted: their openers learn that they were not processed, and may try again
    /// elsewhere.
    pub refused: u64,
    /// Streams that were still alive when their session ended.
    pub cancelled: u64,
    /// Sessions that were ended by force: at the ceiling they had streams left, their peer received nothing, or it had
    /// never completed the handshake.
    pub forced: u64,
}

impl Drained {
    pub(crate) const fn add(&mut self, other: Self) {
        self.finished += other.finished;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.forced += other.forced;
    }
}

/// No shutdown was requested.
const NONE: u64 = u64::MAX;

/// One session's shutdown, as both sides see it. The engine alone writes the counts, and they are read when the session has
/// finished.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The shortest grace requested, in nanoseconds.
    grace_ns: AtomicU64,
    pub(crate) finished: Counter,
    pub(crate) refused: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) forced: Counter,
}

impl Drain {
    pub(super) fn new() -> Self {
        Self {
            grace_ns: AtomicU64::new(NONE),
            finished: Counter::default(),
            refused: Counter::default(),
            cancelled: Counter::default(),
            forced: Counter::default(),
        }
    }

    /// The request that follows publishes it.
    pub(super) fn ask(&self, grace: Duration) {
        let ns = u64::try_from(grace.as_nanos()).unwrap_or(NONE - 1);
        self.grace_ns.fetch_min(ns, Ordering::Relaxed);
    }

    /// Whether a shutdown was requested; the engine may not have read the request yet.
    pub(crate) fn is_asked(&self) -> bool {
        self.grace_ns.load(Ordering::Relaxed) != NONE
    }

    /// How long the streams may still run.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_nanos(self.grace_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn report(&self) -> Drained {
        Drained {
            finished: self.finished.get(),
            refused: self.refused.get(),
            cancelled: self.cancelled.get(),
            forced: self.forced.get(),
        }
    }
}
