//! The bytes of `WIRE.md`, and bytes of any kind.

use proptest::prelude::*;

use super::*;

fn metadata(entries: &[(&str, &[u8])]) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in entries {
        metadata.insert(key, value).unwrap();
    }
    metadata
}

#[test]
fn the_opening_of_a_plain_unary_call_is_these_bytes() {
    let (block, follows) = Opening::encode(0, 0, None, "a/B", None);
    assert_eq!(&block[..], b"\x01\x00\x00\x03a/B");
    assert_eq!(follows, None);
    let opening = Opening::decode(&block).unwrap();
    assert_eq!(
        (opening.flags, opening.codec, opening.timeout),
        (0, 0, None)
    );
    assert_eq!(opening.method, "a/B");
    assert!(opening.metadata.is_empty());
}

#[test]
fn the_opening_with_everything_is_these_bytes() {
    let metadata = metadata(&[("k", b"vv")]);
    let timeout = Some(Duration::from_millis(20));
    let kind = flag::REQUEST_STREAM | flag::RESPONSE_STREAM;
    let (block, follows) = Opening::encode(kind, 1, timeout, "a/B", Some(&metadata));
    assert_eq!(
        &block[..],
        b"\x01\x07\x01\x03\x20\x4e\x00\x00\x00\x00\x00\x00a/B\x01\x02\x00kvv"
    );
    assert_eq!(follows, None);
    let opening = Opening::decode(&block).unwrap();
    assert_eq!(opening.timeout, timeout);
    assert_eq!(opening.metadata, metadata);
}

#[test]
fn metadata_that_does_not_fit_an_opening_follows_as_a_block() {
    let value = vec![7; Metadata::MAX_BYTES - 4];
    let metadata = metadata(&[("k", &value)]);
    assert_eq!(metadata.encoded_len(), Metadata::MAX_BYTES);
    let (block, follows) = Opening::encode(0, 0, None, "a/B", Some(&metadata));
    assert_eq!(&block[..], b"\x01\x08\x00\x03a/B");
    let follows = follows.unwrap();
    assert_eq!(follows.len(), 8 * 1024);
    assert_eq!(find_meta(&[follows], block::REQUEST), Ok(metadata));
}

#[test]
fn an_opening_of_another_version_or_with_unknown_flags_says_so() {
    let decode = |bytes: &'static [u8]| {
        let block = Bytes::from_static(bytes);
        Opening::decode(&block).unwrap_err()
    };
    assert_eq!(decode(b""), OpeningError::Short(0));
    assert_eq!(decode(b"greetings"), OpeningError::Version(b'g'));
    assert_eq!(decode(b"\x02\x00\x00\x01a"), OpeningError::Version(2));
    assert_eq!(decode(b"\x01\x60\x00\x01a"), OpeningError::Flags(0x60));
    assert_eq!(decode(b"\x01\x00\x00\x02a"), OpeningError::Short(5));
    assert_eq!(decode(b"\x01\x00\x00\x00"), OpeningError::Method);
    assert_eq!(decode(b"\x01\x00\x00\x01\xff"), OpeningError::Method);
    assert_eq!(decode(b"\x01\x04\x00\x01a"), OpeningError::Short(5));
    let cut = OpeningError::Metadata(MetadataError::Malformed);
    assert_eq!(decode(b"\x01\x00\x00\x01a\x01\x02\x00kv"), cut);
    let key = OpeningError::Metadata(MetadataError::Key);
    assert_eq!(decode(b"\x01\x00\x00\x01a\x01\x00\x00K"), key);
}

#[test]
fn trailers_are_these_bytes() {
    let metadata = metadata(&[("k", b"v")]);
    let block = meta(block::TRAILERS, metadata.as_bytes());
    assert_eq!(&block[..], b"\x03\x01\x01\x00kv");
    assert_eq!(
        find_meta(std::slice::from_ref(&block), block::TRAILERS),
        Ok(metadata)
    );
    assert_eq!(find_meta(&[block], block::HEADERS), Ok(Metadata::new()));
}

fn failure(status: &Status) -> Failure {
    Failure {
        code: status.code().number(),
        message: status.message().to_owned(),
        details: encode_status(status).into(),
    }
}

