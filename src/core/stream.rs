//! The engine's half of one stream.

use std::time::{Duration, Instant};

use super::port::{RecvEnd, SendEnd, StreamPort, tx_tag};
use super::state::{Sending, State};
use super::window::{RecvWindow, SendCredit, report_mark};
use crate::error::StreamError;

/// Rings up to this size are kept when a stream is idle, or over, in bytes.
pub(crate) const KEPT_BYTES: u64 = 4 * 1024;

/// Control frames that a stream owes the peer, as bits.
pub(crate) mod owed {
    /// CANCEL with the lane's code.
    pub(crate) const CANCEL: u8 = 1 << 0;
    /// CANCEL|STOP with the lane's code.
    pub(crate) const STOP: u8 = 1 << 1;
    /// WINDOW with all credit that can be returned.
    pub(crate) const WINDOW: u8 = 1 << 2;
    /// A bare FIN in answer to a STOP.
    pub(crate) const FIN: u8 = 1 << 3;
}

/// Which tasks of a stream are to be woken, as bits.
pub(crate) mod wake {
    pub(crate) const SENDER: u8 = 1 << 0;
    pub(crate) const RECEIVER: u8 = 1 << 1;
}

/// A message of which not all pieces have arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assembly {
    /// Its size, if the first piece had it.
    pub(crate) total: Option<u32>,
    pub(crate) received: u32,
    /// The cost of its frames so far.
    pub(crate) cost: u64,
    /// Start of the time without progress: when it began; moved on by the time that each piece may take at the least rate, and
    /// by the times in which it waited for this side. So a message that trickles falls behind like one that has stopped.
    pub(crate) since: Instant,
    /// Since when it waits for memory, or for the application to free room.
    pub(crate) starved: Option<Instant>,
    /// The pool gave it memory.
    pub(crate) given: bool,
    /// Its turns at the connection; without credit only.
    pub(crate) turns: Turns,
}

impl Assembly {
    /// `since`, if it waits for this side from then on until now.
    pub(crate) fn excused(&self, from: Instant, now: Instant) -> Instant {
        now.min(self.since + now.saturating_duration_since(from))
    }
}

/// A message's turns at a connection that is not always read. Bytes of the session are counted as time is for its rate: it is
/// behind if the peer has sent much of other streams, where a share of that could have been of this message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns {
    /// The bytes that the session had received when the message began; moved on by those of which each piece is a share.
    taken: u64,
    /// The part of the message that is counted.
    counted: u32,
}

impl Turns {
    /// A peer that sends of all streams in turn sends so much of each before it comes back to the first, or less.
    const ROUND: u64 = 256 * 1024;
    /// One part in this many of an equal share is enough.
    const SHARE: u64 = 4;

    /// So much of the message has been `received`, and `taken` of all `streams`.
    pub(crate) fn took(&mut self, received: u32, taken: u64, streams: usize) {
        let len = u64::from(received - self.counted);
        let share = len * Self::SHARE * streams as u64;
        self.taken = match self.counted {
            0 => taken,
            _ => taken.min(self.taken + share),
        };
        self.counted = received;
    }

    /// Whether the peer may not have come back to it.
    pub(crate) const fn is_behind(self, taken: u64, streams: usize) -> bool {
        taken - self.taken > Self::ROUND * streams as u64
    }
}

/// A time in half the size of an [`Instant`]: nanoseconds since the session began, enough for 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

impl Stamp {
    #[inline]
    pub(crate) fn new(start: Instant, now: Instant) -> Self {
        let since = now.saturating_duration_since(start);
        Self(since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos()))
    }

    /// The duration from an earlier time to this one.
    #[inline]
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Makes stamps: one for all events of a turn.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// When the session began.
    start: Instant,
    last: Instant,
    last_stamp: Stamp,
}

impl Stamps {
    pub(crate) const fn new(start: Instant) -> Self {
        Self {
            start,
            last: start,
            last_stamp: Stamp(0),
        }
    }

    #[inline]
    pub(crate) fn of(&mut self, now: Instant) -> Stamp {
        if now != self.last {
            self.last = now;
            self.last_stamp = Stamp::new(self.start, now);
        }
        self.last_stamp
    }
}

