//! Access to a ring's host from other threads: sessions to be polled, new sessions, and the doorbell.
//!
//! The same shape as between handles and a session, one level up: waking a session pushes it onto the host's ready list
//! and rings; the host is woken only if it is parked.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};

use crossbeam_queue::SegQueue;
use rustix::event::{EventfdFlags, eventfd};

use crate::bridge::AnyEngine;
use crate::queue::{Doorbell, Node, ReadyList, Reasons, TakenNodes, WakerSet};
use crate::sync::{Arc, AtomicBool, AtomicPtr, Ordering};

/// A session to be, and its socket.
pub(crate) struct Job {
    pub(crate) connection: AnyEngine,
    pub(crate) socket: OwnedFd,
}

/// See the module.
pub(crate) struct HostLink {
    ready: ReadyList<SessionNode>,
    bell: Doorbell,
    jobs: SegQueue<Job>,
    /// All engine values are dropped, so no session can be started.
    released: AtomicBool,
    /// The host has ended.
    closed: AtomicBool,
    /// Tasks that wait for `closed`.
    ended: WakerSet,
    /// The future that a host's thread runs beside the sessions was woken.
    root: AtomicBool,
}

impl HostLink {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            ready: ReadyList::new(),
            bell: Doorbell::new(),
            jobs: SegQueue::new(),
            released: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ended: WakerSet::new(),
            root: AtomicBool::new(true),
        })
    }

    /// Starts a session. False if the host has ended; then the session has ended too.
    pub(crate) fn start(&self, job: Job) -> bool {
        self.jobs.push(job);
        self.bell.ring();
        // The later one of this and `close` empties the queue.
        if self.is_closed() {
            while self.jobs.pop().is_some() {}
            return false;
        }
        true
    }

    /// The last engine value was dropped.
    pub(crate) fn release(&self) {
        // ORDERING: pairs with `is_over`; publishes the jobs.
        self.released.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// No session can be started any more.
    pub(super) fn is_over(&self) -> bool {
        // ORDERING: pairs with `release`: jobs started before are seen.
        self.released.load(Ordering::Acquire) && self.jobs.is_empty()
    }

    pub(super) fn take_job(&self) -> Option<Job> {
        if self.jobs.is_empty() {
            None
        } else {
            self.jobs.pop()
        }
    }

    pub(super) fn take_ready(&self) -> TakenNodes<SessionNode> {
        self.ready.take_all()
    }

    /// True once after each time that the root's waker was used.
    pub(super) fn take_root(&self) -> bool {
        // ORDERING: pairs with `RootWaker`; acquires the waker's earlier writes.
        self.root.load(Ordering::Relaxed) && self.root.swap(false, Ordering::AcqRel)
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.jobs.is_empty() || self.root.load(Ordering::Relaxed)
    }

    /// The host, which `waker` wakes, is about to park: false if there is new work, or if `ends` and no session can be started.
    pub(super) fn prepare_park(&self, waker: &Waker, ends: bool) -> bool {
        self.bell.prepare(waker);
        let park = !(self.has_work() || ends && self.is_over());
        if !park {
            self.bell.cancel();
        }
        park
    }

    pub(super) fn awake(&self) {
        self.bell.cancel();
    }

    /// The host has ended: drops queued jobs. Idempotent.
    pub(super) fn close(&self) {
        // ORDERING: pairs with `is_closed`.
        self.closed.store(true, Ordering::SeqCst);
        while self.jobs.pop().is_some() {}
        drop(self.ready.close());
        self.ended.wake_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: pairs with `close`.
        self.closed.load(Ordering::SeqCst)
    }

    /// Tasks woken when the host has ended; check [`is_closed`](Self::is_closed) after registering.
    pub(crate) const fn ended(&self) -> &WakerSet {
        &self.ended
    }
}

impl std::fmt::Debug for HostLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostLink").finish_non_exhaustive()
    }
}

/// A session of a host, and the waker of that session.
#[derive(Debug)]
pub(super) struct SessionNode {
    /// The session's slot. It never changes: nodes are not reused.
    pub(super) slot: u32,
    host: Arc<HostLink>,
    reasons: Reasons,
    next: AtomicPtr<Self>,
}

// SAFETY: `next` is a field that only the list uses; `wake` pushes the node only when it has turned
// `reasons` from zero, and only the host, to which the list hands the node out, takes them.
unsafe impl Node for SessionNode {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl SessionNode {
    pub(super) fn new(slot: u32, host: Arc<HostLink>) -> Arc<Self> {
        Arc::new(Self {
            slot,
            host,
            reasons: Reasons::new(),
            next: AtomicPtr::new(std::ptr::null_mut()),
        })
    }

    /// To be called after popping the node from the list, before its session is polled.
    pub(super) fn take(&self) {
        self.reasons.take();
    }
}

#[cfg(not(ringmux_loom))]
impl Wake for SessionNode {
    fn wake(self: Arc<Self>) {
        if self.reasons.raise(1) {
            let host = Arc::clone(&self.host);
            if host.ready.push(self).is_ok() {
                host.bell.ring_after_push();
            }
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.reasons.raise(1) && self.host.ready.push(Arc::clone(self)).is_ok() {
            self.host.bell.ring_after_push();
        }
    }
}

/// Wakes the future that a host's thread runs beside the sessions.
#[derive(Debug)]
pub(super) struct RootWaker(pub(super) Arc<HostLink>);

impl Wake for RootWaker {
    fn wake(self: StdArc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &StdArc<Self>) {
        // ORDERING: pairs with `take_root`; publishes the caller's earlier writes. SeqCst for `ring_after_push`: this store is
        // the push, and the host's `has_work` the load that must see it.
        if !self.0.root.swap(true, Ordering::SeqCst) {
            self.0.bell.ring_after_push();
        }
    }
}

/// Wakes a thread that is parked in its ring.
#[derive(Debug)]
pub(super) struct BellFd(OwnedFd);

impl BellFd {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Wake for BellFd {
    fn wake(self: StdArc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &StdArc<Self>) {
        // It fails only when the counter is full, and then the descriptor is readable. The counter is never read: the ring's
        // poll completes on each write.
        let _ = rustix::io::write(self.0.as_fd(), &1_u64.to_ne_bytes());
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_sessions_does_not_park_once_the_last_engine_is_gone() {
        let link = HostLink::new();
        link.take_root();
        assert!(link.prepare_park(Waker::noop(), true));
        link.awake();
        // Between the host's check and its park: the doorbell has no sleeper to wake.
        assert!(!link.is_over());
        link.release();
        assert!(!link.prepare_park(Waker::noop(), true));
        assert!(link.prepare_park(Waker::noop(), false), "it has sessions");
    }
}
