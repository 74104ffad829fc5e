//! The time, of the last few microseconds: one look at the clock serves all that happens on a thread within them.
//!
//! A look takes 20 to 30 ns. The processor's counter takes 10 ns and tells whether the last look is recent. For that it needs no
//! calibration: a look is kept only if the clock has kept pace with the counter since the look before, within [`PACE`]; so one behind which the
//! thread has moved to a processor with another count is not. Tokio's clock is kept only if it shows the system's time, within [`BESIDE`]: one
//! that a test has stopped, or advanced, is looked at each time.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Ticks within which a look is kept: 1.6 to 4 us at 5 to 2 GHz.
const RECENT: u64 = 8192;
/// A tick and a nanosecond are at most this many of the other.
const PACE: u64 = 16;

/// Between two looks, one behind the other, at the system's clock and at tokio's.
const BESIDE: Duration = Duration::from_micros(1);

/// A look at the clock.
#[derive(Clone, Copy)]
struct Look {
    ticks: u64,
    time: Instant,
    /// It is the time for [`RECENT`] ticks.
    kept: bool,
}

thread_local! {
    static LAST: Cell<Option<Look>> = const { Cell::new(None) };
}

/// The time, or that of the last few microseconds.
#[inline]
pub(crate) fn recent() -> Instant {
    let Some(ticks) = ticks() else {
        return Instant::now();
    };
    match LAST.get() {
        Some(last) if last.kept && ticks.wrapping_sub(last.ticks) < RECENT => last.time,
        last => look(ticks, last),
    }
}

fn look(ticks: u64, last: Option<Look>) -> Instant {
    let of_system = std::time::Instant::now();
    let time = Instant::now();
    let beside = time.into_std().checked_duration_since(of_system);
    let shows_system = beside.is_some_and(|beside| beside < BESIDE);
    let keeps_pace = last.is_some_and(|last| {
        let passed = time.saturating_duration_since(last.time).as_nanos();
        let (passed, counted) = (passed, u128::from(ticks.wrapping_sub(last.ticks)));
        let pace = u128::from(PACE);
        counted <= passed * pace && passed <= counted * pace
    });
    LAST.set(Some(Look {
        ticks,
        time,
        kept: keeps_pace && shows_system,
    }));
    time
}

/// The processor's counter, where it counts at a constant rate and never stops.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn ticks() -> Option<u64> {
    use std::arch::x86_64::{__cpuid, _rdtsc};
    use std::sync::LazyLock;

    static IS_CONSTANT: LazyLock<bool> = LazyLock::new(|| {
        // AMD64 Architecture Programmer's Manual, volume 3, E.4: the number of extended functions, and TscInvariant.
        const EXTENDED: u32 = 0x8000_0000;
        const POWER: u32 = 0x8000_0007;
        __cpuid(EXTENDED).eax >= POWER && __cpuid(POWER).edx & (1 << 8) != 0
    });
    // SAFETY: x86-64 has the instruction.
    IS_CONSTANT.then(|| unsafe { _rdtsc() })
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
fn ticks() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than [`RECENT`] ticks take at any rate that a processor has.
    const LONG: Duration = Duration::from_millis(5);

    #[test]
    fn it_is_never_later_than_the_time_and_never_much_earlier() {
        for _ in 0..100_000 {
            let before = Instant::now();
            let recent = recent();
            assert!(recent <= Instant::now());
            let age = before.saturating_duration_since(recent);
            assert!(age < LONG, "{age:?}");
        }
    }

    #[test]
    fn a_look_is_kept_for_some_ticks_if_the_clock_keeps_pace_with_them() {
        let start = Instant::now();
        let pass = |nanos| start + Duration::from_nanos(nanos);
        let kept = |last: Option<Look>, ticks| {
            look(ticks, last);
            LAST.get().is_some_and(|look| look.kept)
        };
        let (ago, fast) = (Duration::from_secs(1), 3_000_000_000);
        let then = |time, ticks| {
            Some(Look {
                ticks,
                time,
                kept: true,
            })
        };
        assert!(!kept(None, 0), "nothing is known of its pace");
        assert!(kept(then(pass(0) - ago, 0), fast));
        assert!(
            !kept(then(pass(0) - ago, 0), fast / 100),
            "the counter is slow"
        );
        assert!(
            !kept(then(pass(0) - ago, 0), fast * 100),
            "the clock is slow"
        );
        assert!(!kept(then(pass(0) - ago, fast), 0), "the counter is behind");
        assert!(
            !kept(then(pass(0) + ago, 0), fast),
            "the clock has gone back"
        );
    }

    #[test]
    fn a_clock_that_is_stopped_after_it_ran_is_looked_at_each_time() {
        for _ in 0..100 {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("it has no I/O").block_on(async {
                // The second may be kept.
                let _looks = (recent(), recent());
                tokio::time::pause();
                let passed = std::time::Instant::now() + LONG / 100;
                while std::time::Instant::now() < passed {
                    std::hint::spin_loop();
                }
                assert_eq!(recent(), Instant::now());
                tokio::time::advance(Duration::from_micros(10)).await;
                assert_eq!(recent(), Instant::now());
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_stopped_or_advanced_is_looked_at_each_time() {
        for _ in 0..1000 {
            assert_eq!(recent(), Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(recent(), Instant::now());
            tokio::time::advance(Duration::from_nanos(1)).await;
        }
    }
}
