//! GOAWAY: the session ends, and up to which stream its sender has accepted.

use bytes::BufMut;

use super::Frame;
use super::error::FrameError;
use super::header::{HEADER_LEN, Header};
use super::id::StreamId;
use super::kind::{Kind, flag};
use super::read;

/// The longest debug text of a GOAWAY, in bytes of UTF-8.
pub(crate) const MAX_GOAWAY_DEBUG: u32 = 256;

/// The last id and the code.
pub(super) const GOAWAY_FIXED_LEN: u32 = 4 + 4;

/// Bytes that [`put_goaway`] appends for no text.
pub(crate) const GOAWAY_FRAME_LEN: usize = HEADER_LEN + GOAWAY_FIXED_LEN as usize;

/// The longest payload of a GOAWAY.
pub(super) const MAX_GOAWAY_LEN: u32 = GOAWAY_FIXED_LEN + MAX_GOAWAY_DEBUG;

/// Appends a GOAWAY frame. With `soon` the last id is not known yet and 0 is written whatever `last` says. Debug text
/// longer than [`MAX_GOAWAY_DEBUG`] is cut at the last character that fits.
pub(crate) fn put_goaway(
    dst: &mut impl BufMut,
    last: Option<StreamId>,
    code: u32,
    debug: &str,
    soon: bool,
) {
    let debug = read::clip(debug, MAX_GOAWAY_DEBUG);
    let header = Header {
        length: GOAWAY_FIXED_LEN.saturating_add(read::saturate(debug.len())),
        kind: Kind::GoAway.bits(),
        flags: if soon { flag::SOON } else { 0 },
        stream: 0,
    };
    dst.put_slice(&header.encode());
    dst.put_u32_le(last.filter(|_| !soon).map_or(0, StreamId::get));
    dst.put_u32_le(code);
    dst.put_slice(debug.as_bytes());
}

pub(super) fn parse(header: Header, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    const KIND: Kind = Kind::GoAway;
    let soon = header.has(flag::SOON);
    let (last, rest) = read::u32(KIND, payload)?;
    let (code, debug) = read::u32(KIND, rest)?;
    Ok(Frame::GoAway {
        last: StreamId::new(last).filter(|_| !soon),
        code,
        debug: read::text(KIND, debug)?,
        soon,
    })
}