/// The stages of opening a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Opened by this side, not yet permitted by the peer.
    Waiting,
    /// Permitted; the OPEN is not encoded yet.
    Granted,
    /// The OPEN was sent.
    Sent,
    /// Opened by the peer.
    Received,
}

impl Opening {
    /// Both sides know of the stream.
    #[inline]
    pub(crate) const fn is_done(self) -> bool {
        matches!(self, Self::Sent | Self::Received)
    }
}

/// A stream's place in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Nowhere,
    Level,
    /// Its FIN or ERROR is next. Its key may be left in a level from before.
    Ends,
}

/// A stream's part of the accounts of the send budget.
#[derive(Debug, Default)]
pub(crate) struct Loan {
    /// Bytes by which the limit was lowered and that may still be queued: part of the budget.
    pub(super) owed: u32,
    /// The ring's released weight that is settled already: taken off `owed`, or released before anything was owed.
    pub(super) released: u64,
    /// Counted in `SendBudget::lent_to`.
    pub(super) listed: bool,
    /// In `SendBudget::waiting`.
    pub(super) waits: bool,
}

impl Loan {
    pub(crate) const fn owed(&self) -> u64 {
        self.owed as u64
    }
}

// There may be many streams, most of them idle, so fields that few need are boxed, and counters have no more
// bits than their bound needs.
#[cfg(all(target_pointer_width = "64", not(ringmux_loom)))]
const _: () = assert!(size_of::<Stream<u64>>() <= 128);

/// One stream of a session.
///
/// `state` has the frames that both sides have sent. These are facts of their own beside it:
/// * `opening`, whether the peer knows of the stream: one that waits for permission may be over before it was opened.
/// * `place` and the `listed` flags, which queues of the session hold its key. A key stays in its queue when the stream
///   does not belong there any more, and is dropped when it is the first; so its presence does not follow from the state.
#[derive(Debug)]
pub(crate) struct Stream<P> {
    /// The registry's, see `Key`.
    pub(crate) generation: u32,
    /// Its id on the wire, 0 until it has one.
    pub(crate) id: u32,
    pub(crate) opening: Opening,
    pub(crate) state: State,
    pub(crate) port: P,

    pub(crate) credit: SendCredit,
    /// Bytes sent of the message at the front of `tx`, which is shorter than 4 GiB.
    pub(crate) sent: u32,
    /// The rest of this turn in bytes, see `schedule`: a quantum at most, or negative by less than a frame.
    pub(crate) deficit: i32,
    pub(crate) urgency: u8,
    pub(crate) place: Place,
    /// A sender waits for room in `tx`.
    pub(crate) wants_room: bool,
    /// Room was made, or the handshake completed, since a sender last asked: it may have looked too early.
    pub(crate) made_room: bool,
    /// Its loan from the session's budget for sending.
    pub(crate) loan: Loan,

    pub(crate) window: RecvWindow,
    /// Bytes by which the window was raised since the stream was opened.
    pub(crate) widened: u32,
    /// The part of the consumed weight that is accounted.
    pub(crate) consumed: u64,
    /// Boxed: few streams have one, and only for messages of several frames.
    pub(crate) assembly: Option<Box<Assembly>>,
    /// The stream is in `Flow::starved`.
    pub(crate) listed_starved: bool,
    /// The stream is in `Grown`.
    pub(crate) listed_grown: bool,
    /// The receiver takes pieces as they arrive.
    pub(crate) chunks: bool,
    /// The receiving direction is over and the bytes it held were returned.
    pub(crate) discarded: bool,
    /// Bytes charged to the pool for messages still queued when the direction was discarded.
    pub(crate) lingering: u32,
    pub(crate) metas: u8,
    /// Session credit that the OPEN holds until the stream is accepted.
    pub(crate) open_charge: u32,
    /// When the window was last returned.
    pub(crate) last_return: Stamp,
    /// When the application last consumed something.
    pub(crate) last_progress: Stamp,

    /// Bits of `owed`.
    pub(crate) owes: u8,
    /// The code for an owed CANCEL or STOP.
    pub(crate) owed_code: u32,
    /// Bits of `wake`.
    pub(crate) wakes: u8,
    /// The stream is in `Receipts`.
    pub(crate) listed_unwritten: bool,
    /// No handle is left.
    pub(crate) dropped: bool,
}

