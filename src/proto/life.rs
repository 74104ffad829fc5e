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

pub(super) use self::table::Action;
use self::table::{Cell, Event, State, next, timers_of};
pub(crate) use self::table::{SocketEvent, SocketStage};
use super::timers::{Timer, TimerSet, Timers};
use crate::error::SessionError;
use crate::frame::{Role, codes};

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
enum Reason {
    None,
    /// The peer takes no new streams.
    PeerDrains(SessionError),
    /// The peer has said its last id: if the connection ends now, that is why.
    PeerLeft(SessionError),
    /// The session ends or has ended. This one stays.
    End(SessionError),
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
pub(super) enum Goaway {
    Soon,
    LastId,
}

/// How far a session is, why it ends, and by when.
#[derive(Debug)]
pub(super) struct Life {
    state: State,
    reason: Reason,
    drain: Option<Drain>,
    close_linger: Duration,
    /// When the socket must be closed, once it is known that the session ends. No timer: it is the driver's to keep.
    socket_by: Option<Instant>,
}

impl Life {
    pub(super) const fn new(role: Role, close_linger: Duration) -> Self {
        let state = match role {
            Role::Dialer => State::Hello,
            Role::Acceptor => State::Silent,
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
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The peer's SETTINGS have not come.
    #[inline]
    pub(super) const fn is_in_hello(&self) -> bool {
        matches!(self.state, State::Silent | State::Hello)
    }

    /// The peer has sent its SETTINGS, and nothing has ended yet.
    #[inline]
    pub(super) const fn is_established(&self) -> bool {
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
    pub(super) const fn may_send(&self) -> bool {
        !matches!(self.state, State::Silent | State::Closed)
    }

    /// The final GOAWAY is owed.
    pub(super) const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing)
    }

    #[inline]
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Nothing that comes matters any more.
    #[inline]
    pub(super) const fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing | State::Closed)
    }

    /// A drain runs its course: its streams go on to their end.
    pub(super) const fn is_draining(&self) -> bool {
        matches!(
            self.state,
            State::Announce | State::AwaitPong | State::LastId | State::RunOut
        )
    }

    /// Whether `Emptied` would move it on, and of which state.
    pub(super) const fn waits_for_streams(&self) -> bool {
        matches!(self.state, State::RunOut)
    }

    pub(super) const fn waits_for_queues(&self) -> bool {
        matches!(self.state, State::Flush)
    }

