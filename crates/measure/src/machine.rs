//! The measured machine: its description, the processors to use, and time stolen by the hypervisor.

use std::fs;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

/// The processors of client and server; none of them if there are not two.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    pair: Option<(usize, usize)>,
}

impl Cpus {
    /// The first two processors that this process may run on.
    pub fn choose() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        Self {
            pair: cpus.next().zip(cpus.next()),
        }
    }

    /// Both threads run where the system puts them.
    pub const fn unpinned() -> Self {
        Self { pair: None }
    }

    /// Client and server on the client's processor.
    #[must_use]
    pub fn both_on_first(self) -> Self {
        let pair = self.pair.map(|(first, _)| (first, first));
        Self { pair }
    }

    /// Client and server on the server's processor.
    #[must_use]
    pub fn both_on_second(self) -> Self {
        let pair = self.pair.map(|(_, second)| (second, second));
        Self { pair }
    }

    /// The client's processor.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        self.pair.map(|(first, _)| first)
    }

    /// Whether client and server have a processor each.
    pub const fn are_two(&self) -> bool {
        self.pair.is_some()
    }

    /// Moves this thread, and those it will start, to the client's processor.
    pub fn pin_client(&self) -> Result<(), Failure> {
        self.pair.map_or(Ok(()), |(client, _)| pin(client))
    }

    /// Moves this thread, and those it will start, to the server's processor.
    pub fn pin_server(&self) -> Result<(), Failure> {
        self.pair.map_or(Ok(()), |(_, server)| pin(server))
    }
}

fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(|error| Failure::new(format!("cannot pin a thread to cpu {cpu}")).because(&error))
}

/// One line about machine and version, for the head of a report.
pub fn describe(cpus: &Cpus) -> String {
    let model = cpu_model(&read("/proc/cpuinfo")).unwrap_or_else(|| "unknown cpu".to_owned());
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let pins = match cpus.pair {
        Some((client, server)) => format!("client on cpu {client}, server on cpu {server}"),
        None => "not pinned".to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "ringmux {version}: {model}, {cores} cores, Linux {}, {pins}, TCP loopback",
        kernel.trim()
    )
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Time that the hypervisor gave to other guests, since the last reading.
#[derive(Debug)]
pub struct Steal {
    last: Option<CpuTicks>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuTicks {
    stolen: u64,
    total: u64,
}

impl Steal {
    /// Reads the counters of the hypervisor now.
    pub fn start() -> Self {
        Self {
            last: cpu_ticks(&read("/proc/stat")),
        }
    }

    /// Percent of all processor time since the start; none where the kernel does not report it.
    pub fn percent(&self) -> Option<f64> {
        percent_stolen(self.last?, cpu_ticks(&read("/proc/stat"))?)
    }
}

fn percent_stolen(from: CpuTicks, to: CpuTicks) -> Option<f64> {
    let total = to
        .total
        .checked_sub(from.total)
        .filter(|total| *total > 0)?;
    Some(to.stolen.saturating_sub(from.stolen) as f64 * 100.0 / total as f64)
}

/// The first line of `/proc/stat`: user nice system idle iowait irq softirq steal guest guest_nice.
fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // Guest time is counted within user time already.
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|n| n.parse().ok())
        .collect();
    Some(CpuTicks {
        stolen: *ticks.get(7)?,
        total: ticks.iter().sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_all_time_between_two_readings() {
        let from = cpu_ticks("cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 2 3").unwrap();
        assert_eq!(
            from,
            CpuTicks {
                stolen: 10,
                total: 100
            }
        );
        let to = cpu_ticks("cpu  100 0 60 120 0 0 0 20 95 0\n").unwrap();
        assert_eq!(percent_stolen(from, to), Some(5.0));
        assert_eq!(percent_stolen(to, to), None);
        assert_eq!(cpu_ticks("cpu  1 2 3"), None);
    }

    #[test]
    fn the_model_is_the_first_processors_name() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU: fast\nmodel name\t: Other\n";
        assert_eq!(cpu_model(cpuinfo).as_deref(), Some("Some CPU: fast"));
        assert_eq!(cpu_model(""), None);
    }

    #[test]
    fn a_pinned_thread_runs_on_one_processor() {
        let cpus = Cpus::choose();
        let Some((client, _)) = cpus.pair else { return };
        thread::spawn(move || {
            cpus.pin_client().unwrap();
            let set = sched_getaffinity(None).unwrap();
            assert_eq!((set.count(), set.is_set(client)), (1, true));
        })
        .join()
        .unwrap();
    }
}
