//! A session as a value: decoded frames and requests of handles go in; frames, deadlines and wakes go out.
//!
//! It has no socket, no clock, no thread, no waker and no wire of its own, so two of them and a virtual network make a
//! deterministic test. Its streams are behind a trait ([`port`]): the bridge's are lanes, those of the tests plain queues.
//!
//! * `session`: [`Core`], which composes the rest, and the steps of a wire. `life`, `timers`: the table of states and the time
//!   limits; `deadlines`: those of streams; `drain`: the actions at each step of an end. `keepalive`, `ping`: detect a lost peer.
//!   `orphan`: no handle is left.
//! * `mux`: the streams together. `streams`, `stream`, `state`: the registry, and the states of each. `permits`: opening
//!   them, in both directions. `calls`: unary calls, one frame each way.
//! * In: `flow`, `window`, `pool`, `idle`: credit given to the peer, and memory. Out: `window` again: credit from the peer;
//!   `schedule`: the order of streams; `budget`: the limit on queued bytes; `receipts`: confirmations of written messages.
//! * `limits`, `bucket`: rate limits on the peer. `violation`: rules that a peer broke. `terms`: capabilities of the wire.
//!
//! An error ends the session once: every handle gets the same error. Nothing allocates in steady state.

mod base;
mod bucket;
mod budget;
pub(crate) mod calls;
mod deadlines;
mod drain;
pub(crate) mod failure;
mod flow;
mod idle;
mod ids;
pub(crate) mod keepalive;
pub(crate) mod life;
mod limits;
pub(crate) mod mux;
mod orphan;
mod permits;
mod ping;
mod pool;
pub(crate) mod port;
mod receipts;
mod recv_size;
mod schedule;
mod session;
pub(crate) mod state;
pub(crate) mod stream;
mod streams;
mod terms;
pub(crate) mod timers;
mod violation;
pub(crate) mod window;

#[cfg(all(test, not(ringmux_loom)))]
pub(crate) mod tests;

pub(crate) use budget::SEND_FLOOR;
pub(crate) use flow::Exceeded;
#[cfg(test)]
pub(crate) use idle::IDLE;
pub(crate) use life::{Goaway, SocketEvent, SocketStage};
pub(crate) use mux::{Incoming, May, Mux, Piece, Sent};
#[cfg(test)]
pub(crate) use port::Memory;
pub(crate) use port::{SessionPort, StreamPort};
pub(crate) use recv_size::RecvSize;
pub(crate) use schedule::{Turn, URGENCIES};
pub(crate) use session::calls as session_calls;
pub(crate) use session::{Core, Status};
pub(crate) use state::Event;
pub(crate) use stream::Stream;
pub(crate) use streams::Key;
pub(crate) use terms::{Floors, Terms};
pub(crate) use violation::Violation;
pub(crate) use window::{SessionCredit, report_mark};
