//! What a peer may not do, whatever the wire. Each wire says it in the words of its own errors.

/// A rule of streams or credit that a peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Something came after the peer's end of the direction.
    AfterEnd,
    /// The direction ended inside a message.
    EndInsideMessage,
    /// More than the stream's credit.
    StreamCredit { cost: u64, credit: u64 },
    /// More than the session's credit.
    SessionCredit { cost: u64, credit: u64 },
    /// A grant that takes a credit above 2^32 - 1.
    CreditOverflow { credit: u32 },
    /// A message above the limit.
    MessageTooLong { total: u64, limit: u32 },
    /// The pieces of a message do not add up to its size.
    PiecesMismatch { total: u32 },
    /// A block between messages more than twice, or inside a message.
    BlockOutOfPlace,
    /// More streams at once than were granted.
    TooManyStreams { limit: u32 },
}
