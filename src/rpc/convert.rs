//! What each error of the transport is as a status.

use super::code::Code;
use super::metadata::MetadataError;
use super::status::Status;
use super::wire::decode_status;
use crate::connect::{ConnectError, EngineError};
use crate::error::codes;
use crate::error::{
    Chain, LimitExceeded, NotCarried, OpenError, PingError, Processed, ProtocolError, SendError,
    SessionError, Side, StreamError,
};
#[cfg(feature = "manage")]
use crate::manage::ManageError;

fn text(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}

impl From<NotCarried> for Status {
    /// Unimplemented; the peer has seen nothing of it.
    fn from(error: NotCarried) -> Self {
        Self::transport(Code::UNIMPLEMENTED, Processed::No, false, text(&error))
    }
}

impl From<PingError> for Status {
    fn from(error: PingError) -> Self {
        match error {
            PingError::NotCarried(error) => error.into(),
            PingError::Session(error) => error.into(),
        }
    }
}

impl From<SessionError> for Status {
    /// Unavailable; whether the call may have run is as the session says.
    fn from(error: SessionError) -> Self {
        let processed = error.was_processed();
        Self::transport(
            Code::UNAVAILABLE,
            processed,
            error.is_retryable(),
            text(&error),
        )
    }
}

impl From<StreamError> for Status {
    /// [`Failed`](StreamError::Failed) is the status that the peer sent.
    fn from(error: StreamError) -> Self {
        match &error {
            StreamError::Failed(failure) => decode_status(failure),
            StreamError::NotProcessed(reason) => {
                // Closed here is final on this session, and safe to try on another.
                let _ = reason;
                Self::transport(Code::UNAVAILABLE, Processed::No, true, text(&error))
            }
            StreamError::Cancelled { by, code } => cancelled(*by, *code, &error),
            StreamError::NotSent {
                code: codes::DEADLINE,
            } => {
                let text = "the time for the call ran out before it was sent: the session had no credit, or the connection no room";
                Self::library(Code::DEADLINE_EXCEEDED, Processed::No, text)
            }
            StreamError::NotSent { code } => cancelled(Side::This, *code, &error),
            StreamError::LimitExceeded(limit) => (*limit).into(),
            StreamError::Session(reason) => reason.clone().into(),
        }
    }
}

fn cancelled(by: Side, code: u32, error: &StreamError) -> Status {
    let (processed, retry) = (error.was_processed(), error.is_retryable());
    let kind = match (by, code) {
        (Side::Peer, codes::REFUSED | codes::UNAVAILABLE | codes::SHUTDOWN) => Code::UNAVAILABLE,
        (_, codes::LIMIT_EXCEEDED) => Code::RESOURCE_EXHAUSTED,
        (_, codes::DEADLINE) => Code::DEADLINE_EXCEEDED,
        _ => Code::CANCELLED,
    };
    Status::transport(kind, processed, retry, text(error))
}

impl From<LimitExceeded> for Status {
    fn from(error: LimitExceeded) -> Self {
        Self::transport(
            Code::RESOURCE_EXHAUSTED,
            error.was_processed(),
            false,
            text(&error),
        )
    }
}

impl From<SendError> for Status {
    /// A message that is too long is [`Code::RESOURCE_EXHAUSTED`]; a stream that has ended is as it ended.
    fn from(error: SendError) -> Self {
        match error {
            SendError::Stream(error) => error.into(),
            SendError::TooLong { .. } | SendError::TooManyMetas => {
                Self::transport(Code::RESOURCE_EXHAUSTED, Processed::No, false, text(&error))
            }
            SendError::NotCarried(error) => error.into(),
            SendError::Stopped { .. } | SendError::Finished => {
                Self::transport(Code::CANCELLED, error.was_processed(), false, text(&error))
            }
        }
    }
}

impl From<OpenError> for Status {
    fn from(error: OpenError) -> Self {
        let code = match error {
            OpenError::BlockTooLong { .. } => Code::INVALID_ARGUMENT,
            OpenError::MessageTooLong { .. }
            | OpenError::NoCredit
            | OpenError::TooManyPending { .. } => Code::RESOURCE_EXHAUSTED,
            OpenError::NotThisSide => Code::UNIMPLEMENTED,
            OpenError::Session(_) => Code::UNAVAILABLE,
        };
        // A session that was closed is over, and another may take the call.
        let retry =
            error.is_retryable() || matches!(error, OpenError::Session(SessionError::Closed));
        Self::transport(code, Processed::No, retry, text(&error))
    }
}

impl From<ProtocolError> for Status {
    fn from(error: ProtocolError) -> Self {
        Self::transport(Code::INTERNAL, error.was_processed(), false, text(&error))
    }
}

impl From<ConnectError> for Status {
    fn from(error: ConnectError) -> Self {
        Self::transport(
            Code::UNAVAILABLE,
            Processed::No,
            error.is_retryable(),
            text(&error),
        )
    }
}

impl From<EngineError> for Status {
    fn from(error: EngineError) -> Self {
        Self::transport(
            Code::UNAVAILABLE,
            Processed::No,
            error.is_retryable(),
            text(&error),
        )
    }
}

#[cfg(feature = "manage")]
impl From<ManageError> for Status {
    fn from(error: ManageError) -> Self {
        let code = match error {
            ManageError::TooManyWaiting { .. } => Code::RESOURCE_EXHAUSTED,
            ManageError::NotReady { .. } | ManageError::ShuttingDown => Code::UNAVAILABLE,
            _ => Code::FAILED_PRECONDITION,
        };
        Self::transport(code, Processed::No, error.is_retryable(), text(&error))
    }
}

impl From<MetadataError> for Status {
    /// Nothing was sent.
    fn from(error: MetadataError) -> Self {
        let code = match error {
            MetadataError::TooLong { .. } => Code::RESOURCE_EXHAUSTED,
            MetadataError::Key | MetadataError::Malformed => Code::INVALID_ARGUMENT,
            MetadataError::NotCarried(error) => return error.into(),
        };
        Self::library(code, Processed::No, text(&error))
    }
}
