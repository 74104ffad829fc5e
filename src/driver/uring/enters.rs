//! How often the kernel was entered, by all rings of the process.
//!
//! Each ring has a number of its own, so that counting is a plain store. One that is gone leaves its number to the
//! next, which goes on counting: the sum never goes back.

use crossbeam_utils::CachePadded;

use crate::queue::{PerProcess, SlotKey, Slots};
use crate::sync::{AtomicU64, Ordering};

type Numbers = Slots<CachePadded<AtomicU64>>;

fn numbers() -> &'static Numbers {
    static NUMBERS: PerProcess<Numbers> = PerProcess::new();
    NUMBERS.get_or_init(Slots::new)
}

/// What one ring counts in.
#[derive(Debug)]
pub(super) struct Enters {
    number: &'static AtomicU64,
    /// Not those of the process that drops it.
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
        // Nobody else writes it.
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

/// Since the process began.
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
