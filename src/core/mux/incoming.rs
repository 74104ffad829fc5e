//! Actions of the peer on its streams.
//!
//! A message in pieces is queued piece by piece and published when it is complete, so that the application sees whole
//! messages only; no piece is copied twice. A receiver in chunk mode sees every piece.

use std::sync::Arc as StdArc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Mux;
use crate::config::Config;
use crate::core::port::{Count, RecvEnd, SendEnd, SessionPort, StreamPort, rx_tag};
use crate::core::state::{Effect, Event, Receiving, Sending};
use crate::core::stream::{Assembly, Opening, Stream, Turns, owed, wake};
use crate::core::streams::Key;
use crate::core::violation::Violation;
use crate::core::window::report_mark;
use crate::error::{Failure, Limit, StreamError};

/// Blocks that a direction may carry between messages.
const BLOCKS_MAX: u8 = 2;

/// A payload in the receive buffer, or a reference to it.
pub(crate) enum Incoming<'a> {
    Slice(&'a [u8]),
    Shared(Bytes),
}

impl Incoming<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Shared(bytes) => bytes,
        }
    }

    /// Queues it, without the first `skip` bytes.
    fn push<P: StreamPort>(self, stream: &mut Stream<P>, tag: u16, skip: usize) {
        match self {
            Self::Slice(slice) => stream.port.push_slice(tag, false, &slice[skip..]),
            Self::Shared(mut bytes) => {
                bytes::Buf::advance(&mut bytes, skip);
                stream.port.push_bytes(tag, false, bytes);
            }
        }
    }
}

/// A message, or a piece of one.
pub(crate) struct Piece<'a> {
    pub(crate) payload: Incoming<'a>,
    /// Bytes in front that are not part of the message.
    pub(crate) skip: usize,
    /// It completes the message.
    pub(crate) end: bool,
    /// Of the first of several pieces: the message's size, if it is known.
    pub(crate) total: Option<u32>,
}

impl<S: SessionPort> Mux<S> {
    // ---- messages ---------------------------------------------------------------------------

    /// A run of short messages of one stream: looked up, debited, published and woken once for all. `next(messages, credit)` is
    /// given the number of messages so far and the credit that is left; it returns a message that costs no more, its cost, and
    /// whether it ends the direction, which ends the run as `None` does. Takes nothing unless the stream is in its plain
    /// state. Returns the number of messages.
    #[inline(always)]
    pub(crate) fn receive_run<'b>(
        &mut self,
        id: u32,
        mut next: impl FnMut(u64, u64) -> Option<(&'b [u8], u64, bool)>,
    ) -> u64 {
        let Some((key, stream)) = self.base.streams.find_mut(id) else {
            return 0;
        };
        if stream.state.receiving != Receiving::Open || stream.assembly.is_some() {
            return 0;
        }
        let (stream_left, session_left) =
            (stream.window.outstanding(), self.flow.window.outstanding());
        let credit = stream_left.min(session_left);
        let Some((payload, mut cost_sum, mut fin)) = next(0, credit) else {
            return 0;
        };
        stream.port.push_slice(rx_tag::END, false, payload);
        let mut messages = 1;
        while !fin && let Some((payload, cost, last)) = next(messages, credit - cost_sum) {
            stream.port.push_slice(rx_tag::END, false, payload);
            cost_sum += cost;
            messages += 1;
            fin = last;
        }
        if stream.window.held() == 0 {
            stream.last_progress = self.base.stamps.of(self.base.turn);
        }
        // No error: that much was outstanding, of the stream and of the session.
        let covered = stream.window.receive(cost_sum).unwrap_or_default();
        stream.port.publish();
        if fin && stream.state.on(Event::RecvFin) == Effect::Act {
            // No message is incomplete, and the direction was open.
            stream.port.end_recv(RecvEnd::Finished);
        }
        let done = fin && stream.is_done();
        self.base.wakes.notify(key, stream, wake::RECEIVER);
        self.base.app.add(Count::MessagesReceived, messages);
        let _within = self.flow.receive(cost_sum);
        if covered > 0 {
            self.flow.return_to_session(&self.base, covered);
        }
        if done {
            self.remove_if_done(key);
        }
        messages
    }

