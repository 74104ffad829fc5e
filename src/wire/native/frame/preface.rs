//! The first eight bytes of each side: seven that say "ringmux", one for the version.
//!
//! The accepting side also tells other dialects apart by them, so a beginning can be judged byte by byte with
//! [`check_prefix`] before all eight are there.

use super::error::FrameError;

/// Bytes of a preface.
pub(crate) const PREFACE_LEN: usize = 8;

/// The version of the wire that this code speaks.
pub(crate) const VERSION: u8 = 1;

const MAGIC: [u8; 7] = *b"RINGMUX";

const _: () = {
    assert!(MAGIC.len() + 1 == PREFACE_LEN);
    assert!(VERSION > 0);
};

/// Writes a preface. The dialling side writes [`VERSION`], the accepting side what [`negotiate`] gave.
#[inline]
pub(crate) const fn encode(version: u8) -> [u8; PREFACE_LEN] {
    let [r, i, n, g, m, u, x] = MAGIC;
    [r, i, n, g, m, u, x, version]
}

/// Reads a preface and gives the version in it, at least 1.
///
/// # Errors
///
/// [`FrameError::BadPreface`] with the first byte that is wrong, [`FrameError::BadVersion`] for version 0.
pub(crate) fn parse(bytes: &[u8; PREFACE_LEN]) -> Result<u8, FrameError> {
    check_prefix(bytes)?;
    let [.., version] = *bytes;
    Ok(version)
}

/// Judges the bytes received so far; of more than eight only the first eight count. Nothing is wrong with none.
///
/// # Errors
///
/// As [`parse`], at the first wrong byte.
pub(crate) fn check_prefix(bytes: &[u8]) -> Result<(), FrameError> {
    let wrong = (0u8..)
        .zip(bytes.iter().zip(MAGIC))
        .find(|&(_, (&found, expected))| found != expected);
    if let Some((at, (&found, _))) = wrong {
        return Err(FrameError::BadPreface { at, found });
    }
    match bytes.get(MAGIC.len()) {
        Some(0) => Err(FrameError::BadVersion { version: 0 }),
        _ => Ok(()),
    }
}

/// Whether the bytes received so far can be the beginning of a preface.
pub(crate) fn is_prefix(bytes: &[u8]) -> bool {
    check_prefix(bytes).is_ok()
}

/// The version that both sides speak when the peer's preface says `theirs`: the lower of the two.
#[inline]
pub(crate) const fn negotiate(theirs: u8) -> u8 {
    if theirs < VERSION { theirs } else { VERSION }
}
