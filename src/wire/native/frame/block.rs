//! OPEN and META: an opaque block of a layer above, in order with the DATA of its stream.

use bytes::BufMut;

use super::Frame;
use super::error::FrameError;
use super::header::Header;
use super::id::StreamId;
use super::kind::{Kind, flag};
use super::lengths::{HEADER_LEN, MAX_META_BLOCK, MAX_OPEN_BLOCK, saturate};

/// The header of an OPEN frame; the caller puts the block of `len` bytes behind it. It is at most [`MAX_OPEN_BLOCK`] long: the
/// caller has refused a longer one.
#[inline]
pub(crate) fn open_header(stream: StreamId, len: usize, fin: bool) -> [u8; HEADER_LEN] {
    debug_assert!(saturate(len) <= MAX_OPEN_BLOCK);
    header(Kind::Open, stream, len, fin)
}

/// Appends a META frame. The block is at most [`MAX_META_BLOCK`] long: the caller has refused a longer one.
pub(crate) fn put_meta(dst: &mut impl BufMut, stream: StreamId, block: &[u8], fin: bool) {
    debug_assert!(saturate(block.len()) <= MAX_META_BLOCK);
    dst.put_slice(&header(Kind::Meta, stream, block.len(), fin));
    dst.put_slice(block);
}

#[inline]
fn header(kind: Kind, stream: StreamId, len: usize, fin: bool) -> [u8; HEADER_LEN] {
    Header {
        length: saturate(len),
        kind: kind.bits(),
        flags: if fin { flag::FIN } else { 0 },
        stream: stream.get(),
    }
    .encode()
}

pub(super) fn parse_open(header: Header, block: &[u8]) -> Result<Frame<'_>, FrameError> {
    Ok(Frame::Open {
        stream: header.require_stream()?,
        block,
        fin: header.has(flag::FIN),
    })
}

pub(super) fn parse_meta(header: Header, block: &[u8]) -> Result<Frame<'_>, FrameError> {
    Ok(Frame::Meta {
        stream: header.require_stream()?,
        block,
        fin: header.has(flag::FIN),
    })
}
