//! A deadline on tokio's clock, for sessions that run on its runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;

/// Not registered with the runtime until it is polled.
fn unset() -> ::tokio::time::Sleep {
    ::tokio::time::sleep_until(::tokio::time::Instant::now())
}

/// One timer that is set again and again.
#[derive(Debug)]
pub(super) struct Timer {
    /// Made with the first deadline.
    sleep: Option<Pin<Box<::tokio::time::Sleep>>>,
    /// The deadline it is set to.
    armed: Option<Instant>,
    /// The waker to call: set while the timer is registered and has not fired.
    wakes: Option<Waker>,
}

impl Timer {
    pub(super) const fn new() -> Self {
        Self {
            sleep: None,
            armed: None,
            wakes: None,
        }
    }

    /// True when `deadline` has passed; else the task will be woken then. To be called on the runtime that polls it, which
    /// has time enabled.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let wakes_us = |waker: &Waker| waker.will_wake(cx.waker());
        if self.armed == deadline
            && self.wakes.as_ref().is_some_and(wakes_us)
            && self.sleep.as_ref().is_some_and(|sleep| !sleep.is_elapsed())
        {
            // Already registered: the usual case of a busy session, whose deadline moves now and then.
            return false;
        }
        self.poll_anew(cx, deadline)
    }

    fn poll_anew(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let Some(at) = deadline else {
            self.wakes = None;
            if self.armed.take().is_some()
                && let Some(sleep) = &mut self.sleep
            {
                // A timer left armed would cost a kernel timer each time the runtime parks.
                sleep.set(unset());
            }
            return false;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(unset()));
        if self.armed != Some(at) {
            sleep.as_mut().reset(at.into());
            self.armed = Some(at);
        }
        let due = sleep.as_mut().poll(cx).is_ready();
        if due {
            self.armed = None;
            self.wakes = None;
        } else {
            self.wakes = Some(cx.waker().clone());
        }
        due
    }
}
