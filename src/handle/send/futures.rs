//! The futures of [`SendStream`], by name: each can be stored beside the half it borrows, and polled without a box.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::SendStream;
use crate::error::SendError;
use crate::handle::reserved::Reserved;

/// The future of [`SendStream::send`].
#[must_use = "futures do nothing unless polled"]
pub struct SendMessage<'a> {
    pub(super) stream: &'a mut SendStream,
    pub(super) message: Bytes,
}

impl Future for SendMessage<'_> {
    type Output = Result<(), SendError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stream, message } = &mut *self;
        ready!(stream.poll_room(cx, message.len()))?;
        stream.push(std::mem::take(message));
        stream.flush();
        Poll::Ready(Ok(()))
    }
}

/// The future of [`SendStream::send_slice`].
#[must_use = "futures do nothing unless polled"]
pub struct SendSlice<'a> {
    pub(super) stream: &'a mut SendStream,
    pub(super) message: &'a [u8],
}

impl Future for SendSlice<'_> {
    type Output = Result<(), SendError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let message = self.message;
        ready!(self.stream.poll_room(cx, message.len()))?;
        self.stream.push_slice(message);
        self.stream.flush();
        Poll::Ready(Ok(()))
    }
}

/// The future of [`SendStream::reserve`].
#[must_use = "futures do nothing unless polled"]
pub struct Reserve<'a> {
    stream: Option<&'a mut SendStream>,
    len: usize,
}

impl<'a> Reserve<'a> {
    pub(super) const fn new(stream: &'a mut SendStream, len: usize) -> Self {
        let stream = Some(stream);
        Self { stream, len }
    }
}

impl<'a> Future for Reserve<'a> {
    type Output = Result<Reserved<'a>, SendError>;

    /// # Panics
    /// After it has returned a place.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let len = self.len;
        let stream = self.stream.as_mut().expect("not polled after it was ready");
        ready!(stream.poll_room(cx, len))?;
        let stream = self.stream.take().expect("looked at above");
        Poll::Ready(Ok(stream.lend(len)))
    }
}

/// The future of [`SendStream::written`].
#[must_use = "futures do nothing unless polled"]
pub struct Written<'a>(pub(super) &'a mut SendStream);

impl Future for Written<'_> {
    type Output = Result<(), SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_written(cx)
    }
}

debug_by_name!(SendMessage, SendSlice, Reserve, Written);
