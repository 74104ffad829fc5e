//! Systems without threads or descriptors left: each call returns an error that names the lack.

use std::fs::File;
use std::io;

use ringmux::{Config, ConnectError, Driver, Engine, EngineError, ListenError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{alone, any_port, echo, on_a_runtime_of, pair, round_trip, runtime, soon};

const DRIVERS: [Driver; 3] = [Driver::Tokio, Driver::TokioUring, Driver::Uring];

/// Forbids this process further threads. A capability would lift the limit, so it changes to another user first.
fn no_more_threads() {
    const NOBODY: u32 = 65_534;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Nproc, none).unwrap();
    // SAFETY: plain system calls of this process, which has one thread.
    let is_root = unsafe { libc::geteuid() } == 0;
    if is_root {
        // SAFETY: as above. By the bare call: the C library's would signal the other threads, which do not matter here.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(changed, 0, "{}", io::Error::last_os_error());
    }
    assert!(
        std::thread::Builder::new().spawn(|| {}).is_err(),
        "threads can still be made"
    );
}

fn is_about_threads(error: &EngineError) {
    let EngineError::Unavailable { error: said, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(said.kind(), io::ErrorKind::WouldBlock, "{error}");
    assert!(error.to_string().contains("ulimit -u"), "{error}");
}

#[test]
fn where_no_thread_can_be_made_an_engine_is_refused_inside_of_a_runtime_too() {
    alone(
        "limits::where_no_thread_can_be_made_an_engine_is_refused_inside_of_a_runtime_too",
        || {
            no_more_threads();
            let ask = || {
                for driver in DRIVERS {
                    is_about_threads(&Engine::thread(driver).unwrap_err());
                }
                is_about_threads(&Engine::auto().unwrap_err());
            };
            ask();
            runtime().block_on(async {
                ask();
                let dialled = ringmux::connect("127.0.0.1:1").await.unwrap_err();
                let ConnectError::Engine(error) = &dialled else {
                    panic!("{dialled}");
                };
                is_about_threads(error);
                assert!(ringmux::listen("127.0.0.1:0").await.is_err());
                let under = Engine::builder(Driver::Uring).block_on(|_| async {});
                is_about_threads(&under.unwrap_err());
            });
            // Operations without a thread work.
            for driver in [Driver::Tokio, Driver::TokioUring, Driver::Uring] {
                on_a_runtime_of(driver, async {
                    let engine = Engine::inline(driver).unwrap();
                    let (client, server, _listener) = pair(&engine).await;
                    tokio::spawn(echo(server));
                    round_trip(&client).await;
                    // A name lookup needs a thread.
                    let named = "localhost:1".parse().unwrap();
                    let dialled = soon(engine.connect(&named, &Config::default())).await;
                    assert!(
                        matches!(dialled, Err(ConnectError::Io { .. })),
                        "{dialled:?}"
                    );
                    let bound = soon(engine.listen(&named, &Config::default())).await;
                    assert!(matches!(bound, Err(ListenError::Io { .. })), "{bound:?}");
                });
            }
        },
    );
}

/// Takes all remaining descriptors except `left`.
fn take_descriptors(left: usize) -> Vec<File> {
    let limit = Rlimit {
        current: Some(200),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(taken.len() >= left);
    taken.truncate(taken.len() - left);
    taken
}

fn says_what_to_raise(text: &str, remedy: Option<&str>) {
    assert!(text.contains("open files"), "{text}");
    assert!(
        remedy.is_some_and(|remedy| remedy.contains("ulimit -n") && text.contains(remedy)),
        "{text}"
    );
}

#[test]
fn an_engine_that_finds_no_descriptor_says_so_whichever_it_lacks() {
    alone(
        "limits::an_engine_that_finds_no_descriptor_says_so_whichever_it_lacks",
        || {
            for driver in DRIVERS {
                let runtime = runtime();
                let mut made = false;
                for left in 0..40 {
                    let taken = take_descriptors(left);
                    let threaded = Engine::thread(driver);
                    let inline = match driver {
                        Driver::TokioUring => None,
                        _ => Some(runtime.block_on(async { Engine::inline(driver) })),
                    };
                    let under = Engine::builder(driver).block_on(|_| async {});
                    drop(taken);
                    made = threaded.is_ok() && under.is_ok();
                    let inline = inline.and_then(Result::err);
                    for error in [threaded.err(), inline, under.err()].into_iter().flatten() {
                        says_what_to_raise(&error.to_string(), error.remedy());
                    }
                    if made {
                        break;
                    }
                }
                assert!(made, "{driver}: none was ever made");
            }
        },
    );
}

fn sessions_that_find_no_descriptor(driver: Driver) {
    let engine = Engine::thread(driver).unwrap();
    runtime().block_on(async {
        let config = Config::default();
        let (client, server, listener) = pair(&engine).await;
        tokio::spawn(echo(server));
        let addr = listener.local_addr().clone();
        let taken = take_descriptors(0);
        let dialled = soon(engine.connect(&addr, &config)).await.unwrap_err();
        let ConnectError::Io { error, .. } = &dialled else {
            panic!("{dialled}");
        };
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{dialled}");
        says_what_to_raise(&dialled.to_string(), dialled.remedy());
        let listening = soon(engine.listen(&any_port(), &config)).await.unwrap_err();
        assert!(matches!(listening, ListenError::Io { .. }), "{listening}");
        says_what_to_raise(&listening.to_string(), listening.remedy());
        // A peer whose connection cannot be accepted yet waits, and sessions continue.
        let mut taken = taken;
        taken.pop();
        let waiting = tokio::spawn({
            let (engine, addr, config) = (engine.clone(), addr.clone(), config.clone());
            async move { engine.connect(&addr, &config).await }
        });
        round_trip(&client).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        round_trip(&client).await;
        drop(taken);
        soon(waiting).await.unwrap().unwrap();
        soon(listener.accept()).await.unwrap();
    });
}

/// Runs each driver in a process of its own: an engine that ends elsewhere would give descriptors back.
macro_rules! with_each_driver {
    ($run:ident: $($name:ident $driver:ident,)+) => {
        $(#[test]
        fn $name() {
            alone(concat!("limits::", stringify!($name)), || $run(Driver::$driver));
        })+
    };
}

// Connecting, listening and accepting without descriptors are errors, and sessions go on.
with_each_driver! {
    sessions_that_find_no_descriptor:
    without_descriptors_new_sessions_fail_and_old_ones_go_on_over_tokio Tokio,
    without_descriptors_new_sessions_fail_and_old_ones_go_on_over_tokio_uring TokioUring,
    without_descriptors_new_sessions_fail_and_old_ones_go_on_over_uring Uring,
}
