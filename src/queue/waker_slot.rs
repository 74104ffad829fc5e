//! A slot for the waker of one task, woken by another that has published something for it.
//!
//! ```text
//!              register
//!     IDLE ───────────────► WAITING
//!      ▲                      │
//!      └──────────────────────┘
//!         wake, which calls the waker then; register, another waker
//! ```
//! Compared to an `AtomicWaker`, the waker stays in the slot after a wake, so that a task that waits repeatedly clones it once,
//! is woken by reference, and pays one atomic exchange for each wait and one for each wake, where `AtomicWaker` takes five
//! together with the clone's and the drop's.
//!
//! # Access to the waker
//! Only the waiter changes it, in IDLE, and not while it is `calling`: the waking thread sets that before it turns WAITING to
//! IDLE, and clears it after the waker has returned. Reading it is safe meanwhile. So a task that waits again before the
//! call that woke it has returned changes only the state and does not spin: the calling thread may be preempted in favour of
//! this one, and would not advance while this one spins. Only a waiter with another waker wakes itself then, and checks again.
//!
//! # Why no wake is lost
//! ```text
//!   waiter                         waker
//!   state = WAITING     (1)        publish                 (3)
//!   fence(SeqCst)                  fence(SeqCst)
//!   check again         (2)        is the state WAITING?   (4)
//! ```
//! Of the two fences one is first. If it is the waiter's, (4) sees WAITING, or a later wake; if it
//! is the waker's, (2) sees the published value. A waiter that finds WAITING with its own waker stores nothing: the fence
//! of its earlier store still comes before its check.
//!
//! # Progress
//! Every operation is **wait-free**, except the wake itself and the waker's clone and drop.

use crate::sync::{AtomicBool, AtomicU8, Ordering, UnsafeCell, fence_beside_exchange};
use std::fmt;
use std::task::Waker;

/// No task waits. The waiter may change the waker.
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

// SAFETY: `Waker` is `Send` and `Sync`; the module comment gives the rules of access to the one in the cell.
unsafe impl Sync for WakerSlot {}

impl WakerSlot {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            calling: AtomicBool::new(false),
            waker: UnsafeCell::new(None),
        }
    }

    /// Has `waker` woken by the next [`Self::wake`]. The caller then checks its condition again.
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
                // The call under way is of the old waker, and this one may be of another task.
                return waker.wake_by_ref();
            }
            // SAFETY: the state is IDLE, which only the waiter, that is the caller, leaves; the waker is not being called, and
            // is not before the state is WAITING.
            let slot = self.waker.with_mut(|slot| unsafe { &mut *slot });
            *slot = Some(waker.clone());
        }
        // ORDERING: Release pairs with `wake`; publishes the waker. An exchange, as `fence_beside_exchange` requires.
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

    /// Wakes the task if it waits. To be called after the awaited value was published.
    ///
    /// # Safety
    /// No other call of this runs at the same time.
    #[inline]
    pub(crate) unsafe fn wake(&self) {
        // ORDERING: pairs with the fence in `register`, see the module. It has an exchange beside it on both paths: without a
        // waiter one that changes nothing, so that `calling` is not set and does not block a task that begins to wait.
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
        // SAFETY: the waker is not changed while it is `calling`, which a waiter that finds IDLE sees.
        if let Some(waker) = unsafe { self.waker() } {
            waker.wake_by_ref();
        }
    }

    /// # Safety
    /// The waker is not changed during the borrow.
    unsafe fn waker(&self) -> Option<&Waker> {
        // SAFETY: the contract above.
        let slot = self.waker.with(|slot| unsafe { &*slot });
        slot.as_ref()
    }

    /// Makes the state IDLE, unless a wake just did.
    fn take_back(&self) {
        // ORDERING: on failure Acquire, as for the load in `register`. On success that load, of an earlier call, has seen every
        // `calling` that can be set.
        let (taken, woken) = (Ordering::Relaxed, Ordering::Acquire);
        let _ = self.state.compare_exchange(WAITING, IDLE, taken, woken);
    }

    fn is_calling(&self) -> bool {
        // ORDERING: Acquire pairs with `Called`: the waker is not touched any more.
        self.calling.load(Ordering::Acquire)
    }
}

/// Clears `calling` also if the waker panics.
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
