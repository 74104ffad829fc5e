//! The loop that owns a ring and the sessions on it, however it is hosted.
//!
//! ```text
//!   turn:  adopt new sessions ─ take completions ─ look at sockets ─ poll the sessions that have cause to
//!   then:  enter, if something is queued or has completed; else spin or park, see `wait`
//! ```
//! * `run`: the loop has the thread, for itself or beside one future of the application; it parks
//!   in the ring.
//! * `Inline`: the loop is a task of a tokio runtime, which parks in epoll with the ring in it.
//!
//! A session that panics, be it in the waker of an application, ends alone: see [`Host::end_panicked`].

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc as StdArc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tracing::Level;

use super::link::{BellFd, HostLink, Job, RootWaker, SessionNode};
use super::reactor::Reactor;
use super::ring::{Enter, Ring};
use super::socket::UringSocket;
use super::wait::{Idle, Waiting};
use crate::bridge::NativeEngine;
use crate::driver::{Turns, clock};
use crate::pace::{LINES, ONE_LINE, paced};
use crate::queue::{Owned, Process};
use crate::sync::Arc;

/// The clock is read for deadlines once in so many turns: a session has one at all times, and most are far away. Where
/// the host parks, no turn is skipped for long.
const LOOKS: u32 = 16;
/// Turns for one look at the sockets that are received from by plain calls, while something moves: that is worth more than
/// a call that may find nothing.
const BUSY_LOOKS: u32 = 4;
/// Sessions polled before the ring is entered.
const POLLS_MAX: usize = 64;
/// The same of those that took as much time as they may: about a millisecond together, at the very most.
const LONG_POLLS_MAX: usize = 4;

struct Session<R: Ring> {
    turns: Turns<UringSocket<R>, NativeEngine>,
    node: Arc<SessionNode>,
    waker: Waker,
}

/// See the module.
pub(super) struct Host<R: Ring> {
    sessions: Vec<Option<Box<Session<R>>>>,
    live: usize,
    reactor: Rc<RefCell<Reactor<R>>>,
    link: Arc<HostLink>,
    pub(super) waiting: Waiting,
    ready: Vec<u32>,
    turns: u32,
    /// Nothing has moved since the turn before.
    quiet: bool,
    /// In the last turn a session took as much time as it may.
    pub(super) long: bool,
    /// Tasks of the application run on this thread, between turns.
    beside_tasks: bool,
}

impl<R: Ring> Host<R> {
    pub(super) fn new(ring: R, link: Arc<HostLink>, waiting: Waiting) -> Self {
        let mut reactor = Reactor::new(ring);
        reactor.set_spins(waiting.spins());
        Self {
            sessions: Vec::new(),
            live: 0,
            reactor: Rc::new(RefCell::new(reactor)),
            link,
            waiting,
            ready: Vec::new(),
            turns: 0,
            quiet: true,
            long: false,
            beside_tasks: false,
        }
    }

    pub(super) const fn reactor(&self) -> &Rc<RefCell<Reactor<R>>> {
        &self.reactor
    }

    fn adopt(&mut self, job: Job) {
        let Some(slot) = self.reactor.borrow_mut().insert(job.socket) else {
            // The connection is dropped, which tells its handles.
            return paced!(ONE_LINE, Level::ERROR, "too many sessions on one ring");
        };
        let socket = UringSocket::new(Rc::clone(&self.reactor), slot);
        let node = SessionNode::new(slot, Arc::clone(&self.link));
        let mut turns = Turns::new(job.connection, socket);
        if self.beside_tasks {
            turns.set_hosted();
        }
        let session = Session {
            turns,
            waker: Waker::from(Arc::clone(&node)),
            node,
        };
        let index = slot as usize;
        if self.sessions.len() <= index {
            self.sessions.resize_with(index + 1, || None);
        }
        self.sessions[index] = Some(Box::new(session));
        self.live += 1;
        self.ready.push(slot);
    }

