//! How often a line that a peer can cause is logged: a few, then counts.
//!
//! Each place that logs has a pace of its own. Of the lines that come within [`WINDOW`] of the first it lets a few
//! through; the first one after that says in its field `left_out` how many there were besides. Nothing is counted while no
//! subscriber wants the line.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering};

/// Within this time of its first line a place logs a few more at most.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of a place within the window: each is about another peer.
pub(crate) const LINES: u64 = 10;
/// The same, where all lines say the same.
pub(crate) const ONE_LINE: u64 = 1;

/// Bits of the state that count; more are not told apart.
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// The pace of one place.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the window began, in milliseconds; below it, how many lines there were since.
    state: AtomicU64,
    lines: u64,
}

impl Pace {
    /// At most `lines` of them in a window.
    pub(crate) const fn new(lines: u64) -> Self {
        Self {
            state: AtomicU64::new(0),
            lines,
        }
    }

    /// Whether a line may be logged now; then also how many were left out before it, if any.
    pub(crate) fn admit(&self) -> Option<Option<u64>> {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        self.admit_at(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn admit_at(&self, now_ms: u64) -> Option<Option<u64>> {
        let mut admitted = None;
        let step = |state: u64| {
            let (began_ms, count) = (state >> COUNT_BITS, state & COUNT_MAX);
            let over = now_ms.saturating_sub(began_ms) >= WINDOW.as_millis() as u64;
            if count == 0 || over {
                let left_out = count.saturating_sub(self.lines);
                admitted = Some((left_out > 0).then_some(left_out));
                return Some(now_ms << COUNT_BITS | 1);
            }
            admitted = (count < self.lines).then_some(None);
            (count < COUNT_MAX).then_some(state + 1)
        };
        // ORDERING: nothing is published with it.
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        admitted
    }
}

/// Logs as `tracing::event!` does, at the pace of the place where it stands: at most so many lines within 10 s.
macro_rules! paced {
    ($lines:expr, target: $target:expr, parent: $parent:expr, $level:expr, $($rest:tt)+) => {{
        static PACE: $crate::pace::Pace = $crate::pace::Pace::new($lines);
        if tracing::enabled!(target: $target, $level)
            && let Some(left_out) = PACE.admit()
        {
            tracing::event!(target: $target, parent: $parent, $level, left_out, $($rest)+);
        }
    }};
    ($lines:expr, $level:expr, $($rest:tt)+) => {{
        static PACE: $crate::pace::Pace = $crate::pace::Pace::new($lines);
        if tracing::enabled!($level)
            && let Some(left_out) = PACE.admit()
        {
            tracing::event!($level, left_out, $($rest)+);
        }
    }};
}
pub(crate) use paced;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_pass_and_the_next_window_says_how_many_did_not() {
        let pace = Pace::new(3);
        for at in [0, 1, 9_000] {
            assert_eq!(pace.admit_at(at), Some(None), "at {at}");
        }
        for at in 9_001..9_101 {
            assert_eq!(pace.admit_at(at), None, "at {at}");
        }
        assert_eq!(pace.admit_at(10_000), Some(Some(100)));
        assert_eq!(pace.admit_at(10_001), Some(None));
        // Said once.
        assert_eq!(pace.admit_at(30_000), Some(None));
    }

    #[test]
    fn no_number_of_lines_runs_into_the_time() {
        let pace = Pace::new(1);
        pace.state.store(COUNT_MAX - 1, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(pace.admit_at(5), None);
        }
        assert_eq!(pace.admit_at(10_000), Some(Some(COUNT_MAX - 1)));
    }

    #[test]
    fn threads_together_have_no_more_than_one() {
        let pace = Pace::new(10);
        let admitted = || (0..10_000).filter(|_| pace.admit_at(7).is_some()).count();
        let total: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(admitted));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(total, 10);
    }
}
