//! A deadline, which costs a timer only once something waits.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::code::Code;

/// Whether a runtime of tokio is entered here.
pub(super) fn has_clock() -> bool {
    Handle::try_current().is_ok()
}

/// Ready at a moment, if there is one.
pub(super) struct Timer {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(super) const fn new(at: Option<Instant>) -> Self {
        Self { at, sleep: None }
    }

    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Where no runtime of tokio is entered it is ready at once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let sleep = match &mut self.sleep {
            Some(sleep) => sleep,
            None if has_clock() => self.sleep.insert(Box::pin(sleep_until(at))),
            None => return Poll::Ready(()),
        };
        sleep.as_mut().poll(cx)
    }

    /// Why a timer that is ready ends its call.
    pub(super) const fn reason(&self) -> Code {
        match self.sleep {
            Some(_) => Code::DEADLINE_EXCEEDED,
            None => Code::FAILED_PRECONDITION,
        }
    }
}
