//! Sending the messages of a streaming call.

use std::borrow::Borrow;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Waking, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;

use super::code::Code;
use super::codec::Coding;
use super::context::{Context, Part};
use super::exchange::{COPIED_MAX, poll_send};
use super::shared_send::SharedSend;
use super::status::Status;
use super::wire::{block, meta};
use crate::error::codes;
use crate::error::{Processed, SendError, StreamError};
use crate::handle::SendStream;
use crate::handle::fair::Fair;

/// Sends the messages of a streaming call: a caller its requests, a handler its answers.
///
/// A message is accepted into the stream's bounded queue, as by [`SendStream::send`](crate::SendStream::send); a peer that
/// does not read makes the sender wait, until the call's deadline or end. It is also a [`Sink`], and
/// [`send_all`](Self::send_all) takes a [`Stream`].
///
/// A caller says with [`finish`](Self::finish) that its requests are complete; dropped before, it cancels the call. A
/// handler just returns: the answer ends when its future does, in order only if that is `Ok`.
pub struct Sender<T> {
    shared: Arc<SharedSend>,
    coding: Coding<T>,
    buffer: BytesMut,
    /// A handler's, whose headers go first.
    server: Option<Context>,
    headers: Option<Bytes>,
    headers_sent: bool,
    finished: bool,
    /// The stream's own turns are lost: where two share it, it is polled twice.
    fair: Fair,
}

impl<T> Sender<T> {
    pub(super) fn new(shared: Arc<SharedSend>, coding: Coding<T>, server: Option<Context>) -> Self {
        Self {
            shared,
            coding,
            buffer: BytesMut::new(),
            headers: None,
            headers_sent: server.is_none(),
            server,
            finished: false,
            fair: Fair::new(),
        }
    }

    /// Sends a message, waiting for room.
    ///
    /// # Errors
    /// [`Code::CANCELLED`] if the call has ended: why, the receiving side says. [`Code::RESOURCE_EXHAUSTED`] for a message that the
    /// peer does not accept, [`Code::INTERNAL`] for one that cannot be encoded, after which the call goes on.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready means that the message was not sent.
    pub async fn send(&mut self, message: impl Borrow<T>) -> Result<(), Status> {
        poll_fn(|cx| self.fair.poll(cx)).await;
        let message = self.encode(message.borrow())?;
        poll_fn(|cx| {
            ready!(self.poll_headers(cx))?;
            let step =
                |stream: &mut SendStream, cx: &mut Waking<'_>| poll_send(stream, &message, cx);
            self.shared.poll_sender(cx, step).map_err(ended)
        })
        .await?;
        self.give_back(message);
        Ok(())
    }

    /// Sends all messages of a stream.
    ///
    /// # Errors
    /// As [`send`](Self::send), at the first message that is not accepted.
    ///
    /// # Cancel safety
    /// Dropping the future leaves out the messages that were not sent, and one message that was taken from the stream.
    pub async fn send_all(&mut self, messages: impl Stream<Item = T>) -> Result<(), Status> {
        let mut messages = pin!(messages);
        while let Some(message) = poll_fn(|cx| messages.as_mut().poll_next(cx)).await {
            self.send(message).await?;
        }
        Ok(())
    }

    /// Says that no message follows. A handler need not.
    ///
    /// # Errors
    /// [`Code::CANCELLED`] if the call has ended: why, the receiving side says.
    pub fn finish(&mut self) -> Result<(), Status> {
        if std::mem::replace(&mut self.finished, true) || self.server.is_some() {
            return Ok(());
        }
        self.shared.with(SendStream::finish).map_err(ended)
    }

    /// Waits until the peer wants no more messages, or the call has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&mut self) {
        let step = |stream: &mut SendStream, cx: &mut Waking<'_>| {
            pin!(stream.stopped()).poll(cx).map(drop)
        };
        poll_fn(|cx| self.shared.poll_sender(cx, step)).await;
    }

    fn encode(&mut self, message: &T) -> Result<Bytes, Status> {
        if self.finished {
            return Err(ended(SendError::Finished));
        }
        if let Some(whole) = (self.coding.whole)(message) {
            return Ok(whole);
        }
        self.buffer.clear();
        self.coding.encode_into(message, &mut self.buffer)?;
        Ok(self.buffer.split().freeze())
    }

    /// Keeps the memory of a message that was copied.
    fn give_back(&mut self, message: Bytes) {
        if message.len() <= COPIED_MAX
            && self.buffer.capacity() == 0
            && let Ok(buffer) = message.try_into_mut()
        {
            self.buffer = buffer;
        }
    }

    fn poll_headers(&mut self, cx: &Waking<'_>) -> Poll<Result<(), Status>> {
        if self.headers_sent {
            return Poll::Ready(Ok(()));
        }
        if self.headers.is_none()
            && let Some(headers) = self
                .server
                .as_ref()
                .and_then(|cx| cx.take_answer(Part::Headers))
        {
            self.headers = Some(meta(block::HEADERS, &headers));
        }
        if let Some(headers) = &self.headers {
            let step = |stream: &mut SendStream, cx: &mut Waking<'_>| {
                pin!(stream.send_meta(headers.clone())).poll(cx)
            };
            ready!(self.shared.poll_sender(cx, step)).map_err(ended)?;
        }
        self.headers_sent = true;
        Poll::Ready(Ok(()))
    }
}

/// Of a call that is over the receiving side knows why.
fn ended(error: SendError) -> Status {
    match error {
        SendError::Stopped { .. } | SendError::Finished => {
            let text = "the call has ended, or its sender was finished";
            Status::library(Code::CANCELLED, Processed::Maybe, text)
        }
        SendError::Stream(StreamError::Cancelled { .. } | StreamError::Failed(_)) => {
            let text = "the call has ended: receiving says why";
            Status::library(Code::CANCELLED, Processed::Maybe, text)
        }
        error => error.into(),
    }
}

impl<T> Sink<T> for Sender<T> {
    type Error = Status;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Waking<'_>) -> Poll<Result<(), Status>> {
        let this = self.get_mut();
        ready!(this.fair.poll(cx));
        ready!(this.poll_headers(cx))?;
        let step =
            |stream: &mut SendStream, cx: &mut Waking<'_>| Sink::poll_ready(Pin::new(stream), cx);
        this.shared.poll_sender(cx, step).map_err(ended)
    }

    fn start_send(self: Pin<&mut Self>, message: T) -> Result<(), Status> {
        let this = self.get_mut();
        let message = this.encode(&message)?;
        let start = |stream: &mut SendStream| Sink::start_send(Pin::new(stream), message);
        this.shared.with(start).map_err(ended)
    }

    /// Done at once: a message leaves with the next batch.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Waking<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    /// Finishes; does not wait.
    fn poll_close(self: Pin<&mut Self>, _: &mut Waking<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(self.get_mut().finish())
    }
}

/// Nothing in it is pinned.
impl<T> Unpin for Sender<T> {}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if !self.finished && self.server.is_none() {
            self.shared.cancel(codes::CANCELLED);
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
