//! The loop that drives one session.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;

use super::{Transport, clock};
use crate::bridge::{Protocol, SocketEvent, SocketStage, Status, sooner};
use crate::error::SessionError;
use crate::wire::{Batch, WORK_MAX};

/// Turns in a row before other tasks of the runtime get theirs.
const TURNS_MAX: usize = 16;
/// Receptions, and batches, of one turn.
const IO_MAX: usize = 2;
/// Bytes that are received and sent before the thread looks at its sockets and timers: four of the largest receptions that
/// a session has by default, for each of which that look costs next to nothing, and some 200 us in all.
const BYTES_MAX: usize = 1024 * 1024;

/// A session and its transport. Completes when the session has ended, with the reason.
pub(crate) struct Turns<T, P> {
    connection: P,
    transport: T,
    recv: BytesMut,
    /// `recv` may hold whole frames.
    unparsed: bool,
    batch: Batch,
    writing: bool,
    stage: SocketStage,
    linger_until: Option<Instant>,
    /// The connection's next deadline, as of the end of the last few turns: what is set meanwhile is not so near.
    deadline: Option<Instant>,
    /// What may be done before the thread looks at its sockets and timers.
    quota: Quota,
    /// The last poll ended because the quota was used up, or there was always more.
    used_up: bool,
    /// Whether whoever polls does so again when [`Turns::is_due`], once other tasks of the thread had their turn.
    hosted: bool,
    /// To be polled again without being woken.
    due: bool,
    /// Tasks were told of what came, and may have answered.
    told: bool,
    /// How often they were.
    receptions: usize,
}

/// What is left to do before the thread looks at its sockets and timers: up to [`WORK_MAX`] frames and [`BYTES_MAX`]. The
/// one reception or batch that uses it up is done, so it is twice that at the most.
#[derive(Clone, Copy, Debug)]
struct Quota {
    /// The session's work when it began.
    since: u64,
    bytes: usize,
}

impl Quota {
    const fn new(work: u64) -> Self {
        Self {
            since: work,
            bytes: BYTES_MAX,
        }
    }

    const fn is_used_up(self, work: u64) -> bool {
        self.bytes == 0 || work.wrapping_sub(self.since) >= WORK_MAX
    }

