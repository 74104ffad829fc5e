//! Whether the one that sends in a shared sending half still may, for the one that waits for the end of its messages.
//!
//! # Invariant
//! The one that waits registers its waker and then looks again, and the one that sends stores its release and then wakes: so
//! one of the two sees the other, and all that was sent before the release is seen behind it.

use std::task::{Context, Poll};

use crate::sync::{AtomicU8, AtomicWaker, Ordering};

/// It may send.
const HELD: u8 = 0;
/// It was finished, or dropped.
const RELEASED: u8 = 1;
/// It was dropped by a panic, before it was finished.
const PANICKED: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Release(AtomicU8);

impl Release {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(HELD))
    }

    /// The one that sends will send no more: it was finished, or dropped, perhaps by a panic.
    pub(super) fn set(&self, panicked: bool, watcher: &AtomicWaker) {
        let state = if panicked { PANICKED } else { RELEASED };
        // ORDERING: pairs with `get`: the messages sent before are visible.
        self.0.store(state, Ordering::Release);
        watcher.wake();
    }

    /// Whether no more is sent; an error if a panic ended it.
    pub(super) fn get(&self) -> Option<Result<(), ()>> {
        // ORDERING: pairs with `set`.
        match self.0.load(Ordering::Acquire) {
            HELD => None,
            state => Some(if state == PANICKED { Err(()) } else { Ok(()) }),
        }
    }

    /// The same, on behalf of the one that waits, with its waker.
    pub(super) fn poll(&self, watcher: &AtomicWaker, cx: &Context<'_>) -> Poll<Result<(), ()>> {
        if self.get().is_none() {
            watcher.register(cx.waker());
        }
        self.get().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One that sends and is released, and one that waits for it. A lost wake-up is a deadlock, which loom reports.
#[cfg(all(test, ringmux_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{Arc, AtomicU32};
    use loom::future::block_on;
    use loom::thread;
    use std::future::poll_fn;

    /// A stream that two hold.
    #[derive(Debug)]
    struct Shared {
        release: Release,
        watcher: AtomicWaker,
        /// Messages. Relaxed on both sides: only the release orders it.
        sent: AtomicU32,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                release: Release::new(),
                watcher: AtomicWaker::new(),
                sent: AtomicU32::new(0),
            })
        }

        fn send_and_release(&self, panicked: bool) {
            self.sent.store(7, Ordering::Relaxed);
            self.release.set(panicked, &self.watcher);
        }

        fn sent(&self) -> u32 {
            self.sent.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_one_that_waits_is_woken_and_sees_all_that_was_sent() {
        for panicked in [false, true] {
            loom::model(move || {
                let shared = Shared::new();
                let sender = Arc::clone(&shared);
                let sender = thread::spawn(move || sender.send_and_release(panicked));
                let released = block_on(poll_fn(|cx| shared.release.poll(&shared.watcher, cx)));
                assert_eq!(released.is_err(), panicked);
                assert_eq!(shared.sent(), 7);
                sender.join().unwrap();
            });
        }
    }

    /// The stream wakes both for other reasons too, and the one that waits may look before it does.
    #[test]
    fn a_wake_for_another_reason_loses_no_release() {
        loom::model(|| {
            let shared = Shared::new();
            let (sender, stream) = (Arc::clone(&shared), Arc::clone(&shared));
            let sender = thread::spawn(move || sender.send_and_release(false));
            let stream = thread::spawn(move || stream.watcher.wake());
            if shared.release.get().is_none() {
                let released = block_on(poll_fn(|cx| shared.release.poll(&shared.watcher, cx)));
                assert_eq!(released, Ok(()));
            }
            assert_eq!(shared.sent(), 7);
            sender.join().unwrap();
            stream.join().unwrap();
        });
    }

    /// The one that waits is dropped before the release: the last owner frees both.
    #[test]
    fn a_release_without_one_that_waits_is_kept() {
        loom::model(|| {
            let shared = Shared::new();
            let sender = Arc::clone(&shared);
            let sender = thread::spawn(move || {
                sender.send_and_release(true);
                assert_eq!(sender.release.get(), Some(Err(())));
            });
            if shared.release.get() == Some(Err(())) {
                assert_eq!(shared.sent(), 7);
            }
            drop(shared);
            sender.join().unwrap();
        });
    }
}
