//! Details of what a stream's handles ask: set by them, and read by the engine after the reason that they raise.

use crate::sync::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// See the module. Relaxed throughout: the reason publishes them.
#[derive(Debug)]
pub(crate) struct Asked {
    cancel_code: AtomicU32,
    stop_code: AtomicU32,
    urgency: AtomicU8,
    accepted: AtomicBool,
    /// Whether the receiver takes pieces of messages as they arrive, or whole messages.
    chunks: AtomicBool,
    /// An ERROR is queued, which will end both directions.
    failing: AtomicBool,
}

impl Asked {
    pub(super) fn new(urgency: u8) -> Self {
        Self {
            cancel_code: AtomicU32::new(0),
            stop_code: AtomicU32::new(0),
            urgency: AtomicU8::new(urgency),
            accepted: AtomicBool::new(false),
            chunks: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        }
    }

    pub(crate) fn cancel_code(&self) -> u32 {
        self.cancel_code.load(Ordering::Relaxed)
    }

    pub(super) fn set_cancel_code(&self, cancel_code: u32) {
        self.cancel_code.store(cancel_code, Ordering::Relaxed);
    }

    pub(crate) fn stop_code(&self) -> u32 {
        self.stop_code.load(Ordering::Relaxed)
    }

    pub(super) fn set_stop_code(&self, stop_code: u32) {
        self.stop_code.store(stop_code, Ordering::Relaxed);
    }

    pub(crate) fn urgency(&self) -> u8 {
        self.urgency.load(Ordering::Relaxed)
    }

    pub(super) fn set_urgency(&self, urgency: u8) {
        self.urgency.store(urgency, Ordering::Relaxed);
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_accepted(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn takes_chunks(&self) -> bool {
        self.chunks.load(Ordering::Relaxed)
    }

    pub(super) fn set_chunks(&self, chunks: bool) {
        self.chunks.store(chunks, Ordering::Relaxed);
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_failing(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }
}
