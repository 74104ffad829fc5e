//! Splits integers and text off the front of a payload.

use super::error::FrameError;
use super::kind::Kind;
use super::lengths::saturate;

/// Splits `N` bytes off the front of the rest of a payload of this `kind`.
#[inline]
pub(super) fn bytes<const N: usize>(
    kind: Kind,
    payload: &[u8],
) -> Result<([u8; N], &[u8]), FrameError> {
    match payload.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((*head, rest)),
        None => Err(FrameError::Truncated {
            kind,
            needed: saturate(N),
            left: saturate(payload.len()),
        }),
    }
}

/// Splits a `u32` off the front.
#[inline]
pub(super) fn u32(kind: Kind, payload: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    let (head, rest) = bytes(kind, payload)?;
    Ok((u32::from_le_bytes(head), rest))
}

/// Splits a `u16` off the front.
#[inline]
pub(super) fn u16(kind: Kind, payload: &[u8]) -> Result<(u16, &[u8]), FrameError> {
    let (head, rest) = bytes(kind, payload)?;
    Ok((u16::from_le_bytes(head), rest))
}

/// Interprets all of `bytes` as text.
pub(super) fn text(kind: Kind, bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|error| FrameError::NotUtf8 {
        kind,
        valid: saturate(error.valid_up_to()),
    })
}

/// The longest beginning of `text` that has at most `limit` bytes and does not cut a character.
pub(super) fn clip(text: &str, limit: u32) -> &str {
    let mut end = text.len().min(limit as usize);
    loop {
        match text.get(..end) {
            Some(clipped) => return clipped,
            None => end = end.saturating_sub(1),
        }
    }
}
