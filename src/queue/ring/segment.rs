//! Segments, the header word of a record, and the cursor that walks over both.
//!
//! ```text
//!   header word:  len u32 | tag u16 | kind u8 | flags u8          payload: len bytes, padded to 8
//!
//!   segment A (8 words)                    segment B (16 words)
//!   ┌────┬───────┬────┬───────┬────┬────┐  ┌────┬──────────────┬───┈
//!   │head│payload│head│payload│LINK│    │  │head│payload       │
//!   └────┴───────┴────┴───────┴────┴────┘  └────┴──────────────┴───┈
//!                              next ─────────►  starts at the next multiple of B's length
//! ```
//! Cursors count words and never decrease. One word after the newest record is always free: a LINK always fits there,
//! without waiting for the reader. A PAD covers the words before the end of the memory when a record does not fit there.
//!
//! This file does not synchronise: the rules of access to the words are in `writer` and `reader`.

#[cfg(ringmux_loom)]
use super::words::Shadows;
use super::words::{HANDLE_WORDS, WORD_BYTES, Words, words_for};
use super::{Payload, Record};
use crate::sync::{AtomicPtr, Ordering};
use bytes::Bytes;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// The memory of a part of the ring: one allocation, this header and then the words.
#[derive(Debug)]
pub(super) struct Segment {
    /// How many words, a power of two, less one.
    mask: u64,
    /// The segment in which the ring continues, set before the LINK is published.
    pub(super) next: AtomicPtr<Self>,
    #[cfg(ringmux_loom)]
    shadows: Shadows,
    /// Fails a model that leaks a segment.
    #[cfg(ringmux_loom)]
    _leak_check: loom::alloc::Track<()>,
}

/// Offset of the words in the allocation.
const WORDS_OFFSET: usize = size_of::<Segment>();

const _: () = assert!(WORDS_OFFSET.is_multiple_of(align_of::<u64>()));

impl Segment {
    fn layout(words: u64) -> Layout {
        let bytes = usize::try_from(words * WORD_BYTES).ok();
        bytes
            .and_then(|bytes| WORDS_OFFSET.checked_add(bytes))
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<Self>()).ok())
            .expect("a segment fits the address space")
    }

    /// Allocates a segment of `words` words, a power of two, to be freed with [`Self::free`].
    pub(super) fn alloc(words: u64) -> NonNull<Self> {
        assert!(words.is_power_of_two(), "cursors are masked");
        let layout = Self::layout(words);
        // SAFETY: the layout is not empty: it holds the header.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let segment = start.cast::<Self>();
        let header = Self {
            mask: words - 1,
            next: AtomicPtr::new(std::ptr::null_mut()),
            #[cfg(ringmux_loom)]
            shadows: Shadows::new(words),
            #[cfg(ringmux_loom)]
            _leak_check: loom::alloc::Track::new(()),
        };
        // SAFETY: the header lies at the start of the allocation.
        unsafe { segment.write(header) };
        segment
    }

    /// # Safety
    /// `segment` came from [`Self::alloc`], and is no longer used.
    pub(super) unsafe fn free(segment: NonNull<Self>) {
        // SAFETY: written by `alloc`; the caller is the last to hold it.
        let header = unsafe { segment.read() };
        // SAFETY: allocated with this layout.
        unsafe { dealloc(segment.as_ptr().cast(), Self::layout(header.len())) };
    }

    /// Words in the segment.
    #[inline(always)]
    pub(super) fn len(&self) -> u64 {
        self.mask + 1
    }
}

/// The content behind a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A payload copied into the ring.
    Slice,
    /// An owned `Bytes`.
    Shared,
    /// Nothing: skip to the end of the memory.
    Pad,
    /// The ring continues in the next segment.
    Link,
}

/// The first word of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header(u64);

