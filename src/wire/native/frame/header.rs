//! The eight bytes before every payload, and the checks on them alone.

use super::error::FrameError;
use super::id::StreamId;
use super::kind::{Kind, Place, flag};
use super::lengths::{CALL_FIXED_LEN, ENTRY_LEN, HEADER_LEN, MAX_LENGTH};

/// A header as it is on the wire: four numbers, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of payload, at most [`MAX_LENGTH`].
    pub(crate) length: u32,
    /// Number of the kind, below 16.
    pub(crate) kind: u8,
    /// Flags, below 16; their meaning depends on the kind.
    pub(crate) flags: u8,
    /// 0 for the session.
    pub(crate) stream: u32,
}

/// A usual form of a frame, see [`Header::form`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A message in one frame, which may end its direction.
    WholeMessage,
    Open,
    /// A call of a stream's id, or the answer to one.
    OfCall,
    Other,
}

impl Header {
    /// Reads a header; every eight bytes are one.
    #[inline]
    pub(crate) const fn decode(bytes: [u8; HEADER_LEN]) -> Self {
        // As one number: the compiler would load each byte of an array.
        let word = u64::from_le_bytes(bytes);
        Self {
            length: word as u32 & MAX_LENGTH,
            kind: (word >> 28) as u8 & 0x0F,
            flags: (word >> 24) as u8 & 0x0F,
            stream: (word >> 32) as u32,
        }
    }

    /// Writes a header. A field wider than its place is a bug of the caller and is cut, so that it cannot change
    /// its neighbour.
    #[inline]
    pub(crate) const fn encode(self) -> [u8; HEADER_LEN] {
        debug_assert!(self.length <= MAX_LENGTH && self.kind <= 0x0F && self.flags <= 0x0F);
        let [l0, l1, l2, _] = self.length.to_le_bytes();
        let [s0, s1, s2, s3] = self.stream.to_le_bytes();
        let kind_flags = (self.kind << 4) | (self.flags & 0x0F);
        [l0, l1, l2, kind_flags, s0, s1, s2, s3]
    }

    /// The form of the frame, of those that are usual. Says nothing of its length.
    #[inline]
    pub(crate) const fn form(self) -> Form {
        const DATA: u8 = Kind::Data.bits();
        const OPEN: u8 = Kind::Open.bits();
        const CALL: u8 = Kind::Call.bits();
        const REPLY: u8 = Kind::Reply.bits();
        match self.kind {
            DATA if self.flags & !flag::FIN == flag::END => Form::WholeMessage,
            OPEN => Form::Open,
            CALL | REPLY if self.stream != 0 => Form::OfCall,
            _ => Form::Other,
        }
    }

    /// The stream that it opens, if it is an OPEN and [`check`] finds it right.
    #[inline]
    pub(crate) fn opened(self, max_frame: u32) -> Option<StreamId> {
        let right = self.form() == Form::Open && judge(Kind::Open, self, max_frame).is_ok();
        self.stream_id().filter(|_| right)
    }

    /// A call of a stream's id, or the answer to one.
    #[inline]
    pub(crate) const fn is_of_call(self) -> bool {
        matches!(self.form(), Form::OfCall)
    }

    /// A message of this stream in one frame, which may end its direction.
    #[inline]
    pub(crate) const fn is_message_of(self, stream: u32) -> bool {
        matches!(self.form(), Form::WholeMessage) && self.stream == stream
    }

    /// Of a message, an OPEN or a block: whether its direction ends with it.
    #[inline]
    pub(crate) const fn is_last(self) -> bool {
        self.has(flag::FIN)
    }

    /// The stream, or `None` for the session.
    #[inline]
    pub(crate) const fn stream_id(self) -> Option<StreamId> {
        StreamId::new(self.stream)
    }

    /// The stream of a kind that must have one.
    #[inline]
    pub(super) fn require_stream(self) -> Result<StreamId, FrameError> {
        self.stream_id().ok_or(FrameError::StreamRequired {
            kind: Kind::from_bits(self.kind),
        })
    }

