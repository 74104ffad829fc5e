//! Waiting for permission to open a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::fair::poll_turn;
use super::recv::RecvStream;
use super::send::{First, SendStream};
use crate::bridge::{OpenState, SendEnd, asked};
use crate::error::codes;
use crate::error::{OpenError, SendError, SessionError, StreamError};

/// The future of [`Session::open`](crate::Session::open). It borrows nothing, so it can be stored, and then polled without a
/// box.
#[must_use = "dropping it gives the stream up"]
pub struct Open {
    state: State,
}

enum State {
    /// The result is known; `None`: it was returned.
    Known(Option<Result<(SendStream, RecvStream), OpenError>>),
    Waiting(Waiting),
}

impl Open {
    pub(super) const fn known(result: Result<(SendStream, RecvStream), OpenError>) -> Self {
        Self {
            state: State::Known(Some(result)),
        }
    }

    /// Gives the stream up. True if the peer had not permitted it, or will not: nothing of it was sent then.
    #[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
    pub(crate) fn give_up(self) -> bool {
        match &self.state {
            State::Waiting(Waiting {
                halves: Some((sender, _)),
                ..
            }) => sender.lane().permit.give_up(),
            State::Known(Some(Err(_))) => true,
            _ => false,
        }
    }

    /// A stream that waits for the peer's permission, counted in `max_pending_opens`.
    pub(super) fn waiting(halves: (SendStream, RecvStream), first: Option<First>) -> Self {
        Self {
            state: State::Waiting(Waiting {
                halves: Some(halves),
                first: first.map(Box::new),
            }),
        }
    }
}

impl Future for Open {
    type Output = Result<(SendStream, RecvStream), OpenError>;

    /// # Panics
    /// After it has returned a result.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(poll_turn(cx));
        match &mut self.state {
            State::Known(result) => Poll::Ready(result.take().expect("polled after it was ready")),
            State::Waiting(waiting) => {
                let result = ready!(waiting.poll(cx));
                self.state = State::Known(None);
                Poll::Ready(result)
            }
        }
    }
}

/// The waiting stream; dropped before it is granted, it is cancelled, as any stream that is dropped.
struct Waiting {
    halves: Option<(SendStream, RecvStream)>,
    /// Longer than every peer must accept: queued when the peer's limit is known. Boxed: few openings have one, and all are moved.
    first: Option<Box<First>>,
}

impl Waiting {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(SendStream, RecvStream), OpenError>> {
        let Some((sender, _)) = &mut self.halves else {
            return Poll::Pending;
        };
        if known(sender).is_none() {
            sender.register(cx);
        }
        ready!(known(sender).map_or(Poll::Pending, Poll::Ready)).map_err(OpenError::Session)?;
        if let Some(first) = &self.first {
            match ready!(sender.poll_room(cx, first.message.len())) {
                Ok(()) => self
                    .first
                    .take()
                    .map_or((), |first| sender.queue_and_flush(*first)),
                Err(SendError::TooLong { len, limit }) => {
                    return Poll::Ready(Err(OpenError::MessageTooLong { len, limit }));
                }
                // The peer, or the session, has ended the stream meanwhile: the reason is in the halves.
                Err(_) => self.first = None,
            }
        }
        leave(sender);
        self.halves
            .take()
            .map_or(Poll::Pending, |halves| Poll::Ready(Ok(halves)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((sender, _)) = &mut self.halves {
            leave(sender);
            // Also a finished stream, whose messages wait here.
            sender.cancel(codes::CANCELLED);
        }
    }
}

/// The opening waits no longer on this side; it is counted until the engine has seen it.
fn leave(sender: &SendStream) {
    let lane = sender.lane();
    if lane.asked.leave_waiting(asked::OPENER) {
        lane.session().opens.end_pending();
    }
}

/// Whether the stream was granted, or why it will not be; `None`: not known yet.
fn known(sender: &SendStream) -> Option<Result<(), SessionError>> {
    let lane = sender.lane();
    // First: once permitted the peer may have seen the stream, and ended it by now. The reason is in the halves.
    if lane.open_state() == OpenState::Granted {
        return Some(Ok(()));
    }
    if let Some(SendEnd::Error(error)) = lane.send_end() {
        return Some(Err(match error {
            StreamError::NotProcessed(reason) | StreamError::Session(reason) => reason.clone(),
            _ => SessionError::Closed,
        }));
    }
    lane.session().end().map(|end| Err(end.clone()))
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}
