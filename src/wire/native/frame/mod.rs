//! Bytes to values and back: the frames of the native wire, version 1.
//!
//! ```text
//!  0        3      4               8
//! ┌────────┬──────┬───────────────┬─────────────┐
//! │ length │ kind │    stream     │   payload   │   little-endian; `length` is that of the payload
//! │  u24   │ flags│     u32       │ length bytes│   kind: high half of byte 3, flags: low half
//! └────────┴──────┴───────────────┴─────────────┘
//! ```
//! A receiver goes through three steps, each of them total (any input gives a value or a [`FrameError`]):
//!
//! 1. [`Header::decode`] reads the 8 bytes;
//! 2. [`check`] checks all that a header alone can show, *before* the payload has arrived or memory was spent on it;
//! 3. [`Frame::parse`] borrows the payload and gives the value. Nothing is copied and nothing is allocated.
//!
//! CALL and REPLY (kinds 9 and 10) carry unary calls, see `src/rpc/WIRE.md`; a peer that does not know them is sent none.
//!
//! Extensions that this version does not know are ignored, so that a later one may use them: frames of the kinds 11 to 15, up
//! to the agreed frame size, and ids in SETTINGS, up to 16 KiB of them. Every other deviation is an error: flags,
//! lengths, places, and known settings that occur twice.
//!
//! Rules that depend on earlier frames are not checked here: parity and order of ids, FIN inside a message, credit,
//! SETTINGS first and once. Those are rules of the connection.
//!
//! Architecture invariant: this module imports nothing of the crate, holds no state, does no I/O, and does not panic on
//! any input from the wire. Encoders trust their caller about the length of opaque blocks (debug assertions say which).
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]
#![forbid(unsafe_code)]

use std::num::NonZeroU32;

mod block;
mod call;
mod control;
mod data;
mod error;
mod failure;
mod goaway;
mod header;
mod id;
mod kind;
mod lengths;
pub(crate) mod preface;
#[cfg(any(test, fuzzing))]
pub(crate) mod put;
mod read;
mod settings;

pub(crate) use block::{open_header, put_meta};
pub(crate) use call::{CALL_PREFIX_LEN, CALLS_FRAME_LEN, call_head, put_calls, reply_header};
pub(crate) use control::{
    CANCEL_FRAME_LEN, PING_FRAME_LEN, WINDOW_FRAME_LEN, put_cancel, put_ping, put_window,
};
pub(crate) use data::{
    FRAME_COST, TOTAL_LEN, cost, data_cost, data_header, decode_total, encode_total,
};
pub use error::FrameError;
pub(crate) use failure::put_error;
pub(crate) use goaway::{GOAWAY_FRAME_LEN, put_goaway};
pub(crate) use header::{Form, Header, check};
pub use id::{Role, StreamId};
pub use kind::Kind;
pub(crate) use lengths::{
    HEADER_LEN, MAX_CALL_LEN, MAX_ERROR_DETAILS, MAX_ERROR_MESSAGE, MAX_GOAWAY_DEBUG, MAX_LENGTH,
    MAX_META_BLOCK, MAX_OPEN_BLOCK,
};
pub(crate) use settings::{MAX_FRAME_CEILING, SETTINGS_FRAME_LEN, Settings};

