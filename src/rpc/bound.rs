//! How many calls may run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::code::Code;
use super::quota::Quota;
use super::status::Status;
use crate::error::Processed;

/// Calls of one method that wait for a place, of all sessions, and those of a server whose request came late; more are refused. The
/// loops of sessions are not counted.
const WAITING_MAX: usize = 1024;

/// The fate of a call for which there is no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits, and so do the calls behind it, as far as they need the same place. A place that becomes free is the one's that waits
    /// longest.
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
pub(super) struct Bound {
    places: Quota,
    when_full: WhenFull,
    /// Calls that have a seat.
    seated: AtomicUsize,
}

impl Bound {
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            places: Quota::new(limit),
            when_full,
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
        self.places.try_take()
    }

    /// Waits for a place.
    pub(super) async fn acquire(self: &Arc<Self>) -> Place {
        self.places.take().await;
        Place(Some(Arc::clone(self)))
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

    /// How many places calls have.
    pub(super) fn used(&self) -> usize {
        self.places.used()
    }

    /// Gives a place back: to the call that waits longest, if one does.
    pub(super) fn release(&self) {
        self.places.release();
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
            assert!(bound.try_acquire().is_none());
            // One that is not picked up is not in use.
            assert_eq!(bound.used(), 0);
            let place = poll(waits);
            assert!(place.is_ready());
            assert_eq!(bound.used(), 1);
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
        assert!((0..LIMIT).all(|_| bound.try_take()) && !bound.try_take());
    }
}
