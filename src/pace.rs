//! Rate limit of log lines that a peer can cause: the first, then counts.
//!
//! Each log statement has a pace of its own. Within [`WINDOW`] of the first line it lets no other through (at level DEBUG and
//! below, where someone looks for details, up to [`DETAILS`]); the first line after the window has the number of suppressed
//! ones in its field `left_out`. Until such a line the number is only in [`left_out_lines`]. Nothing is counted while no
//! subscriber wants the line.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::sync::{AtomicU64, Ordering};

/// The window, from its first line, in which a statement logs one line, or a few of details.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of a statement within the window, at level DEBUG and below.
const DETAILS: u64 = 10;

/// Bits of the state for the count, which saturates.
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Suppressed lines of all statements, since the process started.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
/// Of these, those reported in the field `left_out` of a later line.
static TOLD: AtomicU64 = AtomicU64::new(0);

/// Log lines suppressed by the rate limit: see [`left_out_lines`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOutLines {
    /// Since the process started.
    pub total: u64,
    /// Of these, those not yet reported in any line's field `left_out`.
    pub untold: u64,
}

/// The number of suppressed log lines of this process; a snapshot, which costs two loads.
///
/// Each log statement writes one line in 10 s (at level DEBUG and below ten); its next line after that reports how many were
/// suppressed. If there is no next line, only this number has them.
///
/// # Examples
/// ```
/// let lines = ringmux::left_out_lines();
/// assert!(lines.untold <= lines.total);
/// ```
#[must_use]
pub fn left_out_lines() -> LeftOutLines {
    // ORDERING: two counters, each of which only grows. Reading in this order ensures `told <= total`.
    let told = TOLD.load(Ordering::Relaxed);
    let total = LEFT_OUT.load(Ordering::Relaxed).max(told);
    LeftOutLines {
        total,
        untold: total - told,
    }
}

/// The pace of one log statement.
#[derive(Debug)]
pub(crate) struct Pace {
    /// High bits: start of the window in milliseconds; low bits: lines since.
    state: AtomicU64,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
        }
    }

    /// `Some` if a line of this level may be logged now, with the number suppressed before it, if any.
    pub(crate) fn admit(&self, level: Level) -> Option<Option<u64>> {
        let lines = if level <= Level::INFO { 1 } else { DETAILS };
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        let admitted = self.admit_at(lines, u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        match admitted {
            None => LEFT_OUT.fetch_add(1, Ordering::Relaxed),
            Some(told) => TOLD.fetch_add(told.unwrap_or(0), Ordering::Relaxed),
        };
        admitted
    }

    fn admit_at(&self, lines: u64, now_ms: u64) -> Option<Option<u64>> {
        let mut admitted = None;
        let step = |state: u64| {
            let (began_ms, count) = (state >> COUNT_BITS, state & COUNT_MAX);
            let over = now_ms.saturating_sub(began_ms) >= WINDOW.as_millis() as u64;
            if count == 0 || over {
                let left_out = count.saturating_sub(lines);
                admitted = Some((left_out > 0).then_some(left_out));
                return Some(now_ms << COUNT_BITS | 1);
            }
            admitted = (count < lines).then_some(None);
            (count < COUNT_MAX).then_some(state + 1)
        };
        // ORDERING: no other memory is published with it.
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        admitted
    }
}

/// Runs `log` as a function of its own. Inlined, the code of an event is larger than the loop over messages around it.
#[cold]
#[inline(never)]
pub(crate) fn rarely(log: impl FnOnce()) {
    log();
}

/// Logs as `tracing::event!` does, with a pace of its own.
macro_rules! paced {
    (target: $target:expr, parent: $parent:expr, $level:expr, $($rest:tt)+) => {{
        static PACE: $crate::pace::Pace = $crate::pace::Pace::new();
        $crate::pace::rarely(|| {
            if tracing::enabled!(target: $target, $level)
                && let Some(left_out) = PACE.admit($level)
            {
                tracing::event!(target: $target, parent: $parent, $level, left_out, $($rest)+);
            }
        });
    }};
    ($level:expr, $($rest:tt)+) => {{
        static PACE: $crate::pace::Pace = $crate::pace::Pace::new();
        $crate::pace::rarely(|| {
            if tracing::enabled!($level)
                && let Some(left_out) = PACE.admit($level)
            {
                tracing::event!($level, left_out, $($rest)+);
            }
        });
    }};
}
pub(crate) use paced;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_pass_and_the_next_window_says_how_many_did_not() {
        let pace = Pace::new();
        for at in [0, 1, 9_000] {
            assert_eq!(pace.admit_at(3, at), Some(None), "at {at}");
        }
        for at in 9_001..9_101 {
            assert_eq!(pace.admit_at(3, at), None, "at {at}");
        }
        assert_eq!(pace.admit_at(3, 10_000), Some(Some(100)));
        assert_eq!(pace.admit_at(3, 10_001), Some(None));
        // Reported once.
        assert_eq!(pace.admit_at(3, 30_000), Some(None));
    }

    #[test]
    fn the_first_line_is_written_and_of_details_ten() {
        for (level, lines) in [
            (Level::ERROR, 1),
            (Level::WARN, 1),
            (Level::INFO, 1),
            (Level::DEBUG, 10),
            (Level::TRACE, 10),
        ] {
            let pace = Pace::new();
            let admitted = (0..100).filter(|_| pace.admit(level).is_some()).count();
            assert_eq!(admitted, lines, "{level}");
        }
    }

    #[test]
    fn each_line_that_is_left_out_is_counted_until_a_later_line_has_told_it() {
        static PACE: Pace = Pace::new();
        let before = left_out_lines();
        let admitted = (0..5).filter(|_| PACE.admit(Level::WARN).is_some()).count();
        assert_eq!(admitted, 1);
        let since = left_out_lines().total - before.total;
        // Other tests may log meanwhile.
        assert!(since >= 4, "{since}");
    }

    #[test]
    fn no_number_of_lines_runs_into_the_time() {
        let pace = Pace::new();
        pace.state.store(COUNT_MAX - 1, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(pace.admit_at(1, 5), None);
        }
        assert_eq!(pace.admit_at(1, 10_000), Some(Some(COUNT_MAX - 1)));
    }

    #[test]
    fn threads_together_have_no_more_than_one() {
        let pace = Pace::new();
        let admitted = || {
            (0..10_000)
                .filter(|_| pace.admit_at(10, 7).is_some())
                .count()
        };
        let total: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(admitted));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(total, 10);
    }
}