    /// Polls the sessions that have cause to; true if there were any.
    ///
    /// Looks at the sockets that are received from round the ring: whenever nothing else has moved, and else one time in a
    /// few; and after a long turn, so that those who wait there wait for one. What is found there goes to its session by the
    /// shortest way.
    pub(super) fn turn(&mut self) -> bool {
        while let Some(job) = self.link.take_job() {
            self.adopt(job);
        }
        {
            let reactor = &mut *self.reactor.borrow_mut();
            reactor.reap();
            self.turns = self.turns.wrapping_add(1);
            if (self.long || self.turns.is_multiple_of(LOOKS)) && reactor.next_deadline().is_some()
            {
                reactor.expire(clock::now());
            }
            if self.quiet || self.long || self.turns.is_multiple_of(BUSY_LOOKS) {
                reactor.recv_direct();
            }
            reactor.take_ready(&mut self.ready);
        }
        self.long = false;
        self.poll_ready()
    }

    /// Polls those of which it is known; true if there were any.
    fn poll_ready(&mut self) -> bool {
        for node in self.link.take_ready() {
            node.take();
            let same = |session: &Session<R>| Arc::ptr_eq(&session.node, &node);
            // A node of a session that has ended may still be woken.
            if self.session(node.slot).is_some_and(|session| same(session)) {
                self.ready.push(node.slot);
            }
        }
        if self.ready.is_empty() {
            return false;
        }
        let count = self.ready.len().min(POLLS_MAX);
        let (mut polled, mut long) = (0, 0);
        while polled < count && long < LONG_POLLS_MAX {
            long += usize::from(self.poll(self.ready[polled]));
            polled += 1;
        }
        self.ready.drain(..polled);
        self.long |= long > 0;
        true
    }

    fn session(&mut self, slot: u32) -> Option<&mut Box<Session<R>>> {
        self.sessions.get_mut(slot as usize)?.as_mut()
    }

    /// True if the session took as much time as it may.
    fn poll(&mut self, slot: u32) -> bool {
        let Some(session) = self.session(slot) else {
            return false;
        };
        let mut cx = Context::from_waker(&session.waker);
        let turns = Pin::new(&mut session.turns);
        let polled = catch_unwind(AssertUnwindSafe(|| turns.poll(&mut cx).is_ready()));
        match polled {
            Ok(false) => {
                let long = session.turns.has_used_up();
                if session.turns.is_due() {
                    self.ready.push(slot);
                }
                return long;
            }
            Ok(true) => {
                self.sessions[slot as usize] = None;
                self.live -= 1;
            }
            Err(panic) => self.end_panicked(slot, panic),
        }
        false
    }

