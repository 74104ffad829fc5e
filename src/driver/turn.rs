//! The loop that drives one session.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;

use super::{Transport, clock};
use crate::error::SessionError;
use crate::proto::{Batch, Connection, Status};

/// Turns in a row before other tasks of the runtime get theirs.
const TURNS_MAX: usize = 16;
/// Receptions, and batches, of one turn.
const IO_MAX: usize = 2;

/// Where the session is, for its driver.
enum Stage {
    Running,
    /// The last word was written or cannot be: say that nothing more comes.
    ShuttingDown,
    /// Wait for the peer to close as well, so that no reset overtakes the last word.
    Lingering,
    Closing,
    Done,
}

/// A session and its transport. Completes when the session has ended, with the reason.
pub(crate) struct Turns<T> {
    connection: Connection,
    transport: T,
    recv: BytesMut,
    /// `recv` may hold whole frames.
    unparsed: bool,
    batch: Batch,
    writing: bool,
    stage: Stage,
    linger_until: Option<Instant>,
    /// The connection's next deadline, as of the end of the last few turns: what is set meanwhile is not so near.
    deadline: Option<Instant>,
    /// Whether whoever polls does so again when [`Turns::is_due`], once other tasks of the thread had their turn.
    hosted: bool,
    /// To be polled again without being woken.
    due: bool,
    /// Tasks were told of what came, and may have answered.
    told: bool,
    /// How often they were.
    receptions: usize,
}

