//! Decodes and applies received frames.
//!
//! A header is acted on as soon as it has arrived, once; the data follow in pieces of any size, so a frame may be longer than the
//! receive buffer. Data of messages go into the queue of the stream; those of openings and errors are put together, up to
//! a limit; all others are skipped.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::failure::{self, ERROR_MAX};
use super::frame::{Front, Header, Kind};
use super::line::{Line, core_id};
use super::setup::Invoked;
use super::{Drpc, TurnedAway, hold_more};
use crate::core::port::{RecvEnd, StreamPort};
use crate::core::state::Receiving;
use crate::core::stream::owed;
use crate::core::timers::Timer;
use crate::core::{Core, Exceeded, Incoming, Key, Piece, SessionPort, Violation};
use crate::drpc::{Calls, DrpcError, FlowControl, Varint};
use crate::error::{Failure, Limit, SessionError, Side, StreamError, codes};
use crate::wire::{Role, WAKES_MAX, WORK_MAX};

/// Data of a frame are taken when all have arrived, or this many bytes.
pub(super) const PIECE_MIN: usize = 16 * 1024;
/// Payloads from this size on are delivered by reference, if they are half of their buffer.
const SHARE_MIN: usize = 4096;
/// Space for headers in a buffer that two payloads fill.
const HEADERS_SLACK: usize = 64;
/// No frame is longer than this and the limit of a message: the longest that the settings allow.
const FRAME_MAX: u64 = 1 << 30;
/// The longest WindowUpdate: one number.
const UPDATE_MAX: usize = 10;
/// Streams that are refused and whose Error waits to be sent; more end the session.
const TURNED_AWAY_MAX: usize = 1024;
/// A stream's window, which this wire does not have, is renewed below this many bytes.
const RENEW: u64 = 1 << 28;
/// The work of a frame other than a message, in short frames.
const RARE_WORK: u64 = 4;

/// Where the data of a frame go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// Nowhere, and nothing follows from the frame.
    Ignore,
    /// Nowhere.
    Skip,
    /// Into the queue of the stream.
    Message,
    /// To those that are not complete, up to a limit.
    Error,
    Update,
    Setup,
}

/// A frame whose data is arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arriving {
    header: Header,
    /// Bytes of data that have not arrived.
    rest: u64,
    sink: Sink,
}

