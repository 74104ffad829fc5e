//! The two sides of a lane, and the ends of its rings that each may use.
//!
//! [`Lane::pair`] and [`Lane::pair_of_peer`] make both, once, and neither can be cloned. So each ring has one writer and one reader without any
//! counting at run time. A lane that both sides have left may be paired again ([`SpareLane`]):
//!
//! ```text
//!   HandleSide ──split──► Writer<TxRing>, Reader<RxRing>     in `open`, or by way of the accept queue
//!   EngineSide ─────────► Reader<TxRing>                     from the engine itself, or by way of OPEN on the ready list
//!                            └──back──► Writer of the other ring, while it is borrowed
//! ```

use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;

use super::SessionLink;
use super::lane::{Lane, SpareLane};
use crate::bridge::particulars::Particulars;
use crate::bridge::{RECORD_CHARGE, reason};
use crate::error::StreamError;
use crate::queue::{Reader, Ring, RingOwner, Writer};
use crate::sync::Arc;

/// The ring from handle to engine.
#[derive(Debug)]
pub(crate) struct TxRing(pub(crate) Arc<Lane>);

/// The ring from engine to handle.
#[derive(Debug)]
pub(crate) struct RxRing(pub(crate) Arc<Lane>);

// SAFETY: the rings are a field of a lane that this reference keeps alive and in place.
unsafe impl RingOwner for TxRing {
    const CHARGE: u32 = RECORD_CHARGE;

    fn ring(&self) -> Ring<'_> {
        self.0.rings().forth()
    }
}

/// The ring from engine to handle while its lane is borrowed: for the engine, whose end of the other ring keeps the lane.
#[derive(Debug)]
pub(crate) struct BorrowedRxRing<'a>(&'a Lane);

// SAFETY: the rings are a field of a lane that this borrows, and that stays in its place.
unsafe impl RingOwner for BorrowedRxRing<'_> {
    const CHARGE: u32 = RECORD_CHARGE;

    fn ring(&self) -> Ring<'_> {
        self.0.rings().back()
    }
}

// SAFETY: as for `TxRing`.
unsafe impl RingOwner for RxRing {
    const CHARGE: u32 = RECORD_CHARGE;

    fn ring(&self) -> Ring<'_> {
        self.0.rings().back()
    }
}

/// The application's side: sends into one ring and receives from the other.
#[derive(Debug)]
pub(crate) struct HandleSide(Arc<Lane>);

/// The engine's side.
#[derive(Debug)]
pub(crate) struct EngineSide(Arc<Lane>);

impl Lane {
    /// A lane for a stream of this side with this opening block.
    #[inline]
    pub(crate) fn pair(
        session: &Arc<SessionLink>,
        opening: Bytes,
        credit_mark: u32,
    ) -> (HandleSide, EngineSide) {
        let spare = session.take_spare();
        let of = Particulars::new(opening, &session.span, Self::DEFAULT_URGENCY);
        sides(SpareLane::or_new(spare, session, of, credit_mark, false))
    }

    /// A lane, if need be a new one, for a stream of the peer with this opening block, received now.
    #[inline]
    pub(in crate::bridge) fn pair_of_peer(
        spare: Option<SpareLane>,
        session: &Arc<SessionLink>,
        (opening, now): (&[u8], Instant),
        credit_mark: u32,
    ) -> (HandleSide, EngineSide) {
        let of = Particulars::of_peer(opening, now, &session.span, Self::DEFAULT_URGENCY);
        sides(SpareLane::or_new(spare, session, of, credit_mark, true))
    }

    /// Takes the reasons of a lane from the ready list. Records published before them are visible afterwards.
    pub(crate) fn activated(self: Arc<Self>) -> (Activated, u32) {
        let reasons = self.take_reasons();
        let lane = if reasons & reason::OPEN == 0 {
            Activated::Known(self)
        } else {
            // Raised by `EngineSide::open` alone, and taken here: once, as a side opens once.
            Activated::New(EngineSide(self))
        };
        (lane, reasons)
    }
}

#[inline]
fn sides(lane: Arc<Lane>) -> (HandleSide, EngineSide) {
    (HandleSide(Arc::clone(&lane)), EngineSide(lane))
}

/// A lane from the ready list.
#[derive(Debug)]
pub(crate) enum Activated {
    /// A handle has opened the stream.
    New(EngineSide),
    Known(Arc<Lane>),
}

