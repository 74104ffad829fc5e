//! What an engine does when there is nothing to do.

use std::time::{Duration, Instant};

use crate::config::Wait;

/// A wait that is over sooner than this is worth spinning for: about what a wake-up costs.
const SPIN_MAX: Duration = Duration::from_micros(100);
const SPIN_MIN: Duration = Duration::from_micros(5);
/// Spins between two looks at the clock.
const LOOKS: u32 = 16;

/// The state behind a [`Wait`].
#[derive(Debug)]
pub(super) struct Waiting {
    policy: Wait,
    /// How long an adaptive engine spins before it parks.
    spin: Duration,
    idle_since: Option<Instant>,
    looks: u32,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Spin,
    Park,
}

impl Waiting {
    pub(super) const fn new(policy: Wait) -> Self {
        Self {
            policy,
            spin: SPIN_MIN,
            idle_since: None,
            looks: 0,
        }
    }

    /// Whether it spins at all when there is nothing to do.
    pub(super) const fn spins(&self) -> bool {
        match self.policy {
            Wait::Park => false,
            Wait::Spin => true,
            Wait::Adaptive => !self.spin.is_zero(),
        }
    }

    /// Something moved.
    #[inline]
    pub(super) const fn busy(&mut self) {
        self.idle_since = None;
        self.looks = 0;
    }

    /// Nothing moved.
    #[inline]
    pub(super) fn idle(&mut self) -> Idle {
        match self.policy {
            Wait::Park => Idle::Park,
            Wait::Spin => Idle::Spin,
            Wait::Adaptive => self.adapt(),
        }
    }

    fn adapt(&mut self) -> Idle {
        if self.spin.is_zero() {
            return Idle::Park;
        }
        self.looks += 1;
        if self.idle_since.is_some() && !self.looks.is_multiple_of(LOOKS) {
            return Idle::Spin;
        }
        // Not tokio's clock, which may stand still.
        let now = Instant::now();
        let since = *self.idle_since.get_or_insert(now);
        if now - since < self.spin {
            Idle::Spin
        } else {
            Idle::Park
        }
    }

    /// The engine was parked for this long: a little more spinning would have been enough, or all
    /// of it was wasted.
    pub(super) fn parked(&mut self, time: Duration) {
        if self.policy == Wait::Adaptive {
            self.spin = if time < SPIN_MAX {
                (self.spin * 2).clamp(SPIN_MIN, SPIN_MAX)
            } else if self.spin > SPIN_MIN {
                self.spin / 2
            } else {
                Duration::ZERO
            };
        }
        self.busy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spun_out(waiting: &mut Waiting) -> Duration {
        let start = Instant::now();
        while waiting.idle() == Idle::Spin {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "it spins for ever"
            );
        }
        start.elapsed()
    }

    #[test]
    fn short_waits_make_an_adaptive_engine_spin_and_long_ones_park_it() {
        let mut waiting = Waiting::new(Wait::Adaptive);
        for _ in 0..10 {
            waiting.parked(Duration::from_micros(50));
        }
        assert_eq!(waiting.spin, SPIN_MAX);
        assert!(spun_out(&mut waiting) >= SPIN_MAX);
        for _ in 0..10 {
            waiting.parked(Duration::from_millis(50));
        }
        assert_eq!(waiting.idle(), Idle::Park);
        waiting.parked(Duration::from_micros(50));
        assert_eq!(waiting.idle(), Idle::Spin);
    }

    #[test]
    fn the_other_policies_do_what_they_say() {
        assert_eq!(Waiting::new(Wait::Park).idle(), Idle::Park);
        let mut spinning = Waiting::new(Wait::Spin);
        spinning.parked(Duration::from_secs(1));
        assert_eq!(spinning.idle(), Idle::Spin);
    }
}
