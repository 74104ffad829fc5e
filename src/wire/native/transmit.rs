//! Encodes all frames that may be sent now, into one batch.
//!
//! Order: preface and SETTINGS; frames that the session owes; frames that streams owe; OPENs; answers and calls, and where they are many
//! in turn; then messages, by urgency and in turns of 16 KiB. Nothing is delayed to fill a batch: it is built when the previous one has been written,
//! from the frames available.

use std::time::Instant;

use super::Native;
use super::frame::{
    CALL_PREFIX_LEN, CALLS_FRAME_LEN, CANCEL_FRAME_LEN, FRAME_COST, GOAWAY_FRAME_LEN, HEADER_LEN,
    MAX_ERROR_DETAILS, MAX_ERROR_MESSAGE, MAX_GOAWAY_DEBUG, PING_FRAME_LEN, Scope, StreamId,
    WINDOW_FRAME_LEN, call_head, cost, data_header, open_header, put_calls, put_cancel, put_error,
    put_goaway, put_ping, put_window, reply_header,
};
use super::sender::Sender;
use crate::core::mux::{caller, handler};
use crate::core::{Core, Goaway, May, Mux, Sent, SessionPort, failure};
use crate::error::codes;
use crate::wire::Batch;

/// Room for any control frame, in bytes.
const CONTROL_ROOM: usize = 64;
/// Room for the final GOAWAY, in bytes.
const FINAL_GOAWAY_ROOM: usize = 64 + MAX_GOAWAY_DEBUG as usize;

/// Room for any ERROR, in bytes.
const ERROR_ROOM: usize = HEADER_LEN + 6 + (MAX_ERROR_MESSAGE + MAX_ERROR_DETAILS) as usize;
/// Bytes of a batch that calls may take while streams have messages to send.
const CALLS_SHARE: usize = 32 * 1024;

/// Puts a control frame of at most `most` bytes into the batch.
fn control<S: SessionPort>(
    mux: &mut Mux<S>,
    batch: &mut Batch,
    most: usize,
    put: impl FnOnce(&mut &mut [u8]),
) {
    batch.head().put_with(most, put);
    mux.base.count_sent(1);
}

