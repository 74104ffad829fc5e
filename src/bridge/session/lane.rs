//! The memory that one stream's handles and the engine share.

use std::fmt;
use std::time::Instant;

use super::SessionLink;
use crate::bridge::asked::Asked;
use crate::bridge::particulars::Particulars;
use crate::bridge::{reason, trace};
use crate::core::port::{RecvEnd, SendEnd};
use crate::core::{SEND_FLOOR, URGENCIES};
use crate::error::{SessionError, StreamError};
use crate::queue::step::{Step, reached};
use crate::queue::{Limit, Node, Permit, Reasons, Receipt, RingPair, SetOnce, WakerSlot};
use crate::sync::{Arc, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The stages of `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenState {
    /// Waits for the peer's permission.
    Waiting,
    /// Permitted: messages sent from now on follow the OPEN.
    Granted,
}

/// The other bits are no key, but how many bytes of the pool are charged to the lane. The engine has not registered it, or its
/// session has ended.
const CHARGE: u64 = 1 << 63;

/// The key of the engine's half, which only the engine reads or writes; after the session's end, the lane's charge, see
/// [`CHARGE`].
#[derive(Debug)]
pub(crate) struct KeyOrCharge(AtomicU64);

impl KeyOrCharge {
    fn new() -> Self {
        Self(AtomicU64::new(CHARGE))
    }

    pub(crate) fn key(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|key| key & CHARGE == 0)
    }

    pub(crate) fn set_key(&self, key: u64) {
        debug_assert!(key & CHARGE == 0, "a generation has 31 bits");
        self.0.store(key, Ordering::Relaxed);
    }

    fn charge(&self, bytes: u64) {
        debug_assert!(bytes & CHARGE == 0);
        // ORDERING: pairs with `take_charge`: the bytes were added before.
        self.0.store(CHARGE | bytes, Ordering::Release);
    }

    #[inline]
    fn has_charge(&self) -> bool {
        // While the session lives the word belongs to the engine.
        self.0.load(Ordering::Relaxed) > CHARGE
    }

    fn take_charge(&self) -> u64 {
        // ORDERING: pairs with `charge`. The second of two callers finds 0.
        self.0.swap(CHARGE, Ordering::Acquire) & !CHARGE
    }
}

// Six cache lines, and one more for its reference counts: the cost of every idle stream, besides two small handles.
#[cfg(not(ringmux_loom))]
const _: () = {
    assert!(size_of::<Lane>() == 6 * 64);
    assert!(std::mem::offset_of!(Lane, next) == 4 * 64);
    assert!(std::mem::offset_of!(Lane, session) == 5 * 64);
};

/// One stream, as both sides see it. In order of its cache lines: those of the rings, one that both sides write, and one
/// that is read often and rarely written.
#[repr(C)]
pub(crate) struct Lane {
    /// Forth: from handles to engine; back: from engine to handles.
    rings: RingPair,

    next: AtomicPtr<Self>,
    /// Woken when the sender has room, when the stream is opened, and when the direction ends.
    sender: WakerSlot,
    /// Woken when there is a message to receive, and when the direction ends.
    receiver: WakerSlot,
    reasons: Reasons,
    /// The stream's id on the wire, 0 until it is known.
    id: AtomicU32,

    session: Arc<SessionLink>,
    tx_end: SetOnce<SendEnd>,
    rx_end: SetOnce<RecvEnd>,
    pub(crate) particulars: Particulars,
    pub(crate) key: KeyOrCharge,
    pub(crate) asked: Asked,
    /// Consumed weight after which the receiver raises CREDIT: see `core::window`.
    credit_mark: AtomicU32,
    /// Weight that the sender may have queued, from [`SEND_FLOOR`] to `send_buffer`.
    send_limit: Limit,
    /// Halves that an application still holds.
    handles: AtomicU8,
    /// Whether the peer permits the stream.
    pub(crate) permit: Permit,
    /// The sender's request for a receipt, and its answer, which wakes the sender.
    pub(crate) receipt: Receipt,
    /// Made by the engine, for a stream of the peer: so are the streams that it is used for later.
    pub(in crate::bridge) of_engine: bool,
}

/// A lane whose stream has gone, kept for another stream of its session. It has no other owner.
#[derive(Debug)]
pub(crate) struct SpareLane(Arc<Lane>);

impl SpareLane {
    /// `None` if the last handle dropped has not released the lane yet, or never will, as it was forgotten.
    pub(in crate::bridge) fn new(mut lane: Arc<Lane>) -> Option<Self> {
        Arc::get_mut(&mut lane)?.renew();
        Some(Self(lane))
    }

    /// A lane with two handles: the spare one, if there is one.
    #[inline(always)]
    pub(super) fn or_new(
        spare: Option<Self>,
        session: &Arc<SessionLink>,
        particulars: Particulars,
        credit_mark: u32,
        of_engine: bool,
    ) -> Arc<Lane> {
        match spare {
            Some(spare) => spare.reuse(particulars, credit_mark),
            None => Lane::new(Arc::clone(session), particulars, credit_mark, of_engine),
        }
    }

    /// As [`Lane::new`].
    #[inline(always)]
    fn reuse(self, particulars: Particulars, credit_mark: u32) -> Arc<Lane> {
        let Self(lane) = self;
        lane.set_credit_mark(credit_mark);
        match particulars.is_none() {
            true => lane,
            false => Self(lane).with(particulars),
        }
    }

    #[inline(never)]
    fn with(self, particulars: Particulars) -> Arc<Lane> {
        let Self(mut lane) = self;
        let alone = Arc::get_mut(&mut lane).expect("no one else has a spare lane");
        alone.particulars = particulars;
        lane
    }
}

impl Lane {
    /// A lane with two handles.
    #[inline(never)]
    fn new(
        session: Arc<SessionLink>,
        particulars: Particulars,
        credit_mark: u32,
        of_engine: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            rings: RingPair::new(),
            next: AtomicPtr::new(std::ptr::null_mut()),
            sender: WakerSlot::new(),
            receiver: WakerSlot::new(),
            reasons: Reasons::new(),
            id: AtomicU32::new(0),
            session,
            tx_end: SetOnce::new(),
            rx_end: SetOnce::new(),
            particulars,
            key: KeyOrCharge::new(),
            asked: Asked::new(Self::DEFAULT_URGENCY),
            credit_mark: AtomicU32::new(credit_mark),
            send_limit: Limit::new(SEND_FLOOR),
            handles: AtomicU8::new(2),
            permit: Permit::new(),
            receipt: Receipt::new(),
            of_engine,
        })
    }

    /// Resets the lane for another stream of the same session: the caller sets the fields that depend on the
    /// arguments of [`Lane::new`].
    fn renew(&mut self) {
        self.let_go();
        let Self {
            rings,
            next: _,
            sender,
            receiver,
            reasons,
            id,
            session: _,
            tx_end,
            rx_end,
            particulars,
            key,
            asked,
            credit_mark: _,
            send_limit,
            handles,
            permit,
            receipt,
            of_engine: _,
        } = self;
        rings.renew();
        *sender = WakerSlot::new();
        *receiver = WakerSlot::new();
        *reasons = Reasons::new();
        *tx_end = SetOnce::new();
        *rx_end = SetOnce::new();
        *particulars = Particulars::none();
        *key = KeyOrCharge::new();
        *id = AtomicU32::new(0);
        *asked = Asked::new(Self::DEFAULT_URGENCY);
        *send_limit = Limit::new(SEND_FLOOR);
        *handles = AtomicU8::new(2);
        *permit = Permit::new();
        *receipt = Receipt::new();
    }

    /// RFC 9218 §4.1: urgency 3 unless said otherwise, 0 most urgent, 7 least.
    pub(crate) const DEFAULT_URGENCY: u8 = 3;
    /// Levels of urgency.
    pub(crate) const URGENCIES: usize = URGENCIES;

    pub(super) const fn rings(&self) -> &RingPair {
        &self.rings
    }

    pub(super) const fn sender(&self) -> &WakerSlot {
        &self.sender
    }

    pub(super) const fn receiver(&self) -> &WakerSlot {
        &self.receiver
    }

    pub(crate) fn session(&self) -> &Arc<SessionLink> {
        &self.session
    }

    // ---- for handles ------------------------------------------------------------------------

    /// Asks the engine to look at this lane. Costs one read-modify-write; the first since the engine last looked also pushes
    /// the lane and, if the engine sleeps, wakes it. On the engine's own thread, repeating a pending reason costs
    /// two loads.
    #[inline]
    pub(crate) fn raise(self: &Arc<Self>, reasons: u32) {
        debug_assert!(reasons & reason::OPEN == 0, "by `EngineSide::open` alone");
        reached(Step::Published);
        if self.reasons.raise_near(&self.session.home, reasons) {
            reached(Step::Raised);
            self.session.activate(Arc::clone(self));
        }
    }

    /// Asks for the stream to be opened, for [`EngineSide::open`](super::sides::EngineSide::open); false if the lane is on the ready list already.
    pub(super) fn raise_open(&self, others: u32) -> bool {
        self.reasons.raise(reason::OPEN | others)
    }

    pub(crate) fn cancel(self: &Arc<Self>, code: u32) {
        self.asked.set_cancel_code(code);
        self.raise(reason::CANCEL);
    }

    pub(crate) fn stop(self: &Arc<Self>, code: u32) {
        self.asked.set_stop_code(code);
        self.raise(reason::STOP);
    }

    /// Asks for a receipt for everything queued so far.
    pub(crate) fn ask_written(self: &Arc<Self>) {
        self.receipt.ask();
        self.raise(reason::WRITTEN);
    }

    /// The engine cancels the stream at this time, or never.
    pub(crate) fn set_deadline(self: &Arc<Self>, at: Option<Instant>) {
        if self.particulars.set_deadline(at, self.session.begun) {
            self.raise(reason::DEADLINE);
        }
    }

    /// The receiver takes the pieces of messages as they arrive from now on, or whole messages.
    pub(crate) fn take_chunks(self: &Arc<Self>, chunks: bool) {
        self.asked.set_chunks(chunks);
        self.raise(reason::CHUNKS);
    }

    pub(crate) fn set_urgency(self: &Arc<Self>, urgency: u8) {
        self.asked.set_urgency(urgency);
        trace::urgency(self.particulars.span(), urgency);
        self.raise(reason::URGENCY);
    }

    /// One half is dropped; the last one notifies the engine.
    pub(crate) fn release_half(self: &Arc<Self>) {
        // ORDERING: AcqRel, and Acquire, pair with the other half's release_half, so that its accesses to its ring
        // come before the DROPPED that the last one raises. A half that is alone stays alone: it need not count.
        if self.handles.load(Ordering::Acquire) == 1
            || self.handles.fetch_sub(1, Ordering::AcqRel) == 1
        {
            self.raise(reason::DROPPED);
        }
    }

    pub(crate) fn open_state(&self) -> OpenState {
        match self.permit.is_granted() {
            true => OpenState::Granted,
            false => OpenState::Waiting,
        }
    }

    pub(crate) fn send_end(&self) -> Option<&SendEnd> {
        self.tx_end.get()
    }

    pub(crate) fn recv_end(&self) -> Option<&RecvEnd> {
        self.rx_end.get()
    }

    /// The end of a stream in a forked child, which inherited it; to be checked before waiting.
    #[inline]
    pub(crate) fn inherited_end(&self) -> Option<StreamError> {
        if !self.session.is_inherited() {
            return None;
        }
        Some(StreamError::Session(SessionError::EngineStopped))
    }

    pub(crate) fn credit_mark(&self) -> u32 {
        self.credit_mark.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn send_limit(&self) -> u32 {
        self.send_limit.get()
    }

    /// Raises the sender's limit out of the common budget. False if it is at its most, or too little is left.
    pub(crate) fn grow_send_limit(self: &Arc<Self>) -> bool {
        let session = &self.session;
        loop {
            let limit = self.send_limit.get();
            let want = session.send_buffer.saturating_sub(limit);
            let has = u64::from(limit - SEND_FLOOR);
            let part = session.send_budget.take(has, u64::from(want));
            if part == 0 {
                return false;
            }
            // At most the size wanted.
            if self.send_limit.grow(limit, part as u32) {
                self.raise(reason::GREW);
                return true;
            }
            session.send_budget.give(part);
        }
    }

    /// The stream's id on the wire, `None` before its OPEN was sent.
    pub(crate) fn id(&self) -> Option<u32> {
        Some(self.id.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    // ---- for the engine ---------------------------------------------------------------------

    /// See [`activated`](Self::activated).
    pub(super) fn take_reasons(&self) -> u32 {
        self.reasons.take()
    }

    /// The session has ended: bytes queued in the lane stay charged to the process until its receiver has read to the end,
    /// or the handles are gone. Called once.
    pub(crate) fn charge(&self, bytes: u64) {
        if bytes > 0 {
            self.session.pool.charge(bytes);
            self.session.counters.bytes_held.add_shared(bytes);
        }
        self.key.charge(bytes);
    }

    /// The lane holds no bytes for its receiver any more.
    #[inline]
    pub(crate) fn let_go(&self) {
        if self.key.has_charge() {
            self.give_charge();
        }
    }

    #[cold]
    fn give_charge(&self) {
        let bytes = self.key.take_charge();
        self.session.pool.give(bytes);
        self.session.counters.bytes_held.take_shared(bytes);
    }

    pub(crate) fn set_id(&self, id: u32) {
        self.id.store(id, Ordering::Relaxed);
        self.particulars.trace_id(id);
    }

    pub(crate) fn set_credit_mark(&self, bytes: u32) {
        self.credit_mark.store(bytes, Ordering::Relaxed);
    }

    /// Raises the sender's limit, unless it has changed; the caller wakes the sender if it waits.
    pub(crate) fn lend(&self, seen: u32, by: u32) -> bool {
        self.send_limit.grow(seen, by)
    }

    /// Lowers the sender's limit; returns by how much. Records for which the sender has raised a reason are visible
    /// afterwards; otherwise it queues one message at most before it sees the new limit.
    pub(crate) fn lower_send_limit(&self, to: u32) -> u32 {
        let by = self.send_limit.lower(to);
        self.reasons.touch();
        by
    }

    /// The peer permits the stream. The caller wakes the sender if it waits.
    pub(crate) fn grant(&self) {
        self.permit.grant();
    }

    /// Weight that the application has consumed from the `rx` ring since the start.
    pub(crate) fn consumed(&self) -> u64 {
        self.rings.back().released()
    }

    /// Ends the sending direction; the first end stays.
    pub(crate) fn end_send(&self, end: SendEnd) {
        let _ = self.tx_end.set(end);
    }

    /// Ends the receiving direction; the first end stays.
    pub(crate) fn end_recv(&self, end: RecvEnd) {
        static FINISHED: RecvEnd = RecvEnd::Finished;
        let _first = match end {
            RecvEnd::Finished => self.rx_end.set_static(&FINISHED),
            end => fail_recv(self, end),
        };
    }

    /// Whether both directions have ended, or can only end, without an error. Asked when the stream is over.
    pub(crate) fn ended_in_order(&self) -> bool {
        let finished = matches!(self.recv_end(), Some(RecvEnd::Finished));
        finished && self.send_end().is_none() && !self.asked.is_failing()
    }

    /// Ends both directions with one error. The caller wakes the waiting tasks.
    pub(crate) fn end_both(&self, error: &StreamError) {
        self.end_send(SendEnd::Error(error.clone()));
        self.end_recv(RecvEnd::Error(error.clone()));
    }
}

/// As [`Lane::end_recv`] with an error.
#[inline(never)]
fn fail_recv(lane: &Lane, end: RecvEnd) -> bool {
    if !lane.rx_end.is_set() {
        trace::ended(lane.particulars.span(), &end);
    }
    lane.rx_end.set(end).is_ok()
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("id", &self.id())
            .field("reasons", &self.reasons.peek())
            .field("send_end", &self.send_end())
            .field("recv_end", &self.recv_end())
            .finish_non_exhaustive()
    }
}

// SAFETY: `next` is written only by the list, and a lane is on it at most once (`raise`
// pushes only when the reason word was 0, which the engine sets after it took the lane off).
unsafe impl Node for Lane {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}
