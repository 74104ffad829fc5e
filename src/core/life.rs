//! The life-cycle of a session: one table of states and events, one reason, and what each step may take.
//!
//! ```text
//!   Silent ─► Hello ─► Open ─drain─► Announce ─► AwaitPong ─► LastId ─► RunOut ─► Closed
//!                       └──── close, also from the four ───► Flush ─┐
//!               end, from each of them ─────────────────────────────┴─► Closing ─► Closed       abort, from any ─► Closed
//! ```
//! # States
//! * `Silent`: an accepting side before the dialler's preface, which says nothing. `Hello`: the peer's SETTINGS are awaited.
//! * `Open`: messages flow.
//! * *Draining*, a graceful shutdown: nothing that ran is lost, nothing that did not run is left in doubt, and it ends.
//!   1. `Announce`: GOAWAY|SOON is owed, and a PING behind it. Streams are still accepted.
//!   2. `AwaitPong`, at most [`PONG_WAIT`]: the answer proves that the peer has read the SOON, so whatever it opened before
//!      is here.
//!   3. `LastId`: the GOAWAY with the last id is owed. Streams that no application has taken are refused with it, and so is
//!      all that is opened from now on.
//!   4. `RunOut`: streams go on to their end. When the last one has ended, the session is closed.
//!
//!   `Flush` is what `close` does instead: what is queued is sent, at most for `close_linger`.
//! * `Closing`: only the final GOAWAY is owed, which names the reason.
//! * `Closed`: every handle knows the reason. The driver goes on with the socket, see [`SocketStage`].
//!
//! # Verbs
//! * `drain`: graceful shutdown, asked for by a handle, or because of the session's age.
//! * `close`: send what is queued, then end. A handle asks for it, or the session is orphaned and of no use (`orphan`).
//! * `end`: the session ends with a reason, which the peer is told in the final GOAWAY. Broken rules, tripped limits
//!   (`trip` counts one and ends the session by it), a lost peer and ceilings come here.
//! * `abort`: the session ends at once, and the peer is told nothing: it closed the connection, the socket failed or is
//!   stuck, the handshake took too long, the engine stopped.
//!
//! # Times
//! A drain has its grace, `close` has `close_linger`; a handshake has [`HELLO_WAIT`] left once a drain was asked for. The
//! final GOAWAY is given up [`FINAL_GOAWAY`] after that time, and the socket is closed [`SOCKET_CLOSED`] after it, whatever
//! the peer does. To ask again, or for something else, can only make it shorter.

mod table;

use std::time::{Duration, Instant};

pub(crate) use self::table::Action;
use self::table::{Cell, Event, State, next, timers_of};
pub(crate) use self::table::{SocketEvent, SocketStage};
use super::timers::{Timer, TimerSet, Timers};
use crate::error::{SessionError, codes};

/// How long the peer may take to answer the PING behind GOAWAY|SOON.
const PONG_WAIT: Duration = Duration::from_secs(5);
/// How long a handshake that is under way may still take when a drain is asked for.
const HELLO_WAIT: Duration = Duration::from_secs(1);
/// The longest grace of a drain.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// After the time in which a session was to end: when the final GOAWAY is given up, and when the socket is closed.
const FINAL_GOAWAY: Duration = Duration::from_millis(300);
const SOCKET_CLOSED: Duration = Duration::from_millis(600);

/// Why no stream is opened any more, or why the session ends: the strongest of what was said, and of the peer's words the last.
#[derive(Debug)]
pub(crate) enum Reason {
    None,
    /// The peer takes no new streams.
    PeerDrains(SessionError),
    /// The peer has said its last id: if the connection ends now, that is why.
    PeerLeft(SessionError),
    /// The session ends or has ended. This one stays.
    End(SessionError),
}

impl Reason {
    /// What the peer said when it was about to take no new streams.
    pub(crate) const fn peer_refusal(&self) -> Option<&SessionError> {
        match self {
            Self::PeerDrains(error) | Self::PeerLeft(error) => Some(error),
            Self::None | Self::End(_) => None,
        }
    }

    /// Why the session ends or has ended.
    pub(crate) const fn end_reason(&self) -> Option<&SessionError> {
        match self {
            Self::End(error) => Some(error),
            _ => None,
        }
    }

    /// The peer said GOAWAY: with its last id, or that it is to come.
    pub(crate) fn peer_goaway(&mut self, error: SessionError, soon: bool) {
        match (&*self, soon) {
            (Self::End(_), _) | (Self::PeerLeft(_), true) => {}
            (_, true) => *self = Self::PeerDrains(error),
            (_, false) => *self = Self::PeerLeft(error),
        }
    }

    /// Why a session ends that lost its connection: because the peer left, if it did.
    pub(crate) fn of_loss(&self, otherwise: SessionError) -> SessionError {
        match self {
            Self::PeerLeft(error) => error.clone(),
            _ => otherwise,
        }
    }

    /// The session ends: the first reason stays.
    fn give(&mut self, error: SessionError) {
        if !matches!(*self, Self::End(_)) {
            *self = Self::End(error);
        }
    }
}

