//! Why a connection did not come about: what, where, what to do.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use super::dial::DialError;
use super::given::SocketError;
use crate::addr::{Addr, AddrError, Driver};
use crate::driver::uring::Refusal;
use crate::error::{Processed, SessionError, into_io};

/// Why an [`Engine`](crate::Engine) could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The driver does not work here.
    #[error("the driver {driver} cannot start{}", Hint(hint(*driver, error)))]
    Unavailable {
        /// Which one.
        driver: Driver,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// [`Driver::Uring`] has been tried and does not work here.
    #[error("the driver uring cannot start ({})", .0.remedy())]
    Refused(#[source] Refusal),
    /// This build of the library is without the driver: its feature was turned off.
    #[error(
        "the driver {driver} is not built in: turn ringmux's feature {driver} on, or take another driver"
    )]
    NotBuiltIn {
        /// Which one.
        driver: Driver,
    },
    /// An inline engine was asked for where no runtime of its kind is running.
    #[error(
        "an inline {driver} engine needs to be made and used inside its runtime, on its thread"
    )]
    NoRuntime {
        /// Which one.
        driver: Driver,
    },
    /// An inline engine on a ring was asked for on a runtime of several threads.
    #[error(
        "an inline {driver} engine needs a runtime of one thread, and this one has several: build it with {}, \
         or take Engine::thread",
        one_thread(*driver)
    )]
    ManyThreads {
        /// Which one.
        driver: Driver,
    },
    /// The runtime that this was called on was built without something that engines need.
    #[error("the runtime has no {what}: build it with enable_all()")]
    RuntimeLacks {
        /// `time`, or `I/O`.
        what: &'static str,
    },
    /// `block_on` was called on a thread that is inside of a runtime's already.
    #[error(
        "block_on cannot wait inside of another runtime: call it on a thread of its own, or take Engine::inline"
    )]
    InsideRuntime,
    /// An option was chosen that does nothing for this driver, in this place.
    #[error("the option {option} does not apply to {place} {driver} engine: {why}")]
    DoesNotApply {
        /// Which one.
        driver: Driver,
        /// The method of [`EngineBuilder`](crate::EngineBuilder), with its argument where that is what does not apply.
        option: &'static str,
        /// Where the engine was to run: `a threaded`, `an inline`, or `a block_on`.
        place: &'static str,
        /// What is so instead.
        why: &'static str,
    },
    /// The engine's thread cannot stay on the processor that was chosen.
    #[error("processor {cpu} cannot be used: this process may run on {allowed}")]
    Processor {
        /// Which one was chosen.
        cpu: usize,
        /// Those that are there and allowed, as ranges: `0-3,8`.
        allowed: String,
    },
    /// The engine's runtime has ended, or is in the process of which this one is a fork.
    #[error("the engine has stopped")]
    Stopped,
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl EngineError {
    /// Whether the same call may succeed later: if the system had too little of something for the moment.
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

    /// Whether the peer can have seen anything: never, as there was no session.
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

    /// What can be changed about it, if that is known; the text of the error says so as well.
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
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            "raise the limit on open files (ulimit -n; systemd: LimitNOFILE=)"
        }
        _ => "",
    }
}

/// A hint behind the words of an error, before its source is shown.
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
    /// The address makes no sense.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// There is no engine to run the session.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nobody could be reached.
    #[error("cannot connect to {addr}")]
    Io {
        /// Where.
        addr: Addr,
        /// What the system said; of a name, a [`DialError`] with each address that was tried.
        #[source]
        error: io::Error,
    },
    /// No address of the name took a connection within [`connect_timeout`](crate::ConfigBuilder::connect_timeout).
    #[error("cannot connect to {addr}")]
    TimedOut {
        /// Where.
        addr: Addr,
        /// The limit, and each address that was tried by then.
        #[source]
        error: DialError,
    },
    /// Somebody was reached who does not speak this protocol, or not in time.
    #[error("connected to {addr}, but no session came about")]
    Handshake {
        /// Where.
        addr: Addr,
        /// How the session ended.
        #[source]
        error: SessionError,
    },
    /// The socket that was given is not what is needed; it has been closed.
    #[error("cannot use descriptor {fd}")]
    Socket {
        /// The number that it had.
        fd: RawFd,
        /// What is wrong with it.
        #[source]
        error: SocketError,
    },
    /// The other end of a socket that was given does not speak this protocol, or not in time.
    #[error("the socket is connected, but no session came about")]
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

    /// Whether the peer can have seen anything: never, as streams are opened afterwards.
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

/// Whether what the system refused may be had later.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    !matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
}

/// Why `listen` failed, or a listener ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address makes no sense.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// There is no engine to run the sessions.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Only TCP ports can be shared by several engines.
    #[error("cannot share {addr} among engines: only tcp:// addresses can be listened on together")]
    NotShareable {
        /// Where.
        addr: Addr,
    },
    /// The socket that was given is not what is needed; it has been closed.
    #[error("cannot listen on descriptor {fd}")]
    Socket {
        /// The number that it had.
        fd: RawFd,
        /// What is wrong with it.
        #[source]
        error: SocketError,
    },
    /// The listener was [shut down](crate::Listener::shutdown).
    #[error("the listener was shut down")]
    ShutDown,
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Io {
        /// Where.
        addr: Addr,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl ListenError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_retryable(),
            Self::Io { error, .. } => may_pass(error),
            _ => false,
        }
    }

    /// Whether a peer can have seen anything: never, as there was no session.
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
