//! What a session has queued for sending as a whole: `session_send_buffer`, beside [`SEND_FLOOR`] bytes and one message
//! for each stream.
//!
//! Each sender has a limit in its lane. It starts at the floor, and what it has above that, its loan, comes out of the
//! session's budget. While there is plenty senders take it themselves, without the engine (`queue::budget`), and tell
//! afterwards (GREW). A sender that finds too little there asks (MORE). From then on it is up to this file, on the
//! engine's thread:
//!
//! * Streams that have nothing queued give their loans back.
//! * If the one that asks has less than its share, which is the budget divided by the borrowers, those that have more are
//!   lowered to it. What they have queued above their new limit is *owed*: it comes back as it is sent.
//! * What comes back goes to those that wait for their share, in order, and then to whoever takes it.
//!
//! Nobody is refused anything: senders wait, as they do for room. No stream waits for the budget with an empty ring, since
//! that admits any message, and each time its own ring drains it is woken and may ask again; so nothing here can stop a
//! stream. One that has its share is not told when there is more: it finds it when it asks next.
//!
//! # Invariants
//! 1. `budget left + spare + Σ (limit − floor + owed)` is the budget.
//! 2. A stream has queued at most `limit + owed` bytes, and one message. It is true when the sender looks; lowering moves
//!    bytes from one to the other; and what is released is taken off `owed` at most once. The one message is what a
//!    sender queues that has looked before the limit was lowered (`queue::budget`), or what an empty ring admits.
//!
//! # Cost
//! Nothing per message, a comparison per turn of a stream. A turn of the session looks at [`LOOKS`] borrowers at most.

use std::collections::VecDeque;

use super::connection::Connection;
use super::registry::Key;
use super::schedule::Place;
use super::state::Sending;
use super::stream::Stream;
use crate::link::{Lane, SEND_FLOOR};
use crate::queue::Budget;

/// Borrowers that a turn looks at.
const LOOKS: usize = 8;

/// The session's part.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Came back from streams and went to nobody yet, in bytes.
    spare: u64,
    /// Streams with a loan, in rotation, and keys of some that have gone.
    borrowers: VecDeque<Key>,
    /// Streams with a loan.
    lent_to: u64,
    /// Streams that have asked and have less than their share, in order.
    waiting: VecDeque<Key>,
    /// Borrowers that may still be looked at in this turn.
    looks: usize,
}

/// A stream's part.
#[derive(Debug, Default)]
pub(super) struct Loan {
    /// The limit was lowered by so much that may still be queued, in bytes: a part of the budget.
    owed: u32,
    /// Of the weight that the ring has released, what was taken off `owed`, or came before it.
    released: u64,
    /// Counted in `Outbound::lent_to`.
    listed: bool,
    /// In `Outbound::waiting`.
    waits: bool,
}

impl Outbound {
    /// Something has come back that others may have.
    pub(super) const fn has_spare(&self) -> bool {
        self.spare > 0
    }

    /// To be called when a stream's ring has released something, or its sending direction has ended.
    #[inline]
    pub(super) fn settle(&mut self, stream: &mut Stream) {
        let Loan { owed, listed, .. } = stream.loan;
        if owed > 0 || (listed && stream.state.sending != Sending::Open) {
            self.take_what_came_back(stream);
        }
    }

    #[cold]
    fn take_what_came_back(&mut self, stream: &mut Stream) {
        if stream.state.sending != Sending::Open {
            return self.end(stream);
        }
        let released = stream.tx.released();
        let since = released - std::mem::replace(&mut stream.loan.released, released);
        let back = since.min(stream.loan.owed.into());
        stream.loan.owed -= back as u32;
        self.spare += back;
    }

    /// The stream sends nothing any more: all comes back.
    pub(super) fn end(&mut self, stream: &mut Stream) {
        self.spare += u64::from(std::mem::take(&mut stream.loan.owed));
        self.take_back(stream.lane());
        self.lent_to -= u64::from(std::mem::take(&mut stream.loan.listed));
    }