impl Drpc {
    pub(super) fn take_frames<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
        backing: usize,
        now: Instant,
    ) -> Result<bool, DrpcError> {
        if self.header_due && self.role == Role::Acceptor && !self.take_header(buf)? {
            return Ok(false);
        }
        renew(core, now);
        let (mut frames, mut work) = (0, 0);
        let mut at = 0;
        let mut more = false;
        while !core.life.is_ending() && at < buf.len() {
            more = core.mux.base.wakes.len() >= WAKES_MAX || work >= WORK_MAX;
            if more {
                break;
            }
            let Some(frame) = self.next_frame(core, &buf[at..])? else {
                break;
            };
            at += frame.skip;
            let Arriving { header, rest, sink } = frame.arriving;
            let have = buf.len() - at;
            let take = usize::try_from(rest).unwrap_or(usize::MAX).min(have);
            let drops = matches!(sink, Sink::Ignore | Sink::Skip);
            if (take as u64) < rest && take < PIECE_MIN && !drops {
                self.arriving = Some(frame.arriving);
                break;
            }
            let last = take as u64 == rest;
            let share = sink == Sink::Message && take >= SHARE_MIN;
            if share && take * 2 + HEADERS_SLACK >= backing {
                buf.advance(at);
                at = 0;
                let data = Incoming::Shared(buf.split_to(take).freeze());
                self.on_message(core, &header, data, last, now);
            } else {
                let data = &buf[at..at + take];
                at += take;
                self.on_data(core, &frame.arriving, data, last, now);
            }
            if last {
                frames += 1;
                work += if sink == Sink::Message { 1 } else { RARE_WORK };
            } else {
                let rest = rest - take as u64;
                self.arriving = Some(Arriving { header, rest, sink });
            }
            core.end_if_tripped();
        }
        buf.advance(at);
        core.mux.base.count_received(frames, work);
        self.prune(&mut core.mux);
        self.count_parts(&mut core.mux);
        Ok(more)
    }

    /// The frame whose data comes next; `None` until its header is complete.
    fn next_frame<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        bytes: &[u8],
    ) -> Result<Option<Next>, DrpcError> {
        if let Some(arriving) = self.arriving.take() {
            return Ok(Some(Next { arriving, skip: 0 }));
        }
        let (header, skip) = match Header::read(bytes) {
            Front::Header(header, len) => (header, len),
            Front::Part => return Ok(None),
            Front::TooLong => return Err(DrpcError::VarintTooLong),
        };
        let (length, limit) = (header.length, FRAME_MAX);
        if length > limit {
            return Err(DrpcError::FrameTooLong { length, limit });
        }
        let arriving = Arriving {
            sink: self.begin(core, &header),
            rest: length,
            header,
        };
        Ok(Some(Next { arriving, skip }))
    }

    // ---- the beginning of a frame -------------------------------------------------------------

    /// Decides where its data go.
    fn begin<S: SessionPort>(&mut self, core: &mut Core<S>, header: &Header) -> Sink {
        let id = header.stream;
        if header.kind == Kind::WindowUpdate {
            return self.begin_update(core, header);
        }
        if self.line(id).is_some()
            && let Some(key) = core.mux.base.streams.find(core_id(id))
        {
            return self.begin_on_stream(core, key, header);
        }
        let opens = matches!(header.kind, Kind::Invoke | Kind::InvokeMetadata);
        let may_open = match self.profile.calls {
            // Ids increase: a lower one is of a call that has ended.
            Calls::OneAtATime => id > self.ids.newest(),
            Calls::Many => !self.ids.is_used(id),
        };
        let known = self.setups.contains(id);
        if self.role == Role::Acceptor && id != 0 && (known || (opens && may_open)) {
            return self.begin_setup(core, header);
        }
        // Messages that crossed the end of their stream are no fault.
        if header.kind != Kind::Message || id == 0 || id > self.ids.newest() {
            charge_unsolicited(core, header);
        }
        Sink::Ignore
    }

    fn begin_setup<S: SessionPort>(&mut self, core: &mut Core<S>, header: &Header) -> Sink {
        let most = core.mux.base.config.max_streams();
        let known = self.setups.contains(header.stream);
        if !known && self.setups.len() >= most as usize {
            core.mux
                .limits
                .trip(Limit::Unaccepted, self.setups.len() as u64);
            return Sink::Ignore;
        }
        if known {
            // One is needed beside the metadata.
            core.mux.limits.charge_control(&core.mux.base);
        }
        self.ids.add(header.stream);
        self.setups.begin(header);
        Sink::Setup
    }

    fn begin_on_stream<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        key: Key,
        header: &Header,
    ) -> Sink {
        let stream = core.mux.base.streams.at(key);
        if stream.state.is_over() {
            if header.kind != Kind::Message {
                charge_unsolicited(core, header);
            }
            return Sink::Ignore;
        }
        let finished = stream.state.receiving == Receiving::Finished;
        let Some(line) = self.line(header.stream) else {
            return Sink::Ignore;
        };
        match line.cursor.begin(header) {
            Ok(false) => {}
            Ok(true) => {
                self.errors.forget(core_id(header.stream));
                drop_unfinished(core, key, header.kind);
            }
            Err(_) => {
                fail(core, key);
                return Sink::Skip;
            }
        }
        // Only messages need several frames, and none without data.
        if !header.done && (header.length == 0 || header.kind != Kind::Message) {
            core.mux.limits.charge_control(&core.mux.base);
        }
        match header.kind {
            Kind::Message if finished => {
                core.mux.limits.charge_control(&core.mux.base);
                Sink::Skip
            }
            Kind::Message => Sink::Message,
            Kind::Error => Sink::Error,
            Kind::Cancel | Kind::Close | Kind::CloseSend | Kind::WindowUpdate => Sink::Skip,
            Kind::InvokeMetadata | Kind::Unknown(_) if header.control => {
                core.mux.limits.charge_unknown(&core.mux.base);
                Sink::Skip
            }
            Kind::Invoke | Kind::InvokeMetadata | Kind::Unknown(_) => {
                fail(core, key);
                Sink::Skip
            }
        }
    }

    /// Its message id is not looked at: CockroachDB sends 0.
    fn begin_update<S: SessionPort>(&mut self, core: &mut Core<S>, header: &Header) -> Sink {
        core.mux.limits.charge_control(&core.mux.base);
        let whole = header.control && header.done && header.length <= UPDATE_MAX as u64;
        let known = self.profile.flow_control != FlowControl::Off;
        if !whole || !known || self.line(header.stream).is_none() {
            return Sink::Ignore;
        }
        Sink::Update
    }

    // ---- data ---------------------------------------------------------------------------------

    fn on_data<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        frame: &Arriving,
        data: &[u8],
        last: bool,
        now: Instant,
    ) {
        let header = &frame.header;
        match frame.sink {
            Sink::Message => {
                return self.on_message(core, header, Incoming::Slice(data), last, now);
            }
            Sink::Setup => {
                // An Invoke that is complete is not held.
                let whole = last && header.done && header.kind == Kind::Invoke;
                let room = if whole { usize::MAX } else { self.parts_room() };
                self.setups.add(header, data, room);
            }
            // At most ten bytes, which are taken at once.
            Sink::Update => return self.on_update(core, header.stream, data),
            Sink::Ignore => return,
            Sink::Error => {
                let whole = last && header.done;
                let room = if whole { ERROR_MAX } else { self.parts_room() };
                self.errors.add(core_id(header.stream), data, room);
            }
            Sink::Skip => {}
        }
        if last && header.done {
            self.on_packet(core, header, frame.sink, now);
        }
    }

    /// A message, or a piece of one.
    fn on_message<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        header: &Header,
        payload: Incoming<'_>,
        last: bool,
        now: Instant,
    ) {
        let end = last && header.done;
        let len = payload.as_slice().len();
        if let Some(line) = self.line(header.stream) {
            line.credit.received(len);
            if end {
                line.cursor.end();
            }
        }
        let Some(key) = core.mux.base.streams.find(core_id(header.stream)) else {
            return;
        };
        if len == 0 && !end {
            return;
        }
        let mux = &mut core.mux;
        let cost = len as u64 + u64::from(S::Stream::CHARGE);
        let outstanding = mux.base.streams.at(key).window.outstanding();
        if outstanding < RENEW.max(cost) {
            let _ = mux.flow.give_stream_back(&mut mux.base, key, None, now);
        }
        let piece = Piece {
            payload,
            skip: 0,
            end,
            total: None,
        };
        let received = mux.flow.receive(cost);
        match received.and_then(|()| mux.receive_piece(key, piece, cost, now)) {
            Ok(()) => self.keep_moving(core, key, header.stream),
            Err(Violation::MessageTooLong { total, .. }) => core.mux.exceed(Exceeded {
                key,
                limit: Limit::MessageSize,
                value: total,
            }),
            Err(_) => fail(core, key),
        }
    }

    /// A peer with flow control may need credit to reach the end of a stream whose messages are discarded.
    fn keep_moving<S: SessionPort>(&mut self, core: &mut Core<S>, key: Key, id: u64) {
        let step = self.step;
        let base = &mut core.mux.base;
        if let Some(stream) = base.streams.get_mut(key)
            && stream.state.receiving == Receiving::Stopped
            && let Some(line) = self.line(id)
            && line.credit.owed(0, step) > 0
        {
            base.owing.owe(key, stream, owed::WINDOW);
        }
    }

    /// The peer knows credit: the bytes consumed before that are returned.
    fn owe_updates<S: SessionPort>(&self, core: &mut Core<S>) {
        let base = &mut core.mux.base;
        for id in self.lines.keys() {
            if let Some((key, stream)) = base.streams.find_mut(*id) {
                base.owing.owe(key, stream, owed::WINDOW);
            }
        }
    }

    fn on_update<S: SessionPort>(&mut self, core: &mut Core<S>, id: u64, data: &[u8]) {
        let delta = match Varint::split(data) {
            Some((delta, [])) if delta > 0 => delta,
            _ => return,
        };
        if !std::mem::replace(&mut self.peer_returns, true) {
            hold_more(core);
            self.owe_updates(core);
        }
        let Some(line) = self.line(id) else {
            return;
        };
        line.credit.returned_by_peer(delta);
        let mux = &mut core.mux;
        if let Some((key, stream)) = mux.base.streams.find_mut(core_id(id)) {
            mux.schedule.enter(key, stream);
        }
    }

    // ---- the end of a packet ------------------------------------------------------------------

    fn on_packet<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        header: &Header,
        sink: Sink,
        now: Instant,
    ) {
        let id = header.stream;
        if sink == Sink::Setup {
            if let Some(invoked) = self.setups.end(header) {
                self.on_invoke(core, id, invoked, now);
            }
            return;
        }
        let Some(line) = self.line(id) else {
            return;
        };
        let Some(key) = core.mux.base.streams.find(core_id(id)) else {
            return;
        };
        if core.mux.base.streams.at(key).state.is_over() {
            return;
        }
        line.cursor.end();
        match header.kind {
            Kind::Error => {
                let failure = self.errors.take(core_id(id));
                if self.role == Role::Dialer && failure::shuts_down(&failure) {
                    on_shutdown(core, &failure);
                }
                failed(core, key, failure);
            }
            Kind::Cancel => core.cancel_by_peer(key, codes::CANCELLED),
            Kind::Close => {
                let (by, code) = (Side::Peer, codes::CANCELLED);
                // The messages before it are delivered.
                let end = RecvEnd::Error(StreamError::Cancelled { by, code });
                core.mux.cancelled_by_peer(key, code, end);
            }
            Kind::CloseSend => {
                let finished = core.mux.base.streams.at(key).state.receiving;
                if finished == Receiving::Finished {
                    core.mux.limits.charge_control(&core.mux.base);
                } else if core.mux.finish_receiving(key).is_err() {
                    fail(core, key);
                }
            }
            _ => {}
        }
    }

    /// The peer has invoked a stream.
    fn on_invoke<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        id: u64,
        invoked: Invoked,
        now: Instant,
    ) {
        let block = match invoked.block {
            Ok(block) => block,
            Err(code) => return self.turn_away(core, id, code),
        };
        core.mux.base.timers.stop(Timer::FirstCall);
        if self.profile.calls == Calls::OneAtATime {
            self.cancel_calls(core);
        }
        let mux = &mut core.mux;
        let max_streams = mux.base.config.max_streams();
        let _ = mux.permits.take_grant(max_streams);
        if !mux.base.streams.retire_id(core_id(id)) || mux.permits.take(max_streams).is_err() {
            return self.turn_away(core, id, codes::UNAVAILABLE);
        }
        let cost = block.len() as u64 + u64::from(S::Stream::CHARGE);
        let opened = core.open_by_peer(core_id(id), &block, false, cost, now);
        if opened.is_err() {
            core.mux.permits.grant_owed += 1;
            return self.turn_away(core, id, codes::UNAVAILABLE);
        }
        // The core has noted the last 32 bits of the id, and has charged the refusal.
        if core.mux.permits.next_refusal().is_some() {
            let code = match core.life.admits() {
                true => codes::UNAVAILABLE,
                false => codes::SHUTDOWN,
            };
            return self.owe_refusal(core, id, code);
        }
        (self.lines).insert(core_id(id), Line::new(id, invoked.cursor));
    }

    /// A new call of a peer with one call at a time: it has given up the one before.
    fn cancel_calls<S: SessionPort>(&self, core: &mut Core<S>) {
        for id in self.lines.keys() {
            let Some(key) = core.mux.base.streams.find(*id) else {
                continue;
            };
            if !core.mux.base.streams.at(key).state.is_over() {
                core.cancel_by_peer(key, codes::CANCELLED);
            }
        }
    }

    /// A stream is refused; the connection stays.
    fn turn_away<S: SessionPort>(&mut self, core: &mut Core<S>, id: u64, code: u32) {
        core.mux.limits.charge_reset(core.mux.base.turn);
        core.mux.limits.charge_control(&core.mux.base);
        self.owe_refusal(core, id, code);
    }

    fn owe_refusal<S: SessionPort>(&mut self, core: &mut Core<S>, id: u64, code: u32) {
        if self.turned_away.len() >= TURNED_AWAY_MAX {
            let waiting = self.turned_away.len() as u64;
            return core.mux.limits.trip(Limit::Unaccepted, waiting);
        }
        self.turned_away.push_back(TurnedAway { id, code });
        core.mux.base.wire_owes = true;
    }
}

