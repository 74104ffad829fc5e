//! The thread that an engine is bound to.
//!
//! What is said on that thread, the engine hears later on the same one, or has heard before: neither needs an exchange to be
//! seen by the other. So a sender there that has asked for the engine's attention, and has not got it yet, need not ask again.
//!
//! A thread is told by the address of a variable that each has its own of. When a thread ends, another may get its address; by then
//! the engine has ended with it, and nobody is to be asked.

use crate::sync::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Home(AtomicUsize);

impl Home {
    /// Of an engine that may go from thread to thread, until [`Self::settle`].
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// The engine, which calls this, never leaves this thread any more.
    pub(crate) fn settle(&self) {
        self.0.store(here(), Ordering::Relaxed);
    }

    /// Whether the engine is bound to the thread that asks.
    ///
    /// Relaxed: what another thread has stored is another thread's address, whether it is seen or not.
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
