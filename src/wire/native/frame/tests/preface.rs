//! The first eight bytes.

use super::super::preface::{VERSION, check_prefix, encode, is_prefix, negotiate, parse};
use super::*;

#[test]
fn a_preface_is_the_name_and_the_version() {
    assert_eq!(&encode(VERSION), b"RINGMUX\x01");
    assert_eq!(parse(b"RINGMUX\x01"), Ok(1));
    assert_eq!(parse(b"RINGMUX\xff"), Ok(255));
}

#[test]
fn there_is_no_version_0() {
    assert_eq!(
        parse(b"RINGMUX\x00"),
        Err(FrameError::BadVersion { version: 0 })
    );
    assert!(!is_prefix(b"RINGMUX\x00"));
}

#[test]
fn the_lower_of_two_versions_is_spoken() {
    for theirs in 1..=u8::MAX {
        assert_eq!(negotiate(theirs), theirs.min(VERSION));
    }
}

#[test]
fn every_beginning_of_a_preface_is_one_and_more_bytes_do_not_matter() {
    let bytes = b"RINGMUX\x01\x00\x00";
    for end in 0..=bytes.len() {
        assert!(is_prefix(&bytes[..end]), "{end} bytes");
    }
}

#[test]
fn garbage_is_refused_at_its_first_wrong_byte() {
    for at in 0..7u8 {
        let mut bytes = *b"RINGMUX\x01";
        bytes[usize::from(at)] ^= 0x20;
        let found = bytes[usize::from(at)];
        let error = Err(FrameError::BadPreface { at, found });
        assert_eq!(parse(&bytes).map(drop), error);
        for end in 0..=bytes.len() {
            let expected = if end <= usize::from(at) {
                Ok(())
            } else {
                error
            };
            assert_eq!(check_prefix(&bytes[..end]), expected);
        }
    }
    assert!(!is_prefix(b"GET / HTTP/1.1\r\n"));
}
