//! Calls between handles and the engine: one [`CallLink`] a session, one cell a call (`queue::cell`).
//!
//! ```text
//!   caller   spares ─► cell ─► list ─► engine ─► CALL           REPLY ─► engine ─► cell ─► caller's task ─► spares
//!   handler  engine ─► cell ─► incoming ─► acceptor's task      cell ─► list ─► engine ─► REPLY
//! ```
//! Cells of callers are kept in `spares` and those of handlers by the engine, [`SPARES_MAX`] of each, so that calls in a steady state
//! allocate nothing; they are freed when the session has had no call for a while (`core::idle`). A cell of a handler has a reference to its session's link, which its answer needs; one of a caller has none, as
//! the link keeps it while it is spare. Short requests and answers are parts of a common piece of memory ([`Pieces`]).

use std::sync::OnceLock;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use crossbeam_queue::ArrayQueue;

use super::sides::{EngineSide, HandleSide, TxRing};
use super::{SessionLink, request};
use crate::core::port::CallPort;
use crate::error::{SessionError, StreamError};
use crate::queue::cell::{self, AppSide, Cell, Spare};
use crate::queue::{Outstanding, ReadyList, RingOwner};
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicWaker, Ordering};

/// Cells that a session keeps for future calls, for each side of them: some 300 bytes each.
const SPARES_MAX: usize = 1024;
/// Room for an opening block that a cell keeps, in bytes, and as much for a short request.
const OPENING_KEPT: usize = 512;
/// Requests up to this many bytes are kept in their cell's own memory.
pub(crate) const SHORT_MAX: usize = OPENING_KEPT;
/// Payloads up to this many bytes are parts of a common piece of memory; longer ones have their own.
const PIECE_MAX: usize = 512;
/// The size of a common piece, in bytes: what the longest kept payload may keep from being freed.
const PIECES_BYTES: usize = 8 * 1024;
/// Pieces that are used in turn: one is free again when its payloads have been dropped.
const PIECES: usize = 4;

/// What a cell carries to the engine.
#[derive(Debug, Default)]
pub(crate) struct Out {
    /// Of a request.
    pub(crate) opening: Vec<u8>,
    /// A request of at most [`SHORT_MAX`] bytes, instead of `message`.
    pub(crate) short: BytesMut,
    /// The request or the answer; the encoded error of a failure. Of a call of the peer, the opening block and the request.
    pub(crate) message: Bytes,
    /// Of a call of the peer: bytes of its opening block, and when it was received.
    pub(crate) received: Option<(usize, Instant)>,
    /// When the engine cancels the call.
    pub(crate) deadline: Option<Instant>,
    /// What a handler did.
    pub(crate) end: Ended,
}

/// What a handler did with its call.
#[derive(Debug, Default)]
pub(crate) enum Ended {
    /// It was dropped; the caller sees a cancel with this code.
    #[default]
    Dropped,
    Answered,
    Failed,
    /// It goes on as a stream.
    Stream(EngineSide),
}

impl Out {
    #[inline]
    fn renew(&mut self) {
        self.opening.clear();
        if self.opening.capacity() > OPENING_KEPT {
            self.opening.shrink_to(OPENING_KEPT);
        }
        self.forget_message();
        self.received = None;
        self.deadline = None;
        self.end = Ended::Dropped;
    }

    fn message(&self) -> &[u8] {
        match self.message.is_empty() {
            true => &self.short,
            false => &self.message,
        }
    }

    #[inline]
    fn forget_message(&mut self) {
        self.short.clear();
        if !self.message.is_empty() {
            self.message = Bytes::new();
        }
    }

    /// The message, with memory of its own.
    pub(crate) fn take_message(&mut self) -> Bytes {
        let message = match self.message.is_empty() {
            true => Bytes::copy_from_slice(&self.short),
            false => std::mem::take(&mut self.message),
        };
        self.short.clear();
        message
    }
}

