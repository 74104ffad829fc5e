//! The limit on all bytes that a session has queued for sending: `session_send_buffer`, beside [`SEND_FLOOR`] bytes and one
//! message for each stream.
//!
//! Each sender has a limit in its lane. It starts at the floor; the part above it, the loan, comes out of the session's
//! budget. While enough is left senders take it themselves, without the engine (`queue::budget`), and report it
//! afterwards (GREW). A sender that finds too little asks (MORE). From then on this file decides, on the engine's
//! thread:
//!
//! * Streams with nothing queued give their loans back.
//! * If the asker has less than its share, which is the budget divided by the number of borrowers, those with more are
//!   lowered to the share. Bytes that they have queued above the new limit are *owed*: they come back as they are sent.
//! * Returned bytes go first to the streams that wait for their share, in order, then back to the common budget.
//!
//! No request is refused: senders wait, as they do for room. No stream waits for the budget with an empty ring, since an
//! empty ring admits any message; and each time its ring drains the sender is woken and may ask again: so nothing here can
//! stop a stream. A stream that has its share is not notified when the budget grows: it finds out when it next asks.
//!
//! # Invariants
//! 1. `budget left + spare + Σ (limit − floor + owed)` is the budget.
//! 2. A stream has queued at most `limit + owed` bytes, and one message. It holds when the sender checks; lowering moves
//!    bytes from `limit` to `owed`; and released bytes are taken off `owed` at most once. The one message is either one
//!    that was checked before the limit was lowered (`queue::budget`), or one that an empty ring admits.
//!
//! # Cost
//! Nothing per message, a comparison per turn of a stream. A turn of the session visits [`LOOKS`] borrowers at most.

use std::collections::VecDeque;

use super::base::{Base, Wakes};
use super::port::{SessionPort, StreamPort, tx_tag};
use super::state::Sending;
use super::stream::{Place, Stream};
use super::streams::{Key, Streams};
use crate::config::Config;
use crate::queue::Budget;

/// Bytes that each stream may queue for sending regardless of the others; `send_buffer` is at least this.
pub(crate) const SEND_FLOOR: u32 = 4 * 1024;

/// Borrowers visited in a turn.
const LOOKS: usize = 8;

/// The session's part of the accounts.
#[derive(Debug, Default)]
pub(crate) struct SendBudget {
    /// Bytes returned by streams and not lent again.
    spare: u64,
    /// Streams with a loan, in rotation, and stale keys.
    borrowers: VecDeque<Key>,
    /// Number of streams with a loan.
    lent_to: u64,
    /// Streams that have asked and have less than their share, in order.
    waiting: VecDeque<Key>,
    /// Borrowers that may still be visited in this turn.
    looks: usize,
}

impl SendBudget {
    /// Whether returned bytes can be lent.
    pub(crate) const fn has_spare(&self) -> bool {
        self.spare > 0
    }

    /// To be called when a stream's ring has released records, or its sending direction has ended.
    #[inline]
    pub(crate) fn settle<P: StreamPort>(&mut self, stream: &mut Stream<P>) {
        let (owed, listed) = (stream.loan.owed, stream.loan.listed);
        if owed > 0 || (listed && stream.state.sending != Sending::Open) {
            self.reclaim_released(stream);
        }
    }

    #[cold]
    fn reclaim_released<P: StreamPort>(&mut self, stream: &mut Stream<P>) {
        if stream.state.sending != Sending::Open {
            return self.end(stream);
        }
        let released = stream.port.released();
        let since = released - std::mem::replace(&mut stream.loan.released, released);
        let back = since.min(stream.loan.owed.into());
        stream.loan.owed -= back as u32;
        self.spare += back;
    }

