//! Engines requested where they cannot run, or with options that have no effect.

use ringmux::{Chain, Config, Driver, Engine, EngineBuilder, EngineError, SessionError, Wait};

use super::{alone, on_a_runtime_of, runtime, soon};

const DRIVERS: [Driver; 3] = [Driver::Tokio, Driver::TokioUring, Driver::Uring];

fn not_applied(refused: Result<impl std::fmt::Debug, EngineError>, option: &str, driver: Driver) {
    let error = refused.unwrap_err();
    let named = matches!(&error, EngineError::DoesNotApply { driver: d, .. } if *d == driver);
    assert!(named, "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(option) && text.contains(&driver.to_string()),
        "{text}"
    );
}

#[test]
fn options_that_do_not_apply_are_refused_by_name() {
    alone(
        "refused::options_that_do_not_apply_are_refused_by_name",
        || {
            let under = |builder: EngineBuilder| builder.block_on(|_| async {});
            for driver in DRIVERS {
                let builder = || Engine::builder(driver);
                on_a_runtime_of(driver, async {
                    not_applied(builder().name("own").inline(), "name", driver);
                    not_applied(builder().cpu(0).inline(), "cpu", driver);
                });
                not_applied(under(builder().name("own")), "name", driver);
                not_applied(under(builder().cpu(0)), "cpu", driver);
                builder()
                    .name("own")
                    .cpu(0)
                    .wait(Wait::Park)
                    .thread()
                    .unwrap();
                under(builder().wait(Wait::Park)).unwrap();
                for wait in [Wait::Spin, Wait::Adaptive] {
                    let waits = || builder().wait(wait);
                    if driver == Driver::Uring {
                        waits().thread().unwrap();
                        continue;
                    }
                    not_applied(waits().thread(), "wait", driver);
                    not_applied(under(waits()), "wait", driver);
                    on_a_runtime_of(driver, async {
                        not_applied(waits().inline(), "wait", driver);
                    });
                }
            }
        },
    );
}

#[test]
fn a_processor_that_cannot_be_used_is_named_with_those_that_can() {
    alone(
        "refused::a_processor_that_cannot_be_used_is_named_with_those_that_can",
        || {
            for driver in DRIVERS {
                for cpu in [1000, 9999] {
                    let error = Engine::builder(driver).cpu(cpu).thread().unwrap_err();
                    let EngineError::Processor {
                        cpu: named,
                        allowed,
                    } = &error
                    else {
                        panic!("{error:?}");
                    };
                    assert_eq!(*named, cpu);
                    assert!(allowed.starts_with(|c: char| c.is_ascii_digit()), "{error}");
                    assert!(error.to_string().contains(allowed), "{error}");
                }
            }
            let refused = Engine::builder(Driver::Tokio).cpu(9999).thread();
            let Err(EngineError::Processor { allowed: there, .. }) = refused else {
                panic!("{refused:?}");
            };
            // The caller's own pinning does not bind the engine's thread.
            let last = there.rsplit(['-', ',']).next().unwrap().parse().unwrap();
            let first = there.split(['-', ',']).next().unwrap().parse().unwrap();
            let mut only = rustix::thread::CpuSet::new();
            only.set(first);
            rustix::thread::sched_setaffinity(None, &only).unwrap();
            Engine::builder(Driver::Tokio).cpu(last).thread().unwrap();
        },
    );
}

#[test]
fn an_inline_engine_says_which_runtime_it_needs() {
    alone(
        "refused::an_inline_engine_says_which_runtime_it_needs",
        || {
            let threads = tokio::runtime::Builder::new_multi_thread().build().unwrap();
            for (driver, needs) in [
                (Driver::Uring, "new_current_thread()"),
                (Driver::TokioUring, "tokio_uring::start"),
            ] {
                let error = threads
                    .block_on(async { Engine::inline(driver) })
                    .unwrap_err();
                assert!(matches!(error, EngineError::ManyThreads { .. }), "{error}");
                assert!(error.to_string().contains(needs), "{error}");
            }
        },
    );
}

#[test]
fn a_runtime_without_time_or_io_is_refused_by_name() {
    alone(
        "refused::a_runtime_without_time_or_io_is_refused_by_name",
        || {
            let builder = tokio::runtime::Builder::new_current_thread;
            let runtimes = [
                ("time", builder().enable_io().build().unwrap()),
                ("I/O", builder().enable_time().build().unwrap()),
                ("time", builder().build().unwrap()),
            ];
            for (missing, runtime) in runtimes {
                for driver in DRIVERS {
                    let error = runtime
                        .block_on(async { Engine::inline(driver) })
                        .unwrap_err();
                    assert!(matches!(error, EngineError::RuntimeLacks { .. }), "{error}");
                    assert!(error.to_string().contains(missing), "{error}");
                }
                // An engine with a runtime of its own works there as well.
                runtime.block_on(async {
                    let config = Config::default();
                    let listener = ringmux::listen("127.0.0.1:0").await.unwrap();
                    let client = Engine::auto().unwrap();
                    client
                        .connect(listener.local_addr(), &config)
                        .await
                        .unwrap();
                    listener.accept().await.unwrap();
                });
            }
        },
    );
}

#[test]
fn a_session_over_a_transport_ends_where_nothing_has_timers() {
    alone(
        "refused::a_session_over_a_transport_ends_where_nothing_has_timers",
        || {
            // Made outside of any runtime, which is allowed.
            let (near, _far) = tokio::io::duplex(64);
            let (client, connection) = ringmux::client(near, &Config::default());
            let without = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let end = without.block_on(connection);
            assert!(matches!(end, SessionError::Io(_)), "{end}");
            let said = Chain(&end).to_string();
            assert!(said.contains("no timers"), "{said}");
            runtime().block_on(async {
                let end = soon(client.closed()).await;
                assert!(matches!(end, SessionError::Io(_)), "{end}");
            });
            let (near, far) = tokio::io::duplex(64);
            let (client, connection) = ringmux::client(near, &Config::default());
            let (server, serving) = ringmux::server(far, &Config::default());
            runtime().block_on(async {
                tokio::spawn(connection);
                tokio::spawn(serving);
                soon(client.established()).await.unwrap();
                soon(server.established()).await.unwrap();
            });
        },
    );
}

#[test]
fn block_on_inside_of_a_runtime_is_refused() {
    alone("refused::block_on_inside_of_a_runtime_is_refused", || {
        for driver in [Driver::Tokio, Driver::TokioUring] {
            let inside = move || {
                let under = Engine::builder(driver).block_on(|_| async {});
                assert!(
                    matches!(under, Err(EngineError::InsideRuntime)),
                    "{under:?}"
                );
            };
            runtime().block_on(async { inside() });
            let threads = tokio::runtime::Builder::new_multi_thread().build().unwrap();
            threads.block_on(async { tokio::spawn(async move { inside() }).await.unwrap() });
            // A runtime that is only entered by handle does not prevent it.
            let runtime = runtime();
            let _entered = runtime.enter();
            Engine::builder(driver).block_on(|_| async {}).unwrap();
        }
    });
}

#[test]
fn a_hint_is_said_once() {
    alone("refused::a_hint_is_said_once", || {
        let denied = EngineError::Refused(ringmux::Refusal::NotInKernel);
        let (text, remedy) = (denied.to_string(), denied.remedy().unwrap());
        assert_eq!(text.matches(remedy).count(), 1, "{text}");
        assert_eq!(text.matches("cannot start").count(), 1, "{text}");
    });
}