    /// A drain was asked for, before or after an end had begun.
    pub(super) const fn was_asked_to_drain(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether a stream that the peer opens is accepted.
    pub(super) const fn admits(&self) -> bool {
        matches!(self.state, State::Open | State::Announce | State::AwaitPong)
    }

    /// The GOAWAY of a drain that is owed.
    pub(super) const fn goaway_owed(&self) -> Option<Goaway> {
        match self.state {
            State::Announce => Some(Goaway::Soon),
            State::LastId => Some(Goaway::LastId),
            _ => None,
        }
    }

    /// The timers that run now.
    #[inline]
    pub(super) const fn timers(&self) -> TimerSet {
        timers_of(self.state)
    }

    // ---- reasons ------------------------------------------------------------------------------

    /// Why no stream is opened by this side any more.
    pub(super) fn refusal(&self) -> Option<SessionError> {
        if self.state > State::Open {
            return Some(SessionError::Closed);
        }
        self.peer_refusal().cloned()
    }

    /// What the peer said when it was about to take no new streams.
    pub(super) const fn peer_refusal(&self) -> Option<&SessionError> {
        match &self.reason {
            Reason::PeerDrains(error) | Reason::PeerLeft(error) => Some(error),
            Reason::None | Reason::End(_) => None,
        }
    }

    /// Why the session ends or has ended.
    pub(super) const fn end_reason(&self) -> Option<&SessionError> {
        match &self.reason {
            Reason::End(error) => Some(error),
            _ => None,
        }
    }

    /// The peer said GOAWAY: with its last id, or that it is to come.
    pub(super) fn peer_goaway(&mut self, error: SessionError, soon: bool) {
        match (&self.reason, soon) {
            (Reason::End(_), _) | (Reason::PeerLeft(_), true) => {}
            (_, true) => self.reason = Reason::PeerDrains(error),
            (_, false) => self.reason = Reason::PeerLeft(error),
        }
    }

    /// Why a session ends whose peer has closed the connection. `live`: streams have not come to their end.
    pub(super) fn reason_at_eof(&self, live: bool) -> SessionError {
        let otherwise = match self.state {
            State::Flush => SessionError::Closed,
            _ if self.is_draining() && !live => SessionError::Closed,
            _ => SessionError::Disconnected,
        };
        self.reason_of_loss(otherwise)
    }

    /// Why a session ends that lost its connection: because the peer left, if it did.
    pub(super) fn reason_of_loss(&self, otherwise: SessionError) -> SessionError {
        match &self.reason {
            Reason::PeerLeft(error) => error.clone(),
            _ => otherwise,
        }
    }

    fn give_reason(&mut self, error: SessionError) {
        if !matches!(self.reason, Reason::End(_)) {
            self.reason = Reason::End(error);
        }
    }

    /// Code and text of the final GOAWAY.
    pub(super) fn final_goaway(&self) -> (u32, String) {
        match self.end_reason() {
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

    pub(super) fn preface(&mut self) -> Action {
        self.on(Event::Preface)
    }

    pub(super) fn settings(&mut self) -> Action {
        self.on(match self.drain {
            None => Event::Settings,
            Some(_) => Event::SettingsDraining,
        })
    }

    /// Drains within `grace`.
    pub(super) fn drain(&mut self, grace: Duration, now: Instant, timers: &mut Timers) -> Action {
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
    pub(super) fn announced(&mut self, ping: u64, now: Instant, timers: &mut Timers) -> Action {
        if let Some(drain) = &mut self.drain {
            drain.ping = ping;
        }
        timers.set(Timer::Pong, now + PONG_WAIT);
        self.on(Event::Announced)
    }

    /// The PING of this number was answered, and all before it.
    pub(super) fn pong(&mut self, number: u64) -> Action {
        match &self.drain {
            Some(drain) if number >= drain.ping => self.on(Event::Pong),
            _ => Action::Ignore,
        }
    }

    pub(super) fn pong_overdue(&mut self) -> Action {
        self.on(Event::Pong)
    }

    pub(super) fn last_id_said(&mut self) -> Action {
        self.on(Event::LastIdSaid)
    }

    /// Sends what is queued, then ends.
    pub(super) fn close(&mut self, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::Close, SessionError::Closed, now, timers)
    }

    /// Nothing is left that the state waits for.
    pub(super) fn emptied(&mut self, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::Emptied, SessionError::Closed, now, timers)
    }

    /// Ends with this reason, which the peer is told.
    pub(super) fn end(&mut self, error: SessionError, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::End, error, now, timers)
    }

    /// The final GOAWAY goes out.
    pub(super) fn said(&mut self) -> Action {
        self.on(Event::Said)
    }

    /// Ends at once; the first reason stays.
    pub(super) fn abort(&mut self, error: SessionError) -> Action {
        let action = self.on(Event::Lost);
        if action != Action::Ignore {
            self.give_reason(error);
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
                self.give_reason(error);
                timers.set(Timer::FinalGoaway, self.final_goaway_by(now));
            }
            _ => self.give_reason(error),
        }
        action
    }

    // ---- times --------------------------------------------------------------------------------

    /// The socket is closed by then, whatever else was said.
    pub(super) fn close_socket_by(&mut self, at: Instant) {
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
    pub(super) fn linger_until(&self, now: Instant) -> Instant {
        let at = now + self.close_linger;
        self.socket_by.map_or(at, |by| at.min(by))
    }

    // ---- what a drain counts ------------------------------------------------------------------

    /// Streams that the drain is to report; not counted without one.
    pub(super) const fn count_streams(&mut self, streams: u64) {
        if let Some(drain) = &mut self.drain {
            drain.streams += streams;
        }
    }

    /// How many were counted, if it was asked to drain.
    pub(super) fn counted_streams(&self) -> Option<u64> {
        self.drain.as_ref().map(|drain| drain.streams)
    }
}

#[cfg(test)]
mod tests;
