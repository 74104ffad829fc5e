//! Sockets on a tokio-uring runtime as a transport.
//!
//! The kernel reads and writes our memory between submission and completion, even if the future that waits for the
//! operation is dropped. So an operation gets raw slices, and the memory behind them is owned by an [`InFlight`] that only
//! a completion opens. If the transport is dropped before (the task was aborted, the runtime ended: tokio-uring 0.5 then
//! forgets operations before they are cancelled) the memory is leaked and counted, not freed.
//!
//! One read and one write are under way at most. `poll_close` shuts the socket down, which ends
//! both, and waits for their completions.
//!
//! Small transfers bypass the ring: tokio-uring submits when its runtime parks and learns of a completion through epoll, so
//! an operation that the socket could do at once costs two more system calls and a turn of the runtime; one that has to
//! wait also interrupts the `epoll_wait` during which it completes. Short batches are offered to the socket by a plain send
//! first; while arrivals are small they are received by a plain call once the socket is readable.

mod relay;

pub(crate) use relay::Relayed;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use bytes::BytesMut;
use tokio_uring::buf::{IoBuf, IoBufMut};
use tokio_uring::net::{TcpStream, UnixStream};

use super::direct::{self, DIRECT_BYTES};
use super::queued::{self, HungUp};
use super::timer::Timer;
use super::{Transport, make_room};
use crate::bridge::PeerSystem;
use crate::wire::Batch;

/// Memory that the kernel may use until the operation completes.
struct InFlight<T>(Option<T>);

impl<T> InFlight<T> {
    const fn new(memory: T) -> Self {
        Self(Some(memory))
    }

    /// The operation has completed.
    fn complete(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for InFlight<T> {
    fn drop(&mut self) {
        if let Some(memory) = self.0.take() {
            super::count_leaked();
            std::mem::forget(memory);
        }
    }
}

/// A piece of memory in an [`InFlight`], as tokio-uring wants it.
struct Slice {
    start: *mut u8,
    len: usize,
}

// SAFETY: the pointer is into memory that an `InFlight` keeps, in place and unused, until the
// operation has completed (`UringIo::poll_recv` and `poll_send` are the only makers of slices).
unsafe impl IoBuf for Slice {
    fn stable_ptr(&self) -> *const u8 {
        self.start
    }

    fn bytes_init(&self) -> usize {
        self.len
    }

    fn bytes_total(&self) -> usize {
        self.len
    }
}

// SAFETY: as for `IoBuf`; slices given to reads are made from spare capacity that nothing else uses.
unsafe impl IoBufMut for Slice {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.start
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

/// A connected socket that a tokio-uring runtime may own.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    async fn read(&self, slice: Slice) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(slice).await.0,
            Self::Unix(socket) => socket.read(slice).await.0,
        }
    }

    async fn write(&self, mut slices: Vec<Slice>) -> io::Result<usize> {
        match (self, slices.len()) {
            (Self::Tcp(socket), 1) => socket.write(slices.remove(0)).submit().await.0,
            (Self::Tcp(socket), _) => socket.writev(slices).await.0,
            (Self::Unix(socket), 1) => socket.write(slices.remove(0)).submit().await.0,
            (Self::Unix(socket), _) => socket.writev(slices).await.0,
        }
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }

