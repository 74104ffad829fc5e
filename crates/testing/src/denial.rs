//! Denies io_uring to a process that a test starts: by a seccomp filter, or a limit on locked
//! memory. Filters and capabilities belong to a thread and are inherited by its children, so that the
//! test's own process keeps its rights.

use std::process::{Command, Output};
use std::thread;

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Bytes that a process may lock under [`Denial::LowMemlock`].
pub const LOW_MEMLOCK_BYTES: u64 = 64 * 1024;

/// The kind of denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// A filter answers `io_uring_setup` with `EPERM`, as Docker's does.
    Eperm,
    /// A filter answers it with `ENOSYS`, as Podman's may.
    Enosys,
    /// 64 KiB may be locked, and `CAP_IPC_LOCK` is gone. Linux counts the memory of rings since
    /// 6.14, and before 5.12; in between rings still work.
    LowMemlock,
}

impl Denial {
    /// Runs a program under the denial to its end, and captures its output.
    pub fn output(self, program: &str, arguments: &[&str], env: &[(&str, &str)]) -> Output {
        thread::scope(|scope| {
            let run = || {
                self.begin();
                self.command(program)
                    .args(arguments)
                    .envs(env.iter().copied())
                    .env_remove("RUST_LOG")
                    .output()
                    .expect("the program starts")
            };
            scope.spawn(run).join().expect("the thread ends well")
        })
    }

    fn command(self, program: &str) -> Command {
        if self != Self::LowMemlock {
            return Command::new(program);
        }
        let mut command = Command::new("sh");
        let limited = format!(
            "ulimit -l {} && exec \"$0\" \"$@\"",
            LOW_MEMLOCK_BYTES / 1024
        );
        command.args(["-c", &limited, program]);
        command
    }

    /// Applies the denial to the calling thread.
    fn begin(self) {
        match self {
            Self::Eperm => refuse(libc::EPERM),
            Self::Enosys => refuse(libc::ENOSYS),
            Self::LowMemlock => {
                // Fails without privileges, and then there is no capability to inherit.
                let _ = remove_capability_from_bounding_set(CapabilitySet::IPC_LOCK);
            }
        }
    }
}

fn refuse(errno: i32) {
    let filter = SeccompFilter::new(
        [(libc::SYS_io_uring_setup, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH
            .try_into()
            .expect("a known processor"),
    );
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .expect("a filter with one rule");
    apply_filter(&program).expect("a filter needs no privilege");
}
