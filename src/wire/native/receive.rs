//! Frames in.
//!
//! ```text
//!   buf  │frame│frame│fra        parsed in place; what is left is the beginning of a frame,
//!         ◄──── gone ────►       and stays in `buf` for the next read
//! ```
//! A frame is judged from its header before its payload has arrived, validated completely, then
//! acted upon. Nothing is allocated but what an application will receive.

use std::sync::Arc as StdArc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::Native;
use super::error::of_stream;
use super::frame::{
    FRAME_COST, Frame, HEADER_LEN, Header, Kind, Role, Scope, Settings, StreamId, TOTAL_LEN, check,
    cost, decode_total, preface,
};
use crate::core::{Core, Incoming, Piece, SessionPort, StreamPort};
use crate::error::{Failure, ProtocolError, SessionError};
use crate::wire::{WAKES_MAX, WORK_MAX};

/// Payloads from here on are delivered by reference, if they are half of their buffer.
const SHARE_MIN: usize = 4096;
/// What a frame that opens a stream, ends one or brings a block counts as: tables, queues and memory of their own.
const RARE_WORK: u64 = 4;
/// What headers may take of a buffer that two payloads fill.
const HEADERS_SLACK: usize = 64;

/// What a frame costs, in short ones. Those that are not named cost as much however they are meant.
const fn work_of(kind: Kind) -> u64 {
    match kind {
        Kind::Open | Kind::Cancel | Kind::Error | Kind::Meta | Kind::Settings | Kind::GoAway => {
            RARE_WORK
        }
        Kind::Data | Kind::Window | Kind::Ping | Kind::Extension(_) => 1,
    }
}

/// Frames that were taken together.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    frames: u64,
    bytes: usize,
}

