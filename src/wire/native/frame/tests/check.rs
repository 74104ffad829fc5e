//! The checks on the header alone, as tables over all kinds.

use super::*;

const FLOOR: u32 = Settings::FLOORS.max_frame;

fn header(kind: u8, flags: u8, stream: u32, length: u32) -> Header {
    Header {
        length,
        kind,
        flags,
        stream,
    }
}

/// Kind, a stream it may name, shortest and longest payload with the smallest agreed frame size.
const LENGTHS: [(u8, u32, u32, u32); 16] = [
    (0, 1, 1, 16_384),
    (1, 1, 0, 8_192),
    (2, 1, 6, 9_222),
    (3, 1, 4, 4),
    (4, 1, 4, 4),
    (5, 0, 8, 8),
    (6, 0, 8, 264),
    (7, 0, 0, 16_380),
    (8, 1, 0, 8_192),
    (9, 1, 2, 16_384),
    (10, 1, 0, 16_384),
    (11, 1, 0, 16_384),
    (12, 1, 0, 16_384),
    (13, 1, 0, 16_384),
    (14, 1, 0, 16_384),
    (15, 1, 0, 16_384),
];

fn rule_of(result: Result<Kind, FrameError>) -> Option<&'static str> {
    result.err().map(|error| error.rule())
}

#[test]
fn a_length_is_accepted_exactly_within_the_bounds_of_its_kind() {
    for (kind, stream, shortest, longest) in LENGTHS {
        for length in 0..=FLOOR + 100 {
            let rule = rule_of(check(header(kind, 0, stream, length), FLOOR));
            let expected = if length > longest {
                Some("frame-too-long")
            } else if kind == 0 && length == 0 {
                Some("empty-data")
            } else if length < shortest {
                Some("frame-too-short")
            } else if kind == 7 && length % 6 != 0 {
                Some("settings-length")
            } else {
                None
            };
            assert_eq!(rule, expected, "kind {kind}, length {length}");
        }
        let greatest = check(header(kind, 0, stream, MAX_LENGTH), FLOOR);
        assert_eq!(rule_of(greatest), Some("frame-too-long"), "kind {kind}");
    }
}

#[test]
fn only_data_and_extensions_grow_with_the_agreed_frame_size() {
    for (kind, stream, _, longest) in LENGTHS {
        let longest = if kind == 0 || kind > 10 {
            MAX_FRAME_CEILING
        } else {
            longest
        };
        let at = |length| rule_of(check(header(kind, 0, stream, length), MAX_FRAME_CEILING));
        assert_eq!(at(longest), None, "kind {kind}");
        assert_eq!(at(longest + 1), Some("frame-too-long"), "kind {kind}");
    }
}

#[test]
fn a_flag_is_accepted_exactly_by_the_kinds_that_have_it() {
    // One row a kind: the flags that the specification gives it, as sums.
    let allowed: [&[u8]; 11] = [
        &[0, 1, 2, 3], // DATA: FIN, END
        &[0, 1],       // OPEN: FIN
        &[0],          // ERROR
        &[0, 1],       // CANCEL: STOP
        &[0, 1],       // WINDOW: STREAMS
        &[0, 1],       // PING: ACK
        &[0, 1],       // GOAWAY: SOON
        &[0],          // SETTINGS
        &[0, 1],       // META: FIN
        &[0],          // CALL of a stream
        &[0],          // REPLY
    ];
    for (kind, _, shortest, _) in LENGTHS {
        let stream = match kind {
            4..=7 => 0,
            _ => 3,
        };
        for flags in 0..16u8 {
            let rule = rule_of(check(header(kind, flags, stream, shortest), FLOOR));
            let known = allowed
                .get(usize::from(kind))
                .is_none_or(|allowed| allowed.contains(&flags));
            let expected = (!known).then_some("unknown-flags");
            assert_eq!(rule, expected, "kind {kind}, flags {flags:#x}");
        }
    }
}

