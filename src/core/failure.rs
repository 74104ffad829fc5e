//! How an application's error travels through a `tx` ring, in order with the messages.
//!
//! ```text
//!   code: u32 LE │ length of the text: u16 LE │ text │ details
//! ```

use bytes::{BufMut, BytesMut};

const FIXED_LEN: usize = 4 + 2;

/// Text longer than 64 KiB is cut; the frame's own limit is lower.
pub(crate) fn encode(code: u32, message: &str, details: &[u8]) -> BytesMut {
    let mut end = message.len().min(usize::from(u16::MAX));
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let message = &message[..end];
    let mut record = BytesMut::with_capacity(FIXED_LEN + message.len() + details.len());
    record.put_u32_le(code);
    record.put_u16_le(message.len() as u16);
    record.put_slice(message.as_bytes());
    record.put_slice(details);
    record
}

/// The parts of what [`encode`] made; anything else gives an empty error.
pub(crate) fn decode(record: &[u8]) -> (u32, &str, &[u8]) {
    let parts = || {
        let (code, rest) = record.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (message, details) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        Some((
            u32::from_le_bytes(*code),
            std::str::from_utf8(message).ok()?,
            details,
        ))
    };
    parts().unwrap_or((0, "", &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_out_as_it_went_in() {
        let record = encode(7, "no such key", b"details");
        assert_eq!(decode(&record), (7, "no such key", &b"details"[..]));
    }

    #[test]
    fn a_text_too_long_for_its_length_field_is_cut_at_a_character() {
        let text = "é".repeat(40_000);
        let record = encode(1, &text, b"d");
        let (_, cut, details) = decode(&record);
        assert!(cut.len() <= usize::from(u16::MAX) && text.starts_with(cut));
        assert_eq!(details, b"d");
    }
}
