//! The reasons for which no ring is available, told apart by error number and `/proc`.
//!
//! `EPERM` alone does not name its origin: the sysctl is checked first, then whether the thread has a seccomp filter. An
//! `EPERM` that neither explains is attributed to a security module.

use std::fmt;
use std::fs;
use std::io;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

use crate::error::{DESCRIPTORS_REMEDY, lacks_descriptors};

/// A step of the trial that a ring has to pass before sessions run on it.
///
/// # Examples
/// ```
/// use ringmux::ProbeStep;
///
/// assert!(ProbeStep::ALL.is_sorted(), "in the order in which they are tried");
/// assert_eq!(ProbeStep::Receive.to_string(), "multishot receive");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProbeStep {
    /// `io_uring_setup`, with the flags that the driver needs (Linux 6.1).
    SetUp,
    /// The kernel supports every operation that the driver uses.
    Operations,
    /// The ring is restricted to these operations, enabled, and given receive buffers.
    Enable,
    /// A no-op completes.
    Nop,
    /// One multishot receive yields two messages of a socket, then its end.
    Receive,
}

impl ProbeStep {
    /// All steps, in order.
    pub const ALL: [Self; 5] = [
        Self::SetUp,
        Self::Operations,
        Self::Enable,
        Self::Nop,
        Self::Receive,
    ];

    pub(super) const fn system_call(self) -> &'static str {
        match self {
            Self::SetUp => "io_uring_setup",
            Self::Operations | Self::Enable => "io_uring_register",
            Self::Nop | Self::Receive => "io_uring_enter",
        }
    }
}

impl fmt::Display for ProbeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetUp => "set-up",
            Self::Operations => "operations",
            Self::Enable => "enable",
            Self::Nop => "no-op",
            Self::Receive => "multishot receive",
        })
    }
}

/// Why [`Driver::Uring`](crate::Driver::Uring) does not work here.
///
/// `Display` names the error and the step; [`remedy`](Self::remedy) names the change that helps.
///
/// `EPERM` has several origins. It is attributed to the sysctl if that denies this process, else to a seccomp filter if the
/// thread has one; a process denied by both learns of the filter once the sysctl allows it.
///
/// # Examples
/// ```
/// use ringmux::{ProbeStep, Refusal};
///
/// let refusal = Refusal::Seccomp { step: ProbeStep::SetUp, call: "io_uring_setup", errno: 1 };
/// assert_eq!(refusal.to_string(), "a seccomp filter answers io_uring_setup with EPERM");
/// assert!(refusal.remedy().contains("seccomp profile"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The kernel has no io_uring.
    NotInKernel,
    /// The administrator has switched io_uring off, for all or for this process.
    Sysctl {
        /// 1: allowed for the group and for `CAP_SYS_ADMIN`; 2: denied to all.
        value: u32,
        /// `kernel.io_uring_group`, if one is set.
        group: Option<u32>,
    },
    /// A seccomp filter of this process answers in the kernel's place, such as the default filter of a container
    /// runtime.
    Seccomp {
        /// The step that failed.
        step: ProbeStep,
        /// The system call: one of io_uring's, or a plain one that the driver uses beside them, such as `sendto`.
        call: &'static str,
        /// The filter's error number.
        errno: i32,
    },
    /// Permission is denied, and neither the sysctl nor a filter explains it.
    Denied {
        /// The step that failed.
        step: ProbeStep,
        /// The system call.
        call: &'static str,
        /// `EPERM` or `EACCES`.
        errno: i32,
    },
    /// The kernel has io_uring, but lacks features that the driver needs.
    TooOld {
        /// The step that failed.
        step: ProbeStep,
        /// The kernel's release.
        kernel: String,
    },
    /// The memory of a ring exceeds this user's limit on locked memory.
    LockedMemory {
        /// The step that failed.
        step: ProbeStep,
        /// The soft limit in bytes; `None` is no limit.
        soft: Option<u64>,
        /// The hard limit in bytes, up to which the soft limit may be raised; `None` is no limit.
        hard: Option<u64>,
    },
    /// The kernel has no such operation.
    MissingOperation {
        /// Its name behind `IORING_OP_`.
        name: &'static str,
    },
    /// An operation was accepted but behaved wrongly.
    SelfTest {
        /// The step that failed.
        step: ProbeStep,
        /// The observed behaviour.
        what: &'static str,
    },
    /// Any other error of the system.
    Io {
        /// The step that failed.
        step: ProbeStep,
        /// The system's error.
        error: Arc<io::Error>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInKernel => write!(
                f,
                "this kernel or sandbox has no io_uring: io_uring_setup is answered with ENOSYS"
            ),
            Self::Sysctl { value, group } => write!(
                f,
                "io_uring is denied by sysctl kernel.io_uring_disabled = {value}{}",
                for_whom(*value, *group)
            ),
            Self::Seccomp { call, errno, .. } => write!(
                f,
                "a seccomp filter answers {call} with {}",
                errno_name(*errno)
            ),
            Self::Denied { call, errno, .. } => write!(
                f,
                "{call} is answered with {}, though neither a sysctl nor a seccomp filter denies it",
                errno_name(*errno)
            ),
            Self::TooOld { step, kernel } => write!(
                f,
                "the io_uring of Linux {kernel} is too old: {step} failed"
            ),
            Self::LockedMemory { soft, hard, .. } => write!(
                f,
                "the limit on locked memory (RLIMIT_MEMLOCK) has no room for a ring: soft {}, hard {}",
                Limit(*soft),
                Limit(*hard)
            ),
            Self::MissingOperation { name } => {
                write!(f, "this kernel's io_uring has no operation {name}")
            }
            Self::SelfTest { step, what } => {
                write!(f, "the self-test of io_uring failed in {step}: {what}")
            }
            Self::Io { step, .. } => write!(f, "io_uring failed in {step}"),
        }
    }
}

