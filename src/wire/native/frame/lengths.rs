//! Lengths and their limits, in bytes: of headers, of the payload of each kind, and of its parts.

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 8;

/// The longest payload that the length field can announce. The accepted length is far less, see [`check`](super::check).
pub(crate) const MAX_LENGTH: u32 = 0x00FF_FFFF;

/// The largest payload of a DATA frame that each side accepts. Every other kind fits it.
pub(super) const MAX_FRAME_FLOOR: u32 = 16 * 1024;

/// The longest opening block, in bytes.
pub(crate) const MAX_OPEN_BLOCK: u32 = 8 * 1024;

/// The longest block of a META frame, in bytes.
pub(crate) const MAX_META_BLOCK: u32 = 8 * 1024;

/// In front of the opening block of a CALL: its length.
pub(super) const CALL_FIXED_LEN: u32 = 2;

/// The longest payload of a CALL or REPLY, in bytes: any peer accepts frames of that length.
pub(crate) const MAX_CALL_LEN: u32 = 16 * 1024;

/// Payload of a CANCEL: the code.
pub(super) const CANCEL_LEN: u32 = 4;
/// Payload of a WINDOW: the credit.
pub(super) const WINDOW_LEN: u32 = 4;
/// Payload of a PING: the bytes to echo.
pub(super) const PING_LEN: u32 = 8;

/// The longest message of an ERROR, in bytes of UTF-8.
pub(crate) const MAX_ERROR_MESSAGE: u32 = 1024;

/// The longest details of an ERROR, in bytes.
pub(crate) const MAX_ERROR_DETAILS: u32 = 8 * 1024;

/// The code and the length of the message.
pub(super) const ERROR_FIXED_LEN: u32 = 4 + 2;

/// The longest payload of an ERROR.
pub(super) const MAX_ERROR_LEN: u32 = ERROR_FIXED_LEN + MAX_ERROR_MESSAGE + MAX_ERROR_DETAILS;

/// The longest debug text of a GOAWAY, in bytes of UTF-8.
pub(crate) const MAX_GOAWAY_DEBUG: u32 = 256;

/// The last id and the code.
pub(super) const GOAWAY_FIXED_LEN: u32 = 4 + 4;

/// The longest payload of a GOAWAY.
pub(super) const MAX_GOAWAY_LEN: u32 = GOAWAY_FIXED_LEN + MAX_GOAWAY_DEBUG;

/// Bytes of one entry of SETTINGS: a `u16` id and a `u32` value.
pub(super) const ENTRY_LEN: u32 = 2 + 4;

/// The longest payload of a SETTINGS, in bytes: the entries that fit into the smallest frame, 2730 of them.
pub(super) const MAX_SETTINGS_LEN: u32 = MAX_FRAME_FLOOR - MAX_FRAME_FLOOR % ENTRY_LEN;

const _: () = assert!(
    MAX_ERROR_MESSAGE <= u16::MAX as u32,
    "the length of the message is a u16"
);

// Only DATA and extensions depend on the negotiated frame size: every other kind fits the smallest one in any case.
const _: () = {
    assert!(MAX_OPEN_BLOCK <= MAX_FRAME_FLOOR);
    assert!(MAX_META_BLOCK <= MAX_FRAME_FLOOR);
    assert!(MAX_CALL_LEN <= MAX_FRAME_FLOOR);
    assert!(MAX_ERROR_LEN <= MAX_FRAME_FLOOR);
    assert!(MAX_GOAWAY_LEN <= MAX_FRAME_FLOOR);
    assert!(MAX_SETTINGS_LEN <= MAX_FRAME_FLOOR);
    assert!(CANCEL_LEN <= MAX_FRAME_FLOOR);
    assert!(WINDOW_LEN <= MAX_FRAME_FLOOR);
    assert!(PING_LEN <= MAX_FRAME_FLOOR);
};

/// A length as it is shown in errors and written in headers.
#[inline]
pub(super) fn saturate(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
