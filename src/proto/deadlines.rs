//! The deadlines of streams: which of them is to be cancelled next, and when.
//!
//! A heap with one timer of the session for its earliest entry. Nothing of it is on the way of a message. A deadline that was moved,
//! or whose stream has gone, leaves its entry, which is dropped when it is the earliest, or with all of its kind when they are
//! more than half of the heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::connection::Connection;
use super::registry::{Key, PRUNE_SLACK, Registry};
use super::timers::Timer;
use crate::frame::codes;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// When, and the bits of a key.
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Deadlines {
    fn push(&mut self, at: Instant, key: Key, registry: &mut Registry) {
        self.heap.push(Reverse((at, key.to_bits())));
        if self.heap.len() > 2 * registry.len() + PRUNE_SLACK {
            let mut entries = std::mem::take(&mut self.heap).into_vec();
            entries.retain(|entry| is_current(registry, entry));
            entries.sort_unstable();
            // A deadline that was moved to and fro.
            entries.dedup();
            self.heap = entries.into();
        }
    }

    /// The earliest deadline; drops what lies before it.
    fn first(&mut self, registry: &mut Registry) -> Option<(Instant, Key)> {
        while let Some(entry) = self.heap.peek() {
            if is_current(registry, entry) {
                let Reverse((at, bits)) = *entry;
                return Some((at, Key::from_bits(bits)));
            }
            self.heap.pop();
        }
        None
    }
}

/// Whether its stream is there, and has this deadline.
fn is_current(registry: &mut Registry, entry: &Reverse<(Instant, u64)>) -> bool {
    let Reverse((at, bits)) = *entry;
    let stream = registry.get_mut(Key::from_bits(bits));
    stream.is_some_and(|stream| stream.lane().deadline() == Some(at) && !stream.state.is_over())
}

impl Connection {
    /// A handle has set a stream's deadline, or taken it back.
    pub(super) fn on_deadline_set(&mut self, key: Key) {
        let stream = self.registry.get_mut(key);
        if let Some(at) = stream.and_then(|stream| stream.lane().deadline()) {
            self.deadlines.push(at, key, &mut self.registry);
        }
        self.set_deadline_timer();
    }

    /// One of the streams with a deadline has gone.
    pub(super) fn set_deadline_timer(&mut self) {
        match self.deadlines.first(&mut self.registry) {
            Some((at, _)) => self.timers.set(Timer::Deadlines, at),
            None => self.timers.stop(Timer::Deadlines),
        }
    }

    #[cfg(test)]
    pub(super) fn deadlines_len(&self) -> usize {
        self.deadlines.heap.len()
    }

    #[cfg(test)]
    pub(super) fn deadlines_are_empty(&self) -> bool {
        self.deadlines.heap.is_empty() && !self.timers.is_set(Timer::Deadlines)
    }

    /// Cancels the streams whose time has run out.
    pub(super) fn check_stream_deadlines(&mut self, now: Instant) {
        while let Some((at, key)) = self.deadlines.first(&mut self.registry) {
            if at > now {
                break;
            }
            self.deadlines.heap.pop();
            self.cancel_local(key, |_| codes::DEADLINE);
        }
        self.set_deadline_timer();
    }
}
