//! The window of time in which messages count, seen by the threads that move them.
//!
//! The two measured threads never read a clock to know when to stop: a third thread, asleep
//! otherwise, turns the phases and reads the counters at both ends of the window.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;

// 0, where a window begins, is the warm-up.
const MEASURING: u8 = 1;
const DONE: u8 = 2;

/// The phase, and the counts so far.
///
/// Each counter has one writing thread; only the differences between two readings mean anything.
#[derive(Debug, Default)]
pub struct Window {
    phase: CachePadded<AtomicU8>,
    count: CachePadded<AtomicU64>,
    side_bytes: CachePadded<AtomicU64>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When it was read.
    pub at: Instant,
    /// Messages until then.
    pub count: u64,
    /// Bytes beside them until then.
    pub side_bytes: u64,
}

impl Window {
    /// Whether round trips that end now belong to the result.
    #[inline]
    pub fn is_measuring(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == MEASURING
    }

    /// Whether senders should stop.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == DONE
    }

    /// Counts messages. From one thread only.
    #[inline]
    pub fn count(&self, messages: u64) {
        add(&self.count, messages);
    }

    /// Counts bytes of the bulk stream beside the counted messages. From one thread only.
    #[inline]
    pub fn count_side_bytes(&self, bytes: u64) {
        add(&self.side_bytes, bytes);
    }

    /// Ends the warm-up.
    pub fn begin(&self) -> Reading {
        self.phase.store(MEASURING, Ordering::Relaxed);
        self.read()
    }

    /// Ends the measurement.
    pub fn end(&self) -> Reading {
        let reading = self.read();
        self.stop();
        reading
    }

    /// Tells senders to stop, in any phase.
    pub fn stop(&self) {
        self.phase.store(DONE, Ordering::Relaxed);
    }

    fn read(&self) -> Reading {
        Reading {
            count: self.count.load(Ordering::Relaxed),
            side_bytes: self.side_bytes.load(Ordering::Relaxed),
            at: Instant::now(),
        }
    }
}

/// With a single writer a load and a store are enough, and spare the locked instruction.
#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_difference_between_begin_and_end_counts() {
        let window = Window::default();
        window.count(5);
        assert!(!window.is_measuring() && !window.is_done());
        let begin = window.begin();
        assert!(window.is_measuring());
        window.count(3);
        window.count_side_bytes(7);
        let end = window.end();
        assert!(window.is_done());
        assert_eq!(end.count - begin.count, 3);
        assert_eq!(end.side_bytes - begin.side_bytes, 7);
    }
}
