//! Bytes that one thread gives to others: how many of them have not been taken when it stops, and who settles those.
//!
//! ```text
//!   engine:  give ─► give ─► … ─► close: charges all that is outstanding ─┐
//!   others:           take ─► false: no account                           └─► take ─► true: the taker gives it back
//! ```
//! # Invariants
//! 1. Each taken byte was taken before the close, which does not leave it charged, or after it, and then its taker is told: so
//!    the bytes charged by [`close`](Outstanding::close) are given back once, by it or by their takers.
//! 2. The charge comes before the close is visible: an account never becomes negative.
//!
//! # Progress
//! Every operation is **wait-free**: one addition, or one OR.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Ordering};

/// The bit of `taken` that is no number of bytes.
const CLOSED: u64 = 1 << 63;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outstanding {
    /// Bytes given since the start. One thread writes it.
    given: CachePadded<AtomicU64>,
    /// Bytes taken since the start, and [`CLOSED`].
    taken: CachePadded<AtomicU64>,
}

impl Outstanding {
    pub(crate) fn new() -> Self {
        Self {
            given: CachePadded::new(AtomicU64::new(0)),
            taken: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Bytes are about to be given to other threads. For one thread alone, and never after the close.
    pub(crate) fn give(&self, bytes: u64) {
        // Without a locked instruction, as this thread is the only writer; what is given publishes it.
        let given = self.given.load(Ordering::Relaxed);
        self.given.store(given + bytes, Ordering::Relaxed);
    }

    /// Bytes that were given have been taken, or will never be. True if they were charged: the caller gives them back.
    #[must_use]
    pub(crate) fn take(&self, bytes: u64) -> bool {
        // ORDERING: pairs with `close`: the charge comes before it is given back.
        self.taken.fetch_add(bytes, Ordering::Acquire) & CLOSED != 0
    }

    /// Charges the bytes that were not taken; returns those of them that have been taken meanwhile, to be given back. For the
    /// thread that gives, and once.
    #[must_use]
    pub(crate) fn close(&self, charge: impl FnOnce(u64)) -> u64 {
        let seen = self.taken.load(Ordering::Relaxed);
        charge(self.given.load(Ordering::Relaxed) - seen);
        // ORDERING: pairs with `take`; publishes the charge.
        self.taken.fetch_or(CLOSED, Ordering::Release) - seen
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests;

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_before_the_close_is_charged_and_given_back_by_its_takers() {
        let outstanding = Outstanding::new();
        outstanding.give(10);
        outstanding.give(20);
        outstanding.give(30);
        assert!(!outstanding.take(10));
        let mut charged = 0;
        let meanwhile = outstanding.close(|bytes| {
            charged = bytes;
            assert!(!outstanding.take(20));
        });
        assert_eq!((charged, meanwhile), (50, 20));
        assert!(outstanding.take(30));
    }
}
