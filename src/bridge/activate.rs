//! Requests of handles: turns the reasons of lanes into steps of the core.

use std::time::Instant;

use super::asked;
use super::engine::Engine;
use super::port::LanePort;
use super::reason;
use super::session::calls::{
    Back, CallActivated as Activation, CallCell, CallLink, CallSent, Ended,
};
use super::session::lane::Lane;
use super::session::request;
use super::session::sides::Activated;
use crate::core::calls::Answer;
use crate::core::mux::{caller, handler};
use crate::core::port::{Count, SessionPort};
use crate::core::session_calls;
use crate::core::{Key, SEND_FLOOR};
use crate::error::{SessionError, codes};
use crate::sync::Arc;
use crate::wire::Wire;

/// Reasons of few activations, see `act_on_rare`.
const RARE: u32 = reason::CHUNKS | reason::CREDIT | reason::URGENCY;
/// Reasons of few activations that are handled after SEND, see `act_on_late`.
const LATE: u32 = reason::MORE | reason::WRITTEN | reason::DEADLINE | reason::CANCEL | reason::STOP;

impl<W: Wire> Engine<W> {
    /// Handles the requests made since the last call.
    #[inline]
    pub(super) fn take_all(&mut self, now: Instant) {
        // Taken first and handled last: a stream opened before `close`, or before the last handle was dropped, is then already
        // on the list.
        let requests = self.core.mux.base.app.take_requests();
        if !self.core.begin_turn(now) {
            // Requests that are too late are taken all the same, so that they keep no driver awake.
            return;
        }
        if self.link.has_ready() {
            self.activate_all(now);
        }
        if self.link.calls.has_ready() {
            self.activate_calls(now);
        }
        if requests != 0 {
            self.on_requests(requests, now);
        }
        self.core.end_turn(now);
    }

    fn activate_all(&mut self, now: Instant) {
        let mut activations = 0;
        for lane in self.link.take_ready() {
            activations += 1;
            self.activate(lane, now);
        }
        (self.core.mux.base.app).add(Count::Activations, activations);
    }

    #[inline(never)]
    fn activate_calls(&mut self, now: Instant) {
        let mut activations = 0;
        for node in self.link.calls.take_ready() {
            activations += 1;
            match CallCell::activated(node) {
                Activation::Asked(call, None) => session_calls::start_call(&mut self.core, call),
                Activation::Asked(call, Some(_)) => {
                    // Given up before the engine heard of it.
                    let app = &mut self.core.mux.base.app;
                    app.recycle_call(call);
                    caller::give_permission_back(&mut self.core.mux);
                }
                Activation::Answered(Some(key), sent) => self.answer_call(key as u32, sent, now),
                Activation::Cancelled(None, _, Some(Back::Answer(answer, _))) => {
                    self.link.calls.answer_read(&self.link, &answer);
                }
                Activation::Cancelled(Some(key), code, _) => {
                    caller::cancel_call(&mut self.core.mux, key as u32, code);
                }
                Activation::Cancelled(None, code, Some(Back::Stream(side))) => {
                    side.abandon(code);
                }
                // Over meanwhile, with the session.
                Activation::Answered(None, sent) => {
                    let reason = self.link.end().unwrap_or(&SessionError::EngineStopped);
                    CallLink::refuse_sent(sent, reason);
                }
                Activation::Cancelled(None, ..) => {}
            }
        }
        (self.core.mux.base.app).add(Count::Activations, activations);
        self.core.end_if_tripped();
    }

    /// A handler has let go of its call.
    fn answer_call(&mut self, slot: u32, sent: CallSent, now: Instant) {
        let mux = &mut self.core.mux;
        let Some(ended) = mux.base.calls.port_mut(slot).and_then(|port| {
            port.accept(sent);
            let out = port.out_mut()?;
            // So that the cell is not used again in place of another.
            Some(std::mem::replace(&mut out.end, Ended::Answered))
        }) else {
            return;
        };
        let answer = match ended {
            Ended::Answered => Answer::Reply,
            Ended::Failed => Answer::Failure,
            Ended::Dropped => Answer::Cancel(codes::CANCELLED),
            Ended::Stream(side) => {
                let key = handler::call_becomes_stream(mux, slot, LanePort::new(side), now);
                if let Some(key) = key {
                    // Messages may be queued already.
                    mux.on_queued(key, false);
                }
                return;
            }
        };
        handler::answer_call(mux, slot, answer);
    }

