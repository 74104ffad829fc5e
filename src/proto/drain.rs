//! What a connection does at each step of its end: `life` has the table, and the times.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::life::{Action, Goaway};
use super::outbound::Outbound;
use super::output::Batch;
use super::registry::{Key, Registry};
use super::state::Event;
use super::stream::Opening;
use super::timers::Timer;
use crate::error::{SessionError, StreamError};
use crate::frame::{GOAWAY_FRAME_LEN, MAX_GOAWAY_DEBUG, codes, put_goaway};
use crate::link::Activated;

/// Room that the final GOAWAY needs.
const FINAL_GOAWAY_ROOM: usize = 64 + MAX_GOAWAY_DEBUG as usize;

impl Connection {
    // ---- verbs --------------------------------------------------------------------------------

    /// Shuts down gracefully within `grace`. Once is enough; asking again can only make it shorter.
    pub(super) fn drain(&mut self, grace: Duration, now: Instant) {
        let asked_before = self.life.was_asked_to_drain();
        let action = self.life.drain(grace, now, &mut self.timers);
        self.act(action);
        if !asked_before && self.life.was_asked_to_drain() {
            let live = self.live_streams();
            self.life.count_streams(live);
        }
    }

    /// Sends what is queued, within `close_linger`, and ends.
    pub(super) fn close(&mut self, now: Instant) {
        let action = self.life.close(now, &mut self.timers);
        self.act(action);
    }

    /// Ends with a reason, which the peer is told.
    pub(super) fn end(&mut self, error: SessionError) {
        let action = self.life.end(error, self.turn, &mut self.timers);
        self.act(action);
    }

    /// Ends at once; every handle learns the reason, and the peer is told nothing. Idempotent.
    pub(crate) fn abort(&mut self, error: SessionError) {
        let action = self.life.abort(error);
        self.act(action);
    }

    /// The peer closed the connection.
    pub(crate) fn eof(&mut self) {
        let live = self.has_live_streams();
        self.abort(self.life.reason_at_eof(live));
    }

    /// The socket failed.
    pub(crate) fn io_failed(&mut self, error: std::io::Error) {
        let error = SessionError::Io(std::sync::Arc::new(error));
        self.abort(self.life.reason_of_loss(error));
    }

    // ---- deadlines ----------------------------------------------------------------------------

