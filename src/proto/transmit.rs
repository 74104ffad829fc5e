//! Frames out: everything that may go now, into one batch.
//!
//! Order: preface and SETTINGS; what the session owes; what streams owe; OPENs; then messages, by
//! urgency and in turns of 16 KiB. Nothing waits for more to come: a batch is built when the
//! previous one has been written, with whatever is there.

use std::num::NonZeroU32;
use std::time::Instant;

use super::connection::Connection;
use super::output::{BATCH_BYTES, Batch, SHARED_BATCH_BYTES};
use super::pool::Growth;
use super::registry::Key;
use super::schedule::{Place, QUANTUM_BYTES};
use super::sender::{Sender, Turn};
use super::state::{Receiving, Sending};
use super::stream::{Opening, Stream, owed, wake};
use super::window::report_mark;
use crate::error::{Side, StreamError};
use crate::frame::{
    CANCEL_FRAME_LEN, HEADER_LEN, PING_FRAME_LEN, Scope, StreamId, WINDOW_FRAME_LEN, codes,
    data_header, put_cancel, put_ping, put_window,
};
use crate::link::RecvEnd;

/// Streams' windows are raised by at most the session's largest window divided by this, together.
const WIDENED_SHARE: u64 = 4;
/// Room that control frames need at most, one at a time.
const CONTROL_ROOM: usize = 64;

/// What streams may send in this batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    SendAll,
    /// FINs and ERRORs, which cost no credit.
    EndOnly,
}

impl Connection {
    /// Fills an empty batch with what may be sent now; false if there is nothing.
    #[inline]
    pub(crate) fn transmit(&mut self, batch: &mut Batch, now: Instant) -> bool {
        debug_assert!(batch.is_empty());
        if self.has_more_than_messages() {
            self.life.may_send() && self.fill(batch, now)
        } else {
            let any = !self.schedule.is_empty() || !self.opens.is_empty();
            any && self.fill_with_messages(batch, now)
        }
    }

    /// The usual batch: streams that open, messages, and ends.
    fn fill_with_messages(&mut self, batch: &mut Batch, now: Instant) -> bool {
        self.limit(batch);
        self.probe_before_use(now);
        if self.ping.wanted {
            self.put_session_control(batch, now);
        }
        self.put_opens_and_messages(batch);
        self.serve_waiting();
        self.sealed(batch, now)
    }

    fn limit(&self, batch: &mut Batch) {
        batch.limit(if self.schedule.has_one_alone() {
            BATCH_BYTES
        } else {
            SHARED_BATCH_BYTES
        });
    }

    fn put_opens_and_messages(&mut self, batch: &mut Batch) {
        let may = match self.opens.is_empty() || self.put_opens(batch) {
            true => May::SendAll,
            // The OPENs have waited for longer.
            false => May::EndOnly,
        };
        self.put_messages(batch, may);
    }

    /// Whether the batch, which is complete, has anything.
    fn sealed(&mut self, batch: &mut Batch, now: Instant) -> bool {
        batch.seal();
        if batch.is_empty() {
            return false;
        }
        self.link.counters.batches.add(1);
        self.link.counters.bytes_sent.add(batch.len() as u64);
        self.keepalive.offer(now, &mut self.timers);
        true
    }

    fn fill(&mut self, batch: &mut Batch, now: Instant) -> bool {
        if !self.unwritten.is_empty() {
            self.answer_unwritten();
        }
        self.limit(batch);
        self.put_hello(batch);
        if !self.life.is_closing() {
            if !self.schedule.is_empty() || !self.opens.is_empty() {
                self.probe_before_use(now);
            }
            self.put_session_control(batch, now);
            self.put_stream_control(batch, now);
            self.put_opens_and_messages(batch);
            self.close_if_unused(now);
            self.serve_waiting();
            self.end_if_emptied(now);
        }
        self.put_final_goaway(batch);
        self.sealed(batch, now)
    }

    /// Whether [`fill`](Self::fill) may find anything but OPENs and messages. A message that comes alone has two calls where
    /// there is nothing at all for each that sends.
    #[inline]
    fn has_more_than_messages(&self) -> bool {
        !self.life.is_open()
            || self.orphaned.is_some()
            || self.window_owed
            || self.ping.wanted
            || self.ping.pong_owed.is_some()
            || !self.owing.is_empty()
            || !self.unwritten.is_empty()
            || self.owes_grants()
            || !self.refusals.is_empty()
            || !self.hello.is_empty()
            || self.outbound.has_spare()
    }

    /// The batch before was written, and with it all that is not in the rings any more. What was discarded instead is told
    /// by the end of its direction.
    #[cold]
    fn answer_unwritten(&mut self) {
        let Self {
            unwritten,
            registry,
            wakes,
            ..
        } = self;
        unwritten.retain(|key| {
            let Some(stream) = registry.get_mut(*key) else {
                return false;
            };
            if stream.opening != Opening::Done || !stream.tx.is_empty() {
                return true;
            }
            stream.listed_unwritten = false;
            if stream.lane().send_end().is_none() && stream.lane().answer_receipt() {
                Self::notify(wakes, *key, stream, wake::SENDER);
            }
            false
        });
    }

