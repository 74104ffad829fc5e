//! The loop that owns a ring and the sessions on it.
//!
//! ```text
//!   turn:  adopt new sessions ─ take completions ─ receive directly ─ poll the ready sessions
//!   then:  enter, if something is queued or has completed; else spin or park, see `wait`
//! ```
//! * `run`: the loop has the thread, for itself or beside one future of the application; it parks
//!   in the ring.
//! * `Inline`: the loop is a task of a tokio runtime, which parks in epoll with the ring in it.
//!
//! A panic in a session, or in an application's waker that it calls, ends that session only: see [`Host::end_panicked`].

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
use crate::driver::{AnyTurns, Beside, clock};
use crate::pace::paced;
use crate::queue::{Owned, Process};
use crate::sync::Arc;

/// Turns per check of the deadlines: each session always has one, mostly far away, and reading the clock costs. Where
/// the host parks, no turn is skipped for long.
const LOOKS: u32 = 16;
/// Turns per direct receive (plain calls) while the host is busy: other work is worth more than a call that may find
/// nothing.
const BUSY_LOOKS: u32 = 4;
/// Sessions polled before the ring is entered.
const POLLS_MAX: usize = 64;
/// The same for sessions that used their whole work limit: at most about a millisecond together.
const LONG_POLLS_MAX: usize = 4;

struct Session<R: Ring> {
    turns: AnyTurns<UringSocket<R>>,
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
    /// The previous turn found no work.
    quiet: bool,
    /// In the last turn a session used its whole work limit.
    pub(super) long: bool,
    /// Tasks of the application run on this thread, between turns.
    beside_tasks: bool,
}

impl<R: Ring> Host<R> {
    pub(super) fn new(ring: R, link: Arc<HostLink>, waiting: Waiting) -> Self {
        let mut reactor = Reactor::new(ring);
        reactor.spins = waiting.spins();
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
            // Dropping the connection ends it for its handles.
            return paced!(Level::ERROR, "too many sessions on one ring");
        };
        let socket = UringSocket::new(Rc::clone(&self.reactor), slot);
        let node = SessionNode::new(slot, Arc::clone(&self.link));
        let mut turns = AnyTurns::new(job.connection, socket);
        if self.beside_tasks {
            turns.set_beside(Beside::Host);
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

    /// Polls the ready sessions; true if there were any.
    ///
    /// Polls the sockets that are received from by plain calls: always when the turn found no other work, else every
    /// `BUSY_LOOKS` turns, and after a long turn, so that their peers wait for one session's work at most. A session whose
    /// socket had bytes is polled at once.
    pub(super) fn turn(&mut self) -> bool {
        while let Some(job) = self.link.take_job() {
            self.adopt(job);
        }
        {
            let reactor = &mut *self.reactor.borrow_mut();
            reactor.reap();
            self.turns = self.turns.wrapping_add(1);
            if (self.long || self.turns.is_multiple_of(LOOKS)) && reactor.deadlines.next().is_some()
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

    /// Polls the sessions on the ready lists; true if there were any.
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

    /// True if the session used its whole work limit.
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

    /// A session has panicked: it ends, which its handles see as `EngineStopped`, and the others continue.
    ///
    /// The state shared with it is consistent. The lists and counters of the bridge and of the pool are atomics, each operation
    /// of which is complete or was not begun. The reactor stays usable unless the panic came from inside it: then an update
    /// that the kernel's memory depends on may be half done, and the panic is resumed and ends the host. Memory that the
    /// kernel still uses stays in the reactor, as with any dropped session.
    #[cold]
    fn end_panicked(&mut self, slot: u32, panic: Box<dyn Any + Send>) {
        let session = self.sessions[slot as usize].take();
        self.live -= 1;
        self.end_if_half_done(panic);
        paced!(
            Level::ERROR,
            slot,
            "a session has panicked; the others of its engine go on"
        );
        // Its state may be half updated, so that its drop may panic as well.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(session))) {
            self.end_if_half_done(panic);
        }
    }

    fn end_if_half_done(&self, panic: Box<dyn Any + Send>) {
        if self.reactor.borrow().at_work {
            resume_unwind(panic);
        }
    }

    /// After a turn, which did work (`moved`) or not: enters the ring if there is cause. True if there was any work.
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
        self.reactor.borrow_mut().spins = self.waiting.spins();
    }

    /// No session is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// No session is left, and none can be started.
    pub(super) fn is_unused(&self) -> bool {
        self.is_empty() && self.link.is_over()
    }

    /// Parks in the ring until a completion, a doorbell or the next deadline; returns at once if `ends` and the host is unused.
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
        let how = match reactor.deadlines.next() {
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
                        // This is a forked child: the ring belongs to the parent.
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                // Frames queued by the root leave with this enter.
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
                // A receive call already takes long enough.
                std::hint::spin_loop();
            }
        }
    }
}

impl<R: Ring> Drop for Host<R> {
    fn drop(&mut self) {
        // First: wakers of applications may panic.
        self.link.close();
        self.sessions.clear();
    }
}

/// Runs the sessions of a ring on this thread, and the future of `root` beside them; see [`Host::run`].
pub(super) fn run<R: Ring, F: Future>(
    ring: R,
    link: Arc<HostLink>,
    waiting: Waiting,
    bell: io::Result<BellFd>,
    root: impl FnOnce() -> Option<F>,
) -> io::Result<Option<F::Output>> {
    // First: its drop answers callers that wait for a session, on every error path below.
    let mut host = Owned::new(Host::new(ring, link, waiting));
    let bell = StdArc::new(bell?);
    let output = host.run(root(), &bell);
    // The ring has the bell's descriptor.
    drop(host);
    output
}
