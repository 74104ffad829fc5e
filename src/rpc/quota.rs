//! Places of a fixed number. One that becomes free while others wait is handed to the one that waits longest: who comes later gets it no
//! earlier. Where none waits, a place costs one atomic operation to take and one to give back.
//!
//! # Invariants
//! 1. None waits while a place is free: `state` has both numbers, and changes in one step.
//! 2. One that waits is counted in `state` until a place is given to it, and from then on in `given`, until it picks the place up or
//!    gives up. These are numbers: which one is the next is the order of `turns`.
//! 3. `turns` has at least one for each place in `given`, as it gets one after each. It has one too many for each place that was given
//!    up: who gets that one waits for another.

use tokio::sync::Semaphore;

use crate::sync::{AtomicIsize, AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub(super) struct Quota {
    limit: u32,
    /// How many places are taken or given (low half), and how many wait and were given none (high half).
    state: AtomicU64,
    /// Places that were given and not picked up. Below 0 for a moment if one is given up before it is counted here.
    given: AtomicIsize,
    turns: Semaphore,
}

const ONE_TAKEN: u64 = 1;
const ONE_WAITS: u64 = 1 << 32;

const fn taken(state: u64) -> u32 {
    state as u32
}

impl Quota {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            state: AtomicU64::new(0),
            given: AtomicIsize::new(0),
            turns: Semaphore::new(0),
        }
    }

    /// Takes a place; false if none is free.
    pub(super) fn try_take(&self) -> bool {
        let more = |state| (taken(state) < self.limit).then_some(state + ONE_TAKEN);
        self.change(more).is_ok()
    }

    /// Waits for a place, and takes it.
    ///
    /// # Cancel safety
    /// A place that it was given is the next one's.
    pub(super) async fn take(&self) {
        let free = |state| taken(state) < self.limit;
        let next = |state| Some(state + if free(state) { ONE_TAKEN } else { ONE_WAITS });
        if self.change(next).is_ok_and(free) {
            return;
        }
        let waiting = Waiting(self);
        loop {
            // It is never closed.
            if let Ok(turn) = self.turns.acquire().await {
                turn.forget();
            }
            if self.pick_up() {
                std::mem::forget(waiting);
                return;
            }
        }
    }

    /// Picks up a place that was given; false if the turn is of one that was given up.
    fn pick_up(&self) -> bool {
        loop {
            // ORDERING: pairs with `release`: the steps of the one that had the place are seen. Only an exchange is sure to see the
            // latest number, that of this turn among it.
            let given = self.given.fetch_add(0, Ordering::Acquire);
            if given <= 0 {
                return false;
            }
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            let fewer = self
                .given
                .compare_exchange(given, given - 1, success, failure);
            if fewer.is_ok() {
                return true;
            }
        }
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        let waits = |state| state >= ONE_WAITS;
        let next = |state| Some(state - if waits(state) { ONE_WAITS } else { ONE_TAKEN });
        if self.change(next).is_ok_and(waits) {
            // ORDERING: pairs with `pick_up`. Before its turn: invariant 3.
            self.given.fetch_add(1, Ordering::Release);
            self.turns.add_permits(1);
        }
    }

    /// How many places are in use. One that was given and not picked up is not.
    pub(super) fn used(&self) -> usize {
        let given = usize::try_from(self.given.load(Ordering::Relaxed)).unwrap_or(0);
        let taken = taken(self.state.load(Ordering::Relaxed)) as usize;
        taken.saturating_sub(given)
    }

    /// Changes the state, unless there is no other for it; the one before.
    fn change(&self, next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        // ORDERING: who has a place sees the steps of the one that had it.
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        self.state.fetch_update(success, failure, next)
    }
}

/// One that waits, until it has picked its place up.
struct Waiting<'a>(&'a Quota);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let quota = self.0;
        let gave_up = quota.change(|state| state.checked_sub(ONE_WAITS));
        if gave_up.is_err() {
            // All that wait were given places: so was this one. Its turn stays behind.
            // ORDERING: as in `pick_up`, for the next one in the place.
            quota.given.fetch_sub(1, Ordering::Acquire);
            quota.release();
        }
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::sync::{Arc, AtomicU32};

    /// A number that the one that has the only place adds to: two at once, or one that does not see the other's steps, would lose one.
    struct Shared {
        quota: Quota,
        uses: AtomicU32,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                quota: Quota::new(1),
                uses: AtomicU32::new(0),
            })
        }

        fn use_it(&self) {
            let uses = self.uses.load(Ordering::Relaxed);
            self.uses.store(uses + 1, Ordering::Relaxed);
            self.quota.release();
        }

        fn end(&self, uses: u32) {
            assert!(self.quota.try_take(), "the place is free");
            assert_eq!(self.uses.load(Ordering::Relaxed), uses);
            assert_eq!(self.quota.used(), 1);
        }
    }

    #[test]
    fn each_that_waits_has_the_place_once() {
        loom::model(|| {
            let shared = Shared::new();
            assert!(shared.quota.try_take());
            let waits = [(); 2].map(|()| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    block_on(shared.quota.take());
                    shared.use_it();
                })
            });
            shared.use_it();
            for thread in waits {
                thread.join().unwrap();
            }
            shared.end(3);
        });
    }

    /// Before it is given the place, or after that, or between the two steps of that.
    #[test]
    fn one_that_gives_up_keeps_the_place_from_no_other() {
        loom::model(|| {
            let shared = Shared::new();
            assert!(shared.quota.try_take());
            let leaves = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut take = pin!(shared.quota.take());
                    let polled = take.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    if polled.is_ready() {
                        shared.use_it();
                    }
                    u32::from(polled.is_ready())
                })
            };
            let waits = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    block_on(shared.quota.take());
                    shared.use_it();
                })
            };
            shared.use_it();
            let used = leaves.join().unwrap();
            waits.join().unwrap();
            shared.end(2 + used);
        });
    }
}
