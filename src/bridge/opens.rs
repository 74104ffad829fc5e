//! Permission to open streams, on the side of the handles: they take it without asking the engine.

use crate::sync::{AtomicU32, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct OpenPermits {
    /// Streams granted by the peer that no handle has taken yet.
    granted: AtomicU32,
    /// Calls of `open` that wait.
    pending: AtomicU32,
    pub(crate) max_pending: u32,
}

impl OpenPermits {
    pub(super) fn new(granted: u32, max_pending: u32) -> Self {
        Self {
            granted: AtomicU32::new(granted),
            pending: AtomicU32::new(0),
            max_pending,
        }
    }

    pub(crate) fn granted(&self) -> u32 {
        self.granted.load(Ordering::Relaxed)
    }

    /// Takes permission for one stream, if some is left.
    pub(crate) fn take(&self) -> bool {
        self.granted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |granted| {
                granted.checked_sub(1)
            })
            .is_ok()
    }

    pub(crate) fn add(&self, streams: u32) {
        // Grants are cumulative and bounded by the wire's u32, see `core::mux`.
        self.granted.fetch_add(streams, Ordering::Relaxed);
    }

    /// Counts one more waiting `open`; false if there are too many.
    pub(crate) fn begin_pending(&self) -> bool {
        self.pending
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
                (pending < self.max_pending).then_some(pending + 1)
            })
            .is_ok()
    }

    pub(crate) fn end_pending(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
