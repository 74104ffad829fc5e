//! GOAWAY: the session ends, with the last stream that its sender has accepted.

use bytes::BufMut;

use super::Frame;
use super::error::FrameError;
use super::header::Header;
use super::id::StreamId;
use super::kind::{Kind, flag};
use super::lengths::{GOAWAY_FIXED_LEN, HEADER_LEN, MAX_GOAWAY_DEBUG, saturate};
use super::read;

/// Length of a GOAWAY frame without text.
pub(crate) const GOAWAY_FRAME_LEN: usize = HEADER_LEN + GOAWAY_FIXED_LEN as usize;

/// Appends a GOAWAY frame. With `soon` the last id is not known yet and 0 is written instead of `last`. Debug text
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
        length: GOAWAY_FIXED_LEN.saturating_add(saturate(debug.len())),
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
