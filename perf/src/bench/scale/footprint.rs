//! Resources of this process: memory, descriptors, processor time.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::allocations;
use ringmux_measure::failure::Failure;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Footprint {
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// Allocated bytes; none if not counted.
    pub(super) allocated_bytes: Option<u64>,
    pub(super) descriptors: u64,
}

impl Footprint {
    pub(super) fn now() -> Result<Self, Failure> {
        let unreadable = |error| Failure::new("cannot look at /proc/self").because(&error);
        let status = fs::read_to_string("/proc/self/status").map_err(unreadable)?;
        let descriptors = fs::read_dir("/proc/self/fd").map_err(unreadable)?;
        Ok(Self {
            rss_bytes: rss_bytes(&status)
                .ok_or_else(|| Failure::new("no VmRSS in /proc/self/status"))?,
            allocated_bytes: allocations::live_bytes(),
            descriptors: descriptors.count() as u64,
        })
    }
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Processor time of all threads, so far.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rss_is_in_kib() {
        let status = "Name:\tx\nVmHWM:\t   9 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(rss_bytes(status), Some(2 << 20));
        assert_eq!(rss_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_holds_something() {
        let now = Footprint::now().unwrap();
        assert!(now.rss_bytes > 1 << 16 && now.descriptors >= 3, "{now:?}");
    }
}
