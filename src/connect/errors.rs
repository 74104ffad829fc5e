//! Errors of engines, connecting and listening: the cause, the address, the remedy.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use super::dial::DialError;
use crate::addr::{Addr, AddrError, Driver};
use crate::driver::uring::Refusal;
use crate::error::{DESCRIPTORS_REMEDY, Processed, SessionError, into_io, lacks_descriptors};

/// Why an [`Engine`](crate::Engine) could not be made or has stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The driver does not work here.
    #[error("the driver {driver} cannot start{}", Hint(hint(*driver, error)))]
    Unavailable {
        /// The driver.
        driver: Driver,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// [`Driver::Uring`] was tried and does not work here.
    #[error("the driver uring cannot start ({})", .0.remedy())]
    Refused(#[source] Refusal),
    /// This build of the library does not include the driver: its feature is off.
    #[error(
        "the driver {driver} is not built in: turn ringmux's feature {driver} on, or take another driver"
    )]
    NotBuiltIn {
        /// The driver.
        driver: Driver,
    },
    /// An inline engine was requested outside of a suitable runtime.
    #[error(
        "an inline {driver} engine needs to be made and used inside its runtime, on its thread"
    )]
    NoRuntime {
        /// The driver.
        driver: Driver,
    },
    /// An inline engine on a ring was requested on a multi-threaded runtime.
    #[error(
        "an inline {driver} engine needs a runtime of one thread, and this one has several: build it with {}, \
         or take Engine::thread",
        one_thread(*driver)
    )]
    ManyThreads {
        /// The driver.
        driver: Driver,
    },
    /// The runtime that this was called on was built without a capability that engines need.
    #[error("the runtime has no {what}: build it with enable_all()")]
    RuntimeLacks {
        /// `time`, or `I/O`.
        what: &'static str,
    },
    /// `block_on` was called on a thread that is already inside of a runtime.
    #[error(
        "block_on cannot wait inside of another runtime: call it on a thread of its own, or use Engine::inline"
    )]
    InsideRuntime,
    /// A chosen option has no effect for this driver or method.
    #[error("the option {option} does not apply to {place} {driver} engine: {why}")]
    DoesNotApply {
        /// The driver.
        driver: Driver,
        /// The method of [`EngineBuilder`](crate::EngineBuilder), with its argument if only that value does not apply.
        option: &'static str,
        /// The kind of engine: `a threaded`, `an inline`, or `a block_on`.
        place: &'static str,
        /// Why it does not apply.
        why: &'static str,
    },
    /// The engine's thread cannot be pinned to the chosen processor.
    #[error("processor {cpu} cannot be used: this process may run on {allowed}")]
    Processor {
        /// The chosen processor.
        cpu: usize,
        /// The existing and allowed processors, as ranges: `0-3,8`.
        allowed: String,
    },
    /// The engine's runtime has ended, or belongs to the parent of this forked process.
    #[error("the engine has stopped")]
    Stopped,
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl EngineError {
    /// Whether the same call may succeed later: if a system resource is exhausted for the moment.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { error, .. } => matches!(
                error.raw_os_error(),
                Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE)
            ),
            _ => false,
        }
    }

    /// Whether the peer can have processed anything: never, as there was no session.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Unavailable { error, .. } => error.kind(),
            Self::Refused(_) | Self::NotBuiltIn { .. } => io::ErrorKind::Unsupported,
            Self::Stopped => io::ErrorKind::NotConnected,
            Self::DoesNotApply { .. } | Self::Processor { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        }
    }

    /// The change that helps, if known; the text of the error contains it too.
    ///
    /// # Examples
    /// ```
    /// # use ringmux::{EngineError, ProbeStep, Refusal};
    /// let denied = EngineError::Refused(Refusal::NotInKernel);
    /// assert!(denied.to_string().contains(denied.remedy().unwrap()));
    /// assert!(EngineError::Stopped.remedy().is_none());
    /// ```
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.remedy()),
            Self::Unavailable { driver, error } => Some(hint(*driver, error)),
            _ => None,
        }
        .filter(|remedy| !remedy.is_empty())
    }

    pub(super) fn unavailable(driver: Driver) -> impl Fn(io::Error) -> Self + Copy + Send {
        move |error| Self::Unavailable { driver, error }
    }
}

