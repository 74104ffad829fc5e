//! The streams of one session and their shared state: actions of their applications, actions of the peer, and
//! frames to send.
//!
//! [`Mux`] joins the parts: each keeps its own accounts (`flow`, `budget`, `schedule`, `permits`, `limits`), and a step that
//! concerns several of them is a method here. `apply` has the actions of applications, `incoming` those of the peer,
//! `outgoing` the frames that a wire takes to send. `caller` has unary calls of this side, `handler` those of the peer.

mod apply;
pub(crate) mod caller;
pub(crate) mod handler;
mod incoming;
mod outgoing;

use std::time::Instant;

pub(crate) use incoming::{Incoming, Piece};
pub(crate) use outgoing::{May, Sent};

use super::base::Base;
use super::budget::SendBudget;
use super::deadlines::Deadlines;
use super::flow::{Exceeded, Flow, Victim, recheck_soon};
use super::idle::{Grown, Spares};
use super::limits::Limits;
use super::permits::Permits;
use super::pool::Share;
use super::port::{Count, RecvEnd, SendEnd, SessionPort, StreamPort};
use super::receipts::Receipts;
use super::schedule::Schedule;
use super::state::{Effect, Event};
use super::stream::{Opening, owed, wake};
use super::streams::Key;
use super::terms::Terms;
use super::window::SessionCredit;
use crate::config::Config;
use crate::error::{Limit, LimitExceeded, SessionError, StreamError, codes};

/// See the module.
#[derive(Debug)]
pub(crate) struct Mux<S: SessionPort> {
    pub(crate) base: Base<S>,
    pub(crate) flow: Flow<S::Memory>,
    pub(crate) grown: Grown,
    pub(crate) spares: Spares,
    pub(crate) deadlines: Deadlines,
    pub(crate) permits: Permits,
    pub(crate) limits: Limits,
    pub(crate) schedule: Schedule,
    pub(crate) budget: SendBudget,
    pub(crate) receipts: Receipts,
    /// The send credit of all streams together.
    pub(crate) credit: SessionCredit,
    /// The initial send credit of a stream.
    stream_credit: u32,
}

impl<S: SessionPort> Mux<S> {
    /// With a window of `window` bytes, taken from the `pool`.
    pub(crate) fn new(
        app: S,
        config: &Config,
        terms: Terms,
        (pool, window): (Share<S::Memory>, u32),
        seed: u64,
        now: Instant,
    ) -> Self {
        let (stream_credit, credit) = if terms.credit {
            (terms.floors.stream_window, terms.floors.session_window)
        } else {
            (u32::MAX, u32::MAX)
        };
        Self {
            limits: Limits::new(config, &app, now),
            base: Base::new(app, config, terms, seed, now),
            flow: Flow::new(pool, terms.credit, window, config.session_window(), now),
            grown: Grown::default(),
            spares: Spares::default(),
            deadlines: Deadlines::default(),
            permits: Permits::new(config.max_streams()),
            schedule: Schedule::default(),
            budget: SendBudget::default(),
            receipts: Receipts::default(),
            credit: SessionCredit::new(credit),
            stream_credit,
        }
    }

    // ---- ends of streams --------------------------------------------------------------------

