//! Engines: the threads that run sessions.

pub(super) mod backend;
pub(super) mod builder;
pub(super) mod listener;

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::runtime::{Handle, RuntimeFlavor};

use self::backend::{Backend, ChosenBackend};
use self::builder::EngineBuilder;
use self::listener::Listener;
use super::errors::{ConnectError, EngineError, ListenError};
use super::given;
use super::home::{Home, Plan};
use super::socket::{Bound, Connected, Sharing};
use crate::addr::{Addr, Driver, Wire};
use crate::bridge::{Account, Totals};
use crate::config::Config;
use crate::driver::uring::HostLink;
use crate::drpc::Profile;
use crate::error::SessionError;
use crate::handle::Session;
use crate::queue::Owned;
use crate::sync::Arc;
use crate::wire::Role;

/// Runs sessions: the thread that owns their sockets.
///
/// Cheap to clone. Sessions continue when the engine that started them is dropped; an engine's own
/// thread ends with the last engine value and the last session.
///
/// # Processes that fork
/// An engine belongs to the process that made it. In a forked child, an inherited engine answers every call with
/// [`EngineError::Stopped`] or [`SessionError::EngineStopped`], and is dropped without
/// touching the parent's sockets; a new engine works there, as do [`Engine::auto`], [`connect`](crate::connect()) and
/// [`listen`](crate::listen) outside of an inherited runtime. An inherited tokio runtime must be neither used nor dropped there.
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
///     let _stream = client.open("hello").await?;
///     let (send, _recv) = server.accept().await?.expect("the session is open");
///     assert_eq!(send.opening(), "hello");
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    backend: ChosenBackend,
    /// Dials and accepts, for all drivers.
    runtime: Handle,
    home: Owned<Home>,
    account: Arc<Account>,
}

impl Engine {
    /// Chooses driver, idle strategy and thread; see [`EngineBuilder`].
    pub fn builder(driver: Driver) -> EngineBuilder {
        EngineBuilder::new(driver)
    }

    /// An engine on a thread of its own, named `ringmux`, with the defaults.
    ///
    /// Messages cross from application threads to it and back; a busy application does not delay the protocol.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if the thread or its runtime cannot be made;
    /// [`EngineError::Refused`] where io_uring is denied.
    pub fn thread(driver: Driver) -> Result<Self, EngineError> {
        Self::builder(driver).thread()
    }

    /// An engine on the runtime that this is called on, with the defaults: sessions are tasks of
    /// it, and a call between a task and its session crosses no thread.
    ///
    /// [`Driver::Tokio`] works on any tokio runtime with I/O and time enabled, [`Driver::Uring`] on
    /// a current-thread one, [`Driver::TokioUring`] on `tokio_uring::start`. The engine may be used
    /// from other threads; its sessions stay here.
    ///
    /// A session processes at most about 1024 short frames or 1 MiB in a poll, then waits until the runtime has run its other
    /// tasks and polled its sockets and timers, at any `event_interval`. So a peer that sends without pause
    /// delays the application's tasks by well below a millisecond at a time.
    ///
    /// The only way to detect a tokio-uring runtime is to try. On a plain current-thread tokio runtime, [`Driver::TokioUring`]
    /// is refused after a panic that is caught here but printed by the panic hook; where panics abort, it ends the process.
    /// Whether I/O and time are enabled is detected in the same way.
    ///
    /// # Errors
    /// [`EngineError::NoRuntime`] outside of a suitable runtime; [`EngineError::ManyThreads`] and
    /// [`EngineError::RuntimeLacks`] on a runtime of another kind; [`EngineError::Refused`] where io_uring is denied.
    pub fn inline(driver: Driver) -> Result<Self, EngineError> {
        Self::builder(driver).inline()
    }

    pub(super) fn new(driver: Driver, (runtime, home): (Handle, Home)) -> Self {
        Self {
            backend: ChosenBackend::new(driver, home.features()),
            runtime,
            home: Owned::new(home),
            account: Account::new(),
        }
    }

