//! The futures of [`RecvStream`], by name: each can be stored beside the half it borrows, and polled without a box.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::RecvStream;
use super::lease::Lease;
use crate::error::StreamError;

/// The future of [`RecvStream::recv`].
#[must_use = "futures do nothing unless polled"]
pub struct Recv<'a>(pub(super) &'a mut RecvStream);

impl Future for Recv<'_> {
    type Output = Result<Option<Bytes>, StreamError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_recv(cx)
    }
}

/// The future of [`RecvStream::lease`].
#[must_use = "futures do nothing unless polled"]
pub struct RecvLease<'a>(Option<&'a mut RecvStream>);

impl<'a> RecvLease<'a> {
    #[inline]
    pub(super) const fn new(stream: &'a mut RecvStream) -> Self {
        Self(Some(stream))
    }
}

impl<'a> Future for RecvLease<'a> {
    type Output = Result<Option<Lease<'a>>, StreamError>;

    /// # Panics
    /// After it has returned a lease.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stream = self.0.as_mut().expect("not polled after it was ready");
        let there = ready!(stream.poll_message(cx))?;
        let stream = self.0.take().filter(|_| there);
        Poll::Ready(Ok(stream.map(RecvStream::lend)))
    }
}

/// The future of [`RecvStream::meta`].
#[must_use = "futures do nothing unless polled"]
pub struct RecvMeta<'a>(pub(super) &'a mut RecvStream);

impl Future for RecvMeta<'_> {
    type Output = Result<Option<Bytes>, StreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_meta(cx)
    }
}

debug_by_name!(Recv, RecvLease, RecvMeta);