impl Native {
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
        let max_frame = core.mux.base.config.max_frame();
        let (mut frames, mut work) = (0, 0);
        // Where the next frame begins: small frames are read in place and skipped at the end.
        let mut at = 0;
        let mut more = false;
        while let Some(head) = buf[at..].first_chunk::<HEADER_LEN>() {
            more = core.mux.base.wakes.len() >= WAKES_MAX || work >= WORK_MAX;
            if more {
                break;
            }
            let header = Header::decode(*head);
            if header.is_whole_message() {
                let run = short_messages(core, header, &buf[at..], WORK_MAX - work, now);
                if run.frames > 0 {
                    frames += run.frames;
                    work += run.frames;
                    at += run.bytes;
                    continue;
                }
            }
            let kind = check(header, max_frame)?;
            let (begin, end) = (at + HEADER_LEN, at + HEADER_LEN + header.length as usize);
            if buf.len() < end {
                break;
            }
            frames += 1;
            work += work_of(kind);
            let len = end - begin;
            let share =
                kind == Kind::Data && len >= SHARE_MIN && len * 2 + HEADERS_SLACK >= backing;
            if share {
                let Frame::Data {
                    stream,
                    end: last,
                    fin,
                    ..
                } = Frame::read(kind, header, &buf[begin..end])?
                else {
                    break;
                };
                buf.advance(begin);
                let payload = buf.split_to(len).freeze();
                at = 0;
                self.on_data(core, stream, Incoming::Shared(payload), (last, fin), now)?;
            } else {
                let frame = Frame::read(kind, header, &buf[begin..end])?;
                at = end;
                self.on_frame(core, frame, now)?;
            }
        }
        buf.advance(at);
        core.mux.base.count_received(frames, work);
        Ok(more)
    }

    /// True when the preface is complete; garbage is refused at its first wrong byte.
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

    #[inline]
    fn on_frame<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        frame: Frame<'_>,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        match frame {
            Frame::Data {
                stream,
                payload,
                end,
                fin,
            } => self.on_data(core, stream, Incoming::Slice(payload), (end, fin), now),
            other => {
                self.on_rare_frame(core, other, now)?;
                core.end_if_tripped();
                Ok(())
            }
        }
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
            // A limit was tripped by what lay before it.
            return Ok(());
        }
        match frame {
            Frame::Data { .. } => Ok(()),
            Frame::Extension(_) => {
                let mux = &mut core.mux;
                mux.limits.charge_unknown(&mux.base);
                Ok(())
            }
            Frame::Settings(_) => Err(ProtocolError::SettingsTwice),
            Frame::Open { stream, block, fin } => self.on_open(core, stream, block, fin, now),
            Frame::Meta { stream, block, fin } => self.on_meta(core, stream, block, fin),
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
        let Some(key) = mux.base.streams.find(id.get()) else {
            mux.flow.return_to_session(&mux.base, cost);
            // What costs no credit counts as a control frame.
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
    ) -> Result<(), ProtocolError> {
        let cost = cost(block.len() as u32);
        let refused = |violation| of_stream(id, violation);
        let mux = &mut core.mux;
        mux.flow.receive(cost).map_err(refused)?;
        // At most two a direction, so the grant of streams bounds them; the credit goes back.
        mux.flow.return_to_session(&mux.base, cost);
        let Some(key) = core.mux.base.streams.find(id.get()) else {
            return self.late(core, id);
        };
        core.mux.receive_block(key, block).map_err(refused)?;
        if fin {
            core.mux.finish_receiving(key).map_err(refused)?;
        }
        Ok(())
    }

    fn on_open<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        id: StreamId,
        block: &[u8],
        fin: bool,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        if !id.is_opened_by(self.role.peer()) {
            return Err(ProtocolError::WrongParity { id });
        }
        if let Some(last) = self.last_peer_id
            && !id.is_after(last)
        {
            return Err(ProtocolError::IdNotIncreasing { id, last });
        }
        // Ids come round again after 2^31 streams. If the one that had this id is over on the wire, and
        // only an application holds it still, the id is free; else the peer should have passed over it.
        if !core.mux.base.streams.retire_id(id.get()) {
            return Err(ProtocolError::WrongParity { id });
        }
        let refused = |violation| of_stream(id, violation);
        let max_streams = core.mux.base.config.max_streams();
        core.mux.permits.take(max_streams).map_err(refused)?;
        self.last_peer_id = Some(id);
        let cost = cost(block.len() as u32);
        (core.open_by_peer(id.get(), block, fin, cost, now)).map_err(refused)
    }

    /// CANCEL, STOP or ERROR.
    fn on_end<S: SessionPort>(
        &self,
        core: &mut Core<S>,
        id: StreamId,
        frame: &Frame<'_>,
    ) -> Result<(), ProtocolError> {
        let Some(key) = core.mux.base.streams.find(id.get()) else {
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
                let failure = Failure {
                    code,
                    message: message.to_owned(),
                    details: Bytes::copy_from_slice(details),
                };
                let failed = core.mux.failed_by_peer(key, failure);
                failed.map_err(|violation| of_stream(id, violation))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A frame for a stream that is not there: late, or a violation.
    fn late<S: SessionPort>(&self, core: &mut Core<S>, id: StreamId) -> Result<(), ProtocolError> {
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

    /// The peer takes no streams above `last` any more, or none at all from now on (`soon`).
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

/// The short messages in front, if they are whole and of one stream, the one of `first`. Stops after the one that ends its
/// direction, before whatever is not plain, which is left to [`Native::on_data`], with all rules and errors; and after `most`.
#[inline]
fn short_messages<S: SessionPort>(
    core: &mut Core<S>,
    first: Header,
    bytes: &[u8],
    most: u64,
    now: Instant,
) -> Run {
    let mut run = Run::default();
    if !core.life.is_established() {
        return run;
    }
    let config = &core.mux.base.config;
    let longest = (SHARE_MIN as u32 - 1)
        .min(config.max_message())
        .min(config.max_frame());
    core.mux.receive_run(first.stream, now, |credit| {
        let (head, rest) = bytes[run.bytes..].split_first_chunk::<HEADER_LEN>()?;
        let header = Header::decode(*head);
        let cost = cost(header.length);
        let plain = header.is_whole_message() && header.stream == first.stream;
        if !plain || header.length > longest || cost > credit || run.frames == most {
            return None;
        }
        let payload = rest.get(..header.length as usize)?;
        run.frames += 1;
        run.bytes += HEADER_LEN + payload.len();
        Some((payload, cost, header.is_last_message()))
    });
    run
}
