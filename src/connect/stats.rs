//! What the process has done, as numbers.

use crate::bridge::Pool;
use crate::bridge::{Totals, process_totals};

/// A snapshot of the process's counters. From [`process_stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStats {
    /// The sums over all sessions there were, of all engines and over transports of the application's own.
    pub totals: Totals,
    /// Bytes of the receive memory shared by all sessions that are taken now: by windows beyond their floors, and by
    /// messages larger than their window.
    pub receive_pool_used: u64,
    /// Times that the kernel was entered by rings of [`Driver::Uring`](crate::Driver::Uring), since the process began.
    pub ring_enters: u64,
    /// Buffers that were leaked, see [`Engine::leaked_buffers`](crate::Engine::leaked_buffers).
    pub leaked_buffers: u64,
}

/// What all sessions of the process have done together, and what they hold.
///
/// Reads numbers that engines write: nobody waits, and nothing is added to what a message costs. The time it takes
/// grows with the greatest number of sessions that there were at once. The fields are read one after the other, so
/// sums may be off by what happened in between; those of counters never go back.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let before = ringmux::process_stats().totals;
/// let (a, b) = tokio::io::duplex(4096);
/// let (client, connection) = ringmux::client(a, &ringmux::Config::default());
/// tokio::spawn(connection);
/// drop(b); // a peer that is gone
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
