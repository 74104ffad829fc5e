//! Conversion of session and stream errors to `io::Error`, for byte streams: each is inside of its `io::Error`.

use std::io::{self, ErrorKind};

use super::{
    LimitExceeded, OpenError, PingError, Processed, ProtocolError, SendError, SessionError, Side,
    StreamError, TrySendError,
};

/// The change that helps where the process, or the system, is out of descriptors.
pub(crate) const DESCRIPTORS_REMEDY: &str =
    "raise the limit on open files (ulimit -n; systemd: LimitNOFILE=)";

pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl SessionError {
    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Closed | Self::EngineStopped => ErrorKind::NotConnected,
            Self::PeerClosed { .. } | Self::Disconnected => ErrorKind::ConnectionReset,
            Self::Io(error) => error.kind(),
            Self::Protocol(error) => error.io_kind(),
            Self::LimitExceeded(error) => error.io_kind(),
            Self::HandshakeTimeout(_) | Self::KeepaliveTimeout(_) | Self::WriteTimeout(_) => {
                ErrorKind::TimedOut
            }
        }
    }
}

impl PingError {
    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::NotCarried(_) => ErrorKind::Unsupported,
            Self::Session(error) => error.io_kind(),
        }
    }
}

impl StreamError {
    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Failed(_) => ErrorKind::Other,
            Self::Cancelled { by, .. } => match by {
                Side::Peer => ErrorKind::ConnectionReset,
                Side::This => ErrorKind::ConnectionAborted,
            },
            Self::NotProcessed(_) => ErrorKind::ConnectionRefused,
            Self::NotSent { .. } => ErrorKind::ConnectionAborted,
            Self::LimitExceeded(error) => error.io_kind(),
            Self::Session(error) => error.io_kind(),
        }
    }
}

impl SendError {
    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } | Self::TooManyMetas => ErrorKind::InvalidInput,
            Self::NotCarried(_) => ErrorKind::Unsupported,
            Self::Stopped { .. } | Self::Finished => ErrorKind::BrokenPipe,
            Self::Stream(error) => error.io_kind(),
        }
    }
}

impl TrySendError {
    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Full(_) => ErrorKind::WouldBlock,
            Self::Refused { error, .. } => error.io_kind(),
        }
    }
}

impl OpenError {
    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::BlockTooLong { .. } | Self::MessageTooLong { .. } => ErrorKind::InvalidInput,
            Self::NoCredit | Self::TooManyPending { .. } => ErrorKind::WouldBlock,
            Self::NotThisSide => ErrorKind::Unsupported,
            Self::Session(error) => error.io_kind(),
        }
    }
}

impl ProtocolError {
    pub(crate) const fn io_kind(&self) -> ErrorKind {
        ErrorKind::InvalidData
    }
}

impl LimitExceeded {
    /// Whether trying again may succeed without running anything twice: not known.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }

    /// Whether the peer's application can have seen the message.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::Maybe
    }

    pub(crate) const fn io_kind(&self) -> ErrorKind {
        ErrorKind::ConnectionAborted
    }
}

macro_rules! into_io {
    ($($error:ident),+) => {
        $(impl From<$error> for std::io::Error {
            /// The error is inside: see [`get_ref`](std::io::Error::get_ref).
            fn from(error: $error) -> Self {
                Self::new(error.io_kind(), error)
            }
        })+
    };
}

pub(crate) use into_io;

into_io!(
    SessionError,
    PingError,
    StreamError,
    SendError,
    TrySendError,
    OpenError,
    ProtocolError,
    LimitExceeded
);