    /// The engine of [`connect`](crate::connect()) and [`listen`](crate::listen): on a multi-thread tokio runtime with I/O and time an
    /// [`inline`](Self::inline) one of [`Driver::Tokio`], elsewhere the shared one of [`auto`](Self::auto).
    ///
    /// Sessions are then tasks of that runtime, beside those that use them: a call wakes no other thread, and what several tasks queue
    /// leaves in one write. They end with their runtime, and are delayed by tasks that block all of its threads; a session
    /// for which that is wrong belongs on [`auto`](Self::auto) or [`thread`](Self::thread). A current-thread runtime runs only while it is blocked on, and
    /// a ring is bound to one thread: hence the shared engine there, and epoll here.
    ///
    /// That a multi-thread runtime has no I/O or no time is seen by trying, as [`inline`](Self::inline) says: by a panic that is caught
    /// here but printed by the panic hook. Where panics abort, enable both, or use [`auto`](Self::auto).
    ///
    /// # Errors
    /// As [`auto`](Self::auto).
    ///
    /// # Examples
    /// ```
    /// use ringmux::{Driver, Engine};
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let engine = runtime.block_on(async { Engine::current() })?;
    /// assert_eq!(engine.driver(), Driver::Tokio);
    ///
    /// assert_eq!(Engine::current()?.driver(), Engine::auto()?.driver(), "outside of a runtime");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn current() -> Result<Self, EngineError> {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        if matches!(flavor, Ok(RuntimeFlavor::MultiThread))
            && let Ok(engine) = Self::inline(Driver::Tokio)
        {
            return Ok(engine);
        }
        Self::auto()
    }

    /// The process's shared engine, on a thread of its own: [`Driver::Uring`] where it works, else
    /// [`Driver::Tokio`].
    ///
    /// The same as [`auto_with`](Self::auto_with) and [`Backend::default`].
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if not even a thread can be made.
    pub fn auto() -> Result<Self, EngineError> {
        Self::auto_with(Backend::default())
    }

    /// The process's shared engine for a backend, on a thread of its own.
    ///
    /// It is made at the first call, which tries io_uring step by step (see
    /// [`ProbeStep`](crate::ProbeStep)), and lives as long as the process. If it ends before (its ring breaks, or its thread
    /// panics), values that were got earlier answer with [`EngineError::Stopped`], and the next call makes another. Where a
    /// preferred driver is refused the process stays with [`Driver::Tokio`]: that is logged once, as a warning, and
    /// [`backend`](Self::backend) has the reason. A required driver is tried again at every call.
    ///
    /// # Errors
    /// With [`Backend::Require`], [`EngineError::Refused`] or [`EngineError::Unavailable`] where the
    /// driver does not work; with [`Backend::Prefer`] only if no thread can be made.
    ///
    /// # Examples
    /// ```
    /// use ringmux::{Backend, Driver, Engine, EngineError};
    ///
    /// match Engine::auto_with(Backend::Require(Driver::Uring)) {
    ///     Ok(engine) => assert_eq!(engine.driver(), Driver::Uring),
    ///     // Such as in a container whose seccomp profile denies io_uring.
    ///     Err(EngineError::Refused(refusal)) => eprintln!("{refusal}; {}", refusal.remedy()),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok::<(), EngineError>(())
    /// ```
    pub fn auto_with(backend: Backend) -> Result<Self, EngineError> {
        backend::shared(backend)
    }

    /// The driver of this engine, its features, and the reason if it is a fallback.
    #[must_use]
    pub const fn backend(&self) -> &ChosenBackend {
        &self.backend
    }

    pub(super) fn instead_of(mut self, refused: EngineError) -> Self {
        self.backend = self.backend.instead_of(refused);
        self
    }

    /// The driver of this engine's sessions.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        self.backend.driver()
    }

    /// Counters summed over the engine's sessions, since it was made.
    ///
    /// Reads counters that the engine's thread writes; never blocks. See [`process_stats`](crate::process_stats) for
    /// the counters of all engines.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmux::{Config, Driver, Engine};
    ///
    /// let engine = Engine::inline(Driver::Tokio)?;
    /// let listener = engine.listen(&"127.0.0.1:0".parse()?, &Config::default()).await?;
    /// let client = engine.connect(listener.local_addr(), &Config::default()).await?;
    /// assert_eq!(engine.stats().open(), 2); // both sides are here
    ///
    /// client.close();
    /// client.closed().await;
    /// drop((client, listener));
    /// let stats = engine.stats();
    /// assert_eq!((stats.started, stats.ended.closed), (2, 1));
    /// assert!(engine.connect(&"127.0.0.1:1".parse()?, &Config::default()).await.is_err());
    /// assert_eq!(engine.stats().started, 2, "no connection, no session");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Totals {
        self.account.totals()
    }

    /// Connects, and waits for the peer's side of the handshake.
    ///
    /// Lookup and connecting together have one [limit](crate::ConfigBuilder::connect_timeout), the handshake
    /// [another](crate::ConfigBuilder::handshake_timeout). Of a name with several addresses the first that connects is
    /// taken, see [`dial`](crate::dial).
    ///
    /// # Errors
    /// [`ConnectError`] with the address and the reason; [`ConnectError::TimedOut`] at the limit.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection in progress.
    pub async fn connect(&self, addr: &Addr, config: &Config) -> Result<Session, ConnectError> {
        let (target, limit) = (addr.clone(), config.connect_timeout());
        let dial = async move { Connected::dial(&target, limit).await };
        let socket = self.on_runtime(dial).await??;
        let session = self.start(socket, Role::Dialer, config)?;
        match session.established().await {
            Ok(()) => Ok(session),
            Err(error) => Err(ConnectError::Handshake {
                addr: addr.clone(),
                error,
            }),
        }
    }

    /// Listens; see [`Listener`]. The address is exclusive: any other listener on it fails.
    ///
    /// A stale file of a Unix socket, which has no listener any more, is replaced. Of two listeners that find a stale file at
    /// the same moment the later one may replace the other's.
    ///
    /// # Errors
    /// [`ListenError`] with the address and the reason.
    ///
    /// # Cancel safety
    /// Dropping the future stops listening.
    pub async fn listen(&self, addr: &Addr, config: &Config) -> Result<Listener, ListenError> {
        self.bind(addr, config, Sharing::Alone).await
    }

    /// Listens on a TCP address together with other engines, of this process or others: each
    /// has a [`Listener`] and accepts its share of the connections.
    ///
    /// This is how a server uses several processors: one engine with a thread for each. The kernel
    /// chooses a listener by a hash of the connection's addresses (`SO_REUSEPORT`), regardless of load, so that a small number
    /// of connections may be spread badly. A connection stays on its engine; one that waits at a dropped listener is reset.
    /// All listeners must use this method and run as the same user. With port 0 each gets a port of its own: let the first
    /// choose it, and the others listen on its [`local_addr`](Listener::local_addr).
    ///
    /// # Errors
    /// [`ListenError::NotShareable`] if the address is that of a Unix socket; otherwise as
    /// [`listen`](Self::listen).
    ///
    /// # Cancel safety
    /// Dropping the future stops listening.
    ///
    /// # Examples
    /// ```
    /// use ringmux::{Config, Driver, Engine, Listener, ListenError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// async fn serve(listener: Listener) -> Result<(), ListenError> {
    ///     loop {
    ///         let session = listener.accept().await?; // runs on the engine of this listener
    ///         tokio::spawn(async move { /* … */ drop(session) });
    ///     }
    /// }
    ///
    /// let mut addr = "127.0.0.1:0".parse()?;
    /// for cpu in 0..2 {
    ///     let engine = Engine::builder(Driver::Tokio).name(format!("shard-{cpu}")).thread()?;
    ///     let listener = engine.listen_shared(&addr, &Config::default()).await?;
    ///     addr = listener.local_addr().clone();
    ///     tokio::spawn(serve(listener));
    /// }
    /// Engine::auto()?.connect(&addr, &Config::default()).await?;
    ///
    /// let unix = "unix:///run/app.sock".parse()?;
    /// let refused = Engine::auto()?.listen_shared(&unix, &Config::default()).await;
    /// assert!(matches!(refused, Err(ListenError::NotShareable { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn listen_shared(
        &self,
        addr: &Addr,
        config: &Config,
    ) -> Result<Listener, ListenError> {
        match addr {
            Addr::Tcp(_) => self.bind(addr, config, Sharing::Shared).await,
            Addr::Unix(_) => Err(ListenError::NotShareable { addr: addr.clone() }),
        }
    }

    async fn bind(
        &self,
        addr: &Addr,
        config: &Config,
        sharing: Sharing,
    ) -> Result<Listener, ListenError> {
        let (target, max_half_open) = (addr.clone(), config.max_half_open());
        let bind = async move { Bound::bind(&target, sharing, max_half_open).await };
        let io_error = |error| ListenError::Io {
            addr: addr.clone(),
            error,
        };
        let bound = self.on_runtime(bind).await?.map_err(io_error)?;
        let local = bound.local_addr().map_err(io_error)?;
        self.check()?;
        Ok(Listener::start(self.clone(), bound, local, config.clone()))
    }

    /// Listens on a socket in listening state: passed to the process by a service manager, or made
    /// by the application with its own options. TCP or Unix.
    ///
    /// It is set to non-blocking mode, also for other owners of the same socket. The file of a Unix socket is left to the process that
    /// bound it. Several engines may listen on duplicates of one socket
    /// ([`OwnedFd::try_clone`](std::os::fd::OwnedFd::try_clone)): the kernel gives each connection to one of them.
    ///
    /// # Errors
    /// [`ListenError::Socket`] with the reason. The socket is closed then.
    ///
    /// # Cancel safety
    /// Dropping the future closes this descriptor of the socket.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmux::{Config, Engine};
    ///
    /// let bound = std::net::TcpListener::bind("127.0.0.1:0")?; // as a service manager does
    /// let listener = Engine::auto()?.listen_on(bound, &Config::default()).await?;
    /// let client = ringmux::connect(listener.local_addr().to_string()).await?;
    /// let server = listener.accept().await?;
    /// # drop((client, server));
    /// # Ok(())
    /// # }
    /// ```
    pub fn listen_on(
        &self,
        socket: impl Into<OwnedFd>,
        config: &Config,
    ) -> impl Future<Output = Result<Listener, ListenError>> + Send {
        let socket = socket.into();
        async move {
            let fd = socket.as_raw_fd();
            let listening = self
                .on_runtime(async move { given::listening(socket) })
                .await?;
            let (bound, local) = listening.map_err(|error| ListenError::Socket { fd, error })?;
            self.check()?;
            Ok(Listener::start(self.clone(), bound, local, config.clone()))
        }
    }

    /// Runs a session as the dialling side over a connected stream socket, and waits for the peer's side of
    /// the handshake.
    ///
    /// For connections that go through a proxy, from a chosen source address, or over another family such as vsock. With
    /// TCP, Nagle's algorithm is switched off and the kernel's unsent bytes are bounded, as for connections that the engine
    /// dials. Other transports, such as TLS, go to [`client`](crate::client).
    ///
    /// # Errors
    /// [`ConnectError::Socket`] if it is not connected or no stream socket; [`ConnectError::NoSession`] if the handshake does not
    /// complete within its [limit](crate::ConfigBuilder::handshake_timeout). The socket is closed then.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::os::unix::net::UnixStream;
    /// use ringmux::{Config, Engine};
    ///
    /// let (here, there) = UnixStream::pair()?;
    /// let (engine, config) = (Engine::auto()?, Config::default());
    /// let (client, server) = tokio::try_join!(
    ///     engine.client_over(here, &config),
    ///     engine.server_over(there, &config),
    /// )?;
    /// let _stream = client.open("hello").await?;
    /// let (send, _recv) = server.accept().await?.expect("the session is open");
    /// assert_eq!(send.opening(), "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_over(
        &self,
        socket: impl Into<OwnedFd>,
        config: &Config,
    ) -> impl Future<Output = Result<Session, ConnectError>> + Send {
        self.over(socket.into(), Role::Dialer, config)
    }

    /// The same as the accepting side; see [`client_over`](Self::client_over). One side must be the client, the other the server.
    ///
    /// # Errors
    /// As [`client_over`](Self::client_over).
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub fn server_over(
        &self,
        socket: impl Into<OwnedFd>,
        config: &Config,
    ) -> impl Future<Output = Result<Session, ConnectError>> + Send {
        self.over(socket.into(), Role::Acceptor, config)
    }

    async fn over(
        &self,
        socket: OwnedFd,
        role: Role,
        config: &Config,
    ) -> Result<Session, ConnectError> {
        let fd = socket.as_raw_fd();
        let connected = self
            .on_runtime(async move { given::connected(socket) })
            .await?;
        let connected = connected.map_err(|error| ConnectError::Socket { fd, error })?;
        let session = match config.detect_drpc() {
            Some(drpc) if role == Role::Acceptor => {
                let (socket, drpc) = self.detect(connected, drpc, config).await?;
                let over = drpc.map_or_else(|| config.clone(), |drpc| config.over(drpc));
                self.start(socket, role, &over)?
            }
            _ => self.start(connected, role, config)?,
        };
        let established = session.established().await;
        established.map_err(|error| ConnectError::NoSession { error })?;
        Ok(session)
    }

    /// Waits for the first bytes of an accepted connection; with its wire if that is DRPC.
    async fn detect(
        &self,
        socket: Connected,
        drpc: Profile,
        config: &Config,
    ) -> Result<(Connected, Option<Wire>), ConnectError> {
        let limit = config.handshake_timeout();
        let detected = self.on_runtime(async move {
            let is_drpc = tokio::time::timeout(limit, socket.is_drpc()).await;
            is_drpc.map(|is_drpc| (socket, is_drpc.then_some(Wire::Drpc(drpc))))
        });
        let error = SessionError::HandshakeTimeout(limit);
        (detected.await?).map_err(|_| ConnectError::NoSession { error })
    }

    /// Runs a future on the runtime on which this engine dials and accepts.
    async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.check()?;
        let done = AbortOnDrop(self.runtime.spawn(work)).await;
        done.map_err(|_| EngineError::Stopped)
    }

    /// # Errors
    /// [`EngineError::Stopped`] in a process that was forked from the one that made it, or if it has ended.
    fn check(&self) -> Result<(), EngineError> {
        if self.home.is_inherited() || self.has_ended() {
            return Err(EngineError::Stopped);
        }
        Ok(())
    }

    /// Whether nothing runs its sessions any more.
    fn has_ended(&self) -> bool {
        self.home.has_ended()
    }

    /// Receive and send buffers that this process has leaked, because a runtime ended while the kernel still used them.
    /// 0 unless runtimes are dropped under live sessions.
    #[must_use]
    pub fn leaked_buffers() -> u64 {
        crate::driver::leaked_buffers()
    }

    pub(super) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn host(&self) -> Option<&HostLink> {
        self.home.host()
    }

    /// Runs a session over a connected socket.
    pub(super) fn start(
        &self,
        socket: Connected,
        role: Role,
        config: &Config,
    ) -> Result<Session, EngineError> {
        socket.probe_peer(config);
        let (peer, local) = socket.addrs();
        let plan = Plan {
            role,
            config,
            peer,
            local,
            account: Arc::clone(&self.account),
        };
        self.home.start(&self.runtime, socket, plan)
    }
}

/// Aborts its task when dropped, that is, when the caller no longer waits for it.
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
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}