/// One frame, borrowed from the receive buffer.
///
/// A variant holds only what its kind allows: a frame of a stream has a [`StreamId`], a frame of the session has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A message, a piece of one (`end` is false), or a bare FIN.
    Data {
        stream: StreamId,
        payload: &'a [u8],
        /// The payload completes a message; without it more pieces follow, or this is a bare FIN.
        end: bool,
        /// The sender has finished.
        fin: bool,
    },
    /// Opens a stream.
    Open {
        stream: StreamId,
        block: &'a [u8],
        fin: bool,
    },
    /// Ends a stream, after all messages that its sender sent before.
    Error {
        stream: StreamId,
        code: u32,
        message: &'a str,
        details: &'a [u8],
    },
    /// Ends a stream now or, with `stop`, only asks the peer to stop sending.
    Cancel {
        stream: StreamId,
        code: u32,
        stop: bool,
    },
    /// Grants credit.
    Window { scope: Scope, credit: NonZeroU32 },
    /// Asks for an echo, or with `ack` is the echo.
    Ping { opaque: [u8; 8], ack: bool },
    /// The session ends. `last` is the highest id its sender accepted from the other side, `None` if there was none;
    /// with `soon` it is not known yet and always `None`.
    GoAway {
        last: Option<StreamId>,
        code: u32,
        debug: &'a str,
        soon: bool,
    },
    /// The sender's limits for the receiver, every value at or above its floor.
    Settings(Settings),
    /// A block in order with the stream's DATA.
    Meta {
        stream: StreamId,
        block: &'a [u8],
        fin: bool,
    },
    /// A request: its opening block of `opening` bytes, and the rest.
    Call {
        stream: StreamId,
        payload: &'a [u8],
        opening: usize,
    },
    /// The answer to a CALL.
    Reply { stream: StreamId, answer: &'a [u8] },
    /// Whether the sender takes CALLs; a side that has never said so does not.
    Calls { takes: bool },
    /// A frame of a kind (11 to 15) this version does not know: to be ignored.
    Extension(u8),
}

/// The scope of the credit of a WINDOW frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Bytes on the whole session.
    Session,
    /// Further streams that the receiver of the frame may open.
    Streams,
    /// Bytes on one stream.
    Stream(StreamId),
}

impl<'a> Frame<'a> {
    /// Reads the frame that `header` announces from exactly its payload.
    ///
    /// Applies every rule of [`check`] again except the negotiated limit on the length, so that a header which never
    /// went through `check` cannot make a value that the wire does not allow.
    ///
    /// # Errors
    ///
    /// The first rule that the frame breaks; [`FrameError::PayloadLength`] if `payload` is not `header.length` long.
    #[inline]
    pub(crate) fn parse(header: Header, payload: &'a [u8]) -> Result<Self, FrameError> {
        Self::read(check(header, MAX_LENGTH)?, header, payload)
    }

    /// The same for a header that has passed [`check`], which returned `kind`.
    ///
    /// # Errors
    ///
    /// The first rule that the payload breaks; as [`parse`](Self::parse) if it has another length.
    #[inline(always)] // As `check`.
    pub(crate) fn read(kind: Kind, header: Header, payload: &'a [u8]) -> Result<Self, FrameError> {
        if payload.len() != header.length as usize {
            return Err(FrameError::payload_length(kind, header.length, payload));
        }
        match kind {
            Kind::Data => data::parse(header, payload),
            Kind::Open => block::parse_open(header, payload),
            Kind::Call => call::parse_call(header, payload),
            Kind::Reply => call::parse_reply(header, payload),
            other => Self::parse_rare(other, header, payload),
        }
    }

    /// Every kind but messages, openings and calls, kept out of line so that their path stays small where it is inlined.
    fn parse_rare(kind: Kind, header: Header, payload: &'a [u8]) -> Result<Self, FrameError> {
        match kind {
            Kind::Data => data::parse(header, payload),
            Kind::Open => block::parse_open(header, payload),
            Kind::Error => failure::parse(header, payload),
            Kind::Cancel => control::parse_cancel(header, payload),
            Kind::Window => control::parse_window(header, payload),
            Kind::Ping => control::parse_ping(header, payload),
            Kind::GoAway => goaway::parse(header, payload),
            Kind::Settings => Settings::parse(payload).map(Frame::Settings),
            Kind::Meta => block::parse_meta(header, payload),
            Kind::Call => call::parse_call(header, payload),
            Kind::Reply => call::parse_reply(header, payload),
            Kind::Extension(number) => Ok(Frame::Extension(number)),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]
pub(crate) mod tests;
