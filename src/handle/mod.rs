//! The application's handles: [`Session`] and the halves of a stream, [`SendStream`] and [`RecvStream`].
//!
//! Handles are `Send + Sync`, work on any thread and any executor, and never block: an operation
//! that must wait returns `Pending` and is woken. They access only the link, neither the protocol nor
//! the socket.

mod accept;
#[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
pub(crate) mod call;
mod futures;
mod id;
mod lease;
mod open;
mod recv;
mod reserved;
mod send;
mod session;
mod sink;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod wait;
#[cfg(any(test, fuzzing))]
pub(crate) mod whole;

pub use accept::{Accept, Incoming};
pub use futures::{Recv, RecvLease, RecvMeta, Reserve, SendMessage, SendSlice, Written};
pub use id::StreamId;
pub use lease::{Chunks, Lease};
pub use open::Open;
pub use recv::RecvStream;
pub use reserved::Reserved;
pub use send::SendStream;
pub use session::Session;
pub use state::SessionState;
