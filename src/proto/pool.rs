//! The process's receive memory, shared by all sessions.
//!
//! Sessions take from it when they start, when their window grows, and when a message is larger
//! than its stream's window. Taking never waits: a session that gets nothing goes on with what it
//! has. Lock-free: one compare-and-swap loop to take, one subtraction to give back.
//!
//! Each session brings its own ceiling: how full the pool may be when *it* takes. Sessions of strangers that may fill half of
//! it leave the other half to those of friends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A budget of bytes.
#[derive(Debug)]
pub(crate) struct Pool {
    /// What no ceiling goes beyond.
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

    /// The one that sessions use unless told otherwise; their ceilings bound it.
    pub(crate) fn process() -> Arc<Self> {
        static PROCESS: std::sync::OnceLock<Arc<Pool>> = std::sync::OnceLock::new();
        Arc::clone(PROCESS.get_or_init(|| Self::new(u64::MAX)))
    }

    pub(super) fn join(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Up to where the window of a session with this ceiling may grow: half of an equal share.
    pub(super) fn share(&self, ceiling: u64) -> u64 {
        self.size.min(ceiling) / (2 * self.sessions().max(1))
    }

    /// Takes `bytes`, or nothing if that would fill the pool above `ceiling`.
    pub(super) fn take(&self, bytes: u64, ceiling: u64) -> bool {
        let most = self.size.min(ceiling);
        // ORDERING: Relaxed throughout: the number guards no other memory.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= most)
            })
            .is_ok()
    }

    pub(super) fn give(&self, bytes: u64) {
        if bytes == 0 {
            // Most streams never take anything: no exchange on a line that all sessions share.
            return;
        }
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "gave {bytes} back of {before}");
    }

    /// Sessions that are alive.
    pub(crate) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed) as u64
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
        assert!(pool.take(60, 1000));
        assert!(!pool.take(41, 1000));
        assert!(pool.take(40, 1000));
        pool.give(100);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_lower_ceiling_leaves_the_rest_to_others() {
        let pool = Pool::new(u64::MAX);
        assert!(pool.take(50, 50));
        assert!(!pool.take(1, 50));
        assert!(pool.take(50, 100));
        assert!(!pool.take(1, 100));
        pool.give(100);
    }

    #[test]
    fn a_share_shrinks_with_the_sessions() {
        let pool = Pool::new(1000);
        pool.join();
        assert_eq!(pool.share(u64::MAX), 500);
        assert_eq!(pool.share(600), 300);
        pool.join();
        assert_eq!(pool.share(u64::MAX), 250);
    }
}
