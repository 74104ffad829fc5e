//! A message that is written where it is sent from.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::BytesMut;

use crate::bridge::{COPY_MAX, TxRing, reason, tx_tag};
use crate::queue::{Reserved as Place, Writer};

/// The place of a message in its stream's queue, from [`SendStream::reserve`](crate::SendStream::reserve): its bytes, which are zero
/// at first. [`send`](Self::send) queues it; dropped, it leaves nothing.
#[must_use = "dropping it sends nothing"]
pub struct Reserved<'a>(Memory<'a>);

enum Memory<'a> {
    /// In the ring, up to what is copied anyway.
    Ring(Place<'a, TxRing>),
    /// By itself; the ring has a reference.
    Apart(&'a mut Writer<TxRing>, BytesMut),
}

impl<'a> Reserved<'a> {
    /// There is room for a message of this length.
    pub(super) fn new(writer: &'a mut Writer<TxRing>, len: usize) -> Self {
        Self(if len <= COPY_MAX {
            Memory::Ring(writer.reserve(len))
        } else {
            Memory::Apart(writer, BytesMut::zeroed(len))
        })
    }

    /// Queues the message, as [`SendStream::send`](crate::SendStream::send) does. If the stream has ended meanwhile, it is dropped.
    pub fn send(self) {
        let writer = match self.0 {
            Memory::Ring(place) => place.push(tx_tag::MESSAGE, false),
            Memory::Apart(writer, message) => {
                writer.push_bytes(tx_tag::MESSAGE, false, message.freeze());
                writer
            }
        };
        writer.publish();
        writer.owner().0.raise(reason::SEND);
    }
}

impl Deref for Reserved<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Ring(place) => place.payload(),
            Memory::Apart(_, message) => message,
        }
    }
}

impl DerefMut for Reserved<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Ring(place) => place.payload_mut(),
            Memory::Apart(_, message) => message,
        }
    }
}

impl fmt::Debug for Reserved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
