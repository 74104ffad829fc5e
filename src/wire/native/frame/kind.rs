//! The kinds of frame, and for each the rules that its header alone can break.

use std::fmt;

use super::lengths::{
    CANCEL_LEN, ERROR_FIXED_LEN, GOAWAY_FIXED_LEN, MAX_CALL_LEN, MAX_ERROR_LEN, MAX_GOAWAY_LEN,
    MAX_LENGTH, MAX_META_BLOCK, MAX_OPEN_BLOCK, MAX_SETTINGS_LEN, PING_LEN, WINDOW_LEN,
};

/// The kind of a frame of the native wire, as named in errors.
///
/// # Examples
///
/// ```
/// use ringmux::wire::FrameKind;
///
/// assert_eq!(FrameKind::GoAway.to_string(), "GOAWAY");
/// assert_eq!(FrameKind::Extension(12).to_string(), "extension 12");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A message, a piece of one, or the end of a direction.
    Data,
    /// The opening of a stream.
    Open,
    /// The end of a stream with an error, after all messages sent before.
    Error,
    /// The end of a stream at once, or the request that the peer stops sending.
    Cancel,
    /// A grant of credit.
    Window,
    /// A request for an echo, or the echo.
    Ping,
    /// The announcement that the session ends.
    GoAway,
    /// The limits of one side for the other, once and first.
    Settings,
    /// A block of metadata in order with the messages of a stream.
    Meta,
    /// A request with its opening block, in one frame; or, of the session, whether its sender takes such requests.
    Call,
    /// The answer to a CALL, in one frame.
    Reply,
    /// A number (11 to 15) that this version gives no meaning; such frames are ignored.
    Extension(u8),
}

impl Kind {
    /// Reads the low four bits of `bits`.
    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits & 0x0F {
            0 => Self::Data,
            1 => Self::Open,
            2 => Self::Error,
            3 => Self::Cancel,
            4 => Self::Window,
            5 => Self::Ping,
            6 => Self::GoAway,
            7 => Self::Settings,
            8 => Self::Meta,
            9 => Self::Call,
            10 => Self::Reply,
            number => Self::Extension(number),
        }
    }

    /// The number on the wire, below 16.
    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Open => 1,
            Self::Error => 2,
            Self::Cancel => 3,
            Self::Window => 4,
            Self::Ping => 5,
            Self::GoAway => 6,
            Self::Settings => 7,
            Self::Meta => 8,
            Self::Call => 9,
            Self::Reply => 10,
            Self::Extension(number) => number & 0x0F,
        }
    }

    /// The rules for a header of this kind.
    #[inline]
    pub(super) const fn rule(self) -> Rule {
        match self {
            Self::Data => Rule::new(Place::Stream, flag::END | flag::FIN, 0, MAX_LENGTH),
            Self::Open => Rule::new(Place::Stream, flag::FIN, 0, MAX_OPEN_BLOCK),
            Self::Error => Rule::new(Place::Stream, 0, ERROR_FIXED_LEN, MAX_ERROR_LEN),
            Self::Cancel => Rule::new(Place::Stream, flag::STOP, CANCEL_LEN, CANCEL_LEN),
            Self::Window => Rule::new(Place::Any, flag::STREAMS, WINDOW_LEN, WINDOW_LEN),
            Self::Ping => Rule::new(Place::Session, flag::ACK, PING_LEN, PING_LEN),
            Self::GoAway => Rule::new(Place::Session, flag::SOON, GOAWAY_FIXED_LEN, MAX_GOAWAY_LEN),
            Self::Settings => Rule::new(Place::Session, 0, 0, MAX_SETTINGS_LEN),
            Self::Meta => Rule::new(Place::Stream, flag::FIN, 0, MAX_META_BLOCK),
            Self::Call => Rule::new(Place::Any, flag::NONE, 0, MAX_CALL_LEN),
            Self::Reply => Rule::new(Place::Stream, 0, 0, MAX_CALL_LEN),
            Self::Extension(_) => Rule::new(Place::Any, 0x0F, 0, MAX_LENGTH),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "DATA",
            Self::Open => "OPEN",
            Self::Error => "ERROR",
            Self::Cancel => "CANCEL",
            Self::Window => "WINDOW",
            Self::Ping => "PING",
            Self::GoAway => "GOAWAY",
            Self::Settings => "SETTINGS",
            Self::Meta => "META",
            Self::Call => "CALL",
            Self::Reply => "REPLY",
            Self::Extension(number) => return write!(f, "extension {number}"),
        })
    }
}

/// Bits of the flags, by the name they have in their kind.
pub(super) mod flag {
    /// DATA, OPEN, META: the sender has finished.
    pub(crate) const FIN: u8 = 0x1;
    /// DATA: a message is complete.
    pub(crate) const END: u8 = 0x2;
    /// CANCEL: only asks the peer to stop sending.
    pub(crate) const STOP: u8 = 0x1;
    /// WINDOW: the credit counts streams.
    pub(crate) const STREAMS: u8 = 0x1;
    /// PING: an answer.
    pub(crate) const ACK: u8 = 0x1;
    /// CALL of the session: its sender takes no calls any more.
    pub(crate) const NONE: u8 = 0x1;
    /// GOAWAY: phase one.
    pub(crate) const SOON: u8 = 0x1;
}

/// The values of `stream` that a header may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// 0 only.
    Session,
    /// 1 and above.
    Stream,
    /// Any.
    Any,
}

/// The rules for a header of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) place: Place,
    /// Flags with a meaning.
    pub(super) flags: u8,
    /// Bounds of the payload in bytes, both inclusive.
    pub(super) shortest: u32,
    pub(super) longest: u32,
}

impl Rule {
    const fn new(place: Place, flags: u8, shortest: u32, longest: u32) -> Self {
        Self {
            place,
            flags,
            shortest,
            longest,
        }
    }
}
