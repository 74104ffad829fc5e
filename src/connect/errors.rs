//! Why a connection did not come about: what, where, what to do.

use std::io;

use super::dial::DialError;
use crate::addr::{Addr, AddrError, Driver};
use crate::driver::uring::Refusal;
use crate::error::SessionError;

/// Why an [`Engine`](crate::Engine) could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The driver does not work here.
    #[error("the driver {driver} cannot start: {error}{}", hint(*driver, error))]
    Unavailable {
        /// Which one.
        driver: Driver,
        /// What the system said.
        error: io::Error,
    },
    /// [`Driver::Uring`] has been tried and does not work here.
    #[error("the driver uring cannot start: {}; {}", .0, .0.remedy())]
    Refused(Refusal),
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
    #[error("cannot connect to {addr}: {error}")]
    Io {
        /// Where.
        addr: Addr,
        /// What the system said; of a name, a [`DialError`] with each address that was tried.
        error: io::Error,
    },
    /// No address of the name took a connection within [`connect_timeout`](crate::ConfigBuilder::connect_timeout).
    #[error("cannot connect to {addr}: {error}")]
    TimedOut {
        /// Where.
        addr: Addr,
        /// The limit, and each address that was tried by then.
        error: DialError,
    },
    /// Somebody was reached who does not speak this protocol, or not in time.
    #[error("connected to {addr}, but no session came about: {error}")]
    Handshake {
        /// Where.
        addr: Addr,
        /// How the session ended.
        error: SessionError,
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
    #[error("cannot listen on {addr}: {error}")]
    Io {
        /// Where.
        addr: Addr,
        /// What the system said.
        error: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::sync::Arc;

    use super::*;
    use crate::driver::uring::ProbeStep;
    use crate::error::{ProtocolError, StreamError};

    #[test]
    fn an_error_is_shown_with_what_it_comes_from_and_its_source_does_not_say_that_again() {
        let addr = || "tcp://host:1".parse().expect("an address");
        let system = || io::Error::from_raw_os_error(libc::ECONNRESET);
        let refusal = || Refusal::Io {
            step: ProbeStep::Nop,
            error: Arc::new(system()),
        };
        let io = SessionError::Io(Arc::new(system()));
        let silent = || DialError::TimedOut {
            limit: std::time::Duration::from_secs(1),
            tried: Vec::new(),
        };
        let errors: [(Box<dyn Error>, &str); 8] = [
            (
                Box::new(ConnectError::TimedOut {
                    addr: addr(),
                    error: silent(),
                }),
                "looked up",
            ),
            (Box::new(io.clone()), "reset"),
            (Box::new(StreamError::NotProcessed(io.clone())), "reset"),
            (
                Box::new(SessionError::from(ProtocolError::SettingsTwice)),
                "SETTINGS",
            ),
            (
                Box::new(ConnectError::Io {
                    addr: addr(),
                    error: system(),
                }),
                "reset",
            ),
            (
                Box::new(ConnectError::Handshake {
                    addr: addr(),
                    error: io,
                }),
                "reset",
            ),
            (
                Box::new(ListenError::Io {
                    addr: addr(),
                    error: system(),
                }),
                "reset",
            ),
            (
                Box::new(ConnectError::from(EngineError::from(refusal()))),
                "reset",
            ),
        ];
        for (error, cause) in errors {
            let text = error.to_string();
            assert!(text.contains(cause), "{text}");
            let mut source = error.source();
            while let Some(error) = source {
                assert!(!text.contains(&error.to_string()), "{text}; {error}");
                source = error.source();
            }
        }
    }
}
