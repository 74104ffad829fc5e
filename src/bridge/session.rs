//! The memory that a session's handles and the engine share: one [`SessionLink`] a session, and below it the lanes of its
//! streams.

pub(crate) mod calls;
pub(crate) mod lane;
pub(crate) mod sides;
mod unaccepted;

use std::fmt;
use std::sync::Arc as StdArc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use self::calls::CallLink;
use super::drain::{Drain, Drained};
use super::info::Info;
use super::ledger::{Account, Entry};
use super::opens::OpenPermits;
use super::pings::Pings;
use super::pool::Pool;
use super::stats::SessionStats;
use super::trace;
use crate::error::{SessionError, StreamError};
use crate::queue::step::{Step, reached};
use crate::queue::{
    Budget, Doorbell, Home, Process, ReadyList, Reasons, SetOnce, TakenNodes, Teardown, WakerSet,
};
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use lane::{Lane, SpareLane};
use unaccepted::Unaccepted;

/// Requests of handles to the session itself.
pub(crate) mod request {
    /// Measure the round trip.
    pub(crate) const PING: u32 = 1 << 0;
    /// End in order.
    pub(crate) const CLOSE: u32 = 1 << 1;
    /// The last `Session` is gone.
    pub(crate) const ORPHANED: u32 = 1 << 2;
    /// End when the streams have.
    pub(crate) const SHUTDOWN: u32 = 1 << 3;
    /// Make room for another connection, if the handshake is not complete.
    pub(crate) const EVICT: u32 = 1 << 4;
    /// The application takes calls, or does not any more.
    pub(crate) const CALLS: u32 = 1 << 5;
}

/// Lanes that a session keeps for future streams, for each side that opens them, each with a segment for each ring: some 50 KiB in all.
pub(crate) const SPARES_MAX: usize = 64;

/// One session, as both sides see it.
pub(crate) struct SessionLink {
    ready: ReadyList<Lane>,
    requests: Reasons,
    doorbell: Doorbell,
    /// The process of the engine; in a fork's copy the engine does not exist.
    process: Process,
    /// The thread of the engine.
    pub(crate) home: Home,
    pub(crate) unaccepted: Unaccepted,
    pub(crate) calls: CallLink,
    /// Lanes that handles have made, of streams that have gone. The engine alone adds to them, and never after the end of the session: then they
    /// are freed, as they hold references to the session.
    spares: ArrayQueue<SpareLane>,
    /// Tasks that wait for the handshake or for the end.
    pub(crate) state_waiters: WakerSet,
    pub(crate) pings: Pings,
    pub(crate) opens: OpenPermits,
    established: AtomicBool,
    end: SetOnce<SessionError>,
    /// The socket is closed as well.
    finished: AtomicBool,
    /// Why no stream can be opened any more.
    refusal: SetOnce<SessionError>,
    /// Largest message that the peer accepts, in bytes.
    peer_max_message: AtomicU32,
    /// The session's receive window is nearly used up: handles raise CREDIT at every release.
    hungry: AtomicBool,
    /// `Session` values alive.
    handles: AtomicUsize,
    pub(crate) counters: Entry,
    /// The origin of the deadlines of its streams.
    pub(super) begun: Instant,
    /// The number of the session in its process.
    pub(crate) id: u64,
    pub(crate) span: tracing::Span,
    pub(crate) drain: Drain,
    /// The pool that its lanes are charged to when it has ended.
    pub(super) pool: StdArc<Pool>,
    /// Bytes that one stream may have queued for sending.
    pub(crate) send_buffer: u32,
    /// The part of the budget for queued bytes beyond the floors that no stream has.
    pub(crate) send_budget: Budget,
    /// Initial `credit_mark` of a lane.
    pub(crate) credit_mark: u32,
    /// Limits of the wire, in bytes: an opening block, a block between messages, the details of an error.
    pub(crate) max_opening: usize,
    pub(crate) max_block: usize,
    pub(crate) max_details: usize,
    /// The wire has a PING.
    pub(crate) has_ping: bool,
    /// The wire lets this side open streams.
    pub(crate) may_open: bool,
    info: Info,
}

/// Sizes that a [`SessionLink`] is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSizes {
    pub(crate) max_unaccepted: u32,
    pub(crate) open_credit: u32,
    pub(crate) peer_max_message: u32,
    pub(crate) send_buffer: u32,
    pub(crate) session_send_buffer: u32,
    pub(crate) max_pending_opens: u32,
    pub(crate) credit_mark: u32,
    pub(crate) max_opening: usize,
    pub(crate) max_block: usize,
    pub(crate) max_details: usize,
    pub(crate) has_ping: bool,
    pub(crate) may_open: bool,
    pub(crate) max_call: usize,
}

