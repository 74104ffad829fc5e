//! How often a call that was not processed is tried, and the pauses between. The loop is `unary::attempts`.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often a unary call is tried that was not processed, and how long the pauses are.
///
/// Only what [`Status::is_retryable`](super::Status::is_retryable) allows is tried again, so nothing runs twice; and only
/// as long as the call has time. A handler that has begun is not run again, whatever error it passes on by `?`, unless it says of its
/// own status that it was [`not_processed`](super::Status::not_processed).
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use ringmux::rpc::Retry;
///
/// let retry = Retry::new(5).pause(Duration::from_millis(20));
/// # let _ = retry;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    attempts: u32,
    pause: Duration,
}

/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Retry {
    /// So many attempts in all, with pauses from 10 ms on.
    #[must_use]
    pub const fn new(attempts: u32) -> Self {
        Self {
            attempts,
            pause: Duration::from_millis(10),
        }
    }

    /// The pause after the first attempt; it doubles with each, up to 1 s, and each is between half of it and the whole, by
    /// chance.
    #[must_use]
    pub const fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// The pause after so many attempts; `None`: no other one.
    pub(super) fn pause_after(&self, attempts: u32) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let doubled = self.pause.saturating_mul(1 << (attempts - 1).min(16));
        let chance = RandomState::new().hash_one(attempts) % 1024;
        Some(doubled.min(PAUSE_MAX).mul_f64(0.5 + chance as f64 / 2048.0))
    }
}
