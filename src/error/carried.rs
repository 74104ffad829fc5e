//! Abilities of ringmux's wire that others lack.

use super::{Processed, SessionError};

/// A thing that the wire of a session cannot carry; the session and its streams go on. Never from ringmux's own wire.
///
/// # Examples
/// ```
/// use ringmux::{NotCarried, Processed, SendError};
///
/// let error = SendError::from(NotCarried::Meta);
/// assert_eq!((error.is_retryable(), error.was_processed()), (false, Processed::No));
/// assert_eq!(error.to_string(), "this session's wire carries no blocks between messages");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotCarried {
    /// A PING, to measure a round trip.
    #[error("this session's wire has no PING, so no round trip can be measured")]
    Ping,
    /// An opaque block between messages: headers or trailers of an answer.
    #[error("this session's wire carries no blocks between messages")]
    Meta,
    /// Metadata of an answer, which goes in such blocks.
    #[error("this session's wire carries no metadata of an answer")]
    AnswerMetadata,
    /// Metadata of a request with a key that occurs several times.
    #[error("this session's wire carries one value for each key of metadata")]
    RepeatedKey,
}

impl NotCarried {
    /// Whether trying again may succeed: not on this session.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        false
    }

    /// Whether the peer can have seen anything of it: never.
    #[must_use]
    pub const fn was_processed(self) -> Processed {
        Processed::No
    }
}

/// Why a round trip was not measured.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The session's wire has no PING; the session goes on.
    #[error(transparent)]
    NotCarried(#[from] NotCarried),
    /// The session has ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl PingError {
    /// Whether a PING on a new session to the same peer may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NotCarried(error) => error.is_retryable(),
            Self::Session(error) => error.is_retryable(),
        }
    }

    /// Whether the peer's application can have seen messages of the session: as the session says.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        match self {
            Self::NotCarried(error) => error.was_processed(),
            Self::Session(error) => error.was_processed(),
        }
    }
}
