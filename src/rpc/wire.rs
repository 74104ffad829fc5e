//! What a call adds to a stream: its opening block, its metadata, and the details of its status. Specified in `WIRE.md`.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::code::Code;
use super::metadata::{Metadata, MetadataError};
use super::status::{Origin, Status};
use crate::drpc::InvocationError;
use crate::error::{Failure, Processed};

/// The version that this one speaks.
pub(crate) const VERSION: u8 = 1;
/// Most bytes of an opening block.
const MAX_OPENING: usize = 8 * 1024;
/// Most bytes of the details of an ERROR.
pub(super) const MAX_DETAILS: usize = 8 * 1024;

/// Flags of an opening block.
pub(crate) mod flag {
    /// The request is a stream of messages.
    pub(crate) const REQUEST_STREAM: u8 = 1 << 0;
    /// The answer is a stream of messages.
    pub(crate) const RESPONSE_STREAM: u8 = 1 << 1;
    /// A timeout follows.
    pub(crate) const TIMEOUT: u8 = 1 << 2;
    /// The metadata did not fit: it is the first META block.
    pub(crate) const METADATA_FOLLOWS: u8 = 1 << 3;
    /// Messages have the prefix of gRPC's.
    pub(crate) const GRPC: u8 = 1 << 4;
    /// All that this version knows.
    pub(crate) const KNOWN: u8 = (1 << 5) - 1;
}

/// What a META block is, its first byte.
pub(crate) mod block {
    /// Of the request.
    pub(crate) const REQUEST: u8 = 1;
    /// Of the answer, before its first message.
    pub(crate) const HEADERS: u8 = 2;
    /// Of the answer, after its last message.
    pub(crate) const TRAILERS: u8 = 3;
}

/// Flags of the details of an ERROR.
mod status_flag {
    /// The handler has not run, and will not.
    pub(super) const NOT_PROCESSED: u8 = 1 << 0;
    /// It is the library that says it.
    pub(super) const LIBRARY: u8 = 1 << 1;
    /// The same call may succeed later.
    pub(super) const RETRY: u8 = 1 << 2;
    /// Details or metadata were too long, and are left out.
    pub(super) const CUT: u8 = 1 << 3;
}

/// What a caller says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening<'a> {
    pub(crate) flags: u8,
    pub(crate) codec: u8,
    pub(crate) timeout: Option<Duration>,
    /// `service/method`.
    pub(crate) method: &'a str,
    pub(crate) metadata: Metadata,
    /// Whether it says flags and codec: over other wires the method alone tells.
    pub(crate) says_kind: bool,
}

/// The key of metadata by which CockroachDB's DRPC says that it compresses the messages of a call.
pub(super) const COMPRESSION: &str = "drpc-compression";

/// Why an opening block is not one that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpeningError {
    #[error("the stream is no call: its opening block is {0} bytes")]
    Short(usize),
    #[error("version {0} of calls is not known here, which speaks version 1")]
    Version(u8),
    #[error("the call asks for what is not known here: flags {0:#04x}")]
    Flags(u8),
    #[error("the name of the method is no text")]
    Method,
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Invocation(InvocationError),
    #[error(
        "the caller compresses messages ({COMPRESSION}), which is not known here: switch it off at the caller"
    )]
    Compressed,
}

