//! Any `AsyncRead + AsyncWrite` as a transport.
//!
//! It is polled with a waker of our own, which notes each call and wakes the task of the session. While a read is pending and
//! that waker was not called, a poll for another reason does not read: nothing has arrived.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::queued::{self, HungUp};
use super::timer::Timer;
use super::{Transport, later, make_room};
use crate::bridge::PeerSystem;
use crate::sync::{AtomicBool, Ordering};
use crate::wire::Batch;

/// Tries of an operation that the transport says was interrupted, before the other tasks of the thread run.
const INTERRUPTED_TRIES: usize = 16;

/// Tries an operation again that was interrupted, as the standard library does. One that always is ends with the session's
/// timeouts.
fn uninterrupted<T>(
    cx: &mut Context<'_>,
    mut operation: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    for _ in 0..INTERRUPTED_TRIES {
        match operation(cx) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
    later(cx);
    Poll::Pending
}

/// The state of the waker that a transport has.
#[derive(Debug)]
struct Notice {
    task: Waker,
    /// It was called.
    given: AtomicBool,
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // ORDERING: pairs with `Signal::clear`; publishes the transport's actions before it. That the next poll sees it is the
        // work of the task's waker, which publishes what precedes a wake, also one of a task that is scheduled already.
        self.given.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// The waker that a transport is polled with, and whether it was called. One waker serves all operations: TLS reads while it
/// writes, and a transport may store one waker only.
#[derive(Debug)]
struct Signal {
    notice: Arc<Notice>,
    waker: Waker,
    /// A read with this waker is pending.
    awaits: bool,
}

impl Signal {
    #[cold]
    #[inline(never)]
    fn new(task: &Waker) -> Self {
        let notice = Arc::new(Notice {
            task: task.clone(),
            given: AtomicBool::new(false),
        });
        Self {
            waker: Waker::from(Arc::clone(&notice)),
            notice,
            awaits: false,
        }
    }

    /// The signal of a transport that is polled by `task`. One for another task is made anew, and forgets the pending read.
    #[inline]
    fn of<'a>(current: &'a mut Option<Self>, task: &Waker) -> &'a mut Self {
        drop(current.take_if(|signal| !signal.is_for(task)));
        current.get_or_insert_with(|| Self::new(task))
    }

    #[inline]
    fn is_for(&self, task: &Waker) -> bool {
        self.notice.task.will_wake(task)
    }

    /// Whether the pending read would be pending again.
    #[inline]
    fn says_nothing(&self, task: &Waker) -> bool {
        self.awaits && !self.notice.given.load(Ordering::Relaxed) && self.is_for(task)
    }

    /// To be called before a read, so that a call during it counts.
    #[inline]
    fn clear(&self) {
        let given = &self.notice.given;
        if given.load(Ordering::Relaxed) {
            // ORDERING: pairs with `Notice::wake_by_ref`.
            given.swap(false, Ordering::Acquire);
        }
    }
}

/// Lends the socket of a transport.
pub(crate) type Descriptor<T> = for<'a> fn(&'a T) -> Option<BorrowedFd<'a>>;

/// A transport that borrows its buffers only while it is polled.
#[derive(Debug)]
pub(crate) struct TokioIo<T> {
    io: T,
    signal: Option<Signal>,
    /// Bytes of the batch written but not flushed: a transport such as TLS may still buffer them.
    unflushed: Option<usize>,
    socket: Descriptor<T>,
    timer: Timer,
}

impl<T> TokioIo<T> {
    /// `socket` lends the system's socket, if that is one and nothing buffers in front of it.
    pub(crate) const fn new(io: T, socket: Descriptor<T>) -> Self {
        Self {
            io,
            socket,
            signal: None,
            unflushed: None,
            timer: Timer::new(),
        }
    }
}

fn poll_write<T: AsyncWrite + Unpin>(
    io: &mut T,
    cx: &mut Context<'_>,
    batch: &Batch,
) -> Poll<io::Result<usize>> {
    let written = ready!(uninterrupted(cx, |cx| match batch.one_piece() {
        Some(only) => Pin::new(&mut *io).poll_write(cx, only),
        None => Pin::new(&mut *io).poll_write_vectored(cx, &batch.io_slices()),
    }))?;
    let given = batch.left();
    if written > given {
        return Poll::Ready(Err(wrote_too_much(written, given)));
    }
    Poll::Ready(Ok(written))
}

#[cold]
fn wrote_too_much(written: usize, given: usize) -> io::Error {
    let fault =
        format!("the transport reported {written} bytes written of {given} that it was given");
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

impl<T: AsyncRead + Unpin> TokioIo<T> {
    #[inline(never)] // The loop calls it in several places.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        make_room(buf, capacity);
        let signal = Signal::of(&mut self.signal, cx.waker());
        signal.clear();
        // Not after a panic either.
        signal.awaits = false;
        let mut cx = Context::from_waker(&signal.waker);
        let read = uninterrupted(&mut cx, |cx| pin!(self.io.read_buf(buf)).poll(cx));
        if read.is_pending() {
            signal.awaits = true;
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for TokioIo<T> {
    #[inline]
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        let signal = self.signal.as_ref();
        if signal.is_some_and(|signal| signal.says_nothing(cx.waker())) {
            return Poll::Pending;
        }
        self.poll_read(cx, buf, capacity)
    }

    /// Bytes wait in the transport.
    fn pause_recv(&mut self) {}

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        let signal = Signal::of(&mut self.signal, cx.waker());
        let mut cx = Context::from_waker(&signal.waker);
        let written = match self.unflushed.take() {
            Some(written) => written,
            None => ready!(poll_write(&mut self.io, &mut cx, batch))?,
        };
        let flushed = uninterrupted(&mut cx, |cx| Pin::new(&mut self.io).poll_flush(cx));
        if flushed.is_pending() {
            self.unflushed = Some(written);
        }
        flushed.map_ok(|()| written)
    }

    fn queued(&mut self) -> Option<u64> {
        (self.socket)(&self.io).and_then(queued::queued)
    }

    fn peer_system(&mut self) -> PeerSystem {
        (self.socket)(&self.io).map_or(PeerSystem::Unknown, queued::peer_system)
    }

    fn hung_up(&mut self) -> HungUp {
        (self.socket)(&self.io).map_or(HungUp::No, |socket| queued::hung_up(socket, false))
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> io::Result<bool> {
        self.timer.poll(cx, deadline)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let signal = Signal::of(&mut self.signal, cx.waker());
        let mut cx = Context::from_waker(&signal.waker);
        uninterrupted(&mut cx, |cx| Pin::new(&mut self.io).poll_shutdown(cx))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests;
