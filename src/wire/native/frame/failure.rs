//! ERROR: the end of a stream with a reason, after all messages sent before.

use bytes::BufMut;

use super::Frame;
use super::error::FrameError;
use super::header::Header;
use super::id::StreamId;
use super::kind::Kind;
use super::lengths::{ERROR_FIXED_LEN, MAX_ERROR_DETAILS, MAX_ERROR_MESSAGE, saturate};
use super::read;

/// Appends an ERROR frame. A message longer than [`MAX_ERROR_MESSAGE`] is cut at the last character that fits; the
/// details are at most [`MAX_ERROR_DETAILS`] long: the caller has refused longer ones.
pub(crate) fn put_error(
    dst: &mut impl BufMut,
    stream: StreamId,
    code: u32,
    message: &str,
    details: &[u8],
) {
    debug_assert!(saturate(details.len()) <= MAX_ERROR_DETAILS);
    let message = read::clip(message, MAX_ERROR_MESSAGE);
    let message_len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let header = Header {
        length: ERROR_FIXED_LEN
            .saturating_add(u32::from(message_len))
            .saturating_add(saturate(details.len())),
        kind: Kind::Error.bits(),
        flags: 0,
        stream: stream.get(),
    };
    dst.put_slice(&header.encode());
    dst.put_u32_le(code);
    dst.put_u16_le(message_len);
    dst.put_slice(message.as_bytes());
    dst.put_slice(details);
}

pub(super) fn parse(header: Header, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    const KIND: Kind = Kind::Error;
    let stream = header.require_stream()?;
    let (code, rest) = read::u32(KIND, payload)?;
    let (message_len, rest) = read::u16(KIND, rest)?;
    let length = u32::from(message_len);
    if length > MAX_ERROR_MESSAGE {
        return Err(FrameError::MessageTooLong {
            length,
            limit: MAX_ERROR_MESSAGE,
        });
    }
    let Some((message, details)) = rest.split_at_checked(usize::from(message_len)) else {
        return Err(FrameError::Truncated {
            kind: KIND,
            needed: length,
            left: saturate(rest.len()),
        });
    };
    let length = saturate(details.len());
    if length > MAX_ERROR_DETAILS {
        return Err(FrameError::DetailsTooLong {
            length,
            limit: MAX_ERROR_DETAILS,
        });
    }
    Ok(Frame::Error {
        stream,
        code,
        message: read::text(KIND, message)?,
        details,
    })
}
