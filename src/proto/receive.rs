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

use bytes::{Buf, BytesMut};

use super::connection::Connection;
use super::message::Incoming;
use super::state::{Effect, Event, Receiving, Sending};
use super::stream::{owed, wake};
use crate::error::{Failure, ProtocolError, SessionError, Side, StreamError};
use crate::frame::{
    Frame, HEADER_LEN, Header, Kind, Role, Scope, Settings, StreamId, check, codes, cost, preface,
};
use crate::link::{RecvEnd, SendEnd, request};

/// Payloads from here on are delivered by reference, if they are half of their buffer.
pub(super) const SHARE_MIN: usize = 4096;
/// Streams whose tasks are to be woken, after which the rest of what has come waits a turn: the
/// answers of the first leave while the others are at work.
const WAKES_MAX: usize = 32;
/// What is done at once, in short frames, after which the rest of what has come waits a turn as well. Neighbours of the
/// session wait for so long: some 30 us, or half a millisecond where nothing is optimized. Frames of 256 bytes and more
/// are through with 256 KiB before that, so it leaves the batches of those who send much as they are.
pub(crate) const WORK_MAX: u64 = 1024;
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

impl Connection {
    /// Takes whole frames off the front of `buf`. What is left is the beginning of one, or, if this
    /// returns true, there may be more: call again when the tasks that have something now had
    /// their turn.
    #[inline]
    pub(crate) fn receive(&mut self, buf: &mut BytesMut, now: Instant) -> bool {
        if self.life.is_ending() {
            buf.clear();
            return false;
        }
        self.turn = now;
        self.keepalive.hear(now);
        match self.try_receive(buf, now) {
            Ok(more) => {
                // Whatever came, also for streams that have ended: the session's window is smaller.
                self.watch_session_window(now);
                if !more && !buf.is_empty() {
                    self.keepalive.stop_inside(now, &mut self.timers);
                }
                more
            }
            Err(error) => {
                buf.clear();
                self.end(SessionError::Protocol(error));
                false
            }
        }
    }

    /// So many bytes came from the socket at once.
    #[inline]
    pub(crate) fn count_received(&mut self, bytes: usize, now: Instant) {
        self.link.counters.bytes_received.add(bytes as u64);
        self.recv_size.arrived(bytes, now);
    }

    /// To be asked when nothing whole is left in the receive buffer: true if that is to be changed for one of
    /// [`recv_capacity`](Self::recv_capacity), which is less than it was.
    #[inline]
    pub(crate) fn shrinks_recv(&mut self, now: Instant) -> bool {
        self.recv_size.shrink(now)
    }