    #[inline]
    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Checks all that a header alone can show, before its payload has arrived or memory was spent on it, and returns
/// the kind. The length is checked first.
///
/// `max_frame` is *this* side's limit for its peer (at least the floor): it bounds DATA and the kinds that this version
/// does not know. The other kinds have bounds of their own below every floor. Of unknown kinds only the
/// length is checked.
///
/// # Errors
///
/// The first rule that the header breaks.
#[inline(always)] // Compiled for the kinds that its callers expect.
pub(crate) fn check(header: Header, max_frame: u32) -> Result<Kind, FrameError> {
    // One set of rules, compiled for each of these: where the kind is known most of them fold away.
    const DATA: u8 = Kind::Data.bits();
    const OPEN: u8 = Kind::Open.bits();
    const CALL: u8 = Kind::Call.bits();
    const REPLY: u8 = Kind::Reply.bits();
    match header.kind {
        DATA => judge(Kind::Data, header, max_frame),
        OPEN => judge(Kind::Open, header, max_frame),
        CALL => judge(Kind::Call, header, max_frame),
        REPLY => judge(Kind::Reply, header, max_frame),
        _ => check_rare(header, max_frame),
    }
}

fn check_rare(header: Header, max_frame: u32) -> Result<Kind, FrameError> {
    judge(Kind::from_bits(header.kind), header, max_frame)
}

#[inline(always)]
fn judge(kind: Kind, header: Header, max_frame: u32) -> Result<Kind, FrameError> {
    let rule = kind.rule();
    let limit = rule.longest.min(max_frame);
    let place_is_right = match rule.place {
        Place::Stream => header.stream != 0,
        Place::Session => header.stream == 0,
        Place::Any => true,
    };
    let shape_is_right = match kind {
        Kind::Data => header.length > 0 || header.flags != 0,
        Kind::Settings => header.length.is_multiple_of(ENTRY_LEN),
        Kind::Window => header.stream == 0 || !header.has(flag::STREAMS),
        // Of the session it is empty; of a stream it has no flag, and the length of its opening block.
        Kind::Call => match header.stream {
            0 => header.length == 0,
            _ => header.flags == 0 && header.length >= CALL_FIXED_LEN,
        },
        _ => true,
    };
    let right = header.length <= limit
        && header.length >= rule.shortest
        && header.flags & !rule.flags == 0
        && place_is_right
        && shape_is_right;
    if right {
        Ok(kind)
    } else {
        Err(explain(header, kind, limit))
    }
}

/// Names the rule that [`judge`] found broken.
#[cold]
fn explain(header: Header, kind: Kind, limit: u32) -> FrameError {
    let rule = kind.rule();
    let Header {
        length,
        flags,
        stream,
        ..
    } = header;
    if length > limit {
        FrameError::TooLong {
            kind,
            length,
            limit,
        }
    } else if length < rule.shortest {
        FrameError::TooShort {
            kind,
            length,
            least: rule.shortest,
        }
    } else if flags & !rule.flags != 0 {
        FrameError::UnknownFlags {
            kind,
            flags: flags & !rule.flags,
        }
    } else {
        match (rule.place, StreamId::new(stream)) {
            (Place::Stream, None) => FrameError::StreamRequired { kind },
            (Place::Session, Some(stream)) => FrameError::SessionOnly { kind, stream },
            (_, None) if kind == Kind::Call => FrameError::TooLong {
                kind,
                length,
                limit: 0,
            },
            (_, Some(_)) if kind == Kind::Call && flags != 0 => {
                FrameError::UnknownFlags { kind, flags }
            }
            (_, Some(_)) if kind == Kind::Call => FrameError::TooShort {
                kind,
                length,
                least: CALL_FIXED_LEN,
            },
            (_, Some(stream)) if kind == Kind::Window => FrameError::StreamsOnStream { stream },
            (_, Some(stream)) => FrameError::EmptyData { stream },
            (_, None) => FrameError::SettingsLength { length },
        }
    }
}
