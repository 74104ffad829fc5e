//! Receiving the messages of a streaming call.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::code::Code;
use super::codec::{CodecError, Coding, Payload};
use super::exchange::{ended, poll_answer, poll_message, undecodable};
use super::metadata::Metadata;
use super::metrics::Seen;
use super::parent::{Parent, cancel_code};
use super::shared_send::SharedSend;
use super::status::Status;
use super::wire::{block, find_meta};
use crate::error::Processed;
use crate::error::codes;
use crate::handle::RecvStream;

/// Receives the messages of a streaming call: a caller the answers, a handler the requests. It is also a [`Stream`].
///
/// A caller's, dropped before the end, cancels the call. A handler's asks the caller to stop sending.
pub struct Receiver<T> {
    recv: RecvStream,
    coding: Coding<T>,
    /// Received while its metadata was waited for.
    peeked: Option<Result<T, Status>>,
    /// A caller's.
    caller: Option<Caller>,
    ended: bool,
}

/// What a caller's receiving side has in hand: the end of the call.
pub(super) struct Caller {
    pub(super) shared: Arc<SharedSend>,
    pub(super) parent: Option<Parent>,
    pub(super) seen: Seen<'static>,
}

impl Caller {
    /// Why the parent ends the call. Its deadline the stream keeps.
    #[inline]
    fn cancelled(&self) -> Option<Code> {
        self.parent.as_ref()?.cancelled()
    }

    /// The same, once there is something to wait for.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        match &mut self.parent {
            Some(parent) => parent.poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<T> Receiver<T> {
    pub(super) const fn new(recv: RecvStream, coding: Coding<T>, caller: Option<Caller>) -> Self {
        Self {
            recv,
            coding,
            peeked: None,
            caller,
            ended: false,
        }
    }

    /// Waits for the next message; `None` is the clean end.
    ///
    /// # Errors
    /// Why the call ended, after every message that came before: of a caller's, the status that the handler returned. Afterwards
    /// `None`. The call's deadline and the cancel of its parent end it at once, without the messages that were not taken by then.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn recv(&mut self) -> Result<Option<T>, Status> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The same, as a poll function.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, Status>> {
        match self.recv_at_once() {
            Some(Ok(message)) => Poll::Ready(Ok(Some(message))),
            Some(Err(error)) => Poll::Ready(Err(self.refuse(&error))),
            None => self.poll_any(cx),
        }
    }

    /// A short message that has arrived, if that is all there is to look at.
    #[inline]
    fn recv_at_once(&mut self) -> Option<Result<T, CodecError>> {
        let cancelled = self.caller.as_ref().and_then(Caller::cancelled);
        if self.peeked.is_some() || self.ended || cancelled.is_some() {
            return None;
        }
        let decode = self.coding.decode;
        self.recv
            .read_at_once(|message| decode(Payload::in_place(message)))
    }

