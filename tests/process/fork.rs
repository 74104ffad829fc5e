//! Processes that fork: inherited handles report that they have stopped, new ones work, and the parent is unaffected.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

use ringmux::{
    Addr, Config, ConnectError, Drained, Driver, Engine, EngineError, ListenError, Listener,
    OpenError, PingError, RecvStream, SendError, SendStream, Session, SessionError, StreamError,
    TrySendError,
};
use tokio::io::AsyncReadExt;

use super::{alone, any_port, echo, on_a_runtime_of, pair, round_trip, runtime, soon};

/// A child is killed after this many seconds.
const CHILD_SECONDS: u32 = 40;
/// Runs `work` in a forked child; fails if that fails.
fn in_a_child(work: impl FnOnce()) {
    // SAFETY: the child runs the code below alone; the allocator's locks are the C library's, which hands them over.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a plain system call. Its signal kills the process.
        unsafe { libc::alarm(CHILD_SECONDS) };
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: nothing runs afterwards, as intended: the rest belongs to the parent.
        unsafe { libc::_exit(i32::from(worked.is_err())) };
    }
    let mut status = 0;
    // SAFETY: the child's number, and a place for its status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(
        (waited, status),
        (child, 0),
        "the child has failed, or hung"
    );
}

/// All kinds of handles.
struct Handles {
    engine: Engine,
    listener: Listener,
    /// The file of a second listener.
    file: PathBuf,
    _unix: Listener,
    client: Session,
    server: Session,
    stream: (SendStream, RecvStream),
    /// A stream with a received message.
    full: (SendStream, RecvStream),
}

impl Handles {
    async fn new(engine: Engine, dir: &Path) -> Self {
        let (client, server, listener) = pair(&engine).await;
        let file = dir.join("a.sock");
        let (addr, config) = (Addr::Unix(file.clone()), Config::default());
        let unix = soon(engine.listen(&addr, &config)).await.unwrap();
        let stream = soon(client.open("")).await.unwrap();
        let _theirs = soon(server.accept()).await.unwrap().unwrap();
        let full = soon(client.open("")).await.unwrap();
        let (mut filling_send, filling_recv) = soon(server.accept()).await.unwrap().unwrap();
        soon(filling_send.send("something")).await.unwrap();
        soon(client.ping()).await.unwrap();
        tokio::spawn(async move {
            let _held = (_theirs, (filling_send, filling_recv));
            pending::<()>().await;
        });
        Self {
            engine,
            listener,
            file,
            _unix: unix,
            client,
            server,
            stream,
            full,
        }
    }

    /// Every call reports it, and drops do not affect the parent.
    async fn have_stopped(self) {
        self.engine_has_stopped().await;
        self.session_has_stopped().await;
        let file = self.file.clone();
        self.streams_have_stopped().await;
        assert!(file.exists(), "the file of the parent's socket");
    }

    async fn engine_has_stopped(&self) {
        let config = Config::default();
        let dialled = soon(self.engine.connect(self.listener.local_addr(), &config)).await;
        let stopped = matches!(dialled, Err(ConnectError::Engine(EngineError::Stopped)));
        assert!(stopped, "{dialled:?}");
        let listening = soon(self.engine.listen(&any_port(), &config)).await;
        let stopped = matches!(listening, Err(ListenError::Engine(EngineError::Stopped)));
        assert!(stopped, "{listening:?}");
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(soon(self.engine.listen_on(bound, &config)).await.is_err());
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(
            soon(self.engine.clone().client_over(near, &config))
                .await
                .is_err()
        );
        let accepted = soon(self.listener.accept()).await;
        let stopped = matches!(accepted, Err(ListenError::Engine(EngineError::Stopped)));
        assert!(stopped, "{accepted:?}");
        let report = soon(self.listener.shutdown(super::AWAIT_GUARD)).await;
        assert_eq!(report, Drained::default());
    }

    async fn session_has_stopped(&self) {
        for session in [&self.client, &self.server, &self.client.clone()] {
            let opened = session.try_open("");
            let stopped = matches!(opened, Err(OpenError::Session(SessionError::EngineStopped)));
            assert!(stopped, "{opened:?}");
            assert!(soon(session.open("")).await.is_err());
            let ends = [
                soon(session.accept()).await.err(),
                soon(session.established()).await.err(),
                Some(soon(session.closed()).await),
                Some(soon(session.draining()).await),
                session.state().end(),
                session.state().reason(),
            ];
            for end in ends {
                assert!(matches!(end, Some(SessionError::EngineStopped)), "{end:?}");
            }
            let pinged = soon(session.ping()).await;
            let stopped = matches!(pinged, Err(PingError::Session(SessionError::EngineStopped)));
            assert!(stopped, "{pinged:?}");
            session.close();
            soon(session.shutdown(super::AWAIT_GUARD)).await;
        }
    }