    /// The stream sends no more: its loan comes back.
    #[inline]
    pub(crate) fn end<P: StreamPort>(&mut self, stream: &mut Stream<P>) {
        if stream.loan.listed || stream.loan.owed > 0 || stream.port.send_limit() > SEND_FLOOR {
            self.end_loan(stream);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_loan<P: StreamPort>(&mut self, stream: &mut Stream<P>) {
        self.spare += u64::from(std::mem::take(&mut stream.loan.owed));
        self.take_back(&stream.port);
        self.lent_to -= u64::from(std::mem::take(&mut stream.loan.listed));
    }

    /// Takes back all above the floor, of a lane without a stream.
    pub(crate) fn take_back<P: StreamPort>(&mut self, port: &P) {
        if port.send_limit() > SEND_FLOOR {
            self.spare += u64::from(port.lower_send_limit(SEND_FLOOR));
        }
    }

    /// Returns the loan of a lane that has no stream any more.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.spare += bytes;
    }

    /// Lowers a stream's limit. The part that cannot be queued comes back at once.
    fn recall<P: StreamPort>(&mut self, stream: &mut Stream<P>, to: u32) {
        debug_assert_eq!(stream.port.passed_weight(), 0, "released with each turn");
        self.reclaim_released(stream);
        stream.loan.owed += stream.port.lower_send_limit(to);
        if stream.port.is_drained() {
            self.spare += u64::from(std::mem::take(&mut stream.loan.owed));
        }
    }
}

/// A stream's part of the budget, without `owed`.
fn loan<P: StreamPort>(stream: &Stream<P>) -> u64 {
    u64::from(stream.port.send_limit() - SEND_FLOOR)
}

/// Whether its sender would take some of `left` bytes.
fn could_take<P: StreamPort>(stream: &Stream<P>, left: u64, send_buffer: u32) -> bool {
    let want = send_buffer - stream.port.send_limit();
    Budget::part(left, loan(stream), u64::from(want)) > 0
}

impl SendBudget {
    pub(crate) const fn begin_turn(&mut self) {
        self.looks = LOOKS;
    }

    /// A sender has taken bytes of the budget itself.
    pub(crate) fn note_loan<P: StreamPort>(&mut self, streams: &mut Streams<P>, key: Key) {
        let stream = streams.at(key);
        if stream.state.sending == Sending::Open {
            self.list_borrower(streams, key);
        } else {
            self.end(stream);
        }
    }

    /// Lists the stream as a borrower.
    pub(crate) fn list_borrower<P: StreamPort>(&mut self, streams: &mut Streams<P>, key: Key) {
        let stream = streams.at(key);
        if !std::mem::replace(&mut stream.loan.listed, true) {
            self.lent_to += 1;
            self.borrowers.push_back(key);
            streams.prune(&mut self.borrowers, |stream| stream.loan.listed);
        }
    }

    /// A sender wants a higher limit and has found too little in the budget.
    pub(crate) fn ask_for_more<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) {
        let Some(stream) = base.streams.get_mut(key) else {
            return;
        };
        if stream.state.sending != Sending::Open {
            return;
        }
        let (limit, listed) = (stream.port.send_limit(), stream.loan.listed);
        let lacks = self.lacks(&base.config, limit, listed);
        self.spare += base.app.take_send_budget();
        self.gather(base, key, lacks);
        let stream = base.streams.at(key);
        if lacks > 0 {
            if !std::mem::replace(&mut stream.loan.waits, true) {
                self.waiting.push_back(key);
                (base.streams).prune(&mut self.waiting, |stream| stream.loan.waits);
            }
        } else if self.waiting.is_empty()
            && could_take(stream, self.spare, base.config.send_buffer())
        {
            // Served as soon as `serve_waiting` has returned the bytes.
            base.wakes.offer_room(key, stream);
        }
    }

    /// The bytes that a stream with this limit lacks of its share; 0 if too few to lend.
    fn lacks(&self, config: &Config, limit: u32, listed: bool) -> u64 {
        let most = u64::from(config.send_buffer() - SEND_FLOOR);
        let loan = u64::from(limit - SEND_FLOOR);
        let share = self.share(config, u64::from(!listed));
        Budget::worth(share.min(most).saturating_sub(loan), most - loan)
    }

    fn share(&self, config: &Config, newcomers: u64) -> u64 {
        let budget = u64::from(config.session_send_buffer());
        budget / (self.lent_to + newcomers).max(1)
    }

