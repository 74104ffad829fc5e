//! The state shared by handles and keepers.

use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use tokio::time::Instant;

use super::errors::ManageError;
use super::events::{Event, Teller};
use super::metrics::Counters;
use super::provider::Erased;
use super::settings::{Hook, Settings};
use super::state::{Down, Live, NotInstalled, Over, Place, State};
use crate::error::SessionError;
use crate::handle::Session;
use crate::handle::wait::Waiter;
use crate::queue::{Process, WakerSet};
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};

pub(super) struct Shared {
    pub(super) provider: Box<dyn Erased>,
    pub(super) hook: Option<Hook>,
    pub(super) settings: Settings,
    pub(super) places: Box<[Place]>,
    pub(super) counters: Counters,
    pub(super) events: Teller,
    /// Callers and keepers, woken when a session is installed or lost, and for requests to the keepers.
    pub(super) changes: WakerSet,
    /// Keepers whose pause a caller ends by waiting.
    pub(super) wanted: WakerSet,
    started: AtomicBool,
    /// The process that started it: a forked child has no task.
    home: OnceLock<Process>,
    closing: AtomicBool,
    /// Its task was polled where no timer can be set, and has ended.
    stranded: AtomicBool,
    finished: AtomicBool,
    /// Requests for an attempt without a pause, so far.
    hurries: AtomicU64,
    /// Sessions so far.
    numbers: AtomicU64,
    /// The place at which the next caller starts comparing, so that equally loaded places take turns.
    turn: AtomicUsize,
}

