//! A set of wakers that are woken together, or one by one: for events that several tasks may await at once (accept, closed,
//! ping).
//!
//! It is not a queue: there is no order, and each waiter checks its own condition.
//!
//! The places are those of [`Slots`]; a slot that is taken belongs to one key, and only its holder registers a waker
//! there. The caller's pattern, which loses no wake-up: at the first Pending [`insert`](WakerSet::insert); at each poll [`set`](WakerSet::set)
//! the waker *and then* check the condition again; when done or dropped [`remove`](WakerSet::remove). The other side makes the
//! condition true *and then* calls [`wake_all`](WakerSet::wake_all), or [`wake_one`](WakerSet::wake_one) if one task is enough;
//! a task that was woken by that and does not need what is left of the condition wakes another one.
//!
//! # Why no wake-up is lost
//! `set` ends and `wake_all` begins with a SeqCst fence, and the two are in one total order. If the one in `set` is first, the
//! `wake_all` sees the slot in use, with its waker. If the one in `wake_all` is first, the check that follows `set` sees the
//! condition.
//!
//! # Progress
//! `insert` is **lock-free**, and allocates a block when 64 times the number of blocks waiters are there at once; memory
//! is bounded by the greatest number of waiters there were at once. `set`, `remove`, `wake_one` and `wake_all` are
//! **wait-free**, bounded by the number of blocks (and the last two by the waiters; the wakers they call are the executor's).

use super::slots::Slots;
use crate::sync::{AtomicWaker, Ordering, fence};
use std::task::Waker;

/// A place in a [`WakerSet`], to be given back to it with [`WakerSet::remove`]: a key forgotten occupies it for ever.
pub(crate) use super::slots::Key;

/// A waker, or none.
#[derive(Debug)]
struct Cell(AtomicWaker);

impl Default for Cell {
    fn default() -> Self {
        Self(AtomicWaker::new())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct WakerSet {
    wakers: Slots<Cell>,
}

impl WakerSet {
    pub(crate) fn new() -> Self {
        Self {
            wakers: Slots::new(),
        }
    }

    /// Takes a place. The waker comes with [`Self::set`].
    pub(crate) fn insert(&self) -> Key {
        self.wakers.claim()
    }

    /// Sets the waker of a place. After this the caller must check its condition again.
    ///
    /// # Panics
    /// If the key is not from this set and there is no such place.
    pub(crate) fn set(&self, key: &Key, waker: &Waker) {
        self.wakers.value(key).0.register(waker);
        // ORDERING: pairs with the fence in `wake_all`; publishes the bit in `used` and the block, see the module.
        fence(Ordering::SeqCst);
    }

    /// Gives a place back and drops its waker.
    ///
    /// # Panics
    /// If the key is not from this set and there is no such place.
    pub(crate) fn remove(&self, key: Key) {
        drop(self.wakers.value(&key).0.take());
        self.wakers.release(key);
    }

    /// Wakes one waiter, of those that were not woken since they last set their waker. To be called after its condition was made
    /// true. A waiter that was woken and is removed without having used the condition up must call this again.
    pub(crate) fn wake_one(&self) {
        // ORDERING: as in `wake_all`.
        fence(Ordering::SeqCst);
        // A waker that is being set meanwhile is woken by the thread that sets it, and perhaps another one as well.
        if let Some(waker) = self.wakers.find_taken(|waker| waker.0.take()) {
            waker.wake();
        }
    }

    /// Wakes every waiter. To be called after their condition was made true.
    pub(crate) fn wake_all(&self) {
        // ORDERING: pairs with the fence in `set`; publishes the condition made true before, see the module.
        fence(Ordering::SeqCst);
        self.wakers.each_taken(|waker| waker.0.wake());
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;