/// What a cell carries back.
#[derive(Debug)]
pub(crate) enum Back {
    /// With the time when it was received.
    Answer(Bytes, Instant),
    /// The answer is a stream.
    Stream(HandleSide),
    /// To a caller, instead of an answer; to a handler, whose caller has gone.
    End(StreamError),
}

/// What stays with a cell.
#[derive(Debug)]
pub(crate) struct CellHome {
    /// A handler's way to its session.
    link: Option<Arc<SessionLink>>,
    /// Bytes of the pool that are charged to it, as its session has ended, and that it gives back when it is freed.
    charge: AtomicU64,
}

impl CellHome {
    const fn new(link: Option<Arc<SessionLink>>) -> Self {
        Self {
            link,
            charge: AtomicU64::new(0),
        }
    }

    pub(crate) const fn link(&self) -> Option<&Arc<SessionLink>> {
        self.link.as_ref()
    }

    /// The session has ended, and a handler has not read its request: it stays charged to the process. Called once.
    fn charge(&self, bytes: u64) {
        if let Some(link) = &self.link {
            link.pool.charge(bytes);
            link.counters.bytes_held.add_shared(bytes);
            // ORDERING: pairs with `let_go`: the bytes were added before.
            self.charge.store(bytes, Ordering::Release);
        }
    }

    /// The handler has read it.
    #[inline]
    pub(crate) fn let_go(&self) {
        if self.charge.load(Ordering::Relaxed) > 0 {
            self.give_charge();
        }
    }

    #[cold]
    fn give_charge(&self) {
        // ORDERING: pairs with `charge`. The second of two callers finds 0.
        let bytes = self.charge.swap(0, Ordering::Acquire);
        if let Some(link) = &self.link {
            link.pool.give(bytes);
            link.counters.bytes_held.take_shared(bytes);
        }
    }
}

impl Drop for CellHome {
    fn drop(&mut self) {
        // Whichever side lets go of the cell last sees the charge.
        self.let_go();
    }
}

pub(crate) type CallCell = Cell<CellHome, Out, Back>;
pub(crate) type CallSpare = Spare<CellHome, Out, Back>;
pub(crate) type CallSide = AppSide<CellHome, Out, Back>;
/// The engine's side of a call.
pub(crate) type EngineCall = cell::EngineSide<CellHome, Out, Back>;

pub(in crate::bridge) type CallSent = cell::Sent<CellHome, Out, Back>;
pub(in crate::bridge) type CallActivated = cell::Activated<CellHome, Out, Back>;

/// A session's calls, as both sides see them.
pub(crate) struct CallLink {
    list: ReadyList<CallCell>,
    /// Calls of the peer that no handler has taken, `max_unaccepted` at most. It is made for the first acceptor: most sessions
    /// have none.
    incoming: OnceLock<ArrayQueue<CallSide>>,
    max_unaccepted: usize,
    /// The task that takes calls.
    acceptor: AtomicWaker,
    /// There is an acceptor.
    serving: AtomicBool,
    peer_takes: AtomicBool,
    /// Made for the first call.
    spares: OnceLock<ArrayQueue<CallSpare>>,
    /// What the answers weigh that the engine has given to callers.
    answers: Outstanding,
    /// Opening block and message of a call have this many bytes at most; 0: the wire has no calls.
    pub(crate) longest: usize,
}

impl CallLink {
    pub(in crate::bridge) fn new(max_unaccepted: usize, longest: usize) -> Self {
        Self {
            list: ReadyList::new(),
            incoming: OnceLock::new(),
            max_unaccepted,
            acceptor: AtomicWaker::new(),
            serving: AtomicBool::new(false),
            peer_takes: AtomicBool::new(false),
            spares: OnceLock::new(),
            answers: Outstanding::new(),
            longest,
        }
    }

    // ---- for callers ------------------------------------------------------------------------

