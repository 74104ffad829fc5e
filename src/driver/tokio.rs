//! Any `AsyncRead + AsyncWrite` as a transport.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::Transport;
use super::timer::Timer;
use crate::proto::Batch;

/// A transport that borrows its buffers only while it is polled.
#[derive(Debug)]
pub(crate) struct TokioIo<T> {
    io: T,
    timer: Timer,
}

impl<T> TokioIo<T> {
    /// To be called on the runtime that will poll it.
    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            timer: Timer::new(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for TokioIo<T> {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        if buf.capacity() - buf.len() < capacity / 2 {
            buf.reserve(capacity - buf.len().min(capacity / 2));
        }
        pin!(self.io.read_buf(buf)).poll(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        let slices = batch.io_slices();
        match &slices[..] {
            [only] => Pin::new(&mut self.io).poll_write(cx, only),
            _ => Pin::new(&mut self.io).poll_write_vectored(cx, &slices),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        self.timer.poll(cx, deadline)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
