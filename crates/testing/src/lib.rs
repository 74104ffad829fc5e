//! What several test suites share: an allocator that counts, and processes from which io_uring is taken.

pub mod allocator;
pub mod denial;