    const fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl<T: Transport + Unpin, P: Protocol + Unpin> Turns<T, P> {
    pub(crate) fn new(connection: P, transport: T) -> Self {
        if T::BOUND {
            connection.link().home.settle();
        }
        Self {
            quota: Quota::new(connection.work_done()),
            used_up: false,
            connection,
            transport,
            recv: BytesMut::new(),
            unparsed: false,
            batch: Batch::new(),
            writing: false,
            stage: SocketStage::Serving,
            linger_until: None,
            deadline: None,
            hosted: false,
            due: false,
            told: false,
            receptions: 0,
        }
    }

    /// For a host on a thread that runs the tasks of the application as well.
    ///
    /// What they answer to what has come is queued by the time that the host comes back. To go to sleep before that and be
    /// woken by it takes as long as the rest of the way of a lone message through the session. So after each reception
    /// they come first, and answers are sent before anything else is done.
    pub(super) const fn set_hosted(&mut self) {
        self.hosted = true;
    }

    /// Whether it is to be polled again when other tasks of the thread had their turn.
    pub(super) const fn is_due(&self) -> bool {
        self.due
    }

    /// Whether its last poll took as much time as it may: there is more to do, and other sessions wait.
    pub(super) const fn has_used_up(&self) -> bool {
        self.used_up
    }

    fn is_used_up(&self) -> bool {
        self.quota.is_used_up(self.connection.work_done())
    }

    fn renew_quota(&mut self) {
        self.quota = Quota::new(self.connection.work_done());
    }

    /// Other tasks come first and, if `busy` for long enough, whatever else the thread looks at.
    fn step_back(&mut self, cx: &mut Context<'_>, busy: bool) {
        self.used_up = busy;
        if self.hosted {
            self.due = true;
        } else if busy {
            self.transport.poll_later(cx);
        } else {
            cx.waker().wake_by_ref();
        }
        if self.hosted || busy {
            self.renew_quota();
        }
    }

    /// One turn; true if anything moved. One that is `due` begins with what tasks have answered.
    fn turn(&mut self, due: bool, cx: &mut Context<'_>) -> bool {
        // A look at the clock waits for every load and store before it.
        let found_at = if due {
            None
        } else {
            self.transport.arrived_at()
        };
        let now = found_at.unwrap_or_else(clock::now);
        let mut moved = due || self.take_in(cx, now);
        if self.told {
            self.connection.deliver_wakes();
            return true;
        }
        self.connection.take_work(now);
        if self.deadline.is_some_and(|at| at <= now) {
            if self.connection.looks_at_socket(now) {
                let queued = self.transport.queued();
                self.connection.see_socket(queued, now);
            }
            self.connection.on_deadline(now);
            self.deadline = self.connection.next_deadline();
            moved = true;
        }
        moved |= self.write(cx, now);
        self.connection.deliver_wakes();
        if self.connection.status() == Status::Closed {
            moved |= self.end_service(now);
        }
        moved
    }

    fn take_in(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.connection.status() == Status::Open {
            self.read(cx, now)
        } else {
            // The end of a stream of bytes stays ready: it moves nothing.
            matches!(self.poll_discard(cx), Poll::Ready(true))
        }
    }

    fn on_socket(&mut self, event: SocketEvent) {
        self.stage = self.stage.on(event);
    }

    /// The session is closed: goes on once the last batch is written, or the peer has not taken it for too long.
    fn end_service(&mut self, now: Instant) -> bool {
        let linger_until = self.connection.linger_until(now);
        if !self.writing {
            self.on_socket(SocketEvent::Written);
            self.linger_until = Some(linger_until);
        } else if now >= *self.linger_until.get_or_insert(linger_until) {
            self.on_socket(SocketEvent::Overdue);
        }
        self.stage != SocketStage::Serving
    }

    /// Reads what there is. True if more may be there: the usual short reception is all, and is not worth another turn to
    /// see that.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.unparsed {
            self.told = self.hosted;
            self.unparsed = self.connection.receive(&mut self.recv, now);
            return true;
        }
        for _ in 0..IO_MAX {
            if !self.connection.wants_bytes() {
                return false;
            }
            let capacity = self.connection.recv_capacity();
            match self.transport.poll_recv(cx, &mut self.recv, capacity) {
                Poll::Pending => return false,
                Poll::Ready(Ok(0)) => {
                    self.connection.eof();
                    return true;
                }
                Poll::Ready(Ok(n)) => {
                    self.quota.spend(n);
                    self.connection.count_received(n, now);
                    self.told = self.hosted;
                    self.unparsed = self.connection.receive(&mut self.recv, now);
                    if !self.unparsed && self.connection.shrinks_recv(now) {
                        self.recv = BytesMut::from(&self.recv[..]);
                    }
                    // What is left of it is for a later turn, after others have had theirs.
                    if self.unparsed
                        || self.told
                        || self.is_used_up()
                        || self.connection.status() != Status::Open
                    {
                        return true;
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.fail(error);
                    return true;
                }
            }
        }
        true
    }

