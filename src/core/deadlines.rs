//! The deadlines of streams: which of them is to be cancelled next, and when.
//!
//! A heap with one timer of the session for its earliest entry. Nothing of it is on the way of a message. A deadline that was moved,
//! or whose stream has gone, leaves its entry, which is dropped when it is the earliest, or with all of its kind when they are
//! more than half of the heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::base::Base;
use super::port::{SessionPort, StreamPort};
use super::streams::{Key, PRUNE_SLACK, Streams};
use super::timers::Timer;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// When, and the bits of a key.
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Deadlines {
    /// A handle has set a stream's deadline, or taken it back.
    pub(crate) fn on_set<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) {
        let stream = base.streams.get_mut(key);
        if let Some(at) = stream.and_then(|stream| stream.port.deadline()) {
            self.push(at, key, &mut base.streams);
        }
        self.set_timer(base);
    }

    /// To be called when one of the streams with a deadline has gone.
    pub(crate) fn set_timer<S: SessionPort>(&mut self, base: &mut Base<S>) {
        match self.first(&mut base.streams) {
            Some((at, _)) => base.timers.set(Timer::Deadlines, at),
            None => base.timers.stop(Timer::Deadlines),
        }
    }

    /// A stream whose time has run out; [`set_timer`](Self::set_timer) follows the last one.
    pub(crate) fn take_expired<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        now: Instant,
    ) -> Option<Key> {
        let (at, key) = self.first(&mut base.streams)?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(key)
    }

    fn push<P: StreamPort>(&mut self, at: Instant, key: Key, streams: &mut Streams<P>) {
        self.heap.push(Reverse((at, key.to_bits())));
        if self.heap.len() > 2 * streams.len() + PRUNE_SLACK {
            let mut entries = std::mem::take(&mut self.heap).into_vec();
            entries.retain(|entry| is_current(streams, entry));
            entries.sort_unstable();
            // A deadline that was moved to and fro.
            entries.dedup();
            self.heap = entries.into();
        }
    }

    /// The earliest deadline; drops what lies before it.
    fn first<P: StreamPort>(&mut self, streams: &mut Streams<P>) -> Option<(Instant, Key)> {
        while let Some(entry) = self.heap.peek() {
            if is_current(streams, entry) {
                let Reverse((at, bits)) = *entry;
                return Some((at, Key::from_bits(bits)));
            }
            self.heap.pop();
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

/// Whether its stream is there, and has this deadline.
fn is_current<P: StreamPort>(streams: &mut Streams<P>, entry: &Reverse<(Instant, u64)>) -> bool {
    let Reverse((at, bits)) = *entry;
    let stream = streams.get_mut(Key::from_bits(bits));
    stream.is_some_and(|stream| stream.port.deadline() == Some(at) && !stream.state.is_over())
}