impl<T: Transport + Unpin> Turns<T> {
    pub(crate) fn new(connection: Connection, transport: T) -> Self {
        if T::BOUND {
            connection.link().home.settle();
        }
        Self {
            connection,
            transport,
            recv: BytesMut::new(),
            unparsed: false,
            batch: Batch::new(),
            writing: false,
            stage: Stage::Running,
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

    /// Other tasks come first.
    fn step_back(&mut self, cx: &Context<'_>) {
        if self.hosted {
            self.due = true;
        } else {
            cx.waker().wake_by_ref();
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
            moved |= self.leave(now);
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

    /// Leaves once the last batch is written, or the peer has not taken it for too long.
    fn leave(&mut self, now: Instant) -> bool {
        let linger_until = self.connection.linger_until(now);
        if !self.writing {
            self.stage = Stage::ShuttingDown;
            self.linger_until = Some(linger_until);
        } else if now >= *self.linger_until.get_or_insert(linger_until) {
            self.stage = Stage::Closing;
        }
        !matches!(self.stage, Stage::Running)
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
            let capacity = self.connection.recv_capacity();
            match self.transport.poll_recv(cx, &mut self.recv, capacity) {
                Poll::Pending => return false,
                Poll::Ready(Ok(0)) => {
                    self.connection.eof();
                    return true;
                }
                Poll::Ready(Ok(n)) => {
                    self.connection.count_received(n, now);
                    self.told = self.hosted;
                    self.unparsed = self.connection.receive(&mut self.recv, now);
                    if !self.unparsed && self.connection.shrinks_recv(now) {
                        self.recv = BytesMut::from(&self.recv[..]);
                    }
                    // What is left of it is for a later turn, after others have had theirs.
                    if self.unparsed || self.told || self.connection.status() != Status::Open {
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
        self.connection.finish();
        self.stage = Stage::Done;
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
        for _ in 0..TURNS_MAX {
            let was_due = std::mem::take(&mut due);
            let moved = self.turn(was_due, cx);
            if !matches!(self.stage, Stage::Running) {
                return Poll::Ready(());
            }
            if std::mem::take(&mut self.told) {
                return self.await_answers(cx);
            }
            if self.unparsed && !was_due {
                break;
            }
            if moved {
                continue;
            }
            self.deadline = self.connection.next_deadline();
            let deadlines = [self.deadline, self.linger_until];
            if self
                .transport
                .poll_timer(cx, deadlines.into_iter().flatten().min())
            {
                continue;
            }
            if self.connection.link().prepare_sleep(cx.waker()) {
                return Poll::Pending;
            }
        }
        self.deadline = self.connection.next_deadline();
        self.step_back(cx);
        Poll::Pending
    }

    /// The deadline is looked up once in a while only, as messages may come without an end.
    fn await_answers(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.receptions = self.receptions.wrapping_add(1);
        if self.receptions.is_multiple_of(TURNS_MAX) {
            self.deadline = self.connection.next_deadline();
        }
        self.step_back(cx);
        Poll::Pending
    }

    /// Drops what still comes after the end: it may lie in memory that other sessions wait for.
    /// False if nothing more will come.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.unparsed = false;
        self.recv.clear();
        let capacity = self.connection.recv_capacity();
        let received = ready!(self.transport.poll_recv(cx, &mut self.recv, capacity));
        Poll::Ready(received.is_ok_and(|n| n > 0))
    }

    /// Waits until the peer closes or the time is up.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            if self.transport.poll_timer(cx, self.linger_until) {
                return Poll::Ready(());
            }
            if !ready!(self.poll_discard(cx)) {
                return Poll::Ready(());
            }
        }
        // What comes without end must not keep the runtime from its timers.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T: Transport + Unpin> Future for Turns<T> {
    type Output = SessionError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionError> {
        let this = &mut *self;
        if this.connection.link().is_inherited() {
            // The socket is the parent's.
            return Poll::Ready(SessionError::EngineStopped);
        }
        loop {
            match this.stage {
                Stage::Running => ready!(this.run(cx)),
                Stage::ShuttingDown => {
                    // A transport that has to say something for it may not get through.
                    if this.transport.poll_timer(cx, this.linger_until) {
                        this.stage = Stage::Closing;
                        continue;
                    }
                    this.stage = match ready!(this.transport.poll_shutdown(cx)) {
                        Ok(()) => Stage::Lingering,
                        Err(_) => Stage::Closing,
                    };
                }
                Stage::Lingering => {
                    ready!(this.linger(cx));
                    this.stage = Stage::Closing;
                }
                Stage::Closing => {
                    ready!(this.transport.poll_close(cx));
                    this.connection.finish();
                    this.stage = Stage::Done;
                }
                Stage::Done => {
                    let end = this.connection.link().end().cloned();
                    return Poll::Ready(end.unwrap_or(SessionError::EngineStopped));
                }
            }
        }
    }
}

impl<T> std::fmt::Debug for Turns<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns")
            .field("writing", &self.writing)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::driver::make_room;
    use crate::frame::Role;
    use crate::handle::Session;
    use crate::link::Info;
    use crate::proto::Pool;

    /// What comes and has not been received, and what was sent.
    #[derive(Default)]
    struct Wire {
        coming: BytesMut,
        sent: BytesMut,
    }

    impl Transport for Wire {
        fn poll_recv(
            &mut self,
            _: &mut Context<'_>,
            buf: &mut BytesMut,
            capacity: usize,
        ) -> Poll<io::Result<usize>> {
            if self.coming.is_empty() {
                return Poll::Pending;
            }
            make_room(buf, capacity);
            let room = buf.capacity() - buf.len();
            let bytes = self.coming.split_to(room.min(self.coming.len()));
            buf.extend_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_send(&mut self, _: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
            for piece in batch.remaining() {
                self.sent.extend_from_slice(piece);
            }
            Poll::Ready(Ok(batch.len()))
        }

        fn poll_timer(&mut self, _: &mut Context<'_>, _: Option<Instant>) -> bool {
            false
        }

        fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    fn end(role: Role) -> (Turns<Wire>, Session) {
        let info = Info::of_a_test(role);
        let pool = Pool::new(1 << 30);
        let (connection, link) =
            Connection::new(role, &Config::default(), info, pool, clock::now());
        (Turns::new(connection, Wire::default()), Session::new(link))
    }

    /// Both ends go on until nothing is on its way.
    fn settle(near: &mut Turns<Wire>, far: &mut Turns<Wire>) {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            for end in [&mut *near, &mut *far] {
                assert!(Pin::new(end).poll(&mut cx).is_pending(), "it has ended");
            }
            let said = near.transport.sent.split();
            let answered = far.transport.sent.split();
            if said.is_empty() && answered.is_empty() {
                return;
            }
            far.transport.coming.unsplit(said);
            near.transport.coming.unsplit(answered);
        }
    }

    #[test]
    fn what_was_received_into_is_small_again_when_little_has_come_for_long() {
        const MUCH: usize = 200 * 1024;
        let _clock = clock::Stopped::new();
        let (mut near, session) = end(Role::Dialer);
        let (mut far, _accepting) = end(Role::Acceptor);
        settle(&mut near, &mut far);
        let least = far.connection.recv_capacity();
        let mut stream = session.try_open("").expect("it is established");
        stream.try_send(vec![7; MUCH].into()).expect("room for it");
        settle(&mut near, &mut far);
        assert!(far.recv.capacity() > least, "{}", far.recv.capacity());

        clock::Stopped::pass(Duration::from_secs(11));
        stream.try_send("little".into()).expect("room for it");
        settle(&mut near, &mut far);
        assert_eq!(far.connection.recv_capacity(), least);
        assert!(far.recv.capacity() <= least, "{}", far.recv.capacity());
    }
}