    /// The handshake, a drain, or the end takes too long.
    pub(super) fn on_life_timer(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Handshake => {
                let timeout = self.config.handshake_timeout();
                self.abort(SessionError::HandshakeTimeout(timeout));
            }
            Timer::HelloGrace | Timer::Ceiling => {
                // What `close` could not flush is no failure of a drain.
                if !self.life.waits_for_queues() {
                    self.link.drain.forced.add(1);
                }
                self.end(SessionError::Closed);
            }
            Timer::Pong => {
                let action = self.life.pong_overdue();
                self.act(action);
            }
            Timer::FinalGoaway => self.abort(SessionError::Closed),
            Timer::Age => self.drain(self.config.drain_timeout(), now),
            Timer::Recheck
            | Timer::Advances
            | Timer::Keepalive
            | Timer::Shrink
            | Timer::Spares
            | Timer::Orphan
            | Timer::Deadlines => {}
        }
    }

    // ---- actions ------------------------------------------------------------------------------

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Ignore | Action::Proceed => {}
            Action::RefuseOpens => self.refuse_opens(),
            Action::GiveUpOpens => {
                self.refuse_opens();
                self.give_up_waiting();
            }
            Action::TearDown => self.tear_down(),
        }
    }

    fn refuse_opens(&mut self) {
        self.link.refuse_opens(SessionError::Closed);
        self.wake_state = true;
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
            self.life.count_streams(1);
            self.link.drain.refused.add(1);
        }
    }

    fn tear_down(&mut self) {
        self.report_drain();
        let error = self.life.end_reason().cloned();
        let error = error.unwrap_or(SessionError::Closed);
        let activated = self.link.close(error.clone());
        self.link.counters.bytes_held.set(0);
        for (_, stream) in self.registry.iter_mut() {
            let error = match stream.opening {
                Opening::Done => StreamError::Session(error.clone()),
                Opening::Waiting | Opening::Granted => StreamError::NotProcessed(error.clone()),
            };
            // Before the end is set: a receiver that sees the end gives the charge back.
            let lies = stream.put_in_order();
            stream.lane().charge(lies);
            stream.end_both(&error);
            stream.forget_queued();
        }
        for lane in activated {
            if let (Activated::New(side), _) = lane.activated() {
                side.refuse(&StreamError::NotProcessed(error.clone()));
            }
        }
        self.registry = Registry::default();
        self.outbound = Outbound::default();
        self.unwritten = Vec::new();
        self.link.counters.streams.set(0);
        self.pool.end();
        self.link.drop_spares();
        self.link.drop_unaccepted_if_orphaned();
        self.link.wake_all();
    }

    /// What came of a drain; to be called while the streams are still there.
    fn report_drain(&mut self) {
        let counted = self.life.counted_streams();
        if !self.link.drain.is_asked() && counted.is_none() {
            return;
        }
        let cancelled = self.live_streams();
        let drain = &self.link.drain;
        drain.cancelled.set(cancelled);
        // Without a count, the session was coming to another end when a drain was asked for.
        if let Some(streams) = counted {
            let over = drain.refused.get() + cancelled;
            drain.finished.set(streams.saturating_sub(over));
        }
    }

    // ---- in a batch ---------------------------------------------------------------------------

    /// The GOAWAYs of a drain, before whatever else the session owes.
    pub(super) fn put_drain(&mut self, batch: &mut Batch, now: Instant) {
        let Some(goaway) = self.life.goaway_owed() else {
            return;
        };
        let (last, soon) = match goaway {
            Goaway::Soon => {
                // One that is under way already may have been read before the SOON.
                let ping = self.ping.sent + 1;
                self.ping.wanted = true;
                let action = self.life.announced(ping, now, &mut self.timers);
                self.act(action);
                (None, true)
            }
            Goaway::LastId => {
                let action = self.life.last_id_said();
                self.act(action);
                self.refuse_all_unaccepted();
                (self.last_peer_id, false)
            }
        };
        batch.head().put_with(GOAWAY_FRAME_LEN, |dst| {
            put_goaway(dst, last, codes::SHUTDOWN, "", soon);
        });
        self.sent_control(batch, GOAWAY_FRAME_LEN);
    }

    /// Moves on when nothing is left that the state waits for.
    pub(super) fn end_if_emptied(&mut self, now: Instant) {
        let waits_for_queues = self.life.waits_for_queues();
        if !waits_for_queues && !self.life.waits_for_streams() {
            return;
        }
        let queues_are_empty =
            self.schedule.is_empty() && self.opens.is_empty() && self.owing.is_empty();
        let emptied = queues_are_empty
            && if waits_for_queues {
                // Also nothing that waits for credit.
                !self.registry.iter_mut().any(|(_, it)| it.has_queued())
            } else {
                self.refusals.is_empty() && !self.has_live_streams()
            };
        if emptied {
            let action = self.life.emptied(now, &mut self.timers);
            self.act(action);
        }
    }

    pub(super) fn put_final_goaway(&mut self, batch: &mut Batch) {
        if !self.life.is_closing() || batch.room() < FINAL_GOAWAY_ROOM {
            return;
        }
        let (code, text) = self.life.final_goaway();
        let before = batch.head().len();
        batch.head().put_with(FINAL_GOAWAY_ROOM, |dst| {
            put_goaway(dst, self.last_peer_id, code, &text, false);
        });
        let len = batch.head().len() - before;
        self.sent_control(batch, len);
        let action = self.life.said();
        self.act(action);
    }

    // ---- streams of the peer ------------------------------------------------------------------

    /// Whether a stream that the peer opens now is taken; counts it for the report.
    pub(super) fn admits(&mut self) -> bool {
        let admits = self.life.admits() && self.orphaned.is_none();
        self.life.count_streams(1);
        if !admits {
            self.count_refused();
        }
        admits
    }

    /// A stream was refused; it is one of those counted.
    pub(super) fn count_refused(&mut self) {
        if self.life.was_asked_to_drain() {
            self.link.drain.refused.add(1);
        }
    }

    /// What no application has taken goes back to the peer.
    pub(super) fn refuse_all_unaccepted(&mut self) {
        while let Some(stream) = self.link.pop_accept() {
            if let Some(key) = stream.lane().key().map(Key::from_bits) {
                self.refuse_unaccepted(key);
            }
        }
    }

    fn live_streams(&mut self) -> u64 {
        let live = (self.registry.iter_mut()).filter(|(_, stream)| !stream.state.is_over());
        live.count() as u64
    }

    /// Ends at the first one that is found: usually at once.
    fn has_live_streams(&mut self) -> bool {
        (self.registry.iter_mut()).any(|(_, stream)| !stream.state.is_over() || stream.owes != 0)
    }
}
