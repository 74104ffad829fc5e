//! DATA: messages and their pieces, and their cost.

use super::error::FrameError;
use super::header::Header;
use super::id::StreamId;
use super::kind::{Kind, flag};
use super::lengths::{HEADER_LEN, saturate};
use super::{Frame, read};

/// The cost of a DATA frame besides its payload, in bytes of credit. It makes bytes and ring slots one budget: a window
/// of `w` bytes cannot hold more than `w / FRAME_COST` frames, however small.
pub(crate) const FRAME_COST: u64 = 256;

/// Bytes of the total at the beginning of the first of several pieces.
pub(crate) const TOTAL_LEN: usize = 4;

// A window divided by it is a number of slots, and rings have a power of two of them.
const _: () = assert!(FRAME_COST.is_power_of_two());

/// The credit that a frame with a payload of this length takes.
#[inline]
pub(crate) const fn cost(payload_len: u32) -> u64 {
    // Widened first: the sum of two u32 cannot overflow a u64, so this never saturates.
    (payload_len as u64).saturating_add(FRAME_COST)
}

/// The credit that a DATA frame takes from its stream and from its session: its [`cost`], or nothing if it is a bare FIN
/// (empty and without END).
#[inline]
pub(crate) const fn data_cost(payload_len: u32, end: bool) -> u64 {
    if payload_len == 0 && !end {
        0
    } else {
        cost(payload_len)
    }
}

/// The header of a DATA frame; the caller puts `length` bytes of payload behind it.
///
/// `length` is within the frame size that the peer allows, and not 0 unless `end` or `fin` is set.
#[inline]
pub(crate) const fn data_header(
    length: u32,
    end: bool,
    fin: bool,
    stream: StreamId,
) -> [u8; HEADER_LEN] {
    debug_assert!(length > 0 || end || fin, "empty DATA without END and FIN");
    Header {
        length,
        kind: Kind::Data.bits(),
        flags: ((end as u8) << 1) | fin as u8,
        stream: stream.get(),
    }
    .encode()
}

/// The total, in bytes, of a message in several pieces. It goes before the content of the first piece, is counted in the
/// payload length of that frame, and does not count itself.
#[inline]
pub(crate) const fn encode_total(total: u32) -> [u8; TOTAL_LEN] {
    total.to_le_bytes()
}

/// Splits the first of several pieces into the total and the beginning of the content.
///
/// # Errors
///
/// [`FrameError::TotalMissing`] if the piece is too short to hold the total.
#[inline]
pub(crate) fn decode_total(piece: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    match piece.split_first_chunk::<TOTAL_LEN>() {
        Some((total, content)) => Ok((u32::from_le_bytes(*total), content)),
        None => Err(FrameError::TotalMissing {
            length: saturate(piece.len()),
        }),
    }
}

#[inline]
pub(super) fn parse(header: Header, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    Ok(Frame::Data {
        stream: header.require_stream()?,
        payload,
        end: header.has(flag::END),
        fin: header.has(flag::FIN),
    })
}

// `data_header` shifts the two flags into place instead of choosing them.
const _: () = assert!(flag::FIN == 1 && flag::END == 1 << 1);
