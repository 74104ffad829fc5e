//! Resources of the process: allocated bytes, and file descriptors.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringmux_testing::allocator::{Counting, live_bytes};

use crate::SLACK_BYTES;
use crate::host::{AWAIT_GUARD, Host, Net, run};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The resources of the process at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Footprint {
    pub(crate) bytes: i64,
    pub(crate) descriptors: usize,
    pub(crate) leaked_buffers: u64,
}

impl Footprint {
    pub(crate) fn now() -> Self {
        Self {
            bytes: live_bytes(),
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            leaked_buffers: ringmux::Engine::leaked_buffers(),
        }
    }

    fn is_back_at(self, before: Self) -> bool {
        self.bytes <= before.bytes + SLACK_BYTES && self.descriptors <= before.descriptors
    }
}

/// Waits until no other test runs; none will while this is held.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the first case so that all one-time allocations are made, then the second; afterwards the process must hold the same
/// resources as before it.
///
/// On hosts with an inline engine the runtime is dropped under the remaining sessions, and leaks the buffers that
/// the kernel may still write; they are counted.
pub(crate) fn nothing_left_after<A, B, AFut, BFut>(host: Host, first: A, second: B)
where
    A: FnOnce(Net) -> AFut + Send + 'static,
    B: FnOnce(Net) -> BFut + Send + 'static,
    AFut: Future<Output = ()> + 'static,
    BFut: Future<Output = ()> + 'static,
{
    let _alone = alone();
    run(host, first);
    // Engines on threads end some time after their last session.
    let settling = Instant::now();
    let mut before = Footprint::now();
    while settling.elapsed() < Duration::from_millis(300) {
        std::thread::sleep(Duration::from_millis(20));
        before = Footprint::now();
    }
    run(host, second);
    let deadline = Instant::now() + AWAIT_GUARD;
    loop {
        let now = Footprint::now();
        let leaked = now.leaked_buffers - before.leaked_buffers;
        if now.is_back_at(before) {
            return;
        }
        // The maximum size of a receive buffer and of a batch.
        let excused = leaked as i64 * (256 << 10);
        if leaked > 0
            && now.bytes <= before.bytes + SLACK_BYTES + excused
            && now.descriptors <= before.descriptors
        {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "before: {before:?}, after: {now:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
