//! The counters of a manager.

use std::sync::atomic::AtomicU64;

use crate::sync::Ordering;

/// Defines counters, and a snapshot of them for applications.
macro_rules! counted {
    ($(#[$outer:meta])* pub struct $snapshot:ident from $counters:ident {
        $($(#[$doc:meta])* $name:ident),+ $(,)?
    }) => {
        #[derive(Debug, Default)]
        pub(super) struct $counters { $(pub(super) $name: $crate::manage::metrics::Count),+ }

        $(#[$outer])*
        ///
        /// The fields are read one after the other, so sums may be inconsistent by the events in between.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $snapshot { $($(#[$doc])* pub $name: u64),+ }

        impl $counters {
            pub(super) fn snapshot(&self) -> $snapshot {
                $snapshot { $($name: self.$name.get()),+ }
            }
        }
    };
}

pub(super) use counted;

counted! {
    /// A snapshot of a manager's counters, all since it was built unless said otherwise.
    pub struct Metrics from Counters {
        /// Attempts to get a session, and sessions installed by [`replace`](super::Manager::replace): at least as
        /// many as became ready.
        attempts,
        /// Attempts that failed, in the hook or before.
        failures,
        /// Of these, failures in the hook.
        hook_failures,
        /// Panics of the provider, of the hook, and of the texts of their errors.
        panics,
        /// Sessions that became ready.
        ready,
        /// Ready sessions lost for any reason.
        lost,
        /// Sessions that proved themselves: lived long enough and answered a PING.
        proven,
        /// Callers now waiting for a session.
        waiting,
        /// Calls that got a session.
        served,
        /// Calls that were refused because the manager was shutting down.
        refused_closing,
        /// Calls that were refused because there was no session within their time limit.
        refused_late,
        /// Calls that were refused because too many were waiting.
        refused_waiting,
        /// Calls that were refused because the manager was not started.
        refused_unstarted,
    }
}

/// A counter that any thread may change.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn take(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Adds `n`, unless the sum would exceed `limit`.
    pub(super) fn add_within(&self, n: u64, limit: u64) -> bool {
        let within = |now: u64| now.checked_add(n).filter(|sum| *sum <= limit);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .is_ok()
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
