//! Receive buffers that the kernel picks: a ring of 16, shared by an engine's sockets.
//!
//! Small on purpose: the same few buffers stay in the cache. Sockets with large arrivals do not use them.
//!
//! A buffer is away from its completion to the next poll of its session, for which the completion is the cause. Then its
//! bytes are copied out: into the buffer that the session parses, or, while the session takes none, into memory that is kept
//! for it (`Reactor::pause_recv`). Of a socket that is closed they are discarded at once. A receive that finds no buffer is
//! repeated into memory of its session (`Reactor::start_recv_multi`), so none waits for another session.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers in the ring; a power of two.
const COUNT: u16 = 16;
/// Bytes in each.
pub(super) const BUFFER_BYTES: usize = 16 * 1024;
/// The group that operations name.
pub(super) const GROUP: u16 = 0;
/// The kernel maps the ring's entries by pages: the largest that Linux has by default, in bytes.
const PAGE: usize = 64 * 1024;

/// The ring and its memory: leaked, unless it was [released](Self::release) before it is dropped.
#[derive(Debug)]
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
    released: bool,
}

impl Buffers {
    fn entries_layout() -> Layout {
        let bytes = usize::from(COUNT) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE).expect("a constant")
    }

    fn memory_layout() -> Layout {
        let bytes = usize::from(COUNT) * BUFFER_BYTES;
        Layout::from_size_align(bytes, 4096).expect("a constant")
    }

    fn allocate<T>(layout: Layout) -> NonNull<T> {
        // SAFETY: neither layout is empty.
        let start = unsafe { alloc_zeroed(layout) };
        NonNull::new(start.cast()).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// Registers new buffers, all of them free.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let mut buffers = Self {
            entries: Self::allocate(Self::entries_layout()),
            memory: Self::allocate(Self::memory_layout()),
            tail: 0,
            released: false,
        };
        // SAFETY: the entries are page-aligned, zeroed, large enough for COUNT, and stay until the
        // ring is gone, see `release`.
        let registered = unsafe {
            submitter.register_buf_ring_with_flags(buffers.entries.as_ptr() as u64, COUNT, GROUP, 0)
        };
        if let Err(error) = registered {
            buffers.release();
            return Err(error);
        }
        for id in 0..COUNT {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// The received bytes in a buffer that a completion has named.
    pub(super) fn filled(&self, id: u16, len: usize) -> &[u8] {
        let start = self.start(id);
        // SAFETY: inside the buffer, which is zeroed at first; the kernel writes to it only between
        // `give` and the completion that names it.
        unsafe { std::slice::from_raw_parts(start, len.min(BUFFER_BYTES)) }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn give(&mut self, id: u16) {
        let index = usize::from(self.tail % COUNT);
        let start = self.start(id);
        // SAFETY: the index is below COUNT.
        let mut entry = unsafe { self.entries.add(index) };
        // SAFETY: initialised; the kernel reads an entry only when the tail has passed it.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(start as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the address of the first entry, as `tail` wants it; the entry was initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: valid and aligned as above; shared with the kernel only, which uses it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // ORDERING: pairs with the kernel's acquire of the tail; publishes the entry.
        tail.store(self.tail, Ordering::Release);
    }

    fn start(&self, id: u16) -> *mut u8 {
        let offset = usize::from(id % COUNT) * BUFFER_BYTES;
        // SAFETY: the offset is inside the allocation.
        unsafe { self.memory.add(offset).as_ptr() }
    }

    /// The kernel no longer uses the memory once the ring is closed as well.
    pub(super) const fn release(&mut self) {
        self.released = true;
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.released {
            return crate::driver::count_leaked();
        }
        let (entries, memory) = (self.entries.as_ptr().cast(), self.memory.as_ptr());
        // SAFETY: allocated with this layout; no longer used, see `release`.
        unsafe { dealloc(entries, Self::entries_layout()) };
        // SAFETY: as above.
        unsafe { dealloc(memory, Self::memory_layout()) };
    }
}
