//! The counters of the process.

use crate::bridge::Pool;
use crate::bridge::{Totals, process_totals};

/// A snapshot of the process's counters. From [`process_stats`].
///
/// # Examples
/// ```
/// let stats = ringmux::process_stats();
/// assert!(stats.totals.open() <= stats.totals.started);
/// println!("{} bytes of the receive pool", stats.receive_pool_used);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStats {
    /// Sums over all sessions since the process started, of all engines and of the application's own transports.
    pub totals: Totals,
    /// Bytes of the shared receive pool in use: by windows beyond their floors, by messages larger than their window, and by
    /// unread messages of streams that are over, and of calls whose session is.
    pub receive_pool_used: u64,
    /// `io_uring_enter` calls by rings of [`Driver::Uring`](crate::Driver::Uring), since the process started.
    pub ring_enters: u64,
    /// Leaked buffers, see [`Engine::leaked_buffers`](crate::Engine::leaked_buffers).
    pub leaked_buffers: u64,
}

/// Counters and current use summed over all sessions of the process.
///
/// Reads counters that engines write; never blocks, and adds no cost per message. The time it takes grows with the largest
/// number of simultaneous sessions so far. The fields are read one after the other, so sums may be inconsistent by the
/// events in between; counters never decrease.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let before = ringmux::process_stats().totals;
/// let (a, b) = tokio::io::duplex(4096);
/// let (client, connection) = ringmux::client(a, &ringmux::Config::default());
/// tokio::spawn(connection);
/// drop(b); // a peer that has vanished
/// client.closed().await;
/// drop(client);
/// let now = ringmux::process_stats().totals;
/// assert_eq!(now.ended.disconnected, before.ended.disconnected + 1);
/// # }
/// ```
#[must_use]
pub fn process_stats() -> ProcessStats {
    ProcessStats {
        totals: process_totals(),
        receive_pool_used: Pool::process().used(),
        ring_enters: crate::driver::uring::enters(),
        leaked_buffers: crate::driver::leaked_buffers(),
    }
}
