//! A deadline on tokio's clock, for sessions that run on its runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Instant;

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
            sleep: Box::pin(::tokio::time::sleep_until(::tokio::time::Instant::now())),
            armed: None,
        }
    }

    /// True when `deadline` has passed; else the task will be woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let Some(at) = deadline else {
            self.armed = None;
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
