//! A deadline, which costs a timer only once something waits.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep_until};

use super::code::Code;

thread_local! {
    /// The runtime that was looked at last on this thread, and whether it has time enabled.
    static SEEN: Cell<Option<(Id, bool)>> = const { Cell::new(None) };
}

/// Whether a runtime of tokio is entered here that has time enabled.
///
/// There is no way to ask but to try: where time is missing, tokio panics, which is caught here after the panic hook has printed it,
/// once for each thread and runtime.
pub(super) fn has_clock() -> bool {
    let Ok(runtime) = Handle::try_current() else {
        return false;
    };
    let id = runtime.id();
    match SEEN.try_with(Cell::get) {
        Ok(Some((seen, has))) if seen == id => has,
        _ => {
            let has = catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok();
            let _ = SEEN.try_with(|cell| cell.set(Some((id, has))));
            has
        }
    }
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

    /// Where no runtime of tokio with time is entered it is ready at once.
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
