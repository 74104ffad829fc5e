//! What the codec promises, and what tests of other modules need to make frames.

use bytes::BytesMut;

pub(crate) use super::put::put;
use super::*;

mod check;
pub(crate) mod golden;
mod ids;
mod preface;
mod property;
mod settings;
mod text;

/// The bytes of one frame.
pub(crate) fn bytes_of(frame: &Frame<'_>) -> BytesMut {
    let mut bytes = BytesMut::new();
    put(&mut bytes, frame);
    bytes
}

/// Reads one frame from bytes that hold it and nothing else, as a receiver does with the largest frames allowed.
pub(crate) fn read(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (head, payload) = bytes.split_first_chunk().expect("a whole header");
    let header = Header::decode(*head);
    check(header, MAX_FRAME_CEILING)?;
    Frame::parse(header, payload)
}

/// The id with this number.
pub(crate) fn id(number: u32) -> StreamId {
    StreamId::new(number).expect("not 0")
}

#[test]
fn values_and_errors_own_no_memory() {
    const fn owns_nothing<T: Copy>() {}
    owns_nothing::<Header>();
    owns_nothing::<Frame<'static>>();
    owns_nothing::<Settings>();
    owns_nothing::<FrameError>();
}

#[test]
fn a_payload_is_borrowed_from_where_it_was_received() {
    let bytes = bytes_of(&Frame::Data {
        stream: id(1),
        payload: b"in place",
        end: true,
        fin: false,
    });
    let Ok(Frame::Data { payload, .. }) = read(&bytes) else {
        panic!("a DATA frame");
    };
    assert_eq!(payload.as_ptr(), bytes[HEADER_LEN..].as_ptr());
}

#[test]
fn a_frame_costs_its_payload_and_256_and_a_bare_fin_costs_nothing() {
    assert_eq!(cost(0), 256);
    assert_eq!(cost(64), 320);
    assert_eq!(cost(u32::MAX), 0x1_0000_00FF);
    assert_eq!(data_cost(0, false), 0);
    assert_eq!(data_cost(0, true), 256);
    assert_eq!(data_cost(1, false), 257);
    assert_eq!(data_cost(1, true), 257);
}

#[test]
fn the_total_goes_before_the_content_of_a_first_piece() {
    assert_eq!(encode_total(70_000), [0x70, 0x11, 0x01, 0x00]);
    let content: &[u8] = b"ab";
    assert_eq!(decode_total(b"\x70\x11\x01\x00ab"), Ok((70_000, content)));
    assert_eq!(decode_total(b"\x01\x00\x00\x00"), Ok((1, &[][..])));
    for length in 0..4u8 {
        let piece = vec![0; usize::from(length)];
        let length = u32::from(length);
        assert_eq!(
            decode_total(&piece),
            Err(FrameError::TotalMissing { length })
        );
    }
}

/// Codes of ringmux, as they are on the wire.
mod codes {
    pub(super) const NO_ERROR: u32 = 0xFFFF_FF00;
    pub(super) const PROTOCOL: u32 = 0xFFFF_FF01;
    pub(super) const CANCELLED: u32 = 0xFFFF_FF03;
    pub(super) const SHUTDOWN: u32 = 0xFFFF_FF06;
}