    /// All that is above the floor; of a lane that has no stream any more, or never had one.
    pub(super) fn take_back(&mut self, lane: &Lane) {
        if lane.send_limit() > SEND_FLOOR {
            self.spare += u64::from(lane.lower_send_limit(SEND_FLOOR));
        }
    }

    /// Lowers a stream's limit. What it cannot have queued is there at once.
    fn recall(&mut self, stream: &mut Stream, to: u32) {
        debug_assert_eq!(stream.tx.passed_weight(), 0, "released with each turn");
        self.take_what_came_back(stream);
        stream.loan.owed += stream.lane().lower_send_limit(to);
        if stream.tx.is_empty() {
            self.spare += u64::from(std::mem::take(&mut stream.loan.owed));
        }
    }
}

/// What a stream has of the budget, but for what it owes.
fn loan(stream: &Stream) -> u64 {
    u64::from(stream.lane().send_limit() - SEND_FLOOR)
}

/// Whether its sender would take something of so much.
fn could_take(stream: &Stream, left: u64) -> bool {
    let want = stream.lane().session().send_buffer - stream.lane().send_limit();
    Budget::part(left, loan(stream), u64::from(want)) > 0
}

impl Connection {
    pub(super) fn begin_outbound_turn(&mut self) {
        self.outbound.looks = LOOKS;
    }

    /// A sender has taken something of the budget by itself.
    pub(super) fn note_loan(&mut self, lane: &Lane) {
        let key = lane.key().map(Key::from_bits);
        let Some((key, stream)) = key.and_then(|key| Some((key, self.registry.get_mut(key)?)))
        else {
            return self.outbound.take_back(lane);
        };
        if stream.state.sending == Sending::Open {
            self.list_borrower(key);
        } else {
            self.outbound.end(stream);
        }
    }

    /// The stream has a loan.
    pub(super) fn list_borrower(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if !std::mem::replace(&mut stream.loan.listed, true) {
            self.outbound.lent_to += 1;
            self.outbound.borrowers.push_back(key);
            (self.registry).prune(&mut self.outbound.borrowers, |stream| stream.loan.listed);
        }
    }

    /// A sender wants a higher limit and has found too little of the budget.
    pub(super) fn ask_for_more(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.state.sending != Sending::Open {
            return;
        }
        let (limit, listed) = (stream.lane().send_limit(), stream.loan.listed);
        let lacks = self.lacks(limit, listed);
        self.outbound.spare += self.link.send_budget.take_all();
        self.gather(key, lacks);
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if lacks > 0 {
            if !std::mem::replace(&mut stream.loan.waits, true) {
                self.outbound.waiting.push_back(key);
                (self.registry).prune(&mut self.outbound.waiting, |stream| stream.loan.waits);
            }
        } else if self.outbound.waiting.is_empty() && could_take(stream, self.outbound.spare) {
            // As soon as `serve_waiting` has given it back.
            Self::offer_room(&mut self.wakes, key, stream);
        }
    }

    /// What a stream with this limit may still have of its share; 0 if that is not worth it.
    fn lacks(&self, limit: u32, listed: bool) -> u64 {
        let most = u64::from(self.config.send_buffer() - SEND_FLOOR);
        let loan = u64::from(limit - SEND_FLOOR);
        let share = self.share(u64::from(!listed));
        Budget::worth(share.min(most).saturating_sub(loan), most - loan)
    }

    fn share(&self, newcomers: u64) -> u64 {
        let budget = u64::from(self.config.session_send_buffer());
        budget / (self.outbound.lent_to + newcomers).max(1)
    }

