//! Frames that a wire takes to send: owed control frames, openings, and messages by the turns of streams.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::Mux;
use crate::core::port::{Count, RecvEnd, SessionPort, StreamPort};
use crate::core::schedule::{QUANTUM_BYTES, Turn};
use crate::core::state::{Receiving, Sending};
use crate::core::stream::{Opening, Place, Stream, wake};
use crate::core::streams::Key;
use crate::core::window::SessionCredit;
use crate::error::{Side, StreamError};

/// The frames of streams that fit into this batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    SendAll,
    /// FINs and ERRORs, which cost no credit.
    EndOnly,
}

/// The frames that a turn has put into the batch, and how it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) turn: Turn,
    pub(crate) bytes: usize,
    pub(crate) frames: u64,
    pub(crate) messages: u64,
}

impl Sent {
    pub(crate) const NOTHING: Self = Self {
        turn: Turn::Drained,
        bytes: 0,
        frames: 0,
        messages: 0,
    };
}

impl<S: SessionPort> Mux<S> {
    /// Whether there may be frames other than openings and messages.
    #[inline]
    pub(crate) fn has_more_than_messages(&self) -> bool {
        self.flow.owed
            || !self.base.owing.is_empty()
            || !self.receipts.is_empty()
            || (self.permits).owes_grants(self.base.config.max_streams())
            || !self.permits.refusals.is_empty()
            || self.base.wire_owes
            || self.budget.has_spare()
            || self.base.calls.announce
    }

    /// Whether applications have queued frames to send.
    #[inline]
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.schedule.is_empty()
            || !self.permits.opens.is_empty()
            || self.base.calls.may_have_frames()
    }

    // ---- control ----------------------------------------------------------------------------

    /// Credit of the session, if it is owed.
    pub(crate) fn session_window(
        &mut self,
        rtt: Option<Duration>,
        now: Instant,
    ) -> Option<NonZeroU32> {
        if !std::mem::take(&mut self.flow.owed) {
            return None;
        }
        let credit = self.flow.give_session_back(&self.base, rtt, now);
        self.watch_window(now);
        credit
    }

    // ---- openings ---------------------------------------------------------------------------

    /// The stream to be opened next, and its block.
    #[inline]
    pub(crate) fn next_opening(&mut self) -> Option<(Key, &[u8])> {
        loop {
            let key = self.permits.front()?;
            let stream = self.base.streams.get_mut(key);
            if stream.is_some_and(|stream| !stream.state.is_over()) {
                return Some((key, self.base.streams.at(key).port.opening()));
            }
            pass_opening(self, key);
        }
    }

    /// The next opening was put into the batch, with this id and cost.
    pub(crate) fn opened(&mut self, key: Key, id: u32, cost: u64) {
        self.credit.debit(cost);
        let stream = self.base.streams.at(key);
        stream.id = id;
        stream.opening = Opening::Sent;
        stream.port.set_id(id);
        if stream.owes != 0 {
            self.base.owing.push(key);
        }
        self.schedule.enter(key, stream);
        self.permits.drop_front();
        self.base.streams.name(key, id);
        self.base.app.add(Count::Opened, 1);
        self.base.count_sent(1);
    }

    // ---- turns ------------------------------------------------------------------------------

    /// Gives the next stream its turn: `encode` gets its id, the stream with its share in bytes, and the session's credit, and
    /// puts its frames into the batch. `None` if it is no stream's turn; false if nothing more goes into the batch.
    #[inline]
    pub(crate) fn take_turn(
        &mut self,
        may: May,
        encode: impl FnOnce(u32, &mut Stream<S::Stream>, &mut SessionCredit) -> Sent,
    ) -> Option<bool> {
        let (key, stream) = loop {
            let key = match may {
                May::SendAll => self.schedule.pop(),
                May::EndOnly => self.schedule.pop_end(),
            }?;
            let Some(stream) = self.base.streams.get_mut(key) else {
                continue;
            };
            stream.place = Place::Nowhere;
            if stream.id != 0 && stream.state.sending == Sending::Open {
                break (key, stream);
            }
        };
        stream.deficit += QUANTUM_BYTES;
        let sent = encode(stream.id, stream, &mut self.credit);
        self.schedule.sent(key, sent.bytes);
        self.base.app.add(Count::MessagesSent, sent.messages);
        if stream.port.release() > 0 {
            self.base.wakes.offer_room(key, stream);
        }
        self.budget.settle(stream);
        let ran_out = matches!(sent.turn, Turn::Drained | Turn::OutOfCredit);
        if ran_out {
            stream.deficit = 0;
        }
        let done = stream.is_done();
        self.base.count_sent(sent.frames);
        Some((ran_out && !done) || self.end_turn(key, sent.turn))
    }

    #[inline(always)] // Several wires call it, each in one place: 90 instructions of a round trip.
    fn end_turn(&mut self, key: Key, turn: Turn) -> bool {
        let stream = self.base.streams.at(key);
        match turn {
            Turn::Drained | Turn::OutOfCredit => {}
            Turn::Failed { code } => {
                stream.deficit = 0;
                if stream.state.receiving == Receiving::Ended {
                    let error = StreamError::Cancelled {
                        by: Side::This,
                        code,
                    };
                    stream.port.end_recv(RecvEnd::Discard(error));
                    self.base.wakes.notify(key, stream, wake::RECEIVER);
                    self.flow.discard_received(&mut self.base, key);
                }
            }
            Turn::Over => self.schedule.enter(key, stream),
            Turn::BatchFull | Turn::SessionOutOfCredit => {
                // The rest of its turn continues in the next batch.
                stream.deficit -= QUANTUM_BYTES;
                self.schedule.resume(key, stream);
                return false;
            }
        }
        self.remove_if_done(key);
        true
    }
}

/// The next opening was cancelled before it was sent: the peer never hears of it.
#[cold]
#[inline(never)]
fn pass_opening<S: SessionPort>(mux: &mut Mux<S>, key: Key) {
    mux.permits.drop_front();
    mux.remove_if_done(key);
}
