//! Why a connection did not come about: what, where, what to do.

use std::io;

use crate::addr::{Addr, AddrError, Driver};
use crate::driver::uring::Refusal;
use crate::error::SessionError;

/// Why an [`Engine`](crate::Engine) could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The driver does not work here.
    #[error("the driver {driver} cannot start: {source}{}", hint(*driver, source))]
    Unavailable {
        /// Which one.
        driver: Driver,
        /// What the system said.
        source: io::Error,
    },
    /// [`Driver::Uring`] has been tried and does not work here.
    #[error("the driver uring cannot start: {}; {}", .0, .0.remedy())]
    Refused(#[from] Refusal),
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

impl EngineError {
    pub(super) fn unavailable(driver: Driver) -> impl Fn(io::Error) -> Self + Copy + Send {
        move |source| Self::Unavailable { driver, source }
    }
}

fn hint(driver: Driver, source: &io::Error) -> &'static str {
    match (driver, source.kind()) {
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
    #[error("cannot connect to {addr}: {source}")]
    Io {
        /// Where.
        addr: Addr,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody was reached who does not speak this protocol, or not in time.
    #[error("connected to {addr}, but no session came about: {source}")]
    Handshake {
        /// Where.
        addr: Addr,
        /// How the session ended.
        source: SessionError,
    },
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
    #[error("cannot listen on {addr}: {source}")]
    Io {
        /// Where.
        addr: Addr,
        /// What the system said.
        source: io::Error,
    },
}
