//! The life-cycle of a session: one table of states and events, one reason, and the time limit of each step.
//!
//! ```text
//!   Silent ─► Hello ─► Open ─drain─► Announce ─► AwaitPong ─► LastId ─► RunOut ─► Closed
//!                       └──── close, also from the four ───► Flush ─┐
//!               end, from each of them ─────────────────────────────┴─► Closing ─► Closed       abort, from any ─► Closed
//! ```
//! # States
//! * `Silent`: an accepting side before the dialler's preface; it sends nothing. `Hello`: the peer's SETTINGS are awaited.
//! * `Open`: messages flow.
//! * *Draining*, a graceful shutdown: no stream that ran is lost, none that did not run is left in doubt, and it ends.
//!   1. `Announce`: GOAWAY|SOON is owed, and a PING behind it. Streams are still accepted.
//!   2. `AwaitPong`, at most [`PONG_WAIT`]: the answer proves that the peer has read the SOON, so every stream that it opened
//!      before is here.
//!   3. `LastId`: the GOAWAY with the last id is owed. Streams that no application has accepted are refused with it, and so are
//!      all that are opened from now on.
//!   4. `RunOut`: streams run to their end. When the last one has ended, the session is closed.
//!
//!   `Flush` is the state of `close`: queued messages are sent, for `close_linger` at most.
//! * `Closing`: only the final GOAWAY is owed, which carries the reason.
//! * `Closed`: every handle has the reason. The driver closes the socket, see [`SocketStage`].
//!
//! # Verbs
//! * `drain`: graceful shutdown, requested by a handle, or because of the session's age.
//! * `close`: sends queued messages, then ends. A handle requests it, or the session is orphaned and unusable (`orphan`).
//! * `end`: the session ends with a reason, which the final GOAWAY carries. Broken rules, tripped limits
//!   (`trip` counts one and ends the session by it), a lost peer and expired ceilings lead here.
//! * `abort`: the session ends at once, without a GOAWAY: the peer closed the connection, the socket failed or is stuck,
//!   the handshake took too long, the engine stopped.
//!
//! # Times
//! A drain has its grace, `close` has `close_linger`; a handshake has [`HELLO_WAIT`] left once a drain is requested. The
//! final GOAWAY is given up [`FINAL_GOAWAY`] after that time, and the socket is closed [`SOCKET_CLOSED`] after it, whatever
//! the peer does. Repeated or different requests can only shorten these times.

mod table;

use std::time::{Duration, Instant};

pub(crate) use self::table::Action;
use self::table::{Cell, Event, State, next, timers_of};
pub(crate) use self::table::{SocketEvent, SocketStage};
use super::timers::{Timer, TimerSet, Timers};
use crate::error::{SessionError, Side, StreamError, codes};

/// The peer's time limit to answer the PING behind GOAWAY|SOON.
const PONG_WAIT: Duration = Duration::from_secs(5);
/// The time left to a handshake under way when a drain is requested.
const HELLO_WAIT: Duration = Duration::from_secs(1);
/// The longest grace of a drain.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// After the end of a session's grace: when the final GOAWAY is given up, and when the socket is closed.
const FINAL_GOAWAY: Duration = Duration::from_millis(300);
const SOCKET_CLOSED: Duration = Duration::from_millis(600);

/// Why no stream is opened any more, or why the session ends: the strongest reason given, and of the peer's GOAWAYs the last.
#[derive(Debug)]
pub(crate) enum Reason {
    None,
    /// The peer accepts no new streams.
    PeerDrains(SessionError),
    /// The peer has sent its last id: if the connection ends now, this is the reason.
    PeerLeft(SessionError),
    /// The session ends or has ended. This reason stays.
    End(SessionError),
}

impl Reason {
    /// The reason in the GOAWAY by which the peer accepts no new streams.
    pub(crate) const fn peer_refusal(&self) -> Option<&SessionError> {
        match self {
            Self::PeerDrains(error) | Self::PeerLeft(error) => Some(error),
            Self::None | Self::End(_) => None,
        }
    }

    /// The error of a stream that the peer has cancelled with this code.
    pub(crate) fn cancelled_as(&self, code: u32) -> StreamError {
        // Refused by a peer that shuts down, before any of it ran.
        let turned_away = matches!(code, codes::UNAVAILABLE | codes::REFUSED);
        let refused = self.peer_refusal().filter(|_| turned_away).cloned();
        let cancelled = StreamError::Cancelled {
            by: Side::Peer,
            code,
        };
        refused.map_or(cancelled, StreamError::NotProcessed)
    }

