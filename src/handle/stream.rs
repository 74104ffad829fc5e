//! Both halves of a stream in one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::lease::Lease;
use super::recv::RecvStream;
use super::send::SendStream;
use crate::bridge::{HandleSide, Lane, reason};
use crate::error::{SendError, StreamError, TrySendError};
use crate::sync::Arc;
use crate::wire::native::frame::StreamId;

// An application that holds many idle streams holds so many of these.
#[cfg(not(ringmux_loom))]
const _: () = assert!(size_of::<Stream>() == 56);

/// A stream of messages in both directions, from [`Session::open`](crate::Session::open) or
/// [`Session::accept`](crate::Session::accept).
///
/// Has the methods of both halves; [`split`](Self::split) gives them to different tasks or threads,
/// or to a `select!` that sends and receives at once.
/// Dropping it cancels the stream unless this side has finished, and asks the peer to stop sending
/// unless it has.
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    recv: RecvStream,
}

impl Stream {
    pub(crate) fn new(side: HandleSide) -> Self {
        let (writer, reader) = side.split();
        Self {
            send: SendStream::new(writer),
            recv: RecvStream::new(reader),
        }
    }

    pub(crate) fn accepted(side: HandleSide) -> Self {
        let lane = side.lane();
        lane.mark_accepted();
        if lane.session().is_hungry() {
            lane.raise(reason::CREDIT);
        }
        Self::new(side)
    }

    pub(super) fn lane(&self) -> &Arc<Lane> {
        self.send.lane()
    }

    pub(super) fn register_sender(&mut self, cx: &Context<'_>) {
        self.send.register(cx);
    }

    /// What the side that opened the stream sent with it.
    #[must_use]
    pub fn opening(&self) -> &Bytes {
        self.send.lane().opening()
    }

    /// The stream's id on the wire; `None` before its opening has left.
    #[must_use]
    pub fn id(&self) -> Option<StreamId> {
        self.send.lane().id().and_then(StreamId::new)
    }

    /// The stream's [`tracing`] span, with its `id` and `urgency`, inside of the session's. Level debug, target
    /// `ringmux::stream`; an error that ends the stream is told in it.
    ///
    /// Disabled, which costs nothing, if no subscriber wanted it when the stream began.
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        self.send.lane().span()
    }

    /// The two halves, each to be used on its own.
    #[must_use]
    pub fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    /// See [`SendStream::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    #[inline]
    pub fn send(
        &mut self,
        message: impl Into<Bytes>,
    ) -> impl Future<Output = Result<(), SendError>> {
        self.send.send(message)
    }

    /// See [`SendStream::send_slice`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    #[inline]
    pub fn send_slice(&mut self, message: &[u8]) -> impl Future<Output = Result<(), SendError>> {
        self.send.send_slice(message)
    }

    /// See [`SendStream::send_all`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send_all(
        &mut self,
        messages: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), SendError> {
        self.send.send_all(messages).await
    }

    /// See [`SendStream::send_meta`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send_meta(&mut self, block: impl Into<Bytes>) -> Result<(), SendError> {
        self.send.send_meta(block).await
    }

    /// See [`SendStream::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&mut self, message: Bytes) -> Result<(), TrySendError> {
        self.send.try_send(message)
    }

    /// See [`SendStream::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.send.finish()
    }

    /// See [`SendStream::finish_with_error`].
    ///
    /// # Errors
    /// As there.
    pub fn finish_with_error(&mut self, code: u32, message: &str) -> Result<(), SendError> {
        self.send.finish_with_error(code, message)
    }

    /// See [`SendStream::cancel`].
    pub fn cancel(&mut self, code: u32) {
        self.send.cancel(code);
    }

    /// See [`SendStream::written`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub fn written(&mut self) -> impl Future<Output = Result<(), SendError>> {
        self.send.written()
    }

    /// See [`SendStream::stopped`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn stopped(&mut self) -> SendError {
        self.send.stopped().await
    }

    /// See [`SendStream::set_urgency`].
    pub fn set_urgency(&self, urgency: u8) {
        self.send.set_urgency(urgency);
    }

    /// See [`RecvStream::recv`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> {
        self.recv.recv()
    }

    /// See [`RecvStream::try_recv`].
    pub fn try_recv(&mut self) -> Option<Bytes> {
        self.recv.try_recv()
    }

    /// See [`RecvStream::lease`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    #[inline]
    pub fn lease(&mut self) -> impl Future<Output = Result<Option<Lease<'_>>, StreamError>> {
        self.recv.lease()
    }

    /// See [`RecvStream::metas`].
    #[must_use]
    pub fn metas(&self) -> &[Bytes] {
        self.recv.metas()
    }

    /// See [`RecvStream::stop`].
    pub fn stop(&mut self, code: u32) {
        self.recv.stop(code);
    }
}

impl tokio::io::AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
