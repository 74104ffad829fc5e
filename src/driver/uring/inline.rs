//! The loop as a task of a tokio runtime, or of a tokio-uring runtime, which is one.
//!
//! An eventfd that the ring signals is registered with the runtime's epoll, in which the thread
//! parks; the ring is told to signal only before that. The task enters the ring and drains it
//! before it waits, so that one wake-up covers all completions.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::host::Host;
use super::kernel::KernelRing;
use super::link::HostLink;
use super::ring::Enter;
use super::wait::{Idle, Waiting};
use crate::driver::timer::Timer;
use crate::driver::{clock, later};
use crate::queue::Process;
use crate::sync::Arc;

/// Turns in a row before the runtime's other tasks get their turn.
const TURNS_MAX: usize = 8;

/// See the module. Ends when no session is left and none can come.
pub(super) struct Inline {
    /// The eventfd.
    readable: AsyncFd<OwnedFd>,
    timer: Timer,
    host: Host<KernelRing>,
    link: Arc<HostLink>,
    thread: ThreadId,
    process: Process,
    /// When the task began to wait for a wake.
    parked: Option<Instant>,
    clock: Watched,
}

// SAFETY: every `Rc` of the host points into the host, so they move together. The ring is entered
// by the thread that made it only: `poll` checks, and for any other the kernel refuses with EEXIST,
// which leaves the ring's memory leaked and counted.
unsafe impl Send for Inline {}

impl Inline {
    /// To be called on the runtime that will poll it.
    pub(super) fn new(
        mut ring: KernelRing,
        link: Arc<HostLink>,
        waiting: Waiting,
    ) -> std::io::Result<Self> {
        let fd = ring.completion_fd()?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and closed after its registration ends.
        let readable = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Self {
            readable,
            timer: Timer::new(),
            host: Host::new(ring, Arc::clone(&link), waiting),
            link,
            thread: thread::current().id(),
            process: Process::this(),
            clock: Watched::new(),
            parked: None,
        })
    }

    /// True if the runtime may park: the ring will wake this task.
    fn prepare_park(&mut self, cx: &mut Context<'_>) -> bool {
        let reactor = std::rc::Rc::clone(self.host.reactor());
        reactor.borrow_mut().ring_mut().want_completion_fd(true);
        // Earlier readiness means nothing: the eventfd is not read, and only new writes to it are edges.
        while let Poll::Ready(ready) = self.readable.poll_read_ready(cx) {
            let Ok(mut ready) = ready else {
                return false;
            };
            ready.clear_ready();
        }
        {
            let reactor = &mut *reactor.borrow_mut();
            if !reactor.prepare_park() {
                return false;
            }
            reactor.enter(Enter::Now);
            reactor.reap();
            // Includes operations not yet submitted and completions not yet run.
            if reactor.has_ready() || reactor.wants_enter() {
                return false;
            }
        }
        let deadline = reactor.borrow().deadlines.next();
        // It never leaves its runtime, which was found to have time and drops it at its end.
        if matches!(self.timer.poll(cx, deadline), Ok(true)) {
            reactor.borrow_mut().expire(clock::now());
            return false;
        }
        self.link.prepare_park(cx.waker(), self.host.is_empty())
    }
}

/// Detects a paused tokio clock (tests): it advances only when all tasks wait, so this task must not spin.
#[derive(Debug)]
struct Watched {
    looks: u32,
    /// The system's and tokio's time at the last comparison.
    seen: Option<(Instant, Instant)>,
    paused: bool,
}

impl Watched {
    /// Spins for one comparison.
    const LOOKS: u32 = 64;
    /// A tokio clock that has not moved for this long is paused. Its resolution is far finer.
    const LONG: Duration = Duration::from_millis(1);

    const fn new() -> Self {
        Self {
            looks: 0,
            seen: None,
            paused: false,
        }
    }

    fn is_paused(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.paused || self.looks.is_multiple_of(Self::LOOKS) {
            let (now, tokios) = (Instant::now(), clock::now());
            match self.seen {
                Some((since, before)) if tokios == before => {
                    self.paused = now - since >= Self::LONG;
                }
                _ => {
                    self.paused = false;
                    self.seen = Some((now, tokios));
                }
            }
        }
        self.paused
    }
}

impl Future for Inline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.process.is_another() {
            // A forked child: the ring belongs to the parent.
            return Poll::Ready(());
        }
        if thread::current().id() != this.thread {
            tracing::error!("an inline engine was moved to another thread; its sessions end");
            return Poll::Ready(());
        }
        this.link.awake();
        this.link.take_root();
        this.host
            .reactor()
            .borrow_mut()
            .ring_mut()
            .want_completion_fd(false);
        if let Some(since) = this.parked.take() {
            this.host.parked(since.elapsed());
        }
        for _ in 0..TURNS_MAX {
            let moved = this.host.turn();
            let moved = this.host.enter(moved);
            if this.host.reactor().borrow().is_broken() {
                return Poll::Ready(());
            }
            if moved {
                this.host.waiting.busy();
                if this.host.long {
                    break;
                }
                continue;
            }
            if this.host.is_unused() {
                return Poll::Ready(());
            }
            if this.host.waiting.idle() == Idle::Spin && !this.clock.is_paused() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.prepare_park(cx) {
                this.parked = Some(Instant::now());
                return Poll::Pending;
            }
            this.host
                .reactor()
                .borrow_mut()
                .ring_mut()
                .want_completion_fd(false);
        }
        later(cx);
        Poll::Pending
    }
}