    /// Receives without waiting; `None` if nothing has arrived.
    fn recv_now(&self, buf: &mut BytesMut) -> Option<io::Result<usize>> {
        let fd = self.borrow();
        let spare = buf.spare_capacity_mut();
        let received = direct::recv(fd, spare)?;
        if let Ok(n) = received {
            // SAFETY: `recv` has written `n` bytes behind `len`, into the spare capacity.
            unsafe { buf.set_len(buf.len() + n) };
        }
        Some(received)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Unix(socket) => socket.shutdown(how),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

fn watch(socket: &Rc<Socket>) -> Option<AsyncFd<Rc<Socket>>> {
    // SAFETY: the descriptor is the socket's, always the same one, and open until the last `Rc` is dropped.
    unsafe { AsyncFd::register_with_interest(Rc::clone(socket), Interest::READABLE) }.ok()
}

type Operation = Pin<Box<dyn Future<Output = io::Result<usize>>>>;

/// See the module.
pub(crate) struct UringIo {
    // Fields drop in order: operations before the memory that they use.
    reading: Option<Operation>,
    writing: Option<Operation>,
    recv: Option<InFlight<BytesMut>>,
    batch: Option<InFlight<Batch>>,
    /// Readiness of the socket; `None` if all receptions go through the ring.
    readable: Option<AsyncFd<Rc<Socket>>>,
    /// Arrivals are large.
    dense: bool,
    socket: Rc<Socket>,
    timer: Timer,
    /// A no-op under way in the ring, see `poll_later`.
    resting: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

impl UringIo {
    /// To be called on the runtime that will own the socket, which must be in blocking mode: the
    /// kernel ends operations on a non-blocking one with `EAGAIN` where it should wait.
    pub(crate) fn new(socket: Socket) -> Self {
        let socket = Rc::new(socket);
        Self {
            reading: None,
            writing: None,
            recv: None,
            batch: None,
            readable: watch(&socket),
            dense: false,
            socket,
            timer: Timer::new(),
            resting: None,
        }
    }

    fn start_read(&mut self, buf: &mut BytesMut, capacity: usize) -> Operation {
        let mut buf = std::mem::take(buf);
        make_room(&mut buf, capacity);
        let spare = buf.spare_capacity_mut();
        let slice = Slice {
            start: spare.as_mut_ptr().cast(),
            len: spare.len(),
        };
        self.recv = Some(InFlight::new(buf));
        let socket = Rc::clone(&self.socket);
        Box::pin(async move { socket.read(slice).await })
    }

    /// Receives by a plain call once the socket is readable.
    fn poll_recv_now(
        &self,
        readable: &AsyncFd<Rc<Socket>>,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(readable.poll_read_ready(cx))?;
            make_room(buf, capacity);
            let room = buf.capacity() - buf.len();
            let received = self.socket.recv_now(buf);
            // A short read has emptied the socket: new bytes signal readiness again.
            if !matches!(received, Some(Ok(n)) if n == room || n == 0) {
                ready.clear_ready();
            }
            if let Some(result) = received {
                return Poll::Ready(result);
            }
        }
    }

    fn start_write(&mut self, batch: &mut Batch) -> Operation {
        let batch = std::mem::take(batch);
        let slices = batch
            .remaining()
            .iter()
            .map(|part| Slice {
                start: part.as_ptr().cast_mut(),
                len: part.len(),
            })
            .collect();
        self.batch = Some(InFlight::new(batch));
        let socket = Rc::clone(&self.socket);
        Box::pin(async move { socket.write(slices).await })
    }
}

impl Transport for UringIo {
    const BOUND: bool = true;

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        let mut reading = match (self.reading.take(), &self.readable) {
            (Some(reading), _) => reading,
            (None, Some(readable)) if !self.dense => {
                let received = ready!(self.poll_recv_now(readable, cx, buf, capacity))?;
                self.dense = received > DIRECT_BYTES;
                return Poll::Ready(Ok(received));
            }
            (None, _) => self.start_read(buf, capacity),
        };
        let Poll::Ready(result) = reading.as_mut().poll(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        if let Some(memory) = self.recv.take().and_then(InFlight::complete) {
            *buf = memory;
        }
        if let Ok(n) = result {
            self.dense = n > DIRECT_BYTES;
            // SAFETY: the kernel has written `n` bytes behind `len`, into the spare capacity that
            // `start_read` gave it.
            unsafe { buf.set_len(buf.len() + n) };
        }
        Poll::Ready(result)
    }

    /// A read that is under way completes into memory of this session, and no other is started.
    fn pause_recv(&mut self) {}

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        // No send is under way, so this one overtakes none.
        if self.writing.is_none()
            && let Some(only) = direct::piece(batch)
            && let Some(result) = direct::send(self.socket.borrow(), only)
        {
            return Poll::Ready(result);
        }
        let mut writing = match self.writing.take() {
            Some(writing) => writing,
            None => self.start_write(batch),
        };
        let Poll::Ready(result) = writing.as_mut().poll(cx) else {
            self.writing = Some(writing);
            return Poll::Pending;
        };
        if let Some(memory) = self.batch.take().and_then(InFlight::complete) {
            *batch = memory;
        }
        Poll::Ready(result)
    }

    fn queued(&mut self) -> Option<u64> {
        queued::queued(self.socket.borrow())
    }

    fn peer_system(&mut self) -> PeerSystem {
        queued::peer_system(self.socket.borrow())
    }

    /// A read that is under way may have taken the last bytes.
    fn hung_up(&mut self) -> HungUp {
        queued::hung_up(self.socket.borrow(), self.reading.is_some())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> io::Result<bool> {
        self.timer.poll(cx, deadline)
    }

    /// The runtime submits operations only before it parks, which it does not do while a task keeps having itself polled again
    /// by other means: the operations of all its tasks would wait. So this waits for an operation too.
    fn poll_later(&mut self, cx: &mut Context<'_>) {
        let mut resting = Box::pin(tokio_uring::no_op());
        if resting.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.resting = Some(resting);
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error means that the socket is shut down already.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(writing) = &mut self.writing {
            let _ = ready!(writing.as_mut().poll(cx));
            self.writing = None;
            drop(self.batch.take().and_then(InFlight::complete));
        }
        if let Some(reading) = &mut self.reading {
            let _ = ready!(reading.as_mut().poll(cx));
            self.reading = None;
            drop(self.recv.take().and_then(InFlight::complete));
        }
        Poll::Ready(())
    }
}

impl Drop for UringIo {
    /// Operations that are under way keep the socket open: end them, so that the peer sees the end.
    fn drop(&mut self) {
        if self.reading.is_some() || self.writing.is_some() {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

impl fmt::Debug for UringIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringIo")
            .field("reading", &self.reading.is_some())
            .field("writing", &self.writing.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
