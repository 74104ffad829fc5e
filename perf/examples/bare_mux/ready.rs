//! The list of ready streams: many threads push, the engine takes all at once.
//!
//! A list by numbers has one locked instruction less for a push than `crossbeam_queue::ArrayQueue` for a push and a pop,
//! and three less than `SegQueue`. Taken whole, it needs one fence for all streams where a queue needs an exchange for each.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence, fence};

const NONE: u32 = u32::MAX;

/// The number of the newest stream.
pub(crate) struct ReadyList(AtomicU32);

/// A stream's place in the list.
pub(crate) struct Link {
    stream: u32,
    /// In the list, or about to be.
    is_ready: AtomicBool,
    older: AtomicU32,
}

impl Link {
    pub(crate) const fn new(stream: u32) -> Self {
        Self {
            stream,
            is_ready: AtomicBool::new(false),
            older: AtomicU32::new(NONE),
        }
    }
}

impl ReadyList {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(NONE))
    }

    /// Notifies the engine of the stream's messages.
    #[inline]
    pub(crate) fn raise(&self, link: &Link) {
        fence_beside_exchange();
        // Acquires that the engine has read `older`.
        if link.is_ready.swap(true, Ordering::Acquire) {
            return;
        }
        let mut newest = self.0.load(Ordering::Relaxed);
        loop {
            link.older.store(newest, Ordering::Relaxed);
            let (publish, relaxed) = (Ordering::Release, Ordering::Relaxed);
            match (self.0).compare_exchange_weak(newest, link.stream, publish, relaxed) {
                Ok(_) => return,
                Err(now) => newest = now,
            }
        }
    }

    /// Puts the numbers of all into `streams`, which the engine then serves.
    #[inline]
    pub(crate) fn take<'a>(&self, link: impl Fn(u32) -> &'a Link, streams: &mut Vec<u32>) {
        if self.is_empty() {
            return;
        }
        let mut stream = self.0.swap(NONE, Ordering::Acquire);
        while stream != NONE {
            streams.push(stream);
            let link = link(stream);
            stream = link.older.load(Ordering::Relaxed);
            link.is_ready.store(false, Ordering::Release);
        }
        // A producer that still found `is_ready` has pushed before the engine reads.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NONE
    }
}

/// `fence(SeqCst)`, which on x86-64 an exchange beside it is by itself.
#[inline(always)]
pub(crate) fn fence_beside_exchange() {
    if cfg!(target_arch = "x86_64") {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}
