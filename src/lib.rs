//! Many independent message streams over one connection, on io_uring.

mod frame;
#[allow(dead_code, unused_imports)] // until the layers above use all of it
mod queue;
#[allow(unused_imports)] // as above
mod sync;
