//! A growable ring of variable-size records between one writer and one reader.
//!
//! A record is a tag, a "free of charge" bit and a payload, which is either copied into the ring or an owned [`Bytes`] whose
//! handle is stored there. The writer pushes any number of records and publishes them together; the reader walks ahead of the
//! records that it has released, so it borrows a message of several pieces in place and releases them together.
//!
//! It is not a channel: it wakes no task, has no end and no error, and accepts every push. The caller checks
//! [`Writer::has_room`] before it pushes.
//!
//! ```text
//!        released             passed (leased)          published             unpublished
//!   ┈──────────────────┬──────────────────────────┬───────────────────┬─────────────────────┬──┈
//!                    head                     position              tail               writer's cursor
//!                  (shared,                   (reader)             (shared,                (writer)
//!               stored by reader)                              stored by writer)
//! ```
//!
//! # Invariants
//! 1. `head ≤ position ≤ tail ≤ writer's cursor`, in words, never decreasing.
//! 2. Words from `head` to `tail` belong to the reader, all others of the newest segment to the writer. They change hands
//!    by the Release store of `tail` (writer) or `head` (reader) and the Acquire load on the other side, and not otherwise.
//! 3. The writer touches the newest segment only; older ones, which end in a LINK, belong to the reader, which frees them in
//!    order. `oldest` is the segment in which `head` lies.
//! 4. A header marked TAKEN owns nothing; a `Shared` header that is not marked owns one `Bytes`.
//! 5. The private state of an end is accessed by its one [`Writer`] or [`Reader`] at a time, and by the thread that drops
//!    or renews the ring, when both are gone.
//!
//! # Progress
//! No operation waits for the other side and none has a loop that the other side can prolong: all are **wait-free**, except
//! for the allocator. In detail: pushes are bounded by the payload's length, and allocate only when the segment is too
//! small; `publish`, `has_room`, `take` by a constant; `peek` and `advance` by the number of taken records they
//! skip; `commit` by the number of records passed if one of them owns a `Bytes`, else by the segments left behind.
//! In steady state (no segment too small) nothing is allocated, except by `take` to copy an inline payload.
//!
//! # Limits of the tests
//! Loom checks every access to the words, but a slice handed out counts as read when it is handed out: that it is not read
//! after the commit is left to the borrow checker.
//!
//! # Memory
//! Nothing until the first push, then [`FIRST_SEGMENT_BYTES`]. A segment doubles when the records not yet released do not
//! fit. A record that costs weight takes fewer bytes of the ring than it weighs, so if every push of a record that is not
//! free is preceded by `has_room(weight, limit)`, and with `m = max(limit, the heaviest record)`, the segments together stay
//! under `20 m + FIRST_SEGMENT_BYTES`, even if the reader never reads. Records that are `free` are outside this bound, and
//! the caller has to bound their number. The reader frees a segment when it has released all of it;
//! [`Writer::shrink_if_idle`] gives the last one back too, and [`Writer::retract`] those without published records, but for a
//! small one.
//! [`RingPair::renew`] prepares an unused pair for another use, with one segment for each ring.

mod held;
mod passed;
mod reader;
mod segment;
mod words;
mod writer;

#[cfg(all(test, ringmux_loom))]
mod loom_tests;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;

use crate::sync::{AtomicPtr, AtomicU64, Ordering, UnsafeCell};
use bytes::Bytes;
use segment::{Cursor, Segment};
use std::ptr::NonNull;

use reader::ReaderState;
use writer::WriterState;

pub(crate) use held::Held;
pub(crate) use passed::Passed;
pub(crate) use reader::Reader;
pub(crate) use writer::{Reserved, Writer};

/// Size of the first segment, to which an idle ring returns. Tiny under loom, so that models wrap and grow.
pub(crate) const FIRST_SEGMENT_BYTES: usize = if cfg!(ringmux_loom) { 32 } else { 128 };

const FIRST_WORDS: u64 = FIRST_SEGMENT_BYTES as u64 / words::WORD_BYTES;

const _: () = {
    assert!(FIRST_WORDS.is_power_of_two());
    #[cfg(not(ringmux_loom))]
    assert!(size_of::<WriterEnd>() == 64 && size_of::<ReaderEnd>() == 64);
    #[cfg(not(ringmux_loom))]
    assert!(size_of::<RingPair>() == 4 * 64);
};

/// The least charge of a record: what its header, padding to a word, and handle take.
const LEAST_CHARGE: u64 = (1 + words::HANDLE_WORDS) * words::WORD_BYTES;

