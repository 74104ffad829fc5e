//! The streams of a session: a slab, found by key or by wire id.
//!
//! A [`Key`] is a slot and a generation. Slots are used again, generations are not (until 2^32
//! streams later), so a key kept in a queue after its stream has gone finds nothing.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::stream::Stream;
use crate::frame::StreamId;

/// Names a stream inside the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    pub(super) const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self {
            slot: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    stream: Stream,
}

/// All streams of a session, in any state.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Slab<Entry>,
    by_id: FxHashMap<u32, Key>,
    generation: u32,
}

/// Keys that a queue may hold beyond twice the number of streams.
const PRUNE_SLACK: usize = 16;

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn insert(&mut self, stream: Stream) -> Key {
        // Generation u32::MAX is skipped so that no key has all bits set, see `Lane::key`.
        self.generation = (self.generation + 1) % u32::MAX;
        let entry = self.entries.vacant_entry();
        let key = Key {
            slot: entry.key() as u32,
            generation: self.generation,
        };
        if let Some(id) = stream.id {
            self.by_id.insert(id.get(), key);
        }
        stream.lane().set_key(key.to_bits());
        entry.insert(Entry {
            generation: self.generation,
            stream,
        });
        key
    }

    /// The stream has got its id.
    pub(super) fn name(&mut self, key: Key, id: StreamId) {
        self.by_id.insert(id.get(), key);
    }

    /// The stream's id is free for another one; what it owes the peer is owed no more.
    pub(super) fn unname(&mut self, key: Key) {
        let Some(stream) = self.get_mut(key) else {
            return;
        };
        stream.owes = 0;
        if let Some(id) = stream.id {
            self.by_id.remove(&id.get());
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        (entry.generation == key.generation).then_some(&mut entry.stream)
    }

    #[inline]
    pub(super) fn find(&self, id: StreamId) -> Option<Key> {
        self.by_id.get(&id.get()).copied()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Stream> {
        self.get_mut(key)?;
        let stream = self.entries.remove(key.slot as usize).stream;
        if let Some(id) = stream.id
            && self.find(id) == Some(key)
        {
            self.by_id.remove(&id.get());
        }
        Some(stream)
    }

    /// Forgets the keys of streams that have gone or that `keep` does not want, once most of a
    /// queue can be such keys: the cost is paid for by what was pushed since the last time.
    pub(super) fn prune(&mut self, queue: &mut VecDeque<Key>, keep: impl Fn(&Stream) -> bool) {
        if queue.len() > 2 * self.len() + PRUNE_SLACK {
            queue.retain(|key| self.get_mut(*key).is_some_and(|stream| keep(stream)));
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Stream)> {
        self.entries.iter_mut().map(|(slot, entry)| {
            let key = Key {
                slot: slot as u32,
                generation: entry.generation,
            };
            (key, &mut entry.stream)
        })
    }
}
