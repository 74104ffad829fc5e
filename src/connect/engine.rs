//! Where sessions run.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::errors::{ConnectError, EngineError, ListenError};
use super::listener::Listener;
use super::over;
use super::socket::{Bound, Connected};
use crate::addr::{Addr, Driver};
use crate::config::Config;
use crate::driver::Turns;
use crate::driver::tokio_uring::{Socket, UringIo, leaked_buffers};
use crate::frame::Role;
use crate::handle::Session;
use crate::link::Info;
use crate::proto::{self, Pool};

/// Starts a session on an engine's thread.
type Job = Box<dyn FnOnce() + Send>;

/// Keeps an engine's thread running: held by engines and by their sessions.
type KeepAlive = mpsc::UnboundedSender<Job>;

/// Where sessions run: the thread that owns their sockets.
///
/// Cheap to clone. Sessions go on when the engine that started them is dropped; a thread of its
/// own ends with the last of both.
///
/// # Examples
/// Sessions as tasks of the application's own runtime, so that a message crosses no thread:
/// ```
/// # use ringmux::{Config, Driver, Engine, EngineError};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// assert!(matches!(Engine::inline(Driver::Tokio), Err(EngineError::NoRuntime { .. })));
///
/// tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
///     let engine = Engine::inline(Driver::Tokio)?;
///     let listener = engine.listen(&"127.0.0.1:0".parse()?, &Config::default()).await?;
///     let client = engine.connect(listener.local_addr(), &Config::default()).await?;
///     let server = listener.accept().await?;
///     let stream = client.open("hello").await?;
///     assert_eq!(server.accept().await?.opening(), "hello");
/// #   drop(stream);
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    driver: Driver,
    /// For dialling and listening, which both drivers leave to tokio.
    runtime: Handle,
    /// Where jobs run: the engine's own thread, or a task of the application's tokio-uring
    /// runtime. `None` on the application's tokio runtime, which starts sessions itself.
    jobs: Option<KeepAlive>,
}

impl Engine {
    /// An engine on a thread of its own, named `ringmux`.
    ///
    /// Messages cross from application threads to it and back; nothing the application does delays
    /// the protocol.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if the thread or its runtime cannot be made, as where io_uring
    /// is denied.
    pub fn thread(driver: Driver) -> Result<Self, EngineError> {
        let unavailable = |source| EngineError::Unavailable { driver, source };
        let (jobs, queue) = mpsc::unbounded_channel();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new()
            .name("ringmux".to_owned())
            .spawn(move || match driver {
                Driver::Tokio => host_tokio(queue, &started),
                Driver::TokioUring => host_uring(queue, &started),
            })
            .map_err(unavailable)?;
        let runtime = start
            .recv()
            .map_err(|_| EngineError::Stopped)?
            .map_err(unavailable)?;
        Ok(Self {
            driver,
            runtime,
            jobs: Some(jobs),
        })
    }

    /// An engine on the runtime that this is called on: sessions are tasks of it, and a call
    /// between a task and its session crosses no thread.
    ///
    /// [`Driver::Tokio`] works on any tokio runtime with I/O and time enabled;
    /// [`Driver::TokioUring`] on `tokio_uring::start`. The engine may be used from other threads;
    /// its sessions stay here.
    ///
    /// # Errors
    /// [`EngineError::NoRuntime`] outside of such a runtime.
    pub fn inline(driver: Driver) -> Result<Self, EngineError> {
        let no_runtime = || EngineError::NoRuntime { driver };
        let runtime = Handle::try_current().map_err(|_| no_runtime())?;
        let jobs = match driver {
            Driver::Tokio => None,
            Driver::TokioUring => Some(serve_inline().ok_or_else(no_runtime)?),
        };
        Ok(Self {
            driver,
            runtime,
            jobs,
        })
    }

    /// The process's shared engine, on a thread of its own: tokio-uring where io_uring works, else
    /// tokio, which is logged once.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if not even a thread can be made.
    pub fn auto() -> Result<Self, EngineError> {
        static AUTO: OnceLock<Engine> = OnceLock::new();
        if let Some(engine) = AUTO.get() {
            return Ok(engine.clone());
        }
        let engine = Self::thread(Driver::TokioUring).or_else(|error| {
            tracing::warn!(%error, "falling back to the driver tokio");
            Self::thread(Driver::Tokio)
        })?;
        Ok(AUTO.get_or_init(|| engine).clone())
    }