/// Not derived: `source` returns the error itself, not the `Arc` that shares it.
impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(&**error),
            _ => None,
        }
    }
}

impl Refusal {
    /// The step that failed: earlier steps have passed, later ones were not tried.
    #[must_use]
    pub const fn step(&self) -> ProbeStep {
        match self {
            Self::NotInKernel | Self::Sysctl { .. } => ProbeStep::SetUp,
            Self::MissingOperation { .. } => ProbeStep::Operations,
            Self::Seccomp { step, .. }
            | Self::Denied { step, .. }
            | Self::TooOld { step, .. }
            | Self::LockedMemory { step, .. }
            | Self::SelfTest { step, .. }
            | Self::Io { step, .. } => *step,
        }
    }

    /// The change to the process or the machine that helps.
    ///
    /// # Examples
    /// ```
    /// let without = ringmux::Refusal::NotInKernel;
    /// assert!(without.remedy().contains("CONFIG_IO_URING"));
    /// ```
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotInKernel => {
                "run on Linux 6.1 or later, built with CONFIG_IO_URING, outside of sandboxes and \
                 seccomp profiles that hide io_uring"
            }
            Self::Sysctl {
                value: 1,
                group: Some(_),
            } => {
                "add the program's user to the group that sysctl kernel.io_uring_group names, or \
                 set kernel.io_uring_disabled to 0 in /etc/sysctl.d"
            }
            Self::Sysctl { value: 1, .. } => {
                "name a group of the program's user in sysctl kernel.io_uring_group, or set \
                 kernel.io_uring_disabled to 0, in /etc/sysctl.d"
            }
            Self::Sysctl { .. } => {
                "set sysctl kernel.io_uring_disabled to 0, or to 1 with kernel.io_uring_group, in \
                 /etc/sysctl.d"
            }
            Self::Seccomp { call, .. } if !is_of_the_ring(call) => {
                "allow this system call in the seccomp profile: sessions need it on every driver"
            }
            Self::Seccomp { .. } => {
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
                 (Docker: --security-opt seccomp=PROFILE, see deploy/README.md; systemd: \
                 SystemCallFilter=@aio)"
            }
            Self::Denied { .. } => {
                "look for a security module, such as SELinux or AppArmor, that denies io_uring: \
                 the kernel's audit log names it"
            }
            Self::TooOld { .. } | Self::MissingOperation { .. } => "run on Linux 6.1 or later",
            Self::LockedMemory { .. } => {
                "raise the limit to 8 MiB (ulimit -l 8192; systemd: LimitMEMLOCK=8M; Docker: \
                 --ulimit memlock=8388608), or start fewer engines under this user"
            }
            Self::Io { error, .. } if lacks_descriptors(error) => DESCRIPTORS_REMEDY,
            Self::SelfTest { .. } | Self::Io { .. } => {
                "use the driver tokio, and report this with the kernel's release"
            }
        }
    }
}