#[test]
fn a_status_is_these_bytes_and_comes_back_as_it_was() {
    let plain = Status::not_found("x");
    assert_eq!(encode_status(&plain), b"");
    let back = decode_status(&failure(&plain));
    assert_eq!(
        (back.origin(), back.was_processed()),
        (Origin::Handler, Processed::Yes)
    );

    let full = Status::unavailable("busy")
        .with_details(&b"dd"[..])
        .with_metadata(metadata(&[("k", b"v")]))
        .not_processed();
    assert_eq!(encode_status(&full), b"\x05\x02\x00dd\x01\x01\x00kv");
    let back = decode_status(&failure(&full));
    assert_eq!(back.code(), Code::UNAVAILABLE);
    assert_eq!(back.message(), "busy");
    assert_eq!(&back.details()[..], b"dd");
    assert_eq!(back.metadata(), full.metadata());
    assert_eq!(back.was_processed(), Processed::No);
    assert!(back.is_retryable());

    let library = Status::library(Code::INTERNAL, Processed::Yes, "panicked");
    assert_eq!(encode_status(&library), b"\x02\x00\x00");
    assert_eq!(
        decode_status(&failure(&library)).origin(),
        Origin::PeerLibrary
    );
}

#[test]
fn a_status_that_is_too_long_leaves_out_what_does_not_fit() {
    let status = Status::internal("x")
        .with_details(vec![1; 8000])
        .with_metadata(metadata(&[("k", &[0; 1000])]));
    let block = encode_status(&status);
    assert_eq!((block[0], block.len()), (0x08, 3 + 8000));
    let back = decode_status(&failure(&status));
    assert_eq!(back.details().len(), 8000);
    assert!(back.metadata().is_empty());

    let block = encode_status(&Status::internal("x").with_details(vec![1; 9000]));
    assert_eq!(block, b"\x08\x00\x00");
}

#[test]
fn metadata_is_refused_at_one_byte_too_many() {
    let mut metadata = Metadata::new();
    metadata
        .insert("k", vec![0; Metadata::MAX_BYTES - 4])
        .unwrap();
    let (len, limit) = (Metadata::MAX_BYTES + 1, Metadata::MAX_BYTES);
    let mut longer = Metadata::new();
    let error = longer.insert("k", vec![0; limit - 3]);
    assert_eq!(error, Err(MetadataError::TooLong { len, limit }));
    assert!(longer.is_empty());
    assert!(metadata.insert("k", "").is_err());
    for key in ["", "K", "a b", "ä", "a/b"] {
        assert_eq!(longer.insert(key, ""), Err(MetadataError::Key), "{key}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_accepted_is_written_back(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzzing::calls(&bytes);
    }

    #[test]
    fn bytes_that_begin_like_a_call_do_not_panic_either(flags in 0..32_u8, name in 0..4_u8, bytes in proptest::collection::vec(0..6_u8, 0..80)) {
        let mut input = vec![VERSION, flags, 0, name];
        input.extend(bytes);
        crate::fuzzing::calls(&input);
    }

    #[test]
    fn what_was_encoded_is_read_back(
        kind in 0..4_u8, codec: u8, micros: Option<u64>, name in "[a-zA-Z./]{1,255}",
        entries in proptest::collection::vec(("[a-z0-9._-]{1,20}", proptest::collection::vec(any::<u8>(), 0..900)), 0..10),
    ) {
        let mut metadata = Metadata::new();
        let kept: Vec<_> = entries.iter().filter(|(key, value)| metadata.insert(key, value).is_ok()).collect();
        let timeout = micros.map(Duration::from_micros);
        let (block, follows) = Opening::encode(kind, codec, timeout, &name, Some(&metadata));
        let opening = Opening::decode(&block).unwrap();
        let read = match follows {
            Some(block) => find_meta(&[block], block::REQUEST).unwrap(),
            None => opening.metadata.clone(),
        };
        prop_assert_eq!(opening.timeout, timeout);
        prop_assert_eq!(opening.method, name);
        let read: Vec<_> = read.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        prop_assert_eq!(read, kept.into_iter().cloned().collect::<Vec<_>>());
    }
}
