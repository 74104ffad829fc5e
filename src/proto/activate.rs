//! What handles want: their reasons, turned into protocol.

use std::time::Instant;

use super::connection::Connection;
use super::registry::Key;
use super::state::{Effect, Event, Sending};
use super::stream::{Opening, owed, wake};
use crate::error::{Side, StreamError};
use crate::frame::codes;
use crate::link::{Activated, Lane, RecvEnd, SendEnd, reason, request};
use crate::sync::Arc;

/// Reasons of few activations, see `act_on_rare`.
const RARE: u32 = reason::CHUNKS | reason::CREDIT | reason::URGENCY;
/// Reasons that come after SEND, see `act_on_late`.
const LATE: u32 = reason::MORE
    | reason::WRITTEN
    | reason::DEADLINE
    | reason::CANCEL
    | reason::STOP
    | reason::DROPPED;

impl Connection {
    /// Takes what handles have asked for since the last call.
    pub(crate) fn take_work(&mut self, now: Instant) {
        self.turn = now;
        self.begin_outbound_turn();
        // Taken first and acted on last: a stream opened before `close`, or before the last handle
        // was dropped, is on the list by then.
        let requests = std::mem::take(&mut self.asked) | self.link.take_requests();
        if self.life.is_closed() {
            // What was asked too late is taken all the same, so that it keeps no driver awake.
            return;
        }
        if self.link.has_ready() {
            self.activate_all(now);
        }
        if requests != 0 {
            self.on_requests(requests, now);
        }
        self.serve_waiting();
        self.close_if_unused(now);
        self.link.counters.turns.add(1);
    }

    fn activate_all(&mut self, now: Instant) {
        let mut activations = 0;
        for lane in self.link.take_ready() {
            activations += 1;
            self.activate(lane, now);
        }
        self.link.counters.activations.add(activations);
    }

    fn on_requests(&mut self, requests: u32, now: Instant) {
        if requests & request::PING != 0 {
            // Whoever asks while one is under way is served by its answer.
            self.ping.wanted |= self.ping.in_flight.is_none();
        }
        if requests & request::EVICT != 0 {
            self.trip_half_open();
        }
        if requests & request::SHUTDOWN != 0 {
            self.drain(self.link.drain.grace(), now);
        }
        if requests & request::CLOSE != 0 {
            self.close(now);
        }
        if requests & request::ORPHANED != 0 {
            self.on_orphaned(now);
        }
    }

    fn activate(&mut self, lane: Arc<Lane>, now: Instant) {
        let (lane, reasons) = lane.activated();
        let key = match lane {
            Activated::New(side) => self.register_local(side, now),
            Activated::Known(lane) => {
                if reasons & reason::GREW != 0 {
                    self.note_loan(&lane);
                }
                lane.key().map(Key::from_bits)
            }
        };
        let Some(key) = key else { return };
        if reasons & RARE != 0 {
            self.act_on_rare(key, reasons, now);
        }
        if reasons & (reason::SEND | reason::ROOM) != 0 {
            self.on_send(key, reasons);
        }
        if reasons & LATE != 0 {
            self.act_on_late(key, reasons);
        }
    }

    /// What is acted on before what is to be sent.
    fn act_on_rare(&mut self, key: Key, reasons: u32, now: Instant) {
        if reasons & reason::CHUNKS != 0 {
            self.switch_chunks(key);
        }
        if reasons & (reason::CREDIT | reason::CHUNKS) != 0 {
            self.release_open_charge(key);
            self.feed_assembly(key, now);
            self.watch_ring(key, now);
        }
        if reasons & reason::URGENCY != 0
            && let Some(stream) = self.registry.get_mut(key)
        {
            let urgency = stream.lane().urgency();
            self.schedule.change_urgency(key, stream, urgency);
        }
    }

    /// What is acted on after what is to be sent.
    fn act_on_late(&mut self, key: Key, reasons: u32) {
        if reasons & reason::MORE != 0 {
            self.ask_for_more(key);
        }
        if reasons & reason::WRITTEN != 0 {
            self.on_written_asked(key);
        }
        if reasons & reason::DEADLINE != 0 {
            self.on_deadline_set(key);
        }
        if reasons & reason::CANCEL != 0 {
            self.cancel_local(key, Lane::cancel_code);
        }
        if reasons & reason::STOP != 0 {
            self.stop_local(key, Lane::stop_code);
        }
        if reasons & reason::DROPPED != 0 {
            if let Some(stream) = self.registry.get_mut(key) {
                stream.dropped = true;
            }
            self.remove_if_done(key);
        }
    }

