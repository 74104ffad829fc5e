//! A deadline on tokio's clock, for sessions that run on its runtime.

use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::timer;

/// One timer that is set again and again.
#[derive(Debug)]
pub(super) struct Timer {
    timer: timer::Timer,
    /// The deadline it is set to.
    armed: Option<Instant>,
    /// The waker to call: set while the timer is registered and has not fired.
    wakes: Option<Waker>,
}

impl Timer {
    pub(super) const fn new() -> Self {
        Self {
            timer: timer::Timer::new(),
            armed: None,
            wakes: None,
        }
    }

    /// True when `deadline` has passed; else the task will be woken then.
    ///
    /// # Errors
    /// No timer can be set here: there is no runtime, or it has no time, or it has been shut down.
    #[inline]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let wakes_us = |waker: &Waker| waker.will_wake(cx.waker());
        if self.armed == deadline
            && self.wakes.as_ref().is_some_and(wakes_us)
            && !self.timer.is_elapsed()
        {
            // Already registered: the usual case of a busy session, whose deadline moves now and then.
            return Ok(false);
        }
        self.poll_anew(cx, deadline)
    }

    fn poll_anew(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> io::Result<bool> {
        let Some(at) = deadline else {
            self.wakes = None;
            if self.armed.take().is_some() {
                self.timer.unset();
            }
            return Ok(false);
        };
        self.armed = Some(at);
        match self.timer.poll(cx, at.into()) {
            Poll::Pending => {
                self.wakes = Some(cx.waker().clone());
                Ok(false)
            }
            Poll::Ready(due) => {
                self.armed = None;
                self.wakes = None;
                due.map(|()| true).map_err(io::Error::other)
            }
        }
    }
}
