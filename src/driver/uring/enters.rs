//! Counts `io_uring_enter` calls of all rings of the process.
//!
//! Each ring has a counter of its own, so that counting is a plain store. A closed ring leaves its counter to the next
//! ring, which continues it: the sum never decreases.

use crossbeam_utils::CachePadded;

use crate::queue::{PerProcess, SlotKey, Slots};
use crate::sync::{AtomicU64, Ordering};

type Numbers = Slots<CachePadded<AtomicU64>>;

fn numbers() -> &'static Numbers {
    static NUMBERS: PerProcess<Numbers> = PerProcess::new();
    NUMBERS.get_or_init(Slots::new)
}

/// The counter of one ring.
#[derive(Debug)]
pub(super) struct Enters {
    number: &'static AtomicU64,
    /// The counters of the process that made it: after a fork the child's differ.
    numbers: &'static Numbers,
    key: Option<SlotKey>,
}

impl Enters {
    pub(super) fn new() -> Self {
        let numbers = numbers();
        let key = numbers.claim();
        Self {
            number: numbers.value(&key),
            numbers,
            key: Some(key),
        }
    }

    pub(super) fn count(&self) {
        // This thread is the only writer.
        let before = self.number.load(Ordering::Relaxed);
        self.number.store(before + 1, Ordering::Relaxed);
    }
}

impl Drop for Enters {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.numbers.release(key);
        }
    }
}

/// Calls since the process started.
pub(crate) fn enters() -> u64 {
    let all = numbers().all();
    all.map(|number| number.load(Ordering::Relaxed)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ring_has_counted_stays_in_the_sum() {
        let before = enters();
        for n in 1..=3 {
            let ring = Enters::new();
            ring.count();
            drop(ring);
            // Other tests enter rings meanwhile.
            assert!(enters() >= before + n);
        }
    }
}
