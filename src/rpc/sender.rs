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
use super::parent::{Parent, cancel_code};
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
/// does not read makes the sender wait, until the call's deadline, its parent's cancel, or its end, whether the other half is awaited or not. It is also a [`Sink`], and
/// [`send_all`](Self::send_all) takes a [`Stream`].
///
/// A caller says with [`finish`](Self::finish) that its requests are complete; dropped before, it cancels the call. A
/// handler just returns: the answer ends when its future does, in order only if that is `Ok`.
///
/// A handler that returns `Ok` while a task of its own still has the `Sender` does not end the answer: it goes on until that task drops
/// or [finishes](Self::finish) the `Sender`, so that no stream looks complete that is not. Until then the call keeps its places, and its
/// deadline, a cancel and the end of the session end it. Such a task has no way to fail the call, but by a panic, which ends it with
/// [`Code::INTERNAL`]; work that may fail belongs into the handler, whose error the caller gets.
pub struct Sender<T> {
    shared: Arc<SharedSend>,
    coding: Coding<T>,
    buffer: BytesMut,
    side: Side,
    headers: Option<Bytes>,
    headers_sent: bool,
    finished: bool,
    /// The stream's own turns are lost: where two share it, it is polled twice.
    fair: Fair,
}

/// Who sends.
enum Side {
    /// Its parent ends the call; its deadline the stream keeps.
    Caller(Option<Parent>),
    /// Its headers go first.
    Handler(Context),
}

impl<T> Sender<T> {
    pub(super) fn of_caller(
        shared: Arc<SharedSend>,
        coding: Coding<T>,
        parent: Option<Parent>,
    ) -> Self {
        Self::new(shared, coding, Side::Caller(parent))
    }

    pub(super) fn of_handler(shared: Arc<SharedSend>, coding: Coding<T>, cx: Context) -> Self {
        Self::new(shared, coding, Side::Handler(cx))
    }

    fn new(shared: Arc<SharedSend>, coding: Coding<T>, side: Side) -> Self {
        Self {
            shared,
            coding,
            buffer: BytesMut::new(),
            headers: None,
            headers_sent: matches!(side, Side::Caller(_)),
            side,
            finished: false,
            fair: Fair::new(),
        }
    }

    /// Sends a message, waiting for room.
    ///
    /// # Errors
    /// [`Code::CANCELLED`] if the call has ended. Why, a caller learns from the other half: it has to await the
    /// [`Reply`](super::Reply), or the [`Receiver`](super::Receiver), which has the status or even the answer; `?` here would hide it.
    /// [`Code::RESOURCE_EXHAUSTED`] for a message that the
    /// peer does not accept, [`Code::INTERNAL`] for one that cannot be encoded, after which the call goes on.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready means that the message was not sent.
    ///
    /// # Panics
    /// The future, if it is polled after it was ready.
    pub fn send(&mut self, message: impl Borrow<T>) -> impl Future<Output = Result<(), Status>> {
        // No `async fn`: that would move the message once more.
        let (mut encoded, mut is_over) = (None, false);
        poll_fn(move |cx| {
            assert!(!is_over, "polled after it was ready");
            if encoded.is_none() {
                ready!(self.fair.poll(cx));
                is_over = true;
                encoded = self.send_at_once(message.borrow())?;
                if encoded.is_none() {
                    return Poll::Ready(Ok(()));
                }
            }
            let polled = self.poll_encoded(&mut encoded, cx);
            is_over = polled.is_ready();
            polled
        })
    }

    /// Sends a message, and takes it.
    #[inline(never)]
    fn poll_encoded(
        &mut self,
        encoded: &mut Option<Bytes>,
        cx: &mut Waking<'_>,
    ) -> Poll<Result<(), Status>> {
        ready!(self.poll_headers(cx))?;
        if let Some(message) = encoded {
            let step =
                |stream: &mut SendStream, cx: &mut Waking<'_>| poll_send(stream, message, cx);
            ready!(self.poll(cx, step)).map_err(|error| self.ended(error))?;
        }
        if let Some(message) = encoded.take() {
            self.give_back(message);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends all messages of a stream. It does not [finish](Self::finish), as more may follow; `forward` of the crate `futures`, which closes
    /// the sink, does.
    ///
    /// # Errors
    /// As [`send`](Self::send), at the first message that is not accepted, or at the end of the call while the stream has none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves out the messages that were not sent, and one message that was taken from the stream.
    pub async fn send_all(&mut self, messages: impl Stream<Item = T>) -> Result<(), Status> {
        let mut messages = pin!(messages);
        loop {
            let next = poll_fn(|cx| {
                if let Poll::Ready(next) = messages.as_mut().poll_next(cx) {
                    return Poll::Ready(Ok(next));
                }
                let ended = ready!(self.poll(cx, poll_stopped));
                Poll::Ready(Err(self.ended(ended)))
            });
            match next.await? {
                Some(message) => self.send(message).await?,
                None => return Ok(()),
            }
        }
    }

    /// Says that no message follows. A handler need not.
    ///
    /// # Errors
    /// [`Code::CANCELLED`] if the call has ended, as of [`send`](Self::send).
    pub fn finish(&mut self) -> Result<(), Status> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        if let Side::Handler(_) = self.side {
            self.shared.release(false);
            return Ok(());
        }
        let finished = self.shared.with(SendStream::finish);
        finished.map_err(|error| self.ended(error))
    }

    /// Waits until the peer wants no more messages, or the call has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&mut self) {
        poll_fn(|cx| self.poll(cx, poll_stopped)).await;
    }

