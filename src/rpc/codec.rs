//! How messages become bytes.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::code::Code;
use super::status::Status;
use crate::error::Processed;
use crate::handle::Lease;

#[cfg(feature = "rpc-postcard")]
mod postcard;
#[cfg(feature = "rpc-prost")]
mod prost;

#[cfg(feature = "rpc-postcard")]
pub use self::postcard::Postcard;
#[cfg(feature = "rpc-prost")]
pub use self::prost::Prost;

/// What a message could not be written as, or read from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub Cow<'static, str>);

/// The name of an encoding, whatever the messages.
///
/// Numbers below 128 are ringmux's; an application that brings a codec gives it one from 128 on.
pub trait Encoding: 'static {
    /// What a call says which encoding it uses; a server refuses one that is not its method's.
    const ID: u8;
}

/// How messages of one type become bytes, and bytes such messages.
///
/// # Examples
/// ```
/// use bytes::{BufMut, BytesMut};
/// use ringmux::rpc::{Codec, CodecError, Encoding, Payload};
///
/// /// Numbers as eight bytes.
/// struct Fixed;
///
/// impl Encoding for Fixed {
///     const ID: u8 = 128;
/// }
///
/// impl Codec<u64> for Fixed {
///     fn encode(message: &u64, buffer: &mut BytesMut) -> Result<(), CodecError> {
///         buffer.put_u64_le(*message);
///         Ok(())
///     }
///
///     fn decode(payload: Payload<'_>) -> Result<u64, CodecError> {
///         let bytes = payload.to_contiguous();
///         let bytes = (&*bytes).try_into().map_err(|_| CodecError("eight bytes".into()))?;
///         Ok(u64::from_le_bytes(bytes))
///     }
/// }
/// ```
pub trait Codec<T>: Encoding {
    /// Whether [`decode`](Self::decode) is given messages where they lie, which saves a copy and an allocation for those that are not kept
    /// as bytes. Short messages of calls that stream always are.
    const IN_PLACE: bool = true;

    /// Writes a message behind what is in `buffer`.
    ///
    /// # Errors
    /// The message cannot be written; the call fails and nothing is sent.
    fn encode(message: &T, buffer: &mut BytesMut) -> Result<(), CodecError>;

    /// The whole message, if it is bytes already: then it is not copied.
    fn whole(message: &T) -> Option<Bytes> {
        let _ = message;
        None
    }

    /// The bytes of the message, if it is bytes already: a short one is copied to where it is sent from. One that it does not give is
    /// [`whole`](Self::whole), or encoded.
    fn as_slice(message: &T) -> Option<&[u8]> {
        let _ = message;
        None
    }

    /// The whole message, as [`whole`](Self::whole), of one that is not needed any more, which comes back if it is none.
    ///
    /// # Errors
    /// The message, if it is not bytes already.
    fn into_whole(message: T) -> Result<Bytes, T> {
        Self::whole(&message).ok_or(message)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are no such message: [`Code::INVALID_ARGUMENT`] for a request, [`Code::INTERNAL`] for an answer.
    fn decode(payload: Payload<'_>) -> Result<T, CodecError>;
}

/// A received message.
#[derive(Debug)]
pub struct Payload<'a>(Where<'a>);

#[derive(Debug)]
enum Where<'a> {
    Bytes(Bytes),
    /// To be taken from there.
    Kept(&'a mut Bytes),
    Lease(Lease<'a>),
    Slice(&'a [u8]),
}

impl Payload<'_> {
    /// The message as one piece, copied only if it is several.
    #[must_use]
    pub fn to_contiguous(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Where::Bytes(bytes) => Cow::Borrowed(bytes),
            Where::Kept(bytes) => Cow::Borrowed(bytes),
            Where::Lease(lease) => lease.to_contiguous(),
            Where::Slice(slice) => Cow::Borrowed(slice),
        }
    }

    /// The message to keep; not copied if it came as such, see [`Codec::IN_PLACE`].
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Where::Bytes(bytes) => bytes,
            Where::Kept(bytes) => std::mem::take(bytes),
            Where::Lease(lease) => lease.to_bytes(),
            Where::Slice(slice) => Bytes::copy_from_slice(slice),
        }
    }

    /// Its size, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Where::Bytes(bytes) => bytes.len(),
            Where::Kept(bytes) => bytes.len(),
            Where::Lease(lease) => lease.len(),
            Where::Slice(slice) => slice.len(),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the message lies in its stream, from where [`into_bytes`](Self::into_bytes) would copy it.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match &self.0 {
            Where::Bytes(_) | Where::Kept(_) => false,
            Where::Lease(lease) => !lease.is_shared(),
            Where::Slice(_) => true,
        }
    }
}

impl From<Bytes> for Payload<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Where::Bytes(bytes))
    }
}