fn is_of_the_ring(call: &str) -> bool {
    call.starts_with("io_uring_")
}

fn for_whom(value: u32, group: Option<u32>) -> String {
    match (value, group) {
        (1, Some(group)) => format!(", and this process is not in the group {group}"),
        (1, None) => ", and no kernel.io_uring_group is set".to_owned(),
        _ => String::new(),
    }
}

fn errno_name(errno: i32) -> String {
    match errno {
        libc::EPERM => "EPERM".to_owned(),
        libc::EACCES => "EACCES".to_owned(),
        libc::ENOSYS => "ENOSYS".to_owned(),
        other => format!("errno {other}"),
    }
}

struct Limit(Option<u64>);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{} KiB", bytes / 1024),
            None => f.write_str("unlimited"),
        }
    }
}

/// The system's policy for this thread, as far as `/proc` shows it. Unreadable values stay empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    kernel: String,
    /// Linux 6.6 and later, if it has io_uring at all.
    disabled: Option<u32>,
    group: Option<u32>,
    filtered: bool,
    sys_admin: bool,
    groups: Vec<u32>,
    memlock: (Option<u64>, Option<u64>),
}

impl Policy {
    pub(super) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let memlock = getrlimit(Resource::Memlock);
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            disabled: text("/proc/sys/kernel/io_uring_disabled")
                .trim()
                .parse()
                .ok(),
            // -1: none.
            group: text("/proc/sys/kernel/io_uring_group").trim().parse().ok(),
            memlock: (memlock.current, memlock.maximum),
            ..Self::of_thread(&text("/proc/thread-self/status"))
        }
    }

    /// Parses the lines of a thread's `status`.
    fn of_thread(status: &str) -> Self {
        const SYS_ADMIN: u64 = 1 << 21;
        let field = |name: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim()
        };
        let capabilities = u64::from_str_radix(field("CapEff"), 16).unwrap_or(0);
        // Real, effective, saved, filesystem: the kernel checks the last.
        let own_group = field("Gid").split_whitespace().last();
        let groups = field("Groups").split_whitespace().chain(own_group);
        Self {
            filtered: field("Seccomp") == "2",
            sys_admin: capabilities & SYS_ADMIN != 0,
            groups: groups.filter_map(|group| group.parse().ok()).collect(),
            ..Self::default()
        }
    }

    /// The sysctl, if it denies this process a ring.
    fn denying_sysctl(&self) -> Option<u32> {
        let value = self.disabled?;
        let in_group = self.group.is_some_and(|group| self.groups.contains(&group));
        // A capability counts only outside of user namespaces, which cannot be told from inside: where a filter
        // could be the reason as well, the filter is named.
        let allowed = in_group || (self.sys_admin && self.filtered);
        (value >= 2 || (value == 1 && !allowed)).then_some(value)
    }

    /// Finds the cause of an error at a step.
    pub(super) fn explain(&self, step: ProbeStep, call: &'static str, error: io::Error) -> Refusal {
        let errno = error.raw_os_error().unwrap_or(0);
        match (errno, self.denying_sysctl()) {
            (libc::EPERM, Some(value)) if call == "io_uring_setup" => Refusal::Sysctl {
                value,
                group: self.group,
            },
            // The sysctl exists only where io_uring does.
            (libc::ENOSYS, _) if self.filtered && self.disabled.is_some() => {
                Refusal::Seccomp { step, call, errno }
            }
            (libc::ENOSYS, _) if step == ProbeStep::SetUp && is_of_the_ring(call) => {
                Refusal::NotInKernel
            }
            (libc::EPERM | libc::EACCES, _) if self.filtered => {
                Refusal::Seccomp { step, call, errno }
            }
            (libc::EPERM | libc::EACCES, _) => Refusal::Denied { step, call, errno },
            (libc::ENOMEM, _) => Refusal::LockedMemory {
                step,
                soft: self.memlock.0,
                hard: self.memlock.1,
            },
            (libc::EINVAL, _) => self.too_old(step),
            _ if error.kind() == io::ErrorKind::Unsupported => self.too_old(step),
            _ => Refusal::Io {
                step,
                error: Arc::new(error),
            },
        }
    }

    fn too_old(&self, step: ProbeStep) -> Refusal {
        Refusal::TooOld {
            step,
            kernel: self.kernel.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nGid:\t10\t10\t10\t11\nGroups:\t4 24\nCapEff:\t0000000000000000\n\
                          NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    fn open() -> Policy {
        Policy {
            kernel: "6.12.1".to_owned(),
            disabled: Some(0),
            memlock: (Some(65536), None),
            ..Policy::default()
        }
    }

    fn explained(policy: &Policy, errno: i32) -> Refusal {
        policy.explain(
            ProbeStep::SetUp,
            "io_uring_setup",
            io::Error::from_raw_os_error(errno),
        )
    }

    #[test]
    fn a_threads_status_is_read() {
        let policy = Policy::of_thread(STATUS);
        assert!(policy.filtered && !policy.sys_admin);
        assert_eq!(policy.groups, [4, 24, 11]);
        let root = STATUS.replace("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff");
        assert!(Policy::of_thread(&root).sys_admin);
        let bare = Policy::of_thread("");
        assert!(!bare.filtered && !bare.sys_admin && bare.groups.is_empty());
    }

    #[test]
    fn each_number_has_its_reason() {
        let text = |errno| crate::error::Chain(&explained(&open(), errno)).to_string();
        assert!(text(libc::ENOSYS).contains("no io_uring"));
        assert!(text(libc::EPERM).contains("neither a sysctl nor a seccomp filter"));
        assert!(text(libc::EINVAL).contains("Linux 6.12.1 is too old"));
        assert!(text(libc::ENOMEM).contains("soft 64 KiB, hard unlimited"));
        assert!(text(libc::EMFILE).contains("Too many open files"));
        let unsupported = open().explain(
            ProbeStep::SetUp,
            "io_uring_setup",
            io::ErrorKind::Unsupported.into(),
        );
        assert!(matches!(unsupported, Refusal::TooOld { .. }));
    }

    #[test]
    fn a_filter_is_the_reason_where_the_sysctl_allows() {
        let filtered = Policy {
            filtered: true,
            ..open()
        };
        for (errno, name) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
            let text = explained(&filtered, errno).to_string();
            assert_eq!(
                text,
                format!("a seccomp filter answers io_uring_setup with {name}")
            );
        }
        let enter = io::Error::from_raw_os_error(libc::EPERM);
        let refusal = filtered.explain(ProbeStep::Nop, ProbeStep::Nop.system_call(), enter);
        assert!(refusal.to_string().contains("io_uring_enter"), "{refusal}");
        assert_eq!(refusal.step(), ProbeStep::Nop);
        // A kernel without the sysctl is older than 6.6, or has no io_uring.
        let old = Policy {
            disabled: None,
            ..filtered
        };
        assert!(matches!(
            explained(&old, libc::ENOSYS),
            Refusal::NotInKernel
        ));
    }

    #[test]
    fn the_sysctl_is_the_reason_if_it_denies_this_process() {
        let refused = |policy: &Policy| explained(policy, libc::EPERM);
        let with = |disabled, group, groups: &[u32]| Policy {
            disabled: Some(disabled),
            group,
            groups: groups.to_vec(),
            ..open()
        };
        let off = refused(&with(2, None, &[]));
        assert!(
            off.to_string().ends_with("kernel.io_uring_disabled = 2"),
            "{off}"
        );
        let outside = refused(&with(1, Some(7), &[8]));
        assert!(
            outside.to_string().ends_with("not in the group 7"),
            "{outside}"
        );
        assert!(outside.remedy().contains("add the program's user"));
        let no_group = refused(&with(1, None, &[8]));
        assert!(
            no_group
                .to_string()
                .ends_with("no kernel.io_uring_group is set")
        );
        assert!(matches!(
            refused(&with(1, Some(7), &[7])),
            Refusal::Denied { .. }
        ));
    }

    #[test]
    fn an_administrator_is_denied_by_a_filter_and_not_by_the_group() {
        let admin = Policy {
            disabled: Some(1),
            sys_admin: true,
            filtered: true,
            ..open()
        };
        assert!(matches!(
            explained(&admin, libc::EPERM),
            Refusal::Seccomp { .. }
        ));
        // A capability of a user namespace.
        let unfiltered = Policy {
            filtered: false,
            ..admin
        };
        assert!(matches!(
            explained(&unfiltered, libc::EPERM),
            Refusal::Sysctl { value: 1, .. }
        ));
    }
}
