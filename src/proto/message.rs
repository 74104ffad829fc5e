//! DATA in: whole messages into the lane's ring, pieces put together on the way.
//!
//! A message in pieces is written to the ring piece by piece and published when it is complete, so
//! that the application sees whole messages only; no piece is copied twice. A receiver that asked
//! for chunks sees every piece.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::receive::SHARE_MIN;
use super::registry::Key;
use super::state::{Effect, Event, Receiving};
use super::stream::{Assembly, Stream, wake};
use crate::config::Config;
use crate::error::ProtocolError;
use crate::frame::{HEADER_LEN, Header, StreamId, TOTAL_LEN, cost, decode_total};
use crate::link::{RecvEnd, rx_tag};

/// A payload in the receive buffer, or a reference to it.
pub(super) enum Incoming<'a> {
    Slice(&'a [u8]),
    Shared(Bytes),
}

impl Incoming<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Shared(bytes) => bytes,
        }
    }

    /// Into the ring, without the first `skip` bytes.
    fn push(self, stream: &mut Stream, tag: u16, skip: usize) {
        match self {
            Self::Slice(slice) => stream.rx.push_slice(tag, false, &slice[skip..]),
            Self::Shared(mut bytes) => {
                bytes::Buf::advance(&mut bytes, skip);
                stream.rx.push_bytes(tag, false, bytes);
            }
        }
    }
}

/// Frames that were taken together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) frames: u64,
    pub(super) bytes: usize,
}

impl Connection {
    /// The short messages in front, if they are whole and of one stream, the one of `first`: looked
    /// up, debited, published and told once for all. Stops after the one that ends its direction, before
    /// whatever is not plain, which is left to [`on_data`](Self::on_data), with all rules and errors; and
    /// after `most`.
    pub(super) fn on_short_messages(
        &mut self,
        first: Header,
        bytes: &[u8],
        most: u64,
        now: Instant,
    ) -> Result<Run, ProtocolError> {
        let mut run = Run::default();
        if !self.life.is_established() {
            return Ok(run);
        }
        let found = first.stream_id().and_then(|id| self.registry.find_mut(id));
        let Some((key, stream)) = found else {
            return Ok(run);
        };
        if stream.state.receiving != Receiving::Open || stream.assembly.is_some() {
            return Ok(run);
        }
        let longest = (SHARE_MIN as u32 - 1)
            .min(self.config.max_message())
            .min(self.config.max_frame());
        let credit = stream.window.outstanding().min(self.window.outstanding());
        let (mut total_cost, mut fin) = (0, false);
        while let Some((head, rest)) = bytes[run.bytes..].split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(*head);
            let cost = cost(header.length);
            let plain = header.is_whole_message() && header.stream == first.stream;
            if !plain || header.length > longest || total_cost + cost > credit || run.frames == most
            {
                break;
            }
            let Some(payload) = rest.get(..header.length as usize) else {
                break;
            };
            stream.rx.push_slice(rx_tag::END, false, payload);
            total_cost += cost;
            run.frames += 1;
            run.bytes += HEADER_LEN + payload.len();
            fin = header.is_last_message();
            if fin {
                break;
            }
        }
        if run.frames == 0 {
            return Ok(run);
        }
        if stream.window.held() == 0 {
            stream.last_progress = self.stamps.of(now);
        }
        // No error: that much was outstanding.
        let covered = stream.window.receive(total_cost).unwrap_or_default();
        stream.rx.publish();
        if fin && stream.state.on(Event::RecvFin) == Effect::Act {
            // No message is incomplete, and the direction was open.
            stream.lane().end_recv(RecvEnd::Finished);
        }
        let done = fin && stream.is_done();
        Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
        self.link.counters.messages_received.add(run.frames);
        self.receive_on_session(total_cost)?;
        if covered > 0 {
            self.return_to_session(covered);
        }
        if done {
            self.remove_if_done(key);
        }
        Ok(run)
    }

    pub(super) fn on_data(
        &mut self,
        id: StreamId,
        payload: Incoming<'_>,
        end: bool,
        fin: bool,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        if !self.life.is_established() {
            return Err(ProtocolError::SettingsMissing);
        }
        let len = payload.as_slice().len();
        let bare_fin = len == 0 && !end;
        let cost = if bare_fin { 0 } else { cost(len as u32) };
        self.receive_on_session(cost)?;
        let Some(key) = self.registry.find(id) else {
            self.return_to_session(cost);
            // What costs no credit counts as a control frame.
            return match bare_fin {
                true => self.late(id),
                false => self.check_ended(id),
            };
        };
        let Some(stream) = self.registry.get_mut(key) else {
            return Ok(());
        };
        if stream.window.held() == 0 {
            stream.last_progress = self.stamps.of(now);
        }
        let covered = match stream.window.receive(cost) {
            Ok(covered) => covered,
            Err(credit) => return Err(ProtocolError::StreamCredit { id, cost, credit }),
        };
        let mut consumed = covered;
        let mut unfinished = false;
        if !bare_fin {
            match stream.state.on(Event::RecvData) {
                Effect::Violation => return Err(ProtocolError::AfterEnd { id }),
                Effect::Ignore => {
                    let retired = stream.window.consume(cost);
                    self.pool.give(retired);
                    consumed += cost - retired;
                    Self::keep_stopped_stream_moving(&mut self.owing, key, stream);
                }
                Effect::Act => {
                    let prefix = add_piece(stream, id, payload, end, &self.config, now)?;
                    // The size in front of the first piece is not part of what is delivered.
                    let retired = stream.window.consume(prefix);
                    self.pool.give(retired);
                    consumed += prefix - retired;
                    unfinished = !end;
                    if end {
                        self.link.counters.messages_received.add(1);
                    }
                    if end || stream.chunks {
                        stream.rx.publish();
                        Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
                    }
                }
            }
        }
        if consumed > 0 {
            self.return_to_session(consumed);
        }
        if unfinished {
            self.feed_assembly(key, now);
        }
        if fin {
            self.on_fin(id, key, now)
        } else {
            Ok(())
        }
    }

    /// A peer that was asked to stop may need credit to come to its end.
    pub(super) fn keep_stopped_stream_moving(
        owing: &mut std::collections::VecDeque<Key>,
        key: Key,
        stream: &mut Stream,
    ) {
        let scarce = stream.window.returnable() * 2 >= stream.window.target();
        if stream.state.receiving == Receiving::Stopped && scarce {
            Self::owe(owing, key, stream, super::stream::owed::WINDOW);
        }
    }

    pub(super) fn on_fin(
        &mut self,
        id: StreamId,
        key: Key,
        _now: Instant,
    ) -> Result<(), ProtocolError> {
        let Some(stream) = self.registry.get_mut(key) else {
            return Ok(());
        };
        if stream.state.receiving == Receiving::Open && stream.assembly.is_some() {
            return Err(ProtocolError::FinInsideMessage { id });
        }
        match stream.state.on(Event::RecvFin) {
            Effect::Violation => return Err(ProtocolError::AfterEnd { id }),
            Effect::Ignore => self.charge_control(),
            Effect::Act => {
                stream.lane().end_recv(RecvEnd::Finished);
                Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
            }
        }
        self.remove_if_done(key);
        Ok(())
    }
}