    /// What moves the bytes of this engine's sessions.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        self.driver
    }

    /// Connects, and waits for the peer's side of the handshake.
    ///
    /// # Errors
    /// [`ConnectError`] says what could not be reached, and why.
    ///
    /// # Cancel safety
    /// Dropping the future closes a connection that is half open.
    pub async fn connect(&self, addr: &Addr, config: &Config) -> Result<Session, ConnectError> {
        let target = addr.clone();
        let dial = self
            .runtime
            .spawn(async move { Connected::dial(&target).await });
        let dialled = AbortOnDrop(dial).await.map_err(|_| EngineError::Stopped)?;
        let socket = dialled.map_err(|source| ConnectError::Io {
            addr: addr.clone(),
            source,
        })?;
        let session = self.start(socket, Role::Dialer, config)?;
        match session.established().await {
            Ok(()) => Ok(session),
            Err(source) => Err(ConnectError::Handshake {
                addr: addr.clone(),
                source,
            }),
        }
    }

    /// Listens; see [`Listener`].
    ///
    /// # Errors
    /// [`ListenError`] says what could not be listened on, and why.
    ///
    /// # Cancel safety
    /// Dropping the future stops listening.
    pub async fn listen(&self, addr: &Addr, config: &Config) -> Result<Listener, ListenError> {
        let target = addr.clone();
        let (reply, bound) = oneshot::channel();
        self.runtime.spawn(async move {
            // Whoever asked may be gone; then the socket is dropped here.
            let _ = reply.send(Bound::bind(&target).await);
        });
        let io_error = |source| ListenError::Io {
            addr: addr.clone(),
            source,
        };
        let bound = bound
            .await
            .map_err(|_| EngineError::Stopped)?
            .map_err(io_error)?;
        let local = bound.local_addr().map_err(io_error)?;
        Ok(Listener::start(self.clone(), bound, local, config.clone()))
    }

    /// Receive and send buffers that this process has leaked, because a tokio-uring runtime ended
    /// while the kernel still used them. 0 unless runtimes are dropped under live sessions.
    #[must_use]
    pub fn leaked_buffers() -> u64 {
        leaked_buffers()
    }

    pub(super) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs a session over a connected socket.
    pub(super) fn start(
        &self,
        socket: Connected,
        role: Role,
        config: &Config,
    ) -> Result<Session, EngineError> {
        let (peer, local) = socket.addrs();
        if self.driver == Driver::Tokio {
            return Ok(self.start_tokio(socket, role, config, (peer, local)));
        }
        let unavailable = |source| EngineError::Unavailable {
            driver: self.driver,
            source,
        };
        let socket = detach(socket).map_err(unavailable)?;
        let info = Info {
            peer,
            local,
            driver: self.driver,
        };
        let (connection, link) =
            proto::Connection::new(role, config, info, Pool::process(), Instant::now());
        let jobs = self.jobs.as_ref().ok_or(EngineError::Stopped)?;
        let keep_alive = jobs.clone();
        let job: Job = Box::new(move || spawn_uring(connection, socket, keep_alive));
        jobs.send(job).map_err(|_| EngineError::Stopped)?;
        Ok(Session::new(link))
    }

    fn start_tokio(
        &self,
        socket: Connected,
        role: Role,
        config: &Config,
        (peer, local): (Option<Addr>, Option<Addr>),
    ) -> Session {
        let keep_alive = self.jobs.clone();
        let _entered = self.runtime.enter();
        match socket {
            Connected::Tcp(io) => {
                let (session, connection) = over(io, role, config, peer, local);
                self.runtime.spawn(async move {
                    let _keep_alive = keep_alive;
                    connection.await
                });
                session
            }
            Connected::Unix(io) => {
                let (session, connection) = over(io, role, config, peer, local);
                self.runtime.spawn(async move {
                    let _keep_alive = keep_alive;
                    connection.await
                });
                session
            }
        }
    }
}

/// The socket for a runtime without tokio's reactor: in blocking mode, see [`UringIo::new`].
enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

fn detach(socket: Connected) -> io::Result<Detached> {
    match socket {
        Connected::Tcp(socket) => {
            let socket = socket.into_std()?;
            socket.set_nonblocking(false)?;
            Ok(Detached::Tcp(socket))
        }
        Connected::Unix(socket) => {
            let socket = socket.into_std()?;
            socket.set_nonblocking(false)?;
            Ok(Detached::Unix(socket))
        }
    }
}

fn spawn_uring(connection: proto::Connection, socket: Detached, keep_alive: KeepAlive) {
    let socket = match socket {
        Detached::Tcp(socket) => Socket::Tcp(tokio_uring::net::TcpStream::from_std(socket)),
        Detached::Unix(socket) => Socket::Unix(tokio_uring::net::UnixStream::from_std(socket)),
    };
    let turns = Turns::new(connection, UringIo::new(socket));
    tokio_uring::spawn(async move {
        let _keep_alive = keep_alive;
        turns.await
    });
}

/// Runs jobs as a task of the tokio-uring runtime that this is called on; `None` if there is none.
///
/// tokio-uring has no way to ask: an operation that is polled outside panics.
fn serve_inline() -> Option<KeepAlive> {
    use std::future::Future;
    use std::task::{Context, Waker};

    let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut nop = std::pin::pin!(tokio_uring::no_op());
        let _ = nop.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        tokio_uring::spawn(async move { run_jobs(&mut queue).await });
    }))
    .ok()
    .map(|()| jobs)
}

/// Runs jobs until the engine and all its sessions are gone: each of them holds a sender.
async fn run_jobs(queue: &mut mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = queue.recv().await {
        job();
    }
}

type Started = std::sync::mpsc::SyncSender<io::Result<Handle>>;

async fn serve(mut queue: mpsc::UnboundedReceiver<Job>, started: Started) {
    // Nobody waits for the answer if the caller of `Engine::thread` is gone.
    let _ = started.send(Ok(Handle::current()));
    run_jobs(&mut queue).await;
}

fn host_tokio(queue: mpsc::UnboundedReceiver<Job>, started: &Started) {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(serve(queue, started.clone())),
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
}

fn host_uring(queue: mpsc::UnboundedReceiver<Job>, started: &Started) {
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => runtime.block_on(serve(queue, started.clone())),
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
}

/// A task of ours that is not wanted any more when whoever waits for it is gone.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}
