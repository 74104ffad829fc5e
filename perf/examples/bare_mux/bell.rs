//! Wakes the task that waits on a stream.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;

use crate::ready::fence_beside_exchange;

pub(crate) enum Bell {
    /// One task for as long as the stream lives: three exchanges less than below, and no clone, for each wait.
    Kept {
        waits: AtomicBool,
        waker: OnceLock<Waker>,
    },
    /// A different task for each wait.
    Passing(AtomicWaker),
}

impl Bell {
    pub(crate) const fn kept() -> Self {
        Self::Kept {
            waits: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    pub(crate) const fn passing() -> Self {
        Self::Passing(AtomicWaker::new())
    }

    /// Checks, registers the task, and checks once more.
    #[inline]
    pub(crate) fn wait<T>(&self, cx: &Context<'_>, mut look: impl FnMut() -> Option<T>) -> Poll<T> {
        if let Some(found) = look() {
            return Poll::Ready(found);
        }
        match self {
            Self::Kept { waits, waker } => {
                waker.get_or_init(|| cx.waker().clone());
                waits.swap(true, Ordering::Release);
                fence_beside_exchange();
            }
            Self::Passing(waker) => waker.register(cx.waker()),
        }
        look().map_or(Poll::Pending, Poll::Ready)
    }

    /// Call it after publishing the awaited value and a `fence(SeqCst)`.
    #[inline]
    pub(crate) fn ring(&self) {
        match self {
            Self::Kept { waits, waker } => {
                if waits.load(Ordering::Acquire) {
                    waits.store(false, Ordering::Relaxed);
                    waker.get().expect("it waits").wake_by_ref();
                }
            }
            Self::Passing(waker) => waker.wake(),
        }
    }
}