    /// Whether the peer takes calls.
    pub(crate) fn peer_takes(&self) -> bool {
        self.longest > 0 && self.peer_takes.load(Ordering::Relaxed)
    }

    /// A cell for a call.
    pub(crate) fn spare(&self) -> CallSpare {
        let spare = self.spares.get().and_then(ArrayQueue::pop);
        spare.unwrap_or_else(|| Spare::new(CellHome::new(None), Out::default()))
    }

    /// A caller has read its answer, or has dropped its call.
    pub(crate) fn answer_read(&self, link: &SessionLink, answer: &Bytes) {
        let weight = weight(answer);
        if self.answers.take(weight) {
            link.pool.give(weight);
            link.counters.bytes_held.take_shared(weight);
        }
    }

    /// The same of a cell that the list did not take, as the session has ended.
    pub(crate) fn forget_answer(&self, link: &SessionLink, node: Arc<CallCell>) {
        if let cell::Activated::Cancelled(_, _, Some(Back::Answer(answer, _))) =
            Cell::activated(node)
        {
            self.answer_read(link, &answer);
        }
    }

    /// A caller is done with its cell: it is kept for another call, unless the engine still has it.
    pub(crate) fn reclaim(&self, side: CallSide) {
        if let Some(spare) = side.reclaim() {
            self.put_spare(spare);
        }
    }

    /// Keeps a cell for another call.
    pub(crate) fn put_spare(&self, mut spare: CallSpare) {
        spare.out().renew();
        let spares = self.spares.get_or_init(|| ArrayQueue::new(SPARES_MAX));
        drop(spares.push(spare));
    }

    /// The request of a cell that the list did not take, as the session has ended.
    pub(crate) fn take_back(node: Arc<CallCell>) -> Bytes {
        match Cell::activated(node) {
            cell::Activated::Asked(mut side, _) => {
                (side.out_mut()).map(Out::take_message).unwrap_or_default()
            }
            _ => Bytes::new(),
        }
    }

    /// Ends the stream that an answer would have become: no engine has its lane.
    pub(crate) fn refuse_stream(node: Arc<CallCell>, reason: &SessionError) {
        if let cell::Activated::Answered(_, sent) = Cell::activated(node) {
            Self::refuse_sent(sent, reason);
        }
    }

    pub(in crate::bridge) fn refuse_sent(mut sent: CallSent, reason: &SessionError) {
        let end = std::mem::replace(&mut sent.out_mut().end, Ended::Answered);
        if let Ended::Stream(side) = end {
            side.refuse(&StreamError::Session(reason.clone()));
        }
    }

    /// Puts a cell on the engine's list; gives it back if the session has ended.
    pub(crate) fn push(
        &self,
        link: &SessionLink,
        node: Arc<CallCell>,
    ) -> Result<(), Arc<CallCell>> {
        self.list.push(node)?;
        link.ring_after_push();
        Ok(())
    }

    /// Cells kept for callers.
    #[cfg(test)]
    pub(in crate::bridge) fn spares(&self) -> usize {
        self.spares.get().map_or(0, ArrayQueue::len)
    }

    // ---- for the acceptor ---------------------------------------------------------------------

    /// Becomes the one who takes calls; false if there is one.
    pub(crate) fn claim(&self, link: &SessionLink) -> bool {
        // ORDERING: pairs with `leave`: the one before has taken its waker back.
        let free = self
            .serving
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if free && self.longest > 0 {
            let new = || ArrayQueue::new(self.max_unaccepted);
            self.incoming.get_or_init(new);
            link.request(request::CALLS);
        }
        free
    }

