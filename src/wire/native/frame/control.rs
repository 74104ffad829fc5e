//! CANCEL, WINDOW and PING: the frames of one fixed size.

use std::num::NonZeroU32;

use bytes::BufMut;

use super::error::FrameError;
use super::header::Header;
use super::id::StreamId;
use super::kind::{Kind, flag};
use super::lengths::{CANCEL_LEN, HEADER_LEN, PING_LEN, WINDOW_LEN};
use super::{Frame, Scope, read};

/// Bytes that [`put_cancel`] appends.
pub(crate) const CANCEL_FRAME_LEN: usize = HEADER_LEN + CANCEL_LEN as usize;
/// Bytes that [`put_window`] appends.
pub(crate) const WINDOW_FRAME_LEN: usize = HEADER_LEN + WINDOW_LEN as usize;
/// Bytes that [`put_ping`] appends.
pub(crate) const PING_FRAME_LEN: usize = HEADER_LEN + PING_LEN as usize;

/// Appends a CANCEL frame. With `stop` it only asks the peer to stop sending.
#[inline]
pub(crate) fn put_cancel(dst: &mut impl BufMut, stream: StreamId, code: u32, stop: bool) {
    let header = Header {
        length: CANCEL_LEN,
        kind: Kind::Cancel.bits(),
        flags: if stop { flag::STOP } else { 0 },
        stream: stream.get(),
    };
    dst.put_slice(&header.encode());
    dst.put_u32_le(code);
}

/// Appends a WINDOW frame.
#[inline]
pub(crate) fn put_window(dst: &mut impl BufMut, scope: Scope, credit: NonZeroU32) {
    let (flags, stream) = match scope {
        Scope::Session => (0, 0),
        Scope::Streams => (flag::STREAMS, 0),
        Scope::Stream(stream) => (0, stream.get()),
    };
    let header = Header {
        length: WINDOW_LEN,
        kind: Kind::Window.bits(),
        flags,
        stream,
    };
    dst.put_slice(&header.encode());
    dst.put_u32_le(credit.get());
}

/// Appends a PING frame, or with `ack` the answer to one.
#[inline]
pub(crate) fn put_ping(dst: &mut impl BufMut, opaque: [u8; 8], ack: bool) {
    let header = Header {
        length: PING_LEN,
        kind: Kind::Ping.bits(),
        flags: if ack { flag::ACK } else { 0 },
        stream: 0,
    };
    dst.put_slice(&header.encode());
    dst.put_slice(&opaque);
}

pub(super) fn parse_cancel(header: Header, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (code, _) = read::u32(Kind::Cancel, payload)?;
    Ok(Frame::Cancel {
        stream: header.require_stream()?,
        code,
        stop: header.has(flag::STOP),
    })
}

pub(super) fn parse_window(header: Header, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (credit, _) = read::u32(Kind::Window, payload)?;
    let scope = match (header.stream_id(), header.has(flag::STREAMS)) {
        (None, false) => Scope::Session,
        (None, true) => Scope::Streams,
        (Some(stream), false) => Scope::Stream(stream),
        (Some(stream), true) => return Err(FrameError::StreamsOnStream { stream }),
    };
    match NonZeroU32::new(credit) {
        Some(credit) => Ok(Frame::Window { scope, credit }),
        None => Err(FrameError::ZeroCredit {
            stream: header.stream,
        }),
    }
}

pub(super) fn parse_ping(header: Header, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (opaque, _) = read::bytes(Kind::Ping, payload)?;
    Ok(Frame::Ping {
        opaque,
        ack: header.has(flag::ACK),
    })
}