impl HandleSide {
    pub(crate) const fn lane(&self) -> &Arc<Lane> {
        &self.0
    }

    /// Cancels a stream that no application gets.
    pub(in crate::bridge) fn abandon(self, code: u32) {
        self.0.cancel(code);
        self.0.release_half();
        self.0.release_half();
    }

    pub(crate) fn split(self) -> (Writer<TxRing>, Reader<RxRing>) {
        let sender = TxRing(Arc::clone(&self.0));
        // SAFETY: a lane has one `HandleSide`, which is consumed here: no other writer of its ring forth is made.
        let writer = unsafe { Writer::new(sender) };
        // SAFETY: as above, of its ring back.
        let reader = unsafe { Reader::new(RxRing(self.0)) };
        (writer, reader)
    }
}

impl EngineSide {
    pub(crate) const fn lane(&self) -> &Arc<Lane> {
        &self.0
    }

    /// Asks the engine of `session`, which is the lane's, to open the stream. It takes this side from the ready list, or
    /// drops it when it has ended.
    pub(crate) fn open(self, session: &SessionLink) {
        if self.0.raise_open(0) {
            session.activate(self.0);
        }
    }

    /// The same, where records to send are queued already.
    pub(crate) fn open_with_queued(self, session: &SessionLink) {
        if self.0.raise_open(reason::SEND) {
            session.activate(self.0);
        }
    }

    /// Ends a stream that will not be opened, for its waiting handles.
    pub(crate) fn refuse(self, error: &StreamError) {
        self.0.end_both(error);
        let mut tx = self.into_reader();
        tx.wake_sender();
        tx.back().wake_receiver();
    }

    /// The reader of the ring forth, which has the writer of the ring [`back`](Reader::back).
    pub(crate) fn into_reader(self) -> Reader<TxRing> {
        // SAFETY: a lane has one `EngineSide`, which is consumed here: no other reader of its ring forth is made.
        unsafe { Reader::new(TxRing(self.0)) }
    }
}

/// The sender, which waits for room, and for the end.
impl Writer<TxRing> {
    /// Registers `waker` for the sender's next event. To be followed by a check of its condition.
    #[inline]
    pub(crate) fn register(&mut self, waker: &Waker) {
        // SAFETY: a ring has one writer (`Writer::new`), and it is borrowed mutably.
        unsafe { self.owner().0.sender().register(waker) }
    }

    /// The sender does not wait any more.
    pub(crate) fn unregister(&mut self) {
        // SAFETY: as for `register`.
        unsafe { self.owner().0.sender().clear() }
    }
}

/// The engine, which reads sent records and makes room.
impl Reader<TxRing> {
    /// Wakes the sender if it waits.
    #[inline]
    pub(crate) fn wake_sender(&mut self) {
        // SAFETY: a ring has one reader (`Reader::new`), and it is borrowed mutably.
        unsafe { self.owner().0.sender().wake() }
    }

    /// The writer of the lane's other ring.
    #[inline(always)]
    pub(crate) fn back(&mut self) -> Writer<BorrowedRxRing<'_>> {
        // SAFETY: a lane has one reader of its ring forth, and it is borrowed mutably: no other writer of the ring back exists
        // meanwhile.
        unsafe { Writer::new(BorrowedRxRing(&self.owner().0)) }
    }
}

/// The engine, which writes received records.
impl Writer<BorrowedRxRing<'_>> {
    /// Wakes the receiver if it waits.
    #[inline]
    pub(crate) fn wake_receiver(&mut self) {
        // SAFETY: this writer borrows the only reader of the ring forth (`back`): nothing else wakes the receiver meanwhile.
        unsafe { self.owner().0.receiver().wake() }
    }
}

/// The receiver, which waits for messages, and for the end.
impl Reader<RxRing> {
    /// Registers `waker` for the receiver's next event. To be followed by a check of its condition.
    #[inline]
    pub(crate) fn register(&mut self, waker: &Waker) {
        // SAFETY: a ring has one reader (`Reader::new`), and it is borrowed mutably.
        unsafe { self.owner().0.receiver().register(waker) }
    }

    /// The receiver does not wait any more.
    pub(crate) fn unregister(&mut self) {
        // SAFETY: as for `register`.
        unsafe { self.owner().0.receiver().clear() }
    }
}
