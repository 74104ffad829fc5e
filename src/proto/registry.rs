//! The streams of a session: a slab, found by key or by wire id.
//!
//! A [`Key`] is a slot and a generation. Slots are used again, generations are not (until 2^31
//! streams later), so a key kept in a queue after its stream has gone finds nothing.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::stream::Stream;
use crate::frame::StreamId;
use crate::link::{RxRing, TxRing};
use crate::queue::{Reader, Writer};

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

/// All streams of a session, in any state.
#[derive(Debug, Default)]
pub(super) struct Registry {
    streams: Slab<Stream>,
    /// The slot of each id.
    by_id: FxHashMap<u32, u32>,
    generation: u32,
}

/// Keys that a queue may hold beyond twice the number of streams.
pub(super) const PRUNE_SLACK: usize = 16;

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    #[inline]
    pub(super) fn insert(&mut self, mut stream: Stream) -> Key {
        // So that no key has the highest bit, see `Lane::key`.
        self.generation = (self.generation + 1) % (1 << 31);
        let entry = self.streams.vacant_entry();
        let key = Key {
            slot: entry.key() as u32,
            generation: self.generation,
        };
        if let Some(id) = stream.id {
            self.by_id.insert(id.get(), key.slot);
        }
        stream.generation = key.generation;
        stream.lane().set_key(key.to_bits());
        entry.insert(stream);
        key
    }

    /// The stream has got its id.
    pub(super) fn name(&mut self, key: Key, id: StreamId) {
        self.by_id.insert(id.get(), key.slot);
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
        let stream = self.streams.get_mut(key.slot as usize)?;
        (stream.generation == key.generation).then_some(stream)
    }

    #[inline]
    pub(super) fn find(&self, id: StreamId) -> Option<Key> {
        let slot = *self.by_id.get(&id.get())?;
        let stream = self.streams.get(slot as usize)?;
        debug_assert_eq!(stream.id, Some(id), "a stream takes its id with it");
        Some(Key {
            slot,
            generation: stream.generation,
        })
    }

    /// Both in one look.
    #[inline]
    pub(super) fn find_mut(&mut self, id: StreamId) -> Option<(Key, &mut Stream)> {
        let slot = *self.by_id.get(&id.get())?;
        let stream = self.streams.get_mut(slot as usize)?;
        let generation = stream.generation;
        Some((Key { slot, generation }, stream))
    }

    /// Forgets a stream; returns its ends of the rings.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) -> Option<(Reader<TxRing>, Writer<RxRing>)> {
        let id = self.get_mut(key)?.id;
        if let Some(id) = id
            && let Some(slot) = self.by_id.remove(&id.get())
            && slot != key.slot
        {
            // The id came round again, and names another stream.
            self.by_id.insert(id.get(), slot);
        }
        let Stream { tx, rx, .. } = self.streams.try_remove(key.slot as usize)?;
        Some((tx, rx))
    }

    /// Forgets the keys of streams that have gone or that `keep` does not want, once most of a
    /// queue can be such keys: the cost is paid for by what was pushed since the last time.
    pub(super) fn prune(&mut self, queue: &mut VecDeque<Key>, keep: impl Fn(&Stream) -> bool) {
        if queue.len() > 2 * self.len() + PRUNE_SLACK {
            queue.retain(|key| self.get_mut(*key).is_some_and(|stream| keep(stream)));
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Stream)> {
        self.streams.iter_mut().map(|(slot, stream)| {
            let key = Key {
                slot: slot as u32,
                generation: stream.generation,
            };
            (key, stream)
        })
    }
}
