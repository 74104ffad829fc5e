//! A message borrowed where it lies.

use std::borrow::Cow;
use std::fmt;

use bytes::Buf;

use super::recv::RecvStream;
use crate::queue::Passed;

/// A received message, borrowed from its stream; dropping it releases the memory.
///
/// A message is one piece in memory unless it was larger than a frame. As a [`Buf`] it is read
/// from front to back; the other methods always see all of it.
pub struct Lease<'a> {
    stream: &'a mut RecvStream,
    /// Bytes read through [`Buf`].
    read: usize,
}

impl<'a> Lease<'a> {
    /// The stream has passed over the message.
    pub(super) const fn new(stream: &'a mut RecvStream) -> Self {
        Self { stream, read: 0 }
    }

    /// The message's size, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice()
            .map_or_else(|| self.stream.reader().passed().payload_len(), <[u8]>::len)
    }

    /// Whether the message has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message's pieces, in order; at least one.
    #[must_use]
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks(self.stream.reader().passed())
    }

    /// The message, if it is one piece.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        let only = self.stream.reader().only_passed()?;
        Some(only.payload.as_slice())
    }

    /// The message as one piece, copied only if it is several.
    #[must_use]
    pub fn to_contiguous(&self) -> Cow<'_, [u8]> {
        self.as_slice().map_or_else(
            || Cow::Owned(self.chunks().collect::<Vec<_>>().concat()),
            Cow::Borrowed,
        )
    }
}

impl Buf for Lease<'_> {
    fn remaining(&self) -> usize {
        self.len() - self.read
    }

    fn chunk(&self) -> &[u8] {
        let mut skip = self.read;
        for chunk in self.chunks() {
            match chunk.get(skip..) {
                Some(rest) if !rest.is_empty() => return rest,
                _ => skip -= chunk.len().min(skip),
            }
        }
        &[]
    }

    /// # Panics
    /// If `count` exceeds what remains, as for every [`Buf`].
    fn advance(&mut self, count: usize) {
        assert!(
            count <= self.remaining(),
            "cannot advance a lease beyond its message"
        );
        self.read += count;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.stream.release();
    }
}

impl fmt::Debug for Lease<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The pieces of a leased message. From [`Lease::chunks`].
#[derive(Clone, Debug)]
pub struct Chunks<'a>(Passed<'a>);

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.0.next().map(|record| record.payload.as_slice())
    }
}
