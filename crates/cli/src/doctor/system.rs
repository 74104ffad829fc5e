//! The system's policy for io_uring, as far as `/proc` shows it.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// The values read; unreadable ones are empty.
#[derive(Clone, Debug, Default)]
pub(super) struct System {
    /// The kernel's release.
    pub(super) kernel: Option<String>,
    /// `kernel.io_uring_disabled`: Linux 6.6 and later, if it has io_uring at all.
    pub(super) disabled: Option<u32>,
    /// `kernel.io_uring_group`, if one is set.
    pub(super) group: Option<u32>,
    pub(super) seccomp: Option<Seccomp>,
    pub(super) memlock: Memlock,
}

/// How the kernel filters the system calls of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seccomp {
    Off,
    Strict,
    Filter,
}

/// The limit of locked memory of this user's processes, in bytes; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memlock {
    pub(super) soft: Option<u64>,
    pub(super) hard: Option<u64>,
    /// `CAP_IPC_LOCK`: the limit does not apply.
    pub(super) exempt: bool,
}

impl System {
    pub(super) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        let memlock = getrlimit(Resource::Memlock);
        let release = text("/proc/sys/kernel/osrelease");
        Self {
            kernel: Some(release.trim().to_owned()).filter(|release| !release.is_empty()),
            disabled: number(&text("/proc/sys/kernel/io_uring_disabled")),
            // -1: none.
            group: number(&text("/proc/sys/kernel/io_uring_group")),
            seccomp: seccomp(&status),
            memlock: Memlock {
                soft: memlock.current,
                hard: memlock.maximum,
                exempt: may_lock(&status),
            },
        }
    }
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

/// A line of a process's `status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}

fn seccomp(status: &str) -> Option<Seccomp> {
    match field(status, "Seccomp")? {
        "0" => Some(Seccomp::Off),
        "1" => Some(Seccomp::Strict),
        "2" => Some(Seccomp::Filter),
        _ => None,
    }
}

fn may_lock(status: &str) -> bool {
    const IPC_LOCK: u64 = 1 << 14;
    let capabilities = field(status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    capabilities.is_some_and(|capabilities| capabilities & IPC_LOCK != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_the_filter_and_the_capability() {
        let status = "Name:\tx\nCapEff:\t0000000000004000\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(seccomp(status), Some(Seccomp::Filter));
        assert!(may_lock(status));
        assert_eq!(seccomp("Seccomp:\t0\n"), Some(Seccomp::Off));
        assert!(!may_lock("CapEff:\t00000000a80425fb\n"));
        assert_eq!(seccomp(""), None);
        assert!(!may_lock(""));
    }

    #[test]
    fn no_group_is_none() {
        assert_eq!(number("-1\n"), None);
        assert_eq!(number("1000\n"), Some(1000));
        assert_eq!(number(""), None);
    }

    #[test]
    fn this_system_shows_its_kernel() {
        assert!(System::read().kernel.is_some());
    }
}
