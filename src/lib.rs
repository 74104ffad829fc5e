//! Many independent message streams over one connection, on io_uring.

#[allow(dead_code, unused_imports)] // Used by the layers above, as they arrive.
mod frame;
#[allow(dead_code, unused_imports)] // until the layers above use all of it
mod queue;
#[allow(unused_imports)] // as above
mod sync;

pub use frame::{FrameError, Kind as FrameKind, Role, StreamId, codes};
