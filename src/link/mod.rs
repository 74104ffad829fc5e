//! The memory that an application thread and the engine share: one [`SessionLink`] a session, one
//! [`Lane`] a stream.
//!
//! ```text
//!   handle (any thread)                                    engine (one thread)
//!   tx ring  ── messages, FIN, ERROR ───────────────────►  read while a batch is built
//!   reasons  ── what the handle wants; first: ready list ─►  taken whole, once a turn; doorbell
//!   rx ring  ◄─ whole messages ──────────────────────────  written while a buffer is parsed
//!   ends     ◄─ why a direction ended, once ─────────────  written after the last message
//!   wakers   ◄─ after the next I/O was submitted ────────
//! ```
//!
//! Invariants:
//! * A lane is on the ready list at most once: only whoever turns its reason word from 0 pushes it.
//! * The engine takes the word *before* it looks at the rings, so nothing published before a
//!   `raise` is missed.
//! * An end is set after the last message was published; a reader looks at the end, then drains
//!   its ring once more, then reports.
//! * `SessionLink::end` is set before the ready list is closed, and every lane's ends after that:
//!   a handle that finds the list closed finds the reason.
//!
//! Nothing here parses, decides or does I/O. A handle never waits for the engine in a loop, nor the
//! engine for a handle: between them are only atomics and the leaves of `queue`.

mod drain;
pub(crate) mod failure;
mod lane;
mod ledger;
mod particulars;
mod pool;
mod session;
mod sides;
mod stats;
mod trace;
mod tripped;

pub use drain::Drained;
pub(crate) use lane::{Lane, OpenState, RecvEnd, SEND_FLOOR, SendEnd, reason};
pub(crate) use ledger::{Account, process_totals};
pub use ledger::{SessionEnds, Totals};
pub(crate) use pool::Pool;
#[cfg(test)]
pub(crate) use session::SPARES_MAX;
pub(crate) use session::{Info, LinkSizes, SessionLink, request};
pub(crate) use sides::{Activated, EngineSide, HandleSide, RxRing, TxRing};
pub use stats::SessionStats;
pub use tripped::TrippedLimits;

/// What a record in a `tx` ring is.
pub(crate) mod tx_tag {
    /// A whole message.
    pub(crate) const MESSAGE: u16 = 0;
    /// The sender is done; the record is empty.
    pub(crate) const FIN: u16 = 1;
    /// Error code (u32, little-endian), length of the text (u16), text, details.
    pub(crate) const ERROR: u16 = 2;
    /// An opaque block in order with the messages.
    pub(crate) const META: u16 = 3;
}

/// What a record in an `rx` ring is, as bits.
pub(crate) mod rx_tag {
    /// Completes a message.
    pub(crate) const END: u16 = 1;
    /// An opaque block, not part of a message.
    pub(crate) const META: u16 = 2;
}

/// Messages up to this many bytes are copied into the ring; above, the ring holds a reference.
///
/// Below it a copy costs less than the reference count and the second cache line.
pub(crate) const COPY_MAX: usize = 4096;
