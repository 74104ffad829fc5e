//! Accepting the streams that the peer opens.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::{RecvStream, SendStream, Session, Waiter, halves};
use crate::bridge::{HandleSide, SessionLink, reason};
use crate::error::SessionError;
use crate::handle::fair::poll_turn;
use crate::queue::WaiterKey;

/// The future of [`Session::accept`].
#[must_use = "futures do nothing unless polled"]
pub struct Accept<'a> {
    link: &'a SessionLink,
    wait: Waiter<'a>,
}

impl<'a> Accept<'a> {
    pub(super) const fn new(link: &'a SessionLink) -> Self {
        Self {
            link,
            wait: Waiter::new(&link.unaccepted.waiters),
        }
    }
}

impl Future for Accept<'_> {
    type Output = Result<Option<(SendStream, RecvStream)>, SessionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(poll_turn(cx));
        let link = self.link;
        let next = ready!(self.wait.poll(cx, || next(link)));
        link.unaccepted.pass_on();
        Poll::Ready(give(next))
    }
}

impl Drop for Accept<'_> {
    fn drop(&mut self) {
        if self.wait.end() {
            // It may have been woken for a stream.
            self.link.unaccepted.pass_on();
        }
    }
}

/// The streams that the peer opens, from [`Session::incoming`]: [`Session::accept`] for callers that store their future.
///
/// It holds the session as a clone of it does. Is also a [`Stream`], which ends where `accept`
/// returns `None`, and after an error.
pub struct Incoming {
    session: Session,
    key: Option<WaiterKey>,
    ended: bool,
}

impl Incoming {
    pub(super) const fn new(session: Session) -> Self {
        Self {
            session,
            key: None,
            ended: false,
        }
    }

    /// The session whose streams these are.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// [`Session::accept`] as a poll function.
    ///
    /// # Errors
    /// As [`Session::accept`].
    pub fn poll_accept(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<(SendStream, RecvStream)>, SessionError>> {
        ready!(poll_turn(cx));
        let link = self.session.link();
        let mut wait = Waiter::resume(&link.unaccepted.waiters, self.key.take());
        let Poll::Ready(next) = wait.poll(cx, || next(link)) else {
            self.key = wait.suspend();
            return Poll::Pending;
        };
        drop(wait);
        link.unaccepted.pass_on();
        Poll::Ready(give(next))
    }
}

impl Stream for Incoming {
    type Item = Result<(SendStream, RecvStream), SessionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.poll_accept(cx).map(Result::transpose);
        self.ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let unaccepted = &self.session.link().unaccepted;
        if Waiter::resume(&unaccepted.waiters, self.key.take()).end() {
            // It may have been woken for a stream.
            unaccepted.pass_on();
        }
    }
}

/// The next stream, or the end of them; `None`: not known yet.
#[inline]
pub(in crate::handle) fn next(
    link: &SessionLink,
) -> Option<Result<Option<HandleSide>, &SessionError>> {
    if !link.is_inherited()
        && let Some(side) = link.unaccepted.pop()
    {
        return Some(Ok(Some(side)));
    }
    link.end().map(|end| last(link, end))
}

/// The same, where the session has ended.
#[cold]
#[inline(never)]
fn last<'a>(
    link: &SessionLink,
    end: &'a SessionError,
) -> Result<Option<HandleSide>, &'a SessionError> {
    // Streams queued before the end was set are visible now.
    let late = (!link.is_inherited())
        .then(|| link.unaccepted.pop())
        .flatten();
    match late {
        Some(side) => Ok(Some(side)),
        None if end.is_orderly() => Ok(None),
        None => Err(end),
    }
}

/// The halves of a stream that was taken.
#[inline]
fn give(
    next: Result<Option<HandleSide>, &SessionError>,
) -> Result<Option<(SendStream, RecvStream)>, SessionError> {
    match next {
        Ok(Some(side)) => Ok(Some(accepted(side))),
        Ok(None) => Ok(None),
        Err(end) => Err(end.clone()),
    }
}

pub(in crate::handle) fn accepted(side: HandleSide) -> (SendStream, RecvStream) {
    let lane = side.lane();
    lane.asked.mark_accepted();
    if lane.session().is_hungry() {
        lane.raise(reason::CREDIT);
    }
    halves(side)
}

impl fmt::Debug for Accept<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").finish_non_exhaustive()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
