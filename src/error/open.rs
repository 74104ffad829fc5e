//! Why a stream was not opened.

use super::{Processed, SessionError};

/// Why a stream could not be opened.
///
/// # Examples
/// ```
/// # use ringmux::{OpenError, Processed, SessionError};
/// let full = OpenError::TooManyPending { limit: 1024 };
/// assert!(full.is_retryable() && full.to_string().contains("max_pending_opens"));
/// let over = OpenError::Session(SessionError::Disconnected);
/// assert!(over.is_retryable(), "on another session");
/// assert_eq!(over.was_processed(), Processed::No);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The opening block is larger than a frame of its kind may be.
    #[error("an opening block of {len} bytes exceeds the limit of {limit}")]
    BlockTooLong {
        /// The block's size, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The first message is larger than the peer accepts; only from `open_with`. If the peer announces its limit only after
    /// the opening, it may see a stream opened and cancelled.
    #[error("a message of {len} bytes exceeds the {limit} that the peer accepts")]
    MessageTooLong {
        /// The message's size, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer has not granted another stream; only from `try_open`.
    #[error("the peer has granted no further stream for now")]
    NoCredit,
    /// Too many calls of `open` already wait for the peer's grant.
    #[error("{limit} calls of open are waiting already: raise max_pending_opens or open less")]
    TooManyPending {
        /// [`max_pending_opens`](crate::ConfigBuilder::max_pending_opens).
        limit: u32,
    },
    /// Over this wire only the side that dialled can open streams.
    #[error("the side that accepted the connection cannot open streams over this wire")]
    NotThisSide,
    /// The session has ended, or takes no new streams. Nothing was sent.
    #[error(transparent)]
    Session(SessionError),
}

impl OpenError {
    /// Whether the peer can have seen the stream: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    /// Whether trying again, perhaps on another session, may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::BlockTooLong { .. } | Self::MessageTooLong { .. } | Self::NotThisSide => false,
            Self::NoCredit | Self::TooManyPending { .. } => true,
            Self::Session(error) => error.is_retryable(),
        }
    }
}