    /// Takes no calls any more.
    pub(crate) fn leave(&self, link: &SessionLink) {
        drop(self.acceptor.take());
        // ORDERING: pairs with `claim`.
        self.serving.store(false, Ordering::Release);
        if self.longest > 0 {
            link.request(request::CALLS);
        }
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<CallSide> {
        self.incoming.get()?.pop()
    }

    /// Calls of the peer that no handler has taken, possibly outdated.
    pub(crate) fn waiting(&self) -> u32 {
        self.incoming.get().map_or(0, |queue| queue.len() as u32)
    }

    /// Has the acceptor's task woken when calls, or streams, have arrived; it then looks again.
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.acceptor.register(waker);
    }

    // ---- for the engine -----------------------------------------------------------------------

    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.list.is_empty()
    }

    pub(in crate::bridge) fn take_ready(&self) -> crate::queue::TakenNodes<CallCell> {
        self.list.take_all()
    }

    pub(in crate::bridge) fn takes(&self) -> bool {
        self.longest > 0 && self.serving.load(Ordering::Relaxed)
    }

    pub(in crate::bridge) fn set_peer_takes(&self, takes: bool) {
        self.peer_takes.store(takes, Ordering::Relaxed);
    }

    pub(in crate::bridge) fn offer(&self, offer: CallSide) -> bool {
        let queue = self.incoming.get();
        // The side of one that is refused is not to report that it was dropped.
        queue.is_some_and(|queue| queue.push(offer).is_ok())
    }

    #[inline]
    pub(in crate::bridge) fn wake_acceptor(&self) {
        self.acceptor.wake();
    }

    /// Frees the cells kept for callers.
    pub(in crate::bridge) fn drop_spares(&self) {
        let Some(spares) = self.spares.get() else {
            return;
        };
        while spares.pop().is_some() {}
    }

    /// Calls that no one will take.
    pub(in crate::bridge) fn drop_incoming(&self) {
        while self.pop().is_some() {}
    }

    pub(in crate::bridge) fn answer(&self, call: &mut EngineCall, answer: Bytes, at: Instant) {
        let weight = weight(&answer);
        // Before the caller can take it.
        self.answers.give(weight);
        if !call.give(Back::Answer(answer, at)) {
            let _open = self.answers.take(weight);
        }
    }

    /// The session has ended: answers that callers have not read stay charged to the process until they are read, or their
    /// calls are dropped. Called once.
    pub(in crate::bridge) fn charge_answers(&self, link: &SessionLink) {
        let held = &link.counters.bytes_held;
        let read = self.answers.close(|bytes| {
            if bytes > 0 {
                link.pool.charge(bytes);
                held.add_shared(bytes);
            }
        });
        if read > 0 {
            link.pool.give(read);
            held.take_shared(read);
        }
    }

    /// The session has ended: calls that the engine has not seen were not processed, and answers do not become streams.
    pub(in crate::bridge) fn close(&self, link: &SessionLink, reason: &SessionError) {
        for node in self.list.close() {
            match Cell::activated(node) {
                cell::Activated::Asked(mut side, _) => {
                    side.end(StreamError::NotProcessed(reason.clone()));
                    side.wake();
                }
                cell::Activated::Answered(_, sent) => Self::refuse_sent(sent, reason),
                cell::Activated::Cancelled(_, _, Some(Back::Answer(answer, _))) => {
                    self.answer_read(link, &answer);
                }
                cell::Activated::Cancelled(..) => {}
            }
        }
    }
}

/// What an answer weighs that is not read: as a message in a stream.
const fn weight(answer: &Bytes) -> u64 {
    answer.len() as u64 + TxRing::CHARGE as u64
}

impl CallPort for EngineCall {
    fn opening(&self) -> &[u8] {
        self.out().map_or(&[], |out| &out.opening)
    }

    fn message(&self) -> &[u8] {
        self.out().map_or(&[], Out::message)
    }

