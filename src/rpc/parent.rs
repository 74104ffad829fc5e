//! What ends a call at its caller beside an answer: the parent's cancel, and the deadline until the transport keeps it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::code::Code;
use super::context;
use super::status::Status;
use super::timer::Timer;
use crate::error::{Processed, codes};

/// Waits for a parent's cancel.
pub(super) struct Parent {
    cx: context::Context,
    /// Once something is pending.
    waiting: Option<Pin<Box<dyn Future<Output = Code> + Send + Sync>>>,
}

impl Parent {
    pub(super) const fn new(cx: context::Context) -> Self {
        Self { cx, waiting: None }
    }

    /// The same without waiting, for the price of a load.
    pub(super) fn cancelled(&self) -> Option<Code> {
        self.cx.cancelled_with()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        let waiting = self.waiting.get_or_insert_with(|| {
            let parent = self.cx.clone();
            Box::pin(async move { parent.wait_cancelled().await })
        });
        waiting.as_mut().poll(cx)
    }
}

/// The code of a stream's cancel.
pub(super) fn cancel_code(code: Code) -> u32 {
    match code {
        Code::DEADLINE_EXCEEDED => codes::DEADLINE,
        _ => codes::CANCELLED,
    }
}

/// Waits for something that comes before the call itself.
pub(super) async fn within<F: Future>(
    at: Option<Instant>,
    parent: &Option<context::Context>,
    future: F,
) -> Result<F::Output, Status> {
    let mut timer = Timer::new(at);
    let mut parent = parent.clone().map(Parent::new);
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Err(Status::given_up(timer.reason(), Processed::No)));
        }
        match &mut parent {
            Some(parent) => parent
                .poll(cx)
                .map(|code| Err(Status::given_up(code, Processed::No))),
            None => Poll::Pending,
        }
    })
    .await
}