impl<P: StreamPort> Stream<P> {
    pub(crate) fn new(
        port: P,
        id: u32,
        opening: Opening,
        (credit, window): (u32, u32),
        now: Stamp,
    ) -> Self {
        let urgency = port.urgency();
        Self {
            generation: 0,
            id,
            opening,
            state: State::OPEN,
            port,
            credit: SendCredit::new(credit),
            sent: 0,
            deficit: 0,
            urgency,
            place: Place::Nowhere,
            wants_room: false,
            // The first sender that asks tries again: the handshake may have completed meanwhile.
            made_room: true,
            loan: Loan::default(),
            window: RecvWindow::new(window),
            widened: 0,
            consumed: 0,
            assembly: None,
            listed_starved: false,
            listed_grown: false,
            chunks: false,
            discarded: false,
            lingering: 0,
            metas: 0,
            open_charge: 0,
            last_return: now,
            last_progress: now,
            owes: 0,
            owed_code: 0,
            wakes: 0,
            listed_unwritten: false,
            dropped: false,
        }
    }

    /// The peer has opened it.
    #[inline]
    pub(crate) fn of_peer(&self) -> bool {
        self.opening == Opening::Received
    }

    /// Ends both directions with one error and wakes all waiting tasks.
    pub(crate) fn end_both(&mut self, error: &StreamError) {
        self.port.end_send(SendEnd::Error(error.clone()));
        self.port.end_recv(RecvEnd::Error(error.clone()));
        self.port.wake_sender();
        self.port.wake_receiver();
    }

    /// Nothing more is received: drops pieces of an incomplete message, and continues the ring in a small segment, so
    /// that a receiver who reads to the end frees the large ones. Returns the bytes still queued.
    pub(crate) fn put_in_order(&mut self) -> u64 {
        if self.dropped {
            // The ring is freed with the lane.
            return 0;
        }
        self.port.retract();
        let grown = self.port.buffer_bytes();
        let grown = if grown > KEPT_BYTES && self.port.go_small() {
            grown
        } else {
            0
        };
        self.port.unconsumed().max(grown).min(u32::MAX.into())
    }

    /// Discards queued messages; the sender knows why.
    pub(crate) fn forget_queued(&mut self) {
        while self.port.pass() {}
        self.port.release();
        self.sent = 0;
    }

    /// Whether records are queued, also those that wait for credit.
    pub(crate) fn has_queued(&mut self) -> bool {
        self.opening.is_done() && self.state.sending == Sending::Open && !self.port.is_drained()
    }

    /// The next record is a FIN or ERROR, for which it needs no credit.
    #[inline]
    pub(crate) fn ends_next(&mut self) -> bool {
        let next = self.port.front();
        next.is_some_and(|record| matches!(record.tag, tx_tag::FIN | tx_tag::ERROR))
    }

    /// While a stream is starved its handle reports every release.
    pub(crate) fn set_starved(&mut self, starved: bool, now: Instant) {
        let Some(assembly) = &mut self.assembly else {
            return;
        };
        match (starved, assembly.starved) {
            (true, None) => assembly.starved = Some(now),
            (false, Some(from)) => {
                assembly.starved = None;
                assembly.since = assembly.excused(from, now);
            }
            _ => return,
        }
        let mark = match starved {
            true => 0,
            false => report_mark(self.window.target()),
        };
        self.port.set_credit_mark(mark);
    }

    /// The stream is needed neither by the peer, nor by the application, nor by the wire.
    pub(crate) const fn is_done(&self) -> bool {
        self.dropped && self.owes == 0 && self.state.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_as_exact_as_instants_and_last_for_centuries() {
        let start = Instant::now();
        let late = start + Duration::from_secs(500 * 365 * 24 * 3600);
        let step = Duration::from_nanos(2_000_000_001);
        let [first, then, after] = [start, late, late + step].map(|now| Stamp::new(start, now));
        assert_eq!(after.since(then), step);
        assert_eq!(then.since(first), late - start);
        assert_eq!(first.since(then), Duration::ZERO, "time does not go back");
        assert!(first < then && then < after);
    }
}
