//! Text on the wire, and the text of errors.

use super::*;

const KIND: Kind = Kind::Error;

fn error_frame(length: u32, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let header = Header {
        length,
        kind: 2,
        flags: 0,
        stream: 1,
    };
    Frame::parse(header, payload)
}

#[test]
fn a_long_message_is_cut_before_the_character_that_does_not_fit() {
    for (character, kept) in [
        ("a", 1024),
        ("\u{e9}", 1024),
        ("\u{20ac}", 1023),
        ("\u{1f980}", 1024),
    ] {
        let text = character.repeat(2000);
        let bytes = bytes_of(&Frame::Error {
            stream: id(1),
            code: 1,
            message: &text,
            details: b"tail",
        });
        let Ok(Frame::Error {
            message, details, ..
        }) = read(&bytes)
        else {
            panic!("an ERROR frame");
        };
        assert_eq!(message, &text[..kept]);
        assert_eq!(details, b"tail");
    }
}

#[test]
fn a_long_debug_text_is_cut_before_the_character_that_does_not_fit() {
    for (character, kept) in [("a", 256), ("\u{20ac}", 255)] {
        let text = character.repeat(300);
        let bytes = bytes_of(&Frame::GoAway {
            last: None,
            code: 1,
            debug: &text,
            soon: false,
        });
        let Ok(Frame::GoAway { debug, .. }) = read(&bytes) else {
            panic!("a GOAWAY frame");
        };
        assert_eq!(debug, &text[..kept]);
    }
}

#[test]
fn the_largest_error_is_accepted() {
    let (message, details) = ("m".repeat(1024), vec![0xff; 8192]);
    let frame = Frame::Error {
        stream: id(1),
        code: u32::MAX,
        message: &message,
        details: &details,
    };
    let bytes = bytes_of(&frame);
    assert_eq!(bytes.len(), HEADER_LEN + 9222);
    assert_eq!(read(&bytes), Ok(frame));
}

#[test]
fn a_message_longer_than_its_frame_is_refused() {
    let (needed, left) = (3, 2);
    assert_eq!(
        error_frame(8, b"\0\0\0\0\x03\x00ab"),
        Err(FrameError::Truncated {
            kind: KIND,
            needed,
            left
        })
    );
}

#[test]
fn a_message_or_details_over_their_own_limit_are_refused_within_the_limit_of_the_frame() {
    let mut payload = vec![b'a'; 6 + 1025];
    payload[..6].copy_from_slice(&[0, 0, 0, 0, 0x01, 0x04]);
    let (length, limit) = (1025, 1024);
    assert_eq!(
        error_frame(6 + 1025, &payload),
        Err(FrameError::MessageTooLong { length, limit })
    );
    let payload = vec![0; 6 + 8193];
    let (length, limit) = (8193, 8192);
    assert_eq!(
        error_frame(6 + 8193, &payload),
        Err(FrameError::DetailsTooLong { length, limit })
    );
}

#[test]
fn text_that_is_not_utf8_is_refused_with_the_place() {
    let valid = 1;
    assert_eq!(
        error_frame(8, b"\0\0\0\0\x02\x00a\xff"),
        Err(FrameError::NotUtf8 { kind: KIND, valid })
    );
    let goaway = b"\x0a\x00\x00\x60\x00\x00\x00\x00\0\0\0\0\0\0\0\0\xc3(";
    assert_eq!(
        read(goaway),
        Err(FrameError::NotUtf8 {
            kind: Kind::GoAway,
            valid: 0
        })
    );
}

/// One of each, with numbers as long as they get.
fn errors() -> Vec<FrameError> {
    let (kind, stream, most) = (Kind::Extension(15), id(u32::MAX), u32::MAX);
    let (length, limit, left) = (most, most, most);
    let (id, value) = (u16::MAX, most);
    vec![
        FrameError::TooLong {
            kind,
            length,
            limit,
        },
        FrameError::TooShort {
            kind,
            length,
            least: most,
        },
        FrameError::UnknownFlags { kind, flags: 0xf },
        FrameError::StreamRequired { kind },
        FrameError::SessionOnly { kind, stream },
        FrameError::EmptyData { stream },
        FrameError::StreamsOnStream { stream },
        FrameError::ZeroCredit { stream: most },
        FrameError::PayloadLength {
            kind,
            length,
            found: most,
        },
        FrameError::Truncated {
            kind,
            needed: most,
            left,
        },
        FrameError::MessageTooLong { length, limit },
        FrameError::DetailsTooLong { length, limit },
        FrameError::NotUtf8 { kind, valid: most },
        FrameError::TotalMissing { length },
        FrameError::SettingsLength { length },
        FrameError::SettingTwice { id },
        FrameError::SettingBelowFloor {
            id,
            value,
            floor: most,
        },
        FrameError::SettingAboveCeiling {
            id,
            value,
            ceiling: most,
        },
        FrameError::BadPreface { at: 6, found: 0xff },
        FrameError::BadVersion { version: 0 },
    ]
}

#[test]
fn the_text_of_every_error_is_one_line_that_fits_a_goaway_uncut() {
    for error in errors() {
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        assert!(text.len() <= MAX_GOAWAY_DEBUG as usize, "{text}");
    }
}

#[test]
fn every_rule_has_a_short_name_of_its_own() {
    let mut names: Vec<_> = errors().iter().map(FrameError::rule).collect();
    for name in &names {
        assert!(name.len() <= 24, "{name}");
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{name}"
        );
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
