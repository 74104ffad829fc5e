//! Whether other threads need the processor of a spinning thread, according to the scheduler.
//!
//! Two signs, both of the thread's own: it was runnable and had to wait for long (`run delay` of
//! `/proc/thread-self/schedstat`: another busy thread, an exhausted quota), or it was often preempted (involuntary
//! switches: threads that wake there for a moment, each of which the spinning may have delayed).
//!
//! Readings are a system call each, so they are taken once in many waits; where the kernel does not offer them there are none.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::error::lacks_descriptors;

/// Scheduler statistics of the thread since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Time runnable but not running.
    pub(super) delay: Duration,
    /// Times scheduled onto a processor.
    pub(super) runs: u64,
    /// Times preempted.
    pub(super) preempted: u64,
}

/// The result of observing a period of spinning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too short to judge.
    Open,
    /// The thread had the processor (almost) to itself.
    Free,
    /// Other threads needed it, and took this much time from the thread.
    Wanted(Duration),
}

/// Minimum period to judge: in a shorter one a kernel thread may have run once, for some milliseconds. Not needed if the
/// thread was preempted twice already.
const WINDOW: Duration = Duration::from_millis(25);
/// Run delay per scheduling that is not contention: an idle processor has to wake up first.
const DELAY_PER_RUN: Duration = Duration::from_micros(100);
/// Contended if the run delay is at least 1/4 of the period.
const DELAY_SHARE: u32 = 4;
/// Or if it is preempted at least once in this time. Kernel threads alone preempt up to some fifty times a second.
const PREEMPTION_EVERY: Duration = Duration::from_millis(5);

/// A period of spinning under observation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    at: Instant,
    from: Reading,
}

impl Window {
    pub(super) const fn new(at: Instant, from: Reading) -> Self {
        Self { at, from }
    }

    pub(super) fn judge(&self, now: Instant, reading: Reading) -> Verdict {
        let elapsed = now.saturating_duration_since(self.at);
        let runs = u32::try_from(reading.runs.saturating_sub(self.from.runs)).unwrap_or(u32::MAX);
        let delay = reading.delay.saturating_sub(self.from.delay);
        let waited = delay.saturating_sub(DELAY_PER_RUN.saturating_mul(runs));
        let preempted = reading.preempted.saturating_sub(self.from.preempted);
        let times = u32::try_from(preempted).unwrap_or(u32::MAX);
        let is_delayed = waited.saturating_mul(DELAY_SHARE) >= elapsed;
        let is_interrupted = PREEMPTION_EVERY.saturating_mul(times) >= elapsed;
        if elapsed < WINDOW && !(is_delayed && preempted >= 2) {
            Verdict::Open
        } else if is_delayed || is_interrupted {
            Verdict::Wanted(delay)
        } else {
            Verdict::Free
        }
    }
}

/// The source of readings.
#[derive(Debug)]
pub(super) enum Scheduler {
    /// Opened at the next reading, on the spinning thread.
    Unopened,
    /// The kernel.
    Kernel(File),
    /// The kernel does not offer readings.
    Silent,
    #[cfg(test)]
    Scripted(std::rc::Rc<std::cell::Cell<Reading>>),
}

impl Scheduler {
    /// The calling thread's statistics. A process without descriptors left tries again at the next reading.
    pub(super) fn open() -> Self {
        match File::open("/proc/thread-self/schedstat") {
            Ok(file) => Self::Kernel(file),
            Err(error) if lacks_descriptors(&error) => Self::Unopened,
            Err(_) => Self::Silent,
        }
    }

    /// Reads the calling thread's statistics; always called on the same thread.
    pub(super) fn read(&mut self) -> Option<Reading> {
        if matches!(self, Self::Unopened) {
            *self = Self::open();
        }
        match self {
            Self::Kernel(file) => {
                let reading = schedstat(file);
                if reading.is_none() {
                    *self = Self::Silent;
                }
                reading
            }
            #[cfg(test)]
            Self::Scripted(reading) => Some(reading.get()),
            Self::Unopened | Self::Silent => None,
        }
    }
}

