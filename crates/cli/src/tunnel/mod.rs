//! Shared code of `serve` and `forward`: sockets, the copying between a socket and a stream, and
//! their start and shutdown.
//!
//! A tunnelled connection is one stream. Its opening block is the text of the target's address;
//! then follow the raw bytes, in both directions.

mod metrics;
mod options;
mod relay;
mod shutdown;
mod socket;

pub(crate) use metrics::{Endpoint, count_refused};
pub(crate) use options::{Options, config};
pub(crate) use relay::{Broken, Relay, Side};
pub(crate) use shutdown::{OpenConnections, Signals};
pub(crate) use socket::{Listener, Socket};

/// Codes of failed and cancelled streams. Peers only display them.
pub(crate) mod code {
    /// The opening block is no address.
    pub(crate) const BAD_TARGET: u32 = 1;
    /// `--allow` does not name the target.
    pub(crate) const NOT_ALLOWED: u32 = 2;
    /// The target could not be reached.
    pub(crate) const UNREACHABLE: u32 = 3;
    /// The connection was reset, by the client or by the target.
    pub(crate) const RESET: u32 = 4;
    /// `--max-connections` are open.
    pub(crate) const BUSY: u32 = 5;
}
