//! Shutting down: nothing that ran is lost, nothing that did not run is left in doubt, and it ends.
//!
//! ```text
//!   GOAWAY|SOON, PING ──► PONG, or 5 s ──► GOAWAY(last id) ──► no stream is left ──► the end
//!        still accepting                       refusing              or the ceiling is reached
//! ```
//! The answer to a PING that follows the SOON proves that the peer has read it, so whatever the peer opened before is
//! here: the last id takes nothing from it unseen. What is here and was taken by no application is refused then.

use std::time::{Duration, Instant};

use super::connection::{Connection, Phase};
use super::output::Batch;
use super::registry::Key;
use super::state::Event;
use super::stream::Opening;
use crate::error::{SessionError, StreamError};
use crate::frame::{GOAWAY_FRAME_LEN, codes, put_goaway};

/// How long the peer may take to answer that it has seen the SOON.
const SOON_WAIT: Duration = Duration::from_secs(5);
/// How long a handshake that is under way may still take.
const HELLO_WAIT: Duration = Duration::from_secs(1);
/// The longest grace; more is no shutdown.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// After the time in which a session was to end: when the last word is given up, and when the socket is closed.
const LAST_WORD: Duration = Duration::from_millis(300);
const CLOSED: Duration = Duration::from_millis(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// GOAWAY|SOON is owed.
    Soon,
    /// The answer to the PING of this number is awaited.
    Asked { number: u64, until: Instant },
    /// GOAWAY with the last id is owed.
    Last,
    /// The peer was told all.
    Said,
}

/// How far a shutdown is.
#[derive(Debug)]
pub(super) struct Leave {
    /// The ceiling.
    until: Instant,
    /// For a handshake that is not done yet.
    hello_until: Instant,
    stage: Stage,
    /// Streams that are or were concerned.
    streams: u64,
}