    fn forget_message(&mut self) {
        if let Some(out) = self.out_mut() {
            out.forget_message();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.out()?.deadline
    }

    fn is_taken(&self) -> bool {
        Self::is_taken(self)
    }

    fn set_key(&self, key: Option<u64>) {
        Self::set_key(self, key);
    }

    fn keep_charge(&self, bytes: u64) {
        if !self.is_read() {
            self.common().charge(bytes);
        }
    }

    fn end(&mut self, error: StreamError) {
        let _first = self.give(Back::End(error));
    }

    fn wake(&mut self) {
        Self::wake(self);
    }
}

/// What the engine keeps for the calls of its session.
#[derive(Debug, Default)]
pub(in crate::bridge) struct CallStore {
    pub(in crate::bridge) pieces: Pieces,
    /// Cells of handlers.
    spares: Vec<CallSpare>,
}

impl CallStore {
    pub(in crate::bridge) fn incoming(
        &mut self,
        link: &Arc<SessionLink>,
        payload: Bytes,
        opening: usize,
        received: Instant,
    ) -> (EngineCall, CallSide) {
        let spare = self.spares.pop();
        let new = || Spare::new(CellHome::new(Some(Arc::clone(link))), Out::default());
        let mut spare = spare.unwrap_or_else(new);
        let out = spare.out();
        out.message = payload;
        out.received = Some((opening, received));
        let (app, engine) = spare.offer();
        (engine, app)
    }

    /// Cells kept for handlers.
    #[cfg(test)]
    pub(in crate::bridge) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// A call has gone; its cell is kept if the application has let go of it too. One that it has not goes with it.
    pub(in crate::bridge) fn recycle(&mut self, call: EngineCall) {
        if self.spares.len() < SPARES_MAX
            && call
                .out()
                .is_some_and(|out| !matches!(out.end, Ended::Dropped))
            && let Some(mut spare) = call.reclaim()
        {
            spare.out().renew();
            self.spares.push(spare);
        }
    }
}

/// Memory for short payloads: each is a part of a common piece, of which a few are used in turn.
#[derive(Debug, Default)]
pub(in crate::bridge) struct Pieces {
    pieces: [BytesMut; PIECES],
    at: usize,
}

impl Pieces {
    pub(in crate::bridge) fn keep(&mut self, bytes: &[u8]) -> Bytes {
        match bytes.len() > PIECE_MAX {
            true => Bytes::copy_from_slice(bytes),
            false => self.keep_together(bytes),
        }
    }

    /// Several payloads, which the wire has made short.
    pub(in crate::bridge) fn keep_together(&mut self, bytes: &[u8]) -> Bytes {
        let piece = self.with_room(bytes.len());
        piece.extend_from_slice(bytes);
        piece.split().freeze()
    }

    fn with_room(&mut self, len: usize) -> &mut BytesMut {
        let piece = &self.pieces[self.at % PIECES];
        if piece.capacity() < len {
            self.at = (self.at + 1) % PIECES;
            let next = &mut self.pieces[self.at];
            if next.capacity() < len && !next.try_reclaim(PIECES_BYTES) {
                *next = BytesMut::with_capacity(PIECES_BYTES);
            }
        }
        &mut self.pieces[self.at % PIECES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_payloads_are_parts_of_pieces_that_are_used_again_once_they_are_dropped() {
        let mut pieces = Pieces::default();
        let mut places = std::collections::BTreeSet::new();
        for round in 0..10_000_u32 {
            let kept = pieces.keep(&round.to_le_bytes());
            assert_eq!(&kept[..], round.to_le_bytes());
            places.insert(kept.as_ptr().addr() / PIECES_BYTES);
        }
        assert!(places.len() <= 2 * PIECES, "{} pieces", places.len());
        // Each piece is kept by its payloads.
        let kept: Vec<_> = (0..100).map(|n| pieces.keep(&[n; PIECE_MAX])).collect();
        for (n, bytes) in kept.iter().enumerate() {
            assert_eq!(&bytes[..], [n as u8; PIECE_MAX]);
        }
        assert_eq!(pieces.keep(&[7; PIECE_MAX + 1]), &[7; PIECE_MAX + 1][..]);
    }
}
