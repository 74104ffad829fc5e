//! What the core refuses, in the words of this wire.

use super::frame::StreamId;
use crate::core::Violation;
use crate::error::ProtocolError;

/// The rule that was broken by a frame of this stream.
#[cold]
pub(super) const fn of_stream(id: StreamId, violation: Violation) -> ProtocolError {
    match violation {
        Violation::AfterEnd => ProtocolError::AfterEnd { id },
        Violation::EndInsideMessage => ProtocolError::FinInsideMessage { id },
        Violation::StreamCredit { cost, credit } => {
            ProtocolError::StreamCredit { id, cost, credit }
        }
        Violation::SessionCredit { cost, credit } => ProtocolError::SessionCredit { cost, credit },
        Violation::CreditOverflow { credit } => ProtocolError::CreditOverflow {
            stream: id.get(),
            credit,
        },
        Violation::MessageTooLong { total, limit } => {
            ProtocolError::MessageTooLong { id, total, limit }
        }
        Violation::PiecesMismatch { total } => ProtocolError::PiecesMismatch { id, total },
        Violation::BlockOutOfPlace => ProtocolError::MetaOutOfPlace { id },
        Violation::TooManyStreams { limit } => ProtocolError::TooManyStreams { id, limit },
    }
}