impl Native {
    pub(super) fn fill<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        batch: &mut Batch,
        now: Instant,
    ) {
        if !self.hello.is_empty() {
            batch.head().extend_from_slice(&self.hello);
            self.hello = bytes::BytesMut::new();
        }
        if core.begin_batch(now) {
            self.put_session_control(core, batch, now);
            put_stream_control(core, batch, now);
            self.put_opens_and_messages(&mut core.mux, batch);
            core.end_messages(now);
        }
        self.put_final_goaway(core, batch);
    }

    /// The usual batch: OPENs, messages, and ends.
    pub(super) fn fill_with_messages<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        batch: &mut Batch,
        now: Instant,
    ) {
        if core.ping.is_wanted() {
            self.put_session_control(core, batch, now);
        }
        self.put_opens_and_messages(&mut core.mux, batch);
    }

    #[inline]
    fn put_opens_and_messages<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch) {
        let opened = mux.permits.front().is_none() || self.put_opens(mux, batch);
        let called = !mux.base.calls.may_have_frames() || self.put_calls(mux, batch, opened);
        let may = match opened && called {
            true => May::SendAll,
            // OPENs, calls and their answers have waited longer.
            false => May::EndOnly,
        };
        self.put_messages(mux, batch, may);
    }

    fn put_session_control<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        batch: &mut Batch,
        now: Instant,
    ) {
        if let Some(goaway) = core.next_goaway(now) {
            let (last, soon) = match goaway {
                Goaway::Soon => (None, true),
                Goaway::LastId => (self.last_peer_id, false),
            };
            control(&mut core.mux, batch, GOAWAY_FRAME_LEN, |dst| {
                put_goaway(dst, last, codes::SHUTDOWN, "", soon);
            });
        }
        if let Some(opaque) = self.pong_owed.take() {
            control(&mut core.mux, batch, PING_FRAME_LEN, |dst| {
                put_ping(dst, opaque, true);
            });
        }
        if let Some(number) = core.next_ping(now) {
            control(&mut core.mux, batch, PING_FRAME_LEN, |dst| {
                put_ping(dst, number.to_le_bytes(), false);
            });
            core.keepalive.place_ping(batch.head().len());
        }
        let rtt = core.ping.rtt();
        if let Some(credit) = core.mux.session_window(rtt, now) {
            control(&mut core.mux, batch, WINDOW_FRAME_LEN, |dst| {
                put_window(dst, Scope::Session, credit);
            });
        }
        let max_streams = core.mux.base.config.max_streams();
        if let Some(streams) = core.mux.permits.take_grant(max_streams) {
            control(&mut core.mux, batch, WINDOW_FRAME_LEN, |dst| {
                put_window(dst, Scope::Streams, streams);
            });
        }
        if core.life.is_established()
            && let Some(takes) = core.mux.base.take_announcement()
        {
            control(&mut core.mux, batch, CALLS_FRAME_LEN, |dst| {
                put_calls(dst, takes);
            });
        }
        while batch.room() >= CONTROL_ROOM {
            let Some(id) = core.mux.permits.next_refusal() else {
                break;
            };
            if let Some(id) = StreamId::new(id) {
                control(&mut core.mux, batch, CANCEL_FRAME_LEN, |dst| {
                    put_cancel(dst, id, codes::UNAVAILABLE, false);
                });
            }
        }
    }

    /// Encodes the OPEN of permitted streams; false if the batch or the session's credit is used up.
    #[inline(never)]
    fn put_opens<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch) -> bool {
        while mux.permits.front().is_some() {
            let credit = mux.credit.left();
            let Some((key, block)) = mux.next_opening() else {
                return true;
            };
            let cost = cost(block.len() as u32);
            if cost > credit || batch.room() < HEADER_LEN + block.len() {
                mux.permits.hold(&mut mux.base);
                return false;
            }
            let id = self.next_id;
            let header = open_header(id, block.len(), false);
            batch.head().put_frame(header, block);
            mux.opened(key, id.get(), cost);
            self.advance_id(mux);
        }
        true
    }

    /// Encodes the frames of calls; false if the batch or the session's credit is used up. Ends of calls cost no credit. Of
    /// a batch in which streams have messages too, calls get [`CALLS_SHARE`]. While some are left behind, answers and then calls
    /// have the first choice of room and credit in turn, so that neither waits for the end of the other; a turn without credit goes on.
    #[inline(never)]
    fn put_calls<S: SessionPort>(
        &mut self,
        mux: &mut Mux<S>,
        batch: &mut Batch,
        opened: bool,
    ) -> bool {
        put_call_ends(mux, batch);
        let share = match mux.schedule.is_empty() {
            true => 0,
            false => batch.room().saturating_sub(CALLS_SHARE),
        };
        let before = batch.len();
        let all = opened
            && (self.calls_alone || put_replies(mux, batch, share))
            && self.put_requests(mux, batch, share);
        match mux.base.calls.has_frames() {
            true => self.take_turns(mux, batch, before, all),
            false => {
                self.calls_alone = false;
                all
            }
        }
    }

    /// Calls, or answers, are left that the next batch begins with.
    #[cold]
    fn take_turns<S: SessionPort>(
        &mut self,
        mux: &mut Mux<S>,
        batch: &mut Batch,
        before: usize,
        all: bool,
    ) -> bool {
        if batch.len() > before {
            self.calls_alone = !self.calls_alone;
        } else if self.calls_alone && all {
            // There was none.
            self.calls_alone = false;
            return self.put_calls(mux, batch, true);
        }
        all
    }

    fn put_requests<S: SessionPort>(
        &mut self,
        mux: &mut Mux<S>,
        batch: &mut Batch,
        share: usize,
    ) -> bool {
        let mut calls = 0;
        let all = loop {
            let credit = mux.credit.left();
            let Some((opening, request)) = caller::next_call(mux) else {
                break true;
            };
            let len = CALL_PREFIX_LEN + opening.len() + request.len();
            let (cost, room) = (cost(len as u32), batch.room());
            if cost > credit || room < HEADER_LEN + len {
                break false;
            }
            if room <= share {
                break true;
            }
            let id = self.next_id;
            let head = call_head(id, opening.len(), request.len());
            batch.head().put_frame(head, opening);
            batch.head().extend_from_slice(request);
            caller::call_sent(mux, id.get(), cost);
            self.advance_id(mux);
            calls += 1;
        };
        caller::calls_sent(mux, calls);
        all
    }

    /// Ids wrap, and those still in use are skipped (RFC 1982).
    #[inline]
    fn advance_id<S: SessionPort>(&mut self, mux: &Mux<S>) {
        let next = self.next_id.next();
        self.wrapped |= next.get() < self.next_id.get();
        self.next_id = match self.wrapped {
            true => unused_id(mux, next),
            false => next,
        };
    }

    #[inline(never)]
    fn put_messages<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch, may: May) {
        // Usually there is one.
        while !mux.schedule.is_empty() {
            if batch.room() <= CONTROL_ROOM || !self.put_turn(mux, batch, may) {
                // The remaining keys are not popped for now.
                return mux.schedule.prune(&mut mux.base.streams);
            }
        }
    }

    /// The turn of one stream; false if nothing more goes into the batch.
    #[inline]
    fn put_turn<S: SessionPort>(&self, mux: &mut Mux<S>, batch: &mut Batch, may: May) -> bool {
        let max_frame = self.peer_max_frame;
        let before = batch.len();
        let more = mux.take_turn(may, |id, stream, credit| {
            let Some(id) = StreamId::new(id) else {
                // Not reached: a stream has its id before its first turn.
                return Sent::NOTHING;
            };
            let mut sender = Sender {
                stream,
                id,
                credit,
                max_frame,
                frames: 0,
                messages: 0,
            };
            let turn = sender.turn(batch);
            Sent {
                turn,
                frames: sender.frames,
                messages: sender.messages,
                bytes: batch.len() - before,
            }
        });
        more == Some(true)
    }

    fn put_final_goaway<S: SessionPort>(&self, core: &mut Core<S>, batch: &mut Batch) {
        if batch.room() < FINAL_GOAWAY_ROOM {
            return;
        }
        let Some((code, text)) = core.life.final_word() else {
            return;
        };
        control(&mut core.mux, batch, FINAL_GOAWAY_ROOM, |dst| {
            put_goaway(dst, self.last_peer_id, code, &text, false);
        });
        core.said();
    }
}

