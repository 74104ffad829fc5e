//! Decodes and applies received frames.
//!
//! ```text
//!   buf  │frame│frame│fra        parsed in place; the rest is the beginning of a frame,
//!        ◄─ removed ─►       and stays in `buf` for the next read
//! ```
//! A frame is checked from its header before its payload has arrived, validated completely, then
//! applied. Allocations are made only for payloads that an application will receive.

use std::sync::Arc as StdArc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::Native;
use super::error::of_stream;
use super::frame::{
    CALL_PREFIX_LEN, FRAME_COST, Form, Frame, HEADER_LEN, Header, Kind, Role, Scope, Settings,
    StreamId, TOTAL_LEN, check, cost, decode_total, preface,
};
use crate::core::mux::caller;
use crate::core::session_calls;
use crate::core::{Core, Incoming, Piece, SessionPort, StreamPort};
use crate::error::{Failure, ProtocolError, SessionError};
use crate::wire::{WAKES_MAX, WORK_MAX};

/// Payloads from this size on are delivered by reference, if they are half of their buffer.
const SHARE_MIN: usize = 4096;
/// The work of a frame that opens a stream, ends one or carries a block, in short frames: it uses tables, queues and memory.
pub(super) const RARE_WORK: u64 = 4;
/// Space for headers in a buffer that two payloads fill.
const HEADERS_SLACK: usize = 64;

/// The work of a frame, in short frames. The kinds not listed cost the same in every variant.
const fn work_of(kind: Kind) -> u64 {
    match kind {
        Kind::Open
        | Kind::Cancel
        | Kind::Error
        | Kind::Meta
        | Kind::Settings
        | Kind::GoAway
        | Kind::Call
        | Kind::Reply => RARE_WORK,
        Kind::Data | Kind::Window | Kind::Ping | Kind::Extension(_) => 1,
    }
}

/// Frames that are processed together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) frames: u64,
    /// As short frames.
    pub(super) work: u64,
    pub(super) bytes: usize,
}

