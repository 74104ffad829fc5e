//! The waker of one task, which others wake when they have published something for it.
//!
//! ```text
//!              register                wake
//!     IDLE ───────────────► WAITING ─────────► WAKING ───► IDLE
//!      ▲   the waiter's       │     the waker's     store
//!      └──────────────────────┘     in this state
//!         register, another waker
//! ```
//! Between an `AtomicWaker` and this lies what is kept: the waker stays in the slot when it has been woken, so that a task
//! which waits again and again clones it once, is woken by reference, and pays one atomic exchange for each wait and one for each
//! wake, where `AtomicWaker` takes five together with the clone's and the drop's.
//!
//! # Who may touch the waker
//! The waiter, in IDLE: only it leaves that state. Whoever turned WAITING to WAKING, to call it; it makes the state IDLE
//! again when it has. In WAITING anybody may look at it, and nobody changes it.
//!
//! # Why no wake is lost
//! ```text
//!   waiter                         waker
//!   state = WAITING     (1)        publish                 (3)
//!   fence(SeqCst)                  fence(SeqCst)
//!   look again          (2)        is the state WAITING?   (4)
//! ```
//! Of the two fences one is first. If it is the waiter's, (4) sees WAITING, or a state that somebody made of it later; if it
//! is the waker's, (2) sees what was published. A waiter that finds WAITING with its own waker stores nothing: the fence
//! of the time when it did still comes before its look. One that finds WAKING is woken just now, for
//! something older perhaps; it wakes itself, and looks again.
//!
//! # Progress
//! Every operation is **wait-free**, the wake itself and the waker's clone and drop apart.

use crate::sync::{AtomicU8, Ordering, UnsafeCell, fence_beside_exchange};
use std::fmt;
use std::task::Waker;

/// Nobody waits. The waiter may change the waker.
const IDLE: u8 = 0;
/// The waiter wants to be woken.
const WAITING: u8 = 1;
/// Somebody is waking it.
const WAKING: u8 = 2;

/// See the module.
pub(crate) struct WakerSlot {
    state: AtomicU8,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: `Waker` is `Send` and `Sync`; the module says who may touch the one in the cell, and when.
unsafe impl Sync for WakerSlot {}

impl WakerSlot {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            waker: UnsafeCell::new(None),
        }
    }

    /// Has `waker` woken by the next [`Self::wake`]. The caller looks afterwards for what it waits for.
    ///
    /// # Safety
    /// No other call of this and none of [`Self::clear`] runs at the same time.
    #[inline]
    pub(crate) unsafe fn register(&self, waker: &Waker) {
        // ORDERING: Acquire pairs with the store of IDLE in `wake`: that is done with the waker.
        let state = self.state.load(Ordering::Acquire);
        if state == WAITING {
            // SAFETY: in this state, and in the next one that others make of it, the waker is only read; it is changed by
            // this function and by `clear`, of which no other call runs.
            let own = unsafe { self.waker() };
            if own.is_some_and(|own| own.will_wake(waker)) {
                return;
            }
        }
        if state == WAKING || (state == WAITING && !self.take_back()) {
            // It is the old waker that is woken, and this one may be of another task.
            return waker.wake_by_ref();
        }
        // SAFETY: the state is IDLE, which nobody but the waiter leaves, and that is the caller.
        let slot = self.waker.with_mut(|slot| unsafe { &mut *slot });
        match slot {
            Some(own) if own.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
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
        let state = self.state.load(Ordering::Acquire);
        if state == IDLE || (state == WAITING && self.take_back()) {
            // SAFETY: the state is IDLE, as in `register`.
            let slot = self.waker.with_mut(|slot| unsafe { &mut *slot });
            drop(slot.take());
        }
        // Else it is being woken; the waker goes with the slot.
    }

    /// Wakes the task if it waits. To be called after what it waits for was published.
    #[inline]
    pub(crate) fn wake(&self) {
        // ORDERING: pairs with the fence in `register`, see the module.
        fence_beside_exchange();
        // ORDERING: Acquire pairs with `register`; publishes the waker.
        if self
            .state
            .compare_exchange(WAITING, WAKING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return;
        }
        let _idle = BackToIdle(&self.state);
        // SAFETY: this call has turned WAITING to WAKING: until it stores IDLE nobody changes the waker.
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

    /// WAITING to IDLE; false if somebody began to wake meanwhile.
    ///
    /// Relaxed: whoever was called by an earlier wake was done with the waker before the `register` that made the state
    /// WAITING, and nobody has touched it since. If this fails the waker is not touched either.
    fn take_back(&self) -> bool {
        let relaxed = Ordering::Relaxed;
        self.state
            .compare_exchange(WAITING, IDLE, relaxed, relaxed)
            .is_ok()
    }
}

/// A waker that panics must not leave the slot in WAKING.
struct BackToIdle<'a>(&'a AtomicU8);

impl Drop for BackToIdle<'_> {
    fn drop(&mut self) {
        // ORDERING: pairs with `register` and `clear`: the waker is not touched any more.
        self.0.store(IDLE, Ordering::Release);
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
