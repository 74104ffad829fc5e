//! What a session's handles and the engine share.

use std::fmt;
use std::sync::atomic::AtomicU64 as StdAtomicU64;
use std::task::Waker;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::drain::{Drain, Drained};
use super::lane::Lane;
use super::tripped::{TrippedLimits, Trips};
use crate::addr::{Addr, Driver};
use crate::error::{Limit, SessionError};
use crate::queue::step::{Step, reached};
use crate::queue::{Doorbell, ReadyList, Reasons, SetOnce, TakenNodes, WakerSet};
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// What a handle asks of the session itself.
pub(crate) mod request {
    /// Measure the round trip.
    pub(crate) const PING: u32 = 1 << 0;
    /// End in order.
    pub(crate) const CLOSE: u32 = 1 << 1;
    /// The last `Session` is gone.
    pub(crate) const UNHELD: u32 = 1 << 2;
    /// End when the streams have.
    pub(crate) const SHUTDOWN: u32 = 1 << 3;
    /// Make place for another connection, if the handshake is not done.
    pub(crate) const EVICT: u32 = 1 << 4;
}

/// One session, as both sides see it.
pub(crate) struct SessionLink {
    ready: ReadyList<Lane>,
    requests: Reasons,
    doorbell: Doorbell,
    /// Streams that the peer opened; one that finds it full is refused.
    accept: ArrayQueue<Arc<Lane>>,
    /// Tasks in `accept`.
    pub(crate) accept_waiters: WakerSet,
    /// Tasks that wait for the handshake or for the end.
    pub(crate) state_waiters: WakerSet,
    /// Tasks in `ping`.
    pub(crate) ping_waiters: WakerSet,
    established: AtomicBool,
    end: SetOnce<SessionError>,
    /// The socket is closed as well.
    finished: AtomicBool,
    /// Why no stream can be opened any more.
    refusal: SetOnce<SessionError>,
    /// Streams that may be opened without asking the engine first.
    open_credit: AtomicU32,
    pending_opens: AtomicU32,
    /// Largest message that the peer accepts, in bytes.
    peer_max_message: AtomicU32,
    /// The session's receive window is nearly used up: handles raise CREDIT at every release.
    hungry: AtomicBool,
    /// `Session` values alive.
    handles: AtomicUsize,
    pongs: AtomicU64,
    rtt_ns: AtomicU64,
    pub(crate) counters: Counters,
    pub(crate) drain: Drain,
    /// Bytes that one stream may have queued for sending.
    pub(crate) send_buffer: u32,
    /// Calls of `open` that may wait at once.
    pub(crate) max_pending_opens: u32,
    /// Initial `credit_mark` of a lane.
    pub(crate) credit_mark: u32,
    info: Info,
}

/// What a session is connected to and through.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub(crate) peer: Option<Addr>,
    pub(crate) local: Option<Addr>,
    pub(crate) driver: Driver,
    /// Decides where jitter falls: different for each session.
    pub(crate) seed: u64,
}

/// Sizes that a [`SessionLink`] is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSizes {
    pub(crate) max_unaccepted: u32,
    pub(crate) open_credit: u32,
    pub(crate) peer_max_message: u32,
    pub(crate) send_buffer: u32,
    pub(crate) max_pending_opens: u32,
    pub(crate) credit_mark: u32,
}

impl SessionLink {
    /// A link with one handle.
    pub(crate) fn new(sizes: LinkSizes, info: Info) -> Arc<Self> {
        Arc::new(Self {
            ready: ReadyList::new(),
            requests: Reasons::new(),
            doorbell: Doorbell::new(),
            accept: ArrayQueue::new(sizes.max_unaccepted as usize),
            accept_waiters: WakerSet::new(),
            state_waiters: WakerSet::new(),
            ping_waiters: WakerSet::new(),
            established: AtomicBool::new(false),
            end: SetOnce::new(),
            finished: AtomicBool::new(false),
            refusal: SetOnce::new(),
            open_credit: AtomicU32::new(sizes.open_credit),
            pending_opens: AtomicU32::new(0),
            peer_max_message: AtomicU32::new(sizes.peer_max_message),
            hungry: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
            pongs: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
            counters: Counters::default(),
            drain: Drain::new(),
            send_buffer: sizes.send_buffer,
            max_pending_opens: sizes.max_pending_opens,
            credit_mark: sizes.credit_mark,
            info,
        })
    }

    // ---- for handles ------------------------------------------------------------------------

    /// Puts a lane on the ready list. A closed list means that the lane's ends are or will be set.
    pub(crate) fn activate(&self, lane: Arc<Lane>) {
        if self.ready.push(lane).is_ok() {
            reached(Step::Listed);
            self.doorbell.ring_after_push();
        }
    }

    pub(crate) fn request(&self, requests: u32) {
        if self.requests.raise(requests) {
            self.doorbell.ring();
        }
    }

