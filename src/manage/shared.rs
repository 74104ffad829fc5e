//! What handles and keepers share.

use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use tokio::time::Instant;

use super::errors::ManageError;
use super::events::{Event, Teller};
use super::metrics::Counters;
use super::provider::Erased;
use super::settings::{Hook, Settings};
use super::state::{Closed, Down, Live, Place, State};
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
    /// Callers and keepers. They are woken when a session comes or goes, and when something is asked of the keepers.
    pub(super) changes: WakerSet,
    /// Keepers whose pause a caller ends by waiting.
    pub(super) wanted: WakerSet,
    started: AtomicBool,
    /// Where it was started: its task is not in a fork of that process.
    home: OnceLock<Process>,
    closing: AtomicBool,
    finished: AtomicBool,
    /// How often a new attempt without a pause was asked for.
    hurries: AtomicU64,
    /// Sessions so far.
    numbers: AtomicU64,
    /// Where the next caller begins to compare, so that places with the same load take turns.
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
            finished: AtomicBool::new(false),
            hurries: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    // ---- callers ----------------------------------------------------------------------------

    /// Waits until `check` finds something; it is asked again at every change.
    pub(super) async fn until<T>(&self, check: impl FnMut() -> Option<T>) -> T {
        Waiter::new(&self.changes).until(check).await
    }

    /// Waits until a caller waits for a session.
    pub(super) async fn until_wanted(&self) {
        let wanted = || (self.counters.waiting.get() > 0).then_some(());
        Waiter::new(&self.wanted).until(wanted).await;
    }

    pub(super) fn is_closing(&self) -> bool {
        // ORDERING: pairs with `close`; whoever sees it sees what led to it.
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
        // Of equals the first, whose turn it is.
        let (_, least) = loads.min_by_key(|&(load, _)| load)?;
        // It may have been lost since.
        std::iter::once(least)
            .chain(order())
            .find_map(|place| Some((place, self.places[place].ready()?)))
    }

    /// A session now, or why waiting for one is of no use; `None` if it is worth waiting.
    pub(super) fn look(&self) -> Option<Result<(usize, Session), ManageError>> {
        if self.is_closing() {
            return Some(Err(ManageError::ShuttingDown));
        }
        match self.pick() {
            // One that was put in by hand is as good before the start.
            Some(picked) => Some(Ok(picked)),
            None if self.is_started() => None,
            None => Some(Err(ManageError::NotStarted)),
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

    /// Makes a session the one of a place, and closes the one that was there.
    ///
    /// # Errors
    /// The manager is closing; the session has been closed.
    pub(super) fn install(&self, place: usize, session: Session) -> Result<(), Closed> {
        let number = 1 + self.numbers.fetch_add(1, Ordering::Relaxed);
        let live = Live {
            session,
            number,
            since: Instant::now(),
        };
        let before = self.places[place].install(&live).inspect_err(|_| {
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

    /// Takes a session away that takes no more streams. It goes on with those that it has.
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

    /// Closes the sessions; the keepers make new ones, the first time without a pause.
    pub(super) fn close_and_hurry(&self) {
        // Before the sessions go: a keeper that sees that hurries.
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

    /// Closes every place and its session, and releases everybody who waits. Again, it does nothing.
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

    /// The keepers have ended.
    pub(super) fn finish(&self) {
        self.close();
        // ORDERING: pairs with `is_finished`.
        self.finished.store(true, Ordering::Release);
        self.changes.wake_all();
    }

    pub(super) fn is_finished(&self) -> bool {
        // ORDERING: pairs with `finish`. Of a manager that was never started, closing is the end.
        self.finished.load(Ordering::Acquire)
            || self.is_inherited()
            || (self.is_closing() && !self.is_started())
    }
}
