//! OPEN and META: an opaque block of a layer above, in order with the DATA of its stream.

use bytes::BufMut;

use super::Frame;
use super::error::FrameError;
use super::header::Header;
use super::id::StreamId;
use super::kind::{Kind, flag};
use super::lengths::{MAX_META_BLOCK, MAX_OPEN_BLOCK, saturate};

/// Appends an OPEN frame. The block is at most [`MAX_OPEN_BLOCK`] long: the caller has refused a longer one.
pub(crate) fn put_open(dst: &mut impl BufMut, stream: StreamId, block: &[u8], fin: bool) {
    debug_assert!(saturate(block.len()) <= MAX_OPEN_BLOCK);
    put(dst, Kind::Open, stream, block, fin);
}

/// Appends a META frame. The block is at most [`MAX_META_BLOCK`] long: the caller has refused a longer one.
pub(crate) fn put_meta(dst: &mut impl BufMut, stream: StreamId, block: &[u8], fin: bool) {
    debug_assert!(saturate(block.len()) <= MAX_META_BLOCK);
    put(dst, Kind::Meta, stream, block, fin);
}

fn put(dst: &mut impl BufMut, kind: Kind, stream: StreamId, block: &[u8], fin: bool) {
    let header = Header {
        length: saturate(block.len()),
        kind: kind.bits(),
        flags: if fin { flag::FIN } else { 0 },
        stream: stream.get(),
    };
    dst.put_slice(&header.encode());
    dst.put_slice(block);
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
