//! The wire as written in the specification: every byte below was derived by hand from its tables.

use super::*;

/// Name of a frame, its bytes, its value.
pub(crate) type Golden = (&'static str, &'static [u8], Frame<'static>);

fn credit(bytes: u32) -> NonZeroU32 {
    NonZeroU32::new(bytes).unwrap()
}

#[rustfmt::skip]
pub(crate) fn golden() -> Vec<Golden> {
    vec![
        ("a message",
            b"\x02\x00\x00\x02\x01\x00\x00\x00hi",
            Frame::Data { stream: id(1), payload: b"hi", end: true, fin: false }),
        ("a first piece of 70000 bytes",
            b"\x06\x00\x00\x00\x03\x00\x00\x00\x70\x11\x01\x00ab",
            Frame::Data { stream: id(3), payload: b"\x70\x11\x01\x00ab", end: false, fin: false }),
        ("an empty message",
            b"\x00\x00\x00\x02\x05\x00\x00\x00",
            Frame::Data { stream: id(5), payload: b"", end: true, fin: false }),
        ("a bare FIN",
            b"\x00\x00\x00\x01\x05\x00\x00\x00",
            Frame::Data { stream: id(5), payload: b"", end: false, fin: true }),
        ("a last message",
            b"\x01\x00\x00\x03\xfe\xff\xff\xffx",
            Frame::Data { stream: id(0xffff_fffe), payload: b"x", end: true, fin: true }),
        ("an opening",
            b"\x03\x00\x00\x10\x02\x00\x00\x00/a\x00",
            Frame::Open { stream: id(2), block: b"/a\x00", fin: false }),
        ("an opening with nothing to follow",
            b"\x00\x00\x00\x11\x02\x00\x00\x00",
            Frame::Open { stream: id(2), block: b"", fin: true }),
        ("an error",
            b"\x09\x00\x00\x20\x07\x00\x00\x00\x05\x00\x00\x00\x02\x00no\xff",
            Frame::Error { stream: id(7), code: 5, message: "no", details: b"\xff" }),
        ("an error without words",
            b"\x06\x00\x00\x20\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            Frame::Error { stream: id(7), code: 0, message: "", details: b"" }),
        ("a cancel",
            b"\x04\x00\x00\x30\x09\x00\x00\x00\x2a\x00\x00\x00",
            Frame::Cancel { stream: id(9), code: 42, stop: false }),
        ("a wish to stop",
            b"\x04\x00\x00\x31\x04\x03\x02\x01\x03\xff\xff\xff",
            Frame::Cancel { stream: id(0x0102_0304), code: codes::CANCELLED, stop: true }),
        ("credit for the session",
            b"\x04\x00\x00\x40\x00\x00\x00\x00\x00\x00\x01\x00",
            Frame::Window { scope: Scope::Session, credit: credit(65_536) }),
        ("credit for streams",
            b"\x04\x00\x00\x41\x00\x00\x00\x00\x10\x00\x00\x00",
            Frame::Window { scope: Scope::Streams, credit: credit(16) }),
        ("credit for a stream",
            b"\x04\x00\x00\x40\x09\x00\x00\x00\xff\xff\xff\xff",
            Frame::Window { scope: Scope::Stream(id(9)), credit: credit(u32::MAX) }),
        ("a ping",
            b"\x08\x00\x00\x50\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08",
            Frame::Ping { opaque: [1, 2, 3, 4, 5, 6, 7, 8], ack: false }),
        ("an answer to a ping",
            b"\x08\x00\x00\x51\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            Frame::Ping { opaque: [0; 8], ack: true }),
        ("the end of a session",
            b"\x0b\x00\x00\x60\x00\x00\x00\x00\x05\x00\x00\x00\x01\xff\xff\xffbye",
            Frame::GoAway { last: Some(id(5)), code: codes::PROTOCOL, debug: "bye", soon: false }),
        ("the end of a session that accepted nothing",
            b"\x08\x00\x00\x60\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff",
            Frame::GoAway { last: None, code: codes::NO_ERROR, debug: "", soon: false }),
        ("the end of a session, soon",
            b"\x08\x00\x00\x61\x00\x00\x00\x00\x00\x00\x00\x00\x06\xff\xff\xff",
            Frame::GoAway { last: None, code: codes::SHUTDOWN, debug: "", soon: true }),
        ("the defaults",
            b"\x1e\x00\x00\x70\x00\x00\x00\x00\
              \x01\x00\x00\x40\x00\x00\
              \x02\x00\x00\x00\x40\x00\
              \x03\x00\x00\x00\x01\x00\
              \x04\x00\x00\x00\x10\x00\
              \x05\x00\x00\x01\x00\x00",
            Frame::Settings(Settings {
                max_frame: 16 << 10,
                max_message: 4 << 20,
                stream_window: 64 << 10,
                session_window: 1 << 20,
                streams: 256,
                role: None,
            })),
        ("the defaults of the side that accepted",
            b"\x24\x00\x00\x70\x00\x00\x00\x00\
              \x01\x00\x00\x40\x00\x00\
              \x02\x00\x00\x00\x40\x00\
              \x03\x00\x00\x00\x01\x00\
              \x04\x00\x00\x00\x10\x00\
              \x05\x00\x00\x01\x00\x00\
              \x06\x00\x02\x00\x00\x00",
            Frame::Settings(Settings {
                max_frame: 16 << 10,
                max_message: 4 << 20,
                stream_window: 64 << 10,
                session_window: 1 << 20,
                streams: 256,
                role: Some(Role::Acceptor),
            })),
        ("metadata",
            b"\x02\x00\x00\x80\x04\x00\x00\x00ok",
            Frame::Meta { stream: id(4), block: b"ok", fin: false }),
        ("trailers",
            b"\x02\x00\x00\x81\x04\x00\x00\x00ok",
            Frame::Meta { stream: id(4), block: b"ok", fin: true }),
        ("a call",
            b"\x0b\x00\x00\x90\x05\x00\x00\x00\x07\x00\x01\x00\x00\x03a/Bhi",
            Frame::Call { stream: id(5), payload: b"\x01\x00\x00\x03a/Bhi", opening: 7 }),
        ("a call without a block or a request",
            b"\x02\x00\x00\x90\x05\x00\x00\x00\x00\x00",
            Frame::Call { stream: id(5), payload: b"", opening: 0 }),
        ("this side takes calls",
            b"\x00\x00\x00\x90\x00\x00\x00\x00",
            Frame::Calls { takes: true }),
        ("this side takes no calls any more",
            b"\x00\x00\x00\x91\x00\x00\x00\x00",
            Frame::Calls { takes: false }),
        ("a reply",
            b"\x02\x00\x00\xa0\x05\x00\x00\x00ok",
            Frame::Reply { stream: id(5), answer: b"ok" }),
        ("an empty reply",
            b"\x00\x00\x00\xa0\x05\x00\x00\x00",
            Frame::Reply { stream: id(5), answer: b"" }),
        ("the first extension",
            b"\x00\x00\x00\xb0\x00\x00\x00\x00",
            Frame::Extension(11)),
        ("the last extension",
            b"\x00\x00\x00\xf0\x00\x00\x00\x00",
            Frame::Extension(15)),
    ]
}

#[test]
fn every_frame_is_read_as_the_specification_says() {
    for (what, bytes, frame) in golden() {
        assert_eq!(read(bytes), Ok(frame), "{what}");
    }
}

#[test]
fn every_frame_is_written_as_the_specification_says() {
    for (what, bytes, frame) in golden() {
        assert_eq!(bytes_of(&frame), bytes, "{what}");
    }
}

#[test]
fn an_extension_is_accepted_with_any_flags_stream_and_payload() {
    for number in 11..16u8 {
        for flags in 0..16u8 {
            let bytes = [1, 0, 0, number << 4 | flags, 9, 0, 0, 0, 0xaa];
            assert_eq!(read(&bytes), Ok(Frame::Extension(number)));
        }
    }
}

#[test]
fn each_part_of_a_header_has_its_own_bits() {
    let bytes = [0x03, 0x02, 0x01, 0xa5, 0x07, 0x06, 0x05, 0x04];
    let header = Header {
        length: 0x01_0203,
        kind: 0xa,
        flags: 0x5,
        stream: 0x0405_0607,
    };
    assert_eq!(Header::decode(bytes), header);
    assert_eq!(header.encode(), bytes);
}

#[test]
fn a_payload_cut_anywhere_is_refused() {
    for (what, bytes, _) in golden() {
        let header = Header::decode(*bytes.first_chunk().unwrap());
        for end in HEADER_LEN..bytes.len() {
            let cut = Frame::parse(header, &bytes[HEADER_LEN..end]);
            let error = cut.expect_err(what);
            assert_eq!(error.rule(), "payload-length", "{what} cut at {end}");
        }
        let longer = [&bytes[HEADER_LEN..], &[0]].concat();
        let error = Frame::parse(header, &longer).expect_err(what);
        assert_eq!(error.rule(), "payload-length", "{what} with a byte more");
    }
}

/// With the length shortened to match. Fixed kinds are refused; in the others only the opaque tail gets shorter.
#[test]
fn a_frame_cut_anywhere_with_its_length_adjusted_is_refused_or_only_loses_its_tail() {
    for (what, bytes, whole) in golden() {
        let header = Header::decode(*bytes.first_chunk().unwrap());
        for end in HEADER_LEN..bytes.len() {
            let payload = &bytes[HEADER_LEN..end];
            let length = u32::try_from(payload.len()).unwrap();
            let header = Header { length, ..header };
            let Ok(cut) = Frame::parse(header, payload) else {
                continue;
            };
            assert!(loses_its_tail(whole, cut), "{what} cut at {end}: {cut:?}");
        }
    }
}

fn loses_its_tail(whole: Frame<'_>, cut: Frame<'_>) -> bool {
    match (whole, cut) {
        (
            Frame::Data {
                stream,
                payload,
                end,
                fin,
            },
            Frame::Data {
                stream: s,
                payload: p,
                end: e,
                fin: f,
            },
        ) => (stream, end, fin) == (s, e, f) && payload.starts_with(p),
        (
            Frame::Open { stream, block, fin },
            Frame::Open {
                stream: s,
                block: b,
                fin: f,
            },
        )
        | (
            Frame::Meta { stream, block, fin },
            Frame::Meta {
                stream: s,
                block: b,
                fin: f,
            },
        ) => (stream, fin) == (s, f) && block.starts_with(b),
        (
            Frame::Error {
                stream,
                code,
                message,
                details,
            },
            Frame::Error {
                stream: s,
                code: c,
                message: m,
                details: d,
            },
        ) => (stream, code, message) == (s, c, m) && details.starts_with(d),
        (
            Frame::GoAway {
                last,
                code,
                debug,
                soon,
            },
            Frame::GoAway {
                last: l,
                code: c,
                debug: d,
                soon: s,
            },
        ) => (last, code, soon) == (l, c, s) && debug.starts_with(d),
        (
            Frame::Call {
                stream,
                payload,
                opening,
            },
            Frame::Call {
                stream: s,
                payload: p,
                opening: o,
            },
        ) => (stream, opening) == (s, o) && payload.starts_with(p),
        (
            Frame::Reply { stream, answer },
            Frame::Reply {
                stream: s,
                answer: a,
            },
        ) => stream == s && answer.starts_with(a),
        // A setting that is left out is at its floor.
        (Frame::Settings(whole), Frame::Settings(cut)) => {
            let floors = Settings::FLOORS;
            (cut.max_frame == whole.max_frame || cut.max_frame == floors.max_frame)
                && (cut.max_message == whole.max_message || cut.max_message == floors.max_message)
                && (cut.streams == whole.streams || cut.streams == floors.streams)
                && cut.role.is_none()
        }
        _ => false,
    }
}