    /// Writes what there is. True if there may be more, or room for it.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        for _ in 0..IO_MAX {
            if !self.writing {
                self.writing = self.connection.transmit(&mut self.batch, now);
            }
            if !self.writing {
                return false;
            }
            match self.transport.poll_send(cx, &mut self.batch) {
                Poll::Pending => return false,
                Poll::Ready(Ok(0)) => self.fail(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    self.quota.spend(n);
                    if self.batch.advance(n) {
                        self.batch.clear();
                        self.writing = false;
                    }
                    self.connection.written(n, self.writing, now);
                }
                Poll::Ready(Err(error)) => self.fail(error),
            }
        }
        true
    }

    /// Ends without another look at the transport.
    #[cold]
    pub(crate) fn give_up(&mut self, error: io::Error) {
        self.fail(error);
        self.connection.deliver_wakes();
        self.connection.released();
        self.on_socket(SocketEvent::Abandoned);
    }

    fn fail(&mut self, error: io::Error) {
        self.connection.io_failed(error);
        self.batch.clear();
        self.writing = false;
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut due = std::mem::take(&mut self.due);
        if !due {
            self.connection.link().awake();
        }
        let mut busy = true;
        for _ in 0..TURNS_MAX {
            let was_due = std::mem::take(&mut due);
            let moved = self.turn(was_due, cx);
            if self.stage != SocketStage::Serving {
                self.used_up = false;
                return Poll::Ready(());
            }
            if std::mem::take(&mut self.told) {
                return self.await_answers(cx);
            }
            if moved && self.is_used_up() {
                break;
            }
            if self.unparsed && !was_due {
                busy = false;
                break;
            }
            if moved {
                continue;
            }
            self.deadline = self.connection.next_deadline();
            let deadline = sooner(self.deadline, self.linger_until);
            if self.transport.poll_timer(cx, deadline) {
                continue;
            }
            if self.connection.link().prepare_sleep(cx.waker()) {
                self.used_up = false;
                self.renew_quota();
                return Poll::Pending;
            }
        }
        self.deadline = self.connection.next_deadline();
        self.step_back(cx, busy);
        Poll::Pending
    }

    /// The deadline is looked up once in a while only, as messages may come without an end.
    fn await_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.receptions = self.receptions.wrapping_add(1);
        if self.receptions.is_multiple_of(TURNS_MAX) {
            self.deadline = self.connection.next_deadline();
        }
        let busy = self.is_used_up();
        self.step_back(cx, busy);
        Poll::Pending
    }

    /// Drops what still comes after the end: it may lie in memory that other sessions wait for.
    /// False if nothing more will come.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.unparsed = false;
        self.recv.clear();
        let capacity = self.connection.recv_capacity();
        let received = ready!(self.transport.poll_recv(cx, &mut self.recv, capacity));
        let n = received.unwrap_or(0);
        self.quota.spend(n);
        Poll::Ready(n > 0)
    }

    /// Tells the peer that nothing more comes. A transport that has to say something for it may not get through.
    fn shut_down(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        if self.transport.poll_timer(cx, self.linger_until) {
            return Poll::Ready(SocketEvent::Overdue);
        }
        Poll::Ready(match ready!(self.transport.poll_shutdown(cx)) {
            Ok(()) => SocketEvent::ShutDown,
            Err(_) => SocketEvent::Gone,
        })
    }

    /// Waits until the peer closes or the time is up.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        for _ in 0..TURNS_MAX {
            if self.transport.poll_timer(cx, self.linger_until) {
                return Poll::Ready(SocketEvent::Overdue);
            }
            if !ready!(self.poll_discard(cx)) {
                return Poll::Ready(SocketEvent::Gone);
            }
            if self.is_used_up() {
                break;
            }
        }
        // What comes without end must not keep the runtime from its timers.
        self.renew_quota();
        self.used_up = true;
        self.transport.poll_later(cx);
        Poll::Pending
    }
}

impl<T: Transport + Unpin, P: Protocol + Unpin> Future for Turns<T, P> {
    type Output = SessionError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionError> {
        let this = &mut *self;
        if this.connection.link().is_inherited() {
            // The socket is the parent's.
            return Poll::Ready(SessionError::EngineStopped);
        }
        loop {
            match this.stage {
                SocketStage::Serving => ready!(this.run(cx)),
                SocketStage::ShuttingDown => {
                    let event = ready!(this.shut_down(cx));
                    this.on_socket(event);
                }
                SocketStage::Lingering => {
                    let event = ready!(this.linger(cx));
                    this.on_socket(event);
                }
                SocketStage::Releasing => {
                    ready!(this.transport.poll_close(cx));
                    this.connection.released();
                    this.on_socket(SocketEvent::Freed);
                }
                SocketStage::Released => {
                    let end = this.connection.link().end().cloned();
                    return Poll::Ready(end.unwrap_or(SessionError::EngineStopped));
                }
            }
        }
    }
}

impl<T, P> std::fmt::Debug for Turns<T, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns")
            .field("writing", &self.writing)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests;
