//! Waiting for a condition, with any number of tasks.

use std::task::{Context, Poll};

use crate::queue::{WaiterKey, WakerSet};

/// A place in a set of waiters, released when dropped.
pub(crate) struct Waiter<'a> {
    set: &'a WakerSet,
    key: Option<WaiterKey>,
}

impl<'a> Waiter<'a> {
    pub(crate) const fn new(set: &'a WakerSet) -> Self {
        Self { set, key: None }
    }

    /// Continues with a place from [`suspend`](Self::suspend).
    pub(crate) const fn resume(set: &'a WakerSet, key: Option<WaiterKey>) -> Self {
        Self { set, key }
    }

    /// Keeps the place for a waiter that cannot borrow the set while it waits.
    pub(crate) fn suspend(mut self) -> Option<WaiterKey> {
        self.key.take()
    }

    /// Ready with the value of `check`; else registers, checks again, and waits.
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

    /// Waits until `check` returns a value.
    pub(crate) async fn until<T>(mut self, mut check: impl FnMut() -> Option<T>) -> T {
        std::future::poll_fn(|cx| self.poll(cx, &mut check)).await
    }
}

impl Waiter<'_> {
    /// Waits no longer. Whether it did.
    pub(crate) fn end(&mut self) -> bool {
        let Some(key) = self.key.take() else {
            return false;
        };
        self.set.remove(key);
        true
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
