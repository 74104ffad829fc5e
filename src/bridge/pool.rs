//! The process's receive memory: one number that all sessions take from. Who may take how much is decided in `core::pool`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::queue::PerProcess;

/// A budget of bytes. Lock-free: one compare-and-swap loop to take, one addition or subtraction for the rest.
#[derive(Debug)]
pub(crate) struct Pool {
    /// What no ceiling goes beyond.
    size: u64,
    used: AtomicU64,
    sessions: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(size: u64) -> Arc<Self> {
        Arc::new(Self {
            size,
            used: AtomicU64::new(0),
            sessions: AtomicUsize::new(0),
        })
    }

    /// The one that sessions use unless told otherwise; their ceilings bound it.
    pub(crate) fn process() -> Arc<Self> {
        static PROCESS: PerProcess<Arc<Pool>> = PerProcess::new();
        Arc::clone(PROCESS.get_or_init(|| Self::new(u64::MAX)))
    }

    /// Takes `bytes`, or nothing if less than `leave` would be free then below `ceiling`.
    pub(crate) fn take(&self, bytes: u64, leave: u64, ceiling: u64) -> bool {
        let Some(most) = self.size.min(ceiling).checked_sub(leave) else {
            return false;
        };
        // ORDERING: Relaxed throughout: the number guards no other memory.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= most)
            })
            .is_ok()
    }

    pub(crate) fn give(&self, bytes: u64) {
        if bytes == 0 {
            // Most streams never take anything: no exchange on a line that all sessions share.
            return;
        }
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "gave {bytes} back of {before}");
    }

    /// Sessions that are alive.
    pub(crate) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed) as u64
    }

    /// Bytes taken now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What no ceiling goes beyond.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Takes what is in use already, whether there is so much or not.
    pub(crate) fn charge(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn begin_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_session(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
