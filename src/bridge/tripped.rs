//! How often each limit was tripped. Counted by the engine of the session that tripped it.

use super::counter::Counter;
use crate::error::Limit;

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
    /// The count of this limit.
    #[must_use]
    pub const fn get(&self, limit: Limit) -> u64 {
        self.0[limit.index()]
    }

    /// All limits, also those never tripped.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> + use<> {
        Limit::ALL.into_iter().zip(self.0)
    }

    /// The difference to `base`.
    pub(super) const fn since(&self, base: &Self) -> Self {
        let mut since = *self;
        let mut n = 0;
        while n < Limit::COUNT {
            since.0[n] = since.0[n].saturating_sub(base.0[n]);
            n += 1;
        }
        since
    }

    pub(super) const fn add(&mut self, other: &Self) {
        let mut n = 0;
        while n < Limit::COUNT {
            self.0[n] += other.0[n];
            n += 1;
        }
    }
}

/// The counts of one session.
#[derive(Debug, Default)]
pub(crate) struct Trips([Counter; Limit::COUNT]);

impl Trips {
    /// Counts one more.
    #[cold]
    pub(crate) fn count(&self, limit: Limit) {
        self.0[limit.index()].add(1);
    }

    pub(super) fn snapshot(&self) -> TrippedLimits {
        TrippedLimits(self.0.each_ref().map(Counter::get))
    }
}
