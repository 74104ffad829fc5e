//! Many independent message streams over one connection, on io_uring.

mod frame;
mod queue;
mod sync;
