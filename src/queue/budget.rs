//! The send budget: bytes shared by the writers of a session, and the pending limit (quota) of each writer.
//!
//! A [`Limit`] starts at a floor, which belongs to its writer. Bytes above the floor come out of a [`Budget`] and return to
//! it. Writers raise their limits themselves while there is plenty; the engine, which reads all their rings, lowers and
//! raises them when there is not. A message costs only the load of the limit.
//!
//! ```text
//!   writer: load limit ─► room? ─► push, publish ─► raise a reason (RMW)      engine: lower limit
//!              │ no                                        ╲                          touch reasons (RMW)
//!              └► take from the budget ─► CAS limit         ╲─ one comes first ─╱     is the ring empty?
//! ```
//! # Invariants
//! 1. `left in the budget + limits above their floors + bytes that the engine has taken back and not given` is constant. Every
//!    change of a limit is one read-modify-write, so the bytes taken from it were in it.
//! 2. A writer that raises a reason after each push pushes at most one record under a limit lowered before. Of its raise and
//!    the engine's touch one comes first: if the raise, the engine sees the published record; if the touch, the
//!    writer's next load sees the lower limit. So an engine that lowers, touches and then finds the ring empty
//!    may count the pending bytes as zero plus one record.
//!
//! # Progress
//! `get`, `grow`, `give` and `take_all` are **wait-free**: `grow` may fail, and returns false. `take` and, where a machine has no
//! atomic minimum (x86-64), `lower` are repeated only if another thread has changed the same number: **lock-free**.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The unassigned bytes. Relaxed throughout: the number guards no memory.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    /// The smallest part to take, unless the writer wants less.
    pub(crate) const PART_MIN: u64 = 1024;

    pub(crate) fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// The bytes that a writer that already has `has` may take out of `left`: as much must stay as it then has. So later
    /// writers find bytes too, each about half of the previous one's.
    pub(crate) fn part(left: u64, has: u64, want: u64) -> u64 {
        Self::worth(want.min(left.saturating_sub(has) / 2), want)
    }

    /// `part`, or 0 if that is below the smallest part for a writer that wants `want`.
    pub(crate) fn worth(part: u64, want: u64) -> u64 {
        if part < want.min(Self::PART_MIN) {
            0
        } else {
            part
        }
    }

    /// Takes up to `want` for a writer that has `has`; 0 if too little is left.
    pub(crate) fn take(&self, has: u64, want: u64) -> u64 {
        let left = (self.0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            let part = Self::part(left, has, want);
            (part > 0).then(|| left - part)
        });
        left.map_or(0, |left| Self::part(left, has, want))
    }

    pub(crate) fn take_all(&self) -> u64 {
        if self.left() == 0 {
            return 0;
        }
        self.0.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn give(&self, bytes: u64) {
        if bytes > 0 {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The limit of one writer's pending weight, in bytes. Relaxed throughout: see invariant 2 for its ordering.
#[derive(Debug)]
pub(crate) struct Limit(AtomicU32);

impl Limit {
    pub(crate) fn new(floor: u32) -> Self {
        Self(AtomicU32::new(floor))
    }

    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises the limit by `by`, already taken out of the budget; false if the limit is no longer `seen`.
    pub(crate) fn grow(&self, seen: u32, by: u32) -> bool {
        let (relaxed, grown) = (Ordering::Relaxed, seen + by);
        (self.0)
            .compare_exchange(seen, grown, relaxed, relaxed)
            .is_ok()
    }

    /// The engine lowers the limit to `to`; returns the bytes taken back.
    pub(crate) fn lower(&self, to: u32) -> u32 {
        let old = self.0.fetch_min(to, Ordering::Relaxed);
        old.saturating_sub(to)
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests;

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_leaves_as_much_as_it_has() {
        const KIB: u64 = 1 << 10;
        let budget = Budget::new(1 << 20);
        let mut had = Vec::new();
        loop {
            let has = budget.take(0, 252 * KIB);
            if has == 0 {
                break;
            }
            assert!(has >= Budget::PART_MIN && budget.left() >= has);
            assert_eq!(budget.take(has, 252 * KIB - has), 0, "it has its part");
            had.push(has);
        }
        assert_eq!(had[..4], [252 * KIB, 252 * KIB, 252 * KIB, 134 * KIB]);
        assert_eq!(had.len(), 11, "{had:?}");
        assert_eq!(had.iter().sum::<u64>() + budget.left(), 1 << 20);
    }

    #[test]
    fn little_is_given_to_who_wants_little() {
        let budget = Budget::new(2000);
        assert_eq!(budget.take(0, 2000), 0);
        assert_eq!((budget.take(0, 400), budget.left()), (400, 1600));
        assert_eq!(budget.take(0, 0), 0);
        assert_eq!((budget.take_all(), budget.take_all()), (1600, 0));
        budget.give(7);
        assert_eq!(budget.left(), 7);
    }

    #[test]
    fn a_limit_is_not_raised_by_a_writer_that_has_seen_another_one() {
        let limit = Limit::new(10);
        assert!(limit.grow(10, 20));
        assert!(!limit.grow(10, 20));
        assert_eq!((limit.lower(15), limit.lower(15), limit.get()), (15, 0, 15));
    }
}