    /// Looks for loans that their streams do not need, and if the asker or one that waits lacks some of its share, for
    /// those that have more than theirs.
    fn gather(&mut self, asker: Key, lacks: u64) {
        let enough = u64::from(self.config.send_buffer());
        let short = lacks > 0 || !self.outbound.waiting.is_empty();
        while self.outbound.looks > 0 && self.outbound.spare < enough {
            self.outbound.looks -= 1;
            let share = self.share(u64::from(short));
            let Some(key) = self.outbound.borrowers.pop_front() else {
                return;
            };
            let Some(stream) = self.registry.get_mut(key) else {
                continue;
            };
            let limit = stream.lane().send_limit();
            if stream.place == Place::Nowhere && stream.tx.is_empty() && key != asker {
                self.outbound.recall(stream, SEND_FLOOR);
            } else if short && loan(stream) > share {
                // At least a part, and as little below the share as that makes it.
                let by = (loan(stream) - share).max(Budget::PART_MIN);
                let to = u64::from(limit).saturating_sub(by) as u32;
                self.outbound.recall(stream, to.max(SEND_FLOOR));
            }
            if stream.loan.listed && loan(stream) + stream.loan.owed() == 0 {
                stream.loan.listed = false;
                self.outbound.lent_to -= 1;
            }
            if stream.loan.listed {
                self.outbound.borrowers.push_back(key);
            }
        }
    }

    /// Gives what has come back to those that wait for their share, and what is left then to whoever takes it.
    pub(super) fn serve_waiting(&mut self) {
        if self.outbound.spare == 0 {
            return;
        }
        while let Some(key) = self.outbound.waiting.front().copied() {
            if !self.serve(key) {
                return;
            }
            self.outbound.waiting.pop_front();
        }
        let spare = std::mem::take(&mut self.outbound.spare);
        self.link.send_budget.give(spare);
    }

    /// False if what there is does not do for this stream.
    fn serve(&mut self, key: Key) -> bool {
        let Some(stream) = self.registry.get_mut(key) else {
            return true;
        };
        // Read once: the sender may raise it at any time, and what is lent on top must be what this limit lacks.
        let (limit, listed) = (stream.lane().send_limit(), stream.loan.listed);
        let lacks = self.lacks(limit, listed);
        let Some(stream) = self.registry.get_mut(key) else {
            return true;
        };
        // With nothing queued it has room, and asks again when it has not.
        if lacks == 0 || stream.state.sending != Sending::Open || stream.tx.is_empty() {
            stream.loan.waits = false;
            return true;
        }
        let part = Budget::worth(lacks.min(self.outbound.spare), lacks);
        if part == 0 {
            return false;
        }
        stream.loan.waits = false;
        // If it has taken something itself meanwhile it looks again, and asks again if that was too little.
        if stream.lane().lend(limit, part as u32) {
            self.outbound.spare -= part;
        }
        Self::offer_room(&mut self.wakes, key, stream);
        self.list_borrower(key);
        true
    }

    /// How long the queues of keys are, for tests.
    #[cfg(test)]
    pub(super) fn outbound_queues(&self) -> [usize; 2] {
        [self.outbound.borrowers.len(), self.outbound.waiting.len()]
    }

    /// Whether something came back that somebody could have by now; for tests.
    #[cfg(test)]
    pub(super) fn has_to_lend(&self) -> bool {
        let Outbound { spare, waiting, .. } = &self.outbound;
        *spare > 0 && (waiting.is_empty() || *spare >= Budget::PART_MIN)
    }

    /// What streams have of the budget, what nobody has, and what waits to be given on; for tests.
    #[cfg(test)]
    pub(super) fn outbound_books(&mut self) -> [u64; 3] {
        let streams = self.registry.iter_mut();
        let lent = streams.map(|(_, stream)| loan(stream) + stream.loan.owed());
        let lent = lent.sum();
        [lent, self.link.send_budget.left(), self.outbound.spare]
    }
}

impl Loan {
    pub(super) const fn owed(&self) -> u64 {
        self.owed as u64
    }
}