    /// Recalls loans that streams do not need, and, if the asker or a waiting stream lacks some of its share, the excess of
    /// streams above theirs.
    fn gather<S: SessionPort>(&mut self, base: &mut Base<S>, asker: Key, lacks: u64) {
        let enough = u64::from(base.config.send_buffer());
        let short = lacks > 0 || !self.waiting.is_empty();
        while self.looks > 0 && self.spare < enough {
            self.looks -= 1;
            let share = self.share(&base.config, u64::from(short));
            let Some(key) = self.borrowers.pop_front() else {
                return;
            };
            let Some(stream) = base.streams.get_mut(key) else {
                continue;
            };
            let limit = stream.port.send_limit();
            if stream.place == Place::Nowhere && stream.port.is_drained() && key != asker {
                self.recall(stream, SEND_FLOOR);
            } else if short && loan(stream) > share {
                // At least one part, and as little below the share as that allows.
                let by = (loan(stream) - share).max(Budget::PART_MIN);
                let to = u64::from(limit).saturating_sub(by) as u32;
                self.recall(stream, to.max(SEND_FLOOR));
            }
            if stream.loan.listed && loan(stream) + stream.loan.owed() == 0 {
                stream.loan.listed = false;
                self.lent_to -= 1;
            }
            if stream.loan.listed {
                self.borrowers.push_back(key);
            }
        }
    }

    /// Lends returned bytes to the streams that wait for their share, and puts the rest back into the common budget.
    #[inline]
    pub(crate) fn serve_waiting<S: SessionPort>(&mut self, base: &mut Base<S>) {
        if self.spare != 0 {
            self.serve_from_spare(base);
        }
    }

    fn serve_from_spare<S: SessionPort>(&mut self, base: &mut Base<S>) {
        while let Some(key) = self.waiting.front().copied() {
            if !self.serve(&mut base.streams, &mut base.wakes, &base.config, key) {
                return;
            }
            self.waiting.pop_front();
        }
        let spare = std::mem::take(&mut self.spare);
        base.app.give_send_budget(spare);
    }

    /// False if the returned bytes are too few for this stream.
    fn serve<P: StreamPort>(
        &mut self,
        streams: &mut Streams<P>,
        wakes: &mut Wakes,
        config: &Config,
        key: Key,
    ) -> bool {
        let Some(stream) = streams.get_mut(key) else {
            return true;
        };
        // Read once: the sender may raise it at any time, and the loan must be the difference to this value.
        let (limit, listed) = (stream.port.send_limit(), stream.loan.listed);
        let lacks = self.lacks(config, limit, listed);
        // With nothing queued it has room, and asks again when it has none.
        if lacks == 0 || stream.state.sending != Sending::Open || stream.port.is_drained() {
            stream.loan.waits = false;
            return true;
        }
        let part = Budget::worth(lacks.min(self.spare), lacks);
        if part == 0 {
            return false;
        }
        stream.loan.waits = false;
        // If the sender has raised the limit meanwhile it tries again, and asks again if that was too little.
        if stream.port.lend(limit, part as u32) {
            self.spare -= part;
        }
        wakes.offer_room(key, stream);
        self.list_borrower(streams, key);
        true
    }

    /// Discards the queue up to an ERROR that may be at its end: that stays, and this is its code.
    pub(crate) fn discard_before_error<P: StreamPort>(
        &mut self,
        stream: &mut Stream<P>,
    ) -> Option<u32> {
        let code = loop {
            match stream.port.front() {
                None => break None,
                Some(record) if record.tag == tx_tag::ERROR => {
                    let (code, ..) = super::failure::decode(record.payload.as_slice());
                    break Some(code);
                }
                Some(_) => {}
            }
            stream.port.pass();
        };
        stream.port.release();
        stream.sent = 0;
        self.settle(stream);
        code
    }

    /// The sending direction is over: queued messages are not sent.
    pub(crate) fn discard_queued<P: StreamPort>(&mut self, stream: &mut Stream<P>) {
        stream.forget_queued();
        self.settle(stream);
    }

    /// Lengths of the queues of keys, for tests.
    #[cfg(test)]
    pub(crate) fn queue_lengths(&self) -> [usize; 2] {
        [self.borrowers.len(), self.waiting.len()]
    }

    /// Whether returned bytes are left that should have been lent, or put back into the common budget; for tests.
    #[cfg(test)]
    pub(crate) fn has_to_lend(&self) -> bool {
        self.spare > 0 && (self.waiting.is_empty() || self.spare >= Budget::PART_MIN)
    }

    /// Bytes lent to streams, with those owed, and returned bytes not lent again; for tests.
    #[cfg(test)]
    pub(crate) fn books<P: StreamPort>(&self, streams: &mut Streams<P>) -> [u64; 2] {
        let lent = streams.iter_mut();
        let lent = lent.map(|(_, stream)| loan(stream) + stream.loan.owed());
        [lent.sum(), self.spare]
    }
}
