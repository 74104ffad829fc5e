//! A deadline on tokio's clock, for sessions that run on its runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Instant;

/// Not registered with the runtime until it is polled.
fn unset() -> ::tokio::time::Sleep {
    ::tokio::time::sleep_until(::tokio::time::Instant::now())
}

/// One timer that is set again and again.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<::tokio::time::Sleep>>,
    /// What it is set to.
    armed: Option<Instant>,
}

impl Timer {
    /// To be called on the runtime that will poll it.
    pub(super) fn new() -> Self {
        Self {
            sleep: Box::pin(unset()),
            armed: None,
        }
    }

    /// True when `deadline` has passed; else the task will be woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let Some(at) = deadline else {
            if self.armed.take().is_some() {
                // One that stays set is one more timer of the kernel each time the runtime parks.
                self.sleep.set(unset());
            }
            return false;
        };
        if self.armed != Some(at) {
            self.sleep.as_mut().reset(at.into());
            self.armed = Some(at);
        }
        let due = self.sleep.as_mut().poll(cx).is_ready();
        if due {
            self.armed = None;
        }
        due
    }
}
