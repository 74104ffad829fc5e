//! The time, as drivers see it. Tests stop the clock of their thread and move it themselves.

#[cfg(not(test))]
use std::time::Instant;

#[cfg(not(test))]
#[inline]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
pub(super) use stopped::{Stopped, now};

#[cfg(test)]
mod stopped {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub(in super::super) fn now() -> Instant {
        NOW.get().unwrap_or_else(Instant::now)
    }

    /// While it lives, time passes on this thread only when it is told to.
    #[derive(Debug)]
    pub(in super::super) struct Stopped(());

    impl Stopped {
        pub(in super::super) fn new() -> Self {
            NOW.set(Some(Instant::now()));
            Self(())
        }

        pub(in super::super) fn pass(time: Duration) {
            NOW.set(NOW.get().map(|now| now + time));
        }
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            NOW.set(None);
        }
    }
}
