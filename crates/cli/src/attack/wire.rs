//! The wire format, byte by byte, so that its rules can be broken.
//!
//! Independent of the library's codec, which cannot break a rule.

pub(super) const DATA: u8 = 0;
pub(super) const OPEN: u8 = 1;
pub(super) const ERROR: u8 = 2;
pub(super) const CANCEL: u8 = 3;
pub(super) const WINDOW: u8 = 4;
pub(super) const PING: u8 = 5;
pub(super) const GOAWAY: u8 = 6;
pub(super) const SETTINGS: u8 = 7;
pub(super) const META: u8 = 8;
pub(super) const CALL: u8 = 9;
pub(super) const REPLY: u8 = 10;
/// The first kind that has no meaning yet.
pub(super) const EXTENSION: u8 = 11;

pub(super) const FIN: u8 = 1;
pub(super) const END: u8 = 2;
pub(super) const ACK: u8 = 1;
pub(super) const STREAMS: u8 = 1;
/// Of a CALL without a stream: its sender takes no calls any more.
pub(super) const NONE: u8 = 1;

pub(super) const PREFACE: &[u8; 8] = b"RINGMUX\x01";
pub(super) const HEADER_LEN: usize = 8;
/// The longest payload of a CALL.
pub(super) const CALL_MAX: usize = 16 * 1024;
/// Cost of a DATA frame besides its payload, in bytes of credit.
pub(super) const FRAME_COST: i64 = 256;

/// Appends one frame, valid or not.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    header(out, kind, flags, stream, payload.len() as u32);
    out.extend_from_slice(payload);
}

/// Appends a header that announces so many bytes.
pub(super) fn header(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: u32) {
    out.extend_from_slice(&length.to_le_bytes()[..3]);
    out.push(kind << 4 | flags);
    out.extend_from_slice(&stream.to_le_bytes());
}

/// A received frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Got<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl Got<'_> {
    /// The number that a payload begins with at this byte.
    pub(super) fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// The first received frame and its length, if it is complete.
pub(super) fn first(bytes: &[u8]) -> Option<(Got<'_>, usize)> {
    let head = bytes.first_chunk::<HEADER_LEN>()?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
    let payload = bytes.get(HEADER_LEN..HEADER_LEN + length)?;
    let got = Got {
        kind: head[3] >> 4,
        flags: head[3] & 0xF,
        stream: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
        payload,
    };
    Some((got, HEADER_LEN + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_a_part_of_it_is_not() {
        let mut bytes = Vec::new();
        frame(&mut bytes, WINDOW, STREAMS, 0, &7_u32.to_le_bytes());
        let (got, length) = first(&bytes).expect("a whole frame");
        assert_eq!((got.kind, got.flags, got.stream), (WINDOW, STREAMS, 0));
        assert_eq!((got.number(0), got.number(1)), (Some(7), None));
        assert_eq!(length, bytes.len());
        assert_eq!(first(&bytes[..length - 1]), None);
    }
}
