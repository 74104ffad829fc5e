//! How often something may happen: a token bucket that remembers a time instead of a level.
//!
//! Each token takes `interval` to come back. `full_at` is when all would be back; the bucket is empty when that is a whole
//! burst away. So there is nothing to refill, nothing to round, and no number that grows (the GCRA of ATM's rate control).

use std::time::{Duration, Instant};

use crate::config::Rate;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    /// How far ahead `full_at` may be for one more.
    reach: Duration,
    full_at: Instant,
    /// How often something was asked for.
    asked: u64,
}

impl Bucket {
    /// A full bucket. The rate was checked: neither number is 0, nor more than 1,000,000.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        Self {
            interval,
            reach: interval * rate.burst.saturating_sub(1),
            full_at: now,
            asked: 0,
        }
    }

    /// Takes a token. `Err` if there is none: how many were asked for so far.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), u64> {
        self.asked += 1;
        let full_at = self.full_at.max(now);
        if full_at.duration_since(now) > self.reach {
            return Err(self.asked);
        }
        self.full_at = full_at + self.interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn take_all(bucket: &mut Bucket, now: Instant) -> u64 {
        let mut taken = 0;
        while bucket.take(now).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_is_there_at_once_and_the_next_one_says_how_many_there_were() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::new(3, 1), now);
        for _ in 0..3 {
            assert_eq!(bucket.take(now), Ok(()));
        }
        assert_eq!(bucket.take(now), Err(4));
    }

    #[test]
    fn tokens_come_back_at_the_rate_and_never_more_than_a_burst() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::new(10, 2), now);
        assert_eq!(take_all(&mut bucket, now), 10);
        assert_eq!(take_all(&mut bucket, now + SECOND / 4), 0);
        assert_eq!(take_all(&mut bucket, now + SECOND / 2), 1);
        assert_eq!(take_all(&mut bucket, now + 2 * SECOND), 3);
        assert_eq!(take_all(&mut bucket, now + 1000 * SECOND), 10);
    }

    #[test]
    fn the_largest_rate_and_the_longest_pause_overflow_nothing() {
        let now = Instant::now();
        let year = 365 * 24 * 3600 * SECOND;
        for rate in [Rate::new(1_000_000, 1), Rate::new(1_000_000, 1_000_000)] {
            let mut bucket = Bucket::new(rate, now);
            assert_eq!(take_all(&mut bucket, now), 1_000_000);
            assert_eq!(take_all(&mut bucket, now + 10 * year), 1_000_000);
            // Time that goes back gives nothing.
            assert_eq!(take_all(&mut bucket, now), 0);
        }
    }

    proptest! {
        #[test]
        fn in_any_span_there_are_no_more_than_a_burst_and_the_rate(
            burst in 1_u32..50,
            per_second in 1_u32..2000,
            steps in prop::collection::vec(0_u64..200_000_000, 1..200),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(Rate::new(burst, per_second), start);
            let (mut now, mut taken) = (start, Vec::new());
            for step in steps {
                now += Duration::from_nanos(step);
                if bucket.take(now).is_ok() {
                    taken.push(now);
                }
            }
            for (n, from) in taken.iter().enumerate() {
                for (m, to) in taken.iter().enumerate().skip(n) {
                    let span = to.duration_since(*from).as_nanos();
                    // One more for what comes back within a span that begins in the middle of an interval.
                    let most = u128::from(burst) + span / (1_000_000_000 / u128::from(per_second)) + 1;
                    prop_assert!((m - n + 1) as u128 <= most);
                }
            }
        }
    }
}
