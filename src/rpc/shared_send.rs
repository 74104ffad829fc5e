//! The sending half of a streaming call, which two hold: one that sends, and one that watches for the end of the call.
//!
//! Either has it for one step at a time. One that finds the other in the middle of such a step tries again. Both are woken by
//! whatever wakes the stream.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;

use super::release::Release;
use crate::handle::{SendStream, SharedHalf};

pub(super) struct SharedSend {
    half: SharedHalf,
    wakers: Arc<Wakers>,
    waker: Waker,
    /// Whether the one that sends still may.
    release: Release,
}

/// Apart from the stream, which has a waker that leads here.
struct Wakers {
    sender: AtomicWaker,
    watcher: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.sender.wake();
        self.watcher.wake();
    }
}

impl SharedSend {
    pub(super) fn new(stream: SendStream) -> Arc<Self> {
        let wakers = Arc::new(Wakers {
            sender: AtomicWaker::new(),
            watcher: AtomicWaker::new(),
        });
        Arc::new(Self {
            half: SharedHalf::new(stream),
            waker: Waker::from(Arc::clone(&wakers)),
            wakers,
            release: Release::new(),
        })
    }

    /// One step with the stream. The other holds it for a moment at most.
    pub(super) fn with<R>(&self, step: impl FnOnce(&mut SendStream) -> R) -> R {
        let mut step = Some(step);
        loop {
            let taken = self
                .half
                .try_with(|stream| step.take().map(|step| step(stream)));
            if let Some(Some(result)) = taken {
                return result;
            }
            std::thread::yield_now();
        }
    }

    /// Queues a copy of a message if there is room now. False: nothing has changed.
    #[inline]
    pub(super) fn push_at_once(&self, message: &[u8]) -> bool {
        self.half.push_at_once(message)
    }

    /// Polls on behalf of the one that sends.
    pub(super) fn poll_sender<R>(
        &self,
        cx: &Context<'_>,
        mut step: impl FnMut(&mut SendStream, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut inner = Context::from_waker(&self.waker);
        if let Some(Poll::Ready(ready)) = self.half.try_with(|stream| step(stream, &mut inner)) {
            return Poll::Ready(ready);
        }
        self.wakers.sender.register(cx.waker());
        self.poll(cx, step)
    }

    /// Polls on behalf of the one that watches.
    pub(super) fn poll_watcher<R>(
        &self,
        cx: &Context<'_>,
        step: impl FnMut(&mut SendStream, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.wakers.watcher.register(cx.waker());
        self.poll(cx, step)
    }

    fn poll<R>(
        &self,
        cx: &Context<'_>,
        mut step: impl FnMut(&mut SendStream, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut inner = Context::from_waker(&self.waker);
        self.half
            .try_with(|stream| step(stream, &mut inner))
            .unwrap_or_else(|| {
                cx.waker().wake_by_ref();
                Poll::Pending
            })
    }

    /// The one that sends will send no more: it was finished, or dropped, perhaps by a panic.
    pub(super) fn release(&self, panicked: bool) {
        self.release.set(panicked, &self.wakers.watcher);
    }

    /// Whether no more is sent; an error if a panic ended it.
    pub(super) fn released(&self) -> Option<Result<(), ()>> {
        self.release.get()
    }

    /// The same, on behalf of the one that watches.
    pub(super) fn poll_released(&self, cx: &Context<'_>) -> Poll<Result<(), ()>> {
        self.release.poll(&self.wakers.watcher, cx)
    }

    /// Cancels the call, in both directions; the first code stays.
    pub(super) fn cancel(&self, code: u32) {
        self.half.cancel(code);
        // Who sends is to learn of it.
        self.wakers.sender.wake();
    }
}
