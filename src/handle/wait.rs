//! Waiting for a condition that several tasks may wait for.

use std::task::{Context, Poll};

use crate::queue::{WaiterKey, WakerSet};

/// A place in a set of waiters, given back when dropped.
pub(crate) struct Waiter<'a> {
    set: &'a WakerSet,
    key: Option<WaiterKey>,
}

impl<'a> Waiter<'a> {
    pub(crate) const fn new(set: &'a WakerSet) -> Self {
        Self { set, key: None }
    }

    /// Goes on with a place that [`suspend`](Self::suspend) left.
    pub(crate) const fn resume(set: &'a WakerSet, key: Option<WaiterKey>) -> Self {
        Self { set, key }
    }

    /// Leaves the place to those who cannot borrow the set while they wait.
    pub(crate) fn suspend(mut self) -> Option<WaiterKey> {
        self.key.take()
    }

    /// Ready with what `check` finds; else registers, checks again, and waits.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        mut check: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        if let Some(value) = check() {
            return Poll::Ready(value);
        }
        let key = self.key.get_or_insert_with(|| self.set.insert());
        self.set.set(key, cx.waker());
        check().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits until `check` finds something.
    pub(crate) async fn until<T>(mut self, mut check: impl FnMut() -> Option<T>) -> T {
        std::future::poll_fn(|cx| self.poll(cx, &mut check)).await
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.set.remove(key);
        }
    }
}
