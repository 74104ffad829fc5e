//! A place for one session: what is there, in one atomic cell.
//!
//! ```text
//!   Down ──install──► Live ──retire──► Down        any ──close──► Closed   (never back)
//!                       └──install (replace)──► Live
//! ```
//! # Invariants
//! 1. Every change is one swap or one compare-and-swap, so exactly one of two racing changes sees the other.
//! 2. Whoever takes a `Live` out of the cell is the only one to do so: it closes the session if that is wanted, and tells.
//! 3. Nothing follows `Closed`.
//!
//! # Progress
//! Readers are wait-free; changes are lock-free.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::errors::ProvideError;
use crate::handle::Session;
use crate::sync::{Arc, Ordering};

/// What is at a place.
#[derive(Debug)]
pub(super) enum State {
    Down(Down),
    Live(Live),
    /// With the session that was there, whose end the keeper awaits.
    Closed(Option<Session>),
}

/// No session is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Down {
    pub(super) doing: Doing,
    /// Failures since a session proved itself.
    pub(super) failures: u32,
    /// Why the last attempt failed, if one has since the last session.
    pub(super) last: Option<Arc<ProvideError>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Doing {
    /// The keeper has not come to it.
    #[default]
    Nothing,
    Connecting,
    Pausing(Duration),
}

/// A session.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    /// Counts the manager's sessions.
    pub(super) number: u64,
    pub(super) since: Instant,
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

    /// What is there now.
    pub(super) fn state(&self) -> Arc<State> {
        self.cell.load_full()
    }

    /// The session, if it takes streams.
    pub(super) fn ready(&self) -> Option<Session> {
        match &**self.cell.load() {
            // Asked at every call: the keeper may not have come to it yet.
            State::Live(live) if live.session.state().reason().is_none() => {
                Some(live.session.clone())
            }
            _ => None,
        }
    }

    /// How much the session has to do, if it takes streams.
    pub(super) fn load(&self) -> Option<u64> {
        match &**self.cell.load() {
            State::Live(live) if live.session.state().reason().is_none() => {
                // The engine counts streams when it comes to them; calls are counted at once. A call
                // has a stream as a rule, so the sum would count it twice.
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

    /// Whether no session is there, for the keeper to bring one.
    pub(super) fn is_down(&self) -> bool {
        matches!(**self.cell.load(), State::Down(_))
    }

    /// Whether this session is there still.
    pub(super) fn is_live(&self, number: u64) -> bool {
        matches!(&**self.cell.load(), State::Live(live) if live.number == number)
    }

    /// Says what is being done about it; does nothing if a session is there, or the place is closed.
    pub(super) fn note(&self, down: &Down) {
        let _ = self.change(|state| match state {
            State::Down(_) => Some(State::Down(down.clone())),
            State::Live(_) | State::Closed(_) => None,
        });
    }

    /// Puts a session there, and returns the one that was.
    ///
    /// # Errors
    /// The place is closed; the session is the caller's to close.
    pub(super) fn install(&self, live: &Live) -> Result<Option<Live>, Closed> {
        let before = self.change(|state| match state {
            State::Closed(_) => None,
            State::Down(_) | State::Live(_) => Some(State::Live(live.clone())),
        });
        match before.ok().as_deref() {
            None => Err(Closed),
            Some(State::Live(before)) => Ok(Some(before.clone())),
            Some(_) => Ok(None),
        }
    }

    /// Takes the session away if it is there still.
    pub(super) fn retire(&self, number: u64) -> bool {
        self.take(|live| live.number == number).is_some()
    }

    /// Takes away whatever session is there.
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

    /// Closes the place, and returns the session that was there.
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

    /// Replaces what is there by what `next` makes of it, in one step. Returns what was there; as an
    /// error, if `next` wants no change.
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

/// The manager is closing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;
