//! Where a producer can be stopped, so that tests can show whom that delays. Nothing at all outside of unit tests.

/// Between two of what a producer does to get the engine's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The record is in the ring; nobody was told.
    Published,
    /// The word of reasons is not zero any more; the node is not on the list.
    Raised,
    /// The node is on the list; the bell was not rung.
    Listed,
    /// This producer is the one that wakes a parked engine; it has not done so.
    Chosen,
}

#[cfg(not(all(test, not(ringmux_loom))))]
#[inline(always)]
pub(crate) const fn reached(_: Step) {}

#[cfg(all(test, not(ringmux_loom)))]
pub(crate) use armed::{reached, stop_at};

#[cfg(all(test, not(ringmux_loom)))]
mod armed {
    use super::Step;
    use std::cell::RefCell;

    type Stop = (Step, Box<dyn FnOnce()>);

    thread_local! {
        static STOP: RefCell<Option<Stop>> = const { RefCell::new(None) };
    }

    /// Calls `stop` when this thread is at `step` next, once.
    pub(crate) fn stop_at(step: Step, stop: impl FnOnce() + 'static) {
        STOP.set(Some((step, Box::new(stop))));
    }

    pub(crate) fn reached(step: Step) {
        let here = |stop: &mut Stop| stop.0 == step;
        let stop = STOP.with_borrow_mut(|stop| stop.take_if(here));
        if let Some((_, stop)) = stop {
            stop();
        }
    }
}
