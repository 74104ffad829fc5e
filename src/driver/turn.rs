//! The loop that drives one session.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;

use super::queued::HungUp;
use super::{Transport, clock};
use crate::bridge::{Protocol, SocketEvent, SocketStage, Status, sooner};
use crate::error::SessionError;
use crate::wire::{Batch, WORK_MAX};

/// Turns in a row before other tasks of the runtime are polled.
const TURNS_MAX: usize = 16;
/// Receptions, and batches, of one turn.
const IO_MAX: usize = 2;
/// Bytes received and sent before the thread checks its sockets and timers: four of a session's largest receptions by
/// default, for each of which that check costs next to nothing, and some 200 us in all.
const BYTES_MAX: usize = 1024 * 1024;

/// The application's tasks that run between two polls of a session, on the same thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// None: the thread is an engine's own.
    Nothing,
    /// Those of a host, which polls again when [`Turns::is_due`].
    Host,
    /// Those of the tokio runtime on which the session is a task.
    Runtime,
}

/// A session and its transport. Completes when the session has ended, with the reason.
pub(crate) struct Turns<T, P> {
    connection: P,
    transport: T,
    recv: BytesMut,
    /// `recv` may hold whole frames.
    unparsed: bool,
    /// The session wanted no bytes when it was to read, perhaps in an earlier turn.
    paused: bool,
    batch: Batch,
    writing: bool,
    /// The peer has closed the connection: the bytes that it sent before are read, and nothing is sent any more.
    unheard: bool,
    stage: SocketStage,
    linger_until: Option<Instant>,
    /// The connection's next deadline, as of the end of the last few turns: deadlines set meanwhile are later.
    deadline: Option<Instant>,
    /// The work allowed before the thread checks its sockets and timers.
    quota: Quota,
    /// The last poll ended because the quota was used up, or because every turn made progress.
    used_up: bool,
    beside: Beside,
    /// To be polled again without a wake.
    repoll_due: bool,
    /// Tasks were woken for received messages, and may have queued replies.
    replies_expected: bool,
    /// Number of receptions after which tasks were woken.
    receptions: usize,
}