impl SessionLink {
    /// A link with one handle.
    pub(crate) fn new(sizes: LinkSizes, info: Info, pool: StdArc<Pool>) -> Arc<Self> {
        let id = next_id();
        Arc::new(Self {
            ready: ReadyList::new(),
            requests: Reasons::new(),
            doorbell: Doorbell::new(),
            process: Process::this(),
            home: Home::new(),
            unaccepted: Unaccepted::new(sizes.max_unaccepted),
            calls: CallLink::new(sizes.max_unaccepted as usize, sizes.max_call),
            spares: ArrayQueue::new(SPARES_MAX),
            state_waiters: WakerSet::new(),
            pings: Pings::new(),
            opens: OpenPermits::new(sizes.open_credit, sizes.max_pending_opens),
            established: AtomicBool::new(false),
            end: SetOnce::new(),
            finished: AtomicBool::new(false),
            refusal: SetOnce::new(),
            peer_max_message: AtomicU32::new(sizes.peer_max_message),
            hungry: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
            counters: Account::open(&info.account),
            begun: Instant::now(),
            id,
            span: trace::session(id, &info),
            drain: Drain::new(),
            pool,
            send_buffer: sizes.send_buffer,
            send_budget: Budget::new(u64::from(sizes.session_send_buffer)),
            credit_mark: sizes.credit_mark,
            max_opening: sizes.max_opening,
            max_block: sizes.max_block,
            max_details: sizes.max_details,
            has_ping: sizes.has_ping,
            may_open: sizes.may_open,
            info,
        })
    }

    // ---- for handles ------------------------------------------------------------------------

    /// Puts a lane on the ready list. A closed list means that the lane's ends are or will be set.
    pub(crate) fn activate(&self, lane: Arc<Lane>) {
        if self.is_inherited() {
            return lane.end_both(&StreamError::Session(SessionError::EngineStopped));
        }
        if self.ready.push(lane).is_ok() {
            reached(Step::Listed);
            self.doorbell.ring_after_push();
        }
    }

    /// Wakes the engine after a push on a list of its own.
    #[inline]
    pub(crate) fn ring_after_push(&self) {
        self.doorbell.ring_after_push();
    }

    pub(crate) fn request(&self, requests: u32) {
        if !self.is_inherited() && self.requests.raise(requests) {
            // Often by a handle that is dropped, and never for a message.
            let _teardown = Teardown::begin();
            self.doorbell.ring();
        }
    }

