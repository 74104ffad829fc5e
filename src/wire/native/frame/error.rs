//! One variant for each rule of the wire that a frame alone can break.

use super::id::StreamId;
use super::kind::Kind;

/// A rule of the wire that the peer has broken, with the numbers that show it.
///
/// Each is the end of the session: its text goes into the GOAWAY, its [`rule`](Self::rule) names the counter.
///
/// # Examples
///
/// ```
/// use ringmux::wire::{FrameError, FrameKind};
///
/// let error = FrameError::TooLong { kind: FrameKind::Open, length: 9000, limit: 8192 };
/// assert_eq!(error.to_string(), "OPEN frame of 9000 bytes: at most 8192 are allowed");
/// assert_eq!(error.rule(), "frame-too-long");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A payload is longer than its kind or the agreed frame size allows.
    #[error("{kind} frame of {length} bytes: at most {limit} are allowed")]
    TooLong {
        /// Kind of the frame.
        kind: Kind,
        /// Length of its payload in bytes.
        length: u32,
        /// The most that is allowed.
        limit: u32,
    },
    /// A payload is shorter than the fixed part of its kind.
    #[error("{kind} frame of {length} bytes: at least {least} are needed")]
    TooShort {
        /// Kind of the frame.
        kind: Kind,
        /// Length of its payload in bytes.
        length: u32,
        /// The least that is needed.
        least: u32,
    },
    /// A flag is set that its kind does not have.
    #[error("{kind} frame with unknown flags {flags:#x}: every flag must be known")]
    UnknownFlags {
        /// Kind of the frame.
        kind: Kind,
        /// The flags without a meaning.
        flags: u8,
    },
    /// A kind that belongs to a stream was sent on the session.
    #[error("{kind} frame on stream 0: it must name a stream")]
    StreamRequired {
        /// Kind of the frame.
        kind: Kind,
    },
    /// A kind that belongs to the session was sent on a stream.
    #[error("{kind} frame on stream {stream}: it must be on stream 0")]
    SessionOnly {
        /// Kind of the frame.
        kind: Kind,
        /// The stream it named.
        stream: StreamId,
    },
    /// A DATA frame has no payload, completes no message and ends nothing.
    #[error("empty DATA frame on stream {stream}: without END and FIN it must have a payload")]
    EmptyData {
        /// The stream it named.
        stream: StreamId,
    },
    /// A WINDOW frame for one stream grants streams.
    #[error("WINDOW frame with STREAMS on stream {stream}: the flag is for stream 0 only")]
    StreamsOnStream {
        /// The stream it named.
        stream: StreamId,
    },
    /// A WINDOW frame grants nothing.
    #[error("WINDOW frame of 0 on stream {stream}: credit must not be 0")]
    ZeroCredit {
        /// The stream it named, 0 for the session.
        stream: u32,
    },
    /// The bytes given as a payload are not as many as the header says.
    #[error("{kind} frame with {found} bytes of payload: its header says {length}")]
    PayloadLength {
        /// Kind of the frame.
        kind: Kind,
        /// Length in the header.
        length: u32,
        /// Length of the payload.
        found: u32,
    },
    /// A payload ends inside one of its fields.
    #[error("{kind} frame ends early: a field of {needed} bytes has only {left}")]
    Truncated {
        /// Kind of the frame.
        kind: Kind,
        /// Length of the field in bytes.
        needed: u32,
        /// Bytes left of the payload.
        left: u32,
    },
    /// The message of an ERROR frame is too long.
    #[error("ERROR frame with a message of {length} bytes: at most {limit} are allowed")]
    MessageTooLong {
        /// Length of the message in bytes.
        length: u32,
        /// The most that is allowed.
        limit: u32,
    },
    /// The details of an ERROR frame are too long.
    #[error("ERROR frame with details of {length} bytes: at most {limit} are allowed")]
    DetailsTooLong {
        /// Length of the details in bytes.
        length: u32,
        /// The most that is allowed.
        limit: u32,
    },
    /// The text of an ERROR or a GOAWAY is not UTF-8.
    #[error("{kind} frame with text that is wrong after byte {valid}: it must be UTF-8")]
    NotUtf8 {
        /// Kind of the frame.
        kind: Kind,
        /// Length of the valid prefix in bytes.
        valid: u32,
    },
    /// The first of several pieces is too short to hold the total.
    #[error("first piece of {length} bytes: it must begin with the total of 4 bytes")]
    TotalMissing {
        /// Length of the piece in bytes.
        length: u32,
    },
    /// The payload of a SETTINGS frame is not a whole number of entries.
    #[error("SETTINGS frame of {length} bytes: it must be a multiple of 6")]
    SettingsLength {
        /// Length of its payload in bytes.
        length: u32,
    },
    /// A known id occurs twice in a SETTINGS frame. Unknown ids may repeat.
    #[error("setting {id} comes twice: each may come once")]
    SettingTwice {
        /// The id.
        id: u16,
    },
    /// A setting is below its floor, the value in force without it.
    #[error("setting {id} is {value}, below its floor {floor}: a value may only raise it")]
    SettingBelowFloor {
        /// The id.
        id: u16,
        /// Its value.
        value: u32,
        /// The least that is allowed.
        floor: u32,
    },
    /// A setting is above its ceiling.
    #[error("setting {id} is {value}: at most {ceiling} is allowed")]
    SettingAboveCeiling {
        /// The id.
        id: u16,
        /// Its value.
        value: u32,
        /// The most that is allowed.
        ceiling: u32,
    },
    /// The first bytes of the peer are not the preface of this wire.
    #[error("byte {at} of the preface is {found:#04x}: it must spell RINGMUX")]
    BadPreface {
        /// Place of the first wrong byte, from 0.
        at: u8,
        /// The byte there.
        found: u8,
    },
    /// The preface names an unknown version.
    #[error("version {version} in the preface: there is no such version")]
    BadVersion {
        /// The version.
        version: u8,
    },
}

impl FrameError {
    /// The short name of the rule, for counters and texts: it stays the same in later versions.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "frame-too-long",
            Self::TooShort { .. } => "frame-too-short",
            Self::UnknownFlags { .. } => "unknown-flags",
            Self::StreamRequired { .. } => "stream-required",
            Self::SessionOnly { .. } => "session-only",
            Self::EmptyData { .. } => "empty-data",
            Self::StreamsOnStream { .. } => "streams-on-stream",
            Self::ZeroCredit { .. } => "zero-credit",
            Self::PayloadLength { .. } => "payload-length",
            Self::Truncated { .. } => "frame-truncated",
            Self::MessageTooLong { .. } => "error-message-too-long",
            Self::DetailsTooLong { .. } => "error-details-too-long",
            Self::NotUtf8 { .. } => "text-not-utf8",
            Self::TotalMissing { .. } => "total-missing",
            Self::SettingsLength { .. } => "settings-length",
            Self::SettingTwice { .. } => "setting-twice",
            Self::SettingBelowFloor { .. } => "setting-below-floor",
            Self::SettingAboveCeiling { .. } => "setting-above-ceiling",
            Self::BadPreface { .. } => "bad-preface",
            Self::BadVersion { .. } => "bad-version",
        }
    }

    #[cold]
    pub(super) fn payload_length(kind: Kind, length: u32, payload: &[u8]) -> Self {
        Self::PayloadLength {
            kind,
            length,
            found: super::lengths::saturate(payload.len()),
        }
    }
}