/// This id, or the next one that is not in use.
#[cold]
fn unused_id<S: SessionPort>(mux: &Mux<S>, mut next: StreamId) -> StreamId {
    while mux.base.streams.find(next.get()).is_some() || mux.base.calls.has(next.get()) {
        next = next.next();
    }
    next
}

/// Encodes the answers of calls; false if the batch or the session's credit is used up.
fn put_replies<S: SessionPort>(mux: &mut Mux<S>, batch: &mut Batch, share: usize) -> bool {
    let mut replies = 0;
    let all = loop {
        let credit = mux.credit.left();
        let Some((id, answer)) = handler::next_reply(mux) else {
            break true;
        };
        let Some(id) = StreamId::new(id) else {
            // Not reached: a call of the peer has its id.
            break false;
        };
        let len = HEADER_LEN + answer.len();
        let (cost, room) = (cost(answer.len() as u32), batch.room());
        if cost > credit || room < len {
            break false;
        }
        if room <= share {
            break true;
        }
        let header = reply_header(id, answer.len());
        batch.head().put_frame(header, answer);
        handler::reply_sent(mux, cost);
        replies += 1;
    };
    handler::replies_sent(mux, replies);
    all
}

/// Encodes ERRORs and CANCELs of calls.
fn put_call_ends<S: SessionPort>(mux: &mut Mux<S>, batch: &mut Batch) {
    while batch.room() >= ERROR_ROOM {
        let Some((id, record)) = handler::next_failure(mux) else {
            break;
        };
        let (code, message, details) = failure::decode(record);
        if let Some(id) = StreamId::new(id) {
            batch.head().put_with(ERROR_ROOM, |dst| {
                put_error(dst, id, code, message, details);
            });
        }
        handler::failure_sent(mux);
    }
    while batch.room() >= CONTROL_ROOM {
        let Some((id, code)) = handler::next_call_cancel(mux) else {
            return;
        };
        if let Some(id) = StreamId::new(id) {
            control(mux, batch, CANCEL_FRAME_LEN, |dst| {
                put_cancel(dst, id, code, false);
            });
        }
    }
}

fn put_stream_control<S: SessionPort>(core: &mut Core<S>, batch: &mut Batch, now: Instant) {
    let rtt = core.ping.rtt();
    let mux = &mut core.mux;
    while batch.room() >= CONTROL_ROOM {
        let Some(owed) = mux.base.next_owed() else {
            return;
        };
        let Some(id) = StreamId::new(owed.id) else {
            continue;
        };
        let (key, code) = (owed.key, owed.code);
        if owed.cancel {
            control(mux, batch, CANCEL_FRAME_LEN, |dst| {
                put_cancel(dst, id, code, false);
            });
            mux.remove_if_done(key);
            continue;
        }
        if owed.stop {
            control(mux, batch, CANCEL_FRAME_LEN, |dst| {
                put_cancel(dst, id, code, true);
            });
        }
        if owed.fin {
            batch
                .head()
                .extend_from_slice(&data_header(0, false, true, id));
            mux.base.count_sent(1);
        }
        if owed.window
            && let Some(credit) = mux.flow.give_stream_back(&mut mux.base, key, rtt, now)
        {
            control(mux, batch, WINDOW_FRAME_LEN, |dst| {
                put_window(dst, Scope::Stream(id), credit);
            });
        }
        mux.remove_if_done(key);
    }
}
