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
    /// [`FAILING`], and for an opening that is counted as waiting those who have not left it yet: [`OPENER`], [`ENGINE`].
    flags: AtomicU8,
}

/// An ERROR is queued, which will end both directions.
const FAILING: u8 = 1 << 2;
/// The future of the opening exists.
pub(crate) const OPENER: u8 = 1 << 0;
/// The engine has not taken the lane off its list: an opening that was given up is memory until then.
pub(crate) const ENGINE: u8 = 1 << 1;

impl Asked {
    pub(super) fn new(urgency: u8) -> Self {
        Self {
            cancel_code: AtomicU32::new(0),
            stop_code: AtomicU32::new(0),
            urgency: AtomicU8::new(urgency),
            accepted: AtomicBool::new(false),
            chunks: AtomicBool::new(false),
            flags: AtomicU8::new(0),
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

    /// The opening is counted as waiting; before the engine knows the lane.
    pub(crate) fn begin_waiting(&self) {
        self.flags.fetch_or(OPENER | ENGINE, Ordering::Relaxed);
    }

    /// One of the two has left a waiting opening; true for the one that leaves last, which counts it out.
    pub(crate) fn leave_waiting(&self, who: u8) -> bool {
        let both = OPENER | ENGINE;
        self.flags.load(Ordering::Relaxed) & who != 0
            && self.flags.fetch_and(!who, Ordering::Relaxed) & both == who
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & FAILING != 0
    }

    pub(crate) fn mark_failing(&self) {
        self.flags.fetch_or(FAILING, Ordering::Relaxed);
    }
}
