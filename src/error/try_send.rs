//! Why a message was not taken that would have had to wait.

use bytes::Bytes;

use super::{Processed, SendError};

/// Why [`try_send`](crate::SendStream::try_send) did not take a message; contains the message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The stream's queue is full for now, or the peer has not yet announced its limit for long messages.
    #[error("the stream's send queue is full")]
    Full(Bytes),
    /// The message can never be sent on this stream.
    #[error("the message was refused")]
    Refused {
        /// The message.
        message: Bytes,
        /// The reason.
        #[source]
        error: SendError,
    },
}

impl TrySendError {
    /// Whether trying again may succeed: on the same stream if it was [`Full`](Self::Full), else as the
    /// [`SendError`] says.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Refused { error, .. } => error.is_retryable(),
        }
    }

    /// Whether the peer's application can have seen the message.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        match self {
            Self::Full(_) => Processed::No,
            Self::Refused { error, .. } => error.was_processed(),
        }
    }

    /// The message that was not sent.
    #[must_use]
    pub fn into_message(self) -> Bytes {
        match self {
            Self::Full(message) | Self::Refused { message, .. } => message,
        }
    }
}
