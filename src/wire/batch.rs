//! The frames of one write.
//!
//! ```text
//!   head    │hdr msg hdr msg hdr│hdr hdr msg ...        copied, contiguous
//!   shared                payload ▲                     behind so many bytes of `head`
//! ```
//! Headers and small payloads are copied into `head`, which is reused for every batch; large
//! payloads are referenced. A driver that gives a batch to the kernel must keep it, unmoved and unchanged, until the write
//! has completed.

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
/// Parts of a batch from which it is full: bytes of `head` that are contiguous, or a referenced payload. A FIN may be one more.
pub(crate) const BATCH_PARTS: usize = 64;

/// A referenced payload.
#[derive(Debug)]
struct Shared {
    /// Bytes of `head` in front of it.
    at: usize,
    bytes: Bytes,
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
        self.filled = to;
        if to > self.bytes.len() {
            return self.grow(from..to);
        }
        &mut self.bytes[from..to]
    }

    #[cold]
    fn grow(&mut self, next: Range<usize>) -> &mut [u8] {
        let len = next.end.next_power_of_two().max(1024);
        self.bytes.resize(len, 0);
        &mut self.bytes[next]
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
        if len > 0 {
            to.copy_from_slice(from);
        }
        return;
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
    shared: SmallVec<[Shared; 4]>,
    /// Bytes of the referenced payloads.
    shared_bytes: usize,
    /// The batch accepts no more frames from this size on, in bytes.
    most: usize,
    /// So `head` accepts none from this size on.
    full: usize,
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
            shared: SmallVec::new(),
            shared_bytes: 0,
            most: BATCH_BYTES,
            full: BATCH_COPY_BYTES,
            written: 0,
        }
    }

    /// The empty batch accepts no more frames from this size on, in bytes: from [`BATCH_COPY_BYTES`] to [`BATCH_BYTES`].
    pub(crate) fn limit(&mut self, most: usize) {
        debug_assert!(self.is_empty() && (BATCH_COPY_BYTES..=BATCH_BYTES).contains(&most));
        self.most = most;
    }

    /// All bytes of the batch.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.head.len() + self.shared_bytes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        // A referenced payload has its header in front.
        self.head.len() == 0
    }

    /// Bytes that may still be copied.
    #[inline]
    pub(in crate::wire) const fn room(&self) -> usize {
        if self.head.len() >= self.full {
            return 0;
        }
        BATCH_COPY_BYTES - self.head.len()
    }

    /// Where headers and small payloads are written.
    #[inline]
    pub(in crate::wire) const fn head(&mut self) -> &mut Head {
        &mut self.head
    }

    /// References a payload, after the bytes copied so far.
    pub(in crate::wire) fn share(&mut self, bytes: Bytes) {
        self.shared_bytes += bytes.len();
        let at = self.head.len();
        self.shared.push(Shared { at, bytes });
        self.full = match 2 * self.shared.len() < BATCH_PARTS {
            true => self
                .most
                .saturating_sub(self.shared_bytes)
                .min(BATCH_COPY_BYTES),
            false => 0,
        };
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) const fn left(&self) -> usize {
        self.len() - self.written
    }

    /// The socket took `bytes`, [`left`](Self::left) at most; true when it has all.
    pub(crate) fn advance(&mut self, bytes: usize) -> bool {
        self.written += bytes;
        debug_assert!(self.written <= self.len());
        self.written >= self.len()
    }

    /// The bytes left of a batch without referenced payloads.
    #[inline]
    pub(crate) fn one_piece(&self) -> Option<&[u8]> {
        match self.shared.is_empty() {
            true => self.head.bytes.get(self.written..self.head.len()),
            false => None,
        }
    }

    /// The bytes that the socket has not taken yet, in order.
    pub(crate) fn remaining(&self) -> SmallVec<[&[u8]; 8]> {
        let mut skip = self.written;
        let mut slices = SmallVec::new();
        let mut push = |bytes| {
            let bytes: &[u8] = bytes;
            if skip >= bytes.len() {
                skip -= bytes.len();
            } else {
                slices.push(&bytes[skip..]);
                skip = 0;
            }
        };
        let mut from = 0;
        for Shared { at, bytes } in &self.shared {
            push(&self.head.bytes[from..*at]);
            push(bytes);
            from = *at;
        }
        push(&self.head.bytes[from..self.head.len()]);
        slices
    }

    /// The same, for a vectored write.
    pub(crate) fn io_slices(&self) -> SmallVec<[IoSlice<'_>; 8]> {
        self.remaining().into_iter().map(IoSlice::new).collect()
    }

    /// Empties the batch for the next one; the memory of `head` stays.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if !self.shared.is_empty() {
            self.shared.clear();
        }
        self.shared_bytes = 0;
        self.head.clear();
        self.full = BATCH_COPY_BYTES;
        self.written = 0;
    }
}

#[cfg(test)]
impl Batch {
    /// A whole batch.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut batch = Self::new();
        batch.head().extend_from_slice(bytes);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.head().extend_from_slice(b"head");
        batch.share(Bytes::from_static(b"SHARED"));
        batch.head().extend_from_slice(b"tail");
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
    fn a_batch_is_full_from_its_limit_on_and_from_the_last_part_on() {
        let mut batch = Batch::new();
        batch.limit(SHARED_BATCH_BYTES);
        let payload = Bytes::from(vec![0; SHARED_BATCH_BYTES - 8]);
        batch.share(payload);
        assert_eq!(batch.room(), BATCH_COPY_BYTES);
        batch.head().extend_from_slice(&[0; 7]);
        assert_eq!(batch.room(), BATCH_COPY_BYTES - 7);
        batch.head().extend_from_slice(&[0; 1]);
        assert_eq!((batch.len(), batch.room()), (SHARED_BATCH_BYTES, 0));

        batch.clear();
        while batch.room() > 0 {
            batch.head().extend_from_slice(b"header");
            batch.share(Bytes::from_static(b"payload"));
        }
        assert_eq!(batch.remaining().len(), BATCH_PARTS);
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