    /// A session has panicked: it ends, which its handles see as `EngineStopped`, and the others go on.
    ///
    /// What they share with it is whole. The lists and counters of the bridge and of the pool are atomics, each operation
    /// of which is done or was not begun. The reactor is safe to go on with unless the panic has come from inside it:
    /// then something may be half done that the kernel's memory depends on, and the panic ends the host as it would
    /// have without this. Memory that the kernel still has stays in the reactor, as with any session that is dropped.
    #[cold]
    fn end_panicked(&mut self, slot: u32, panic: Box<dyn Any + Send>) {
        let session = self.sessions[slot as usize].take();
        self.live -= 1;
        self.end_if_half_done(panic);
        paced!(
            LINES,
            Level::ERROR,
            slot,
            "a session has panicked; the others of its engine go on"
        );
        // What it was in the middle of may make its end panic as well.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(session))) {
            self.end_if_half_done(panic);
        }
    }

    fn end_if_half_done(&self, panic: Box<dyn Any + Send>) {
        if self.reactor.borrow().at_work {
            resume_unwind(panic);
        }
    }

    /// After a turn, which has `moved` something or not: enters the ring if that moves anything. True if something has moved.
    pub(super) fn enter(&mut self, moved: bool) -> bool {
        let reactor = &mut *self.reactor.borrow_mut();
        let wanted = reactor.wants_enter();
        if wanted {
            reactor.enter(Enter::Now);
        }
        self.quiet = !(moved | wanted);
        !self.quiet
    }

    /// The thread was parked for this long.
    pub(super) fn parked(&mut self, time: Duration) {
        self.waiting.parked(time);
        self.reactor.borrow_mut().set_spins(self.waiting.spins());
    }

    /// No session is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// No session is left, and none will come.
    pub(super) fn is_unused(&self) -> bool {
        self.is_empty() && self.link.is_over()
    }

    /// Enters the ring until something happens or the next deadline; not if the host is unused, and that `ends` it.
    fn park(&mut self, bell: &StdArc<BellFd>, waker: &Waker, ends: bool) {
        let reactor = Rc::clone(&self.reactor);
        let mut reactor = reactor.borrow_mut();
        if reactor.take_bell_end() {
            reactor.watch_bell(bell.fd());
        }
        if !reactor.prepare_park() || !self.link.prepare_park(waker, ends && self.is_empty()) {
            return;
        }
        let now = clock::now();
        let how = match reactor.next_deadline() {
            Some(at) if at <= now => Enter::Now,
            Some(at) => Enter::WaitFor(at - now),
            None => Enter::Wait,
        };
        reactor.enter(how);
        let then = clock::now();
        reactor.expire(then);
        drop(reactor);
        self.link.awake();
        self.parked(then - now);
    }

    /// Runs the sessions, and beside them `root` until it is done. Without a root, until no session
    /// is left and none can come: `None`.
    ///
    /// # Errors
    /// The ring has broken under them.
    fn run<F: Future>(
        &mut self,
        root: Option<F>,
        bell: &StdArc<BellFd>,
    ) -> io::Result<Option<F::Output>> {
        let process = Process::this();
        self.beside_tasks = root.is_some();
        let mut root = pin!(root);
        let root_waker = Waker::from(StdArc::new(RootWaker(Arc::clone(&self.link))));
        let bell_waker = Waker::from(StdArc::clone(bell));
        self.reactor.borrow_mut().watch_bell(bell.fd());
        loop {
            let mut moved = self.turn();
            if self.link.take_root() {
                moved = true;
                if let Some(root) = root.as_mut().as_pin_mut() {
                    let mut cx = Context::from_waker(&root_waker);
                    if let Poll::Ready(output) = root.poll(&mut cx) {
                        return Ok(Some(output));
                    }
                    if process.is_another() {
                        // It has forked, and this is the child: the ring is the parent's.
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                // What the root has queued leaves with this enter.
                self.poll_ready();
            }
            moved = self.enter(moved);
            if self.reactor.borrow().is_broken() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if moved {
                self.waiting.busy();
            } else if root.is_none() && self.is_unused() {
                return Ok(None);
            } else if self.waiting.idle() == Idle::Park {
                self.park(bell, &bell_waker, root.is_none());
            } else if !self.reactor.borrow().has_direct() {
                // A call that looks for something takes its time by itself.
                std::hint::spin_loop();
            }
        }
    }
}

impl<R: Ring> Drop for Host<R> {
    fn drop(&mut self) {
        // First: what wakes applications may panic.
        self.link.close();
        self.sessions.clear();
    }
}

/// Runs the sessions of a ring on this thread, and what `root` makes beside them; see [`Host::run`].
pub(super) fn run<R: Ring, F: Future>(
    ring: R,
    link: Arc<HostLink>,
    waiting: Waiting,
    bell: io::Result<BellFd>,
    root: impl FnOnce() -> Option<F>,
) -> io::Result<Option<F::Output>> {
    // First: its end tells those who wait for a session, whatever fails from here on.
    let mut host = Owned::new(Host::new(ring, link, waiting));
    let bell = StdArc::new(bell?);
    let output = host.run(root(), &bell);
    // The ring has the bell's descriptor.
    drop(host);
    output
}
