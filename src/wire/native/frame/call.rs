//! CALL and REPLY: a request with its opening block, and its answer, one frame each; and whether a side takes calls.

use bytes::BufMut;

use super::Frame;
use super::error::FrameError;
use super::header::Header;
use super::id::StreamId;
use super::kind::{Kind, flag};
use super::lengths::{CALL_FIXED_LEN, HEADER_LEN, MAX_CALL_LEN, MAX_OPEN_BLOCK, saturate};
use super::read;

/// Bytes of a CALL beside the opening block and the request.
pub(crate) const CALL_PREFIX_LEN: usize = CALL_FIXED_LEN as usize;

/// Bytes that [`put_calls`] appends.
pub(crate) const CALLS_FRAME_LEN: usize = HEADER_LEN;

/// Bytes of a CALL before its opening block.
pub(crate) const CALL_HEAD_LEN: usize = HEADER_LEN + CALL_PREFIX_LEN;

/// What a CALL frame begins with; the opening block and the request follow. The caller has refused longer ones.
#[inline]
pub(crate) fn call_head(stream: StreamId, opening: usize, request: usize) -> [u8; CALL_HEAD_LEN] {
    let length = CALL_FIXED_LEN
        .saturating_add(saturate(opening))
        .saturating_add(saturate(request));
    debug_assert!(length <= MAX_CALL_LEN && saturate(opening) <= MAX_OPEN_BLOCK);
    let header = Header {
        length,
        kind: Kind::Call.bits(),
        flags: 0,
        stream: stream.get(),
    };
    let opening = u16::try_from(opening).unwrap_or(u16::MAX);
    let mut head = [0; CALL_HEAD_LEN];
    head[..HEADER_LEN].copy_from_slice(&header.encode());
    head[HEADER_LEN..].copy_from_slice(&opening.to_le_bytes());
    head
}

/// The header of a REPLY frame, before the answer. The caller has refused a longer one.
#[inline]
pub(crate) fn reply_header(stream: StreamId, answer: usize) -> [u8; HEADER_LEN] {
    debug_assert!(saturate(answer) <= MAX_CALL_LEN);
    let header = Header {
        length: saturate(answer),
        kind: Kind::Reply.bits(),
        flags: 0,
        stream: stream.get(),
    };
    header.encode()
}

/// Appends a CALL frame of the session: this side takes calls, or does not any more.
pub(crate) fn put_calls(dst: &mut impl BufMut, takes: bool) {
    let header = Header {
        length: 0,
        kind: Kind::Call.bits(),
        flags: if takes { 0 } else { flag::NONE },
        stream: 0,
    };
    dst.put_slice(&header.encode());
}

#[inline]
pub(super) fn parse_call(header: Header, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let Some(stream) = header.stream_id() else {
        return Ok(Frame::Calls {
            takes: !header.has(flag::NONE),
        });
    };
    let (opening, rest) = read::u16(Kind::Call, payload)?;
    let length = u32::from(opening);
    if length > MAX_OPEN_BLOCK {
        return Err(FrameError::TooLong {
            kind: Kind::Call,
            length,
            limit: MAX_OPEN_BLOCK,
        });
    }
    let opening = usize::from(opening);
    if opening > rest.len() {
        return Err(FrameError::Truncated {
            kind: Kind::Call,
            needed: length,
            left: saturate(rest.len()),
        });
    }
    Ok(Frame::Call {
        stream,
        payload: rest,
        opening,
    })
}

#[inline]
pub(super) fn parse_reply(header: Header, answer: &[u8]) -> Result<Frame<'_>, FrameError> {
    Ok(Frame::Reply {
        stream: header.require_stream()?,
        answer,
    })
}