    fn put_hello(&mut self, batch: &mut Batch) {
        if !self.hello.is_empty() {
            batch.head().extend_from_slice(&self.hello);
            batch.copied(self.hello.len());
            self.hello = bytes::BytesMut::new();
        }
    }

    fn put_session_control(&mut self, batch: &mut Batch, now: Instant) {
        self.put_drain(batch, now);
        if let Some(opaque) = self.ping.pong_owed.take() {
            batch
                .head()
                .put_with(PING_FRAME_LEN, |dst| put_ping(dst, opaque, true));
            self.sent_control(batch, PING_FRAME_LEN);
        }
        let may_ask = self.ping.in_flight.is_none() || self.ping.again;
        if self.ping.wanted && may_ask && self.life.is_established() {
            (self.ping.wanted, self.ping.again) = (false, false);
            self.ping.sent += 1;
            let opaque = self.ping.sent.to_le_bytes();
            self.ping.in_flight = Some((opaque, now));
            batch
                .head()
                .put_with(PING_FRAME_LEN, |dst| put_ping(dst, opaque, false));
            self.sent_control(batch, PING_FRAME_LEN);
            self.keepalive.place_ping(batch.head().len());
        }
        if std::mem::take(&mut self.window_owed) {
            self.put_session_window(batch, now);
        }
        self.put_grants(batch);
        while let Some(id) = self.refusals.front().copied() {
            if batch.room() < CONTROL_ROOM {
                break;
            }
            self.refusals.pop_front();
            batch.head().put_with(CANCEL_FRAME_LEN, |dst| {
                put_cancel(dst, id, codes::UNAVAILABLE, false);
            });
            self.sent_control(batch, CANCEL_FRAME_LEN);
            self.grant_owed += 1;
        }
    }

    fn put_session_window(&mut self, batch: &mut Batch, now: Instant) {
        if self.drained_fast(self.last_return, now) {
            self.grow_session_window(Growth::Fast);
        }
        self.last_return = now;
        if let Some(credit) = window_credit(self.window.give_back()) {
            batch.head().put_with(WINDOW_FRAME_LEN, |dst| {
                put_window(dst, Scope::Session, credit);
            });
            self.sent_control(batch, WINDOW_FRAME_LEN);
        }
        self.watch_session_window(now);
    }

    /// Streams that have ended are granted again, several at a time unless the peer has few left.
    const fn owes_grants(&self) -> bool {
        let few = self.config.max_streams() / 4;
        self.grant_owed > 0 && (self.grant_owed >= few || self.peer_streams < few)
    }

    fn put_grants(&mut self, batch: &mut Batch) {
        if !self.owes_grants() {
            return;
        }
        if let Some(streams) = NonZeroU32::new(std::mem::take(&mut self.grant_owed)) {
            self.peer_streams += streams.get();
            batch.head().put_with(WINDOW_FRAME_LEN, |dst| {
                put_window(dst, Scope::Streams, streams);
            });
            self.sent_control(batch, WINDOW_FRAME_LEN);
        }
    }

    /// A window that was used up within two round trips limits throughput.
    fn drained_fast(&self, since: Instant, now: Instant) -> bool {
        self.ping
            .rtt
            .is_some_and(|rtt| now.duration_since(since) < 2 * rtt)
    }

    fn put_stream_control(&mut self, batch: &mut Batch, now: Instant) {
        while batch.room() >= CONTROL_ROOM {
            let Some(key) = self.owing.pop_front() else {
                return;
            };
            let Some(stream) = self.registry.get_mut(key) else {
                continue;
            };
            // What is owed by a stream whose OPEN has not left comes behind the OPEN.
            let Some(id) = stream.id else { continue };
            let owes = std::mem::take(&mut stream.owes);
            let code = stream.owed_code;
            if owes & owed::CANCEL != 0 {
                batch
                    .head()
                    .put_with(CANCEL_FRAME_LEN, |dst| put_cancel(dst, id, code, false));
                self.sent_control(batch, CANCEL_FRAME_LEN);
                self.remove_if_done(key);
                continue;
            }
            if owes & owed::STOP != 0 {
                batch
                    .head()
                    .put_with(CANCEL_FRAME_LEN, |dst| put_cancel(dst, id, code, true));
                self.sent_control(batch, CANCEL_FRAME_LEN);
            }
            if owes & owed::FIN != 0 {
                batch
                    .head()
                    .extend_from_slice(&data_header(0, false, true, id));
                self.sent_control(batch, HEADER_LEN);
            }
            if owes & owed::WINDOW != 0 {
                self.put_stream_window(key, id, batch, now);
            }
            self.remove_if_done(key);
        }
    }

