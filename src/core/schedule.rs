//! The order of sending: first the ends, which cost no credit; then eight levels of urgency (RFC 9218 §4.1), with deficit
//! round robin within a level.
//!
//! A stream is queued at most once among the ends and once in a level; its own `place` says which. Picking and queueing are
//! O(1), a change of urgency O(streams of the old level); they allocate only while the number of streams that send at once grows.
//! The caller skips a key whose stream is gone, or has had its turn among the ends.

use std::collections::VecDeque;

use super::port::StreamPort;
use super::state::Sending;
use super::stream::{Place, Stream};
use super::streams::{Key, Streams};

/// Levels of urgency, 0 the most urgent (RFC 9218 §4.1).
pub(crate) const URGENCIES: usize = 8;

/// Bytes that a stream may send before the next one of its level has its turn: one default frame.
pub(crate) const QUANTUM_BYTES: i32 = 16 * 1024;

/// Bytes after which a stream is taken to send alone if no other has sent any: a millisecond on a fast network.
const ALONE_BYTES: usize = 4 << 20;

/// Why a stream's turn at the batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing is left to send.
    Drained,
    /// Its own credit is used up; more credit puts it back into the schedule.
    OutOfCredit,
    /// The session's credit is used up.
    SessionOutOfCredit,
    /// Its ERROR was sent: the receiving direction has ended too.
    Failed {
        code: u32,
    },
    /// Its share is used up.
    Over,
    BatchFull,
}

/// Streams with records to send.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Streams whose next record is a FIN or ERROR: no lack of credit delays them.
    ends: VecDeque<Key>,
    levels: [VecDeque<Key>; URGENCIES],
    /// Bit n: level n is not empty.
    occupied: u8,
    /// The last stream that sent, and its bytes since another stream did.
    last: Option<Key>,
    alone_bytes: usize,
}

const _: () = assert!(URGENCIES == u8::BITS as usize, "one bit a level");

impl Schedule {
    /// Queues a stream that has, or may have, records to send.
    #[inline]
    pub(crate) fn enter<P: StreamPort>(&mut self, key: Key, stream: &mut Stream<P>) {
        if stream.place != Place::Ends && stream.ends_next() {
            stream.place = Place::Ends;
            self.ends.push_back(key);
        } else if stream.place == Place::Nowhere {
            stream.place = Place::Level;
            self.level(stream.urgency).push_back(key);
        }
    }

    /// Queues all streams that may send: credit has just been raised for all.
    pub(crate) fn enter_all<P: StreamPort>(&mut self, streams: &mut Streams<P>) {
        for (key, stream) in streams.iter_mut() {
            if stream.opening.is_done() && stream.state.sending == Sending::Open {
                self.enter(key, stream);
            }
        }
    }

    /// Puts a stream back in front: the batch, or the session's credit, was used up in the middle of its turn.
    pub(crate) fn resume<P: StreamPort>(&mut self, key: Key, stream: &mut Stream<P>) {
        if stream.ends_next() {
            stream.place = Place::Ends;
            self.ends.push_front(key);
        } else {
            stream.place = Place::Level;
            self.level(stream.urgency).push_front(key);
        }
    }

    /// Changes the stream's urgency, also for records queued already.
    pub(crate) fn change_urgency<P: StreamPort>(&mut self, streams: &mut Streams<P>, key: Key) {
        let Some(stream) = streams.get_mut(key) else {
            return;
        };
        let urgency = stream.port.urgency();
        let old = std::mem::replace(&mut stream.urgency, urgency);
        if old == urgency || stream.place != Place::Level {
            return;
        }
        let queue = self.level(old);
        queue.retain(|other| *other != key);
        if queue.is_empty() {
            self.occupied &= !(1 << old);
        }
        self.level(urgency).push_back(key);
    }

    /// The queue of a level, to push to.
    fn level(&mut self, urgency: u8) -> &mut VecDeque<Key> {
        let level = usize::from(urgency) % URGENCIES;
        self.occupied |= 1 << level;
        &mut self.levels[level]
    }

    /// Drops keys of streams that have gone, when nothing is popped for lack of credit or of room.
    pub(crate) fn prune<P: StreamPort>(&mut self, streams: &mut Streams<P>) {
        if self.is_empty() {
            return;
        }
        streams.prune(&mut self.ends, |stream| stream.place == Place::Ends);
        for (level, queue) in self.levels.iter_mut().enumerate() {
            streams.prune(queue, |stream| stream.place != Place::Nowhere);
            if queue.is_empty() {
                self.occupied &= !(1 << level);
            }
        }
    }

    /// Takes the stream whose turn it is.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.pop_end().or_else(|| self.pop_level())
    }

    /// Takes a stream that has only its end to send.
    #[inline]
    pub(crate) fn pop_end(&mut self) -> Option<Key> {
        self.ends.pop_front()
    }

    fn pop_level(&mut self) -> Option<Key> {
        let level = self.occupied.trailing_zeros() as usize;
        let queue = self.levels.get_mut(level)?;
        let key = queue.pop_front();
        if queue.is_empty() {
            self.occupied &= !(1 << level);
        }
        key
    }

    /// A stream has sent this many bytes in its turn.
    pub(crate) fn sent(&mut self, key: Key, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if self.last != Some(key) {
            self.last = Some(key);
            self.alone_bytes = 0;
        }
        self.alone_bytes = self.alone_bytes.saturating_add(bytes);
    }

    /// The last megabytes were all of one stream: while it sends, no other is likely to wait.
    pub(crate) const fn has_one_alone(&self) -> bool {
        self.alone_bytes >= ALONE_BYTES
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ends.len() + self.levels.iter().map(VecDeque::len).sum::<usize>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == 0 && self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key::from_bits(n)
    }

    #[test]
    fn the_most_urgent_level_goes_first_and_a_level_is_first_in_first_out() {
        let mut schedule = Schedule::default();
        for (n, urgency) in [(1, 3), (2, 7), (3, 0), (4, 3)] {
            schedule.level(urgency).push_back(key(n));
        }
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop()).collect();
        assert_eq!(order, [key(3), key(1), key(4), key(2)]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn a_stream_is_alone_when_no_other_has_sent_for_long() {
        let mut schedule = Schedule::default();
        let mut after = |n, bytes| {
            schedule.sent(key(n), bytes);
            schedule.has_one_alone()
        };
        assert!(!after(1, ALONE_BYTES - 1));
        assert!(after(1, 1));
        assert!(after(2, 0), "it had nothing to send");
        assert!(!after(2, 1));
        assert!(!after(1, ALONE_BYTES - 1));
        assert!(after(1, 1));
    }

    #[test]
    fn a_stream_put_back_in_front_is_next() {
        let mut schedule = Schedule::default();
        schedule.level(3).push_back(key(1));
        schedule.level(3).push_front(key(2));
        assert_eq!(schedule.pop(), Some(key(2)));
    }

    #[test]
    fn ends_go_first_and_alone_where_there_is_no_credit() {
        let mut schedule = Schedule::default();
        schedule.level(0).push_back(key(1));
        schedule.ends.push_back(key(2));
        assert_eq!(schedule.pop(), Some(key(2)));
        assert_eq!(schedule.pop_end(), None);
        assert!(!schedule.is_empty());
        assert_eq!(schedule.pop(), Some(key(1)));
    }
}
