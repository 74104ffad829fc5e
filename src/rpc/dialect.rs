//! How a call is put into a stream: in the way of `wire` over ringmux's own wire, in that of DRPC over DRPC. All that differs
//! between the two is here; the session says which it is.
//!
//! DRPC has a name and metadata in front of a call, and a code, a text and details behind a failed one. It has no codec, no
//! kind of method, no timeout, no metadata of an answer, and does not say who failed a call or whether it ran.

use std::borrow::Cow;

use bytes::Bytes;

use super::code::Code;
use super::metadata::{Metadata, MetadataError};
use super::status::{Origin, Status};
use super::wire::{self, COMPRESSION, MAX_DETAILS, Opening, OpeningError};
use crate::addr::Wire;
use crate::drpc::{Calls, Invocation, StatusDetails};
use crate::error::codes;
use crate::error::{Failure, NotCarried, Processed, StreamError};

/// The type of the one `Any` that holds details which are no `Any` themselves.
const OPAQUE: &str = "type.googleapis.com/ringmux.Details";
/// Fields of `google.rpc.Status`, and of `Any`, with their wire types.
const MESSAGE: u8 = 0x12;
const TYPE_URL: u8 = 0x0a;
const VALUE: u8 = 0x12;

// ---- the opening ------------------------------------------------------------------------------------

/// What opens a call, without the parts that its wire does not have, and metadata that has to follow.
pub(super) fn opening(
    wire: Wire,
    (kind, codec): (u8, u8),
    timeout: Option<std::time::Duration>,
    method: &str,
    metadata: Option<&Metadata>,
) -> Result<(Bytes, Option<Bytes>), Status> {
    if wire.drpc().is_none() {
        return Ok(Opening::encode(kind, codec, timeout, method, metadata));
    }
    let none = Metadata::new();
    let metadata = metadata.unwrap_or(&none);
    let mut keys = metadata.iter().enumerate();
    if keys.any(|(at, (key, _))| metadata.iter().take(at).any(|(other, _)| other == key)) {
        return Err(NotCarried::RepeatedKey.into());
    }
    let block = Invocation::encode(&format!("/{method}"), metadata);
    block.map(|block| (block.into(), None)).map_err(|error| {
        let text = error.to_string();
        Status::library(Code::INVALID_ARGUMENT, Processed::No, text)
    })
}

/// What a caller says first, as far as its wire lets it.
pub(super) fn read_opening(wire: Wire, block: &Bytes) -> Result<Opening<'_>, OpeningError> {
    if wire.drpc().is_none() {
        return Opening::decode(block);
    }
    let invocation = Invocation::decode(block).map_err(OpeningError::Invocation)?;
    let path = invocation.path();
    let mut metadata = Metadata::new();
    for (key, value) in invocation.entries() {
        if key == COMPRESSION.as_bytes() && wire.drpc().is_some_and(|it| it.calls == Calls::Many) {
            return Err(OpeningError::Compressed);
        }
        // Peers may use any bytes as keys. Those that no key of this library can be are not seen by handlers.
        let Ok(key) = std::str::from_utf8(key) else {
            continue;
        };
        if let Err(error @ MetadataError::TooLong { .. }) = metadata.insert(&lower_case(key), value)
        {
            return Err(error.into());
        }
    }
    Ok(Opening {
        method: path.strip_prefix('/').unwrap_or(path),
        metadata,
        ..Opening::unsaid()
    })
}

fn lower_case(key: &str) -> Cow<'_, str> {
    match key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => key.to_ascii_lowercase().into(),
        false => key.into(),
    }
}

// ---- the status -------------------------------------------------------------------------------------

/// The details of the ERROR that ends a failed call; those that are too long are left out.
pub(super) fn encode_status(wire: Wire, status: &Status) -> Vec<u8> {
    if wire.drpc().is_none() {
        return wire::encode_status(status);
    }
    let details = drpc_details(status.details());
    if details.len() > MAX_DETAILS {
        return Vec::new();
    }
    details
}