impl Connection {
    /// Shuts down within `grace`. Once is enough; asking again can only make it shorter.
    pub(super) fn leave(&mut self, grace: Duration, now: Instant) {
        let until = now + grace.min(GRACE_MAX);
        self.end_by(until);
        match &mut self.phase {
            Phase::Hello { .. } | Phase::Open | Phase::Leaving => {}
            // It comes to its end already, and by then at the latest.
            Phase::Draining { until: end } => *end = until.min(*end),
            Phase::Ending { until: end } => *end = (until + LAST_WORD).min(*end),
            Phase::Dead => return,
        }
        if let Some(leave) = &mut self.leave {
            leave.until = leave.until.min(until);
            leave.hello_until = leave.hello_until.min(until);
            return;
        }
        self.leave = Some(Leave {
            until,
            hello_until: until.min(now + HELLO_WAIT),
            stage: Stage::Soon,
            streams: 0,
        });
        if matches!(self.phase, Phase::Hello { .. } | Phase::Open) {
            self.link.refuse_opens(SessionError::Closed);
            self.wake_state = true;
            self.give_up_waiting();
        }
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Leaving;
        }
        let alive = (self.registry.iter_mut()).filter(|(_, stream)| !stream.state.is_over());
        let alive = alive.count() as u64;
        self.count_leaving(alive);
    }

    /// Streams of this side that the peer has not permitted yet will not be opened.
    fn give_up_waiting(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            let Some(stream) = self.registry.get_mut(key) else {
                continue;
            };
            if stream.opening != Opening::Waiting || stream.state.is_over() {
                continue;
            }
            let error = StreamError::NotProcessed(SessionError::Closed);
            stream.end_both(&error);
            self.cancel_stream(key, 0, Event::RecvCancel);
            self.remove_if_done(key);
            self.count_leaving(1);
            self.link.drain.refused.add(1);
        }
    }

    fn count_leaving(&mut self, streams: u64) {
        if let Some(leave) = &mut self.leave {
            leave.streams += streams;
        }
    }

    /// The handshake is done; if a shutdown was asked for meanwhile, nothing is to be accepted.
    pub(super) fn open_or_leave(&mut self) {
        self.phase = match &mut self.leave {
            Some(leave) => {
                leave.stage = Stage::Last;
                Phase::Leaving
            }
            None => Phase::Open,
        };
    }

    /// Whether a stream that the peer opens now is taken; counts it for the report.
    pub(super) fn admits(&mut self) -> bool {
        let admits = match (&self.phase, &self.leave) {
            (Phase::Open, _) => true,
            (Phase::Leaving, Some(leave)) => !matches!(leave.stage, Stage::Last | Stage::Said),
            _ => false,
        } && self.unheld.is_none();
        self.count_leaving(1);
        if !admits {
            self.count_refused();
        }
        admits
    }

    /// A stream was refused; it is one of those counted.
    pub(super) fn count_refused(&mut self) {
        if self.leave.is_some() {
            self.link.drain.refused.add(1);
        }
    }

    /// A PING was answered.
    pub(super) fn leave_on_pong(&mut self, answered: u64) {
        if let Some(leave) = &mut self.leave
            && let Stage::Asked { number, .. } = leave.stage
            && answered >= number
        {
            leave.stage = Stage::Last;
        }
    }

    /// The GOAWAYs, before whatever else the session owes.
    pub(super) fn put_leave(&mut self, batch: &mut Batch, now: Instant) {
        if !matches!(self.phase, Phase::Leaving) {
            return;
        }
        let Some(leave) = &mut self.leave else { return };
        let (last, soon) = match leave.stage {
            Stage::Soon => {
                // One that is under way already may have been read before the SOON.
                leave.stage = Stage::Asked {
                    number: self.ping.sent + 1,
                    until: leave.until.min(now + SOON_WAIT),
                };
                self.ping.wanted = true;
                (None, true)
            }
            Stage::Last => {
                leave.stage = Stage::Said;
                self.refuse_all_unaccepted();
                (self.last_peer_id, false)
            }
            Stage::Asked { .. } | Stage::Said => return,
        };
        batch.head().put_with(GOAWAY_FRAME_LEN, |dst| {
            put_goaway(dst, last, codes::SHUTDOWN, "", soon);
        });
        self.sent_control(batch, GOAWAY_FRAME_LEN);
    }

    /// What no application has taken goes back to the peer.
    pub(super) fn refuse_all_unaccepted(&mut self) {
        while let Some(stream) = self.link.pop_accept() {
            if let Some(key) = stream.lane().key().map(Key::from_bits) {
                self.refuse_unaccepted(key);
            }
        }
    }

    /// When everything has been said and no stream is left.
    pub(super) fn end_leave_if_done(&mut self) {
        let said = (self.leave.as_ref()).is_some_and(|leave| leave.stage == Stage::Said);
        if !said || !matches!(self.phase, Phase::Leaving) {
            return;
        }
        let queues_are_empty = self.schedule.is_empty()
            && self.opens.is_empty()
            && self.owing.is_empty()
            && self.refusals.is_empty();
        if queues_are_empty && !self.has_live_streams() {
            self.terminate(SessionError::Closed);
        }
    }

    /// Ends at the first one that is found: usually at once.
    pub(super) fn has_live_streams(&mut self) -> bool {
        (self.registry.iter_mut()).any(|(_, stream)| !stream.state.is_over() || stream.owes != 0)
    }

    pub(super) fn leave_deadline(&self) -> Option<Instant> {
        let leave = self.leave.as_ref()?;
        match (&self.phase, leave.stage) {
            (Phase::Hello { .. }, _) => Some(leave.hello_until),
            (Phase::Leaving, Stage::Asked { until, .. }) => Some(until.min(leave.until)),
            (Phase::Leaving, _) => Some(leave.until),
            _ => None,
        }
    }

    /// False if the session has come to its end by it.
    pub(super) fn check_leave(&mut self, now: Instant) -> bool {
        if self.leave_deadline().is_none_or(|at| now < at) {
            return true;
        }
        let Some(leave) = &mut self.leave else {
            return true;
        };
        let hello = matches!(self.phase, Phase::Hello { .. });
        if hello || now >= leave.until {
            self.link.drain.forced.add(1);
            self.turn = now;
            self.finish_with(SessionError::Closed, codes::SHUTDOWN, "");
            return false;
        }
        if let Stage::Asked { .. } = leave.stage {
            leave.stage = Stage::Last;
        }
        true
    }

    /// What came of it; to be called while the streams are still there.
    pub(super) fn report_leave(&mut self) {
        let drain = &self.link.drain;
        if !drain.is_asked() && self.leave.is_none() {
            return;
        }
        let alive = (self.registry.iter_mut()).filter(|(_, stream)| !stream.state.is_over());
        let cancelled = alive.count() as u64;
        drain.cancelled.set(cancelled);
        // Without it, the session was coming to another end when it was asked for.
        let Some(leave) = self.leave.take() else {
            return;
        };
        let finished = leave
            .streams
            .saturating_sub(drain.refused.get() + cancelled);
        drain.finished.set(finished);
    }

    /// The session is to have said all by then.
    pub(super) fn end_by(&mut self, until: Instant) {
        let closed_by = until + CLOSED;
        self.closed_by = Some(self.closed_by.map_or(closed_by, |at| at.min(closed_by)));
    }

    /// Until when the last word may wait to be taken.
    pub(super) fn last_word_until(&self, now: Instant) -> Instant {
        let at = now + self.config.close_linger();
        match self.closed_by {
            Some(closed_by) => at.min((closed_by - (CLOSED - LAST_WORD)).max(now + LAST_WORD)),
            None => at,
        }
    }

    /// Until when the socket is closed, after the end.
    pub(crate) fn linger_until(&self, now: Instant) -> Instant {
        let at = now + self.config.close_linger();
        self.closed_by.map_or(at, |closed_by| at.min(closed_by))
    }
}
