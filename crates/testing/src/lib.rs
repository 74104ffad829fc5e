//! Shared by several test suites: a counting allocator, and processes without io_uring.

pub mod allocator;
pub mod denial;
