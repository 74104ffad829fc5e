//! Any frame survives encoding and decoding; any bytes are decoded without a panic.

use proptest::prelude::*;

use super::*;

/// An owned version of [`Frame`].
#[derive(Clone, Debug)]
struct Parts {
    kind: u8,
    stream: StreamId,
    flags: (bool, bool),
    number: u32,
    text: String,
    block: Vec<u8>,
    settings: Settings,
}

impl Parts {
    fn frame(&self) -> Frame<'_> {
        let Self {
            stream,
            flags: (first, second),
            number,
            settings,
            ..
        } = *self;
        let block = &self.block[..];
        let credit = NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        match self.kind {
            0 => Frame::Data {
                stream,
                payload: block,
                end: first,
                fin: second || (block.is_empty() && !first),
            },
            1 => Frame::Open {
                stream,
                block,
                fin: first,
            },
            2 => Frame::Error {
                stream,
                code: number,
                message: &self.text,
                details: block,
            },
            3 => Frame::Cancel {
                stream,
                code: number,
                stop: first,
            },
            4 => Frame::Window {
                scope: match (first, second) {
                    (true, true) => Scope::Session,
                    (true, false) => Scope::Streams,
                    _ => Scope::Stream(stream),
                },
                credit,
            },
            5 => Frame::Ping {
                opaque: (u64::from(number) << 16).to_le_bytes(),
                ack: first,
            },
            6 => Frame::GoAway {
                last: (!first && second).then_some(stream),
                code: number,
                debug: &self.text,
                soon: first,
            },
            7 => Frame::Settings(settings),
            8 => Frame::Call {
                stream,
                payload: block,
                opening: block.len() / 2,
            },
            9 => Frame::Reply {
                stream,
                answer: block,
            },
            10 => Frame::Calls { takes: first },
            _ => Frame::Meta {
                stream,
                block,
                fin: first,
            },
        }
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let floors = Settings::FLOORS;
    (
        floors.max_frame..=MAX_FRAME_CEILING,
        floors.max_message..,
        floors.stream_window..,
        floors.session_window..,
        floors.streams..,
        prop_oneof![
            Just(None),
            Just(Some(Role::Dialer)),
            Just(Some(Role::Acceptor))
        ],
    )
        .prop_map(
            |(max_frame, max_message, stream_window, session_window, streams, role)| Settings {
                max_frame,
                max_message,
                stream_window,
                session_window,
                streams,
                role,
            },
        )
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        0u8..12,
        (1u32..).prop_map(id),
        any::<(bool, bool)>(),
        any::<u32>(),
        "\\PC{0,60}",
        prop::collection::vec(any::<u8>(), 0..200),
        settings(),
    )
        .prop_map(
            |(kind, stream, flags, number, text, block, settings)| Parts {
                kind,
                stream,
                flags,
                number,
                text,
                block,
                settings,
            },
        )
}

/// Headers that are nearly valid: real kinds, few flags, small ids.
fn plausible_header() -> impl Strategy<Value = Header> {
    (0u8..16, 0u8..4, 0u32..4).prop_map(|(kind, flags, stream)| Header {
        length: 0,
        kind,
        flags,
        stream,
    })
}

proptest! {
    #[test]
    fn a_frame_that_was_written_is_read_as_it_was(parts in parts()) {
        let frame = parts.frame();
        let bytes = bytes_of(&frame);
        prop_assert_eq!(read(&bytes), Ok(frame));
    }

    #[test]
    fn a_header_that_was_read_is_written_as_it_was(bytes: [u8; HEADER_LEN]) {
        prop_assert_eq!(Header::decode(bytes).encode(), bytes);
    }

    #[test]
    fn no_header_and_payload_panic(
        head: [u8; HEADER_LEN],
        max_frame: u32,
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let header = Header::decode(head);
        let _ = check(header, max_frame);
        let _ = Frame::parse(header, &payload);
    }

    #[test]
    fn no_field_wider_than_its_place_panics_a_reader(
        length: u32,
        kind: u8,
        flags: u8,
        stream: u32,
        payload in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let header = Header { length, kind, flags, stream };
        let _ = check(header, MAX_FRAME_CEILING);
        let _ = Frame::parse(header, &payload);
    }

    /// Each frame has one encoding, except for extensions, settings and the unknown last id of a GOAWAY.
    #[test]
    fn an_accepted_frame_is_encoded_back_byte_for_byte(
        header in plausible_header(),
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            prop::collection::vec(0u8..3, 0..20),
        ],
    ) {
        let header = Header { length: u32::try_from(payload.len()).unwrap(), ..header };
        let Ok(frame) = Frame::parse(header, &payload) else { return Ok(()) };
        match frame {
            Frame::Extension(_) | Frame::Settings(_) | Frame::GoAway { soon: true, .. } => {}
            _ => {
                let bytes = bytes_of(&frame);
                prop_assert_eq!(&bytes[..HEADER_LEN], &header.encode());
                prop_assert_eq!(&bytes[HEADER_LEN..], &payload);
            }
        }
    }

    #[test]
    fn parse_refuses_what_check_refuses_for_the_same_reason(
        head: [u8; HEADER_LEN],
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let header = Header::decode(head);
        if let Err(error) = check(header, MAX_LENGTH) {
            prop_assert_eq!(Frame::parse(header, &payload), Err(error));
        }
    }

    #[test]
    fn a_preface_of_any_bytes_is_accepted_exactly_if_it_is_ours(bytes: [u8; 8]) {
        let ours = bytes.starts_with(b"RINGMUX") && bytes[7] != 0;
        prop_assert_eq!(super::super::preface::parse(&bytes).is_ok(), ours);
    }
}
