//! A message borrowed in place.

use std::borrow::Cow;
use std::fmt;

use bytes::{Buf, Bytes};

use crate::bridge::RxRing;
use crate::queue::{Held, Passed, Payload, Reader};

/// A received message, borrowed from its stream; dropping it releases the memory, with all of the message: bytes not
/// read through [`Buf`] by then are lost.
///
/// A message is one piece in memory unless it was larger than a frame. As a [`Buf`] it is read
/// from front to back; the other methods always see all of it, that is the part not read before
/// as bytes ([`tokio::io::AsyncRead`]).
pub struct Lease<'a> {
    /// The message, and the position of [`Buf`] in it.
    held: Held<'a, RxRing>,
    /// Bytes of the first piece that were read before: fewer than its length, and mostly none.
    skip: usize,
    /// Bytes read of the piece in front, including `skip`.
    read: usize,
    /// Bytes not read; `None` before the first read, as they need not be counted until then.
    left: Option<usize>,
    /// The stream's `reported`.
    reported: &'a mut u32,
}

impl<'a> Lease<'a> {
    /// The reader has passed over the message, of which `skip` bytes were read before; `reported`: the consumed weight
    /// that the engine knows of.
    pub(super) const fn new(
        reader: &'a mut Reader<RxRing>,
        reported: &'a mut u32,
        skip: usize,
    ) -> Self {
        Self {
            held: Held::new(reader),
            skip,
            read: skip,
            left: None,
            reported,
        }
    }

    /// The message's size, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice()
            .map_or_else(|| self.chunks().map(<[u8]>::len).sum(), <[u8]>::len)
    }

    /// Whether the message has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message's pieces, in order; at least one.
    #[must_use]
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks {
            pieces: self.held.reader().passed(),
            skip: self.skip,
        }
    }

    /// The message, if it is one piece.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        let only = self.held.reader().only_passed()?;
        only.payload.as_slice().get(self.skip..)
    }

    /// Whether [`to_bytes`](Self::to_bytes) copies nothing: a large message that arrived in one piece.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let only = self.held.reader().only_passed();
        only.is_some_and(|only| matches!(only.payload, Payload::Shared(_)))
    }

    /// The message to keep: copied once, unless it [is shared](Self::is_shared).
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self.held.reader().only_passed() {
            Some(only) => only.payload.to_bytes().split_off(self.skip),
            None => self.chunks().collect::<Vec<_>>().concat().into(),
        }
    }

    /// The message as one piece, copied only if it has several.
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
        self.left.unwrap_or_else(|| self.len())
    }

    fn chunk(&self) -> &[u8] {
        let mut read = self.read;
        for piece in self.held.rest() {
            let rest = &piece.payload.as_slice()[read..];
            if !rest.is_empty() {
                return rest;
            }
            // An empty piece, which only the first can be: `advance` skips pieces that are read.
            read = 0;
        }
        &[]
    }

    /// # Panics
    /// If `count` exceeds what remains, as for every [`Buf`].
    fn advance(&mut self, count: usize) {
        let left = self.remaining().checked_sub(count);
        self.left = Some(left.expect("cannot advance a lease beyond its message"));
        self.read += count;
        // Each piece is skipped once, so that reading is linear in the number of pieces.
        while let Some(piece) = self.held.rest().next() {
            if self.read < piece.payload.len() {
                return;
            }
            self.read -= piece.payload.len();
            self.held.step();
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        super::release(self.held.let_go(), self.reported);
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
pub struct Chunks<'a> {
    pieces: Passed<'a>,
    /// Bytes to skip of the next piece.
    skip: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let piece = self.pieces.next()?.payload.as_slice();
        piece.get(std::mem::take(&mut self.skip)..)
    }
}
