//! Any `AsyncRead + AsyncWrite` as a transport.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::queued::{self, HungUp};
use super::timer::Timer;
use super::{Transport, later, make_room};
use crate::bridge::PeerSystem;
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

/// Lends the socket of a transport.
pub(crate) type Descriptor<T> = for<'a> fn(&'a T) -> Option<BorrowedFd<'a>>;

/// A transport that borrows its buffers only while it is polled.
#[derive(Debug)]
pub(crate) struct TokioIo<T> {
    io: T,
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
            unflushed: None,
            timer: Timer::new(),
        }
    }
}

impl<T: AsyncWrite + Unpin> TokioIo<T> {
    fn poll_write(&mut self, cx: &mut Context<'_>, batch: &Batch) -> Poll<io::Result<usize>> {
        let written = ready!(uninterrupted(cx, |cx| match batch.one_piece() {
            Some(only) => Pin::new(&mut self.io).poll_write(cx, only),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, &batch.io_slices()),
        }))?;
        let given = batch.left();
        if written > given {
            let fault = format!(
                "the transport reported {written} bytes written of {given} that it was given"
            );
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
        }
        Poll::Ready(Ok(written))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for TokioIo<T> {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        make_room(buf, capacity);
        uninterrupted(cx, |cx| pin!(self.io.read_buf(buf)).poll(cx))
    }

    /// Bytes wait in the transport.
    fn pause_recv(&mut self) {}

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        let written = match self.unflushed.take() {
            Some(written) => written,
            None => ready!(self.poll_write(cx, batch))?,
        };
        let flushed = uninterrupted(cx, |cx| Pin::new(&mut self.io).poll_flush(cx));
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
        uninterrupted(cx, |cx| Pin::new(&mut self.io).poll_shutdown(cx))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
