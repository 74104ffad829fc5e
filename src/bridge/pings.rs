//! Answers to PINGs, for the handles that wait for them.

use crate::queue::WakerSet;
use crate::sync::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Pings {
    answered: AtomicU64,
    rtt_ns: AtomicU64,
    /// Tasks in `ping`.
    pub(crate) waiters: WakerSet,
}

impl Pings {
    pub(super) fn new() -> Self {
        Self {
            answered: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
            waiters: WakerSet::new(),
        }
    }

    /// Number of PINGs answered so far.
    pub(crate) fn answered(&self) -> u64 {
        // ORDERING: pairs with `record`; publishes `rtt_ns`.
        self.answered.load(Ordering::Acquire)
    }

    /// The last round trip, in nanoseconds.
    pub(crate) fn rtt_ns(&self) -> u64 {
        self.rtt_ns.load(Ordering::Relaxed)
    }

    pub(super) fn record(&self, rtt_ns: u64) {
        self.rtt_ns.store(rtt_ns, Ordering::Relaxed);
        // ORDERING: pairs with `answered`; publishes `rtt_ns`. Only the engine writes.
        self.answered
            .store(self.answered.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}
