//! Detects stalls of this process: by a debugger, a snapshot, an overloaded machine.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(20);
/// A tick may be this late on a merely busy machine.
const LATE: Duration = Duration::from_millis(100);

/// A clock that stands still while this process does, so that time limits can be tested.
pub(crate) struct Clock {
    began: Instant,
    lost_ns: Arc<AtomicU64>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let lost_ns = Arc::new(AtomicU64::new(0));
        let ours = Arc::downgrade(&lost_ns);
        thread::spawn(move || {
            let mut before = Instant::now();
            loop {
                thread::sleep(TICK);
                let now = Instant::now();
                let Some(lost) = ours.upgrade() else { return };
                if now - before > TICK + LATE {
                    let ns = (now - before - TICK).as_nanos() as u64;
                    lost.fetch_add(ns, Ordering::Relaxed);
                }
                before = now;
            }
        });
        Self {
            began: Instant::now(),
            lost_ns,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.stood_still())
    }

    /// The total time of stalls.
    pub(crate) fn stood_still(&self) -> Duration {
        Duration::from_nanos(self.lost_ns.load(Ordering::Relaxed))
    }
}

/// How long each thread of this process has run, and has waited for a processor that others had.
#[derive(Clone, Debug)]
pub(crate) struct Processors(HashMap<OsString, Thread>);

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    ran: Duration,
    waited: Duration,
}

impl Processors {
    pub(crate) fn now() -> Self {
        let tasks = std::fs::read_dir("/proc/self/task").expect("this process has threads");
        let of = |task: std::io::Result<DirEntry>| {
            let task = task.ok()?;
            // Nothing, of a thread that ends meanwhile.
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let mut numbers = text
                .split(' ')
                .map_while(|number| number.parse::<u64>().ok());
            let [ran, waited] = [numbers.next()?, numbers.next()?].map(Duration::from_nanos);
            Some((task.file_name(), Thread { ran, waited }))
        };
        Self(tasks.filter_map(of).collect())
    }

    /// Of all threads together.
    fn total(&self) -> Thread {
        let add = |sum: Thread, of: &Thread| Thread {
            ran: sum.ran + of.ran,
            waited: sum.waited + of.waited,
        };
        self.0.values().fold(Thread::default(), add)
    }

    /// How many times as long whatever was done since took as it would have on a machine that does nothing else.
    pub(crate) fn slowdown_since(&self) -> f64 {
        let (before, now) = (self.total(), Self::now().total());
        let ran = now.ran.saturating_sub(before.ran).as_secs_f64();
        let waited = now.waited.saturating_sub(before.waited).as_secs_f64();
        1.0 + waited / ran.max(0.001)
    }

    /// How long that thread has waited since which waited longest, all in all.
    pub(crate) fn longest_wait_since(&self) -> Duration {
        let since = |(id, thread): (OsString, Thread)| {
            let before = self.0.get(&id).copied().unwrap_or_default();
            thread.waited.saturating_sub(before.waited)
        };
        let waits = Self::now().0.into_iter().map(since);
        waits.max().unwrap_or_default()
    }
}