    fn put_stream_window(&mut self, key: Key, id: StreamId, batch: &mut Batch, now: Instant) {
        let rtt = self.ping.rtt;
        let max = u64::from(self.config.stream_window_max());
        let now = self.stamps.of(now);
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        let fast = rtt.is_some_and(|rtt| now.since(stream.last_return) < 2 * rtt);
        let target = stream.window.target();
        let step = (target * 2).min(max).saturating_sub(target);
        // What streams that stall later can hold by having been fast must not fill the session.
        let spare = u64::from(self.config.session_window_max()) / WIDENED_SHARE - self.widened;
        if fast && step > 0 && step <= spare {
            self.widened += step;
            stream.widened += step as u32;
            stream.window.grow(target + step);
            self.link.counters.windows_grown.add(1);
            if !(stream.assembly.as_ref()).is_some_and(|assembly| assembly.starved) {
                stream
                    .lane()
                    .set_credit_mark(report_mark(stream.window.target()));
            }
        }
        stream.last_return = now;
        if let Some(credit) = window_credit(stream.window.give_back()) {
            batch.head().put_with(WINDOW_FRAME_LEN, |dst| {
                put_window(dst, Scope::Stream(id), credit);
            });
            self.sent_control(batch, WINDOW_FRAME_LEN);
        }
    }

    pub(super) fn sent_control(&mut self, batch: &mut Batch, len: usize) {
        batch.copied(len);
        self.work += 1;
        self.link.counters.frames_sent.add(1);
    }

    /// Streams may have been blocked on credit that has just been raised for all.
    pub(super) fn reschedule_all(&mut self) {
        for (key, stream) in self.registry.iter_mut() {
            let may = stream.opening == Opening::Done && stream.state.sending == Sending::Open;
            if may {
                self.schedule.enter(key, stream);
            }
        }
    }

    fn put_messages(&mut self, batch: &mut Batch, may: May) {
        let max_frame = self.peer.max_frame as usize;
        while batch.room() > CONTROL_ROOM {
            let next = match may {
                May::SendAll => self.schedule.pop(),
                May::EndOnly => self.schedule.pop_end(),
            };
            let Some(key) = next else { break };
            let Some(stream) = self.registry.get_mut(key) else {
                continue;
            };
            stream.place = Place::Nowhere;
            let Some(id) = stream.id else { continue };
            if stream.state.sending != Sending::Open {
                continue;
            }
            stream.deficit += QUANTUM_BYTES;
            let mut sender = Sender {
                stream,
                id,
                credit: &mut self.credit,
                max_frame,
                frames: 0,
                messages: 0,
            };
            let before = batch.len();
            let turn = sender.turn(batch);
            let (frames, messages) = (sender.frames, sender.messages);
            self.schedule.sent(key, batch.len() - before);
            self.work += frames;
            self.link.counters.frames_sent.add(frames);
            self.link.counters.messages_sent.add(messages);
            Self::after_turn(&mut self.wakes, key, stream);
            self.outbound.settle(stream);
            match turn {
                Turn::Drained | Turn::OutOfCredit => {
                    stream.deficit = 0;
                    if !stream.is_done() {
                        continue;
                    }
                }
                Turn::Failed { code } => {
                    stream.deficit = 0;
                    if stream.state.receiving == Receiving::Ended {
                        let error = StreamError::Cancelled {
                            by: Side::This,
                            code,
                        };
                        stream.lane().end_recv(RecvEnd::Discard(error));
                        Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
                        self.discard_received(key);
                    }
                }
                Turn::Over => self.schedule.enter(key, stream),
                Turn::BatchFull | Turn::SessionOutOfCredit => {
                    // The rest of its turn comes first in the next batch.
                    stream.deficit -= QUANTUM_BYTES;
                    self.schedule.resume(key, stream);
                    break;
                }
            }
            self.remove_if_done(key);
        }
        // What is left is not popped for now.
        self.schedule.prune(&mut self.registry);
    }

    /// Releases what was sent, and wakes a sender that waits for the room.
    fn after_turn(wakes: &mut Vec<Key>, key: Key, stream: &mut Stream) {
        if stream.tx.commit() > 0 {
            Self::offer_room(wakes, key, stream);
        }
    }

    /// There is room, or what stood against a message has changed: a sender that waits looks again, also one that has
    /// looked already and of which the engine has not heard yet.
    pub(super) fn offer_room(wakes: &mut Vec<Key>, key: Key, stream: &mut Stream) {
        if std::mem::take(&mut stream.wants_room) {
            Self::notify(wakes, key, stream, wake::SENDER);
        } else {
            stream.made_room = true;
        }
    }
}

fn window_credit(credit: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(credit).unwrap_or(u32::MAX))
}
