//! Errors of callers, and of attempts to get a session.

use std::io::ErrorKind;
use std::time::Duration;

use crate::connect::{ConnectError, ListenError};
use crate::error::{Processed, SessionError, into_io};
use crate::sync::Arc;

/// An error of the application's, from a hook or a provider of its own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a manager returned no session. In no case has the call reached the peer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManageError {
    /// The manager was closed, its last handle was dropped, or its task ended or belongs to the parent of this forked
    /// process.
    #[error("the session manager is shutting down")]
    ShuttingDown,
    /// No session within the caller's time limit.
    #[error("no session within {waited:?}")]
    NotReady {
        /// The time limit.
        waited: Duration,
        /// Why the last attempt failed, if one has since the last session.
        #[source]
        last: Option<Arc<ProvideError>>,
    },
    /// The number of waiting callers is at its limit.
    #[error("{limit} callers wait for a session already: raise max_waiting or call less")]
    TooManyWaiting {
        /// [`max_waiting`](super::ManagerBuilder::max_waiting).
        limit: u32,
    },
    /// [`start`](super::Manager::start) was not called yet, so there is no task to make a session.
    #[error("the session manager was not started: spawn the future that `start` returns")]
    NotStarted,
    /// A manager's or outbox's task, or a caller with a time limit, was polled where there is no tokio runtime with time enabled.
    /// The manager of such a task is closed; all its callers get this error.
    #[error(
        "session managers need a tokio runtime with time enabled: there was none where this was polled"
    )]
    NoRuntime,
    /// [`start`](super::Manager::start) was called before.
    #[error("the session manager was started before")]
    AlreadyStarted,
}

impl ManageError {
    /// Whether the peer can have processed the call: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        // `NotStarted` is returned at once: retrying without a start would spin.
        matches!(self, Self::NotReady { .. } | Self::TooManyWaiting { .. })
    }

    pub(crate) const fn io_kind(&self) -> ErrorKind {
        match self {
            Self::ShuttingDown => ErrorKind::NotConnected,
            Self::NotReady { .. } => ErrorKind::TimedOut,
            Self::TooManyWaiting { .. } => ErrorKind::WouldBlock,
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// Why an attempt to get a session failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvideError {
    /// Connecting failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The listener has ended.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The attempt took too long.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// The session ended before it was ready.
    #[error("the session ended before it was ready")]
    Ended(#[source] SessionError),
    /// The hook for new sessions failed.
    #[error("the hook for new sessions failed")]
    Hook(#[source] BoxError),
    /// The hook for new sessions took too long.
    #[error("the hook for new sessions took more than {0:?}")]
    HookTimedOut(Duration),
    /// The hook for new sessions panicked; the session has been closed.
    #[error("the hook for new sessions panicked: {0}")]
    HookPanicked(String),
    /// The provider panicked, or the text of an error of the application's did.
    #[error("the provider of sessions panicked: {0}")]
    Panicked(String),
    /// A provider of the application's failed.
    #[error(transparent)]
    Other(BoxError),
}

impl ProvideError {
    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Listen(error) => error.is_retryable(),
            Self::Ended(error) => error.is_retryable(),
            _ => true,
        }
    }

    pub(super) const fn is_of_the_hook(&self) -> bool {
        matches!(
            self,
            Self::Hook(_) | Self::HookTimedOut(_) | Self::HookPanicked(_)
        )
    }

    pub(super) const fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_) | Self::HookPanicked(_))
    }

    /// Whether the peer can have processed a call: never, as there was no session.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Connect(error) => error.io_kind(),
            Self::Listen(error) => error.io_kind(),
            Self::Ended(error) => error.io_kind(),
            Self::TimedOut(_) | Self::HookTimedOut(_) => ErrorKind::TimedOut,
            _ => ErrorKind::Other,
        }
    }
}

into_io!(ManageError, ProvideError);