/// What a record with a payload of `len` bytes weighs where each is charged `charge` beside it.
#[inline]
pub(crate) const fn record_weight(charge: u32, len: usize, free: bool) -> u64 {
    if free { 0 } else { len as u64 + charge as u64 }
}

/// A record in the ring, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) tag: u16,
    pub(crate) free: bool,
    pub(crate) payload: Payload<'a>,
}

impl Record<'_> {
    #[inline]
    pub(crate) fn weight(&self, charge: u32) -> u64 {
        record_weight(charge, self.payload.len(), self.free)
    }
}

/// The payload of a [`Record`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// It is stored in the ring.
    Slice(&'a [u8]),
    /// Its handle is stored in the ring.
    Shared(&'a Bytes),
}

impl<'a> Payload<'a> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &'a [u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Shared(bytes) => bytes,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload as a handle of its own: shared if it is one, else copied.
    pub(crate) fn to_bytes(self) -> Bytes {
        match self {
            Self::Slice(slice) => Bytes::copy_from_slice(slice),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

/// A record moved out of the ring by [`Reader::take`].
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) tag: u16,
    pub(crate) free: bool,
    pub(crate) payload: Bytes,
}

/// Owns the memory of a [`Ring`], typically by reference count.
///
/// # Safety
/// `ring` returns the same `Ring` of the same [`RingPair`], at the same address, each time during the whole lifetime of the
/// value, also after the value was moved or sent to another thread.
pub(crate) unsafe trait RingOwner {
    /// What a record weighs beside the length of its payload, unless it is free: so a limit on weight bounds the number of
    /// records too. At least what a record takes beside its payload, see the module on memory.
    const CHARGE: u32;

    fn ring(&self) -> Ring<'_>;
}

/// The writer's end of a ring: shared and private state. As long as a cache line, so that storing
/// does not invalidate the other party's line. Not aligned to one: allocators such as mimalloc and jemalloc align
/// whole lines by themselves, and others would take a slow path for it.
#[derive(Debug)]
#[repr(align(16))]
struct WriterEnd {
    /// Everything before is published.
    tail: AtomicU64,
    own: UnsafeCell<WriterState>,
}

/// The reader's end of a ring, as long as a line as well.
#[derive(Debug)]
#[repr(align(16))]
struct ReaderEnd {
    /// Everything before is released.
    head: AtomicU64,
    /// Weight of the records released so far.
    released: AtomicU64,
    /// The segment that contains `head`: set by the writer with the first push, or when the ring was renewed; from the first
    /// publication on by the reader.
    oldest: AtomicPtr<Segment>,
    own: UnsafeCell<ReaderState>,
}

/// One party's ends: the writer's end of the ring to the other party, and the reader's end of the ring from it.
#[derive(Debug)]
struct Party {
    writer: WriterEnd,
    reader: ReaderEnd,
}

impl WriterEnd {
    /// For a ring that begins in this segment, or without a segment before the first push.
    fn new(first: Option<NonNull<Segment>>) -> Self {
        Self {
            tail: AtomicU64::new(0),
            own: UnsafeCell::new(WriterState::new(first)),
        }
    }
}

impl ReaderEnd {
    /// As [`WriterEnd::new`].
    fn new(first: Option<NonNull<Segment>>) -> Self {
        let oldest = first.map_or(std::ptr::null_mut(), NonNull::as_ptr);
        Self {
            head: AtomicU64::new(0),
            released: AtomicU64::new(0),
            oldest: AtomicPtr::new(oldest),
            own: UnsafeCell::new(ReaderState::new(first)),
        }
    }
}

impl Party {
    fn new() -> Self {
        Self {
            writer: WriterEnd::new(None),
            reader: ReaderEnd::new(None),
        }
    }
}

/// The rings between two parties, one in each direction: four cache lines, and no heap until the first push.
///
/// Dropping it frees the segments and drops the owned payloads still inside, also unpublished ones.
#[derive(Debug)]
pub(crate) struct RingPair {
    near: Party,
    far: Party,
}

// SAFETY: the pointers inside are to segments, which go with the rings and which one side at a time may touch (invariants 2
// and 3); payloads are `Send`.
unsafe impl Send for RingPair {}
// SAFETY: the shared state is atomic; the rest belongs to one side, a value that can be borrowed mutably only by one
// thread at a time (invariant 5).
unsafe impl Sync for RingPair {}

impl RingPair {
    pub(crate) fn new() -> Self {
        Self {
            near: Party::new(),
            far: Party::new(),
        }
    }

    /// Empties both rings, as if new; each keeps one segment of [`FIRST_SEGMENT_BYTES`], if it has one.
    ///
    /// `&mut self` proves that no earlier `Writer` or `Reader` is left, so that new ones may be made.
    pub(crate) fn renew(&mut self) {
        // SAFETY: `&mut self`: no reference is left, and owners hold one; the ends are replaced below.
        let first = unsafe { self.forth().empty() };
        self.near.writer = WriterEnd::new(first);
        self.far.reader = ReaderEnd::new(first);
        // SAFETY: as above; the other direction is another ring.
        let first = unsafe { self.back().empty() };
        self.far.writer = WriterEnd::new(first);
        self.near.reader = ReaderEnd::new(first);
    }

    /// The ring from near to far.
    #[inline]
    pub(crate) const fn forth(&self) -> Ring<'_> {
        Ring {
            writer: &self.near.writer,
            reader: &self.far.reader,
        }
    }

    /// The ring from far to near.
    #[inline]
    pub(crate) const fn back(&self) -> Ring<'_> {
        Ring {
            writer: &self.far.writer,
            reader: &self.near.reader,
        }
    }
}

