//! The way back to a caller: a stream, a stream that a handler also sends on, or a call in one frame.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::code::Code;
use super::shared_send::SharedSend;
use crate::error::codes;
use crate::error::{SendError, StreamError};
use crate::handle::SendStream;
use crate::handle::call::IncomingCall;

/// The sending half: the call's own, or shared with a handler that sends.
pub(super) enum Answering {
    Own(SendStream),
    Shared(Arc<SharedSend>),
    /// A call in one frame, until its answer has to be a stream.
    Call(IncomingCall),
    /// Such a call after its end.
    Over,
}

impl Answering {
    pub(super) fn with<R>(&mut self, step: impl FnOnce(&mut SendStream) -> R) -> Option<R> {
        self.become_stream();
        match self {
            Self::Own(stream) => Some(step(stream)),
            Self::Shared(shared) => Some(shared.with(step)),
            Self::Call(_) | Self::Over => None,
        }
    }

    /// Goes on with a call in one frame as a stream.
    pub(super) fn become_stream(&mut self) {
        if let Self::Call(call) = self {
            *self = call.become_stream().map_or(Self::Over, Self::Own);
        }
    }

    pub(super) fn poll<R>(
        &mut self,
        cx: &mut std::task::Context<'_>,
        mut step: impl FnMut(&mut SendStream, &mut std::task::Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.become_stream();
        match self {
            Self::Own(stream) => step(stream, cx),
            Self::Shared(shared) => shared.poll_watcher(cx, step),
            Self::Call(_) | Self::Over => Poll::Pending,
        }
    }

    /// Whether the caller has gone, as far as is known here. Of a call in one frame it takes one load.
    #[inline]
    pub(super) fn is_gone(&mut self) -> bool {
        match self {
            Self::Call(call) => call.is_gone(),
            _ => {
                let mut task = std::task::Context::from_waker(Waker::noop());
                self.poll_gone(&mut task).is_ready()
            }
        }
    }

    /// Ready when the caller has gone, with the reason.
    pub(super) fn poll_gone(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Code> {
        let gone = match self {
            Self::Call(call) => call.poll_gone(cx).map(SendError::Stream),
            _ => self.poll(cx, |stream, cx| pin!(stream.stopped()).poll(cx)),
        };
        gone.map(|error| match error {
            SendError::Stopped { code }
            | SendError::Stream(StreamError::Cancelled { code, .. }) => match code {
                codes::DEADLINE => Code::DEADLINE_EXCEEDED,
                _ => Code::CANCELLED,
            },
            _ => Code::UNAVAILABLE,
        })
    }
}
