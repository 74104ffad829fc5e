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