    fn on_requests(&mut self, requests: u32, now: Instant) {
        if requests & request::PING != 0 {
            // A caller that asks while one is under way gets its answer.
            self.core.ping.ask();
        }
        if requests & request::CALLS != 0 {
            session_calls::on_calls_taken(&mut self.core);
        }
        if requests & request::EVICT != 0 {
            self.core.trip_half_open();
        }
        if requests & request::SHUTDOWN != 0 {
            let grace = self.core.mux.base.app.shutdown_grace();
            self.core.drain(grace, now);
        }
        if requests & request::CLOSE != 0 {
            self.core.close(now);
        }
        if requests & request::ORPHANED != 0 {
            self.core.on_orphaned(now);
        }
    }

    fn activate(&mut self, lane: Arc<Lane>, now: Instant) {
        let (lane, reasons) = lane.activated();
        let key = match lane {
            Activated::New(side) => {
                // Not the link's reason, which `close` sets at once: streams opened before it are still sent.
                let refusal = self.core.life.refusal();
                if side.lane().asked.leave_waiting(asked::ENGINE) {
                    self.link.opens.end_pending();
                }
                let port = LanePort::new(side);
                let Some(key) = self.core.mux.insert_local(port, refusal, now) else {
                    return;
                };
                key
            }
            Activated::Known(lane) => {
                let mut key = self.find(&lane);
                if key.is_none() && self.link.calls.has_ready() {
                    // A call that goes on as a stream was pushed before its lane.
                    self.activate_calls(now);
                    key = self.find(&lane);
                }
                if reasons & reason::GREW != 0 {
                    self.on_grown(key, &lane);
                }
                let Some(key) = key else { return };
                key
            }
        };
        if reasons & RARE != 0 {
            self.act_on_rare(key, reasons, now);
        }
        if reasons & (reason::SEND | reason::ROOM) != 0 {
            (self.core.mux).on_queued(key, reasons & reason::ROOM != 0);
        }
        if reasons & LATE != 0 {
            self.act_on_late(key, reasons);
        }
        if reasons & reason::DROPPED != 0 {
            self.core.mux.on_dropped(key);
            self.core.end_if_tripped();
        }
    }

    /// Reasons that are handled before the queued messages are sent.
    #[cold]
    fn act_on_rare(&mut self, key: Key, reasons: u32, now: Instant) {
        let mux = &mut self.core.mux;
        if reasons & reason::CHUNKS != 0 {
            mux.base.switch_chunks(key);
        }
        if reasons & (reason::CREDIT | reason::CHUNKS) != 0 {
            mux.on_consumed(key, now);
        }
        if reasons & reason::URGENCY != 0 {
            mux.schedule.change_urgency(&mut mux.base.streams, key);
        }
        self.core.end_if_tripped();
    }

    /// Reasons that are handled after the queued messages are sent.
    #[cold]
    fn act_on_late(&mut self, key: Key, reasons: u32) {
        let mux = &mut self.core.mux;
        if reasons & reason::MORE != 0 {
            mux.budget.ask_for_more(&mut mux.base, key);
        }
        if reasons & reason::WRITTEN != 0 {
            mux.receipts.ask(&mut mux.base, key);
        }
        if reasons & reason::DEADLINE != 0 {
            mux.deadlines.on_set(&mut mux.base, key);
        }
        if reasons & reason::CANCEL != 0
            && let Some(stream) = mux.base.streams.get_mut(key)
        {
            let code = stream.port.lane().asked.cancel_code();
            mux.cancel(key, code);
        }
        if reasons & reason::STOP != 0
            && let Some(stream) = mux.base.streams.get_mut(key)
        {
            let code = stream.port.lane().asked.stop_code();
            mux.stop(key, code);
        }
        self.core.end_if_tripped();
    }

    /// The lane's stream, if it has one.
    fn find(&mut self, lane: &Lane) -> Option<Key> {
        let key = lane.key.key().map(Key::from_bits)?;
        self.core.mux.base.streams.get_mut(key)?;
        Some(key)
    }

    /// A sender has taken bytes of the budget itself.
    fn on_grown(&mut self, key: Option<Key>, lane: &Lane) {
        match key {
            Some(key) => {
                let mux = &mut self.core.mux;
                mux.budget.note_loan(&mut mux.base.streams, key);
            }
            None if lane.send_limit() > SEND_FLOOR => {
                let back = lane.lower_send_limit(SEND_FLOOR);
                self.core.mux.budget.give_back(back.into());
            }
            None => {}
        }
    }
}
