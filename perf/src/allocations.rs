//! Counts allocations, in a build with the feature `count-allocations`: two threads that count in one
//! place are too slow for any other figure.

#[cfg(feature = "count-allocations")]
mod counting {
    use std::alloc::{GlobalAlloc, Layout};
    use std::sync::atomic::{AtomicU64, Ordering};

    static COUNT: AtomicU64 = AtomicU64::new(0);
    /// Requested bytes allocated and not freed, without the allocator's overhead.
    static LIVE_BYTES: AtomicU64 = AtomicU64::new(0);

    pub(super) fn live_bytes() -> u64 {
        LIVE_BYTES.load(Ordering::Relaxed)
    }

    fn take(bytes: usize) {
        COUNT.fetch_add(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn give_back(bytes: usize) {
        LIVE_BYTES.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count() -> u64 {
        COUNT.load(Ordering::Relaxed)
    }

    /// Forwards every call.
    #[derive(Debug)]
    pub(crate) struct Counting<A>(pub(crate) A);

    // SAFETY: every call goes to an allocator that keeps the contract, with the caller's guarantees.
    unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            take(layout.size());
            // SAFETY: the caller's promises are those that this call needs.
            unsafe { self.0.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            take(layout.size());
            // SAFETY: the caller's promises are those that this call needs.
            unsafe { self.0.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            give_back(layout.size());
            take(size);
            // SAFETY: the caller's promises are those that this call needs.
            unsafe { self.0.realloc(memory, layout, size) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            give_back(layout.size());
            // SAFETY: the caller's promises are those that this call needs.
            unsafe { self.0.dealloc(memory, layout) }
        }
    }
}

#[cfg(feature = "count-allocations")]
pub(crate) use counting::Counting;

/// Allocations and reallocations so far; none if they are not counted.
pub(crate) fn count() -> Option<u64> {
    #[cfg(feature = "count-allocations")]
    return Some(counting::count());
    #[cfg(not(feature = "count-allocations"))]
    None
}

/// Bytes that are allocated now; none if they are not counted.
pub(crate) fn live_bytes() -> Option<u64> {
    #[cfg(feature = "count-allocations")]
    return Some(counting::live_bytes());
    #[cfg(not(feature = "count-allocations"))]
    None
}