#[test]
fn an_unknown_flag_is_named_without_the_known_ones() {
    let result = check(header(0, 0b1011, 1, 1), FLOOR);
    let kind = Kind::Data;
    assert_eq!(result, Err(FrameError::UnknownFlags { kind, flags: 8 }));
}

#[test]
fn a_stream_is_named_exactly_by_the_kinds_that_belong_to_one() {
    for (kind, _, shortest, _) in LENGTHS {
        for stream in [0, 1, 2, 0x8000_0000, u32::MAX] {
            let rule = rule_of(check(header(kind, 0, stream, shortest), FLOOR));
            let expected = match (kind, stream) {
                (0..=3 | 8 | 10, 0) => Some("stream-required"),
                // Of the session it is empty.
                (9, 0) => Some("frame-too-long"),
                (5..=7, 1..) => Some("session-only"),
                _ => None,
            };
            assert_eq!(rule, expected, "kind {kind}, stream {stream}");
        }
    }
}

#[test]
fn data_without_end_and_fin_is_not_empty() {
    for flags in 0..4u8 {
        let rule = rule_of(check(header(0, flags, 1, 0), FLOOR));
        assert_eq!(rule, (flags == 0).then_some("empty-data"));
    }
}

#[test]
fn credit_for_streams_is_on_the_session_only() {
    assert_eq!(check(header(4, 1, 0, 4), FLOOR), Ok(Kind::Window));
    let stream = id(6);
    assert_eq!(
        check(header(4, 1, 6, 4), FLOOR),
        Err(FrameError::StreamsOnStream { stream })
    );
}

#[test]
fn a_call_of_the_session_is_empty_and_may_say_none() {
    for flags in [0, 1] {
        assert_eq!(check(header(9, flags, 0, 0), FLOOR), Ok(Kind::Call));
    }
    let rule = |flags, stream, length| rule_of(check(header(9, flags, stream, length), FLOOR));
    assert_eq!(rule(0, 0, 1), Some("frame-too-long"));
    assert_eq!(rule(2, 0, 0), Some("unknown-flags"));
    assert_eq!(rule(1, 5, 2), Some("unknown-flags"));
    assert_eq!(rule(0, 5, 1), Some("frame-too-short"));
}

#[test]
fn the_opening_block_of_a_call_is_within_the_call_and_its_own_limit() {
    let parse = |bytes: &[u8]| {
        let header = header(9, 0, 5, bytes.len() as u32);
        Frame::parse(header, bytes)
            .map(|_| ())
            .map_err(|error| error.rule())
    };
    assert_eq!(parse(b"\x02\x00ab"), Ok(()));
    assert_eq!(parse(b"\x03\x00ab"), Err("frame-truncated"));
    let mut long = vec![0; 2 + 8193];
    long[..2].copy_from_slice(&8193_u16.to_le_bytes());
    assert_eq!(parse(&long), Err("frame-too-long"));
}

#[test]
fn the_length_is_judged_before_anything_else() {
    for kind in 0..16u8 {
        let all_wrong = header(kind, 0xf, 0, MAX_LENGTH);
        let rule = rule_of(check(all_wrong, FLOOR));
        assert_eq!(rule, Some("frame-too-long"), "kind {kind}");
    }
}

#[test]
fn credit_is_never_zero() {
    for (stream, flags) in [(0, 0), (0, 1), (8, 0)] {
        let result = Frame::parse(header(4, flags, stream, 4), &[0; 4]);
        assert_eq!(result, Err(FrameError::ZeroCredit { stream }));
    }
}

#[test]
fn the_last_id_is_not_looked_at_while_it_is_not_known() {
    let bytes = b"\x08\x00\x00\x61\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00";
    let Ok(Frame::GoAway { last, soon, .. }) = read(bytes) else {
        panic!("a GOAWAY frame");
    };
    assert_eq!((last, soon), (None, true));
    let written = bytes_of(&Frame::GoAway {
        last: Some(id(7)),
        code: 0,
        debug: "",
        soon: true,
    });
    assert_eq!(written[8..12], [0; 4]);
}