/// The work left before the thread checks its sockets and timers: up to [`WORK_MAX`] frames and [`BYTES_MAX`]. The
/// reception or batch that uses it up is completed, so the maximum is twice that.
#[derive(Clone, Copy, Debug)]
struct Quota {
    /// The session's work at the start of the quota.
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
            paused: false,
            batch: Batch::new(),
            writing: false,
            unheard: false,
            stage: SocketStage::Serving,
            linger_until: None,
            deadline: None,
            beside: Beside::Nothing,
            repoll_due: false,
            replies_expected: false,
            receptions: 0,
        }
    }

    /// For a thread that also runs tasks of the application.
    ///
    /// Their replies to received messages are queued by the time of the next poll. Sleeping before that, and
    /// being woken by the first reply, takes as long as the rest of the way of a lone message through the session, and sends it alone. So
    /// after each reception these tasks run first, and their replies are sent before anything else is done.
    pub(crate) const fn set_beside(&mut self, beside: Beside) {
        self.beside = beside;
    }

    /// Whether tasks that are about to be woken may queue replies to the received messages.
    fn expects_replies(&self) -> bool {
        match self.beside {
            Beside::Nothing => false,
            Beside::Host => true,
            // A runtime wakes an idle thread for a task that yields. A lone reply costs less: it has the session polled right behind its task.
            Beside::Runtime => self.connection.waking() > 1,
        }
    }

    /// Whether it is to be polled again after the other tasks of the thread.
    pub(super) const fn is_due(&self) -> bool {
        self.repoll_due
    }

    /// Whether its last poll used up its time: there is more to do, and other sessions wait.
    pub(super) const fn has_used_up(&self) -> bool {
        self.used_up
    }

    fn is_used_up(&self) -> bool {
        self.quota.is_used_up(self.connection.work_done())
    }

    fn renew_quota(&mut self) {
        self.quota = Quota::new(self.connection.work_done());
    }

    /// Lets other tasks run first and, if `busy` for long enough, lets the thread check its sockets and timers.
    fn step_back(&mut self, cx: &mut Context<'_>, busy: bool) {
        self.used_up = busy;
        self.repoll_due = self.beside != Beside::Nothing;
        match self.beside {
            Beside::Host => {}
            _ if busy => self.transport.poll_later(cx),
            // To the end of the runtime's queue.
            _ => cx.waker().wake_by_ref(),
        }
        if self.beside == Beside::Host || busy {
            self.renew_quota();
        }
    }

    /// One turn; true if it made progress. A repolled one begins with the replies of tasks.
    fn turn(&mut self, repolled: bool, cx: &mut Context<'_>) -> bool {
        // Reading the clock waits for every load and store before it.
        let found_at = if repolled {
            None
        } else {
            self.transport.arrived_at()
        };
        let now = found_at.unwrap_or_else(clock::now);
        let mut moved = repolled || self.take_in(cx, now);
        if self.replies_expected {
            self.connection.deliver_wakes();
            return true;
        }
        self.connection.take_work(now);
        if self.deadline.is_some_and(|at| at <= now) {
            if self.connection.looks_at_socket(now) {
                self.look(now);
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

    /// Reports what the system knows of the connection.
    #[cold]
    fn look(&mut self, now: Instant) {
        let queued = self.transport.queued();
        self.connection.see_socket(queued, now);
        if P::HAS_PING {
            return;
        }
        let system = self.transport.peer_system();
        self.connection.see_peer_system(system, now);
        // Its end is behind bytes that are not read for now.
        let open = self.connection.status() == Status::Open && !self.unparsed;
        if open && !self.connection.wants_bytes() {
            match self.transport.hung_up() {
                HungUp::No => {}
                HungUp::BehindBytes => self.stop_sending(now),
                HungUp::Now(Ok(())) => self.connection.eof(),
                HungUp::Now(Err(error)) => self.fail(error),
            }
        }
    }

    fn take_in(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.connection.status() == Status::Open {
            self.read(cx, now)
        } else {
            // The end of a stream of bytes stays ready: no progress.
            matches!(self.poll_discard(cx), Poll::Ready(true))
        }
    }

    fn on_socket(&mut self, event: SocketEvent) {
        self.stage = self.stage.on(event);
    }

    /// The session is closed: moves on once the last batch is written, or the peer has not taken it for too long.
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

    /// Reads the available bytes. True if there may be more: usually one short reception is all, and does not justify another
    /// turn to find that out.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.unparsed {
            self.unparsed = self.connection.receive(&mut self.recv, now);
            self.replies_expected = self.expects_replies();
            return true;
        }
        for _ in 0..IO_MAX {
            if !self.connection.wants_bytes() {
                self.paused = true;
                self.transport.pause_recv();
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
                    self.unparsed = self.connection.receive(&mut self.recv, now);
                    self.replies_expected = self.expects_replies();
                    if !self.unparsed && self.connection.shrinks_recv(now) {
                        self.recv = BytesMut::from(&self.recv[..]);
                    }
                    // The rest of it is for a later turn, after the other tasks.
                    if self.unparsed
                        || self.replies_expected
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

    /// Whether a session that wanted no bytes wants some again, because of this turn's requests: nothing else would wake it.
    fn goes_on(&mut self) -> bool {
        if !self.paused {
            return false;
        }
        self.paused = false;
        self.connection.wants_bytes()
    }

    /// Writes what is queued. True if there may be more, or room for it.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        for _ in 0..IO_MAX {
            if self.unheard {
                return false;
            }
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
                Poll::Ready(Err(error)) => self.send_failed(error, now),
            }
        }
        true
    }

    /// A peer that has closed the connection in order may have sent bytes before, which are read first.
    #[cold]
    fn send_failed(&mut self, error: io::Error, now: Instant) {
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        let unread = match self.transport.hung_up() {
            HungUp::No | HungUp::Now(Err(_)) => false,
            HungUp::BehindBytes => true,
            HungUp::Now(Ok(())) => self.unparsed,
        };
        if closed && unread && self.connection.status() == Status::Open {
            self.stop_sending(now);
        } else {
            self.fail(error);
        }
    }

    /// The peer hears nothing more, and has left bytes that are not read.
    fn stop_sending(&mut self, now: Instant) {
        self.connection.peer_has_closed(now);
        self.unheard = true;
        self.batch.clear();
        self.writing = false;
    }

    /// Ends without using the transport.
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
        let mut repolled = std::mem::take(&mut self.repoll_due);
        if !repolled {
            self.connection.link().awake();
        }
        let mut busy = true;
        for _ in 0..TURNS_MAX {
            let first_of_repoll = std::mem::take(&mut repolled);
            let moved = self.turn(first_of_repoll, cx);
            if self.stage != SocketStage::Serving {
                self.used_up = false;
                return Poll::Ready(());
            }
            if self.replies_expected {
                self.replies_expected = false;
                return self.await_answers(cx);
            }
            if moved && self.is_used_up() {
                break;
            }
            if self.unparsed && !first_of_repoll {
                busy = false;
                break;
            }
            if moved || self.goes_on() {
                continue;
            }
            self.deadline = self.connection.next_deadline();
            let mut deadline = self.deadline;
            if self.linger_until.is_some() {
                deadline = sooner(deadline, self.linger_until);
            }
            match self.transport.poll_timer(cx, deadline) {
                Ok(false) => {}
                Ok(true) => continue,
                // A session without deadlines could wait for ever.
                Err(error) => {
                    self.fail(error);
                    continue;
                }
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

    /// The deadline is read once in [`TURNS_MAX`] receptions only, as messages may arrive without a pause.
    fn await_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.receptions = self.receptions.wrapping_add(1);
        if self.receptions.is_multiple_of(TURNS_MAX) {
            self.deadline = self.connection.next_deadline();
        }
        let busy = self.is_used_up();
        self.step_back(cx, busy);
        Poll::Pending
    }

    /// Discards bytes received after the end: they may use memory that other sessions wait for.
    /// False if no more will arrive.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.unparsed = false;
        self.recv.clear();
        let capacity = self.connection.recv_capacity();
        let received = ready!(self.transport.poll_recv(cx, &mut self.recv, capacity));
        let n = received.unwrap_or(0);
        self.quota.spend(n);
        Poll::Ready(n > 0)
    }

    /// Whether the time for the peer to close is over; without a timer it is.
    fn has_lingered(&mut self, cx: &mut Context<'_>) -> bool {
        let over = self.transport.poll_timer(cx, self.linger_until);
        over.unwrap_or(true)
    }

    /// Shuts down the sending direction. A transport that has to send bytes for it may be stuck.
    fn shut_down(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        if self.has_lingered(cx) {
            return Poll::Ready(SocketEvent::Overdue);
        }
        Poll::Ready(match ready!(self.transport.poll_shutdown(cx)) {
            Ok(()) => SocketEvent::ShutDown,
            Err(_) => SocketEvent::Gone,
        })
    }

    /// Waits until the peer closes or the time limit expires.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        for _ in 0..TURNS_MAX {
            if self.has_lingered(cx) {
                return Poll::Ready(SocketEvent::Overdue);
            }
            if !ready!(self.poll_discard(cx)) {
                return Poll::Ready(SocketEvent::Gone);
            }
            if self.is_used_up() {
                break;
            }
        }
        // A peer that sends without a pause must not keep the runtime from its timers.
        self.renew_quota();
        self.used_up = true;
        self.transport.poll_later(cx);
        Poll::Pending
    }
}

