//! How many calls may run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::code::Code;
use super::status::Status;
use crate::error::Processed;

/// Calls of one method that wait for a place, of all sessions, and those of a server whose request came late; more are refused.
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
pub(super) struct Bound {
    limit: usize,
    when_full: WhenFull,
    used: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Bound {
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            limit,
            when_full,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
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
        let more = |used: usize| (used < self.limit).then_some(used + 1);
        // ORDERING: SeqCst pairs with `release`: who frees a place sees who waits, or who waits sees that it is free.
        let taken = self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.is_ok()
    }

    /// Waits for a place.
    pub(super) async fn acquire(self: &Arc<Self>) -> Place {
        if let Some(place) = self.try_acquire() {
            return place;
        }
        let _waiting = Waiting::new(self);
        let mut freed = std::pin::pin!(self.freed.notified());
        loop {
            freed.as_mut().enable();
            if let Some(place) = self.try_acquire() {
                return place;
            }
            freed.as_mut().await;
            freed.set(self.freed.notified());
        }
    }

    /// Whether a call for which there is no place fails, as it is set.
    pub(super) fn refuses(&self) -> bool {
        self.when_full == WhenFull::Refuse
    }

    /// The same, and as too many wait.
    pub(super) fn refuses_to_wait(&self) -> bool {
        self.refuses() || self.waiting() >= WAITING_MAX
    }

    /// How many wait for a place.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many places are taken.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        // ORDERING: see `try_take`.
        self.used.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

struct Waiting<'a>(&'a Bound);

impl<'a> Waiting<'a> {
    fn new(bound: &'a Bound) -> Self {
        // ORDERING: see `try_take`.
        bound.waiting.fetch_add(1, Ordering::SeqCst);
        Self(bound)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
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
    use super::*;

    #[tokio::test]
    async fn a_place_that_is_freed_goes_to_one_that_waits() {
        let bound = Bound::new(1, WhenFull::Wait);
        let place = bound.acquire().await;
        assert!(bound.try_acquire().is_none());
        let waiting = {
            let bound = Arc::clone(&bound);
            tokio::spawn(async move { drop(bound.acquire().await) })
        };
        while bound.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drop(place);
        waiting.await.unwrap();
        assert_eq!((bound.used(), bound.waiting()), (0, 0));
    }

    #[test]
    fn threads_never_have_more_places_than_there_are_and_none_waits_for_ever() {
        const LIMIT: usize = 3;
        let bound = Bound::new(LIMIT, WhenFull::Wait);
        let running = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (bound, running) = (Arc::clone(&bound), Arc::clone(&running));
                runtime.spawn(async move {
                    for _ in 0..500 {
                        let _place = bound.acquire().await;
                        assert!(running.fetch_add(1, Ordering::SeqCst) < LIMIT);
                        tokio::task::yield_now().await;
                        running.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        assert_eq!(bound.used(), 0);
    }
}