    /// Why the session ends or has ended.
    pub(crate) const fn end_reason(&self) -> Option<&SessionError> {
        match self {
            Self::End(error) => Some(error),
            _ => None,
        }
    }

    /// The peer sent a GOAWAY: with its last id, or with SOON.
    pub(crate) fn peer_goaway(&mut self, error: SessionError, soon: bool) {
        match (&*self, soon) {
            (Self::End(_), _) | (Self::PeerLeft(_), true) => {}
            (_, true) => *self = Self::PeerDrains(error),
            (_, false) => *self = Self::PeerLeft(error),
        }
    }

    /// The reason for a session that lost its connection: the peer's GOAWAY, if it sent one.
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

/// The state of a drain.
#[derive(Debug)]
struct Drain {
    /// Streams alive at its start or opened since.
    streams: u64,
    /// The number of the PING behind the GOAWAY|SOON, once that is sent.
    ping: u64,
}

/// The GOAWAYs of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goaway {
    Soon,
    LastId,
}

/// The state of a session, its reason to end, and its time limits.
#[derive(Debug)]
pub(crate) struct Life {
    state: State,
    pub(crate) reason: Reason,
    drain: Option<Drain>,
    close_linger: Duration,
    /// When the socket must be closed, once the session is known to end. Not a timer: the driver enforces it.
    socket_by: Option<Instant>,
}

impl Life {
    /// An `is_silent` one sends nothing before the peer has.
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

    // ---- queries of the session ----------------------------------------------------------------

    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The peer's SETTINGS have not arrived.
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

    /// Received frames have no effect any more.
    #[inline]
    pub(crate) const fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing | State::Closed)
    }

    /// A drain is under way: its streams run to their end.
    pub(crate) const fn is_draining(&self) -> bool {
        matches!(
            self.state,
            State::Announce | State::AwaitPong | State::LastId | State::RunOut
        )
    }

    /// Whether `Emptied` would move it on, from a state that waits for streams.
    pub(crate) const fn waits_for_streams(&self) -> bool {
        matches!(self.state, State::RunOut)
    }

    pub(crate) const fn waits_for_queues(&self) -> bool {
        matches!(self.state, State::Flush)
    }

    /// A drain was requested, before or after an end had begun.
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

    /// The reason for a session whose peer has closed the connection. `live`: some streams have not ended.
    pub(crate) fn reason_at_eof(&self, live: bool) -> SessionError {
        let otherwise = match self.state {
            State::Flush => SessionError::Closed,
            _ if self.is_draining() && !live => SessionError::Closed,
            _ => SessionError::Disconnected,
        };
        self.reason.of_loss(otherwise)
    }

    /// Code and text of the final GOAWAY, if it is owed; [`said`](Self::said) follows.
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
            // It is ending already, and does so by then at the latest.
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

    /// GOAWAY|SOON is sent, and the PING with this number behind it.
    pub(crate) fn announced(&mut self, ping: u64, now: Instant, timers: &mut Timers) -> Action {
        if let Some(drain) = &mut self.drain {
            drain.ping = ping;
        }
        timers.set(Timer::Pong, now + PONG_WAIT);
        self.on(Event::Announced)
    }

    /// The PING with this number was answered, and all before it.
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

    /// Sends queued messages, then ends.
    pub(crate) fn close(&mut self, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::Close, SessionError::Closed, now, timers)
    }

    /// The condition that the state waits for holds.
    pub(crate) fn emptied(&mut self, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::Emptied, SessionError::Closed, now, timers)
    }

    /// Ends with this reason, which the final GOAWAY carries.
    pub(crate) fn end(&mut self, error: SessionError, now: Instant, timers: &mut Timers) -> Action {
        self.toward_end(Event::End, error, now, timers)
    }

    /// The final GOAWAY is sent.
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

    /// The socket is closed by `at`, whatever other limits are set.
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

    // ---- streams of a drain -------------------------------------------------------------------

    /// Adds streams to the drain's report; ignored without a drain.
    pub(crate) const fn count_streams(&mut self, streams: u64) {
        if let Some(drain) = &mut self.drain {
            drain.streams += streams;
        }
    }

    /// Number of streams counted, if a drain was requested.
    pub(crate) fn counted_streams(&self) -> Option<u64> {
        self.drain.as_ref().map(|drain| drain.streams)
    }
}

#[cfg(test)]
mod tests;
