//! Wakes the engine, but only when it is parked.
//!
//! It carries no data and no reason: producers put work where the engine checks (the ready list), then ring; the engine
//! checks there again before it sleeps.
//!
//! ```text
//!   producer                          engine
//!   push the work          (1)        parked = true             (3)
//!   fence(SeqCst)                     fence(SeqCst)
//!   parked? ──yes──► wake  (2)        is there work? ──no──► sleep   (4)
//! ```
//! # Why no wake is lost
//! The two SeqCst fences are in one total order. If the producer's is first, (4) sees the work of (1). If the engine's is
//! first, (2) sees `parked` of (3). So not both sides can miss each other: either the engine does not sleep or it is woken.
//! Without the fences each side's store could still be on its way when its load is done, and both could see the old value.
//! Of several producers that see `parked`, one turns it to false, and that one wakes: one wake for a batch.
//!
//! The engine must take, in the order given: [`Doorbell::prepare`]; look for work again; sleep if there is none, else
//! [`Doorbell::cancel`].
//!
//! # Progress
//! Every operation is **wait-free**, the wake itself apart (it is the engine's waker: a system call, or a push on the
//! executor's queue). But a wake is handed to one producer: if that thread is stopped between its exchange and the end
//! of the wake, an engine that is about to sleep sleeps until the thread continues or another event wakes it (a completion, a
//! timer). Then the work of all producers that rang meanwhile is delayed, but not lost.

use super::step::{Step, reached};
use crate::sync::{AtomicBool, AtomicU64, AtomicWaker, Ordering, fence};
use crossbeam_utils::CachePadded;
use std::task::Waker;

/// See the module.
#[derive(Debug)]
pub(crate) struct Doorbell {
    /// Read by every ring, written when the engine parks. On its own cache line, apart from fields written more often.
    parked: CachePadded<AtomicBool>,
    waker: AtomicWaker,
    /// How often `ring` has woken the engine.
    wakes: AtomicU64,
}

impl Doorbell {
    pub(crate) fn new() -> Self {
        Self {
            parked: CachePadded::new(AtomicBool::new(false)),
            waker: AtomicWaker::new(),
            wakes: AtomicU64::new(0),
        }
    }

    /// Wakes the engine if it is parked. To be called after the work was put where the engine checks. True if this call
    /// issued the wake.
    #[inline]
    pub(crate) fn ring(&self) -> bool {
        // ORDERING: pairs with the fence in `prepare`; publishes the work put before this call, see the module.
        fence(Ordering::SeqCst);
        // The load first: while the engine runs, its line stays shared among the producers.
        self.parked.load(Ordering::Relaxed) && self.wake()
    }

    /// The same, right after a push on a [`ReadyList`](super::ready::ReadyList), and cheaper: the push is a SeqCst
    /// operation, so that a SeqCst load replaces the producer's fence.
    ///
    /// With P the push, L this load, S and F the store and the fence in `prepare`, and E the engine's load of the list:
    /// if L does not see S then L comes before F in the single total order, and if E does not see P then F comes before
    /// P. P comes before L. So not both can be missed.
    #[inline]
    pub(crate) fn ring_after_push(&self) -> bool {
        if cfg!(ringmux_loom) {
            // loom knows the total order of fences only.
            return self.ring();
        }
        // ORDERING: pairs with the fence in `prepare`, see above.
        self.parked.load(Ordering::SeqCst) && self.wake()
    }

    #[cold]
    fn wake(&self) -> bool {
        // An exchange that fails writes nothing: a late ring for one parking leaves no trace in the next.
        // ORDERING: pairs with `prepare`; publishes the waker, which that registers before it stores `parked`. The fences order
        // the work of the ringing thread; this orders the work of other threads that rely on this wake, possibly later than our
        // fence. (Loom's `AtomicWaker` is a lock, so no model covers it.)
        let ours = self
            .parked
            .compare_exchange(true, false, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if ours {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            reached(Step::Chosen);
            self.waker.wake();
        }
        ours
    }

    /// Declares that the engine, which `waker` wakes, is about to sleep. After this it must check for work once more.
    ///
    /// Only the engine calls it. An earlier wake may still arrive: a spurious wake, without harm.
    #[inline]
    pub(crate) fn prepare(&self, waker: &Waker) {
        self.waker.register(waker);
        // ORDERING: pairs with `wake`; publishes the registration.
        self.parked.store(true, Ordering::Release);
        // ORDERING: pairs with the fence in `ring`; publishes `parked`, see the module.
        fence(Ordering::SeqCst);
    }

    /// Takes [`Self::prepare`] back: the engine found work, or was woken by something else than the bell.
    #[inline]
    pub(crate) fn cancel(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Whether the engine is parked, possibly outdated, for reports.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Relaxed)
    }

    /// How often the bell has woken the engine, for reports.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;
