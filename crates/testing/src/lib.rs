//! Shared by several test suites: a counting allocator, and processes without io_uring.

pub mod allocator;
pub mod denial;

/// The numbers from 0 to 250 again and again: the content of a message of this length.
///
/// Copied, as one byte after the other would be most of the time of many a test in an unoptimized build.
#[must_use]
pub fn message(len: usize) -> Vec<u8> {
    let cycle: Vec<u8> = (0..=250).collect();
    let mut bytes = cycle.repeat(len.div_ceil(cycle.len()));
    bytes.truncate(len);
    bytes
}
