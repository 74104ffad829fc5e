//! The streams of a session: a slab, found by key or by the wire's id.
//!
//! A [`Key`] is a slot and a generation. Slots are reused, generations are not (until 2^31
//! streams later), so a key kept in a queue after its stream has gone finds no stream.

use std::collections::VecDeque;

use slab::Slab;

use super::ids::Ids;
use super::port::StreamPort;
use super::state::Receiving;
use super::stream::Stream;

/// Names a stream inside the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    pub(crate) const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self {
            slot: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// All streams of a session, in any state.
#[derive(Debug)]
pub(crate) struct Streams<P> {
    slab: Slab<Stream<P>>,
    /// The slot of each id.
    by_id: Ids,
    generation: u32,
}

/// Keys that a queue may hold beyond twice the number of streams.
pub(crate) const PRUNE_SLACK: usize = 16;

impl<P: StreamPort> Streams<P> {
    /// `seed`: unknown to the peer.
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            slab: Slab::new(),
            by_id: Ids::new(seed),
            generation: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.slab = Slab::new();
        self.by_id.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// A stream, with its id if it has one.
    #[inline]
    pub(crate) fn insert(&mut self, stream: Stream<P>) -> (Key, &mut Stream<P>) {
        // So that no key has the highest bit, see `Lane::key`.
        self.generation = (self.generation + 1) % (1 << 31);
        let entry = self.slab.vacant_entry();
        let key = Key {
            slot: entry.key() as u32,
            generation: self.generation,
        };
        if stream.id != 0 {
            self.by_id.insert(stream.id, key.slot);
        }
        // Changed in its place: else it is copied twice.
        let stream = entry.insert(stream);
        stream.generation = key.generation;
        stream.port.set_key(key.to_bits());
        (key, stream)
    }

    /// The stream has got its id.
    pub(crate) fn name(&mut self, key: Key, id: u32) {
        self.by_id.insert(id, key.slot);
    }

    /// Frees the stream's id for another one; the frames that it owes the peer are dropped.
    pub(crate) fn unname(&mut self, key: Key) {
        let Some(stream) = self.get_mut(key) else {
            return;
        };
        stream.owes = 0;
        let id = stream.id;
        self.by_id.remove(id, key.slot);
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Stream<P>> {
        let stream = self.slab.get_mut(key.slot as usize)?;
        (stream.generation == key.generation).then_some(stream)
    }

    /// The stream of a key that was found, or inserted, in the same step.
    ///
    /// # Panics
    /// If it is gone: a bug of the core.
    #[inline]
    #[track_caller]
    pub(crate) fn at(&mut self, key: Key) -> &mut Stream<P> {
        self.get_mut(key).expect("a key that was just found")
    }

    #[inline]
    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        let slot = self.by_id.find(id)?;
        let stream = self.slab.get(slot as usize)?;
        debug_assert_eq!(stream.id, id, "a stream takes its id with it");
        Some(Key {
            slot,
            generation: stream.generation,
        })
    }

    /// Frees an id that is used again after a wrap. False if its stream is not over on the wire.
    pub(crate) fn retire_id(&mut self, id: u32) -> bool {
        let Some(key) = self.find(id) else {
            return true;
        };
        let over = self.at(key).state.is_over();
        if over {
            self.unname(key);
        }
        over
    }

    /// Whether the next piece of a stream is the first of a message.
    #[inline]
    pub(crate) fn begins_message(&mut self, key: Key) -> bool {
        let stream = self.get_mut(key);
        stream.is_some_and(|it| it.assembly.is_none() && it.state.receiving == Receiving::Open)
    }

    /// Streams that are not over on the wire.
    pub(crate) fn count_alive(&mut self) -> u64 {
        self.iter_mut()
            .filter(|(_, it)| !it.state.is_over())
            .count() as u64
    }

    /// Whether all are over on the wire, and owe nothing. Ends at the first that is not: usually at once.
    pub(crate) fn are_over(&mut self) -> bool {
        (self.iter_mut()).all(|(_, stream)| stream.state.is_over() && stream.owes == 0)
    }

    /// Key and stream in one lookup.
    #[inline]
    pub(crate) fn find_mut(&mut self, id: u32) -> Option<(Key, &mut Stream<P>)> {
        let slot = self.by_id.find(id)?;
        let stream = self.slab.get_mut(slot as usize)?;
        let generation = stream.generation;
        Some((Key { slot, generation }, stream))
    }

    /// Removes the stream with this id whose key was found, or inserted, in the same step; returns its queues.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key, id: u32) -> Option<P> {
        // Nothing, if it has none, or if it was used again for another stream.
        self.by_id.remove(id, key.slot);
        let Stream {
            port, generation, ..
        } = self.slab.try_remove(key.slot as usize)?;
        debug_assert_eq!(generation, key.generation, "it was found in this step");
        Some(port)
    }

    /// Drops the keys of streams that have gone or that `keep` rejects, once most of a queue can be
    /// such keys: amortised by the pushes since the last time.
    pub(crate) fn prune(&mut self, queue: &mut VecDeque<Key>, keep: impl Fn(&Stream<P>) -> bool) {
        if queue.len() > 2 * self.len() + PRUNE_SLACK {
            queue.retain(|key| self.get_mut(*key).is_some_and(|stream| keep(stream)));
        }
    }

    /// Streams with a permission that were not opened, for tests.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn count_granted(&mut self) -> u64 {
        let granted = self.iter_mut();
        let granted =
            granted.filter(|(_, stream)| stream.opening == super::stream::Opening::Granted);
        granted.count() as u64
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Stream<P>)> {
        self.slab.iter_mut().map(|(slot, stream)| {
            let key = Key {
                slot: slot as u32,
                generation: stream.generation,
            };
            (key, stream)
        })
    }
}
