//! How often each limit was tripped: by a session, and by the process.
//!
//! A session's counts are written by its engine. Those of the process are shared by all engines, outlive the
//! sessions, and are written when something goes wrong only.

use std::sync::atomic::{AtomicU64, Ordering};

use super::session::Counter;
use crate::error::Limit;

static PROCESS: [AtomicU64; Limit::COUNT] = [const { AtomicU64::new(0) }; Limit::COUNT];

/// How often each limit was tripped.
///
/// # Examples
/// ```
/// use ringmux::{Limit, TrippedLimits};
///
/// let none = TrippedLimits::default();
/// assert_eq!(none.get(Limit::ResetRate), 0);
/// assert_eq!(none.iter().map(|(_, times)| times).sum::<u64>(), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrippedLimits([u64; Limit::COUNT]);

impl TrippedLimits {
    /// How often this one was.
    #[must_use]
    pub const fn get(&self, limit: Limit) -> u64 {
        self.0[limit.index()]
    }

    /// All of them, also those that never were.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> + use<> {
        Limit::ALL.into_iter().zip(self.0)
    }

    /// Those of the process, since its start.
    pub(crate) fn of_process() -> Self {
        // ORDERING: Relaxed: numbers that guard nothing.
        Self(
            PROCESS
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
        )
    }
}

/// The counts of one session.
#[derive(Debug, Default)]
pub(crate) struct Trips([Counter; Limit::COUNT]);

impl Trips {
    /// Counts one more, for the session and for the process.
    #[cold]
    pub(crate) fn count(&self, limit: Limit) {
        self.0[limit.index()].add(1);
        PROCESS[limit.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> TrippedLimits {
        TrippedLimits(self.0.each_ref().map(Counter::get))
    }
}