const fn one_thread(driver: Driver) -> &'static str {
    match driver {
        Driver::TokioUring => "tokio_uring::start",
        Driver::Uring | Driver::Tokio => {
            "tokio::runtime::Builder::new_current_thread() or #[tokio::main(flavor = \"current_thread\")]"
        }
    }
}

fn hint(driver: Driver, error: &io::Error) -> &'static str {
    match (driver, error.kind()) {
        (Driver::TokioUring, io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
            "io_uring may be denied by sysctl kernel.io_uring_disabled or by a seccomp profile, and \
             the driver tokio works without it"
        }
        (Driver::TokioUring, io::ErrorKind::OutOfMemory) => {
            "raise RLIMIT_MEMLOCK, or use the driver tokio"
        }
        (_, io::ErrorKind::WouldBlock) => {
            "no thread can be made: raise the limits on tasks (ulimit -u; systemd: TasksMax=, LimitNPROC=)"
        }
        _ => socket_remedy(error).unwrap_or_default(),
    }
}

/// For the sockets of any driver.
fn socket_remedy(error: &io::Error) -> Option<&'static str> {
    let dialled = error.get_ref().and_then(|inner| inner.downcast_ref());
    let lacks = dialled.map_or_else(|| lacks_descriptors(error), DialError::lacks_descriptors);
    lacks.then_some(DESCRIPTORS_REMEDY)
}

/// An end of a handshake that may be an eviction: the listener cannot say so before it has heard from this side.
fn hung_up(error: &SessionError) -> &'static str {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    match error {
        SessionError::Disconnected => EVICTED,
        SessionError::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => EVICTED,
        _ => "",
    }
}

const EVICTED: &str =
    "a listener of ringmux hangs up like this when its limit max_half_open is reached";

/// A hint appended to the text of an error, before its source.
struct Hint(&'static str);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            hint => write!(f, " ({hint})"),
        }
    }
}

/// Why `connect` failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is invalid.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// There is no engine to run the session.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The connection failed.
    #[error("cannot connect to {addr}{}", Hint(socket_remedy(error).unwrap_or_default()))]
    Io {
        /// The address.
        addr: Addr,
        /// The system's error; for a name, a [`DialError`] with each address that was tried.
        #[source]
        error: io::Error,
    },
    /// No address of the name took a connection within [`connect_timeout`](crate::ConfigBuilder::connect_timeout).
    #[error("cannot connect to {addr}")]
    TimedOut {
        /// The address.
        addr: Addr,
        /// The time limit, and each address that was tried until then.
        #[source]
        error: DialError,
    },
    /// Connected, but the peer does not speak this protocol, did not complete the handshake in time, or hung up, as a
    /// listener does that needs the place for a newer connection ([`max_half_open`](crate::ConfigBuilder::max_half_open)).
    #[error(
        "connected to {addr}, but the handshake failed{}",
        Hint(hung_up(error))
    )]
    Handshake {
        /// The address.
        addr: Addr,
        /// How the session ended.
        #[source]
        error: SessionError,
    },
    /// The given socket is unsuitable; it has been closed.
    #[error("cannot use descriptor {fd}")]
    Socket {
        /// Its descriptor number.
        fd: RawFd,
        /// The reason.
        #[source]
        error: SocketError,
    },
    /// The peer of the given socket does not speak this protocol or did not complete the handshake in time.
    #[error("the socket is connected, but the handshake failed")]
    NoSession {
        /// How the session ended.
        #[source]
        error: SessionError,
    },
}

impl ConnectError {
    /// Whether the same call may succeed later.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let error = ringmux::connect("tcp://nowhere").await.unwrap_err();
    /// assert!(!error.is_retryable(), "the address has no port");
    /// # }
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_retryable(),
            Self::Io { error, .. } => may_pass(error),
            Self::TimedOut { error, .. } => error.is_retryable(),
            Self::Handshake { error, .. } | Self::NoSession { error } => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the peer can have processed anything: never, as streams are opened afterwards.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Engine(error) => error.io_kind(),
            Self::Io { error, .. } => error.kind(),
            Self::TimedOut { error, .. } => error.kind(),
            Self::Handshake { error, .. } | Self::NoSession { error } => error.io_kind(),
            Self::Socket { error, .. } => error.io_kind(),
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

impl ConnectError {
    /// The change that helps, if known; the text of the error contains it too.
    ///
    /// # Examples
    /// ```
    /// use ringmux::{ConnectError, EngineError, Refusal};
    ///
    /// let none_left = ConnectError::Io {
    ///     addr: "tcp://127.0.0.1:7000".parse()?,
    ///     error: std::io::Error::from_raw_os_error(24),
    /// };
    /// assert!(none_left.remedy().unwrap().contains("ulimit -n"));
    /// assert!(none_left.to_string().contains(none_left.remedy().unwrap()));
    ///
    /// let denied = ConnectError::from(EngineError::Refused(Refusal::NotInKernel));
    /// assert!(denied.remedy().unwrap().contains("CONFIG_IO_URING"));
    /// assert!(ConnectError::from(EngineError::Stopped).remedy().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Engine(error) => error.remedy(),
            Self::Io { error, .. } => socket_remedy(error),
            _ => None,
        }
    }
}

