//! Bytes to what calls add to a stream, and back.

use bytes::Bytes;

use crate::error::Failure;
use crate::rpc::{Opening, decode_status, encode_status, find_meta};

/// Reads the input as the opening block of a call, as a block of metadata, and as the details of a status. What is
/// accepted is written back byte for byte.
///
/// # Panics
/// When the codec breaks a promise.
pub fn calls(input: &[u8]) {
    let block = Bytes::copy_from_slice(input);
    if let Ok(opening) = Opening::decode(&block) {
        // How the metadata travels is a flag of the encoder's own, and gRPC's framing one of its caller's.
        let kind = opening.flags & !0b0000_1100;
        let metadata = Some(&opening.metadata);
        let (again, _) = Opening::encode(
            kind,
            opening.codec,
            opening.timeout,
            opening.method,
            metadata,
        );
        assert_eq!(again.len(), block.len());
        assert_eq!(again[2..], block[2..]);
    }
    for kind in 0..4 {
        if let Ok(metadata) = find_meta(std::slice::from_ref(&block), kind) {
            assert_eq!(metadata.iter().count(), (&metadata).into_iter().count());
        }
    }
    let failure = Failure {
        code: u32::from(input.first().copied().unwrap_or_default()),
        message: String::new(),
        details: block,
    };
    let status = decode_status(&failure);
    let details = Bytes::from(encode_status(&status));
    let again = decode_status(&Failure { details, ..failure });
    assert_eq!(again.details(), status.details());
    assert_eq!(again.was_processed(), status.was_processed());
    assert_eq!(again.is_retryable(), status.is_retryable());
}
