//! Points at which tests stop a producer, to show which streams that delays. No code outside of unit tests.

/// A point between two steps of a producer that requests the engine's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The record is published in the ring; no reason was raised.
    Published,
    /// The word of reasons is not zero any more; the node is not on the list.
    Raised,
    /// The node is on the list; the bell was not rung.
    Listed,
    /// This producer was chosen to wake a parked engine, and has not done so.
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

    /// Calls `stop` once, when this thread next reaches `step`.
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