/// Details that are in the form of `google.rpc.Status`, as they are, without the parts that the error says itself; others as one
/// `Any`.
fn drpc_details(details: &Bytes) -> Vec<u8> {
    if details.is_empty() {
        return Vec::new();
    }
    if let Some(own) = of_status(details) {
        return own;
    }
    let mut any = Vec::with_capacity(OPAQUE.len() + details.len() + 8);
    put_field(&mut any, TYPE_URL, OPAQUE.as_bytes());
    put_field(&mut any, VALUE, details);
    StatusDetails::encode(None, [any])
}

/// The details of an encoded `google.rpc.Status`; `None` if it is none, or has no details.
fn of_status(bytes: &[u8]) -> Option<Vec<u8>> {
    let (code, mut rest) = match bytes.split_first() {
        Some((0x08, rest)) => {
            let (code, rest) = split_varint(rest)?;
            (Some(code), rest)
        }
        _ => (None, bytes),
    };
    if let Some((_, behind)) = split_field(rest, MESSAGE) {
        rest = behind;
    }
    let details = StatusDetails::decode(rest);
    let encoded = StatusDetails::encode(None, details.any());
    if encoded.len() != rest.len() || (rest.is_empty() && code.is_none()) {
        return None;
    }
    // A code that the status has as well, or one that only fits here.
    let fits = |code: &u64| u32::try_from(*code).is_ok_and(|code| !codes::is_reserved(code));
    let code = code.filter(|code| !fits(code));
    Some(StatusDetails::encode(code, details.any()))
}

/// The status of a call whose stream has ended.
pub(super) fn status(wire: Wire, error: StreamError) -> Status {
    match (wire.drpc(), error) {
        (Some(_), StreamError::Failed(failure)) => drpc_status(&failure),
        (_, error) => error.into(),
    }
}

fn drpc_status(failure: &Failure) -> Status {
    // 0 is no failure for gRPC, and the error of a peer that gave none.
    let status = Status::new(Code::new(failure.code), failure.message.clone());
    let details = opaque(&failure.details).unwrap_or_else(|| failure.details.clone());
    status
        .with_details(details)
        .said_by(Origin::Handler, Processed::Yes, false)
}

/// The details that were no `Any` before they were sent.
fn opaque(details: &Bytes) -> Option<Bytes> {
    let decoded = StatusDetails::decode(details);
    let mut all = decoded.any();
    let (any, None) = (all.next()?, all.next()) else {
        return None;
    };
    let (url, rest) = split_field(any, TYPE_URL)?;
    let (value, rest) = split_field(rest, VALUE)?;
    (url == OPAQUE.as_bytes() && rest.is_empty()).then(|| details.slice_ref(value))
}

// ---- protobuf ---------------------------------------------------------------------------------------

fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    crate::drpc::Varint::split(bytes)
}

