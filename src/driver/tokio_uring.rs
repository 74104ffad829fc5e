//! Sockets on a tokio-uring runtime as a transport.
//!
//! The kernel reads and writes memory of ours between submission and completion, whatever happens
//! to the future that waits for it. So an operation gets raw slices, and the memory behind them
//! lies in an [`InFlight`] that only a completion opens. If the transport is dropped before (the
//! task was aborted, the runtime ended: tokio-uring 0.5 then forgets operations before they are
//! cancelled) the memory is leaked and counted, not freed.
//!
//! One read and one write are under way at most. `poll_close` shuts the socket down, which ends
//! both, and waits for their completions.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use socket2::SockRef;
use tokio_uring::buf::{IoBuf, IoBufMut};
use tokio_uring::net::{TcpStream, UnixStream};

use super::Transport;
use super::timer::Timer;
use crate::proto::Batch;

/// A read shorter than this is not worth a system call.
const READ_MIN: usize = 4096;

/// Batches up to this many bytes are offered to the socket by a plain send first.
///
/// tokio-uring submits when its runtime parks and learns of the completion through epoll: two more
/// system calls and a turn of the runtime for a send that would have completed at once.
const DIRECT_SEND_BYTES: usize = 16 * 1024;

/// Linux's values, on every architecture.
const MSG_DONTWAIT: i32 = 0x40;
const MSG_NOSIGNAL: i32 = 0x4000;

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

    /// Sends what the socket takes without waiting; `None` if that is nothing.
    fn send_now(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let fd = match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        };
        // SAFETY: the descriptor is open for as long as `self`, which outlives the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = MSG_DONTWAIT | MSG_NOSIGNAL;
        match SockRef::from(&fd).send_with_flags(bytes, flags) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Unix(socket) => socket.shutdown(how),
        }
    }
}

type Operation = Pin<Box<dyn Future<Output = io::Result<usize>>>>;

/// See the module.
pub(crate) struct UringIo {
    // Operations before the memory that they use, for the order in which they are dropped.
    reading: Option<Operation>,
    writing: Option<Operation>,
    recv: Option<InFlight<BytesMut>>,
    batch: Option<InFlight<Batch>>,
    socket: std::rc::Rc<Socket>,
    timer: Timer,
}

impl UringIo {
    /// To be called on the runtime that will own the socket, which must be in blocking mode: the
    /// kernel ends operations on a non-blocking one with `EAGAIN` where it should wait.
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            reading: None,
            writing: None,
            recv: None,
            batch: None,
            socket: std::rc::Rc::new(socket),
            timer: Timer::new(),
        }
    }

    fn start_read(&mut self, buf: &mut BytesMut, capacity: usize) -> Operation {
        let mut buf = std::mem::take(buf);
        if buf.capacity() - buf.len() < READ_MIN.max(capacity / 2) {
            buf.reserve(capacity - buf.len().min(capacity / 2));
        }
        let spare = buf.spare_capacity_mut();
        let slice = Slice {
            start: spare.as_mut_ptr().cast(),
            len: spare.len(),
        };
        self.recv = Some(InFlight::new(buf));
        let socket = std::rc::Rc::clone(&self.socket);
        Box::pin(async move { socket.read(slice).await })
    }

    fn start_write(&mut self, batch: &mut Batch) -> Operation {
        let batch = std::mem::take(batch);
        let slices = batch
            .remaining(usize::MAX)
            .iter()
            .map(|part| Slice {
                start: part.as_ptr().cast_mut(),
                len: part.len(),
            })
            .collect();
        self.batch = Some(InFlight::new(batch));
        let socket = std::rc::Rc::clone(&self.socket);
        Box::pin(async move { socket.write(slices).await })
    }
}

impl Transport for UringIo {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.start_read(buf, capacity),
        };
        let Poll::Ready(result) = reading.as_mut().poll(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        if let Some(memory) = self.recv.take().and_then(InFlight::complete) {
            *buf = memory;
        }
        if let Ok(n) = result {
            // SAFETY: the kernel has written `n` bytes behind `len`, into the spare capacity that
            // `start_read` gave it.
            unsafe { buf.set_len(buf.len() + n) };
        }
        Poll::Ready(result)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        if self.writing.is_none() && batch.len() <= DIRECT_SEND_BYTES {
            // No send is under way, so this one overtakes none.
            let slices = batch.remaining(2);
            if let [only] = slices[..]
                && let Some(result) = self.socket.send_now(only)
            {
                return Poll::Ready(result);
            }
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

    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        self.timer.poll(cx, deadline)
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error means that the socket is down already, which is what is wanted.
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
