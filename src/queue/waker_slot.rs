//! The waker of one task, which another wakes when it has published something for it.
//!
//! ```text
//!              register
//!     IDLE ───────────────► WAITING
//!      ▲                      │
//!      └──────────────────────┘
//!         wake, which calls the waker then; register, another waker
//! ```
//! Between an `AtomicWaker` and this lies what is kept: the waker stays in the slot when it has been woken, so that a task
//! which waits again and again clones it once, is woken by reference, and pays one atomic exchange for each wait and one for each
//! wake, where `AtomicWaker` takes five together with the clone's and the drop's.
//!
//! # Who may touch the waker
//! Only the waiter changes it, in IDLE, and not while it is `calling`: whoever wakes says so before it turns WAITING to IDLE,
//! and until the waker has returned. Reading it is safe meanwhile. So a task that is woken, and waits again before the call
//! that woke it has returned, waits in peace: the thread that called may have been stopped for the sake of this one, and would
//! not go on while this one looked for it. Only who comes with another waker then has to wake itself, and look again.
//!
//! # Why no wake is lost
//! ```text
//!   waiter                         waker
//!   state = WAITING     (1)        publish                 (3)
//!   fence(SeqCst)                  fence(SeqCst)
//!   look again          (2)        is the state WAITING?   (4)
//! ```
//! Of the two fences one is first. If it is the waiter's, (4) sees WAITING, or that it was woken since; if it
//! is the waker's, (2) sees what was published. A waiter that finds WAITING with its own waker stores nothing: the fence
//! of the time when it did still comes before its look.
//!
//! # Progress
//! Every operation is **wait-free**, the wake itself and the waker's clone and drop apart.

use crate::sync::{AtomicBool, AtomicU8, Ordering, UnsafeCell, fence_beside_exchange};
use std::fmt;
use std::task::Waker;

/// Nobody waits. The waiter may change the waker.
const IDLE: u8 = 0;
/// The waiter wants to be woken.
const WAITING: u8 = 1;

/// See the module.
pub(crate) struct WakerSlot {
    state: AtomicU8,
    /// The waker is being called, or may be in a moment.
    calling: AtomicBool,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: `Waker` is `Send` and `Sync`; the module says who may touch the one in the cell, and when.
unsafe impl Sync for WakerSlot {}

impl WakerSlot {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            calling: AtomicBool::new(false),
            waker: UnsafeCell::new(None),
        }
    }

    /// Has `waker` woken by the next [`Self::wake`]. The caller looks afterwards for what it waits for.
    ///
    /// # Safety
    /// No other call of this and none of [`Self::clear`] runs at the same time.
    #[inline]
    pub(crate) unsafe fn register(&self, waker: &Waker) {
        // SAFETY: the waker is changed by this function and by `clear`, of which no other call runs.
        let is_known = || unsafe { self.waker() }.is_some_and(|own| own.will_wake(waker));
        // ORDERING: Acquire pairs with the exchange in `wake`: it was `calling` before.
        let waits = self.state.load(Ordering::Acquire) == WAITING;
        if waits && is_known() {
            return;
        }
        if waits {
            self.take_back();
        }
        if !is_known() {
            if self.is_calling() {
                // It is the old waker that is called, and this one may be of another task.
                return waker.wake_by_ref();
            }
            // SAFETY: the state is IDLE, which only the waiter leaves, and that is the caller; nobody calls the waker, nor
            // will before the state is WAITING.
            let slot = self.waker.with_mut(|slot| unsafe { &mut *slot });
            *slot = Some(waker.clone());
        }
        // ORDERING: Release pairs with `wake`; publishes the waker. An exchange, as the fence wants one beside it.
        self.state.swap(WAITING, Ordering::Release);
        // ORDERING: pairs with the fence in `wake`, see the module.
        fence_beside_exchange();
    }

    /// Drops the waker: the task will not wait here any more.
    ///
    /// # Safety
    /// As for [`Self::register`].
    pub(crate) unsafe fn clear(&self) {
        // ORDERING: as in `register`.
        if self.state.load(Ordering::Acquire) == WAITING {
            self.take_back();
        }
        // Else the waker goes with the slot.
        if !self.is_calling() {
            // SAFETY: as in `register`.
            let slot = self.waker.with_mut(|slot| unsafe { &mut *slot });
            drop(slot.take());
        }
    }

    /// Wakes the task if it waits. To be called after what it waits for was published.
    ///
    /// # Safety
    /// No other call of this runs at the same time.
    #[inline]
    pub(crate) unsafe fn wake(&self) {
        // ORDERING: pairs with the fence in `register`, see the module. It has an exchange beside it on either way: one that
        // changes nothing where nobody is seen to wait, so that nobody who begins to is kept from it by `calling`.
        fence_beside_exchange();
        let relaxed = Ordering::Relaxed;
        let looked = || {
            self.state
                .compare_exchange(WAITING, WAITING, relaxed, relaxed)
        };
        if self.state.load(relaxed) != WAITING && looked().is_err() {
            return;
        }
        self.calling.store(true, relaxed);
        let _called = Called(&self.calling);
        // ORDERING: Acquire pairs with `register`; publishes the waker. Release pairs with `register` and `clear`; publishes
        // `calling`.
        let woken = Ordering::AcqRel;
        let waits = self.state.compare_exchange(WAITING, IDLE, woken, relaxed);
        if waits.is_err() {
            return;
        }
        // SAFETY: nobody changes the waker while it is `calling`, which whoever finds the state IDLE sees.
        if let Some(waker) = unsafe { self.waker() } {
            waker.wake_by_ref();
        }
    }

    /// # Safety
    /// Nobody changes the waker during the borrow.
    unsafe fn waker(&self) -> Option<&Waker> {
        // SAFETY: the contract above.
        let slot = self.waker.with(|slot| unsafe { &*slot });
        slot.as_ref()
    }

    /// Makes the state IDLE, unless somebody who wakes just did.
    fn take_back(&self) {
        // ORDERING: where it fails, Acquire as for the load in `register`. Else that load, of an earlier call, has seen all
        // that may be `calling`.
        let (taken, woken) = (Ordering::Relaxed, Ordering::Acquire);
        let _ = self.state.compare_exchange(WAITING, IDLE, taken, woken);
    }

    fn is_calling(&self) -> bool {
        // ORDERING: Acquire pairs with `Called`: the waker is not touched any more.
        self.calling.load(Ordering::Acquire)
    }
}

/// A waker that panics must not be thought to be called for ever.
struct Called<'a>(&'a AtomicBool);

impl Drop for Called<'_> {
    fn drop(&mut self) {
        // ORDERING: pairs with `is_calling`: the waker is not touched any more.
        self.0.store(false, Ordering::Release);
    }
}

impl fmt::Debug for WakerSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakerSlot")
            .field("state", &self.state.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;
