//! The memory of one segment: a power-of-two number of 64-bit words, addressed by a monotonic cursor.
//!
//! It is not synchronised and knows no records. Each access goes through raw pointers, so that the writer and the
//! reader can touch different words at the same time. Under loom every word has a shadow cell which is touched with each
//! access: two accesses to one word that no happens-before edge orders fail the model.

use bytes::Bytes;
use std::mem::{align_of, size_of};
use std::ptr::NonNull;

#[cfg(ringmux_loom)]
use crate::sync::UnsafeCell;

/// Bytes in a word.
pub(super) const WORD_BYTES: u64 = 8;

/// Words that an owned [`Bytes`] takes.
pub(super) const HANDLE_WORDS: u64 = 4;

const _: () = {
    assert!(size_of::<Bytes>() as u64 <= HANDLE_WORDS * WORD_BYTES);
    assert!(align_of::<Bytes>() as u64 <= WORD_BYTES);
};

/// Words needed for `bytes` bytes.
pub(super) const fn words_for(bytes: u64) -> u64 {
    bytes.div_ceil(WORD_BYTES)
}

/// The uninitialised words of a segment, for immediate use: the value does not carry their lifetime. All accesses are
/// `unsafe`: the caller ensures that the segment is alive, that no other thread accesses the same words, that words read were
/// written, and that a range does not run over the end.
#[derive(Debug)]
pub(super) struct Words {
    /// The first one, with the right to touch all.
    pub(super) base: NonNull<u64>,
    /// Their number, a power of two, less one.
    pub(super) mask: u64,
    #[cfg(ringmux_loom)]
    pub(super) shadows: Shadows,
}

/// A cell for each word, in which loom sees the accesses to it.
#[cfg(ringmux_loom)]
#[derive(Debug, Clone)]
pub(super) struct Shadows(std::sync::Arc<[UnsafeCell<()>]>);

#[cfg(ringmux_loom)]
impl Shadows {
    pub(super) fn new(words: u64) -> Self {
        Self((0..words).map(|_| UnsafeCell::new(())).collect())
    }
}

impl Words {
    #[inline(always)]
    pub(super) fn len(&self) -> u64 {
        self.mask + 1
    }

    /// Words from `at` to the end of the memory, where it wraps.
    #[inline(always)]
    pub(super) fn contiguous(&self, at: u64) -> u64 {
        self.len() - (at & self.mask)
    }

    #[inline(always)]
    fn word(&self, at: u64) -> *mut u64 {
        // Lossless: the index is below a length that fits the address space, see `Segment::alloc`.
        let index = (at & self.mask) as usize;
        // SAFETY: the index is masked, hence below the length of the segment.
        unsafe { self.base.as_ptr().add(index) }
    }

    #[inline(always)]
    fn touch_read(&self, at: u64, words: u64) {
        debug_assert!(words <= self.contiguous(at), "a range never wraps");
        #[cfg(ringmux_loom)]
        for index in at..at + words {
            self.shadows.0[(index & self.mask) as usize].with(|_| ());
        }
    }

    #[inline(always)]
    fn touch_write(&self, at: u64, words: u64) {
        debug_assert!(words <= self.contiguous(at), "a range never wraps");
        #[cfg(ringmux_loom)]
        for index in at..at + words {
            self.shadows.0[(index & self.mask) as usize].with_mut(|_| ());
        }
    }

    /// # Safety
    /// The word at `at` was written, and no one writes it now.
    #[inline(always)]
    pub(super) unsafe fn read(&self, at: u64) -> u64 {
        self.touch_read(at, 1);
        // SAFETY: `word` is in bounds; initialised and not written meanwhile by the contract above.
        unsafe { self.word(at).read() }
    }

    /// # Safety
    /// No one else touches the word at `at` now.
    #[inline(always)]
    pub(super) unsafe fn write(&self, at: u64, value: u64) {
        self.touch_write(at, 1);
        // SAFETY: `word` is in bounds; exclusive by the contract above.
        unsafe { self.word(at).write(value) }
    }

    /// Copies `head` and then `tail` to the words from `at` on.
    ///
    /// # Safety
    /// The words they need lie before the end of the memory, and no one else touches them now.
    #[inline(always)]
    pub(super) unsafe fn write_slices(&self, at: u64, head: &[u8], tail: &[u8]) {
        self.touch_write(at, words_for((head.len() + tail.len()) as u64));
        let to = self.word(at).cast::<u8>();
        // SAFETY: in bounds and exclusive by the contract above; the sources are borrowed, so they cannot overlap it.
        unsafe { copy(head, to) };
        if !tail.is_empty() {
            // SAFETY: still inside the words counted for both slices.
            let to = unsafe { to.add(head.len()) };
            // SAFETY: as for the first copy.
            unsafe { copy(tail, to) };
        }
    }

