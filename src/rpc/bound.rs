//! How many calls may run at once. A place that becomes free while calls wait is handed to the first of them: one that comes later
//! gets it no earlier, and pays for no more than one atomic operation where none waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::code::Code;
use super::status::Status;
use crate::error::Processed;

/// Calls of one method that wait for a place, of all sessions, and those of a server whose request came late; more are refused. The
/// loops of sessions are not counted.
const WAITING_MAX: usize = 1024;

/// The fate of a call for which there is no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits; and so do the calls behind it, as far as they need the same place.
    #[default]
    Wait,
    /// It fails with [`Code::RESOURCE_EXHAUSTED`](super::Code::RESOURCE_EXHAUSTED), not processed and safe to try again.
    Refuse,
}

/// The status of a call that is refused because there is no place.
pub(super) fn full() -> Status {
    let text = "the server runs as many calls as it may";
    Status::library(Code::RESOURCE_EXHAUSTED, Processed::No, text).refused()
}

/// Places for calls.
///
/// A call that waits is in `state` until it is given a place, and then in `given` until it has picked it up or given up. Both are
/// numbers: which of those that wait comes next is the order of `turns`.
pub(super) struct Bound {
    limit: u32,
    when_full: WhenFull,
    /// How many places are taken or given (low half), and how many calls wait that were given none (high half). None waits while a
    /// place is free.
    state: AtomicU64,
    /// Places that were given and not picked up. Below 0 for a moment if one is given up before it is counted here.
    given: AtomicIsize,
    /// At least one for each of these. There is one too many for each place that was given up: a call that gets it takes another turn.
    turns: Semaphore,
    /// Calls that have a seat.
    seated: AtomicUsize,
}

const ONE_TAKEN: u64 = 1;
const ONE_WAITS: u64 = 1 << 32;

const fn taken(state: u64) -> u32 {
    state as u32
}

impl Bound {
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            when_full,
            state: AtomicU64::new(0),
            given: AtomicIsize::new(0),
            turns: Semaphore::new(0),
            seated: AtomicUsize::new(0),
        })
    }

    /// Others of the same kind.
    pub(super) fn with_limit(&self, limit: usize) -> Arc<Self> {
        Self::new(limit, self.when_full)
    }

    /// A place, if one is free.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Place> {
        self.try_take().then(|| Place(Some(Arc::clone(self))))
    }

    /// Takes a place that the caller gives back with [`release`](Self::release); false if none is free.
    pub(super) fn try_take(&self) -> bool {
        let more = |state| (taken(state) < self.limit).then_some(state + ONE_TAKEN);
        self.change(more).is_ok()
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// A place that it was given is the next one's.
    pub(super) async fn acquire(self: &Arc<Self>) -> Place {
        let free = |state| taken(state) < self.limit;
        let before = self.next(|state| state + if free(state) { ONE_TAKEN } else { ONE_WAITS });
        if free(before) {
            return Place(Some(Arc::clone(self)));
        }
        let waiting = Waiting(self);
        loop {
            // It is never closed.
            if let Ok(turn) = self.turns.acquire().await {
                turn.forget();
            }
            let fewer = |given: isize| (given > 0).then(|| given - 1);
            // ORDERING: pairs with `release`: what was done in the place before is seen.
            let picked_up = self
                .given
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, fewer);
            if picked_up.is_ok() {
                std::mem::forget(waiting);
                return Place(Some(Arc::clone(self)));
            }
        }
    }

    /// Whether a call for which there is no place fails, as it is set.
    pub(super) fn refuses(&self) -> bool {
        self.when_full == WhenFull::Refuse
    }

    /// A seat for a call that waits; `None` if too many do.
    pub(super) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let more = |seated| (seated < WAITING_MAX).then_some(seated + 1);
        // ORDERING: a number, which publishes nothing.
        let seated = self
            .seated
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        seated.is_ok().then(|| Seat(Arc::clone(self)))
    }

    /// How many places are taken.
    pub(super) fn used(&self) -> usize {
        taken(self.state.load(Ordering::Relaxed)) as usize
    }

    /// Gives a place back: to the call that waits longest, if one does.
    pub(super) fn release(&self) {
        let waits = |state| state >= ONE_WAITS;
        let before = self.next(|state| state - if waits(state) { ONE_WAITS } else { ONE_TAKEN });
        if waits(before) {
            // ORDERING: pairs with `acquire`. Before its turn, so that there is no place without one.
            self.given.fetch_add(1, Ordering::Release);
            self.turns.add_permits(1);
        }
    }

    /// Changes the state; the one before.
    fn next(&self, next: impl Fn(u64) -> u64) -> u64 {
        let (Ok(before) | Err(before)) = self.change(|state| Some(next(state)));
        before
    }

    /// Changes the state, unless there is no other for it; the one before.
    fn change(&self, next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        // ORDERING: who has a place sees what was done in it before.
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
    }
}

