//! The texts of errors: the acting side, the action, the reason.

use std::error::Error;
use std::fmt;

use super::{Failure, SendError, SessionError, Side, StreamError};
use crate::error::codes;

/// Shows an error and its chain of sources on one line, for logs.
///
/// The `Display` of an error is its own text only; the sources have the rest.
///
/// # Examples
/// ```
/// use ringmux::{Chain, SessionError, StreamError, wire::ProtocolError};
///
/// let error = StreamError::NotProcessed(SessionError::Protocol(ProtocolError::SettingsTwice));
/// assert_eq!(error.to_string(), "the peer did not process the stream");
/// assert_eq!(
///     Chain(&error).to_string(),
///     "the peer did not process the stream: the peer broke the protocol: \
///      SETTINGS must be sent once, as the first frame"
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Shows a code by name if ringmux defines it, else as a number.
pub(super) struct Code(pub(super) u32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match codes::name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shows the reason behind a code, after the action.
struct Why(u32);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            codes::NO_ERROR | codes::CANCELLED => "",
            codes::PROTOCOL => ": a rule of the protocol was broken",
            codes::INTERNAL => ": it had an internal error",
            codes::REFUSED => ": it was refused",
            codes::LIMIT_EXCEEDED => ": a limit was exceeded",
            codes::SHUTDOWN => ": it is shutting down",
            codes::KEEPALIVE => ": its keepalive timed out",
            codes::DEADLINE => ": its deadline has passed",
            codes::UNAVAILABLE => ": it was at a limit, or is about to end",
            code => return write!(f, " with code {code}"),
        })
    }
}

impl fmt::Display for Side {
    /// As the subject of a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::This => "this side",
            Self::Peer => "the peer",
        })
    }
}

/// The code and text of the peer's GOAWAY.
pub(super) struct Closing<'a>(pub(super) u32, pub(super) &'a str);

impl fmt::Display for Closing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(code, reason) = *self;
        match code {
            codes::NO_ERROR => f.write_str("the peer closed the session in order"),
            codes::SHUTDOWN => f.write_str("the peer closed the session: it is shutting down"),
            codes::PROTOCOL => f.write_str(
                "the peer closed the session: it says that this side broke the protocol",
            ),
            codes::LIMIT_EXCEEDED => f.write_str(
                "the peer closed the session: it says that this side exceeded one of its limits",
            ),
            code => write!(f, "the peer closed the session{}", Why(code)),
        }?;
        match reason {
            "" => Ok(()),
            reason => write!(f, " ({reason})"),
        }
    }
}

/// The text of a cancel.
pub(super) struct Cancelling(pub(super) Side, pub(super) u32);

impl fmt::Display for Cancelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(by, code) = self;
        match *code {
            codes::REFUSED => write!(f, "{by} refused the stream without processing it"),
            codes::UNAVAILABLE => write!(
                f,
                "{by} refused the stream without processing it: a limit was reached, or the session is about to end"
            ),
            codes::LIMIT_EXCEEDED if matches!(by, Side::Peer) => f.write_str(
                "the peer cancelled the stream: a limit of the peer was exceeded, of memory for messages (its settings receive_pool, \
                 session_window_max), of time for one (message_timeout), or of size (max_message); its log names the limit",
            ),
            code => write!(f, "{by} cancelled the stream{}", Why(code)),
        }
    }
}

/// The text of a stop.
pub(super) struct Stopping(pub(super) u32);

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer asked this side to stop sending{}", Why(self.0))
    }
}

// ---- for programmers: as derived, with codes by their names -----------------------------------

impl fmt::Debug for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("Closed"),
            Self::PeerClosed { code, reason } => f
                .debug_struct("PeerClosed")
                .field("code", &Code(*code))
                .field("reason", reason)
                .finish(),
            Self::Disconnected => f.write_str("Disconnected"),
            Self::Io(error) => f.debug_tuple("Io").field(error).finish(),
            Self::Protocol(error) => f.debug_tuple("Protocol").field(error).finish(),
            Self::LimitExceeded(error) => f.debug_tuple("LimitExceeded").field(error).finish(),
            Self::HandshakeTimeout(limit) => {
                f.debug_tuple("HandshakeTimeout").field(limit).finish()
            }
            Self::KeepaliveTimeout(limit) => {
                f.debug_tuple("KeepaliveTimeout").field(limit).finish()
            }
            Self::WriteTimeout(limit) => f.debug_tuple("WriteTimeout").field(limit).finish(),
            Self::EngineStopped => f.write_str("EngineStopped"),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("code", &Code(self.code))
            .field("message", &self.message)
            .field("details", &self.details)
            .finish()
    }
}

impl fmt::Debug for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
            Self::Cancelled { by, code } => f
                .debug_struct("Cancelled")
                .field("by", by)
                .field("code", &Code(*code))
                .finish(),
            Self::NotProcessed(error) => f.debug_tuple("NotProcessed").field(error).finish(),
            Self::NotSent { code } => f
                .debug_struct("NotSent")
                .field("code", &Code(*code))
                .finish(),
            Self::LimitExceeded(error) => f.debug_tuple("LimitExceeded").field(error).finish(),
            Self::Session(error) => f.debug_tuple("Session").field(error).finish(),
        }
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, limit } => f
                .debug_struct("TooLong")
                .field("len", len)
                .field("limit", limit)
                .finish(),
            Self::Stopped { code } => f
                .debug_struct("Stopped")
                .field("code", &Code(*code))
                .finish(),
            Self::TooManyMetas => f.write_str("TooManyMetas"),
            Self::NotCarried(error) => f.debug_tuple("NotCarried").field(error).finish(),
            Self::Finished => f.write_str("Finished"),
            Self::Stream(error) => f.debug_tuple("Stream").field(error).finish(),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the session was closed by this side"),
            Self::PeerClosed { code, reason } => Closing(*code, reason).fmt(f),
            Self::Disconnected => {
                f.write_str("the peer closed the connection without ending the session")
            }
            Self::Io(_) => f.write_str("the connection failed"),
            Self::Protocol(_) => f.write_str("the peer broke the protocol"),
            Self::LimitExceeded(exceeded) => exceeded.fmt(f),
            Self::HandshakeTimeout(limit) => write!(
                f,
                "the peer did not complete the handshake within {limit:?}: is it a ringmux endpoint?"
            ),
            Self::KeepaliveTimeout(limit) => write!(
                f,
                "the peer did not answer a keepalive PING within {limit:?}"
            ),
            Self::WriteTimeout(limit) => write!(
                f,
                "the connection took none of the bytes to be sent for {limit:?}"
            ),
            Self::EngineStopped => f.write_str("the engine that ran the session has stopped"),
        }
    }
}
