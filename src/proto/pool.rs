//! The process's receive memory, shared by all sessions.
//!
//! Sessions take from it when they start, when their window grows, and when a message is larger
//! than its stream's window. Taking never waits: a session that gets nothing goes on with what it
//! has. Lock-free: one compare-and-swap loop to take, one subtraction to give back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that all sessions of a process may grant beyond their floors.
pub(crate) const POOL_BYTES: u64 = 256 << 20;

/// A budget of bytes.
#[derive(Debug)]
pub(crate) struct Pool {
    size: u64,
    used: AtomicU64,
    sessions: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(size: u64) -> Arc<Self> {
        Arc::new(Self {
            size,
            used: AtomicU64::new(0),
            sessions: AtomicUsize::new(0),
        })
    }

    /// The one that sessions use unless told otherwise.
    pub(crate) fn process() -> Arc<Self> {
        static PROCESS: std::sync::OnceLock<Arc<Pool>> = std::sync::OnceLock::new();
        Arc::clone(PROCESS.get_or_init(|| Self::new(POOL_BYTES)))
    }

    pub(super) fn join(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Up to where one session's window may grow: half of an equal share.
    pub(super) fn share(&self) -> u64 {
        self.size / (2 * self.sessions.load(Ordering::Relaxed).max(1) as u64)
    }

    /// Takes `bytes`, or nothing.
    pub(super) fn take(&self, bytes: u64) -> bool {
        // ORDERING: Relaxed throughout: the number guards no other memory.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.size)
            })
            .is_ok()
    }

    pub(super) fn give(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "gave {bytes} back of {before}");
    }

    /// Bytes taken now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let pool = Pool::new(100);
        assert!(pool.take(60));
        assert!(!pool.take(41));
        assert!(pool.take(40));
        pool.give(100);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_share_shrinks_with_the_sessions() {
        let pool = Pool::new(1000);
        pool.join();
        assert_eq!(pool.share(), 500);
        pool.join();
        assert_eq!(pool.share(), 250);
    }
}