    /// Polls with the stream, which a caller's parent ends.
    #[inline]
    fn poll<R>(
        &mut self,
        cx: &mut Waking<'_>,
        mut step: impl FnMut(&mut SendStream, &mut Waking<'_>) -> Poll<R>,
    ) -> Poll<R> {
        match &mut self.side {
            Side::Caller(Some(parent)) => poll_with_parent(parent, &self.shared, cx, &mut step),
            _ => self.shared.poll_sender(cx, step),
        }
    }

    /// Sends a short message if nothing has to be waited for. Else the message comes back, encoded.
    #[inline]
    fn send_at_once(&mut self, message: &T) -> Result<Option<Bytes>, Status> {
        if self.finished {
            return Err(self.ended(SendError::Finished));
        }
        if let Some(slice) = (self.coding.as_slice)(message)
            && slice.len() <= COPIED_MAX
        {
            let is_sent = self.push_at_once(slice);
            return Ok((!is_sent).then(|| Bytes::copy_from_slice(slice)));
        }
        if let Some(whole) = (self.coding.whole)(message) {
            return Ok(Some(whole));
        }
        self.buffer.clear();
        self.coding.encode_into(message, &mut self.buffer)?;
        let is_sent = self.buffer.len() <= COPIED_MAX && self.push_at_once(&self.buffer);
        Ok((!is_sent).then(|| self.buffer.split().freeze()))
    }

    /// Queues a copy of a message, if there is room now and nothing has to go before it or ends the call.
    #[inline]
    fn push_at_once(&self, message: &[u8]) -> bool {
        let is_cancelled = match &self.side {
            Side::Caller(Some(parent)) => parent.cancelled().is_some(),
            _ => false,
        };
        self.headers_sent && !is_cancelled && self.shared.push_at_once(message)
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

    fn poll_headers(&mut self, cx: &mut Waking<'_>) -> Poll<Result<(), Status>> {
        if self.headers_sent {
            return Poll::Ready(Ok(()));
        }
        if self.headers.is_none()
            && let Side::Handler(cx) = &self.side
            && let Some(headers) = cx.take_answer(Part::Headers)
        {
            self.headers = Some(meta(block::HEADERS, &headers));
        }
        if let Some(headers) = self.headers.clone() {
            let step = |stream: &mut SendStream, cx: &mut Waking<'_>| {
                pin!(stream.send_meta(headers.clone())).poll(cx)
            };
            ready!(self.poll(cx, step)).map_err(|error| self.ended(error))?;
        }
        self.headers_sent = true;
        Poll::Ready(Ok(()))
    }

    /// Why no more can be sent: of a call that is over the receiving half knows why.
    #[cold]
    fn ended(&self, error: SendError) -> Status {
        let over = match error {
            SendError::Finished if self.finished => "the sender was finished",
            SendError::Stopped { .. }
            | SendError::Finished
            | SendError::Stream(StreamError::Cancelled { .. } | StreamError::Failed(_)) => {
                match self.side {
                    Side::Caller(_) => {
                        "the call has ended: await its reply, or its receiver, which says why"
                    }
                    Side::Handler(_) => {
                        "the call has ended: its caller has gone, or its time is over"
                    }
                }
            }
            error => return error.into(),
        };
        Status::library(Code::CANCELLED, Processed::Maybe, over)
    }
}

#[inline(never)]
fn poll_with_parent<R>(
    parent: &mut Parent,
    shared: &SharedSend,
    cx: &mut Waking<'_>,
    // Of one type, so that the step of a sender without a parent stays in line.
    step: &mut dyn FnMut(&mut SendStream, &mut Waking<'_>) -> Poll<R>,
) -> Poll<R> {
    if parent.cancelled().is_none() {
        let polled = shared.poll_sender(cx, &mut *step);
        if polled.is_ready() || parent.poll(cx).is_pending() {
            return polled;
        }
    }
    let code = parent.cancelled().unwrap_or(Code::CANCELLED);
    shared.cancel(cancel_code(code));
    shared.poll_sender(cx, step)
}

fn poll_stopped(stream: &mut SendStream, cx: &mut Waking<'_>) -> Poll<SendError> {
    pin!(stream.stopped()).poll(cx)
}

impl<T> Sink<T> for Sender<T> {
    type Error = Status;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Waking<'_>) -> Poll<Result<(), Status>> {
        let this = self.get_mut();
        ready!(this.fair.poll(cx));
        ready!(this.poll_headers(cx))?;
        let step =
            |stream: &mut SendStream, cx: &mut Waking<'_>| Sink::poll_ready(Pin::new(stream), cx);
        let ready = ready!(this.poll(cx, step));
        Poll::Ready(ready.map_err(|error| this.ended(error)))
    }

    fn start_send(self: Pin<&mut Self>, message: T) -> Result<(), Status> {
        let this = self.get_mut();
        let Some(message) = this.send_at_once(&message)? else {
            return Ok(());
        };
        let start = |stream: &mut SendStream| Sink::start_send(Pin::new(stream), message);
        this.shared.with(start).map_err(|error| this.ended(error))
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
        match self.side {
            _ if self.finished => {}
            Side::Caller(_) => self.shared.cancel(codes::CANCELLED),
            Side::Handler(_) => self.shared.release(std::thread::panicking()),
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