/// The part of one ring that both sides share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring<'a> {
    writer: &'a WriterEnd,
    reader: &'a ReaderEnd,
}

impl Ring<'_> {
    /// The weight of all records released so far, at this moment or later.
    #[inline]
    pub(crate) fn released(self) -> u64 {
        // ORDERING: pairs with `Reader::commit`; publishes `head` too, which that stores first: a writer that sees room
        // by weight also sees the words it was given back.
        self.reader.released.load(Ordering::Acquire)
    }

    fn load_head(self) -> u64 {
        // ORDERING: pairs with `ReaderState::release`; publishes that the reader is done with the words before `head`.
        self.reader.head.load(Ordering::Acquire)
    }

    /// Drops the payloads, and frees the segments, except the newest if that has the first size: it is returned.
    ///
    /// # Safety
    /// No writer and no reader is left, and none is made before both ends are replaced or gone; called once until then.
    #[inline]
    unsafe fn empty(self) -> Option<NonNull<Segment>> {
        // Relaxed throughout: the pair is borrowed mutably, so that both sides come before.
        let oldest = NonNull::new(self.reader.oldest.load(Ordering::Relaxed))?;
        let from = Cursor {
            segment: oldest,
            at: self.reader.head.load(Ordering::Relaxed),
        };
        // SAFETY: invariant 5.
        let written = self.writer.own.with(|own| unsafe { (*own).cursor });
        let end = written.unwrap_or(from);
        // SAFETY: invariant 3: `oldest` is alive.
        let is_small = unsafe { from.words() }.len() == FIRST_WORDS;
        // No segment is behind `oldest` then: each begins after a LINK.
        if end.at == from.at && is_small {
            return Some(oldest);
        }
        // SAFETY: the contract above.
        unsafe { Self::empty_between(from, end.at) }
    }

    /// As [`empty`](Self::empty), where records are left, or large segments.
    ///
    /// # Safety
    /// As for `empty`; `cursor` is at `head`, and `end` where the writer is.
    #[inline(never)]
    unsafe fn empty_between(mut cursor: Cursor, end: u64) -> Option<NonNull<Segment>> {
        let oldest = cursor.segment;
        while cursor.at != end {
            // SAFETY: invariants 2 and 3: from `head`, which lies in `oldest`, up to `end` all was written.
            let header = unsafe { cursor.header() };
            if header.owns_handle() {
                // SAFETY: no one else is left, and the header says that a handle is here.
                drop(unsafe { cursor.take_handle(header) });
            }
            // SAFETY: the segments behind are alive until the loop below.
            unsafe { cursor.step(header) };
        }
        let mut segment = oldest;
        loop {
            // SAFETY: invariant 3: `oldest` and all that follow it are alive; each is freed once, below.
            let current = unsafe { segment.as_ref() };
            let next = NonNull::new(current.next.load(Ordering::Relaxed));
            if next.is_none() && current.len() == FIRST_WORDS {
                return Some(segment);
            }
            // SAFETY: no cursor is left.
            unsafe { Segment::free(segment) };
            segment = next?;
        }
    }

    /// Empties one ring of a pair being dropped, and frees its last segment.
    ///
    /// # Safety
    /// As [`empty`](Self::empty).
    unsafe fn free(self) {
        // SAFETY: the contract above.
        if let Some(segment) = unsafe { self.empty() } {
            // SAFETY: `empty` returned it to the caller, and no cursor is left.
            unsafe { Segment::free(segment) };
        }
    }
}

impl Drop for RingPair {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: no reference is left, and owners hold one; the other direction is another ring.
        unsafe { self.forth().free() };
        // SAFETY: as above.
        unsafe { self.back().free() };
    }
}
