//! Detects stalls of this process: by a debugger, a snapshot, an overloaded machine.

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

/// How long the threads of this process have run, and how long they have waited for a processor that others had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    ran: Duration,
    waited: Duration,
}

impl Processors {
    pub(crate) fn now() -> Self {
        let tasks = std::fs::read_dir("/proc/self/task").expect("this process has threads");
        let of = |task: std::io::Result<std::fs::DirEntry>| {
            // Nothing, of a thread that ends meanwhile.
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            let mut numbers = text
                .split(' ')
                .map_while(|number| number.parse::<u64>().ok());
            Some([numbers.next()?, numbers.next()?])
        };
        let [ran, waited] = (tasks.filter_map(of)).fold([0, 0], |sum: [u64; 2], thread| {
            [sum[0] + thread[0], sum[1] + thread[1]]
        });
        Self {
            ran: Duration::from_nanos(ran),
            waited: Duration::from_nanos(waited),
        }
    }

    /// How many times as long whatever was done since took as it would have on a machine that does nothing else.
    pub(crate) fn slowdown_since(self) -> f64 {
        let now = Self::now();
        let ran = now.ran.saturating_sub(self.ran).as_secs_f64();
        let waited = now.waited.saturating_sub(self.waited).as_secs_f64();
        1.0 + waited / ran.max(0.001)
    }
}