impl Header {
    const TAG_SHIFT: u32 = 32;
    const KIND_SHIFT: u32 = 48;
    const FREE: u64 = 1 << 56;
    const TAKEN: u64 = 1 << 57;
    /// Bit of the kind: set for an owned `Bytes` and a link.
    const ODD_KIND: u64 = 1 << Self::KIND_SHIFT;
    /// Bit of the kind: set for padding and links, which are no records.
    const NO_RECORD: u64 = 2 << Self::KIND_SHIFT;

    /// # Panics
    /// If `len` does not fit 32 bits: the reader would read the ring out of step.
    #[inline]
    pub(super) fn new(kind: Kind, tag: u16, free: bool, len: usize) -> Self {
        let len = u32::try_from(len).expect("a record is shorter than 4 GiB");
        let kind = match kind {
            Kind::Slice => 0,
            Kind::Shared => 1,
            Kind::Pad => 2,
            Kind::Link => 3,
        } << Self::KIND_SHIFT;
        let free = if free { Self::FREE } else { 0 };
        Self(u64::from(len) | u64::from(tag) << Self::TAG_SHIFT | kind | free)
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// The same header, marked as taken: the payload was moved out.
    #[inline]
    pub(super) fn taken(self) -> Self {
        Self(self.0 | Self::TAKEN)
    }

    #[inline]
    pub(super) fn is_taken(self) -> bool {
        self.0 & Self::TAKEN != 0
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self.0 >> Self::KIND_SHIFT & 3 {
            0 => Kind::Slice,
            1 => Kind::Shared,
            2 => Kind::Pad,
            _ => Kind::Link,
        }
    }

    /// Whether a payload is there.
    #[inline]
    pub(super) fn is_record(self) -> bool {
        self.0 & (Self::NO_RECORD | Self::TAKEN) == 0
    }

    /// Of a record: whether its payload is, or was, a `Bytes`.
    #[inline]
    pub(super) fn is_shared(self) -> bool {
        self.0 & Self::ODD_KIND != 0
    }

    /// Whether a `Bytes` is there.
    #[inline]
    pub(super) fn owns_handle(self) -> bool {
        self.0 & (Self::ODD_KIND | Self::NO_RECORD | Self::TAKEN) == Self::ODD_KIND
    }

    #[inline]
    pub(super) fn len(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn tag(self) -> u16 {
        (self.0 >> Self::TAG_SHIFT) as u16
    }

    #[inline]
    pub(super) fn is_free(self) -> bool {
        self.0 & Self::FREE != 0
    }

    /// Words of a record whose payload is stored in the ring, with its header.
    #[inline]
    pub(super) fn words(self) -> u64 {
        1 + words_for(u64::from(self.len()))
    }

    /// Weight of the record; padding and links weigh nothing.
    #[inline]
    pub(super) fn weight(self, charge: u32) -> u64 {
        if self.0 & (Self::NO_RECORD | Self::FREE) == 0 {
            u64::from(self.len()) + u64::from(charge)
        } else {
            0
        }
    }
}

/// A place in the ring: words passed since the beginning, and the segment in which the next one lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    pub(super) segment: NonNull<Segment>,
    pub(super) at: u64,
}

impl Cursor {
    /// # Safety
    /// The segment stays allocated during `'a`.
    #[inline(always)]
    pub(super) unsafe fn segment<'a>(self) -> &'a Segment {
        // SAFETY: it came from `Segment::alloc` and is alive by the contract above; it is never borrowed mutably.
        unsafe { self.segment.as_ref() }
    }

    /// The words of the segment.
    ///
    /// # Safety
    /// The segment is alive, and stays so while the words are used.
    #[inline(always)]
    pub(super) unsafe fn words(self) -> Words {
        // SAFETY: alive by the contract above.
        let segment = unsafe { self.segment() };
        // SAFETY: `alloc` has laid the words behind the header, in the allocation that this pointer is to.
        let base = unsafe { self.segment.byte_add(WORDS_OFFSET) }.cast();
        Words {
            base,
            mask: segment.mask,
            #[cfg(ringmux_loom)]
            shadows: segment.shadows.clone(),
        }
    }

