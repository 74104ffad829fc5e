//! Why a connection did not come about: what, where, what to do.

use std::io;
use std::os::fd::RawFd;

use super::given::SocketError;
use crate::addr::{Addr, AddrError, Driver};
use crate::driver::uring::Refusal;
use crate::error::SessionError;

/// Why an [`Engine`](crate::Engine) could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The driver does not work here.
    #[error("the driver {driver} cannot start: {error}{}{}", semicolon(hint(*driver, error)), hint(*driver, error))]
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
    /// What can be changed about it, if that is known; the text of the error says so as well.
    ///
    /// # Examples
    /// ```
    /// # use ringmux::{EngineError, ProbeStep, Refusal};
    /// let denied = EngineError::Refused(Refusal::NotInKernel);
    /// assert!(denied.to_string().ends_with(denied.remedy().unwrap()));
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

const fn semicolon(hint: &str) -> &'static str {
    if hint.is_empty() { "" } else { "; " }
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
        /// What the system said.
        error: io::Error,
    },
    /// Somebody was reached who does not speak this protocol, or not in time.
    #[error("connected to {addr}, but no session came about: {error}")]
    Handshake {
        /// Where.
        addr: Addr,
        /// How the session ended.
        error: SessionError,
    },
    /// The socket that was given is not what is needed; it has been closed.
    #[error("cannot use descriptor {fd}: {error}")]
    Socket {
        /// The number that it had.
        fd: RawFd,
        /// What is wrong with it.
        error: SocketError,
    },
    /// The other end of a socket that was given does not speak this protocol, or not in time.
    #[error("the socket is connected, but no session came about: {error}")]
    NoSession {
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
    /// The socket that was given is not what is needed; it has been closed.
    #[error("cannot listen on descriptor {fd}: {error}")]
    Socket {
        /// The number that it had.
        fd: RawFd,
        /// What is wrong with it.
        error: SocketError,
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
        let errors: [(Box<dyn Error>, &str); 7] = [
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
