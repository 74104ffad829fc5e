//! What a manager has done, as numbers.

use std::sync::atomic::AtomicU64;

use crate::sync::Ordering;

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: Count),+ }

        /// A snapshot of a manager's counters, all since it was built unless said otherwise.
        ///
        /// The fields are read one after the other, so sums may be off by what happened in between.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics { $($(#[$doc])* pub $name: u64),+ }

        impl Counters {
            pub(super) fn snapshot(&self) -> Metrics {
                Metrics { $($name: self.$name.get()),+ }
            }
        }
    };
}

metrics! {
    /// Attempts to have a session.
    attempts,
    /// Attempts that failed, in the hook or before.
    failures,
    /// Of these, how many failed in the hook.
    hook_failures,
    /// Sessions that became ready.
    ready,
    /// Sessions that were ready and are not any more, for any reason.
    lost,
    /// Sessions that proved themselves: lived long enough and answered a PING.
    proven,
    /// Callers that wait for a session, now.
    waiting,
    /// Calls that got a session.
    served,
    /// Calls that were refused because the manager was shutting down.
    refused_closing,
    /// Calls that were refused because no session came in the time they gave.
    refused_late,
    /// Calls that were refused because too many were waiting.
    refused_waiting,
}

/// A number that any thread changes.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds one unless `limit` is reached.
    pub(super) fn add_below(&self, limit: u64) -> bool {
        let below = |n: u64| (n < limit).then_some(n + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .is_ok()
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
