//! Errors of applications: the two forms of an Error packet, and the codes of this library in either.

use bytes::Bytes;

use crate::drpc::{ErrorForm, StatusDetails, Varint, put_varint};
use crate::error::{Failure, codes};

/// The longest data of an Error that is kept, in bytes; more is cut off.
pub(super) const ERROR_MAX: usize = 24 * 1024;
/// The longest text that is sent or kept, in bytes.
const TEXT_MAX: usize = 16 * 1024;

/// The first byte of the form of CockroachDB.
const STATUS: u8 = 1;
/// The text by which a side of this library says that it takes no more calls, with the code of gRPC for "unavailable".
const SHUTS_DOWN: (u32, &str) = (14, "the server is shutting down and takes no more calls");
/// The same of another server, which a handler passes on: the session that it comes over goes on.
const ANOTHER_SHUTS_DOWN: &str = "another server is shutting down and takes no more calls";

/// The code for errors whose own code is not known.
const UNKNOWN: u32 = 2;

/// Where a text is cut off.
fn text_end(text: &str) -> usize {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

/// The data of an Error of a side that `takes_calls`, or takes no more.
pub(super) fn encode(
    (form, takes_calls): (ErrorForm, bool),
    code: u32,
    text: &str,
    details: &[u8],
) -> Vec<u8> {
    let text = &text[..text_end(text)];
    let details = StatusDetails::decode(details);
    let code = details.code().unwrap_or(code.into());
    let text = match takes_calls && (code, text) == (SHUTS_DOWN.0.into(), SHUTS_DOWN.1) {
        true => ANOTHER_SHUTS_DOWN,
        false => text,
    };
    let mut data = Vec::with_capacity(16 + text.len() + details.fields().len());
    match form {
        ErrorForm::Code => {
            data.extend_from_slice(&code.to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        ErrorForm::Status => {
            data.push(STATUS);
            data.push(0x08);
            // A field of 32 bits with a sign. 0 is no failure for gRPC: CockroachDB's side would see a call without an error.
            let code = i32::try_from(code).ok().filter(|code| *code != 0);
            put_varint(&mut data, code.unwrap_or(UNKNOWN as i32) as u64);
            if !text.is_empty() {
                data.push(0x12);
                put_varint(&mut data, text.len() as u64);
                data.extend_from_slice(text.as_bytes());
            }
            data.extend_from_slice(details.fields());
        }
    }
    data
}

/// The error in these data, in either form; data that have none of them are its text.
pub(super) fn decode(data: &[u8]) -> Failure {
    decode_status(data, false).unwrap_or_else(|| decode_code(data))
}

/// The same of data that were cut off.
pub(super) fn decode_cut(data: &[u8]) -> Failure {
    decode_status(data, true).unwrap_or_else(|| decode_code(data))
}

fn decode_code(data: &[u8]) -> Failure {
    match data.split_first_chunk::<8>() {
        Some((code, text)) => failure(u64::from_be_bytes(*code), text, Vec::new()),
        None => failure(0, data, Vec::new()),
    }
}

/// `None` if it is not a status.
fn decode_status(data: &[u8], cut: bool) -> Option<Failure> {
    let mut rest = data.strip_prefix(&[STATUS])?;
    if !rest
        .first()
        .is_none_or(|tag| matches!(tag, 0x08 | 0x12 | 0x1a))
    {
        return None;
    }
    let (mut code, mut text, mut any) = (0, &[][..], Vec::new());
    while !rest.is_empty() {
        match split_field(rest, cut) {
            Some((Field::Number(0x08, number), behind)) => {
                code = u64::from(number as u32);
                rest = behind;
            }
            Some((Field::Bytes(tag, body), behind)) => {
                match tag {
                    0x12 => text = body,
                    0x1a => any.push(body),
                    _ => {}
                }
                rest = behind;
            }
            Some((_, behind)) => rest = behind,
            None if cut => break,
            None => return None,
        }
    }
    Some(failure(code, text, any))
}

/// A field of a status, with its tag.
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
    Other,
}

/// The first field, and the data behind it. `None`: they are none, or end inside of it. A text may be `cut` off.
fn split_field(data: &[u8], cut: bool) -> Option<(Field<'_>, &[u8])> {
    let (tag, behind) = Varint::split(data)?;
    Some(match tag & 7 {
        0 => {
            let (number, behind) = Varint::split(behind)?;
            (Field::Number(tag, number), behind)
        }
        1 => (Field::Other, behind.get(8..)?),
        2 => {
            let (len, behind) = Varint::split(behind)?;
            let len = usize::try_from(len).ok()?;
            let len = if cut && tag == 0x12 {
                len.min(behind.len())
            } else {
                len
            };
            let (body, behind) = behind.split_at_checked(len)?;
            (Field::Bytes(tag, body), behind)
        }
        5 => (Field::Other, behind.get(4..)?),
        _ => return None,
    })
}

fn failure(code: u64, text: &[u8], any: Vec<&[u8]>) -> Failure {
    let short = u32::try_from(code).ok();
    let short = short.filter(|code| !codes::is_reserved(*code));
    let whole = short.is_none().then_some(code);
    // Characters that stand for bytes without meaning are longer than these.
    let mut message = String::from_utf8_lossy(&text[..text.len().min(TEXT_MAX)]).into_owned();
    message.truncate(text_end(&message));
    message.shrink_to_fit();
    Failure {
        code: short.unwrap_or(UNKNOWN),
        message,
        details: Bytes::from(StatusDetails::encode(whole, any)),
    }
}

/// What the accepting side says of a stream that it cancels with this code.
pub(super) const fn of_code(code: u32) -> (u32, &'static str) {
    match code {
        codes::CANCELLED => (1, "the call was cancelled by the server"),
        codes::DEADLINE => (4, "the time of the call has run out at the server"),
        codes::LIMIT_EXCEEDED => (8, "the call exceeds a limit of the server"),
        codes::REFUSED | codes::UNAVAILABLE => (14, "the call was turned away by the server"),
        codes::SHUTDOWN => SHUTS_DOWN,
        codes::PROTOCOL => (13, "protocol error: a frame of the call breaks a rule"),
        code if codes::is_reserved(code) => (13, "the call failed at the server"),
        code => (code, "the call was cancelled by the server"),
    }
}

/// Whether the peer says so. It tells nothing about the call: a proxy may have passed it on. One of this library says it in
/// [other words](ANOTHER_SHUTS_DOWN).
pub(super) fn shuts_down(failure: &Failure) -> bool {
    (failure.code, &*failure.message) == SHUTS_DOWN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_without_a_code_is_unknown_to_those_who_know_0_as_no_error() {
        let data = encode((ErrorForm::Status, true), 0, "no", b"");
        assert_eq!((decode(&data).code, &data[..3]), (2, &[1, 0x08, 2][..]));
        assert_eq!(
            decode(&encode((ErrorForm::Code, true), 0, "no", b"")).code,
            0
        );
    }

    #[test]
    fn both_forms_are_made_as_captured_and_read() {
        let text = "deliberate failure";
        let code = encode((ErrorForm::Code, true), 42, text, b"");
        assert_eq!(
            code,
            [&[0, 0, 0, 0, 0, 0, 0, 42][..], text.as_bytes()].concat()
        );
        let status = encode((ErrorForm::Status, true), 42, text, b"");
        assert_eq!(
            status,
            [&[1, 8, 42, 0x12, 18][..], text.as_bytes()].concat()
        );
        for data in [code, status] {
            let failure = decode(&data);
            assert_eq!((failure.code, &failure.message[..]), (42, text));
            assert!(failure.details.is_empty());
        }
    }

    #[test]
    fn a_code_that_does_not_fit_is_in_the_details_and_goes_back_whole() {
        for code in [1 << 32, u64::from(codes::CANCELLED), u64::MAX] {
            let failure = decode(&code.to_be_bytes());
            assert_eq!(failure.code, UNKNOWN);
            assert_eq!(StatusDetails::decode(&failure.details).code(), Some(code));
            let back = encode((ErrorForm::Code, true), failure.code, "", &failure.details);
            assert_eq!(back, code.to_be_bytes());
        }
    }

    #[test]
    fn details_of_a_status_are_kept_and_unknown_fields_passed_over() {
        let data = b"\x01\x08\x05\x1a\x02ab\x12\x01t\x1a\x01c\x25\x00\x00\x00\x00\x30\x01";
        let failure = decode(data);
        assert_eq!((failure.code, &failure.message[..]), (5, "t"));
        assert_eq!(&failure.details[..], b"\x1a\x02ab\x1a\x01c");
        let back = encode((ErrorForm::Status, true), 5, "t", &failure.details);
        assert_eq!(back, b"\x01\x08\x05\x12\x01t\x1a\x02ab\x1a\x01c");
    }

    #[test]
    fn data_in_neither_form_are_a_text_with_code_0() {
        for data in [&b""[..], b"short", b"\x01\x08"] {
            let failure = decode(data);
            assert_eq!((failure.code, failure.message.as_bytes()), (0, data));
        }
    }

    #[test]
    fn of_a_status_that_was_cut_off_anywhere_the_code_and_the_rest_are_read() {
        let whole = b"\x01\x08\x05\x12\x04text\x1a\x02ab";
        for end in 3..whole.len() {
            let failure = decode_cut(&whole[..end]);
            let text = &b"text"[..end.saturating_sub(5).min(4)];
            assert_eq!(
                (failure.code, failure.message.as_bytes()),
                (5, text),
                "{end}"
            );
            assert!(failure.details.is_empty());
        }
    }

    #[test]
    fn a_text_is_kept_up_to_its_limit_however_its_bytes_are_read() {
        for byte in [b'x', 0xff, 0xc3] {
            let failure = decode(&[&[0; 8][..], &[byte; 100_000]].concat());
            let len = failure.message.len();
            assert!((TEXT_MAX - 3..=TEXT_MAX).contains(&len), "{len}");
            assert!(failure.message.capacity() < 2 * TEXT_MAX);
        }
    }

    proptest! {
        #[test]
        fn no_data_make_decoding_panic(data: Vec<u8>) {
            for data in [&data[..], &[&[STATUS][..], &data].concat()] {
                decode(data);
                decode_cut(data);
            }
        }
    }
}