    /// A message, or a piece of one, with its cost, which was debited from the session's window.
    pub(crate) fn receive_piece(
        &mut self,
        key: Key,
        piece: Piece<'_>,
        cost: u64,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return Ok(());
        };
        if stream.window.held() == 0 {
            stream.last_progress = self.base.stamps.of(now);
        }
        let covered = match stream.window.receive(cost) {
            Ok(covered) => covered,
            Err(credit) => return Err(Violation::StreamCredit { cost, credit }),
        };
        let mut consumed = covered;
        let mut unfinished = false;
        match stream.state.on(Event::RecvData) {
            Effect::Violation => return Err(Violation::AfterEnd),
            Effect::Ignore => {
                let retired = stream.window.consume(cost);
                self.flow.pool.give(retired);
                consumed += cost - retired;
                self.base.owing.keep_stopped_stream_moving(key, stream);
            }
            Effect::Act => {
                let (end, skip) = (piece.end, piece.skip as u64);
                add_piece(stream, piece, &self.base.config, now)?;
                // Bytes in front of the first piece are not delivered.
                let retired = stream.window.consume(skip);
                self.flow.pool.give(retired);
                consumed += skip - retired;
                unfinished = !end;
                if end {
                    self.base.app.add(Count::MessagesReceived, 1);
                }
                if end || stream.chunks {
                    stream.port.publish();
                    self.base.wakes.notify(key, stream, wake::RECEIVER);
                }
            }
        }
        if consumed > 0 {
            self.flow.return_to_session(&self.base, consumed);
        }
        if unfinished {
            self.feed(key, now);
        }
        Ok(())
    }

    /// A block between messages, whose `cost` was debited from the session's window.
    pub(crate) fn receive_block(&mut self, key: Key, block: &[u8]) -> Result<(), Violation> {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return Ok(());
        };
        match stream.state.on(Event::RecvData) {
            Effect::Violation => return Err(Violation::AfterEnd),
            Effect::Ignore => self.limits.charge_control(&self.base),
            Effect::Act => {
                stream.metas += 1;
                if stream.metas > BLOCKS_MAX || stream.assembly.is_some() {
                    return Err(Violation::BlockOutOfPlace);
                }
                stream.port.push_slice(rx_tag::META, true, block);
                stream.port.publish();
                self.base.wakes.notify(key, stream, wake::RECEIVER);
            }
        }
        Ok(())
    }

    /// The peer ends its direction.
    pub(crate) fn finish_receiving(&mut self, key: Key) -> Result<(), Violation> {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return Ok(());
        };
        if stream.state.receiving == Receiving::Open && stream.assembly.is_some() {
            return Err(Violation::EndInsideMessage);
        }
        match stream.state.on(Event::RecvFin) {
            Effect::Violation => return Err(Violation::AfterEnd),
            Effect::Ignore => self.limits.charge_control(&self.base),
            Effect::Act => {
                stream.port.end_recv(RecvEnd::Finished);
                self.base.wakes.notify(key, stream, wake::RECEIVER);
            }
        }
        self.remove_if_done(key);
        Ok(())
    }

    // ---- ends inside a direction ------------------------------------------------------------

    /// The peer ends both directions: receiving with `end`, an error, sending with the same error.
    pub(crate) fn cancelled_by_peer(&mut self, key: Key, code: u32, end: RecvEnd) {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return;
        };
        if stream.state.is_over() {
            self.limits.charge_control(&self.base);
        } else {
            let of_peer = stream.of_peer();
            if let RecvEnd::Error(error) | RecvEnd::Discard(error) = &end {
                stream.port.end_send(SendEnd::Error(error.clone()));
            }
            stream.port.end_recv(end);
            self.cancel_stream(key, code, Event::RecvCancel);
            if of_peer {
                self.limits.on_peer_reset(&mut self.base, key);
            }
        }
        self.remove_if_done(key);
    }

    /// The peer wants to receive no more.
    pub(crate) fn stopped_by_peer(&mut self, key: Key, code: u32) {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return;
        };
        if stream.state.sending != Sending::Open || stream.port.is_send_ended() {
            return self.limits.charge_control(&self.base);
        }
        stream.port.end_send(SendEnd::Stopped { code });
        self.base.wakes.notify(key, stream, wake::SENDER);
        if self.budget.discard_before_error(stream).is_some() {
            // A queued ERROR ends both directions, where the answer to a STOP ends one.
            self.schedule.enter(key, stream);
            return;
        }
        stream.state.on(Event::RecvStop);
        self.budget.discard_queued(stream);
        self.base.owing.owe(key, stream, owed::FIN);
        if stream.state.receiving == Receiving::Stopped && stream.port.is_failing() {
            // The ERROR that would have ended the direction is too late.
            self.base.owing.owe(key, stream, owed::STOP);
        }
    }

    /// The peer's application ends the stream with an error, after all messages before it.
    pub(crate) fn failed_by_peer(&mut self, key: Key, failure: Failure) -> Result<(), Violation> {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return Ok(());
        };
        match stream.state.on(Event::RecvError) {
            Effect::Violation => return Err(Violation::AfterEnd),
            Effect::Ignore => self.limits.charge_control(&self.base),
            Effect::Act => {
                let of_peer = stream.of_peer();
                let error = StreamError::Failed(StdArc::new(failure));
                stream.port.end_send(SendEnd::Error(error.clone()));
                stream.port.end_recv(RecvEnd::Error(error));
                self.budget.discard_queued(stream);
                (self.base.wakes).notify(key, stream, wake::SENDER | wake::RECEIVER);
                self.flow.drop_unfinished(&mut self.base, key);
                if of_peer {
                    self.limits.charge_reset(self.base.turn);
                    self.limits.on_peer_reset(&mut self.base, key);
                }
            }
        }
        self.remove_if_done(key);
        Ok(())
    }

    // ---- streams and credit -----------------------------------------------------------------

    /// The peer opens a stream, whose OPEN has this cost. True if it was queued for the application, else it is refused.
    pub(crate) fn insert_of_peer(
        &mut self,
        id: u32,
        block: &[u8],
        fin: bool,
        cost: u64,
        now: Instant,
    ) -> bool {
        let mark = report_mark(u64::from(self.base.config.reported_window()));
        let (port, offer) = self.base.app.incoming(block, id, mark, now);
        let (key, stream) = self.insert(port, id, Opening::Received, now);
        stream.open_charge = cost as u32;
        if fin && stream.state.on(Event::RecvFin) == Effect::Act {
            stream.port.end_recv(RecvEnd::Finished);
        }
        if !self.base.app.offer(offer) {
            self.base.streams.remove(key, id);
            self.base.app.trip(Limit::Unaccepted);
            self.refuse(id, cost);
            return false;
        }
        self.base.count_streams();
        self.base.wakes.acceptors = true;
        true
    }

    /// Refuses a stream that the peer has opened, before any application has seen it.
    pub(crate) fn refuse(&mut self, id: u32, cost: u64) {
        self.flow.return_to_session(&self.base, cost);
        self.permits.refusals.push_back(id);
        self.limits.charge_reset(self.base.turn);
    }

    /// The peer grants more credit on one stream.
    pub(crate) fn add_stream_credit(&mut self, key: Key, credit: u32) -> Result<(), Violation> {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return Ok(());
        };
        let added = stream.credit.add(credit);
        added.ok_or(Violation::CreditOverflow { credit })?;
        self.schedule.enter(key, stream);
        Ok(())
    }

    /// The peer grants more credit on each stream, and on future ones; the id of the first on which it overflows.
    pub(crate) fn raise_streams(&mut self, raise: u32) -> Result<(), u32> {
        self.stream_credit = self.stream_credit.saturating_add(raise);
        for (_, stream) in self.base.streams.iter_mut() {
            stream.credit.add(raise).ok_or(stream.id)?;
        }
        Ok(())
    }
}

