//! The frames of one write.
//!
//! ```text
//!   head   │hdr msg hdr msg hdr│hdr hdr msg ...        copied, contiguous
//!   parts   Copied(0..n)  Shared(payload)  Copied(n..m)
//! ```
//! Headers and small payloads are copied into `head`, which is reused for every batch; large
//! payloads are referenced. The parts in order are the bytes for the socket. A driver that gives a
//! batch to the kernel must keep it, unmoved and unchanged, until the write has completed.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

/// Maximum of bytes copied into one batch: one large segment on the loopback device.
pub(crate) const BATCH_COPY_BYTES: usize = 64 * 1024;
/// Maximum of bytes in one batch, referenced payloads included.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;
/// The same where several streams send: while a batch is being sent, the messages of the others wait.
pub(crate) const SHARED_BATCH_BYTES: usize = 128 * 1024;
/// Maximum of parts in one batch.
pub(crate) const BATCH_PARTS: usize = 64;

#[derive(Debug)]
enum Part {
    Copied(Range<usize>),
    Shared(Bytes),
}

/// Memory that frames are copied into: initialised once, then reused.
#[derive(Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    filled: usize,
}

/// Short payloads are copied in chunks of this many bytes, without a call to `memcpy`.
const CHUNK: usize = 16;
/// Longer ones are copied by `memcpy`.
const SHORT: usize = 4 * CHUNK;

impl Head {
    pub(in crate::wire) const fn len(&self) -> usize {
        self.filled
    }

    const fn clear(&mut self) {
        self.filled = 0;
    }

    /// The next `len` bytes, to be overwritten.
    #[inline]
    pub(in crate::wire) fn next(&mut self, len: usize) -> &mut [u8] {
        let (from, to) = (self.filled, self.filled + len);
        if to > self.bytes.len() {
            self.grow(to);
        }
        self.filled = to;
        &mut self.bytes[from..to]
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        self.bytes.resize(len.next_power_of_two().max(1024), 0);
    }

    #[inline]
    pub(in crate::wire) fn extend_from_slice(&mut self, bytes: &[u8]) {
        copy(bytes, self.next(bytes.len()));
    }

    /// Appends the bytes written by `write`, `most` at most.
    pub(in crate::wire) fn put_with(&mut self, most: usize, write: impl FnOnce(&mut &mut [u8])) {
        let mut rest = self.next(most);
        write(&mut rest);
        let left = rest.len();
        self.filled -= left;
    }

    /// A header followed by a payload.
    #[inline]
    pub(in crate::wire) fn put_frame<const N: usize>(&mut self, header: [u8; N], payload: &[u8]) {
        let frame = self.next(N + payload.len());
        let (head, body) = frame.split_at_mut(N);
        head.copy_from_slice(&header);
        copy(payload, body);
    }

    /// A byte already written.
    pub(in crate::wire) fn byte_mut(&mut self, at: usize) -> Option<&mut u8> {
        self.bytes[..self.filled].get_mut(at)
    }
}

