//! The server's memory, from the allocator.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringmux_testing::allocator::{Counting, live_bytes};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tolerance between two samples: the growth of tables, the harness, sessions that are just beginning or ending.
pub(crate) const SLACK_BYTES: u64 = 256 << 10;
/// Time between two samples.
const LOOK: Duration = Duration::from_millis(1);

/// Bytes now allocated.
pub(crate) fn live() -> u64 {
    u64::try_from(live_bytes()).unwrap_or(0)
}

/// The memory cost of an attack.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) before: u64,
    /// The maximum above that.
    pub(crate) peak: u64,
    /// The excess of the last third's maximum over the maximum before.
    pub(crate) growth: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peak, growth, .. } = self;
        write!(
            f,
            "{peak} bytes at the most, {growth} more in the last third"
        )
    }
}

/// Samples until it is stopped.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    looking: JoinHandle<Vec<u64>>,
    before: u64,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let before = live();
        let looking = thread::spawn(move || {
            // Room for a minute, so that the samples themselves do not grow.
            let mut looks = Vec::with_capacity(60_000);
            while !seen.load(Ordering::Relaxed) {
                looks.push(live());
                thread::sleep(LOOK);
            }
            looks
        });
        Self {
            over,
            looking,
            before,
        }
    }

    pub(crate) fn stop(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        let looks = self.looking.join().unwrap();
        let (before, last) = looks.split_at(looks.len() / 3 * 2);
        let most = |looks: &[u64]| looks.iter().copied().max().unwrap_or(0);
        // Leave out the memory of the samples.
        let held = (looks.capacity() * size_of::<u64>()) as u64;
        Seen {
            before: self.before,
            peak: most(&looks).saturating_sub(self.before + held),
            growth: most(last).saturating_sub(most(before)),
        }
    }
}
