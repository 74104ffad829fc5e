//! The hosts of the cases (driver, thread, transport), and the time limits that detect hangs.

use std::cell::Cell;
use std::future::Future;
use std::panic::{self, Location};
use std::pin::Pin;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringmux::{
    Addr, Config, Driver, Engine, Listener, RecvStream, SendStream, Session, SessionError, Wait,
};
use tokio::task::JoinHandle;

/// Time limit of a case, also beside many others on a busy machine; reached only by a hang.
pub(crate) const CASE_GUARD: Duration = Duration::from_secs(240);
/// Time limit of one await. Below the longest `close_linger` of a case, so that a session that waits for it is detected.
pub(crate) const AWAIT_GUARD: Duration = Duration::from_secs(45);

/// A driver, a place for it, and a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) driver: Driver,
    pub(crate) place: Place,
    pub(crate) wire: Wire,
}

/// The thread that runs the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The application's.
    Inline,
    /// The application's, which never sleeps.
    Spinning,
    /// The application's, under its future.
    BlockOn,
    /// An engine thread for each side.
    Thread,
    /// One engine thread for both sides, on a processor without application threads.
    OneThread,
    /// The process's shared engine.
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Tcp,
    Unix,
    /// In memory, with room for this many bytes.
    Pipe(usize),
}

macro_rules! hosts {
    ($($name:ident: $driver:ident $place:ident $wire:expr;)+) => {
        $(#[allow(non_upper_case_globals)]
        pub(crate) const $name: Host = Host {
            driver: Driver::$driver,
            place: Place::$place,
            wire: $wire,
        };)+
    };
}

hosts! {
    tokio_inline_tcp: Tokio Inline Wire::Tcp;
    tokio_thread_tcp: Tokio Thread Wire::Tcp;
    tokio_uring_inline_tcp: TokioUring Inline Wire::Tcp;
    tokio_uring_thread_tcp: TokioUring Thread Wire::Tcp;
    tokio_inline_unix: Tokio Inline Wire::Unix;
    tokio_uring_thread_unix: TokioUring Thread Wire::Unix;
    uring_inline_tcp: Uring Inline Wire::Tcp;
    uring_spinning_tcp: Uring Spinning Wire::Tcp;
    uring_block_on_tcp: Uring BlockOn Wire::Tcp;
    uring_thread_tcp: Uring Thread Wire::Tcp;
    uring_thread_unix: Uring Thread Wire::Unix;
    tokio_one_thread_tcp: Tokio OneThread Wire::Tcp;
    tokio_uring_one_thread_tcp: TokioUring OneThread Wire::Tcp;
    uring_one_thread_tcp: Uring OneThread Wire::Tcp;
    shared_tcp: Uring Shared Wire::Tcp;
    pipe_of_1: Tokio Inline Wire::Pipe(1);
    pipe_of_7: Tokio Inline Wire::Pipe(7);
    pipe_of_64: Tokio Inline Wire::Pipe(64);
}

macro_rules! test_on {
    ($case:ident: $($host:ident)+) => {
        mod $case {
            $(#[test]
            fn $host() {
                crate::host::run(crate::host::$host, super::$case);
            })+
        }
    };
}

/// Tests of cases decided by the protocol, independent of the driver: one host with a runtime's sockets, and the engine that
/// applications get by default. `tests/README.md` classifies the cases, with the reasons.
macro_rules! protocol {
    ($($case:ident),+ $(,)?) => {
        $(test_on!($case: tokio_inline_tcp shared_tcp);)+
    };
}

/// Tests of cases decided by each driver's own loop: each driver once, on the application's thread or on one
/// of its own, and the engine that applications get by default.
macro_rules! on_each_driver {
    ($($case:ident),+ $(,)?) => {
        $(test_on!($case: tokio_inline_tcp tokio_uring_thread_tcp uring_thread_tcp shared_tcp);)+
    };
}

/// Tests of cases for all drivers, on every host, over TCP.
macro_rules! on_sockets {
    ($($case:ident),+ $(,)?) => {
        $(test_on!($case:
            tokio_inline_tcp tokio_thread_tcp tokio_uring_inline_tcp tokio_uring_thread_tcp
            uring_inline_tcp uring_spinning_tcp uring_block_on_tcp uring_thread_tcp shared_tcp
        );)+
    };
}

/// The same, and over Unix sockets and pipes.
macro_rules! everywhere {
    ($($case:ident),+ $(,)?) => {
        $(test_on!($case:
            tokio_inline_tcp tokio_thread_tcp tokio_uring_inline_tcp tokio_uring_thread_tcp
            uring_inline_tcp uring_spinning_tcp uring_block_on_tcp uring_thread_tcp shared_tcp
            tokio_inline_unix tokio_uring_thread_unix uring_thread_unix
            pipe_of_1 pipe_of_7 pipe_of_64
        );)+
    };
}