fn schedstat(file: &File) -> Option<Reading> {
    let mut text = [0; 80];
    let len = file.read_at(&mut text, 0).ok()?;
    let (delay, runs) = parse(&text[..len])?;
    Some(Reading {
        delay,
        runs,
        preempted: preempted()?,
    })
}

/// Parses `schedstat`: nanoseconds running, nanoseconds of run delay, times scheduled.
fn parse(text: &[u8]) -> Option<(Duration, u64)> {
    let mut words = str::from_utf8(text).ok()?.split_ascii_whitespace();
    let _on = words.next()?;
    let delay = words.next()?.parse().ok()?;
    let runs = words.next()?.parse().ok()?;
    Some((Duration::from_nanos(delay), runs))
}

fn preempted() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes no more than a `rusage` to a place of that size, which lives until the call is over.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: all zeros is a `rusage`, and the kernel has written another one over it.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_nivcsw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn judge(elapsed: Duration, delay: Duration, runs: u64, preempted: u64) -> Verdict {
        let at = Instant::now();
        let from = Reading {
            delay: 7 * MS,
            runs: 70,
            preempted: 700,
        };
        let then = Reading {
            delay: from.delay + delay,
            runs: from.runs + runs,
            preempted: from.preempted + preempted,
        };
        Window::new(at, from).judge(at + elapsed, then)
    }

    #[test]
    fn a_thread_that_runs_all_the_time_has_its_processor_for_itself() {
        assert_eq!(judge(WINDOW, Duration::ZERO, 0, 0), Verdict::Free);
        assert_eq!(judge(WINDOW / 2, Duration::ZERO, 0, 0), Verdict::Open);
    }

    #[test]
    fn a_thread_that_waits_for_another_ones_slice_does_not() {
        assert_eq!(
            judge(6 * MS, 3 * MS, 1, 1),
            Verdict::Open,
            "it may be the only one"
        );
        assert_eq!(judge(12 * MS, 6 * MS, 2, 2), Verdict::Wanted(6 * MS));
        assert_eq!(judge(30 * MS, 12 * MS, 4, 4), Verdict::Wanted(12 * MS));
        // An exhausted quota.
        assert_eq!(judge(100 * MS, 50 * MS, 1, 1), Verdict::Wanted(50 * MS));
    }

    #[test]
    fn threads_that_wake_there_time_and_again_want_it_for_however_short_a_time() {
        let each = Duration::from_micros(20);
        assert_eq!(judge(25 * MS, 8 * each, 8, 8), Verdict::Wanted(8 * each));
    }

    #[test]
    fn what_the_kernel_does_now_and_then_and_wake_ups_of_an_idle_processor_are_no_sign() {
        assert_eq!(judge(25 * MS, MS / 20, 2, 2), Verdict::Free);
        assert_eq!(judge(25 * MS, 3 * MS, 1, 1), Verdict::Free);
        // Once per sleep of the thread.
        assert_eq!(judge(50 * MS, 20 * MS, 400, 0), Verdict::Free);
        assert_eq!(judge(1000 * MS, 2 * MS, 20, 20), Verdict::Free);
    }

    #[test]
    fn a_line_of_schedstat_is_read_and_no_other() {
        let parsed = Some((Duration::from_nanos(80590), 2));
        assert_eq!(parse(b"553975 80590 2\n"), parsed);
        for wrong in [&b""[..], b"1 2", b"1 x 3", b"\xff 1 2"] {
            assert_eq!(parse(wrong), None);
        }
    }

    #[test]
    fn the_kernels_numbers_are_those_of_this_thread_and_only_grow() {
        let mut scheduler = Scheduler::Unopened;
        let Some(before) = scheduler.read() else {
            assert!(matches!(scheduler, Scheduler::Silent), "it is asked once");
            return;
        };
        std::thread::sleep(MS);
        let after = scheduler.read().expect("it has told before");
        assert!(
            after.runs > before.runs,
            "it has slept: {before:?} {after:?}"
        );
        assert!(after.delay >= before.delay && after.preempted >= before.preempted);
    }
}