fn split_field(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (len, rest) = split_varint(bytes.strip_prefix(&[tag])?)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

fn put_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    crate::drpc::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::drpc::Profile;

    const DRPC: Wire = Wire::Drpc(Profile::COCKROACH);

    fn sent(status: &Status) -> Status {
        let failure = Failure {
            code: status.code().number(),
            message: status.message().to_owned(),
            details: encode_status(DRPC, status).into(),
        };
        super::status(DRPC, StreamError::Failed(Arc::new(failure)))
    }

    #[test]
    fn a_call_opens_with_its_path_and_its_metadata() {
        let mut metadata = Metadata::new();
        metadata.insert("tenant", "a").unwrap();
        metadata.insert("b", [0, 255]).unwrap();
        let (block, follows) = opening(DRPC, (0, 1), None, "a.B/C", Some(&metadata)).unwrap();
        assert!(follows.is_none());
        assert_eq!(Invocation::decode(&block).unwrap().path(), "/a.B/C");
        let read = read_opening(DRPC, &block).unwrap();
        assert_eq!((read.method, &read.metadata), ("a.B/C", &metadata));
        assert!(!read.says_kind);
        let (plain, _) = opening(DRPC, (0, 1), None, "a.B/C", None).unwrap();
        assert_eq!(plain, "/a.B/C");
    }

    #[test]
    fn a_key_that_comes_twice_fails_the_call_before_it_is_sent() {
        let mut metadata = Metadata::new();
        for value in ["a", "b"] {
            metadata.insert("tenant", value).unwrap();
        }
        let status = opening(DRPC, (0, 1), None, "a/B", Some(&metadata)).unwrap_err();
        assert_eq!(status.code(), Code::UNIMPLEMENTED);
        assert_eq!(
            (status.was_processed(), status.is_retryable()),
            (Processed::No, false)
        );
    }

    #[test]
    fn keys_of_peers_are_lower_cased_and_what_is_no_key_is_not_seen() {
        let entries = [("Trace-Id", &b"1"[..]), ("no key", b"2"), ("\u{e9}", b"3")];
        let block = Bytes::from(Invocation::encode("/a/B", entries).unwrap());
        let read = read_opening(DRPC, &block).unwrap();
        let seen: Vec<_> = read.metadata.iter().collect();
        assert_eq!(seen, [("trace-id", &b"1"[..])]);
        let bare = Bytes::from_static(b"no slash");
        assert_eq!(read_opening(DRPC, &bare).unwrap().method, "no slash");
        assert!(read_opening(DRPC, &Bytes::from_static(b"\xff")).is_err());
    }

    #[test]
    fn a_call_whose_messages_are_compressed_is_refused_where_the_key_means_that() {
        let entries = [(COMPRESSION, &b"snappy"[..])];
        let block = Bytes::from(Invocation::encode("/a/B", entries).unwrap());
        let refused = read_opening(DRPC, &block).map(|_| ());
        assert_eq!(refused, Err(OpeningError::Compressed));
        // Storj's peers hand it to the handler.
        let read = read_opening(Wire::Drpc(Profile::STORJ), &block).unwrap();
        assert_eq!(read.metadata.get(COMPRESSION), Some(&b"snappy"[..]));
    }

    #[test]
    fn details_of_any_form_come_back() {
        let any = b"\x1a\x05\x0a\x01t\x12\x00".to_vec();
        for details in [&b""[..], b"opaque", &any, &[0x1a], &[0x08], &[0x12, 0]] {
            let status = Status::not_found("no").with_details(details.to_vec());
            let back = sent(&status);
            assert_eq!((back.code(), back.message()), (Code::NOT_FOUND, "no"));
            assert_eq!(back.details(), details, "{details:?}");
        }
        // A whole google.rpc.Status, as others keep in their details: what the error does not say itself.
        let whole = [&b"\x08\x05\x12\x02no"[..], &any].concat();
        assert_eq!(
            sent(&Status::not_found("no").with_details(whole)).details(),
            &any
        );
        // A code of 64 bits.
        let wide = StatusDetails::encode(Some(1 << 40), [b""; 0]);
        let back = sent(&Status::new(Code::UNKNOWN, "").with_details(wide));
        assert_eq!(StatusDetails::decode(back.details()).code(), Some(1 << 40));
    }

    #[test]
    fn details_beyond_what_an_error_carries_are_left_out() {
        let longest = (0..=MAX_DETAILS).rev().find(|len| {
            let status = Status::not_found("no").with_details(vec![0; *len]);
            !encode_status(DRPC, &status).is_empty()
        });
        // With its envelope it has the limit.
        assert_eq!(longest, Some(MAX_DETAILS - 43));
        for len in [MAX_DETAILS + 1, 1 << 20] {
            let back = sent(&Status::not_found("no").with_details(vec![0; len]));
            assert_eq!((back.code(), back.message()), (Code::NOT_FOUND, "no"));
            assert!(back.details().is_empty());
        }
    }

    #[test]
    fn every_code_comes_back_and_none_is_unknown() {
        for number in (1..=16).chain([17, 1000, u32::MAX >> 1]) {
            assert_eq!(
                sent(&Status::new(Code::new(number), "x")).code().number(),
                number
            );
        }
        let failure = Failure {
            code: 0,
            message: "protocol error: unknown rpc: \"x\"".to_owned(),
            details: Bytes::new(),
        };
        let status = status(DRPC, StreamError::Failed(Arc::new(failure)));
        assert_eq!(
            (status.code(), status.origin()),
            (Code::UNKNOWN, Origin::Handler)
        );
        assert_eq!(status.was_processed(), Processed::Yes);
    }
}
