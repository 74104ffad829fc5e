//! Bytes to frames and back.

use bytes::BytesMut;

use crate::wire::native::frame::put::put;
use crate::wire::native::frame::{Frame, HEADER_LEN, Header, MAX_FRAME_CEILING, check, preface};

/// Parses the input as a receiver does. Accepted frames must encode to the same bytes.
///
/// # Panics
/// When the codec breaks a promise.
pub fn codec(input: &[u8]) {
    if let Some(bytes) = input.first_chunk() {
        if let Ok(version) = preface::parse(bytes) {
            assert_eq!(preface::encode(version), *bytes);
        }
        let prefix = preface::check_prefix(&bytes[..7]);
        assert!(prefix.is_ok() || preface::parse(bytes).is_err());
    }
    each_frame(input, |frame, bytes| {
        let mut written = BytesMut::new();
        put(&mut written, frame);
        match frame {
            // Unknown or repeated ids, omitted defaults, flags and payloads of extensions, and a last id not yet known: parsed, but
            // not encoded again.
            Frame::Settings(settings) => {
                let head = Header::decode(*written.first_chunk().expect("a header"));
                let again = Frame::parse(head, &written[HEADER_LEN..]);
                assert_eq!(again, Ok(Frame::Settings(*settings)));
            }
            Frame::Extension(_) | Frame::GoAway { soon: true, .. } => {}
            _ => assert_eq!(written, bytes),
        }
    });
}

/// The frames at the front of the input, with their bytes, until one is refused or incomplete.
pub(super) fn each_frame(mut input: &[u8], mut saw: impl FnMut(&Frame<'_>, &[u8])) {
    while let Some(head) = input.first_chunk::<HEADER_LEN>() {
        let header = Header::decode(*head);
        assert_eq!(header.encode(), *head);
        let judged = check(header, MAX_FRAME_CEILING);
        let len = HEADER_LEN + header.length as usize;
        let Some(payload) = input.get(HEADER_LEN..len) else {
            // A missing payload is refused for every header.
            assert!(Frame::parse(header, &input[HEADER_LEN..]).is_err());
            return;
        };
        let frame = Frame::parse(header, payload);
        match (judged, frame) {
            (Ok(_), Ok(frame)) => saw(&frame, &input[..len]),
            (judged, frame) => {
                assert!(judged.is_ok() || frame.is_err(), "refused, then accepted");
                return;
            }
        }
        input = &input[len..];
    }
}
