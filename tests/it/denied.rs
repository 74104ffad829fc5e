//! The cases again, in processes that may not use io_uring, or may lock little memory.
//!
//! Left out are the hosts that ask for io_uring by name. [`shared`](crate::shared) says what each
//! process is to find; a process that finds another driver fails.
//!
//! And a network stack without one of the options that sockets are given.

use std::thread;

use ringmux::{Config, Driver, Engine};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use crate::denial::Denial;
use crate::host::{Soon, echo, round_trip, tokio_runtime};
use crate::shared::alone;

/// Tells a process what was done to it.
pub(crate) const DENIED: &str = "RINGMUX_DENIED";
/// Hosts and tests that cannot do without io_uring, and this module.
const LEFT_OUT: [&str; 4] = ["::uring_", "tokio_uring", "io_uring", "denied::"];
/// Every case for sockets, on the shared engine.
const SHARED_MIN: usize = 90;
/// The same, on the engines of the driver tokio as well, and those for pipes.
const SUITE_MIN: usize = 380;

/// Runs the tests whose names contain a word. How many have passed.
fn passed(denial: Denial, word: &str) -> usize {
    let this = std::env::current_exe().unwrap();
    let mut arguments = vec![word];
    for name in LEFT_OUT {
        arguments.extend(["--skip", name]);
    }
    let name = format!("{denial:?}");
    let output = denial.output(this.to_str().unwrap(), &arguments, &[(DENIED, &name)]);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{denial:?}:\n{text}\n{errors}");
    let mut words = text.split("test result: ok. ").skip(1);
    let count = words.next().and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).expect(&text)
}

#[test]
fn everything_but_io_uring_works_where_a_filter_answers_eperm() {
    let passed = passed(Denial::Eperm, "");
    assert!(passed >= SUITE_MIN, "{passed}");
}

#[test]
fn a_fallback_is_logged_once() {
    // In a process of its own, as whatever else asks for the shared engine may come first.
    assert_eq!(passed(Denial::Eperm, alone::NAME), 1);
}

#[test]
fn the_shared_engine_carries_every_case_where_a_filter_answers_enosys() {
    let passed = passed(Denial::Enosys, "shared");
    assert!(passed >= SHARED_MIN, "{passed}");
}

#[test]
fn the_shared_engine_carries_every_case_with_64_kib_of_lockable_memory() {
    let passed = passed(Denial::LowMemlock, "shared");
    assert!(passed >= SHARED_MIN, "{passed}");
}

/// Answers `TCP_NOTSENT_LOWAT` on this thread as a network stack that does not know it.
fn refuse_notsent_lowat() {
    let argument = |index, value: i32| {
        let value = value as u64;
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
    };
    let option = vec![
        argument(1, libc::IPPROTO_TCP),
        argument(2, libc::TCP_NOTSENT_LOWAT),
    ];
    let filter = SeccompFilter::new(
        [(
            libc::SYS_setsockopt,
            vec![SeccompRule::new(option).unwrap()],
        )]
        .into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOPROTOOPT as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.and_then(TryInto::try_into).unwrap();
    apply_filter(&program).unwrap();
}

#[test]
fn a_network_stack_that_cannot_bound_what_is_unsent_carries_sessions() {
    // Filters are those of a thread.
    let filtered = thread::spawn(|| {
        refuse_notsent_lowat();
        tokio_runtime().block_on(async {
            let engine = Engine::inline(Driver::Tokio).unwrap();
            let anywhere = "127.0.0.1:0".parse().unwrap();
            let config = Config::default();
            let listener = engine.listen(&anywhere, &config).soon().await.unwrap();
            let connecting = engine.connect(listener.local_addr(), &config).soon();
            let client = connecting.await.unwrap();
            echo(listener.accept().soon().await.unwrap());
            round_trip(&client, "all the same".into()).await;
        });
    });
    filtered.join().unwrap();
}
