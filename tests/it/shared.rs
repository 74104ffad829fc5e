//! The process's own engine: io_uring where this process may use it, else the reason for the fallback.

use std::env;

use ringmux::{Backend, Driver, Engine, EngineError, ProbeStep, Refusal};

use crate::denied::DENIED;
use crate::host::{Soon, echo, round_trip, run_with, tokio_runtime};

/// The expected refusal.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Uring,
    /// A filter answers with this error number.
    Seccomp(i32),
    /// The limit may or may not have room for a ring: it includes memory that other processes of the user
    /// have locked.
    RoomOrNot,
}

impl Expected {
    fn here() -> Self {
        match env::var(DENIED).as_deref() {
            Err(_) => Self::Uring,
            Ok("Eperm") => Self::Seccomp(libc::EPERM),
            Ok("Enosys") => Self::Seccomp(libc::ENOSYS),
            Ok("LowMemlock") => Self::RoomOrNot,
            Ok(other) => panic!("{DENIED}={other}"),
        }
    }

    fn includes(self, refused: Option<&EngineError>) -> bool {
        match (self, refused) {
            (Self::Uring | Self::RoomOrNot, None) => true,
            (Self::Seccomp(expected), Some(EngineError::Refused(refusal))) => matches!(
                refusal,
                Refusal::Seccomp { step: ProbeStep::SetUp, errno, .. } if *errno == expected
            ),
            (Self::RoomOrNot, Some(EngineError::Refused(refusal))) => {
                matches!(refusal, Refusal::LockedMemory { soft: Some(_), .. })
            }
            _ => false,
        }
    }
}

/// The shared engine has the expected driver, and the reason if that is not io_uring.
fn assert_expected(engine: &Engine) {
    let (expected, backend) = (Expected::here(), engine.backend());
    let refused = backend.refused();
    assert!(expected.includes(refused), "{expected:?}, but {backend}");
    let driver = match refused {
        None => Driver::Uring,
        Some(_) => Driver::Tokio,
    };
    assert_eq!(backend.driver(), driver);
    assert_eq!(engine.driver(), driver);
    assert_eq!(backend.features().is_some(), refused.is_none());
}

#[test]
fn connect_and_listen_use_the_shared_engine() {
    run_with(|| {
        let engine = Engine::auto().unwrap();
        assert_expected(&engine);
        tokio_runtime().block_on(async {
            let listener = ringmux::listen("tcp://127.0.0.1:0").soon().await.unwrap();
            let addr = listener.local_addr().to_string();
            let client = ringmux::connect(addr).soon().await.unwrap();
            assert_eq!(client.driver(), engine.driver());
            let server = listener.accept().soon().await.unwrap();
            echo(server);
            round_trip(&client, "with the defaults".into()).await;
        });
    });
}

#[test]
fn a_required_driver_is_had_or_refused_with_the_reason() {
    run_with(|| {
        let engine = Engine::auto_with(Backend::Require(Driver::Uring));
        let refused = engine.as_ref().err();
        assert!(Expected::here().includes(refused), "{engine:?}");
        if let Some(refused) = refused {
            let EngineError::Refused(refusal) = refused else {
                panic!("{refused}")
            };
            let text = refused.to_string();
            assert!(text.contains("the driver uring cannot start"), "{text}");
            assert!(text.contains(refusal.remedy()), "{text}");
        }
        let engine = Engine::auto_with(Backend::Require(Driver::Tokio)).unwrap();
        assert_eq!(engine.driver(), Driver::Tokio);
        assert!(engine.backend().refused().is_none(), "it was asked for");
    });
}

#[test]
fn an_engine_of_a_named_driver_is_refused_wherever_it_is_to_run() {
    let Expected::Seccomp(_) = Expected::here() else {
        return;
    };
    run_with(|| {
        let builder = || Engine::builder(Driver::Uring);
        let inline = tokio_runtime().block_on(async { builder().inline() });
        let under = builder().block_on(|_| async { unreachable!("there is no engine") });
        for refused in [builder().thread().err(), inline.err(), under.err()] {
            assert!(Expected::here().includes(refused.as_ref()), "{refused:?}");
        }
    });
}

/// A test that needs a process in which no other test has used the shared engine.
pub(crate) mod alone {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;

    /// Given as an argument, it is the only test that runs.
    pub(crate) const NAME: &str = "shared::alone::a_fallback_is_a_warning_and_logged_once";

    /// Counts warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("ringmux") && *metadata.level() == Level::WARN
        }

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_fallback_is_a_warning_and_logged_once() {
        if !env::args().any(|argument| argument == NAME) {
            return;
        }
        let warnings = Warnings::default();
        tracing::subscriber::set_global_default(warnings.clone()).unwrap();
        thread::scope(|scope| {
            for backend in [Backend::default(), Backend::Prefer(Driver::TokioUring)] {
                for _ in 0..4 {
                    scope.spawn(move || {
                        let engine = Engine::auto_with(backend).unwrap();
                        assert_eq!(engine.driver(), Driver::Tokio);
                        assert!(engine.backend().refused().is_some());
                    });
                }
            }
        });
        assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
    }
}