/// The engines and addresses with which a case connects.
pub(crate) struct Net {
    pub(crate) host: Host,
    /// `None` for pipes.
    dialling: Option<Engine>,
    listening: Option<Engine>,
    dir: tempfile::TempDir,
    sockets: Cell<u32>,
}

impl Net {
    fn new(host: Host) -> Self {
        let engine = || match (host.wire, host.place) {
            (Wire::Pipe(_), _) => None,
            (_, Place::Inline) => Some(Engine::inline(host.driver)),
            (_, Place::Spinning) => Some(Engine::builder(host.driver).wait(Wait::Spin).inline()),
            (_, Place::Thread) => Some(Engine::thread(host.driver)),
            (_, Place::OneThread) => Some(Engine::builder(host.driver).cpu(1).thread()),
            (_, Place::Shared) => Some(Engine::auto()),
            (_, Place::BlockOn) => panic!("the engine is there before the case"),
        };
        let engine = || engine().map(|engine| engine.expect("the driver works here"));
        let dialling = engine();
        let listening = match host.place {
            Place::OneThread => dialling.clone(),
            _ => engine(),
        };
        Self::with(host, dialling, listening)
    }

    fn with(host: Host, dialling: Option<Engine>, listening: Option<Engine>) -> Self {
        Self {
            host,
            dialling,
            listening,
            dir: tempfile::tempdir().unwrap(),
            sockets: Cell::new(0),
        }
    }

    /// The engine that connects; only where there are sockets.
    pub(crate) fn engine(&self) -> &Engine {
        self.dialling.as_ref().expect("a host with sockets")
    }

    /// The driver of its sessions.
    pub(crate) fn driver(&self) -> Driver {
        self.dialling
            .as_ref()
            .map_or(self.host.driver, Engine::driver)
    }

    /// A free address of the host's kind.
    pub(crate) fn free_addr(&self) -> Addr {
        match self.host.wire {
            Wire::Unix => self.free_unix_addr(),
            Wire::Tcp | Wire::Pipe(_) => Addr::Tcp("127.0.0.1:0".to_owned()),
        }
    }

    pub(crate) fn free_unix_addr(&self) -> Addr {
        let n = self.sockets.replace(self.sockets.get() + 1);
        Addr::Unix(self.dir.path().join(format!("{n}.sock")))
    }

    pub(crate) async fn listen(&self, config: &Config) -> Listener {
        self.listen_on(&self.free_addr(), config).await
    }

    pub(crate) async fn listen_on(&self, addr: &Addr, config: &Config) -> Listener {
        let engine = self.listening.as_ref().expect("a host with sockets");
        let listening = async { engine.listen(addr, config).await };
        listening.soon().await.unwrap()
    }

    pub(crate) async fn connect(&self, listener: &Listener, config: &Config) -> Session {
        let connecting = self.engine().connect(listener.local_addr(), config);
        connecting.soon().await.unwrap()
    }

    /// The dialling and the accepting side of a new session.
    pub(crate) async fn pair(&self) -> (Session, Session) {
        self.pair_with(&Config::default(), &Config::default()).await
    }

    pub(crate) async fn pair_with(&self, client: &Config, server: &Config) -> (Session, Session) {
        if let Wire::Pipe(capacity) = self.host.wire {
            let (a, b) = tokio::io::duplex(capacity);
            let (client, connection) = ringmux::client(a, client);
            tokio::spawn(connection);
            let (server, connection) = ringmux::server(b, server);
            tokio::spawn(connection);
            client.established().soon().await.unwrap();
            server.established().soon().await.unwrap();
            return (client, server);
        }
        let listener = self.listen(server).await;
        let client = self.connect(&listener, client).await;
        let server = listener.accept().soon().await.unwrap();
        (client, server)
    }

    /// A stream of a session, both ends of it.
    pub(crate) async fn stream(&self, from: &Session, to: &Session) -> (Halves, Halves) {
        let ours = from.open("").soon().await.unwrap();
        let theirs = to.accept().soon().await.unwrap().unwrap();
        (ours, theirs)
    }

    /// Large amounts of data, less on small pipes, where every few bytes are an event.
    pub(crate) const fn scaled(&self, bytes: usize) -> usize {
        match self.host.wire {
            Wire::Pipe(capacity) if capacity < 64 => bytes / 32,
            Wire::Pipe(_) => bytes / 4,
            _ => bytes,
        }
    }
}

/// Runs a case on a host. Fails if the case fails, hangs, or causes a panic outside of the tests.
pub(crate) fn run<F, Fut>(host: Host, case: F)
where
    F: FnOnce(Net) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    run_boxed(host, Box::new(move |net| Box::pin(case(net))));
}

/// A case without its type: three runtimes are not compiled again for each.
type Case = Box<dyn FnOnce(Net) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