    /// Whether the engine is in another process, of which this one is a fork. To be checked before waiting, as nothing
    /// will ever happen to the session here.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.process.is_another()
    }

    /// The end of an inherited session.
    #[inline]
    fn inherited(&self) -> Option<&SessionError> {
        static STOPPED: SessionError = SessionError::EngineStopped;
        self.is_inherited().then_some(&STOPPED)
    }

    /// Requests a shutdown that ends within `grace`; the shortest grace requested holds.
    pub(crate) fn shut_down(&self, grace: Duration) {
        self.drain.ask(grace);
        self.refuse_opens(SessionError::Closed);
        self.request(request::SHUTDOWN);
    }

    /// The report of the shutdown; if the engine has not ended the session, that it was forced.
    pub(crate) fn drain_report(&self) -> Drained {
        let mut report = self.drain.report();
        if self.finished().is_none() {
            report.forced = 1;
        }
        report
    }

    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn release_handle(&self) {
        // ORDERING: AcqRel pairs with other release_handle calls: their requests come before ORPHANED.
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.request(request::ORPHANED);
            // ORDERING: SeqCst pairs with `drop_unaccepted_if_orphaned`.
            fence(Ordering::SeqCst);
            if self.end.get().is_some() {
                self.drop_unaccepted();
            }
        }
    }

    fn drop_unaccepted(&self) {
        self.unaccepted.clear();
        self.calls.drop_incoming();
    }

    pub(crate) const fn info(&self) -> &Info {
        &self.info
    }

    pub(super) fn take_spare(&self) -> Option<SpareLane> {
        self.spares.pop()
    }

    #[inline]
    pub(crate) fn end(&self) -> Option<&SessionError> {
        self.end.get().or_else(|| self.inherited())
    }

    /// The reason for the end, once the socket is closed.
    pub(crate) fn finished(&self) -> Option<&SessionError> {
        // ORDERING: pairs with `finish`; publishes the end.
        if self.finished.load(Ordering::Acquire) {
            self.end.get()
        } else {
            self.inherited()
        }
    }

    #[inline]
    pub(crate) fn refusal(&self) -> Option<&SessionError> {
        self.inherited().or_else(|| self.refusal.get())
    }

    pub(crate) fn is_established(&self) -> bool {
        // ORDERING: pairs with `establish`; publishes the peer's limits.
        self.established.load(Ordering::Acquire)
    }

    pub(crate) fn peer_max_message(&self) -> usize {
        self.peer_max_message.load(Ordering::Relaxed) as usize
    }

    /// A snapshot of the counters.
    pub(crate) fn stats(&self) -> SessionStats {
        let issued = self.doorbell.wakes();
        self.counters.since_start().with_wakes(issued)
    }

    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed)
    }

    // ---- for the engine ---------------------------------------------------------------------

    /// Takes the lanes that handles have activated, in the order in which they did.
    pub(crate) fn take_ready(&self) -> TakenNodes<Lane> {
        self.ready.take_all()
    }

    pub(crate) fn take_requests(&self) -> u32 {
        if self.requests.peek() == 0 {
            0
        } else {
            self.counters.requests.add(1);
            self.requests.take()
        }
    }

    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.has_ready() || self.calls.has_ready() || self.requests.peek() != 0
    }

    /// Registers the engine's waker and says whether it may sleep: no, if work arrived meanwhile.
    pub(crate) fn prepare_sleep(&self, waker: &Waker) -> bool {
        self.counters.note_wakes(self.doorbell.wakes());
        self.doorbell.prepare(waker);
        let sleep = !self.has_work();
        if !sleep {
            self.doorbell.cancel();
        }
        sleep
    }

    /// The engine was woken otherwise than by the doorbell.
    pub(crate) fn awake(&self) {
        self.doorbell.cancel();
    }

    /// Keeps a lane for a stream that a handle will open, if there is room.
    pub(super) fn keep_spare(&self, spare: SpareLane) {
        drop(self.spares.push(spare));
    }

    /// Lanes kept for future streams, for tests.
    #[cfg(test)]
    pub(crate) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Frees all spare lanes.
    pub(crate) fn drop_spares(&self) {
        while self.spares.pop().is_some() {}
    }

    /// The handshake is done.
    pub(crate) fn establish(&self, peer_max_message: u32) {
        self.peer_max_message
            .store(peer_max_message, Ordering::Relaxed);
        // ORDERING: pairs with `is_established`; publishes the peer's limits.
        self.established.store(true, Ordering::Release);
        trace::established(&self.span);
    }

    pub(crate) fn set_hungry(&self, hungry: bool) {
        self.hungry.store(hungry, Ordering::Relaxed);
    }

    /// From now on `open` is refused with this reason.
    pub(crate) fn refuse_opens(&self, reason: SessionError) {
        let _ = self.refusal.set(reason);
    }

    /// Ends the session: sets the reason, closes the ready list, and returns its lanes.
    /// The caller sets the lanes' ends and then calls [`wake_all`](Self::wake_all).
    pub(crate) fn close(&self, reason: SessionError) -> TakenNodes<Lane> {
        let _ = self.refusal.set(reason.clone());
        self.counters.end(&reason, self.doorbell.wakes());
        trace::session_ended(&self.span, self.is_established(), &reason);
        let _ = self.end.set(reason);
        self.ready.close()
    }

    /// The socket is closed; the session has ended before.
    pub(crate) fn finish(&self) {
        // ORDERING: pairs with `finished`; publishes the end.
        self.finished.store(true, Ordering::Release);
        self.state_waiters.wake_all();
    }

    /// Unaccepted streams that can never be accepted would keep the session alive, and the session them.
    pub(crate) fn drop_unaccepted_if_orphaned(&self) {
        // ORDERING: SeqCst pairs with `release_handle`: of the last handle's release and the
        // engine's end of the session, the second one sees the first and empties the queue.
        fence(Ordering::SeqCst);
        if self.handles.load(Ordering::Relaxed) == 0 {
            self.drop_unaccepted();
        }
    }

    pub(crate) fn wake_all(&self) {
        self.unaccepted.waiters.wake_all();
        self.calls.wake_acceptor();
        self.state_waiters.wake_all();
        self.pings.waiters.wake_all();
    }
}

impl fmt::Debug for SessionLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLink")
            .field("established", &self.is_established())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

/// Numbers the sessions of the process, from 1.
fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    1 + LAST.fetch_add(1, Ordering::Relaxed)
}