impl<T: Transport + Unpin, P: Protocol + Unpin> Turns<T, P> {
    /// The stages behind the service.
    #[cold]
    fn close_socket(&mut self, cx: &mut Context<'_>) -> Poll<SessionError> {
        loop {
            match self.stage {
                SocketStage::ShuttingDown => {
                    let event = ready!(self.shut_down(cx));
                    self.on_socket(event);
                }
                SocketStage::Lingering => {
                    let event = ready!(self.linger(cx));
                    self.on_socket(event);
                }
                SocketStage::Releasing => {
                    ready!(self.transport.poll_close(cx));
                    self.connection.released();
                    self.on_socket(SocketEvent::Freed);
                }
                SocketStage::Serving | SocketStage::Released => {
                    let end = self.connection.link().end().cloned();
                    return Poll::Ready(end.unwrap_or(SessionError::EngineStopped));
                }
            }
        }
    }
}

impl<T: Transport + Unpin, P: Protocol + Unpin> Future for Turns<T, P> {
    type Output = SessionError;

    #[inline(never)] // The loops of all wires in one function would share its registers.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionError> {
        let this = &mut *self;
        if this.connection.link().is_inherited() {
            // The socket is the parent's.
            return Poll::Ready(SessionError::EngineStopped);
        }
        if this.stage == SocketStage::Serving {
            ready!(this.run(cx));
        }
        this.close_socket(cx)
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