    async fn streams_have_stopped(mut self) {
        let received = soon(self.stream.1.recv()).await;
        let stopped = matches!(
            received,
            Err(StreamError::Session(SessionError::EngineStopped))
        );
        assert!(stopped, "{received:?}");
        assert!(soon(self.stream.1.read_u8()).await.is_err());
        let stopped = |error: &SendError| {
            let SendError::Stream(error) = error else {
                return false;
            };
            matches!(error, StreamError::Session(SessionError::EngineStopped))
        };
        let refused = [
            soon(self.stream.0.send(vec![7; 1000])).await.unwrap_err(),
            soon(self.stream.0.written()).await.unwrap_err(),
            self.stream.0.finish().unwrap_err(),
        ];
        assert!(refused.iter().all(stopped), "{refused:?}");
        // Messages already received may still be taken; then the stream ends.
        while soon(self.full.1.recv()).await.is_ok() {}
        let refused = match self.full.0.try_send(vec![7; 1000].into()) {
            Err(TrySendError::Refused { error, .. }) => error,
            other => panic!("{other:?}"),
        };
        assert!(stopped(&refused), "{refused}");
    }
}

/// New engines work in a process with inherited ones.
fn new_engines_work(driver: Driver) {
    runtime().block_on(async {
        let before = ringmux::process_stats().totals.started;
        assert_eq!(before, 0, "sessions of the parent");
        for engine in [Engine::thread(driver).unwrap(), Engine::auto().unwrap()] {
            let (client, server, _listener) = pair(&engine).await;
            tokio::spawn(echo(server));
            round_trip(&client).await;
        }
    });
    on_a_runtime_of(driver, async {
        let engine = Engine::inline(driver).unwrap();
        let (client, server, _listener) = pair(&engine).await;
        tokio::spawn(echo(server));
        round_trip(&client).await;
    });
}

fn a_child_makes_its_own(driver: Driver, handles: Handles) {
    // On a thread of its own: this one may be inside of a runtime of the parent's.
    let child = thread::spawn(move || {
        runtime().block_on(handles.have_stopped());
        new_engines_work(driver);
        // And in the children of the child.
        let engine = Engine::thread(driver).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let runtime = runtime();
        let handles = runtime.block_on(Handles::new(engine, dir.path()));
        std::mem::forget(runtime);
        in_a_child(|| {
            super::runtime().block_on(handles.have_stopped());
            new_engines_work(driver);
        });
    });
    child.join().unwrap();
}

async fn the_parent_goes_on(handles: &mut Handles) {
    let (client, server) = (handles.client.clone(), handles.server.clone());
    tokio::spawn(echo(server));
    round_trip(&client).await;
    assert!(client.state().end().is_none());
    let full = soon(handles.full.1.recv()).await.unwrap();
    assert_eq!(full.unwrap(), "something");
    assert!(handles.file.exists());
    let config = Config::default();
    let addr = Addr::Unix(handles.file.clone());
    for addr in [handles.listener.local_addr(), &addr] {
        soon(handles.engine.connect(addr, &config)).await.unwrap();
    }
}

/// Engines on threads of their own, and the process's shared one, which exist when the process forks.
fn threads(driver: Driver) {
    // All one-time objects of the process are made.
    let shared = Engine::auto().unwrap();
    let other = Engine::thread(Driver::Uring).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (given, handles) = channel();
    let (ask, asked) = channel::<Handles>();
    let path = dir.path().to_owned();
    // The parent's runtime is not on the thread that forks.
    let going_on = thread::spawn(move || {
        runtime().block_on(async {
            let engine = Engine::thread(driver).unwrap();
            given.send(Handles::new(engine, &path).await).ok().unwrap();
            let mut handles = tokio::task::spawn_blocking(move || asked.recv().unwrap())
                .await
                .unwrap();
            the_parent_goes_on(&mut handles).await;
        });
    });
    let handles = handles.recv().unwrap();
    let mut handles = Some(handles);
    in_a_child(|| a_child_makes_its_own(driver, handles.take().unwrap()));
    ask.send(handles.take().unwrap()).ok().unwrap();
    going_on.join().unwrap();
    drop((shared, other));
}

