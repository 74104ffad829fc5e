//! Messages of protobuf, by prost.

use bytes::BytesMut;
use prost::Message;

use super::{Codec, CodecError, Encoding, Payload};

/// Messages of protobuf: every type that is a [`prost::Message`].
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
        T::decode(&*payload.to_contiguous()).map_err(|error| CodecError(error.to_string().into()))
    }
}
