//! A place for one session: its state in one atomic cell.
//!
//! ```text
//!   Down ──install──► Live ──retire──► Down        any ──close──► Closed   (never back)
//!                       └──install (replace)──► Live
//! ```
//! # Invariants
//! 1. Every change is one swap or one compare-and-swap, so exactly one of two racing changes sees the other.
//! 2. Exactly one thread takes a given `Live` out of the cell; it closes the session if required, and sends the event.
//! 3. `Closed` is final.
//!
//! # Progress
//! Readers are wait-free; changes are lock-free.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::errors::ProvideError;
use super::panics::dispose;
use crate::handle::Session;
use crate::sync::{Arc, Ordering};

/// The state of a place.
#[derive(Debug)]
pub(super) enum State {
    Down(Down),
    Live(Live),
    /// With the previous session, whose end the keeper awaits.
    Closed(Option<Session>),
}

/// No session.
#[derive(Clone, Debug, Default)]
pub(super) struct Down {
    pub(super) doing: Doing,
    /// Failures and losses since the last proven session.
    pub(super) failures: u32,
    /// Why the last attempt failed, if one has since the last session.
    pub(super) last: Option<Arc<ProvideError>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Doing {
    /// The keeper has not begun an attempt.
    #[default]
    Nothing,
    Connecting,
    Pausing(Duration),
}

/// A session.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    /// The serial number of the session in the manager.
    pub(super) number: u64,
    pub(super) since: Instant,
}

impl Drop for Down {
    fn drop(&mut self) {
        // The error may be the application's, and this its last owner.
        dispose(self.last.take());
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    cell: ArcSwap<State>,
    /// Calls of `with_session` that are running on it.
    calls: AtomicUsize,
}

impl Place {
    pub(super) fn new() -> Self {
        Self {
            cell: ArcSwap::from_pointee(State::Down(Down::default())),
            calls: AtomicUsize::new(0),
        }
    }

    /// The current state.
    pub(super) fn state(&self) -> Arc<State> {
        self.cell.load_full()
    }

    /// The session, if it takes streams.
    pub(super) fn ready(&self) -> Option<Session> {
        match &**self.cell.load() {
            // Checked at every call: the keeper may not have noticed the end yet.
            State::Live(live) if live.session.state().reason().is_none() => {
                Some(live.session.clone())
            }
            _ => None,
        }
    }

    /// The load of the session, if it takes streams.
    pub(super) fn load(&self) -> Option<u64> {
        match &**self.cell.load() {
            State::Live(live) if live.session.state().reason().is_none() => {
                // The engine counts streams with delay; calls are counted at once. A call usually
                // has a stream, so a sum would count it twice.
                let calls = self.calls.load(Ordering::Relaxed) as u64;
                Some(calls.max(live.session.stats().streams))
            }
            _ => None,
        }
    }

    pub(super) fn begin_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_call(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the keeper should make a session.
    pub(super) fn is_down(&self) -> bool {
        matches!(**self.cell.load(), State::Down(_))
    }

    /// Whether this session is still installed.
    pub(super) fn is_live(&self, number: u64) -> bool {
        matches!(&**self.cell.load(), State::Live(live) if live.number == number)
    }

    /// Records the keeper's progress; no effect if a session is installed, or the place is closed.
    pub(super) fn note(&self, down: &Down) {
        let _ = self.change(|state| match state {
            State::Down(_) => Some(State::Down(down.clone())),
            State::Live(_) | State::Closed(_) => None,
        });
    }

    /// Installs a session, and returns the previous one.
    ///
    /// # Errors
    /// The place is closed, or has what is not to be replaced; the caller has to close the session.
    pub(super) fn install(&self, live: &Live, over: Over) -> Result<Option<Live>, NotInstalled> {
        let before = self.change(|state| {
            let may = match (state, over) {
                (State::Closed(_), _) => false,
                (State::Down(_), _) | (State::Live(_), Over::Any) => true,
                (State::Live(_), Over::None) => false,
                (State::Live(before), Over::Number(number)) => before.number == number,
            };
            may.then(|| State::Live(live.clone()))
        });
        match before.ok().as_deref() {
            None => Err(NotInstalled),
            Some(State::Live(before)) => Ok(Some(before.clone())),
            Some(_) => Ok(None),
        }
    }

    /// Removes the session if it is still installed.
    pub(super) fn retire(&self, number: u64) -> bool {
        self.take(|live| live.number == number).is_some()
    }

    /// Removes the installed session, if any.
    pub(super) fn take_any(&self) -> Option<Live> {
        self.take(|_| true)
    }

    fn take(&self, wanted: impl Fn(&Live) -> bool) -> Option<Live> {
        let before = self.change(|state| match state {
            State::Live(live) if wanted(live) => Some(State::Down(Down::default())),
            _ => None,
        });
        match before.ok().as_deref() {
            Some(State::Live(live)) => Some(live.clone()),
            _ => None,
        }
    }

    /// Closes the place, and returns its session.
    pub(super) fn close(&self) -> Option<Live> {
        let before = self.change(|state| match state {
            State::Closed(_) => None,
            State::Down(_) => Some(State::Closed(None)),
            State::Live(live) => Some(State::Closed(Some(live.session.clone()))),
        });
        match before.ok().as_deref() {
            Some(State::Live(live)) => Some(live.clone()),
            _ => None,
        }
    }

    /// Replaces the state by `next(state)` in one step. Returns the previous state; as an error, if `next` returns `None`
    /// for no change.
    fn change(&self, next: impl Fn(&State) -> Option<State>) -> Result<Arc<State>, Arc<State>> {
        loop {
            let now = self.cell.load_full();
            let Some(next) = next(&now) else {
                return Err(now);
            };
            let found = self.cell.compare_and_swap(&now, Arc::new(next));
            if Arc::ptr_eq(&found, &now) {
                return Ok(now);
            }
        }
    }
}

/// What a new session may replace.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    /// No session: one that was installed meanwhile stays.
    None,
    /// The session with this number, or none.
    Number(u64),
    Any,
}

/// The manager is closing, or the place has another session.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotInstalled;