    /// # Safety
    /// The segment is alive, a header was written here, and no one writes it now.
    #[inline(always)]
    pub(super) unsafe fn header(self) -> Header {
        // SAFETY: alive by the contract above.
        let words = unsafe { self.words() };
        // SAFETY: written and unchanging by the contract above.
        Header(unsafe { words.read(self.at) })
    }

    /// Moves behind the record or padding of `header`, which is at this position.
    ///
    /// # Safety
    /// The segment is alive.
    #[inline(always)]
    pub(super) unsafe fn pass(&mut self, header: Header) {
        self.at += match header.kind() {
            // The common case.
            Kind::Slice => header.words(),
            Kind::Shared => 1 + HANDLE_WORDS,
            // SAFETY: alive by the contract above.
            Kind::Pad => unsafe { self.words() }.contiguous(self.at),
            Kind::Link => 0,
        };
    }

    /// Moves behind the record of `header`, which is at this position and may have been taken.
    #[inline(always)]
    pub(super) fn pass_record(&mut self, header: Header) {
        debug_assert!(matches!(header.kind(), Kind::Slice | Kind::Shared));
        self.at += match header.is_shared() {
            true => 1 + HANDLE_WORDS,
            false => header.words(),
        };
    }

    /// Follows the LINK at this position.
    ///
    /// # Safety
    /// The segment is alive, and the LINK happens-before this call.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn follow(&mut self) {
        // SAFETY: alive by the contract above.
        let next = unsafe { self.segment() }.next.load(Ordering::Relaxed);
        let next = NonNull::new(next).expect("`next` is set before its LINK is written");
        *self = Self {
            segment: next,
            at: self.at,
        };
        // SAFETY: reachable, hence not freed: segments are freed oldest first.
        self.at = unsafe { self.segment() }.start_after(self.at);
    }

    /// Moves over the content of `header`, which is at this position.
    ///
    /// # Safety
    /// As for [`Self::follow`].
    #[inline]
    pub(super) unsafe fn step(&mut self, header: Header) {
        if header.kind() == Kind::Link {
            // SAFETY: the contract above.
            unsafe { self.follow() }
        } else {
            // SAFETY: the contract above.
            unsafe { self.pass(header) }
        }
    }

    /// # Safety
    /// `header` is at this position and [`Header::is_record`]; during `'a` the segment stays alive and no one writes the record.
    #[inline]
    pub(super) unsafe fn record<'a>(self, header: Header) -> Record<'a> {
        // SAFETY: alive by the contract above.
        let words = unsafe { self.words() };
        let payload = if header.is_shared() {
            // SAFETY: the kind says that a handle was written behind the header; unchanged by the contract above.
            Payload::Shared(unsafe { words.handle(self.at + 1) })
        } else {
            // SAFETY: the header says how many bytes were written behind it; unchanged by the contract above.
            Payload::Slice(unsafe { words.slice(self.at + 1, header.len() as usize) })
        };
        Record {
            tag: header.tag(),
            free: header.is_free(),
            payload,
        }
    }

    /// Moves the handle out, marking the record so that it is never moved out again.
    ///
    /// # Safety
    /// `header` is at this position and [`Header::owns_handle`]; the segment is alive and no one else touches the record.
    #[inline]
    pub(super) unsafe fn take_handle(self, header: Header) -> Bytes {
        // SAFETY: alive by the contract above.
        let words = unsafe { self.words() };
        // SAFETY: exclusive by the contract above.
        unsafe { words.write(self.at, header.taken().word()) };
        // SAFETY: the kind says that a handle is there, and the mark just written that this is the only time.
        unsafe { words.take_handle(self.at + 1) }
    }
}

impl Segment {
    /// The position of cursors when the ring moves to this segment from a LINK at `link`: the first index 0 after it.
    #[inline]
    pub(super) fn start_after(&self, link: u64) -> u64 {
        (link + 1).next_multiple_of(self.len())
    }
}