/// The parts of an opening block, not looked at: only their lengths fit.
pub(super) struct Parts<'a> {
    pub(super) flags: u8,
    pub(super) codec: u8,
    pub(super) timeout: Option<Duration>,
    pub(super) method: &'a [u8],
    pub(super) metadata: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` for another version, or a block that is too short.
    #[inline]
    pub(super) fn of(block: &'a [u8]) -> Option<Self> {
        let (&[version, flags, codec, method_len], mut rest) = block.split_first_chunk::<4>()?;
        if version != VERSION {
            return None;
        }
        let mut timeout = None;
        if flags & flag::TIMEOUT != 0 {
            let (micros, after) = rest.split_first_chunk::<8>()?;
            timeout = Some(Duration::from_micros(u64::from_le_bytes(*micros)));
            rest = after;
        }
        let (method, metadata) = rest.split_at_checked(usize::from(method_len))?;
        Some(Self {
            flags,
            codec,
            timeout,
            method,
            metadata,
        })
    }
}

impl<'a> Opening<'a> {
    /// One that says nothing.
    pub(crate) const fn unsaid() -> Self {
        Self {
            flags: 0,
            codec: 0,
            timeout: None,
            method: "",
            metadata: Metadata::new(),
            says_kind: false,
        }
    }

    /// Encodes an opening; the metadata comes back if it has to go as a block of its own.
    pub(crate) fn encode(
        kind: u8,
        codec: u8,
        timeout: Option<Duration>,
        method: &str,
        metadata: Option<&Metadata>,
    ) -> (Bytes, Option<Bytes>) {
        let mut block = Vec::new();
        let follows = Self::encode_into(&mut block, kind, codec, timeout, method, metadata);
        (Bytes::from(block), follows)
    }

    /// Whether an opening, also one with a timeout, has room for this much metadata.
    pub(crate) const fn fits(method: &str, metadata: usize) -> bool {
        4 + 8 + method.len() + metadata <= MAX_OPENING
    }

    /// The same behind what is in `block`.
    pub(crate) fn encode_into(
        block: &mut Vec<u8>,
        kind: u8,
        codec: u8,
        timeout: Option<Duration>,
        method: &str,
        metadata: Option<&Metadata>,
    ) -> Option<Bytes> {
        let metadata = metadata.map_or(&[][..], Metadata::as_bytes);
        let fits = Self::fits(method, metadata.len());
        let mut flags = kind;
        if timeout.is_some() {
            flags |= flag::TIMEOUT;
        }
        if !fits {
            flags |= flag::METADATA_FOLLOWS;
        }
        // A method has checked its name.
        let head = [VERSION, flags, codec, method.len() as u8];
        block.reserve(head.len() + 8 + method.len());
        block.extend_from_slice(&head);
        if let Some(timeout) = timeout {
            let micros = timeout.as_secs().saturating_mul(1_000_000);
            let micros = micros.saturating_add(timeout.subsec_micros().into());
            block.extend_from_slice(&micros.to_le_bytes());
        }
        block.extend_from_slice(method.as_bytes());
        if metadata.is_empty() {
            return None;
        }
        if fits {
            block.extend_from_slice(metadata);
        }
        (!fits).then(|| meta(block::REQUEST, metadata))
    }

    pub(crate) fn decode(block: &'a Bytes) -> Result<Self, OpeningError> {
        Self::decode_in_place(block, |part| block.slice_ref(part))
    }

    /// The same of a part of some memory, of which `share` makes bytes to keep.
    pub(crate) fn decode_in_place(
        block: &'a [u8],
        share: impl FnOnce(&'a [u8]) -> Bytes,
    ) -> Result<Self, OpeningError> {
        let short = OpeningError::Short(block.len());
        let &version = block.first().ok_or(short)?;
        if version != VERSION {
            return Err(OpeningError::Version(version));
        }
        let flags = block.get(..4).ok_or(short)?[1];
        if flags & !flag::KNOWN != 0 {
            return Err(OpeningError::Flags(flags & !flag::KNOWN));
        }
        let Parts {
            codec,
            timeout,
            method,
            metadata,
            ..
        } = Parts::of(block).ok_or(short)?;
        let method = match std::str::from_utf8(method) {
            Ok(method) if !method.is_empty() => method,
            _ => return Err(OpeningError::Method),
        };
        let metadata = match metadata.is_empty() {
            true => Metadata::new(),
            false => Metadata::decode(share(metadata))?,
        };
        Ok(Self {
            flags,
            codec,
            timeout,
            method,
            metadata,
            says_kind: true,
        })
    }
}

/// A META block.
pub(crate) fn meta(kind: u8, metadata: &[u8]) -> Bytes {
    let mut block = BytesMut::with_capacity(1 + metadata.len());
    block.put_u8(kind);
    block.put_slice(metadata);
    block.freeze()
}

/// The metadata of the first block of this kind; none if there is no such block.
pub(crate) fn find_meta(blocks: &[Bytes], kind: u8) -> Result<Metadata, MetadataError> {
    let found = blocks.iter().find(|block| block.first() == Some(&kind));
    found.map_or_else(
        || Ok(Metadata::new()),
        |block| Metadata::decode(block.slice(1..)),
    )
}

/// The details of an ERROR that carries a status.
pub(crate) fn encode_status(status: &Status) -> Vec<u8> {
    let mut flags = 0;
    if status.was_processed() == Processed::No {
        flags |= status_flag::NOT_PROCESSED;
    }
    if status.origin() != Origin::Handler {
        flags |= status_flag::LIBRARY;
    }
    if status.is_retryable() {
        flags |= status_flag::RETRY;
    }
    let (mut details, mut metadata) = (&status.details()[..], status.metadata().as_bytes());
    if 3 + details.len() + metadata.len() > MAX_DETAILS {
        flags |= status_flag::CUT;
        metadata = &[];
        if 3 + details.len() > MAX_DETAILS {
            details = &[];
        }
    }
    if flags == 0 && details.is_empty() && metadata.is_empty() {
        return Vec::new();
    }
    let mut block = Vec::with_capacity(3 + details.len() + metadata.len());
    block.push(flags);
    block.extend_from_slice(&(details.len() as u16).to_le_bytes());
    block.extend_from_slice(details);
    block.extend_from_slice(metadata);
    block
}

/// The status that an ERROR carries; one whose details make no sense is taken without them.
pub(crate) fn decode_status(failure: &Failure) -> Status {
    let code = Code::new(failure.code);
    let status = Status::new(code, failure.message.clone());
    let block = &failure.details;
    let Some((&[flags, low, high], rest)) = block.split_first_chunk::<3>() else {
        return status.said_by(Origin::Handler, Processed::Yes, false);
    };
    let len = usize::from(u16::from_le_bytes([low, high]));
    let (details, metadata) = rest.split_at_checked(len).unwrap_or((&[], &[]));
    let origin = match flags & status_flag::LIBRARY {
        0 => Origin::Handler,
        _ => Origin::PeerLibrary,
    };
    let processed = match flags & status_flag::NOT_PROCESSED {
        0 => Processed::Yes,
        _ => Processed::No,
    };
    let metadata = Metadata::decode(block.slice_ref(metadata)).unwrap_or_default();
    status
        .with_details(block.slice_ref(details))
        .with_metadata(metadata)
        .said_by(origin, processed, flags & status_flag::RETRY != 0)
}

#[cfg(test)]
mod tests;