/// A frame, and the bytes of its header in front.
struct Next {
    arriving: Arriving,
    skip: usize,
}

/// The windows of a wire without credit only bound sums; they are renewed although nothing is sent.
fn renew<S: SessionPort>(core: &mut Core<S>, now: Instant) {
    if core.mux.flow.owed {
        let _ = core.mux.session_window(None, now);
    }
}

/// A frame that has no effect.
fn charge_unsolicited<S: SessionPort>(core: &mut Core<S>, header: &Header) {
    let mux = &mut core.mux;
    match header.kind {
        Kind::Unknown(_) => mux.limits.charge_unknown(&mux.base),
        _ => mux.limits.charge_control(&mux.base),
    }
}

/// A server of this library shuts down: no call is sent to it any more, so that a manager makes another session.
fn on_shutdown<S: SessionPort>(core: &mut Core<S>, failure: &Failure) {
    if core.life.reason.peer_refusal().is_none() {
        let code = codes::SHUTDOWN;
        let reason = failure.message.as_str().into();
        core.goaway_by_peer(SessionError::PeerClosed { code, reason }, false, |id, _| {
            id.is_none()
        });
    }
}

/// The peer's Error. Behind its CloseSend, which delivers all messages, only sending is left to end.
fn failed<S: SessionPort>(core: &mut Core<S>, key: Key, failure: Failure) {
    let receiving = core.mux.base.streams.at(key).state.receiving;
    if matches!(receiving, Receiving::Finished | Receiving::Ended) {
        let end = RecvEnd::Error(StreamError::Failed(Arc::new(failure)));
        core.mux.cancelled_by_peer(key, codes::CANCELLED, end);
    } else {
        // Not after the end.
        let _ = core.mux.failed_by_peer(key, failure);
    }
}

/// A fault of the peer ends the stream, and no other.
#[cold]
fn fail<S: SessionPort>(core: &mut Core<S>, key: Key) {
    let mux = &mut core.mux;
    mux.cancel(key, codes::PROTOCOL);
    mux.limits.charge_faulty(&mux.base.config);
}

/// The peer does not continue a message, but sends a packet of this `kind`: no fault. One of which the application has seen a
/// part ends its stream, unless the packet does.
fn drop_unfinished<S: SessionPort>(core: &mut Core<S>, key: Key, kind: Kind) {
    let stream = core.mux.base.streams.at(key);
    if stream.assembly.is_none() {
        return;
    }
    match kind {
        _ if !stream.chunks => core.mux.flow.drop_unfinished(&mut core.mux.base, key),
        Kind::Cancel | Kind::Close | Kind::Error => {}
        _ => core.mux.cancel(key, codes::PROTOCOL),
    }
}