impl Native {
    #[inline]
    pub(super) fn take_frames<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
        backing: usize,
        now: Instant,
    ) -> Result<bool, ProtocolError> {
        // A stream's queue and its credit are one budget.
        const { assert!(S::Stream::CHARGE as u64 == FRAME_COST) };
        if !self.greeted && !self.take_preface(core, buf)? {
            return Ok(false);
        }
        let (mut frames, mut work) = (0, 0);
        // Where the next frame begins: small frames are read in place and removed at the end.
        let mut at = 0;
        // As many callers are to be woken.
        let mut woken = false;
        let more = loop {
            let Some((head, _)) = buf[at..].split_first_chunk::<HEADER_LEN>() else {
                break false;
            };
            if core.mux.base.wakes.len() >= WAKES_MAX || work >= WORK_MAX || woken {
                break true;
            }
            let header = Header::decode(*head);
            let rest = &buf[at..];
            let run = match header.form() {
                Form::WholeMessage => {
                    let (frames, bytes) =
                        short_messages(core, header.stream, rest, WORK_MAX - work);
                    let work = frames;
                    Run {
                        frames,
                        work,
                        bytes,
                    }
                }
                Form::Open => self.take_open(core, header, rest, now)?,
                Form::OfCall => {
                    let run = self.take_calls(core, rest, WORK_MAX - work)?;
                    woken = core.mux.base.calls.waking() >= WAKES_MAX;
                    run
                }
                Form::Other => Run::default(),
            };
            if run.frames > 0 {
                frames += run.frames;
                work += run.work;
                at += run.bytes;
                continue;
            }
            let Some((done, end)) = self.take_frame(core, buf, at, backing, now)? else {
                break false;
            };
            frames += 1;
            work += done;
            at = end;
            woken = core.mux.base.calls.waking() >= WAKES_MAX;
        };
        match at == buf.len() && buf.capacity() >= backing {
            // The same memory is received into again. A smaller buffer is used up, and replaced by one of this size.
            true => buf.clear(),
            false => buf.advance(at),
        }
        core.mux.base.count_received(frames, work);
        Ok(more)
    }

    /// Takes any frame at this place by all rules. Returns its work and the place behind it; `None`: it is not whole.
    #[inline(never)]
    fn take_frame<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
        at: usize,
        backing: usize,
        now: Instant,
    ) -> Result<Option<(u64, usize)>, ProtocolError> {
        let Some((head, rest)) = buf[at..].split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::decode(*head);
        let kind = check(header, core.mux.base.config.max_frame())?;
        let len = header.length as usize;
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let frame = Frame::read(kind, header, payload)?;
        let (begin, work) = (at + HEADER_LEN, work_of(kind));
        match frame {
            Frame::Data {
                stream, end, fin, ..
            } if len >= SHARE_MIN && len * 2 + HEADERS_SLACK >= backing => {
                buf.advance(begin);
                let payload = Incoming::Shared(buf.split_to(len).freeze());
                self.on_data(core, stream, payload, (end, fin), now)?;
                return Ok(Some((work, 0)));
            }
            Frame::Data {
                stream,
                payload,
                end,
                fin,
            } => self.on_data(core, stream, Incoming::Slice(payload), (end, fin), now)?,
            other => {
                self.on_rare_frame(core, other, now)?;
                core.end_if_tripped();
            }
        }
        Ok(Some((work, begin + len)))
    }

    /// Takes the OPEN in front, if it is whole and right and streams may be opened: no others, which [`Self::take_frame`] handles
    /// with all rules and errors.
    #[inline(never)]
    fn take_open<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        header: Header,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Run, ProtocolError> {
        let end = HEADER_LEN + header.length as usize;
        let opened = header.opened(core.mux.base.config.max_frame());
        let (Some(id), Some(block)) = (opened, bytes.get(HEADER_LEN..end)) else {
            return Ok(Run::default());
        };
        if !core.life.is_established() {
            return Ok(Run::default());
        }
        self.on_open(core, id, block, header.is_last(), now)?;
        core.end_if_tripped();
        Ok(Run {
            frames: 1,
            work: RARE_WORK,
            bytes: end,
        })
    }

    /// True when the preface is complete; other bytes are refused at the first wrong one.
    fn take_preface<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
    ) -> Result<bool, ProtocolError> {
        let Some(bytes) = buf.first_chunk::<{ preface::PREFACE_LEN }>() else {
            preface::check_prefix(buf)?;
            return Ok(false);
        };
        let version = preface::negotiate(preface::parse(bytes)?);
        if self.role == Role::Acceptor {
            self.hello[..preface::PREFACE_LEN].copy_from_slice(&preface::encode(version));
        }
        self.greeted = true;
        core.greeted();
        buf.advance(preface::PREFACE_LEN);
        Ok(true)
    }

    fn on_rare_frame<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        frame: Frame<'_>,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        if core.life.is_in_hello() {
            return match frame {
                Frame::Settings(settings) => self.on_settings(core, settings),
                _ => Err(ProtocolError::SettingsMissing),
            };
        }
        if core.life.is_ending() {
            // A limit was tripped by an earlier frame.
            return Ok(());
        }
        match frame {
            // Taken by `on_data` and `take_calls`.
            Frame::Data { .. } | Frame::Call { .. } | Frame::Reply { .. } => Ok(()),
            Frame::Extension(_) => {
                let mux = &mut core.mux;
                mux.limits.charge_unknown(&mux.base);
                Ok(())
            }
            Frame::Settings(_) => Err(ProtocolError::SettingsTwice),
            Frame::Calls { takes } => {
                on_calls(core, takes);
                Ok(())
            }
            Frame::Open { stream, block, fin } => self.on_open(core, stream, block, fin, now),
            Frame::Meta { stream, block, fin } => self.on_meta(core, stream, block, fin, now),
            Frame::Window { scope, credit } => self.on_window(core, scope, credit.get()),
            Frame::Ping { opaque, ack: false } => {
                self.pong_owed = Some(opaque);
                core.mux.limits.charge_ping(now);
                Ok(())
            }
            Frame::Ping { opaque, ack: true } => {
                match core.pong_by_peer(u64::from_le_bytes(opaque), now) {
                    true => Ok(()),
                    false => Err(ProtocolError::UnexpectedPong),
                }
            }
            Frame::GoAway {
                last,
                code,
                debug,
                soon,
            } => {
                let error = SessionError::PeerClosed {
                    code,
                    reason: StdArc::from(debug),
                };
                self.on_goaway(core, last, error, soon);
                Ok(())
            }
            Frame::Cancel { stream, .. } | Frame::Error { stream, .. } => {
                self.on_end(core, stream, &frame)
            }
        }
    }

    fn on_settings<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        settings: Settings,
    ) -> Result<(), ProtocolError> {
        if settings.role == Some(self.role) {
            return Err(ProtocolError::SameRole { role: self.role });
        }
        let floors = Settings::FLOORS;
        let overflow = |stream, credit| ProtocolError::CreditOverflow { stream, credit };
        let raise = settings.session_window - floors.session_window;
        (core.mux.credit.add(raise)).ok_or(overflow(0, raise))?;
        let raise = settings.stream_window - floors.stream_window;
        (core.mux.raise_streams(raise)).map_err(|id| overflow(id, raise))?;
        self.peer_max_frame = settings.max_frame as usize;
        core.established(settings.max_message, settings.streams - floors.streams);
        Ok(())
    }

    // ---- streams ----------------------------------------------------------------------------

    fn on_data<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        id: StreamId,
        payload: Incoming<'_>,
        (end, fin): (bool, bool),
        now: Instant,
    ) -> Result<(), ProtocolError> {
        if !core.life.is_established() {
            return Err(ProtocolError::SettingsMissing);
        }
        let mux = &mut core.mux;
        let len = payload.as_slice().len();
        let bare_fin = len == 0 && !end;
        let cost = if bare_fin { 0 } else { cost(len as u32) };
        let refused = |violation| of_stream(id, violation);
        mux.flow.receive(cost).map_err(refused)?;
        let found = match mux.base.streams.find(id.get()) {
            // The server of a call may answer with a stream.
            None if mux.base.calls.has(id.get()) => caller::stream_of_call(mux, id.get(), now),
            found => found,
        };
        let Some(key) = found else {
            mux.flow.return_to_session(&mux.base, cost);
            // A frame without cost counts as a control frame.
            if !bare_fin {
                return self.check_ended(id);
            }
            self.late(core, id)?;
            core.end_if_tripped();
            return Ok(());
        };
        if !bare_fin {
            let (skip, total) = if !end && mux.base.streams.begins_message(key) {
                let (total, _) = decode_total(payload.as_slice())?;
                (TOTAL_LEN, Some(total))
            } else {
                (0, None)
            };
            let piece = Piece {
                payload,
                skip,
                end,
                total,
            };
            (mux.receive_piece(key, piece, cost, now)).map_err(refused)?;
        }
        if fin {
            mux.finish_receiving(key).map_err(refused)?;
        }
        core.end_if_tripped();
        Ok(())
    }

    fn on_meta<S: SessionPort>(
        &self,
        core: &mut Core<S>,
        id: StreamId,
        block: &[u8],
        fin: bool,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        let cost = cost(block.len() as u32);
        let refused = |violation| of_stream(id, violation);
        let mux = &mut core.mux;
        mux.flow.receive(cost).map_err(refused)?;
        // At most two a direction, so the grant of streams bounds them; the credit is returned.
        mux.flow.return_to_session(&mux.base, cost);
        let found = match core.mux.base.streams.find(id.get()) {
            None => caller::stream_of_call(&mut core.mux, id.get(), now),
            found => found,
        };
        let Some(key) = found else {
            return self.late(core, id);
        };
        core.mux.receive_block(key, block).map_err(refused)?;
        if fin {
            core.mux.finish_receiving(key).map_err(refused)?;
        }
        Ok(())
    }

    #[inline]
    fn on_open<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        id: StreamId,
        block: &[u8],
        fin: bool,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        self.take_id(core, id)?;
        let cost = cost(block.len() as u32);
        let opened = core.open_by_peer(id.get(), block, fin, cost, now);
        opened.map_err(|violation| of_stream(id, violation))
    }

    /// The peer uses its next id, with one of its permissions.
    #[inline]
    pub(super) fn take_id<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        id: StreamId,
    ) -> Result<(), ProtocolError> {
        if !id.is_opened_by(self.role.peer()) {
            return Err(ProtocolError::WrongParity { id });
        }
        if let Some(last) = self.last_peer_id {
            if !id.is_after(last) {
                return Err(ProtocolError::IdNotIncreasing { id, last });
            }
            self.peer_wrapped |= id.get() < last.get();
        }
        // Ids wrap after 2^31 streams. If the previous stream with this id is over on the wire, and
        // only held by an application, the id is free; else the peer should have skipped it.
        let base = &mut core.mux.base;
        if self.peer_wrapped && (!base.streams.retire_id(id.get()) || base.calls.has(id.get())) {
            return Err(ProtocolError::WrongParity { id });
        }
        let taken = core.mux.permits.take(core.mux.base.config.max_streams());
        taken.map_err(|violation| of_stream(id, violation))?;
        self.last_peer_id = Some(id);
        Ok(())
    }

    /// CANCEL, STOP or ERROR.
    fn on_end<S: SessionPort>(
        &self,
        core: &mut Core<S>,
        id: StreamId,
        frame: &Frame<'_>,
    ) -> Result<(), ProtocolError> {
        let Some(key) = core.mux.base.streams.find(id.get()) else {
            if core.mux.base.calls.has(id.get()) {
                end_call(core, id.get(), frame);
                return Ok(());
            }
            return self.late(core, id);
        };
        match *frame {
            Frame::Cancel {
                code, stop: false, ..
            } => core.cancel_by_peer(key, code),
            Frame::Cancel {
                code, stop: true, ..
            } => core.mux.stopped_by_peer(key, code),
            Frame::Error {
                code,
                message,
                details,
                ..
            } => {
                let failed = core
                    .mux
                    .failed_by_peer(key, failure(code, message, details));
                failed.map_err(|violation| of_stream(id, violation))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A frame for a missing stream: late, or a violation.
    pub(super) fn late<S: SessionPort>(
        &self,
        core: &mut Core<S>,
        id: StreamId,
    ) -> Result<(), ProtocolError> {
        self.check_ended(id)?;
        core.mux.limits.charge_control(&core.mux.base);
        Ok(())
    }

    // ---- the session ------------------------------------------------------------------------

    fn on_window<S: SessionPort>(
        &self,
        core: &mut Core<S>,
        scope: Scope,
        credit: u32,
    ) -> Result<(), ProtocolError> {
        let overflow = |stream| move || ProtocolError::CreditOverflow { stream, credit };
        let mux = &mut core.mux;
        mux.limits.charge_control(&mux.base);
        match scope {
            Scope::Session => mux.credit.add(credit).ok_or_else(overflow(0)),
            Scope::Streams => {
                let added = mux.permits.add(&mut mux.base, credit);
                added.map_err(|_| overflow(0)())
            }
            Scope::Stream(id) => match core.mux.base.streams.find(id.get()) {
                Some(key) => {
                    let added = core.mux.add_stream_credit(key, credit);
                    added.map_err(|_| overflow(id.get())())
                }
                None => self.check_ended(id),
            },
        }
    }

    /// The peer accepts no streams above `last` any more, or none at all from now on (`soon`).
    fn on_goaway<S: SessionPort>(
        &self,
        core: &mut Core<S>,
        last: Option<StreamId>,
        error: SessionError,
        soon: bool,
    ) {
        core.goaway_by_peer(error, soon, |id, of_peer| {
            match (id.and_then(StreamId::new), last) {
                (None, _) => true,
                (Some(_), _) if soon || of_peer => false,
                (Some(id), Some(last)) => id.is_after(last),
                (Some(_), None) => true,
            }
        });
    }
}

/// What an ERROR says.
fn failure(code: u32, message: &str, details: &[u8]) -> Failure {
    Failure {
        code,
        message: message.to_owned(),
        details: Bytes::copy_from_slice(details),
    }
}

/// CANCEL, STOP or ERROR for a call.
fn end_call<S: SessionPort>(core: &mut Core<S>, id: u32, frame: &Frame<'_>) {
    match *frame {
        // Who wants no answer has given up.
        Frame::Cancel { code, .. } => session_calls::call_cancelled_by_peer(core, id, code),
        Frame::Error {
            code,
            message,
            details,
            ..
        } => caller::fail_call_by_peer(&mut core.mux, id, failure(code, message, details)),
        _ => {}
    }
}

/// The peer takes calls, or does not any more.
fn on_calls<S: SessionPort>(core: &mut Core<S>, takes: bool) {
    let mux = &mut core.mux;
    mux.base.app.peer_takes_calls(takes);
    // Of no other frame's making; a peer says it when its application begins or ends to serve.
    mux.limits.charge_control(&mux.base);
}

/// The short messages in front that are whole and of this stream, as a run: their number and bytes. Stops after one that ends its
/// direction, and after `most`, and before any other frame, which [`Native::on_data`] handles with all rules and errors.
#[inline(never)] // A loop of its own has more registers.
fn short_messages<S: SessionPort>(
    core: &mut Core<S>,
    stream: u32,
    bytes: &[u8],
    most: u64,
) -> (u64, usize) {
    if !core.life.is_established() {
        return (0, 0);
    }
    let config = &core.mux.base.config;
    let longest = (SHARE_MIN as u32 - 1)
        .min(config.max_message())
        .min(config.max_frame());
    let mut rest = bytes;
    let frames = core.mux.receive_run(stream, |frames, credit| {
        let (head, behind) = rest.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::decode(*head);
        let cost = cost(header.length);
        let plain = header.is_message_of(stream) && header.length <= longest;
        if !plain || cost > credit || frames == most {
            return None;
        }
        let (payload, behind) = behind.split_at_checked(header.length as usize)?;
        rest = behind;
        Some((payload, cost, header.is_last()))
    });
    (frames, bytes.len() - rest.len())
}
