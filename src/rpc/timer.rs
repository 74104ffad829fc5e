//! A deadline, which costs a timer only once something waits.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::code::Code;
use crate::timer;

/// Ready at a moment, if there is one.
pub(super) struct Timer {
    at: Option<Instant>,
    timer: timer::Timer,
    /// It is ready since no timer can be set where it was polled.
    lacks_clock: bool,
}

impl Timer {
    pub(super) const fn new(at: Option<Instant>) -> Self {
        Self {
            at,
            timer: timer::Timer::new(),
            lacks_clock: false,
        }
    }

    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Where no runtime of tokio with time is entered it is ready at once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        self.lacks_clock = ready!(self.timer.poll(cx, at)).is_err();
        Poll::Ready(())
    }

    /// Why a timer that is ready ends its call.
    pub(super) const fn reason(&self) -> Code {
        if self.lacks_clock {
            Code::FAILED_PRECONDITION
        } else {
            Code::DEADLINE_EXCEEDED
        }
    }
}