    /// Makes `len` bytes from `at` on zero.
    ///
    /// # Safety
    /// As for [`Self::write_slices`].
    pub(super) unsafe fn clear(&self, at: u64, len: usize) {
        self.touch_write(at, words_for(len as u64));
        // SAFETY: in bounds and exclusive by the contract above.
        unsafe { self.word(at).cast::<u8>().write_bytes(0, len) }
    }

    /// # Safety
    /// `len` bytes were written at `at`, and no one else touches them during `'a`, in which the memory also stays allocated.
    pub(super) unsafe fn slice_mut<'a>(&self, at: u64, len: usize) -> &'a mut [u8] {
        self.touch_write(at, words_for(len as u64));
        // SAFETY: initialised, in bounds and exclusive for `'a` by the contract above.
        unsafe { std::slice::from_raw_parts_mut(self.word(at).cast::<u8>(), len) }
    }

    /// Moves `handle` to the words from `at` on; it is not dropped there unless someone takes it out.
    ///
    /// # Safety
    /// As for [`Self::write_slices`], with [`HANDLE_WORDS`].
    #[inline(always)]
    pub(super) unsafe fn write_handle(&self, at: u64, handle: Bytes) {
        self.touch_write(at, HANDLE_WORDS);
        // SAFETY: in bounds and exclusive by the contract; a word's alignment is enough (asserted at the top).
        unsafe { self.word(at).cast::<Bytes>().write(handle) }
    }

    /// # Safety
    /// `len` bytes were written at `at` by [`Self::write_slices`], and no one writes them during `'a`, in which the memory
    /// also stays allocated.
    #[inline(always)]
    pub(super) unsafe fn slice<'a>(&self, at: u64, len: usize) -> &'a [u8] {
        self.touch_read(at, words_for(len as u64));
        // SAFETY: initialised, in bounds and unchanged for `'a` by the contract above.
        unsafe { std::slice::from_raw_parts(self.word(at).cast::<u8>(), len) }
    }

    /// # Safety
    /// A handle was written at `at` and not taken, and no one writes it during `'a`, in which the memory also stays
    /// allocated.
    #[inline(always)]
    pub(super) unsafe fn handle<'a>(&self, at: u64) -> &'a Bytes {
        self.touch_read(at, HANDLE_WORDS);
        // SAFETY: initialised, in bounds and unchanged for `'a` by the contract above.
        unsafe { &*self.word(at).cast::<Bytes>() }
    }

    /// # Safety
    /// A handle was written at `at`, was not taken before, and no one else touches it now or reads it later.
    #[inline(always)]
    pub(super) unsafe fn take_handle(&self, at: u64) -> Bytes {
        self.touch_write(at, HANDLE_WORDS);
        // SAFETY: initialised and exclusive by the contract above, which also forbids a second copy.
        unsafe { self.word(at).cast::<Bytes>().read() }
    }
}

/// Copies `from` to `to`: short messages without the call and the dispatch of `memcpy`.
///
/// # Safety
/// `to` is valid for writes of `from.len()` bytes, and they do not overlap.
#[inline(always)]
unsafe fn copy(from: &[u8], to: *mut u8) {
    type Chunk = [u8; 16];
    const CHUNK: usize = size_of::<Chunk>();
    let (start, len) = (from.as_ptr(), from.len());
    if !(CHUNK..=4 * CHUNK).contains(&len) {
        // SAFETY: the contract above.
        return unsafe { to.copy_from_nonoverlapping(start, len) };
    }
    let chunk = |offset: usize| {
        // SAFETY: `offset + CHUNK <= len`, below.
        let source = unsafe { start.add(offset) }.cast::<Chunk>();
        // SAFETY: as above.
        let target = unsafe { to.add(offset) }.cast::<Chunk>();
        // SAFETY: as above; bytes need no alignment, and the two do not overlap.
        unsafe { target.copy_from_nonoverlapping(source, 1) };
    };
    // Chunks from both ends, which meet or overlap: no loop.
    chunk(0);
    chunk(len - CHUNK);
    if len > 2 * CHUNK {
        chunk(CHUNK);
        chunk(len - 2 * CHUNK);
    }
}
