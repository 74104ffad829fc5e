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

/// Appends a CALL frame. The caller has refused longer blocks and requests.
pub(crate) fn put_call(dst: &mut impl BufMut, stream: StreamId, opening: &[u8], request: &[u8]) {
    let length = CALL_FIXED_LEN
        .saturating_add(saturate(opening.len()))
        .saturating_add(saturate(request.len()));
    debug_assert!(length <= MAX_CALL_LEN && saturate(opening.len()) <= MAX_OPEN_BLOCK);
    let header = Header {
        length,
        kind: Kind::Call.bits(),
        flags: 0,
        stream: stream.get(),
    };
    dst.put_slice(&header.encode());
    dst.put_u16_le(u16::try_from(opening.len()).unwrap_or(u16::MAX));
    dst.put_slice(opening);
    dst.put_slice(request);
}

/// Appends a REPLY frame. The caller has refused a longer answer.
pub(crate) fn put_reply(dst: &mut impl BufMut, stream: StreamId, answer: &[u8]) {
    debug_assert!(saturate(answer.len()) <= MAX_CALL_LEN);
    let header = Header {
        length: saturate(answer.len()),
        kind: Kind::Reply.bits(),
        flags: 0,
        stream: stream.get(),
    };
    dst.put_slice(&header.encode());
    dst.put_slice(answer);
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

pub(super) fn parse_reply(header: Header, answer: &[u8]) -> Result<Frame<'_>, FrameError> {
    Ok(Frame::Reply {
        stream: header.require_stream()?,
        answer,
    })
}