/// Whether the system's error may be temporary.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    !matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
}

/// Why `listen` failed, or a listener ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is invalid.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// There is no engine to run the sessions.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Only TCP ports can be shared by several engines.
    #[error("cannot share {addr} among engines: only tcp:// addresses can be listened on together")]
    NotShareable {
        /// The address.
        addr: Addr,
    },
    /// The given socket is unsuitable; it has been closed.
    #[error("cannot listen on descriptor {fd}")]
    Socket {
        /// Its descriptor number.
        fd: RawFd,
        /// The reason.
        #[source]
        error: SocketError,
    },
    /// The listener was [shut down](crate::Listener::shutdown).
    #[error("the listener was shut down")]
    ShutDown,
    /// Binding or listening failed.
    #[error("cannot listen on {addr}{}", Hint(socket_remedy(error).unwrap_or_default()))]
    Io {
        /// The address.
        addr: Addr,
        /// The system's error.
        #[source]
        error: io::Error,
    },
}

impl ListenError {
    /// The change that helps, if known; the text of the error contains it too.
    ///
    /// # Examples
    /// ```
    /// use ringmux::ListenError;
    ///
    /// let none_left = ListenError::Io {
    ///     addr: "tcp://127.0.0.1:7000".parse()?,
    ///     error: std::io::Error::from_raw_os_error(24),
    /// };
    /// assert!(none_left.remedy().unwrap().contains("ulimit -n"));
    /// assert!(ListenError::ShutDown.remedy().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Engine(error) => error.remedy(),
            Self::Io { error, .. } => socket_remedy(error),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_retryable(),
            Self::Io { error, .. } => may_pass(error),
            _ => false,
        }
    }

    /// Whether a peer can have processed anything: never, as there was no session.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Engine(error) => error.io_kind(),
            Self::ShutDown => io::ErrorKind::NotConnected,
            Self::Io { error, .. } => error.kind(),
            Self::Socket { error, .. } => error.io_kind(),
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

into_io!(
    EngineError,
    ConnectError,
    DialError,
    ListenError,
    SocketError
);

/// Why an engine cannot use a given socket.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::{Config, Engine, ListenError, SocketError};
///
/// let file = std::fs::File::open("/dev/null")?;
/// let refused = Engine::auto()?.listen_on(file, &Config::default()).await.unwrap_err();
/// assert!(matches!(refused, ListenError::Socket { error: SocketError::NotASocket, .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The descriptor is no socket, but for example a file.
    #[error("it is not a socket")]
    NotASocket,
    /// The socket carries datagrams or packets.
    #[error("it is a socket for datagrams, and a stream socket is needed")]
    NotAStream,
    /// The listening socket is neither TCP nor Unix.
    #[error("its address family is {family}, and TCP (IPv4 or IPv6) or a Unix socket is needed")]
    Family {
        /// Linux's number, as in `AF_VSOCK`.
        family: i32,
    },
    /// It is not in listening state: it is connected, or `listen` was not called.
    #[error("it does not listen")]
    NotListening,
    /// It listens, where a connection is needed.
    #[error("it listens, and a connected socket is needed")]
    Listening,
    /// It is not connected, or not yet.
    #[error("it is not connected")]
    NotConnected,
    /// Any other error of the system.
    #[error(transparent)]
    Io(io::Error),
}

impl SocketError {
    /// Whether the same call may succeed later: not with the same socket.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }

    /// Whether a peer can have processed anything: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::NotConnected => io::ErrorKind::NotConnected,
            Self::Io(error) => error.kind(),
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOTSOCK) => Self::NotASocket,
            Some(libc::ENOTCONN) => Self::NotConnected,
            _ => Self::Io(error),
        }
    }
}
