//! The application's handles: [`Session`] and the halves of a stream, [`SendStream`] and [`RecvStream`].
//!
//! Handles are `Send + Sync`, work on any thread and any executor, and never block: an operation
//! that must wait returns `Pending` and is woken. They access only the link, neither the protocol nor
//! the socket.

/// Formats futures by their name alone.
macro_rules! debug_by_name {
    ($($future:ident),+) => {
        $(impl std::fmt::Debug for $future<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($future)).finish_non_exhaustive()
            }
        })+
    };
}

#[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
pub(crate) mod call;
pub(crate) mod fair;
mod id;
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

pub use id::StreamId;
pub use open::Open;
pub use recv::RecvStream;
pub use recv::futures::{Recv, RecvLease, RecvMeta};
pub use recv::lease::{Chunks, Lease};
pub use reserved::Reserved;
pub use send::SendStream;
pub use send::futures::{Reserve, SendMessage, SendSlice, Written};
#[cfg(feature = "rpc")]
pub(crate) use send::shared::SharedHalf;
pub use session::Session;
pub use session::accept::{Accept, Incoming};
pub use state::SessionState;
