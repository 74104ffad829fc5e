//! What a wire takes to send: control frames that are owed, openings, and the turns of streams.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::Mux;
use crate::core::port::{Count, RecvEnd, SessionPort, StreamPort};
use crate::core::schedule::{Place, QUANTUM_BYTES, Turn};
use crate::core::state::{Receiving, Sending};
use crate::core::stream::{Opening, Stream, wake};
use crate::core::streams::Key;
use crate::core::window::SessionCredit;
use crate::error::{Side, StreamError};

/// What streams may send in this batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    SendAll,
    /// FINs and ERRORs, which cost no credit.
    EndOnly,
}

impl<S: SessionPort> Mux<S> {
    /// Whether there is anything to say but openings and messages.
    #[inline]
    pub(crate) fn has_more_than_messages(&self) -> bool {
        self.flow.owed
            || !self.base.owing.is_empty()
            || !self.receipts.is_empty()
            || (self.permits).owes_grants(self.base.config.max_streams())
            || !self.permits.refusals.is_empty()
            || self.budget.has_spare()
    }

    /// Whether applications have something to say.
    #[inline]
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.schedule.is_empty() || !self.permits.opens.is_empty()
    }

    // ---- control ----------------------------------------------------------------------------

    /// Credit for all streams together, if it is owed.
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
    pub(crate) fn next_opening(&mut self) -> Option<(Key, &[u8])> {
        loop {
            let key = self.permits.front()?;
            let over = match self.base.streams.get_mut(key) {
                Some(stream) => stream.state.is_over(),
                None => true,
            };
            if !over {
                return Some((key, self.base.streams.at(key).port.opening()));
            }
            // Cancelled before it was sent: the peer never hears of it.
            self.permits.drop_front();
            self.remove_if_done(key);
        }
    }

    /// The next opening was put into the batch, with this id, and cost so much.
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

    /// The stream whose turn it is, with its share.
    #[inline]
    pub(crate) fn next_turn(&mut self, may: May) -> Option<(Key, u32)> {
        loop {
            let key = match may {
                May::SendAll => self.schedule.pop(),
                May::EndOnly => self.schedule.pop_end(),
            }?;
            let Some(stream) = self.base.streams.get_mut(key) else {
                continue;
            };
            stream.place = Place::Nowhere;
            if stream.id == 0 || stream.state.sending != Sending::Open {
                continue;
            }
            stream.deficit += QUANTUM_BYTES;
            return Some((key, stream.id));
        }
    }

    /// The stream of this turn, and the session's credit.
    #[inline]
    pub(crate) fn turn_of(&mut self, key: Key) -> (&mut Stream<S::Stream>, &mut SessionCredit) {
        (self.base.streams.at(key), &mut self.credit)
    }

    /// A turn is over, in which so many bytes, frames and messages were put into the batch. False if nothing more goes
    /// into it.
    #[inline]
    pub(crate) fn end_turn(
        &mut self,
        key: Key,
        turn: Turn,
        bytes: usize,
        (frames, messages): (u64, u64),
    ) -> bool {
        self.schedule.sent(key, bytes);
        self.base.count_sent(frames);
        self.base.app.add(Count::MessagesSent, messages);
        let stream = self.base.streams.at(key);
        if stream.port.release() > 0 {
            self.base.wakes.offer_room(key, stream);
        }
        self.budget.settle(stream);
        match turn {
            Turn::Drained | Turn::OutOfCredit => {
                stream.deficit = 0;
                if !stream.is_done() {
                    return true;
                }
            }
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
                // The rest of its turn comes first in the next batch.
                stream.deficit -= QUANTUM_BYTES;
                self.schedule.resume(key, stream);
                return false;
            }
        }
        self.remove_if_done(key);
        true
    }
}