    /// As [`poll_recv`](Self::poll_recv).
    #[inline(never)]
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, Status>> {
        if let Some(peeked) = self.peeked.take() {
            return Poll::Ready(peeked.map(Some));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let cancelled = self.caller.as_ref().and_then(Caller::cancelled);
        let mut next = match cancelled {
            None => self.poll_next_message(cx),
            Some(code) => Poll::Ready(Err(self.end(code))),
        };
        if next.is_pending()
            && let Some(caller) = &mut self.caller
            && let Poll::Ready(code) = caller.poll_cancelled(cx)
        {
            next = Poll::Ready(Err(self.end(code)));
        }
        match &next {
            Poll::Ready(Ok(None)) => self.over(Code::OK),
            Poll::Ready(Err(status)) => self.over(status.code()),
            _ => {}
        }
        next
    }

    fn over(&mut self, code: Code) {
        self.ended = true;
        if let Some(caller) = &mut self.caller {
            caller.seen.end(code);
        }
    }

    /// Ends a call for a message that makes no sense.
    #[cold]
    fn refuse(&mut self, error: &CodecError) -> Status {
        let status = self.undecodable(error);
        self.over(status.code());
        status
    }

    /// Ends a call for the reason of its parent.
    #[cold]
    fn end(&self, code: Code) -> Status {
        if let Some(caller) = &self.caller {
            caller.shared.cancel(cancel_code(code));
        }
        Status::given_up(code, Processed::Maybe)
    }

    fn poll_next_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, Status>> {
        let received = ready!(poll_message(&mut self.recv, self.coding.decoding(), cx));
        match received.map_err(|error| ended(self.recv.wire(), error))? {
            Some(Ok(message)) => Poll::Ready(Ok(Some(message))),
            None => Poll::Ready(Ok(None)),
            Some(Err(error)) => Poll::Ready(Err(self.undecodable(&error))),
        }
    }

    /// A caller's call is cancelled for it; a handler decides itself.
    #[cold]
    fn undecodable(&self, error: &CodecError) -> Status {
        match &self.caller {
            Some(caller) => {
                caller.shared.cancel(codes::CANCELLED);
                undecodable(error)
            }
            None => Status::invalid_argument(format!("a request cannot be decoded: {error}")),
        }
    }

    /// Waits for the metadata that comes before the first message; none if there is none by then.
    ///
    /// # Errors
    /// Why the call ended before.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn headers(&mut self) -> Result<Metadata, Status> {
        self.wait_for_metas().await?;
        Ok(find_meta(self.recv.metas(), block::HEADERS)?)
    }

    /// The metadata that came behind the last message, after the clean end.
    #[must_use]
    pub fn trailers(&self) -> Metadata {
        find_meta(self.recv.metas(), block::TRAILERS).unwrap_or_default()
    }

    /// Waits until metadata, a message, or the end is there.
    pub(super) async fn wait_for_metas(&mut self) -> Result<(), Status> {
        poll_fn(|cx| {
            let known = self.peeked.is_some() || self.ended;
            if known || !self.recv.metas().is_empty() {
                return Poll::Ready(Ok(()));
            }
            match self.poll_recv(cx) {
                Poll::Ready(Ok(message)) => self.peeked = message.map(Ok),
                Poll::Ready(Err(status)) => return Poll::Ready(Err(status)),
                Poll::Pending if self.recv.metas().is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    pub(super) fn request_metadata(&self) -> Result<Metadata, Status> {
        Ok(find_meta(self.recv.metas(), block::REQUEST)?)
    }
}

impl<T> Stream for Receiver<T> {
    type Item = Result<T, Status>;

    /// Yields an error once, then ends.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_recv(cx).map(Result::transpose)
    }
}

/// Nothing in it is pinned.
impl<T> Unpin for Receiver<T> {}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if !self.ended
            && let Some(caller) = &self.caller
        {
            caller.shared.cancel(codes::CANCELLED);
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// The one answer to a stream of requests: a future. Dropped before it is ready, it cancels the call.
#[must_use = "futures do nothing unless polled"]
pub struct Reply<T> {
    receiver: Receiver<T>,
    answer: Option<T>,
}

impl<T> Reply<T> {
    pub(super) const fn new(receiver: Receiver<T>) -> Self {
        Self {
            receiver,
            answer: None,
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let receiver = &mut this.receiver;
        let cancelled = receiver.caller.as_ref().and_then(Caller::cancelled);
        let mut answer = match cancelled {
            None => poll_answer(
                &mut receiver.recv,
                receiver.coding.decoding(),
                &mut this.answer,
                cx,
            ),
            Some(code) => Poll::Ready(Err(receiver.end(code))),
        };
        if answer.is_pending()
            && let Some(caller) = &mut receiver.caller
            && let Poll::Ready(code) = caller.poll_cancelled(cx)
        {
            answer = Poll::Ready(Err(receiver.end(code)));
        }
        // Behind an answer that makes no sense the call is to be cancelled.
        receiver.ended = matches!(answer, Poll::Ready(Ok(_)));
        if let (Poll::Ready(end), Some(caller)) = (&answer, &mut receiver.caller) {
            caller.seen.end_of(end);
        }
        answer.map(|answer| answer.map(|answer| answer.message))
    }
}

/// Nothing in it is pinned.
impl<T> Unpin for Reply<T> {}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