#[inline]
fn copy(from: &[u8], to: &mut [u8]) {
    let len = from.len();
    if !(CHUNK..=SHORT).contains(&len) || to.len() != len {
        return to.copy_from_slice(from);
    }
    let mut chunk = |at: usize| to[at..at + CHUNK].copy_from_slice(&from[at..at + CHUNK]);
    // Chunks from both ends, which meet or overlap: no loop, of which the compiler would make a call.
    chunk(0);
    chunk(len - CHUNK);
    if len > 2 * CHUNK {
        chunk(CHUNK);
        chunk(len - 2 * CHUNK);
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head")
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

/// Frames on their way to the socket.
#[derive(Debug)]
pub(crate) struct Batch {
    head: Head,
    parts: SmallVec<[Part; 8]>,
    /// Where the next `Copied` part begins in `head`.
    mark: usize,
    len: usize,
    /// The batch accepts no more frames from this size on, in bytes.
    most: usize,
    /// Bytes that the socket has taken.
    written: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            head: Head::default(),
            parts: SmallVec::new(),
            mark: 0,
            len: 0,
            most: BATCH_BYTES,
            written: 0,
        }
    }

    /// Accepts no more frames from this size in bytes on, [`BATCH_BYTES`] at most.
    pub(crate) const fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// All bytes of the batch.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that may still be copied.
    pub(in crate::wire) fn room(&self) -> usize {
        if self.len >= self.most || self.parts.len() + 2 > BATCH_PARTS {
            return 0;
        }
        BATCH_COPY_BYTES.saturating_sub(self.head.len())
    }

    /// Where headers and small payloads are written; call [`copied`](Self::copied) afterwards.
    #[inline]
    pub(in crate::wire) const fn head(&mut self) -> &mut Head {
        &mut self.head
    }

    /// Counts the bytes written to `head` since the last call.
    #[inline]
    pub(in crate::wire) fn copied(&mut self, bytes: usize) {
        self.len += bytes;
    }

    /// References a payload, after the bytes copied so far.
    pub(in crate::wire) fn share(&mut self, payload: Bytes) {
        self.seal();
        self.len += payload.len();
        self.parts.push(Part::Shared(payload));
    }

    /// The batch is complete.
    pub(crate) fn seal(&mut self) {
        if self.head.len() > self.mark {
            self.parts.push(Part::Copied(self.mark..self.head.len()));
            self.mark = self.head.len();
        }
        debug_assert_eq!(self.len, self.parts.iter().map(Part::len).sum::<usize>());
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) const fn left(&self) -> usize {
        self.len - self.written
    }

    /// The socket took `bytes`, [`left`](Self::left) at most; true when it has all.
    pub(crate) fn advance(&mut self, bytes: usize) -> bool {
        self.written += bytes;
        debug_assert!(self.written <= self.len);
        self.written >= self.len
    }

    /// The bytes left of a batch with one part.
    #[inline]
    pub(crate) fn one_piece(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [only] => self.bytes(only).get(self.written..),
            _ => None,
        }
    }

    fn bytes<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Copied(range) => &self.head.bytes[range.clone()],
            Part::Shared(bytes) => bytes,
        }
    }

    /// The bytes that the socket has not taken yet, in order.
    pub(crate) fn remaining(&self) -> SmallVec<[&[u8]; 8]> {
        let mut skip = self.written;
        let mut slices = SmallVec::new();
        for part in &self.parts {
            let bytes = self.bytes(part);
            if skip >= bytes.len() {
                skip -= bytes.len();
            } else {
                slices.push(&bytes[skip..]);
                skip = 0;
            }
        }
        slices
    }

    /// The same, for a vectored write.
    pub(crate) fn io_slices(&self) -> SmallVec<[IoSlice<'_>; 8]> {
        self.remaining().into_iter().map(IoSlice::new).collect()
    }

    /// Empties the batch for the next one; the memory of `head` stays.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.head.clear();
        self.mark = 0;
        self.len = 0;
        self.written = 0;
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Copied(range) => range.len(),
            Self::Shared(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
impl Batch {
    /// A whole batch.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut batch = Self::new();
        batch.head().extend_from_slice(bytes);
        batch.copied(bytes.len());
        batch.seal();
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.head().extend_from_slice(b"head");
        batch.copied(4);
        batch.share(Bytes::from_static(b"SHARED"));
        batch.head().extend_from_slice(b"tail");
        batch.copied(4);
        batch.seal();
        batch
    }

    #[test]
    fn the_parts_are_the_bytes_in_order() {
        let batch = batch();
        assert_eq!(batch.remaining().concat(), b"headSHAREDtail");
        assert_eq!(batch.len(), 14);
    }

    #[test]
    fn after_every_short_write_exactly_the_rest_remains() {
        for first in 0..14 {
            let mut batch = batch();
            assert!(!batch.advance(first));
            assert_eq!(batch.remaining().concat(), b"headSHAREDtail"[first..]);
            assert!(batch.advance(14 - first));
        }
    }

    #[test]
    fn a_cleared_batch_is_empty_and_keeps_its_memory() {
        let mut batch = batch();
        let capacity = batch.head.bytes.len();
        batch.clear();
        assert!(batch.is_empty() && batch.remaining().is_empty());
        assert_eq!(batch.head.bytes.len(), capacity);
    }
}
