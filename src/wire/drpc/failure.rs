//! Errors of applications: the two forms of an Error packet, and the codes of this library in either.

use bytes::Bytes;

use crate::drpc::{ErrorForm, StatusDetails, Varint, put_varint};
use crate::error::{Failure, codes};

/// The longest data of an Error that is kept, in bytes; more is cut off.
pub(super) const ERROR_MAX: usize = 64 * 1024;
/// The longest text that is sent, in bytes.
const TEXT_MAX: usize = 16 * 1024;

/// The first byte of the form of CockroachDB.
const STATUS: u8 = 1;
/// The code for errors whose own code is not known.
const UNKNOWN: u32 = 2;

/// The data of an Error.
pub(super) fn encode(form: ErrorForm, code: u32, text: &str, details: &[u8]) -> Vec<u8> {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    let details = StatusDetails::decode(details);
    let code = details.code().unwrap_or(code.into());
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
    decode_status(data).unwrap_or_else(|| decode_code(data))
}

fn decode_code(data: &[u8]) -> Failure {
    match data.split_first_chunk::<8>() {
        Some((code, text)) => failure(u64::from_be_bytes(*code), text, Vec::new()),
        None => failure(0, data, Vec::new()),
    }
}

/// `None` if it is not a status.
fn decode_status(data: &[u8]) -> Option<Failure> {
    let mut rest = data.strip_prefix(&[STATUS])?;
    if !rest
        .first()
        .is_none_or(|tag| matches!(tag, 0x08 | 0x12 | 0x1a))
    {
        return None;
    }
    let (mut code, mut text, mut any) = (0, &[][..], Vec::new());
    while let Some((tag, behind)) = Varint::split(rest).filter(|_| !rest.is_empty()) {
        let (number, body, behind) = match tag & 7 {
            0 => {
                let (number, behind) = Varint::split(behind)?;
                (number, &[][..], behind)
            }
            1 => (0, &[][..], behind.get(8..)?),
            2 => {
                let (len, behind) = Varint::split(behind)?;
                let (body, behind) = behind.split_at_checked(usize::try_from(len).ok()?)?;
                (0, body, behind)
            }
            5 => (0, &[][..], behind.get(4..)?),
            _ => return None,
        };
        match tag {
            0x08 => code = u64::from(number as u32),
            0x12 => text = body,
            0x1a => any.push(body),
            _ => {}
        }
        rest = behind;
    }
    if !rest.is_empty() {
        return None;
    }
    Some(failure(code, text, any))
}

fn failure(code: u64, text: &[u8], any: Vec<&[u8]>) -> Failure {
    let short = u32::try_from(code).ok();
    let short = short.filter(|code| !codes::is_reserved(*code));
    let whole = short.is_none().then_some(code);
    Failure {
        code: short.unwrap_or(UNKNOWN),
        message: String::from_utf8_lossy(text).into_owned(),
        details: Bytes::from(StatusDetails::encode(whole, any)),
    }
}

/// What the accepting side says of a stream that it cancels with this code.
pub(super) const fn of_code(code: u32) -> (u32, &'static str) {
    match code {
        codes::CANCELLED => (1, "the call was cancelled by the server"),
        codes::DEADLINE => (4, "the time of the call has run out at the server"),
        codes::LIMIT_EXCEEDED => (8, "the call exceeds a limit of the server"),
        codes::REFUSED | codes::UNAVAILABLE | codes::SHUTDOWN => {
            (14, "the call was turned away by the server")
        }
        codes::PROTOCOL => (13, "protocol error: a frame of the call breaks a rule"),
        code if codes::is_reserved(code) => (13, "the call failed at the server"),
        code => (code, "the call was cancelled by the server"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_without_a_code_is_unknown_to_those_who_know_0_as_no_error() {
        let data = encode(ErrorForm::Status, 0, "no", b"");
        assert_eq!((decode(&data).code, &data[..3]), (2, &[1, 0x08, 2][..]));
        assert_eq!(decode(&encode(ErrorForm::Code, 0, "no", b"")).code, 0);
    }

    #[test]
    fn both_forms_are_made_as_captured_and_read() {
        let text = "deliberate failure";
        let code = encode(ErrorForm::Code, 42, text, b"");
        assert_eq!(
            code,
            [&[0, 0, 0, 0, 0, 0, 0, 42][..], text.as_bytes()].concat()
        );
        let status = encode(ErrorForm::Status, 42, text, b"");
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
            let back = encode(ErrorForm::Code, failure.code, "", &failure.details);
            assert_eq!(back, code.to_be_bytes());
        }
    }

    #[test]
    fn details_of_a_status_are_kept_and_unknown_fields_passed_over() {
        let data = b"\x01\x08\x05\x1a\x02ab\x12\x01t\x1a\x01c\x25\x00\x00\x00\x00\x30\x01";
        let failure = decode(data);
        assert_eq!((failure.code, &failure.message[..]), (5, "t"));
        assert_eq!(&failure.details[..], b"\x1a\x02ab\x1a\x01c");
        let back = encode(ErrorForm::Status, 5, "t", &failure.details);
        assert_eq!(back, b"\x01\x08\x05\x12\x01t\x1a\x02ab\x1a\x01c");
    }

    #[test]
    fn data_in_neither_form_are_a_text_with_code_0() {
        for data in [&b""[..], b"short", b"\x01\x08"] {
            let failure = decode(data);
            assert_eq!((failure.code, failure.message.as_bytes()), (0, data));
        }
    }

    proptest! {
        #[test]
        fn no_data_make_decoding_panic(data: Vec<u8>) {
            decode(&data);
            decode(&[&[STATUS][..], &data].concat());
        }
    }
}