    /// A limit of this side ends a stream.
    #[cold]
    pub(crate) fn exceed(&mut self, Exceeded { key, limit, value }: Exceeded) {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return;
        };
        let error = StreamError::LimitExceeded(LimitExceeded { limit, value });
        stream.port.end_send(SendEnd::Error(error.clone()));
        stream.port.end_recv(match limit {
            Limit::StalledStream => RecvEnd::Discard(error),
            _ => RecvEnd::Error(error),
        });
        self.base.app.trip(limit);
        // A stream that is never accepted is never dropped by a handle either.
        let charge = std::mem::take(&mut stream.open_charge);
        self.flow.return_to_session(&self.base, charge.into());
        self.cancel_stream(key, codes::LIMIT_EXCEEDED, Event::LocalCancel);
        self.limits.charge_fault(&self.base.config, limit);
        if limit == Limit::StalledStream {
            // A stream over on the wire is not cancelled any more; its memory is returned all the same.
            self.flow.discard_received(&mut self.base, key);
        }
    }

    /// Ends both directions of a stream; the peer gets a CANCEL unless it ended the stream itself or never heard
    /// of it. The caller has set the application's ends.
    pub(crate) fn cancel_stream(&mut self, key: Key, code: u32, event: Event) {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return;
        };
        if stream.state.on(event) != Effect::Act {
            return;
        }
        self.base.app.add(Count::Cancelled, 1);
        let of_peer = stream.of_peer();
        stream.owes = 0;
        stream.owed_code = code;
        if event == Event::LocalCancel && stream.opening.is_done() {
            self.base.owing.owe(key, stream, owed::CANCEL);
        }
        (self.base.wakes).notify(key, stream, wake::SENDER | wake::RECEIVER);
        self.budget.discard_queued(stream);
        // The peer never hears of it, so its permission is for another stream, however long the application keeps the handles.
        let unused = stream.opening == Opening::Granted && stream.id == 0;
        if unused {
            stream.opening = Opening::Waiting;
        }
        self.flow.discard_received(&mut self.base, key);
        if unused {
            self.permits.on_granted(&mut self.base, 1);
        }
        if of_peer {
            self.limits.charge_reset(self.base.turn);
        }
    }

    /// Frees a stream's slot once neither wire nor application needs it.
    #[inline]
    pub(crate) fn remove_if_done(&mut self, key: Key) {
        let stream = self.base.streams.get_mut(key);
        if stream.is_some_and(|stream| stream.is_done()) {
            self.remove(key);
        }
    }

    #[inline(never)]
    fn remove(&mut self, key: Key) {
        let stream = self.base.streams.at(key);
        if stream.port.ended_in_order() {
            self.base.app.add(Count::Finished, 1);
        }
        let has_deadline = stream.port.deadline().is_some();
        self.budget.end(stream);
        let held = self.flow.forget(stream);
        let (id, opening) = (stream.id, stream.opening);
        if let Some(port) = self.base.streams.remove(key, id) {
            self.base.app.recycle(port);
        }
        if held > 0 {
            self.flow.return_to_session(&self.base, held);
        }
        self.base.count_streams();
        self.permits.forget(&mut self.base, id, opening);
        self.spares.kept(&mut self.base.timers, self.base.turn);
        if has_deadline {
            self.deadlines.set_timer(&mut self.base);
        }
    }

    /// Ends both directions of each stream that `lost` selects, and that the peer never heard of, or does not process.
    pub(crate) fn lose(
        &mut self,
        error: &SessionError,
        mut lost: impl FnMut(Option<u32>, bool) -> bool,
    ) {
        let streams = self.base.streams.iter_mut();
        let lost: Vec<Key> = streams
            .filter(|(_, stream)| lost(Some(stream.id).filter(|id| *id != 0), stream.of_peer()))
            .map(|(key, _)| key)
            .collect();
        for key in lost {
            self.base
                .streams
                .at(key)
                .end_both(&StreamError::NotProcessed(error.clone()));
            self.cancel_stream(key, 0, Event::RecvCancel);
            self.remove_if_done(key);
        }
    }

    /// No message is queued any more, also none that waits for credit.
    pub(crate) fn has_nothing_queued(&mut self) -> bool {
        let queues_are_empty = self.schedule.is_empty()
            && self.permits.opens.is_empty()
            && self.base.owing.is_empty()
            && !self.base.calls.has_frames();
        queues_are_empty && !self.base.streams.iter_mut().any(|(_, it)| it.has_queued())
    }

    /// All frames that streams and calls owed were sent.
    pub(crate) fn has_said_all(&mut self) -> bool {
        let queues_are_empty = self.schedule.is_empty()
            && self.permits.opens.is_empty()
            && self.base.owing.is_empty()
            && self.permits.refusals.is_empty()
            && !self.base.wire_owes;
        queues_are_empty && self.base.streams.are_over() && self.base.calls.are_over()
    }

    /// The session has ended: ends all streams.
    pub(crate) fn end(&mut self, error: &SessionError) {
        self.base.app.close(error);
        self.base.app.set(Count::BytesHeld, 0);
        for (_, stream) in self.base.streams.iter_mut() {
            let error = match stream.opening {
                Opening::Sent | Opening::Received => StreamError::Session(error.clone()),
                Opening::Waiting | Opening::Granted => StreamError::NotProcessed(error.clone()),
            };
            // Before the end is set: a receiver that sees the end returns the charge.
            let queued = stream.put_in_order();
            stream.port.keep_charge(queued);
            stream.end_both(&error);
            stream.forget_queued();
        }
        handler::end_calls(&mut self.base, error);
        self.base.streams.clear();
        self.budget = SendBudget::default();
        self.receipts = Receipts::default();
        self.base.app.set(Count::Streams, 0);
        self.flow.end();
        self.base.app.closed();
    }

    // ---- time -------------------------------------------------------------------------------

    /// Checks the progress of messages that were given memory.
    pub(crate) fn check_advances(&mut self, now: Instant) {
        if let Some(exceeded) = self.flow.check_advances(&mut self.base, now) {
            self.exceed(exceeded);
        }
    }

    /// Streams wait for memory, or the session is nearly full: checks them again.
    pub(crate) fn recheck_memory(&mut self, now: Instant) {
        if self.flow.hungry {
            self.flow.account_all(&mut self.base, now);
            handler::release_taken_calls(self);
        }
        self.watch_window(now);
        if self.flow.hungry && self.base.calls.charged > 0 {
            // Handlers do not report that they take calls. Set last: while the timer is set, the window is not relieved.
            recheck_soon(&mut self.base, now);
        }
        for _ in 0..self.flow.starved.len() {
            let Some(key) = self.flow.next_starved(&mut self.base) else {
                break;
            };
            self.feed(key, now);
        }
    }

    /// Whether reading must stop: a peer without credit has sent as many bytes as the session may hold.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        if self.base.terms.credit {
            return false;
        }
        for _ in 0..=self.base.streams.len() {
            match self.flow.may_read(&mut self.base, now) {
                Ok(may) => return !may,
                Err(exceeded) => self.exceed(exceeded),
            }
        }
        true
    }

    /// The session's window has shrunk.
    #[inline(always)]
    pub(crate) fn watch_window(&mut self, now: Instant) {
        if !self.flow.has_plenty_of_window(&self.base) {
            watch_scarce_window(self, now);
        }
    }

    /// See [`Flow::feed_assembly`].
    fn feed(&mut self, key: Key, now: Instant) {
        if let Some(exceeded) = self.flow.feed_assembly(&mut self.base, key, now) {
            self.exceed(exceeded);
        }
    }
}

#[inline(never)]
fn watch_scarce_window<S: SessionPort>(mux: &mut Mux<S>, now: Instant) {
    match mux.flow.watch_session_window(&mut mux.base, now) {
        Some(Victim::Stream(exceeded)) => mux.exceed(exceeded),
        Some(Victim::Call) => handler::refuse_oldest_call(mux),
        None => {}
    }
}

/// Lengths of the queues of keys: none may grow with the number of streams that have gone.
#[cfg(test)]
pub(crate) fn queue_lengths<S: SessionPort>(mux: &Mux<S>) -> [usize; 6] {
    [
        mux.schedule.len(),
        mux.permits.opens.len(),
        mux.permits.waiting.len(),
        mux.base.owing.len(),
        mux.flow.starved.len(),
        mux.base.wakes.len(),
    ]
}
