//! A human-readable description of a manager.

use std::fmt;
use std::time::Duration;

use super::errors::ProvideError;
use super::metrics::Metrics;
use super::shared::Shared;
use super::state::{Doing, State};
use crate::error::Chain;
use crate::sync::Arc;

/// The state of one of a manager's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// No session, and no attempt yet.
    Idle,
    /// An attempt is under way.
    Connecting,
    /// Waiting for the next attempt; the length of the pause.
    Pausing(Duration),
    /// Ready, since this long.
    Ready(Duration),
    /// The session takes no more streams; the manager has not replaced it yet.
    Ended,
    /// The manager is closed.
    Closed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Connecting => f.write_str("connecting"),
            Self::Pausing(pause) => write!(f, "next attempt after a pause of {pause:.1?}"),
            Self::Ready(time) => write!(f, "ready for {time:.1?}"),
            Self::Ended => f.write_str("ended"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// One of a manager's sessions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlaceDescription {
    /// Its state.
    pub phase: Phase,
    /// Failures since a session proved itself; 0 while one is ready.
    pub failures: u32,
    /// Why the last attempt failed, if one has since the last session.
    pub last_error: Option<Arc<ProvideError>>,
}

/// A manager at one moment. From [`Manager::describe`](super::Manager::describe); its `Display` is for logs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Description {
    /// The description of the provider.
    pub provider: String,
    /// Each of its sessions.
    pub places: Vec<PlaceDescription>,
    /// Its counters.
    pub metrics: Metrics,
}

impl Description {
    pub(super) fn of(shared: &Shared) -> Self {
        let places = shared.places.iter();
        Self {
            provider: shared.provider.describe(),
            places: places
                .map(|place| PlaceDescription::of(&place.state()))
                .collect(),
            metrics: shared.counters.snapshot(),
        }
    }
}

impl PlaceDescription {
    fn of(state: &State) -> Self {
        let (phase, failures, last_error) = match state {
            State::Closed(_) => (Phase::Closed, 0, None),
            State::Live(live) if live.session.state().reason().is_some() => (Phase::Ended, 0, None),
            State::Live(live) => (Phase::Ready(live.since.elapsed()), 0, None),
            State::Down(down) => {
                let phase = match down.doing {
                    Doing::Nothing => Phase::Idle,
                    Doing::Connecting => Phase::Connecting,
                    Doing::Pausing(pause) => Phase::Pausing(pause),
                };
                (phase, down.failures, down.last.clone())
            }
        };
        Self {
            phase,
            failures,
            last_error,
        }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.provider)?;
        for (n, place) in self.places.iter().enumerate() {
            let separator = if n == 0 { " " } else { "; " };
            write!(f, "{separator}{}", place.phase)?;
            if place.failures > 0 {
                write!(f, " ({} failures)", place.failures)?;
            }
            if let Some(error) = &place.last_error {
                write!(f, ": {}", Chain(&**error))?;
            }
        }
        let m = &self.metrics;
        write!(
            f,
            " [{} attempts, {} sessions, {} lost, {} callers waiting]",
            m.attempts, m.ready, m.lost, m.waiting
        )
    }
}
