//! Joins handles to the core. First the memory that an application thread and the engine share: one [`SessionLink`] a
//! session, one [`Lane`] a stream. Then the engine's half: `port`, lanes as the core sees them; `calls`, unary calls; `activate`, the requests of
//! handles; `engine`, core, wire and link as one value that a driver runs.
//!
//! ```text
//!   handle (any thread)                                    engine (one thread)
//!   tx ring  ── messages, FIN, ERROR ───────────────────►  read while a batch is built
//!   reasons  ── requests of the handle; first: ready list ─►  taken whole, once a turn; doorbell
//!   rx ring  ◄─ whole messages ──────────────────────────  written while a buffer is parsed
//!   ends     ◄─ reason for a direction's end, once ──────  written after the last message
//!   wakers   ◄─ after the next I/O was submitted ────────
//! ```
//!
//! Invariants:
//! * A lane is on the ready list at most once: only the thread that turns its reason word from 0 pushes it.
//! * The engine takes the word *before* it looks at the rings, so nothing published before a
//!   `raise` is missed.
//! * An end is set after the last message was published; a reader loads the end, then drains
//!   its ring once more, then reports the end.
//! * `SessionLink::end` is set before the ready list is closed, and every lane's ends after that:
//!   a handle that finds the list closed finds the reason.
//!
//! Nothing here parses, decides or does I/O. A handle never waits for the engine in a loop, nor the
//! engine for a handle: they share only atomics and the leaves of `queue`.

mod activate;
mod any;
pub(crate) mod asked;
mod counter;
mod drain;
mod engine;
mod info;
mod ledger;
mod opens;
mod particulars;
mod pings;
mod pool;
mod port;
pub(crate) mod reason;
mod session;
mod stats;
mod trace;
mod tripped;

#[cfg(all(test, not(ringmux_loom)))]
pub(crate) mod tests;

pub(crate) use any::AnyEngine;
pub use drain::Drained;
pub(crate) use engine::{Engine, Protocol, sooner};
pub(crate) use info::Info;
pub(crate) use ledger::{Account, process_totals};
pub use ledger::{SessionEnds, Totals};
pub(crate) use pool::Pool;
#[cfg(test)]
pub(crate) use session::SPARES_MAX;
pub(crate) use session::calls::{Back, CallLink, CallSide, CallSpare, Ended, SHORT_MAX};
pub(crate) use session::lane::{Lane, OpenState};
pub(crate) use session::sides::{EngineSide, HandleSide, RxRing, TxRing};
pub(crate) use session::{SessionLink, request};
pub use stats::SessionStats;
pub use tripped::TrippedLimits;

pub(crate) use crate::core::keepalive::PeerSystem;
pub(crate) use crate::core::port::{RecvEnd, SendEnd, rx_tag, tx_tag};
pub(crate) use crate::core::{SEND_FLOOR, SocketEvent, SocketStage, Status, failure};

/// A session over the wire of ringmux.
pub(crate) type NativeEngine = Engine<crate::wire::Native>;

/// A session over DRPC.
pub(crate) type DrpcEngine = Engine<crate::wire::Drpc>;

/// What a record of a lane's rings weighs besides its length, in bytes: so a limit on weight bounds the number of records
/// too. It equals the charge of the native wire for a frame, so that a stream's ring and its credit are one budget.
pub(crate) const RECORD_CHARGE: u32 = 256;

/// Messages up to this many bytes are copied into the ring; above, the ring holds a reference.
///
/// Below it a copy costs less than the reference count and the second cache line.
pub(crate) const COPY_MAX: usize = 4096;