    /// Asks for a shutdown that ends within `grace`; the shortest that was ever asked for holds.
    pub(crate) fn shut_down(&self, grace: Duration) {
        self.drain.ask(grace);
        self.refuse_opens(SessionError::Closed);
        self.request(request::SHUTDOWN);
    }

    /// What came of the shutdown; for an engine that has not even ended the session, that it did not.
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
        // ORDERING: AcqRel pairs with other release_handle calls: their requests come before UNHELD.
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.request(request::UNHELD);
            // ORDERING: SeqCst pairs with `drop_unaccepted_if_unheld`.
            fence(Ordering::SeqCst);
            if self.end.get().is_some() {
                while self.accept.pop().is_some() {}
            }
        }
    }

    /// Takes permission for one stream, if some is left.
    pub(crate) fn take_open_credit(&self) -> bool {
        self.open_credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| {
                credit.checked_sub(1)
            })
            .is_ok()
    }

    /// Counts one more waiting `open`; false if there are too many.
    pub(crate) fn begin_pending_open(&self) -> bool {
        let max = self.max_pending_opens;
        self.pending_opens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < max).then_some(n + 1)
            })
            .is_ok()
    }

    pub(crate) fn end_pending_open(&self) {
        self.pending_opens.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) const fn info(&self) -> &Info {
        &self.info
    }

    pub(crate) fn pop_accept(&self) -> Option<Arc<Lane>> {
        self.accept.pop()
    }

    pub(crate) fn end(&self) -> Option<&SessionError> {
        self.end.get()
    }

    /// The reason for the end, once the socket is closed.
    pub(crate) fn finished(&self) -> Option<&SessionError> {
        // ORDERING: pairs with `finish`; publishes the end.
        if self.finished.load(Ordering::Acquire) {
            self.end.get()
        } else {
            None
        }
    }

    pub(crate) fn refusal(&self) -> Option<&SessionError> {
        self.refusal.get()
    }

    pub(crate) fn is_established(&self) -> bool {
        // ORDERING: pairs with `establish`; publishes the peer's limits.
        self.established.load(Ordering::Acquire)
    }

    pub(crate) fn peer_max_message(&self) -> usize {
        self.peer_max_message.load(Ordering::Relaxed) as usize
    }

    /// The counters now.
    ///
    /// Every push on the ready list and every first request rings the bell once, and the engine counts both when it
    /// takes them: a producer whose ring wakes nobody counts nothing, and so writes to no line that others read.
    pub(crate) fn stats(&self) -> SessionStats {
        let issued = self.doorbell.wakes();
        let counted = self.counters.snapshot();
        SessionStats {
            wakes_issued: issued,
            // A bell may be rung before the engine counts what it was rung for.
            wakes_suppressed: (counted.activations + counted.requests).saturating_sub(issued),
            ..counted
        }
    }

    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed)
    }

    /// How many PINGs were answered so far.
    pub(crate) fn pongs(&self) -> u64 {
        // ORDERING: pairs with `record_pong`; publishes `rtt_ns`.
        self.pongs.load(Ordering::Acquire)
    }

    /// The last round trip, in nanoseconds.
    pub(crate) fn rtt_ns(&self) -> u64 {
        self.rtt_ns.load(Ordering::Relaxed)
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

    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.requests.peek() != 0
    }

    /// Registers the engine's waker and says whether it may sleep: no, if work came meanwhile.
    pub(crate) fn prepare_sleep(&self, waker: &Waker) -> bool {
        self.doorbell.prepare(waker);
        let sleep = !self.has_work();
        if !sleep {
            self.doorbell.cancel();
        }
        sleep
    }

    /// The engine was woken by something else than the doorbell.
    pub(crate) fn awake(&self) {
        self.doorbell.cancel();
    }

    /// Streams granted by the peer that no handle has taken yet.
    pub(crate) fn open_credit(&self) -> u32 {
        self.open_credit.load(Ordering::Relaxed)
    }

    pub(crate) fn add_open_credit(&self, streams: u32) {
        // Grants are cumulative and bounded by the wire's u32, see `proto::Connection`.
        self.open_credit.fetch_add(streams, Ordering::Relaxed);
    }

    /// Queues a stream for `accept`; gives it back if the queue is full.
    pub(crate) fn push_accept(&self, lane: Arc<Lane>) -> Result<(), Arc<Lane>> {
        self.accept.push(lane)
    }

    /// The handshake is done.
    pub(crate) fn establish(&self, peer_max_message: u32) {
        self.peer_max_message
            .store(peer_max_message, Ordering::Relaxed);
        // ORDERING: pairs with `is_established`; publishes the peer's limits.
        self.established.store(true, Ordering::Release);
    }

    pub(crate) fn set_hungry(&self, hungry: bool) {
        self.hungry.store(hungry, Ordering::Relaxed);
    }

    pub(crate) fn record_pong(&self, rtt_ns: u64) {
        self.rtt_ns.store(rtt_ns, Ordering::Relaxed);
        // ORDERING: pairs with `pongs`; publishes `rtt_ns`. Only the engine writes.
        self.pongs
            .store(self.pongs.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// From now on `open` is refused with this reason.
    pub(crate) fn refuse_opens(&self, reason: SessionError) {
        let _ = self.refusal.set(reason);
    }

    /// Ends the session: sets the reason, closes the ready list, and returns what was on it.
    /// The caller sets the lanes' ends and then calls [`wake_all`](Self::wake_all).
    pub(crate) fn close(&self, reason: SessionError) -> TakenNodes<Lane> {
        let _ = self.refusal.set(reason.clone());
        let _ = self.end.set(reason);
        self.ready.close()
    }

    /// The socket is closed; the session has ended before.
    pub(crate) fn finish(&self) {
        // ORDERING: pairs with `finished`; publishes the end.
        self.finished.store(true, Ordering::Release);
        self.state_waiters.wake_all();
    }

    /// Streams that nobody can accept any more would keep the session, and be kept by it.
    pub(crate) fn drop_unaccepted_if_unheld(&self) {
        // ORDERING: SeqCst pairs with `release_handle`: of the last handle's release and the
        // engine's end of the session, whichever comes second sees the first and empties the queue.
        fence(Ordering::SeqCst);
        if self.handles.load(Ordering::Relaxed) == 0 {
            while self.accept.pop().is_some() {}
        }
    }

    pub(crate) fn wake_all(&self) {
        self.accept_waiters.wake_all();
        self.state_waiters.wake_all();
        self.ping_waiters.wake_all();
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

macro_rules! counters {
    (
        counted: $($(#[$doc:meta])* $name:ident),+;
        derived: $($(#[$derived_doc:meta])* $derived:ident),+;
    ) => {
        /// Counts kept by the engine, read by anybody.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            trips: Trips,
        }

        /// A snapshot of a session's counters, all since its start unless said otherwise.
        ///
        /// The fields are read one after the other while the session goes on, so sums may be off
        /// by what happened in between.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SessionStats {
            $($(#[$doc])* pub $name: u64,)+
            $($(#[$derived_doc])* pub $derived: u64,)+
            /// How often each limit of this side was tripped.
            pub tripped: TrippedLimits,
        }

        impl Counters {
            fn snapshot(&self) -> SessionStats {
                let tripped = self.trips.snapshot();
                SessionStats { $($name: self.$name.get(),)+ $($derived: 0,)+ tripped }
            }

            /// A limit was tripped.
            pub(crate) fn trip(&self, limit: Limit) {
                self.limits_tripped.add(1);
                self.trips.count(limit);
            }
        }
    };
}

counters! {
    counted:
    /// Streams that exist now, in any state.
    streams,
    /// Streams opened by this side.
    opened,
    /// Streams opened by the peer.
    accepted,
    /// Messages sent.
    messages_sent,
    /// Messages received.
    messages_received,
    /// Frames sent.
    frames_sent,
    /// Frames received.
    frames_received,
    /// Bytes handed to the socket.
    bytes_sent,
    /// Bytes that came from the socket.
    bytes_received,
    /// Batches handed to the socket: one write each, unless the socket took less.
    batches,
    /// Times that the engine looked at the session.
    turns,
    /// Times that streams were taken off the ready list.
    activations,
    /// Times that something was asked of the session itself: a ping, a close, the drop of its last
    /// handle. What is asked before the engine looks counts once.
    requests,
    /// Streams ended by a cancel of either side.
    cancelled,
    /// Limits of this side that were tripped, whatever they ended: the sum of [`tripped`](Self::tripped).
    limits_tripped,
    /// Times that a silent peer was asked for a sign of life.
    keepalives,
    /// 1 if the session ended because the peer gave none.
    keepalive_timeouts,
    /// 1 if the session ended because the socket took nothing.
    write_timeouts,
    /// Bytes received that applications have not consumed, now; frame cost included.
    bytes_held;
    derived:
    /// Times that a handle found the session asleep and woke it. Of several handles that find the
    /// same sleep one wakes.
    ///
    /// Asleep is a session that waits for its socket or for handles, or is just about to. What a
    /// wake costs is up to the host: with [`Driver::Uring`] a system call only where the engine
    /// waits in the kernel, otherwise what its runtime does to wake a task.
    wakes_issued,
    /// Times that a handle had something for the session and woke nobody, because the session ran
    /// or was being woken already: `activations + requests - wakes_issued`.
    ///
    /// Messages that join others on a stream which the engine has not yet looked at do not count:
    /// they do not even look whether it sleeps. Counted when the engine takes what it was rung for.
    wakes_suppressed;
}

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(StdAtomicU64);

impl Counter {
    /// Adds without a read-modify-write: the engine is the only writer.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
