//! The thread that an engine is bound to.
//!
//! Actions on that thread and the engine are ordered by the thread itself: no exchange is needed to see each other. So a
//! sender on that thread that has requested the engine's attention, and has not got it yet, need not request it again.
//!
//! A thread is identified by the address of a thread-local variable. When a thread ends, another may get its address; by then
//! the engine has ended with it, and requests have no receiver.

use crate::sync::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Home(AtomicUsize);

impl Home {
    /// For an engine that may move between threads, until [`Self::settle`].
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// The engine calls this: from now on it stays on this thread.
    pub(crate) fn settle(&self) {
        self.0.store(here(), Ordering::Relaxed);
    }

    /// Whether the engine is bound to the calling thread.
    ///
    /// Relaxed: another thread stores only its own address, which differs from this one's in any case.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.0.load(Ordering::Relaxed) == here()
    }
}

/// Not 0.
#[inline]
fn here() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_it_was_bound_to_is_here() {
        let home = Home::new();
        assert!(!home.is_here(), "it is bound to none");
        home.settle();
        assert!(home.is_here());
        std::thread::scope(|scope| {
            let elsewhere = scope.spawn(|| home.is_here());
            assert!(!elsewhere.join().unwrap());
        });
    }
}
