//! The clock of the drivers: tokio's, so that a test that pauses tokio's clock also pauses the sessions. (It is the
//! system's where tokio is built without `test-util`.) Tests here stop the clock of their thread and advance it themselves.

use std::time::Instant;

#[cfg(not(test))]
#[inline]
pub(crate) fn now() -> Instant {
    of_tokio()
}

/// The system's time, which a paused tokio clock does not stop: for measuring spinning.
#[cfg(not(test))]
#[inline]
pub(crate) fn real() -> Instant {
    Instant::now()
}

#[inline]
fn of_tokio() -> Instant {
    ::tokio::time::Instant::now().into_std()
}

#[cfg(test)]
pub(super) use stopped::Stopped;
#[cfg(test)]
pub(crate) use stopped::{now, real};

#[cfg(test)]
mod stopped {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub(crate) fn now() -> Instant {
        NOW.get().unwrap_or_else(super::of_tokio)
    }

    pub(crate) fn real() -> Instant {
        NOW.get().unwrap_or_else(Instant::now)
    }

    /// While it lives, the clock of this thread moves only when it is advanced.
    #[derive(Debug)]
    pub(in super::super) struct Stopped(());

    impl Stopped {
        pub(in super::super) fn new() -> Self {
            NOW.set(Some(super::of_tokio()));
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