/// What so many bytes may take.
fn time_of(bytes: usize, per_second: u32) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / u64::from(per_second))
}

/// Writes a piece to the ring, unpublished. Returns the bytes of it that are not message.
fn add_piece(
    stream: &mut Stream,
    id: StreamId,
    payload: Incoming<'_>,
    end: bool,
    config: &Config,
    now: Instant,
) -> Result<u64, ProtocolError> {
    let limit = config.max_message();
    let len = payload.as_slice().len();
    let too_long = |total: u64| ProtocolError::MessageTooLong { id, total, limit };
    let tag = if end { rx_tag::END } else { 0 };
    match &mut stream.assembly {
        None if end => {
            if len > limit as usize {
                return Err(too_long(len as u64));
            }
            payload.push(stream, tag, 0);
            Ok(0)
        }
        None => {
            let (total, body) = decode_total(payload.as_slice())?;
            let received = body.len() as u32;
            if total > limit {
                return Err(too_long(u64::from(total)));
            }
            if received > total {
                return Err(ProtocolError::PiecesMismatch { id, total });
            }
            stream.assembly = Some(Box::new(Assembly {
                total,
                received,
                cost: cost(received),
                since: now,
                starved: false,
                given: false,
            }));
            payload.push(stream, tag, TOTAL_LEN);
            Ok(TOTAL_LEN as u64)
        }
        Some(assembly) => {
            let total = assembly.total;
            let rest = total - assembly.received;
            if len as u64 > u64::from(rest) || (end && len as u64 != u64::from(rest)) {
                return Err(ProtocolError::PiecesMismatch { id, total });
            }
            assembly.received += len as u32;
            assembly.cost += cost(len as u32);
            assembly.since = now.min(assembly.since + time_of(len, config.min_message_rate()));
            let starved = assembly.starved;
            if end {
                stream.assembly = None;
                if starved {
                    let mark = (stream.window.target() / 2) as u32;
                    stream.lane().set_credit_mark(mark);
                }
            }
            payload.push(stream, tag, 0);
            Ok(0)
        }
    }
}
