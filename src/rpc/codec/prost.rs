//! Messages of protobuf, by prost.

use bytes::BytesMut;
use prost::Message;

use super::{Codec, CodecError, Encoding, Payload};

/// Largest message that is read where it lies, in bytes.
const IN_PLACE_MAX: usize = 4096;

/// Messages of protobuf: every type that is a [`prost::Message`].
///
/// In a received message of more than 4 KiB, fields of type [`Bytes`](bytes::Bytes) are slices of it: they are not copied, and one that is kept
/// keeps all of it. In a smaller one they are copied, so that all others need no memory of their own.
#[derive(Clone, Copy, Debug)]
pub struct Prost;

impl Encoding for Prost {
    const ID: u8 = 1;
}

impl<T: Message + Default> Codec<T> for Prost {
    fn encode(message: &T, buffer: &mut BytesMut) -> Result<(), CodecError> {
        buffer.reserve(message.encoded_len());
        let written = message.encode(buffer);
        written.map_err(|error| CodecError(error.to_string().into()))
    }

    fn decode(payload: Payload<'_>) -> Result<T, CodecError> {
        let read = match payload.is_in_place() && payload.len() <= IN_PLACE_MAX {
            true => T::decode(&*payload.to_contiguous()),
            false => T::decode(payload.into_bytes()),
        };
        read.map_err(|error| CodecError(error.to_string().into()))
    }
}