    fn try_receive(&mut self, buf: &mut BytesMut, now: Instant) -> Result<bool, ProtocolError> {
        if !self.receive_preface(buf)? {
            return Ok(false);
        }
        let backing = self.recv_capacity();
        let (mut frames, mut work) = (0, 0);
        // Where the next frame begins: small frames are read in place and skipped at the end.
        let mut at = 0;
        let mut more = false;
        while let Some(head) = buf[at..].first_chunk::<HEADER_LEN>() {
            more = self.wakes.len() >= WAKES_MAX || work >= WORK_MAX;
            if more {
                break;
            }
            let header = Header::decode(*head);
            if header.is_whole_message() {
                let run = self.on_short_messages(header, &buf[at..], WORK_MAX - work, now)?;
                if run.frames > 0 {
                    frames += run.frames;
                    work += run.frames;
                    at += run.bytes;
                    continue;
                }
            }
            let kind = check(header, self.config.max_frame())?;
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
                self.on_data(stream, Incoming::Shared(payload), last, fin, now)?;
            } else {
                let frame = Frame::read(kind, header, &buf[begin..end])?;
                at = end;
                self.on_frame(frame, now)?;
            }
        }
        buf.advance(at);
        self.link.counters.frames_received.add(frames);
        self.work += work;
        Ok(more)
    }

    /// What was done so far, in short frames, both ways. Grows by [`WORK_MAX`] and one frame at most in each
    /// [`receive`](Self::receive).
    #[inline]
    pub(crate) const fn work_done(&self) -> u64 {
        self.work
    }

    /// True when the preface is complete; garbage is refused at its first wrong byte.
    fn receive_preface(&mut self, buf: &mut BytesMut) -> Result<bool, ProtocolError> {
        if self.greeted {
            return Ok(true);
        }
        let Some(bytes) = buf.first_chunk::<{ preface::PREFACE_LEN }>() else {
            preface::check_prefix(buf)?;
            return Ok(false);
        };
        let version = preface::negotiate(preface::parse(bytes)?);
        if self.role == Role::Acceptor {
            self.hello[..preface::PREFACE_LEN].copy_from_slice(&preface::encode(version));
        }
        self.greeted = true;
        let action = self.life.preface();
        self.act(action);
        buf.advance(preface::PREFACE_LEN);
        Ok(true)
    }

    #[inline]
    fn on_frame(&mut self, frame: Frame<'_>, now: Instant) -> Result<(), ProtocolError> {
        match frame {
            Frame::Data {
                stream,
                payload,
                end,
                fin,
            } => self.on_data(stream, Incoming::Slice(payload), end, fin, now),
            other => self.on_rare_frame(other, now),
        }
    }

    fn on_rare_frame(&mut self, frame: Frame<'_>, now: Instant) -> Result<(), ProtocolError> {
        if self.life.is_in_hello() {
            return match frame {
                Frame::Settings(settings) => self.on_settings(settings),
                _ => Err(ProtocolError::SettingsMissing),
            };
        }
        if self.life.is_ending() {
            // A limit was tripped by what lay before it.
            return Ok(());
        }
        match frame {
            Frame::Data { .. } => Ok(()),
            Frame::Extension(_) => {
                self.charge_unknown();
                Ok(())
            }
            Frame::Settings(_) => Err(ProtocolError::SettingsTwice),
            Frame::Open { stream, block, fin } => self.on_open(stream, block, fin, now),
            Frame::Meta { stream, block, fin } => self.on_meta(stream, block, fin, now),
            Frame::Window { scope, credit } => self.on_window(scope, credit.get()),
            Frame::Ping { opaque, ack: false } => {
                self.ping.pong_owed = Some(opaque);
                self.charge_ping();
                Ok(())
            }
            Frame::Ping { opaque, ack: true } => self.on_pong(opaque, now),
            Frame::Cancel {
                stream,
                code,
                stop: false,
            } => self.on_cancel(stream, code),
            Frame::Cancel {
                stream,
                code,
                stop: true,
            } => self.on_stop(stream, code),
            Frame::Error {
                stream,
                code,
                message,
                details,
            } => {
                let details = bytes::Bytes::copy_from_slice(details);
                self.on_error(
                    stream,
                    Failure {
                        code,
                        message: message.to_owned(),
                        details,
                    },
                )
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
                self.on_goaway(last, error, soon);
                self.charge_goaway();
                Ok(())
            }
        }
    }

    fn on_settings(&mut self, settings: Settings) -> Result<(), ProtocolError> {
        if settings.role == Some(self.role) {
            return Err(ProtocolError::SameRole { role: self.role });
        }
        let floors = Settings::FLOORS;
        let overflow = |stream, credit| ProtocolError::CreditOverflow { stream, credit };
        let raise = settings.session_window - floors.session_window;
        self.add_credit(raise).ok_or(overflow(0, raise))?;
        let raise = settings.stream_window - floors.stream_window;
        for (_, stream) in self.registry.iter_mut() {
            stream
                .credit
                .add(raise)
                .ok_or(overflow(stream.id.map_or(0, StreamId::get), raise))?;
        }
        self.peer = settings;
        let action = self.life.settings();
        self.act(action);
        self.on_streams_granted(settings.streams - floors.streams);
        self.link.establish(settings.max_message);
        self.wake_state = true;
        for (key, stream) in self.registry.iter_mut() {
            // It may have a message longer than the peer had to accept before it said what it does.
            Self::offer_room(&mut self.wakes, key, stream);
        }
        // The first round trip tells how fast windows may grow.
        self.ping.wanted = true;
        self.reschedule_all();
        Ok(())
    }

    /// The peer takes so much more, of all streams together.
    fn add_credit(&mut self, credit: u32) -> Option<()> {
        self.credit_given += u64::from(credit);
        self.credit.add(credit)
    }

    fn on_window(&mut self, scope: Scope, credit: u32) -> Result<(), ProtocolError> {
        let overflow = |stream| ProtocolError::CreditOverflow { stream, credit };
        self.charge_control();
        match scope {
            Scope::Session => self.add_credit(credit).ok_or(overflow(0)),
            Scope::Streams => {
                let in_use = self.registry.len() as u64 + u64::from(self.link.open_credit());
                if in_use + u64::from(credit) > u64::from(u32::MAX) {
                    return Err(overflow(0));
                }
                self.on_streams_granted(credit);
                Ok(())
            }
            Scope::Stream(id) => {
                let Some(key) = self.registry.find(id) else {
                    return self.check_ended(id);
                };
                let Some(stream) = self.registry.get_mut(key) else {
                    return Ok(());
                };
                stream.credit.add(credit).ok_or(overflow(id.get()))?;
                self.schedule.enter(key, stream);
                Ok(())
            }
        }
    }

    fn on_pong(&mut self, opaque: [u8; 8], now: Instant) -> Result<(), ProtocolError> {
        let number = u64::from_le_bytes(opaque);
        if number <= self.ping.answered || number > self.ping.sent {
            return Err(ProtocolError::UnexpectedPong);
        }
        self.ping.answered = number;
        let action = self.life.pong(number);
        self.act(action);
        let Some((_, sent)) = self.ping.in_flight.take_if(|(ours, _)| *ours == opaque) else {
            // Of an earlier one; the answer to the last one follows, and serves all who ask.
            return Ok(());
        };
        let rtt = now.duration_since(sent);
        self.ping.rtt = Some(self.ping.rtt.map_or(rtt, |least| least.min(rtt)));
        // Whoever has asked by now is served by this: who asks for another has seen it counted.
        self.asked |= self.link.take_requests();
        self.asked &= !request::PING;
        self.link
            .record_pong(u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX));
        self.wake_pings = true;
        Ok(())
    }

    fn on_cancel(&mut self, id: StreamId, code: u32) -> Result<(), ProtocolError> {
        let Some(key) = self.registry.find(id) else {
            return self.late(id);
        };
        let Some(stream) = self.registry.get_mut(key) else {
            return Ok(());
        };
        if !stream.state.is_over() {
            // Turned away by a peer that shuts down, before anything of it ran.
            let turned_away = matches!(code, codes::UNAVAILABLE | codes::REFUSED);
            let refused = self.life.peer_refusal().filter(|_| turned_away).cloned();
            let cancelled = StreamError::Cancelled {
                by: Side::Peer,
                code,
            };
            let error = refused.map_or(cancelled, StreamError::NotProcessed);
            stream.lane().end_send(SendEnd::Error(error.clone()));
            stream.lane().end_recv(RecvEnd::Discard(error));
            self.cancel_stream(key, code, Event::RecvCancel);
            if id.is_opened_by(self.role.peer()) {
                self.on_peer_reset(key);
            }
        } else {
            self.charge_control();
        }
        self.remove_if_done(key);
        Ok(())
    }

    fn on_stop(&mut self, id: StreamId, code: u32) -> Result<(), ProtocolError> {
        let Some(key) = self.registry.find(id) else {
            return self.late(id);
        };
        let Some(stream) = self.registry.get_mut(key) else {
            return Ok(());
        };
        if stream.state.sending != Sending::Open || stream.lane().send_end().is_some() {
            self.charge_control();
            return Ok(());
        }
        stream.lane().end_send(SendEnd::Stopped { code });
        Self::notify(&mut self.wakes, key, stream, wake::SENDER);
        if Self::discard_before_error(&mut self.outbound, stream).is_some() {
            // It ends both directions, where the answer to a STOP ends one.
            self.schedule.enter(key, stream);
            return Ok(());
        }
        stream.state.on(Event::RecvStop);
        Self::discard_queued(&mut self.outbound, stream);
        Self::owe(&mut self.owing, key, stream, owed::FIN);
        if stream.state.receiving == Receiving::Stopped && stream.lane().failing() {
            // The ERROR that was to say it comes too late.
            Self::owe(&mut self.owing, key, stream, owed::STOP);
        }
        Ok(())
    }

    fn on_error(&mut self, id: StreamId, failure: Failure) -> Result<(), ProtocolError> {
        let Some(key) = self.registry.find(id) else {
            return self.late(id);
        };
        let Some(stream) = self.registry.get_mut(key) else {
            return Ok(());
        };
        match stream.state.on(Event::RecvError) {
            Effect::Violation => return Err(ProtocolError::AfterEnd { id }),
            Effect::Ignore => self.charge_control(),
            Effect::Act => {
                let error = StreamError::Failed(StdArc::new(failure));
                stream.lane().end_send(SendEnd::Error(error.clone()));
                stream.lane().end_recv(RecvEnd::Error(error));
                Self::discard_queued(&mut self.outbound, stream);
                Self::notify(&mut self.wakes, key, stream, wake::SENDER | wake::RECEIVER);
                self.drop_unfinished(key);
                if id.is_opened_by(self.role.peer()) {
                    self.charge_reset();
                    self.on_peer_reset(key);
                }
            }
        }
        self.remove_if_done(key);
        Ok(())
    }

    /// A frame for a stream that is not there: fine if it was, a violation if it never was.
    pub(super) fn check_ended(&self, id: StreamId) -> Result<(), ProtocolError> {
        let opened = if id.is_opened_by(self.role) {
            self.next_id.is_after(id)
        } else {
            self.last_peer_id
                .is_some_and(|last| last == id || last.is_after(id))
        };
        if opened {
            Ok(())
        } else {
            Err(ProtocolError::NeverOpened { id })
        }
    }

    /// Debits a frame from the session's window.
    pub(super) fn receive_on_session(&mut self, cost: u64) -> Result<(), ProtocolError> {
        match self.window.receive(cost) {
            Ok(_) => Ok(()),
            Err(credit) => Err(ProtocolError::SessionCredit { cost, credit }),
        }
    }

    fn on_meta(
        &mut self,
        id: StreamId,
        block: &[u8],
        fin: bool,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        let cost = cost(block.len() as u32);
        self.receive_on_session(cost)?;
        // At most two a direction, so the grant of streams bounds them; the credit goes back.
        self.return_to_session(cost);
        let Some(key) = self.registry.find(id) else {
            return self.late(id);
        };
        let Some(stream) = self.registry.get_mut(key) else {
            return Ok(());
        };
        match stream.state.on(Event::RecvData) {
            Effect::Violation => return Err(ProtocolError::AfterEnd { id }),
            Effect::Ignore => self.charge_control(),
            Effect::Act => {
                stream.metas += 1;
                if stream.metas > 2 || stream.assembly.is_some() {
                    return Err(ProtocolError::MetaOutOfPlace { id });
                }
                stream.rx.push_slice(crate::link::rx_tag::META, true, block);
                stream.rx.publish();
                Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
            }
        }
        if fin {
            self.on_fin(id, key, now)
        } else {
            Ok(())
        }
    }
}
