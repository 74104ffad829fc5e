//! Why a connection did not come about: what, where, what to do.

use std::io;

use super::dial::DialError;
use crate::addr::{Addr, AddrError, Driver};
use crate::driver::uring::Refusal;
use crate::error::{Processed, SessionError, into_io};

/// Why an [`Engine`](crate::Engine) could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The driver does not work here.
    #[error("the driver {driver} cannot start{}", hint(*driver, error))]
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
    /// An inline engine was asked for where no runtime of its kind is running.
    #[error(
        "an inline {driver} engine needs to be made and used inside its runtime, on its thread"
    )]
    NoRuntime {
        /// Which one.
        driver: Driver,
    },
    /// The engine's runtime has ended.
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
            Self::Refused(_) => io::ErrorKind::Unsupported,
            Self::Stopped => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::Other,
        }
    }

    pub(super) fn unavailable(driver: Driver) -> impl Fn(io::Error) -> Self + Copy + Send {
        move |error| Self::Unavailable { driver, error }
    }
}

fn hint(driver: Driver, error: &io::Error) -> &'static str {
    match (driver, error.kind()) {
        (Driver::TokioUring, io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
            " (io_uring may be denied by sysctl kernel.io_uring_disabled or by a seccomp profile; \
             the driver tokio works without it)"
        }
        (Driver::TokioUring, io::ErrorKind::OutOfMemory) => {
            " (raise RLIMIT_MEMLOCK, or use the driver tokio)"
        }
        _ => "",
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
            Self::Handshake { error, .. } => error.is_retryable(),
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
            Self::Handshake { error, .. } => error.io_kind(),
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
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

into_io!(EngineError, ConnectError, DialError, ListenError);
