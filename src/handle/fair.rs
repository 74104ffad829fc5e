//! Turns of other tasks beside one whose stream is always ready.
//!
//! A half of a stream that has room, or messages, at every poll would never let its task wait, and the other tasks, timers and
//! sockets of a current-thread runtime would wait for it instead. So, as tokio's own resources do, it yields once after
//! [`READY_MAX`] polls in a row that found it ready. Outside of a runtime of tokio it does not, as no one would poll others meanwhile.

use std::pin::pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::coop;

/// As many as a task of tokio may use of its resources at a time.
const READY_MAX: u8 = 128;

/// Polls in a row that found the half ready.
#[derive(Debug, Default)]
pub(crate) struct Fair(u8);

impl Fair {
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    /// Counts a poll. Pending if it is the turn of others: the task is woken behind them.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.0 += 1;
        if self.0 < READY_MAX {
            return Poll::Ready(());
        }
        self.yield_once(cx)
    }

    /// Counts a poll, unless it is the turn of others: then [`poll`](Self::poll) gives it to them.
    #[inline]
    pub(crate) const fn has_turn(&mut self) -> bool {
        let has = self.0 + 1 < READY_MAX;
        self.0 += has as u8;
        has
    }

    /// The task waits, so that others have their turn.
    #[inline]
    pub(crate) const fn waits(&mut self) {
        self.0 = 0;
    }

    #[cold]
    fn yield_once(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.0 = 0;
        if Handle::try_current().is_err() {
            return Poll::Ready(());
        }
        let mut cx = Context::from_waker(cx.waker());
        pin!(tokio::task::yield_now()).poll(&mut cx)
    }
}

/// The same for an operation without state of its own: it uses up one of those that tokio allows a task at a time. Outside of a
/// runtime it is always ready.
pub(crate) fn poll_turn(cx: &Context<'_>) -> Poll<()> {
    let mut cx = Context::from_waker(cx.waker());
    coop::poll_proceed(&mut cx).map(|coop| coop.made_progress())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn one_that_is_always_ready_yields_once_in_so_many_polls_and_others_run_then() {
        let ran = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = std::rc::Rc::clone(&ran);
        let others = async move {
            loop {
                count.set(count.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let busy = async {
            let mut fair = Fair::new();
            for _ in 0..u32::from(READY_MAX) * 10 {
                poll_fn(|cx| fair.poll(cx)).await;
            }
        };
        tokio::select! {
            biased;
            () = busy => {}
            () = others => {}
        }
        assert!((10..20).contains(&ran.get()), "{}", ran.get());
    }

    #[test]
    fn the_poll_that_is_the_turn_of_others_is_not_counted_before_they_had_it() {
        let mut fair = Fair::new();
        let counted = std::iter::repeat_with(|| fair.has_turn()).take(1000);
        let counted = counted.take_while(|has| *has).count();
        assert_eq!(counted, usize::from(READY_MAX) - 1);
        let cx = Context::from_waker(std::task::Waker::noop());
        assert!(fair.poll(&cx).is_ready(), "outside of a runtime");
        assert!(fair.has_turn());
    }

    #[test]
    fn outside_of_a_runtime_it_is_never_pending() {
        let (mut fair, cx) = (Fair::new(), Context::from_waker(std::task::Waker::noop()));
        for _ in 0..1000 {
            assert!(fair.poll(&cx).is_ready());
        }
    }
}