    fn on_send(&mut self, key: Key, reasons: u32) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.state.sending != Sending::Open {
            if let Some(code) = Self::discard_before_error(&mut self.outbound, stream) {
                // The STOP of the peer was answered when it was queued: no ERROR can follow, but what it says
                // for the other direction holds.
                Self::discard_queued(&mut self.outbound, stream);
                self.stop_local(key, |_| code);
            }
            return;
        }
        if reasons & reason::ROOM != 0 {
            if std::mem::take(&mut stream.made_room) {
                Self::notify(&mut self.wakes, key, stream, wake::SENDER);
            } else {
                stream.wants_room = true;
            }
        }
        if stream.opening == Opening::Done {
            self.schedule.enter(key, stream);
        }
    }

    /// The answer follows when the ring is empty and the batch that emptied it is written.
    fn on_written_asked(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        let taken = stream.lane().take_receipt();
        if taken && !std::mem::replace(&mut stream.listed_unwritten, true) {
            self.unwritten.push(key);
        }
    }

    /// The receiver takes pieces from now on, also those of a message that is under way; or whole messages again.
    fn switch_chunks(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        stream.chunks = stream.lane().takes_chunks();
        if stream.chunks {
            stream.rx.publish();
            Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
        }
    }

    /// With the code that the lane says.
    pub(super) fn cancel_local(&mut self, key: Key, code: impl FnOnce(&Lane) -> u32) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.state.is_over() {
            return;
        }
        let code = code(stream.lane());
        let error = StreamError::Cancelled {
            by: Side::This,
            code,
        };
        stream.lane().end_send(SendEnd::Error(error.clone()));
        stream.lane().end_recv(RecvEnd::Discard(error));
        self.cancel_stream(key, code, Event::LocalCancel);
        self.remove_if_done(key);
    }

    /// With the code that the lane says.
    fn stop_local(&mut self, key: Key, code: impl FnOnce(&Lane) -> u32) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.state.on(Event::LocalStop) != Effect::Act {
            return;
        }
        let code = code(stream.lane());
        stream.owed_code = code;
        stream
            .lane()
            .end_recv(RecvEnd::Discard(StreamError::Cancelled {
                by: Side::This,
                code,
            }));
        stream.owes &= !owed::WINDOW;
        // A STOP would overtake an ERROR that is queued, and the peer would not hear the reason.
        let error_follows = stream.state.sending == Sending::Open && stream.lane().failing();
        if !error_follows {
            Self::owe(&mut self.owing, key, stream, owed::STOP);
        }
        Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
        self.discard_received(key);
        if error_follows && let Some(stream) = self.registry.get_mut(key) {
            Self::keep_stopped_stream_moving(&mut self.owing, key, stream);
        }
    }

    /// A stream of the peer that no application will take.
    pub(super) fn refuse_unaccepted(&mut self, key: Key) {
        if let Some(stream) = self.registry.get_mut(key) {
            stream.dropped = true;
            if !stream.state.is_over() {
                self.count_refused();
            }
        }
        self.cancel_local(key, |_| codes::UNAVAILABLE);
        self.remove_if_done(key);
    }

    /// Gives a stream's place back once neither wire nor application needs it.
    pub(super) fn remove_if_done(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if !stream.is_done() {
            return;
        }
        self.discard_received(key);
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.lane().ended_in_order() {
            self.link.counters.finished.add(1);
        }
        let has_deadline = stream.lane().deadline().is_some();
        self.outbound.end(stream);
        self.widened -= u64::from(stream.widened);
        let (id, opening) = (stream.id, stream.opening);
        let (open_charge, lingering) = (stream.open_charge, stream.lingering);
        if let Some((tx, rx)) = self.registry.remove(key) {
            self.link.recycle(tx, rx);
        }
        if open_charge > 0 {
            self.return_to_session(open_charge.into());
        }
        self.pool.give(lingering.into());
        self.link.counters.streams.set(self.registry.len() as u64);
        match id {
            Some(id) if id.is_opened_by(self.role.peer()) => self.grant_owed += 1,
            None if opening == Opening::Granted => self.on_streams_granted(1),
            _ => {}
        }
        self.spares.kept(&mut self.timers, self.turn);
        if has_deadline {
            self.set_deadline_timer();
        }
    }
}
