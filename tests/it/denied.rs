//! The cases again, in processes that may not use io_uring, or may lock little memory.
//!
//! Excluded are the hosts that require io_uring. [`shared`](crate::shared) states the driver that each
//! process must find; a process that finds another driver fails.
//!
//! Also cases of other system calls being refused.

use std::thread;
use std::time::Duration;

use ringmux::{Addr, Chain, Config, Driver, Engine, EngineError, Listener, Refusal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use crate::host::{Soon, echo, round_trip, tokio_runtime};
use crate::shared::alone;
use ringmux_testing::denial::Denial;

/// Tells a process how it is denied.
pub(crate) const DENIED: &str = "RINGMUX_DENIED";
/// Hosts and tests that need io_uring, this module, and long cases about other things than the
/// driver: slow connections, floods, bursts of connects, the exits of hundreds of processes, and the finest cuts of pipes.
const LEFT_OUT: [&str; 10] = [
    "::uring_",
    "tokio_uring",
    "io_uring",
    "denied::",
    "slow::",
    "flooded::",
    "burst::",
    "exits::",
    "::pipe_of_1",
    "::pipe_of_7",
];
/// Every case for sockets, on the shared engine.
const SHARED_MIN: usize = 90;
/// The same, on the engines of the driver tokio as well, and those for pipes.
const SUITE_MIN: usize = 380;

/// Runs the tests whose names contain a word. Returns the number of passed ones.
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
    // In a process of its own, because another test may use the shared engine first.
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

/// Answers a system call of this thread with an error, where its arguments have these values.
fn refuse(call: libc::c_long, arguments: &[(u8, i32)], errno: i32) {
    let condition = |(index, value): &(u8, i32)| {
        let value = *value as u64;
        SeccompCondition::new(*index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
    };
    let rules = match arguments {
        [] => Vec::new(),
        arguments => vec![SeccompRule::new(arguments.iter().map(condition).collect()).unwrap()],
    };
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.and_then(TryInto::try_into).unwrap();
    apply_filter(&program).unwrap();
}

/// Runs a case on a thread of its own, because filters belong to a thread, over an engine on it.
fn on_a_filtered_thread<F: Future<Output = ()>>(
    filter: impl FnOnce() + Send + 'static,
    case: impl FnOnce(Engine, Listener) -> F + Send + 'static,
) {
    let filtered = thread::spawn(move || {
        filter();
        tokio_runtime().block_on(async {
            let engine = Engine::inline(Driver::Tokio).unwrap();
            let anywhere = "127.0.0.1:0".parse().unwrap();
            let config = Config::default();
            let listener = engine.listen(&anywhere, &config).soon().await.unwrap();
            case(engine, listener).await;
        });
    });
    filtered.join().unwrap();
}

#[test]
fn a_network_stack_that_cannot_bound_what_is_unsent_carries_sessions() {
    let option = [(1, libc::IPPROTO_TCP), (2, libc::TCP_NOTSENT_LOWAT)];
    on_a_filtered_thread(
        move || refuse(libc::SYS_setsockopt, &option, libc::ENOPROTOOPT),
        async |engine, listener| {
            let config = Config::default();
            let connecting = engine.connect(listener.local_addr(), &config).soon();
            let client = connecting.await.unwrap();
            echo(listener.accept().soon().await.unwrap());
            round_trip(&client, "all the same".into()).await;
        },
    );
}

#[test]
fn a_listener_that_may_not_accept_does_not_spin() {
    // Running time of this thread, in nanoseconds.
    let ran = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let words = text.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(words.expect("a number"))
    };
    on_a_filtered_thread(
        || refuse(libc::SYS_accept4, &[], libc::EPERM),
        async move |_, listener| {
            let Addr::Tcp(addr) = listener.local_addr() else {
                panic!("it listens on TCP");
            };
            let _waits = std::net::TcpStream::connect(addr).unwrap();
            let before = ran();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(ran() - before < Duration::from_millis(200));
        },
    );
}

#[test]
fn an_engine_on_a_ring_without_a_descriptor_to_be_woken_by_is_refused() {
    let filtered = thread::spawn(|| {
        tokio_runtime().block_on(async {
            let config = Config::default();
            let anywhere = "127.0.0.1:0".parse().unwrap();
            // Starts the thread that dials for all of them.
            let other = Engine::thread(Driver::Uring).unwrap();
            let listener = other.listen(&anywhere, &config).soon().await.unwrap();
            refuse(libc::SYS_eventfd2, &[], libc::EMFILE);
            // Its thread inherits the filter.
            let error = Engine::thread(Driver::Uring).unwrap_err();
            let EngineError::Refused(refusal) = &error else {
                panic!("{error}");
            };
            assert!(refusal.remedy().contains("open files"), "{error}");
            other
                .connect(listener.local_addr(), &config)
                .soon()
                .await
                .unwrap();
        });
    });
    filtered.join().unwrap();
}

#[test]
fn a_plain_call_that_is_denied_is_named_and_not_one_of_io_urings() {
    // The plain calls that the trial of a ring uses, as sessions do.
    for (call, name) in [
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_socketpair, "socketpair"),
        (libc::SYS_eventfd2, "eventfd2"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_io_uring_register, "io_uring_register"),
    ] {
        // Starts the dialling thread before the filter, so that it has none.
        let dialling = Engine::thread(Driver::Uring).unwrap();
        let filtered = thread::spawn(move || {
            refuse(call, &[], libc::EPERM);
            Engine::thread(Driver::Uring).unwrap_err()
        });
        let error = filtered.join().unwrap();
        let EngineError::Refused(Refusal::Seccomp { call, .. }) = &error else {
            panic!("{name}: {error}");
        };
        assert_eq!(*call, name);
        let text = Chain(&error).to_string();
        assert!(
            text.contains(&format!("answers {name} with EPERM")),
            "{text}"
        );
        let of_the_ring = name.starts_with("io_uring");
        assert_eq!(text.contains("io_uring_enter"), of_the_ring, "{text}");
        drop(dialling);
    }
}
