//! Streams that the peer has opened and no task has accepted.
//!
//! The engine wakes one waiting task for all streams of a turn. A task that has taken a stream, or gives up waiting, wakes the
//! next one if streams are left ([`pass_on`](Unaccepted::pass_on)): so while streams are queued and tasks wait, one of them has
//! been woken and has not run yet.

use crossbeam_queue::ArrayQueue;

use super::sides::HandleSide;
use crate::queue::WakerSet;

/// See the module.
#[derive(Debug)]
pub(crate) struct Unaccepted {
    /// The peer's streams beyond its capacity are refused.
    queue: ArrayQueue<HandleSide>,
    /// Tasks in `accept`.
    pub(crate) waiters: WakerSet,
}

impl Unaccepted {
    pub(super) fn new(most: u32) -> Self {
        Self {
            queue: ArrayQueue::new(most as usize),
            waiters: WakerSet::new(),
        }
    }

    /// Queues a stream for `accept`; returns it if the queue is full.
    pub(crate) fn push(&self, stream: HandleSide) -> Result<(), HandleSide> {
        self.queue.push(stream)
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<HandleSide> {
        // Of two looks for each wait the queue is empty.
        if self.queue.is_empty() {
            return None;
        }
        self.queue.pop()
    }

    /// To be called by a task that has been woken, once it waits no longer.
    #[inline]
    pub(crate) fn pass_on(&self) {
        if !self.queue.is_empty() {
            self.waiters.wake_one();
        }
    }

    /// Drops all streams.
    pub(super) fn clear(&self) {
        while self.queue.pop().is_some() {}
    }
}
