//! Backoff: the pauses between attempts.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Growth of the pause per failure: 1.6, as a fraction, so that rounding errors do not accumulate.
const GROWTH: (u64, u64) = (8, 5);
/// Jitter of a pause: up to 1/5 of its base, either way.
const JITTER: u64 = 5;

/// Pauses that grow with each failure, with random jitter, so that the many clients of one server do not all reconnect at
/// the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    first: u64,
    /// The largest base: the longest pause less the jitter. If pauses were cut at the longest one instead, half of the
    /// clients would end up with exactly the same pause.
    greatest: u64,
    /// The next pause before jitter, in nanoseconds.
    base: u64,
    chance: Chance,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        let longest = nanos(longest);
        let greatest = longest - longest / (JITTER + 1);
        let first = nanos(first).min(greatest);
        Self {
            first,
            greatest,
            base: first,
            chance: Chance(seed),
        }
    }

    /// The pause before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let base = self.base;
        let (times, over) = GROWTH;
        // Divide first if the product would overflow; real settings are far below.
        self.base = base
            .checked_mul(times)
            .map_or(u64::MAX, |product| product / over)
            .min(self.greatest);
        let reach = base / JITTER;
        let moved = self.chance.below(reach.saturating_mul(2).saturating_add(1));
        Duration::from_nanos((base - reach).saturating_add(moved))
    }

    /// After a proven session: start again with the first pause.
    pub(super) const fn reset(&mut self) {
        self.base = self.first;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A seed that differs between places, managers and processes.
pub(super) fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// SplitMix64: reproducible from its seed.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: nearly uniform, without a division.
        let scaled = (u128::from(self.next()) * u128::from(bound)) >> 64;
        scaled as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_grow_by_the_factor_within_the_jitter_and_never_exceed_the_longest() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(FIRST, LONGEST, seed);
            let mut base = 0.1_f64;
            for attempt in 0..1000 {
                let pause = backoff.next();
                assert!(pause <= LONGEST, "seed {seed}, attempt {attempt}");
                let share = pause.as_secs_f64() / base;
                assert!((0.799..=1.201).contains(&share), "{share} of {base}");
                base = (base * 1.6).min(25.0);
            }
        }
    }

    #[test]
    fn at_the_longest_pause_clients_still_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut backoff = Backoff::new(FIRST, LONGEST, seed);
            let last = (0..50).map(|_| backoff.next()).last().unwrap();
            seen.insert(last.as_millis());
        }
        assert!(seen.len() > 150, "{} different pauses of 200", seen.len());
    }

    #[test]
    fn no_setting_overflows() {
        let extremes = [
            Duration::ZERO,
            Duration::from_nanos(1),
            LONGEST,
            Duration::MAX,
        ];
        for first in extremes {
            for longest in extremes {
                let mut backoff = Backoff::new(first, longest, 7);
                for _ in 0..10_000 {
                    assert!(backoff.next() <= longest);
                }
            }
        }
    }

    #[test]
    fn after_a_reset_the_first_pause_comes_again() {
        let mut backoff = Backoff::new(FIRST, LONGEST, 1);
        for _ in 0..20 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST.mul_f64(1.2));
    }
}