/// An engine on the runtime of the thread that forks.
fn inline(driver: Driver) {
    on_a_runtime_of(driver, async {
        let engine = Engine::inline(driver).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut handles = Some(Handles::new(engine, dir.path()).await);
        in_a_child(|| a_child_makes_its_own(driver, handles.take().unwrap()));
        the_parent_goes_on(&mut handles.unwrap()).await;
    });
}

#[test]
fn a_child_of_a_process_with_a_tokio_engine_makes_its_own() {
    alone(
        "fork::a_child_of_a_process_with_a_tokio_engine_makes_its_own",
        || {
            threads(Driver::Tokio);
        },
    );
}

#[test]
fn a_child_of_a_process_with_a_tokio_uring_engine_makes_its_own() {
    alone(
        "fork::a_child_of_a_process_with_a_tokio_uring_engine_makes_its_own",
        || {
            threads(Driver::TokioUring);
        },
    );
}

#[test]
fn a_child_of_a_process_with_an_io_uring_engine_makes_its_own() {
    alone(
        "fork::a_child_of_a_process_with_an_io_uring_engine_makes_its_own",
        || {
            threads(Driver::Uring);
        },
    );
}

#[test]
fn a_child_of_a_thread_with_a_tokio_engine_makes_its_own() {
    alone(
        "fork::a_child_of_a_thread_with_a_tokio_engine_makes_its_own",
        || {
            inline(Driver::Tokio);
        },
    );
}

#[test]
fn a_child_of_a_thread_with_a_tokio_uring_engine_makes_its_own() {
    alone(
        "fork::a_child_of_a_thread_with_a_tokio_uring_engine_makes_its_own",
        || {
            inline(Driver::TokioUring);
        },
    );
}

#[test]
fn a_child_of_a_thread_with_an_io_uring_engine_makes_its_own() {
    alone(
        "fork::a_child_of_a_thread_with_an_io_uring_engine_makes_its_own",
        || {
            inline(Driver::Uring);
        },
    );
}

#[test]
fn a_child_that_was_made_under_an_engine_does_not_go_on_with_its_ring() {
    alone(
        "fork::a_child_that_was_made_under_an_engine_does_not_go_on_with_its_ring",
        || {
            let parent = std::process::id();
            let hosted = Engine::builder(Driver::Uring).block_on(|engine| async move {
                let local = tokio::task::LocalSet::new();
                let runtime = runtime();
                let _entered = runtime.enter();
                let (client, server, _listener) = local.run_until(pair(&engine)).await;
                // SAFETY: the child returns from here with an error, and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: as in `in_a_child`.
                    unsafe { libc::alarm(CHILD_SECONDS) };
                    pending::<()>().await;
                }
                let mut status = 0;
                // SAFETY: as in `in_a_child`.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert_eq!(status, 0, "the child has failed, or hung");
                let ours = client.open("goes on").await.unwrap();
                assert_eq!(
                    server.accept().await.unwrap().unwrap().0.opening(),
                    "goes on"
                );
                drop(ours);
            });
            if std::process::id() != parent {
                let stopped = matches!(hosted, Err(EngineError::Stopped));
                // SAFETY: as in `in_a_child`.
                unsafe { libc::_exit(i32::from(!stopped)) };
            }
            hosted.unwrap();
        },
    );
}

#[cfg(feature = "manage")]
#[test]
fn a_manager_whose_task_is_in_the_parent_is_shutting_down() {
    use ringmux::manage::{Dial, ManageError, Manager};

    alone(
        "fork::a_manager_whose_task_is_in_the_parent_is_shutting_down",
        || {
            let shut_down = |error: Option<ManageError>| {
                assert!(
                    matches!(error, Some(ManageError::ShuttingDown)),
                    "{error:?}"
                );
            };
            runtime().block_on(async {
                let engine = Engine::thread(Driver::Uring).unwrap();
                let (_client, _server, listener) = pair(&engine).await;
                let addr = listener.local_addr().clone();
                let dial = Dial::new(engine, addr, Config::default());
                let manager = Manager::builder(dial).build().unwrap();
                tokio::spawn(manager.start().unwrap());
                let session = soon(manager.session()).await.unwrap();
                in_a_child(move || {
                    let child = thread::spawn(move || {
                        runtime().block_on(async {
                            shut_down(soon(manager.session()).await.err());
                            soon(manager.closed()).await;
                            drop((manager, session));
                        });
                    });
                    child.join().unwrap();
                });
            });
        },
    );
}
