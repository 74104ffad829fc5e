//! The actions of a session at each step of its end: `life` has the table, and the times.

use std::time::{Duration, Instant};

use super::Core;
use super::life::{Action, Goaway};
use super::port::{Count, SessionPort};
use super::state::Event;
use super::stream::Opening;
use super::streams::Key;
use crate::error::{SessionError, StreamError, codes};

impl<S: SessionPort> Core<S> {
    // ---- verbs --------------------------------------------------------------------------------

    /// Shuts down gracefully within `grace`. Repeated calls can only shorten it.
    pub(crate) fn drain(&mut self, grace: Duration, now: Instant) {
        let asked_before = self.life.was_asked_to_drain();
        let action = self.life.drain(grace, now, &mut self.mux.base.timers);
        self.act(action);
        if !asked_before && self.life.was_asked_to_drain() {
            let live = self.mux.base.count_alive();
            self.life.count_streams(live);
        }
    }

    /// Sends what is queued, within `close_linger`, and ends.
    #[cold]
    pub(crate) fn close(&mut self, now: Instant) {
        let action = self.life.close(now, &mut self.mux.base.timers);
        self.act(action);
    }

    /// Ends with a reason, which the final GOAWAY carries.
    pub(crate) fn end(&mut self, error: SessionError) {
        let base = &mut self.mux.base;
        let action = self.life.end(error, base.turn, &mut base.timers);
        self.act(action);
    }

    /// Ends by a limit of this side, if one was tripped; the peer gets the same text.
    #[inline]
    pub(crate) fn end_if_tripped(&mut self) {
        if self.mux.limits.is_tripped() {
            end_by_limit(self);
        }
    }

    /// Ends at once, without a GOAWAY; every handle gets the reason. Idempotent.
    pub(crate) fn abort(&mut self, error: SessionError) {
        let action = self.life.abort(error);
        self.act(action);
    }

    /// The peer closed the connection.
    pub(crate) fn eof(&mut self) {
        let live = !self.mux.base.streams.are_over() || !self.mux.base.calls.are_over();
        self.abort(self.life.reason_at_eof(live));
    }

    /// The socket failed.
    pub(crate) fn io_failed(&mut self, error: std::io::Error) {
        let error = SessionError::Io(std::sync::Arc::new(error));
        self.abort(self.life.reason.of_loss(error));
    }

    // ---- actions ------------------------------------------------------------------------------

    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Ignore | Action::Proceed => {}
            Action::RefuseOpens => self.mux.base.refuse_opens(SessionError::Closed),
            Action::GiveUpOpens => {
                self.mux.base.refuse_opens(SessionError::Closed);
                self.give_up_waiting();
            }
            Action::TearDown => self.tear_down(),
        }
    }

    /// Gives up streams of this side that wait for the peer's permission.
    fn give_up_waiting(&mut self) {
        for key in std::mem::take(&mut self.mux.permits.waiting) {
            let Some(stream) = self.mux.base.streams.get_mut(key) else {
                continue;
            };
            if stream.opening != Opening::Waiting || stream.state.is_over() {
                continue;
            }
            let error = StreamError::NotProcessed(SessionError::Closed);
            stream.end_both(&error);
            self.mux.cancel_stream(key, 0, Event::RecvCancel);
            self.mux.remove_if_done(key);
            self.life.count_streams(1);
            self.mux.base.app.add(Count::ShutdownRefused, 1);
        }
    }

    fn tear_down(&mut self) {
        self.report_drain();
        let error = self.life.reason.end_reason().cloned();
        self.mux.end(&error.unwrap_or(SessionError::Closed));
    }

    /// Reports the outcome of a drain; to be called while the streams still exist.
    fn report_drain(&mut self) {
        let counted = self.life.counted_streams();
        if !self.mux.base.app.is_shutdown_asked() && counted.is_none() {
            return;
        }
        let cancelled = self.mux.base.count_alive();
        let app = &self.mux.base.app;
        app.set(Count::ShutdownCancelled, cancelled);
        // Without a count, the session was ending otherwise when a drain was asked for.
        if let Some(streams) = counted {
            let over = app.get(Count::ShutdownRefused) + cancelled;
            app.set(Count::ShutdownFinished, streams.saturating_sub(over));
        }
    }

    // ---- in a batch ---------------------------------------------------------------------------

    /// The GOAWAY of a drain under way; a wire sends it before all else that the session owes.
    pub(crate) fn next_goaway(&mut self, now: Instant) -> Option<Goaway> {
        let goaway = self.life.goaway_owed()?;
        match goaway {
            Goaway::Soon => {
                // A PING already under way may have been read before the SOON.
                let ping = self.ping.next_number();
                self.ping.ask_next();
                let base = &mut self.mux.base;
                let action = self.life.announced(ping, now, &mut base.timers);
                self.act(action);
            }
            Goaway::LastId => {
                let action = self.life.last_id_said();
                self.act(action);
                self.refuse_all_unaccepted();
            }
        }
        Some(goaway)
    }

    /// Moves on when the condition that the state waits for holds.
    pub(crate) fn end_if_emptied(&mut self, now: Instant) {
        let emptied = if self.life.waits_for_queues() {
            // Also no message that waits for credit.
            self.mux.has_nothing_queued()
        } else {
            self.life.waits_for_streams() && self.mux.has_said_all()
        };
        if emptied {
            let action = self.life.emptied(now, &mut self.mux.base.timers);
            self.act(action);
        }
    }

    /// The final GOAWAY is in the batch.
    pub(crate) fn said(&mut self) {
        let action = self.life.said();
        self.act(action);
    }

    // ---- streams of the peer ------------------------------------------------------------------

    /// A stream was refused; it is one of those counted by the drain.
    pub(crate) fn count_refused(&mut self) {
        if self.life.was_asked_to_drain() {
            self.mux.base.app.add(Count::ShutdownRefused, 1);
        }
    }

    /// Refuses the peer's streams that no application has accepted.
    pub(crate) fn refuse_all_unaccepted(&mut self) {
        super::session::calls::refuse_unaccepted_calls(self);
        while let Some(key) = self.mux.base.app.take_unaccepted() {
            let Some(key) = key.map(Key::from_bits) else {
                continue;
            };
            if self.mux.refuse_unaccepted(key, codes::UNAVAILABLE) {
                self.count_refused();
            }
        }
    }
}

#[cold]
fn end_by_limit<S: SessionPort>(core: &mut Core<S>) {
    if let Some(exceeded) = core.mux.limits.take_tripped()
        && !core.life.is_ending()
    {
        core.mux.base.app.trip(exceeded.limit);
        core.end(SessionError::from(exceeded));
    }
}