/// What a drain has to remember.
#[derive(Debug)]
struct Drain {
    /// Streams that are or were concerned.
    streams: u64,
    /// The number of the PING behind the GOAWAY|SOON, once that is said.
    ping: u64,
}

/// The GOAWAYs of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goaway {
    Soon,
    LastId,
}

/// How far a session is, why it ends, and by when.
#[derive(Debug)]
pub(crate) struct Life {
    state: State,
    pub(crate) reason: Reason,
    drain: Option<Drain>,
    close_linger: Duration,
    /// When the socket must be closed, once it is known that the session ends. No timer: it is the driver's to keep.
    socket_by: Option<Instant>,
}

impl Life {
    /// One that `is_silent` says nothing before the peer has.
    pub(crate) const fn new(is_silent: bool, close_linger: Duration) -> Self {
        let state = if is_silent {
            State::Silent
        } else {
            State::Hello
        };
        Self {
            state,
            reason: Reason::None,
            drain: None,
            close_linger,
            socket_by: None,
        }
    }

    fn on(&mut self, event: Event) -> Action {
        match next(self.state, event) {
            Cell::To(state, action) => {
                self.state = state;
                action
            }
            Cell::Ignored => Action::Ignore,
            Cell::Impossible(why) => {
                debug_assert!(false, "{event:?} in {:?}: {why}", self.state);
                Action::Ignore
            }
        }
    }

    // ---- what the session asks ----------------------------------------------------------------

    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The peer's SETTINGS have not come.
    #[inline]
    pub(crate) const fn is_in_hello(&self) -> bool {
        matches!(self.state, State::Silent | State::Hello)
    }

    /// The peer has sent its SETTINGS, and nothing has ended yet.
    #[inline]
    pub(crate) const fn is_established(&self) -> bool {
        matches!(
            self.state,
            State::Open
                | State::Announce
                | State::AwaitPong
                | State::LastId
                | State::RunOut
                | State::Flush
        )
    }

    #[inline]
    pub(crate) const fn may_send(&self) -> bool {
        !matches!(self.state, State::Silent | State::Closed)
    }

