//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// Half of what a new connection waits by default, so that one that comes while the server is back is served.
const MAX: Duration = Duration::from_secs(5);
const FACTOR: f64 = 1.6;
const JITTER: f64 = 0.2;

/// Grows with each attempt that fails; jitter keeps many clients of one server from coming back
/// all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { base: FIRST }
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.base.mul_f64(1.0 + JITTER * (2.0 * random() - 1.0));
        self.base = self.base.mul_f64(FACTOR).min(MAX);
        pause.min(MAX)
    }

    /// The peer was there for long enough to be trusted again.
    pub(super) const fn reset(&mut self) {
        self.base = FIRST;
    }
}

/// From 0 to 1; each `RandomState` has keys of its own.
fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_the_factor_up_to_the_maximum() {
        let mut backoff = Backoff::new();
        let mut base = FIRST;
        for _ in 0..1000 {
            let pause = backoff.next();
            assert!(pause >= base.mul_f64(1.0 - JITTER) && pause <= base.mul_f64(1.0 + JITTER));
            assert!(pause <= MAX);
            base = base.mul_f64(FACTOR).min(MAX);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST.mul_f64(1.0 + JITTER));
    }
}
