//! What applications hold: [`Session`] and the halves of a [`Stream`].
//!
//! Handles are `Send + Sync`, work on any thread and any executor, and never block: an operation
//! that must wait returns `Pending` and is woken. They only touch the link; protocol and socket
//! are out of reach.

mod lease;
mod recv;
mod send;
mod session;
mod sink;
mod stream;
pub(crate) mod wait;

pub use lease::{Chunks, Lease};
pub use recv::RecvStream;
pub use send::SendStream;
pub use session::Session;
pub use stream::Stream;