/// A call that waits, until it has picked its place up.
struct Waiting<'a>(&'a Bound);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let bound = self.0;
        let gave_up = bound.change(|state| state.checked_sub(ONE_WAITS));
        if gave_up.is_err() {
            // All that wait were given places: so was this one. Its turn stays behind.
            bound.given.fetch_sub(1, Ordering::Relaxed);
            bound.release();
        }
    }
}

/// One of the calls that may wait.
pub(super) struct Seat(Arc<Bound>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seated.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place for a call; dropped, it is free.
pub(super) struct Place(Option<Arc<Bound>>);

impl Place {
    /// Gives it back, and tells where another is to be had.
    pub(super) fn lend(self) -> Option<Arc<Bound>> {
        self.0.clone()
    }

    /// Leaves it to the caller to give it back with [`Bound::release`].
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(bound) = &self.0 {
            bound.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Wait<'a> = Pin<Box<dyn Future<Output = Place> + Send + 'a>>;

    fn wait(bound: &Arc<Bound>) -> Wait<'_> {
        let mut wait: Wait<'_> = Box::pin(bound.acquire());
        assert!(poll(&mut wait).is_pending());
        wait
    }

    fn poll(wait: &mut Wait<'_>) -> Poll<Place> {
        wait.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn is_ready(wait: &mut Wait<'_>) -> bool {
        poll(wait).is_ready()
    }

    #[test]
    fn a_place_that_is_freed_is_the_next_ones_of_those_that_wait_and_of_no_later_one() {
        let bound = Bound::new(1, WhenFull::Wait);
        let first = bound.try_acquire().unwrap();
        let (mut second, mut third) = (wait(&bound), wait(&bound));
        drop(first);
        assert!(bound.try_acquire().is_none());
        let mut fourth = wait(&bound);
        assert!(!is_ready(&mut third) && !is_ready(&mut fourth));
        for waits in [&mut second, &mut third, &mut fourth] {
            assert_eq!(bound.used(), 1);
            // Free again at the end.
            assert!(is_ready(waits));
        }
        assert_eq!(bound.used(), 0);
        assert!(bound.try_acquire().is_some());
    }

    #[test]
    fn a_place_that_is_given_up_is_the_next_ones_whenever_that_is() {
        let bound = Bound::new(2, WhenFull::Wait);
        for given_first in [false, true] {
            let held = [(); 2].map(|()| bound.try_acquire().unwrap());
            let (goes, mut stays) = (wait(&bound), wait(&bound));
            let mut held = held.into_iter();
            if given_first {
                drop(held.next());
            }
            drop(goes);
            assert_eq!(is_ready(&mut stays), given_first);
            drop((held, stays));
            assert_eq!(bound.used(), 0);
        }
        // The only one that waits: the place is free, and its turn is in no one's way.
        for _ in 0..3 {
            let held = [(); 2].map(|()| bound.try_acquire().unwrap());
            let goes = wait(&bound);
            drop(held);
            drop(goes);
            assert_eq!(bound.used(), 0);
            let held = [(); 2].map(|()| bound.try_acquire().unwrap());
            let mut waits = wait(&bound);
            drop(held);
            assert!(is_ready(&mut waits));
            assert_eq!(bound.used(), 0);
        }
    }

    #[test]
    fn those_that_may_always_wait_take_no_seat_from_the_others() {
        let bound = Bound::new(1, WhenFull::Wait);
        let held = bound.try_acquire();
        let loops: Vec<_> = (0..WAITING_MAX).map(|_| wait(&bound)).collect();
        let seats: Vec<_> = (0..WAITING_MAX).map(|_| bound.seat().unwrap()).collect();
        assert!(bound.seat().is_none());
        drop(seats);
        assert!(bound.seat().is_some());
        drop((loops, held));
        assert_eq!(bound.used(), 0);
    }

    #[test]
    fn threads_never_have_more_places_than_there_are_and_none_waits_for_ever() {
        const LIMIT: usize = 3;
        let bound = Bound::new(LIMIT, WhenFull::Wait);
        let running = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_time()
            .build()
            .unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let (bound, running) = (Arc::clone(&bound), Arc::clone(&running));
                runtime.spawn(async move {
                    for round in 0..2000 {
                        let place = if (n + round) % 5 == 0 {
                            // Most give up while they wait, or after they were given a place.
                            let turns = async {
                                for _ in 0..(n + round) % 4 {
                                    tokio::task::yield_now().await;
                                }
                            };
                            tokio::select! {
                                biased;
                                () = turns => continue,
                                place = bound.acquire() => place,
                            }
                        } else {
                            bound.acquire().await
                        };
                        assert!(running.fetch_add(1, Ordering::SeqCst) < LIMIT);
                        tokio::task::yield_now().await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                let limit = std::time::Duration::from_secs(60);
                tokio::time::timeout(limit, task).await.unwrap().unwrap();
            }
        });
        assert_eq!(bound.used(), 0);
        assert_eq!(bound.given.load(Ordering::SeqCst), 0);
    }
}