impl Shared {
    pub(super) fn new(provider: Box<dyn Erased>, hook: Option<Hook>, settings: Settings) -> Self {
        Self {
            provider,
            hook,
            places: (0..settings.sessions).map(|_| Place::new()).collect(),
            counters: Counters::default(),
            events: Teller::new(settings.events_kept),
            settings,
            changes: WakerSet::new(),
            wanted: WakerSet::new(),
            started: AtomicBool::new(false),
            home: OnceLock::new(),
            closing: AtomicBool::new(false),
            stranded: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            hurries: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    // ---- callers ----------------------------------------------------------------------------

    /// Waits until `check` returns a value; called again at every change.
    pub(super) async fn until<T>(&self, check: impl FnMut() -> Option<T>) -> T {
        Waiter::new(&self.changes).until(check).await
    }

    /// Waits until a caller waits for a session.
    pub(super) async fn until_wanted(&self) {
        let wanted = || (self.counters.waiting.get() > 0).then_some(());
        Waiter::new(&self.wanted).until(wanted).await;
    }

    pub(super) fn is_closing(&self) -> bool {
        // ORDERING: pairs with `close`; acquires the writes before it.
        self.closing.load(Ordering::Acquire) || self.is_inherited()
    }

    fn is_inherited(&self) -> bool {
        self.home.get().is_some_and(|home| home.is_another())
    }

    /// The least loaded session that takes streams, and its place.
    pub(super) fn pick(&self) -> Option<(usize, Session)> {
        let count = self.places.len();
        if count == 1 {
            return self.places[0].ready().map(|session| (0, session));
        }
        let begin = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        let order = || (begin..count).chain(0..begin);
        let loads = order().filter_map(|place| Some((self.places[place].load()?, place)));
        // Of equally loaded ones the first in turn order.
        let (_, least) = loads.min_by_key(|&(load, _)| load)?;
        // It may have been lost since.
        std::iter::once(least)
            .chain(order())
            .find_map(|place| Some((place, self.places[place].ready()?)))
    }

    /// A live session, or an error if waiting is useless; `None`: wait.
    pub(super) fn look(&self) -> Option<Result<(usize, Session), ManageError>> {
        if self.is_closing() {
            return Some(Err(self.why_closed()));
        }
        match self.pick() {
            // A session installed by `replace` counts also before the start.
            Some(picked) => Some(Ok(picked)),
            None if self.is_started() => None,
            None => Some(Err(ManageError::NotStarted)),
        }
    }

    pub(super) fn why_closed(&self) -> ManageError {
        // Published by `close`.
        if self.stranded.load(Ordering::Relaxed) {
            ManageError::NoRuntime
        } else {
            ManageError::ShuttingDown
        }
    }

    /// Why the last attempt failed.
    pub(super) fn last_error(&self) -> Option<Arc<super::ProvideError>> {
        self.places.iter().find_map(|place| match &*place.state() {
            State::Down(Down { last, .. }) => last.clone(),
            State::Live(_) | State::Closed(_) => None,
        })
    }

    // ---- changes ----------------------------------------------------------------------------

    /// True the first time.
    pub(super) fn begin(&self) -> bool {
        let _ = self.home.set(Process::this());
        !self.started.swap(true, Ordering::Relaxed)
    }

    fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Installs a session at a place, and closes the previous one.
    ///
    /// # Errors
    /// The manager is closing, or the place has what is not to be replaced; the session has been closed.
    pub(super) fn install(
        &self,
        place: usize,
        session: Session,
        over: Over,
    ) -> Result<(), NotInstalled> {
        let number = 1 + self.numbers.fetch_add(1, Ordering::Relaxed);
        let live = Live {
            session,
            number,
            since: Instant::now(),
        };
        let before = self.places[place].install(&live, over).inspect_err(|_| {
            live.session.close();
        })?;
        if let Some(before) = before {
            before.session.close();
            self.tell_lost(place, before.number, SessionError::Closed);
        }
        self.counters.ready.add();
        self.events.tell(Event::Ready { place, number });
        self.changes.wake_all();
        Ok(())
    }

    /// Removes a session that takes no more streams. Its open streams continue.
    pub(super) fn retire(&self, place: usize, number: u64, reason: SessionError) {
        if self.places[place].retire(number) {
            self.tell_lost(place, number, reason);
        }
    }

    fn tell_lost(&self, place: usize, number: u64, reason: SessionError) {
        self.counters.lost.add();
        self.events.tell(Event::Lost {
            place,
            number,
            reason,
        });
    }

    /// Closes the sessions; the keepers reconnect, the first attempt without a pause.
    pub(super) fn close_and_hurry(&self) {
        // Increment before closing: a keeper that sees the loss then sees the request.
        self.hurries.fetch_add(1, Ordering::Relaxed);
        for (place, cell) in self.places.iter().enumerate() {
            if let Some(live) = cell.take_any() {
                live.session.close();
                self.tell_lost(place, live.number, SessionError::Closed);
            }
        }
        self.changes.wake_all();
    }

    pub(super) fn hurries(&self) -> u64 {
        self.hurries.load(Ordering::Relaxed)
    }

    /// Closes every place and its session, and fails all waiting callers. Idempotent.
    pub(super) fn close(&self) {
        // ORDERING: pairs with `is_closing`.
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        for (place, cell) in self.places.iter().enumerate() {
            if let Some(live) = cell.close() {
                live.session.close();
                self.tell_lost(place, live.number, SessionError::Closed);
            }
        }
        self.events.tell(Event::Closed);
        self.changes.wake_all();
    }

    /// The keepers can set no timer, and have ended.
    pub(super) fn strand(&self) {
        if !self.is_closing() {
            self.stranded.store(true, Ordering::Relaxed);
        }
        self.finish();
    }

    /// The keepers have ended.
    pub(super) fn finish(&self) {
        self.close();
        // ORDERING: pairs with `is_finished`.
        self.finished.store(true, Ordering::Release);
        self.changes.wake_all();
    }

    pub(super) fn is_finished(&self) -> bool {
        // ORDERING: pairs with `finish`. A manager that was never started is finished once closed.
        self.finished.load(Ordering::Acquire)
            || self.is_inherited()
            || (self.is_closing() && !self.is_started())
    }
}
