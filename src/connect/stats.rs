//! What is counted for the process as a whole.

use crate::link::TrippedLimits;
use crate::proto::Pool;

/// A snapshot of what all sessions of the process share. From [`process_stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStats {
    /// Sessions that are alive now, handshakes included.
    pub sessions: u64,
    /// Bytes of receive memory that sessions have taken beyond their floors, now; see
    /// [`receive_pool`](crate::ConfigBuilder::receive_pool).
    pub receive_pool_used: u64,
    /// How often each limit was tripped by any session, since the start of the process.
    pub tripped: TrippedLimits,
}

/// The process's counters now; those of sessions that have ended are in them.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (a, _b) = tokio::io::duplex(4096);
/// let (session, connection) = ringmux::client(a, &ringmux::Config::default());
/// let stats = ringmux::process_stats();
/// assert_eq!((stats.sessions, stats.receive_pool_used), (1, 1 << 20));
/// assert_eq!(stats.tripped.get(ringmux::Limit::HalfOpen), 0);
/// # drop((session, connection));
/// # }
/// ```
#[must_use]
pub fn process_stats() -> ProcessStats {
    let pool = Pool::process();
    ProcessStats {
        sessions: pool.sessions(),
        receive_pool_used: pool.used(),
        tripped: TrippedLimits::of_process(),
    }
}