fn run_boxed(host: Host, case: Case) {
    run_with(move || {
        if host.place == Place::BlockOn {
            return run_under_an_engine(host, case);
        }
        if host.place == Place::OneThread {
            let mut first = rustix::thread::CpuSet::new();
            first.set(0);
            rustix::thread::sched_setaffinity(None, &first).unwrap();
        }
        let case = async { case(Net::new(host)).await };
        match (host.driver, host.place) {
            (Driver::TokioUring, Place::Inline) => tokio_uring::start(case),
            _ => tokio_runtime().block_on(case),
        }
    });
}

/// Tasks spawned by the case run on a runtime beside the engine, on another thread.
fn run_under_an_engine(host: Host, case: Case) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let hosted = Engine::builder(host.driver).block_on(|engine| {
        let engines = (Some(engine.clone()), Some(engine));
        case(Net::with(host, engines.0, engines.1))
    });
    hosted.expect("the driver works here");
}

/// Runs `work` on a thread of its own, under the same guards.
pub(crate) fn run_with(work: impl FnOnce() + Send + 'static) {
    watch_panics();
    let (running, ended) = channel::<()>();
    let worker = thread::Builder::new().spawn(move || {
        let _running = running;
        work();
    });
    match ended.recv_timeout(CASE_GUARD) {
        Err(RecvTimeoutError::Timeout) => {
            panic!("the case has not ended after {CASE_GUARD:?}, nor has anything that it awaits");
        }
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
    }
    if let Err(panic) = worker.unwrap().join() {
        panic::resume_unwind(panic);
    }
    let panics = foreign_panics();
    assert!(panics.is_empty(), "panics outside of the tests: {panics:?}");
}

pub(crate) fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// An await with a time limit.
pub(crate) trait Soon: Future + Sized {
    /// Panics with the name of the future, and the place, if it is not ready within [`AWAIT_GUARD`].
    #[track_caller]
    fn soon(self) -> impl Future<Output = Self::Output> {
        self.within(AWAIT_GUARD)
    }

    #[track_caller]
    fn within(self, guard: Duration) -> impl Future<Output = Self::Output> {
        let place = Location::caller();
        async move {
            match tokio::time::timeout(guard, self).await {
                Ok(output) => output,
                Err(_) => panic!(
                    "not ready after {guard:?}: {}, awaited at {place}",
                    std::any::type_name::<Self>()
                ),
            }
        }
    }
}

impl<F: Future> Soon for F {}

/// The pause between two checks of a condition without a signal. Yielding would not do: tokio-uring submits
/// only when its runtime is idle.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Waits for a condition without a signal.
#[track_caller]
pub(crate) fn eventually(what: &str, check: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = Location::caller();
    let mut check = check;
    let what = what.to_owned();
    async move {
        let poll = async {
            while !check() {
                pause().await;
            }
        };
        let in_time = tokio::time::timeout(AWAIT_GUARD, poll).await;
        assert!(in_time.is_ok(), "never: {what}, awaited at {place}");
    }
}

// ---- panics ---------------------------------------------------------------------------------

static FOREIGN_PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Panics on threads with this name are expected.
pub(crate) const MAY_PANIC: &str = "may-panic";

/// Counts the panics that do not come from a test's own file.
fn watch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let foreign = info
                .location()
                .is_none_or(|at| !at.file().starts_with("tests/"));
            if foreign && thread::current().name() != Some(MAY_PANIC) {
                FOREIGN_PANICS.lock().unwrap().push(info.to_string());
            }
            print(info);
        }));
    });
}

/// Takes the recorded panics, so that one test reports them and not every later one.
fn foreign_panics() -> Vec<String> {
    std::mem::take(&mut *FOREIGN_PANICS.lock().unwrap())
}

// ---- traffic --------------------------------------------------------------------------------

/// Bytes in which every shift or repetition is visible.
pub(crate) fn pattern(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 16).to_le_bytes()[..6]);
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

/// Sends everything back until the peer finishes, then finishes.
pub(crate) async fn echo_stream((mut send, mut recv): (SendStream, RecvStream)) {
    while let Ok(Some(message)) = recv.recv().await {
        if send.send(message).await.is_err() {
            return;
        }
    }
    // A stream that the peer has ended meanwhile cannot be finished.
    let _ = send.finish();
}

/// The halves of a stream.
pub(crate) type Halves = (SendStream, RecvStream);

/// Serves the session's streams until it ends.
pub(crate) fn echo(session: Session) -> JoinHandle<SessionError> {
    tokio::spawn(async move {
        loop {
            match session.accept().await {
                Ok(Some(stream)) => drop(tokio::spawn(echo_stream(stream))),
                Ok(None) => return session.closed().await,
                Err(end) => return end,
            }
        }
    })
}

/// One message there and back on a stream of its own.
pub(crate) async fn round_trip(session: &Session, message: Bytes) {
    let (mut send, mut recv) = session.open("").soon().await.unwrap();
    send.send(message.clone()).soon().await.unwrap();
    send.finish().unwrap();
    assert_eq!(recv.recv().soon().await.unwrap(), Some(message));
    assert_eq!(recv.recv().soon().await.unwrap(), None);
}