impl<'a> From<Lease<'a>> for Payload<'a> {
    fn from(lease: Lease<'a>) -> Self {
        Self(Where::Lease(lease))
    }
}

impl<'a> Payload<'a> {
    /// A message that is taken from where it is kept.
    #[inline]
    pub(super) const fn kept(bytes: &'a mut Bytes) -> Self {
        Self(Where::Kept(bytes))
    }

    /// A message in one piece of memory that is not its own.
    #[inline]
    pub(super) const fn in_place(slice: &'a [u8]) -> Self {
        Self(Where::Slice(slice))
    }
}

/// Messages that are bytes: [`Bytes`] and `Vec<u8>`.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Encoding for Raw {
    const ID: u8 = 0;
}

impl Codec<Bytes> for Raw {
    const IN_PLACE: bool = false;

    fn encode(message: &Bytes, buffer: &mut BytesMut) -> Result<(), CodecError> {
        buffer.put_slice(message);
        Ok(())
    }

    fn whole(message: &Bytes) -> Option<Bytes> {
        Some(message.clone())
    }

    fn as_slice(message: &Bytes) -> Option<&[u8]> {
        Some(message)
    }

    fn into_whole(message: Bytes) -> Result<Bytes, Bytes> {
        Ok(message)
    }

    fn decode(payload: Payload<'_>) -> Result<Bytes, CodecError> {
        Ok(payload.into_bytes())
    }
}

impl Codec<Vec<u8>> for Raw {
    fn encode(message: &Vec<u8>, buffer: &mut BytesMut) -> Result<(), CodecError> {
        buffer.put_slice(message);
        Ok(())
    }

    fn as_slice(message: &Vec<u8>) -> Option<&[u8]> {
        Some(message)
    }

    fn decode(payload: Payload<'_>) -> Result<Vec<u8>, CodecError> {
        Ok(payload.to_contiguous().into_owned())
    }
}

/// A codec for one type, as functions.
pub(super) struct Coding<T> {
    pub(super) in_place: bool,
    pub(super) encode: fn(&T, &mut BytesMut) -> Result<(), CodecError>,
    pub(super) whole: fn(&T) -> Option<Bytes>,
    pub(super) as_slice: fn(&T) -> Option<&[u8]>,
    into_whole: fn(T) -> Result<Bytes, T>,
    pub(super) decode: fn(Payload<'_>) -> Result<T, CodecError>,
}

/// The part of it that reads.
pub(super) struct Decoding<T> {
    pub(super) in_place: bool,
    pub(super) decode: fn(Payload<'_>) -> Result<T, CodecError>,
}

impl<T> Coding<T> {
    pub(super) const fn of<C: Codec<T>>() -> Self {
        Self {
            in_place: C::IN_PLACE,
            encode: C::encode,
            whole: C::whole,
            as_slice: C::as_slice,
            into_whole: C::into_whole,
            decode: C::decode,
        }
    }

    pub(super) const fn decoding(self) -> Decoding<T> {
        Decoding {
            in_place: self.in_place,
            decode: self.decode,
        }
    }

    /// The message as bytes of their own.
    #[inline]
    pub(super) fn to_bytes(self, message: &T) -> Result<Bytes, Status> {
        if let Some(whole) = (self.whole)(message) {
            return Ok(whole);
        }
        self.encoded(message)
    }

    /// Appends the message to `buffer`, unless it is bytes already and longer than `most`: then it is returned.
    #[inline]
    pub(super) fn put(
        self,
        message: &T,
        buffer: &mut BytesMut,
        most: usize,
    ) -> Result<Option<Bytes>, Status> {
        match (self.as_slice)(message) {
            Some(bytes) if bytes.len() <= most => buffer.extend_from_slice(bytes),
            Some(_) => return self.to_bytes(message).map(Some),
            None => self.encode_into(message, buffer)?,
        }
        Ok(None)
    }

    /// The message as bytes of their own, of one that is not needed any more.
    #[inline]
    pub(super) fn into_bytes(self, message: T) -> Result<Bytes, Status> {
        (self.into_whole)(message).or_else(|message| self.encoded(&message))
    }

    fn encoded(self, message: &T) -> Result<Bytes, Status> {
        let mut buffer = BytesMut::new();
        self.encode_into(message, &mut buffer)?;
        Ok(buffer.freeze())
    }

    pub(super) fn encode_into(self, message: &T, buffer: &mut BytesMut) -> Result<(), Status> {
        (self.encode)(message, buffer).map_err(|error| {
            let text = format!("the message cannot be encoded: {error}");
            Status::library(Code::INTERNAL, Processed::No, text)
        })
    }
}

impl<T> Clone for Coding<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Coding<T> {}

impl<T> Clone for Decoding<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Decoding<T> {}
