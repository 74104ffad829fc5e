//! The protocol as a value: bytes, time and requests in; bytes, deadlines and wakes out.
//!
//! A [`Connection`] owns one session's streams and credit. It has no socket, no clock, no thread
//! and no waker of its own, so two of them and a virtual network make a deterministic test. A
//! driver calls it like this, on one thread at a time:
//!
//! ```text
//!   loop {
//!       take_work(now)           what handles asked for since the last turn
//!       receive(&mut buf, now)   bytes from the socket, parsed in place
//!       on_deadline(now)         if next_deadline() has passed
//!       transmit(&mut batch)     everything that may go out now; one write for all of it
//!       deliver_wakes()          after the write and the read were submitted
//!   } until status() says Closed
//! ```
//! An error ends the connection once: `receive` after it does nothing, the peer is told the rule in
//! a GOAWAY, and every handle gets the same error. Nothing allocates in steady state.
//!
//! * `connection`: the value. `life`: from handshake to end, one table; `drain`: what is done at each step of the end.
//! * `timers`: the deadlines; `deadlines`: those of streams. `keepalive`: whether the peer is there. `orphan`: no handle is left.
//! * `limits`, `bucket`: what the peer may do, and how often.
//! * `activate`: what handles want. `opening`: permission to open, in both directions.
//! * `receive`, `message`: frames in. `transmit`, `output`: frames out. `outbound`: what may be queued.
//! * `registry`, `stream`, `state`: the streams. `window`, `pool`: credit. `schedule`: whose turn.

mod activate;
mod bucket;
mod connection;
mod credit;
mod deadlines;
mod drain;
mod idle;
mod keepalive;
mod life;
mod limits;
mod message;
mod opening;
mod orphan;
mod outbound;
mod output;
mod pool;
mod receive;
mod recv_size;
mod registry;
mod schedule;
mod sender;
mod state;
mod stream;
mod timers;
mod transmit;
mod window;

#[cfg(all(test, not(ringmux_loom)))]
pub(crate) mod tests;

pub(crate) use crate::link::Pool;
pub(crate) use connection::{Connection, Status, sooner};
pub(crate) use life::{SocketEvent, SocketStage};
pub(crate) use output::{BATCH_PARTS, Batch};
pub(crate) use receive::WORK_MAX;