/// The time that this many bytes may take at the least rate.
fn time_of(bytes: usize, per_second: u32) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / u64::from(per_second))
}

/// Queues a piece, unpublished.
fn add_piece<P: StreamPort>(
    stream: &mut Stream<P>,
    piece: Piece<'_>,
    config: &Config,
    now: Instant,
) -> Result<(), Violation> {
    let limit = config.max_message();
    let len = piece.payload.as_slice().len() - piece.skip;
    let cost = len as u64 + u64::from(P::CHARGE);
    let too_long = |total: u64| Violation::MessageTooLong { total, limit };
    let tag = if piece.end { rx_tag::END } else { 0 };
    let received = match &mut stream.assembly {
        None if piece.end => len as u64,
        None => {
            if let Some(total) = piece.total {
                if total > limit {
                    return Err(too_long(u64::from(total)));
                }
                if len as u64 > u64::from(total) {
                    return Err(Violation::PiecesMismatch { total });
                }
            }
            stream.assembly = Some(Box::new(Assembly {
                total: piece.total,
                received: len as u32,
                cost,
                since: now,
                starved: None,
                given: false,
                turns: Turns::default(),
            }));
            len as u64
        }
        Some(assembly) => {
            if let Some(total) = assembly.total {
                let rest = u64::from(total - assembly.received);
                if len as u64 > rest || (piece.end && len as u64 != rest) {
                    return Err(Violation::PiecesMismatch { total });
                }
            }
            let received = u64::from(assembly.received) + len as u64;
            assembly.received = received as u32;
            assembly.cost += cost;
            assembly.since = now.min(assembly.since + time_of(len, config.min_message_rate()));
            let starved = assembly.starved.is_some();
            if piece.end {
                stream.assembly = None;
                if starved {
                    stream
                        .port
                        .set_credit_mark(report_mark(stream.window.target()));
                }
            }
            received
        }
    };
    if received > u64::from(limit) {
        return Err(too_long(received));
    }
    piece.payload.push(stream, tag, piece.skip);
    Ok(())
}
