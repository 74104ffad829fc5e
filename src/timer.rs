//! Timers of the tokio runtime on which they are polled. tokio panics where there is no runtime, where it has no time, and
//! where it has been shut down: here that is an error. Where tokio offers no way to ask but to try, its panic is caught after
//! the panic hook has printed it.

#[cfg(feature = "rpc")]
mod recent;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep_until};

#[cfg(feature = "rpc")]
pub(crate) use recent::recent;

/// For limits beyond the clock's range.
#[cfg(feature = "manage")]
const FAR: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 24 * 3600);

/// No timer can be set here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runtime has no timers: poll it on one that was built with enable_all(), and lives")]
pub(crate) struct NoTimer;

/// The runtime that is entered here.
pub(crate) fn runtime() -> Option<Id> {
    Handle::try_current().ok().map(|runtime| runtime.id())
}

/// Whether timers can be set here.
pub(crate) fn has_time() -> bool {
    runtime().is_some() && make(Instant::now()).is_ok()
}

/// Not registered with the runtime until it is polled.
fn make(at: Instant) -> Result<Sleep, NoTimer> {
    catch_unwind(|| sleep_until(at)).map_err(|_| NoTimer)
}

/// One timer that is set again and again, and follows its task from one runtime to another.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<(Id, Pin<Box<Sleep>>)>);

impl Timer {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Ready at this time, or at once where no timer can be set; else the task is woken then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<Result<(), NoTimer>> {
        let here = runtime();
        let stays = match (&self.0, here) {
            // One that is not run any more fires none of its timers.
            (Some((home, _)), Some(here)) => *home == here,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !stays && let Err(error) = self.set(here, at) {
            return Poll::Ready(Err(error));
        }
        let Some((_, sleep)) = &mut self.0 else {
            return Poll::Ready(Err(NoTimer));
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            sleep.as_mut().poll(cx)
        }));
        polled.map_or_else(
            |_| {
                self.0 = None;
                Poll::Ready(Err(NoTimer))
            },
            |polled| polled.map(Ok),
        )
    }

    /// Registered no longer. A timer left armed would cost a kernel timer each time the runtime parks.
    pub(crate) fn unset(&mut self) {
        if self.0.is_some() && self.set(runtime(), Instant::now()).is_err() {
            self.0 = None;
        }
    }

    pub(crate) fn is_elapsed(&self) -> bool {
        self.0.as_ref().is_some_and(|(_, sleep)| sleep.is_elapsed())
    }

    fn set(&mut self, here: Option<Id>, at: Instant) -> Result<(), NoTimer> {
        let here = here.ok_or(NoTimer)?;
        let fresh = make(at)?;
        match &mut self.0 {
            Some((home, sleep)) => {
                *home = here;
                sleep.set(fresh);
            }
            None => self.0 = Some((here, Box::pin(fresh))),
        }
        Ok(())
    }
}

/// Waits for this long.
#[cfg(feature = "manage")]
pub(crate) async fn pause(time: std::time::Duration) -> Result<(), NoTimer> {
    let mut timer = Timer::new();
    let at = after(time);
    std::future::poll_fn(|cx| timer.poll(cx, at)).await
}

/// The result of `work`; `None` if it takes longer than `limit`.
#[cfg(feature = "manage")]
pub(crate) async fn within<F: Future>(
    limit: std::time::Duration,
    work: F,
) -> Result<Option<F::Output>, NoTimer> {
    let mut timer = Timer::new();
    let at = after(limit);
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(Some(done))),
        Poll::Pending => timer.poll(cx, at).map_ok(|()| None),
    })
    .await
}

#[cfg(feature = "manage")]
fn after(time: std::time::Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime_with_time() -> Runtime {
        Builder::new_current_thread().enable_time().build().unwrap()
    }

    fn poll(timer: &mut Timer, at: Instant) -> Poll<Result<(), NoTimer>> {
        timer.poll(&mut Context::from_waker(Waker::noop()), at)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn without_a_runtime_with_time_there_is_an_error() {
        let mut timer = Timer::new();
        assert!(!has_time());
        assert_eq!(poll(&mut timer, later()), Poll::Ready(Err(NoTimer)));
        let timeless = Builder::new_current_thread().build().unwrap();
        let _entered = timeless.enter();
        assert!(!has_time());
        assert_eq!(poll(&mut timer, later()), Poll::Ready(Err(NoTimer)));
    }

    #[test]
    fn it_follows_its_task_to_another_runtime_and_survives_the_first() {
        for lives in [true, false] {
            let (first, second) = (runtime_with_time(), runtime_with_time());
            let mut timer = Timer::new();
            let at = later();
            first.block_on(async { assert!(poll(&mut timer, at).is_pending()) });
            let first = lives.then_some(first);
            second.block_on(async {
                assert!(poll(&mut timer, at).is_pending());
                timer.unset();
                let soon = Instant::now() + Duration::from_millis(1);
                assert_eq!(
                    std::future::poll_fn(|cx| timer.poll(cx, soon)).await,
                    Ok(())
                );
                assert!(timer.is_elapsed());
            });
            drop(first);
        }
    }

    #[test]
    fn a_runtime_that_has_been_shut_down_is_an_error() {
        let runtime = runtime_with_time();
        let handle = runtime.handle().clone();
        let mut timer = Timer::new();
        runtime.block_on(async { assert!(poll(&mut timer, later()).is_pending()) });
        drop(runtime);
        assert_eq!(poll(&mut timer, later()), Poll::Ready(Err(NoTimer)));
        let _entered = handle.enter();
        assert_eq!(poll(&mut timer, later()), Poll::Ready(Err(NoTimer)));
    }
}