    /// The final GOAWAY is owed.
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing)
    }

    #[inline]
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Nothing that comes matters any more.
    #[inline]
    pub(crate) const fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing | State::Closed)
    }

    /// A drain runs its course: its streams go on to their end.
    pub(crate) const fn is_draining(&self) -> bool {
        matches!(
            self.state,
            State::Announce | State::AwaitPong | State::LastId | State::RunOut
        )
    }

    /// Whether `Emptied` would move it on, and of which state.
    pub(crate) const fn waits_for_streams(&self) -> bool {
        matches!(self.state, State::RunOut)
    }

    pub(crate) const fn waits_for_queues(&self) -> bool {
        matches!(self.state, State::Flush)
    }

    /// A drain was asked for, before or after an end had begun.
    pub(crate) const fn was_asked_to_drain(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether a stream that the peer opens is accepted.
    pub(crate) const fn admits(&self) -> bool {
        matches!(self.state, State::Open | State::Announce | State::AwaitPong)
    }

    /// The GOAWAY of a drain that is owed.
    pub(crate) const fn goaway_owed(&self) -> Option<Goaway> {
        match self.state {
            State::Announce => Some(Goaway::Soon),
            State::LastId => Some(Goaway::LastId),
            _ => None,
        }
    }

    /// The timers that run now.
    #[inline]
    pub(crate) const fn timers(&self) -> TimerSet {
        timers_of(self.state)
    }

    // ---- reasons ------------------------------------------------------------------------------

    /// Why no stream is opened by this side any more.
    pub(crate) fn refusal(&self) -> Option<SessionError> {
        if self.state > State::Open {
            return Some(SessionError::Closed);
        }
        self.reason.peer_refusal().cloned()
    }

    /// Why a session ends whose peer has closed the connection. `live`: streams have not come to their end.
    pub(crate) fn reason_at_eof(&self, live: bool) -> SessionError {
        let otherwise = match self.state {
            State::Flush => SessionError::Closed,
            _ if self.is_draining() && !live => SessionError::Closed,
            _ => SessionError::Disconnected,
        };
        self.reason.of_loss(otherwise)
    }

    /// Code and text of the last word, if it is owed; [`said`](Self::said) follows.
    pub(crate) fn final_word(&self) -> Option<(u32, String)> {
        self.is_closing().then(|| self.final_goaway())
    }

    /// Code and text of the final GOAWAY.
    pub(crate) fn final_goaway(&self) -> (u32, String) {
        match self.reason.end_reason() {
            Some(SessionError::Protocol(error)) => {
                (codes::PROTOCOL, format!("{}: {error}", error.rule()))
            }
            Some(SessionError::LimitExceeded(exceeded)) => {
                (codes::LIMIT_EXCEEDED, exceeded.to_string())
            }
            Some(error @ SessionError::KeepaliveTimeout(_)) => {
                (codes::KEEPALIVE, error.to_string())
            }
            _ if self.drain.is_some() => (codes::SHUTDOWN, String::new()),
            _ => (codes::NO_ERROR, String::new()),
        }
    }

    // ---- events -------------------------------------------------------------------------------

    pub(crate) fn preface(&mut self) -> Action {
        self.on(Event::Preface)
    }

    pub(crate) fn settings(&mut self) -> Action {
        self.on(match self.drain {
            None => Event::Settings,
            Some(_) => Event::SettingsDraining,
        })
    }

    /// Drains within `grace`.
    pub(crate) fn drain(&mut self, grace: Duration, now: Instant, timers: &mut Timers) -> Action {
        let until = now + grace.min(GRACE_MAX);
        self.close_socket_by(until + SOCKET_CLOSED);
        match self.state {
            State::Closed => return Action::Ignore,
            // It comes to its end already, and by then at the latest.
            State::Closing => timers.set_by(Timer::FinalGoaway, until + FINAL_GOAWAY),
            _ => {
                timers.set_by(Timer::HelloGrace, until.min(now + HELLO_WAIT));
                timers.set_by(Timer::Ceiling, until);
            }
        }
        if self.drain.is_some() {
            return Action::Ignore;
        }
        self.drain = Some(Drain {
            streams: 0,
            ping: u64::MAX,
        });
        self.on(Event::Drain)
    }

    /// GOAWAY|SOON goes out, and the PING of this number behind it.
    pub(crate) fn announced(&mut self, ping: u64, now: Instant, timers: &mut Timers) -> Action {
        if let Some(drain) = &mut self.drain {
            drain.ping = ping;
        }
        timers.set(Timer::Pong, now + PONG_WAIT);
        self.on(Event::Announced)
    }

    /// The PING of this number was answered, and all before it.
    pub(crate) fn pong(&mut self, number: u64) -> Action {
        match &self.drain {
            Some(drain) if number >= drain.ping => self.on(Event::Pong),
            _ => Action::Ignore,
        }
    }

    pub(crate) fn pong_overdue(&mut self) -> Action {
        self.on(Event::Pong)
    }

    pub(crate) fn last_id_said(&mut self) -> Action {
        self.on(Event::LastIdSaid)
    }

    /// Sends what is queued, then ends.
    pub(crate) fn close(&mut self, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::Close, SessionError::Closed, now, timers)
    }

    /// Nothing is left that the state waits for.
    pub(crate) fn emptied(&mut self, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::Emptied, SessionError::Closed, now, timers)
    }

    /// Ends with this reason, which the peer is told.
    pub(crate) fn end(&mut self, error: SessionError, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::End, error, now, timers)
    }

    /// The final GOAWAY goes out.
    pub(crate) fn said(&mut self) -> Action {
        self.on(Event::Said)
    }

    /// Ends at once; the first reason stays.
    pub(crate) fn abort(&mut self, error: SessionError) -> Action {
        let action = self.on(Event::Lost);
        if action != Action::Ignore {
            self.reason.give(error);
        }
        action
    }

    fn toward_end(
        &mut self,
        event: Event,
        error: SessionError,
        now: Instant,
        timers: &mut Timers,
    ) -> Action {
        let action = self.on(event);
        if action == Action::Ignore {
            return action;
        }
        let until = now + self.close_linger;
        self.close_socket_by(until + SOCKET_CLOSED);
        match self.state {
            State::Flush => timers.set_by(Timer::Ceiling, until),
            State::Closing => {
                self.reason.give(error);
                timers.set(Timer::FinalGoaway, self.final_goaway_by(now));
            }
            _ => self.reason.give(error),
        }
        action
    }

    // ---- times --------------------------------------------------------------------------------

    /// The socket is closed by then, whatever else was said.
    pub(crate) fn close_socket_by(&mut self, at: Instant) {
        self.socket_by = Some(self.socket_by.map_or(at, |by| by.min(at)));
    }

    /// Until when the final GOAWAY may wait for the socket.
    fn final_goaway_by(&self, now: Instant) -> Instant {
        let at = now + self.close_linger;
        match self.socket_by {
            Some(by) => at.min((by - (SOCKET_CLOSED - FINAL_GOAWAY)).max(now + FINAL_GOAWAY)),
            None => at,
        }
    }

    /// Until when the driver may wait for the peer before it closes the socket.
    pub(crate) fn linger_until(&self, now: Instant) -> Instant {
        let at = now + self.close_linger;
        self.socket_by.map_or(at, |by| at.min(by))
    }

    // ---- what a drain counts ------------------------------------------------------------------

    /// Streams that the drain is to report; not counted without one.
    pub(crate) const fn count_streams(&mut self, streams: u64) {
        if let Some(drain) = &mut self.drain {
            drain.streams += streams;
        }
    }

    /// How many were counted, if it was asked to drain.
    pub(crate) fn counted_streams(&self) -> Option<u64> {
        self.drain.as_ref().map(|drain| drain.streams)
    }
}

#[cfg(test)]
mod tests;
