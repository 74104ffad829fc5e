//! Types of serde, by postcard.

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, Encoding, Payload};

/// Types of serde: everything that is `Serialize` and `DeserializeOwned`.
///
/// Fields have no numbers on the wire, so both sides have to have the same types.
#[derive(Clone, Copy, Debug)]
pub struct Postcard;

impl Encoding for Postcard {
    const ID: u8 = 2;
}

/// Writes to a buffer, which grows.
struct Buffer<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Buffer<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.extend_from_slice(&[byte]);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(message: &T, buffer: &mut BytesMut) -> Result<(), CodecError> {
        let written = postcard::serialize_with_flavor(message, Buffer(buffer));
        written.map_err(|error| CodecError(error.to_string().into()))
    }

    fn decode(payload: Payload<'_>) -> Result<T, CodecError> {
        let read = postcard::from_bytes(&payload.to_contiguous());
        read.map_err(|error| CodecError(error.to_string().into()))
    }
}
