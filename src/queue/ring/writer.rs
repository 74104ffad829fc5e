//! The producing side of the ring. Progress and invariants: see the parent module.

use super::segment::{Cursor, Header, Kind, Segment};
use super::words::{HANDLE_WORDS, WORD_BYTES, words_for};
use super::{FIRST_SEGMENT_BYTES, FIRST_WORDS, Ring, RingOwner, record_weight};
use crate::sync::Ordering;
use bytes::Bytes;

/// Pushes records and publishes them in batches.
///
/// Dropping it leaves the ring to the reader; what was pushed and not published is dropped with the ring.
#[derive(Debug)]
pub(crate) struct Writer<O: RingOwner> {
    /// Where the next record goes, in the newest segment. None until the first push.
    cursor: Option<Cursor>,
    /// The first word in use of the newest segment, as far as we know: the last `head` seen, or where the segment starts.
    in_use_from: u64,
    /// What `tail` holds.
    published: u64,
    /// Words of the records pushed since.
    unpublished_words: u64,
    /// Weight of all records ever pushed.
    pushed_weight: u64,
    /// The last `released` seen: `released_seen ≤ released ≤ pushed_weight`.
    released_seen: u64,
    owner: O,
}

// SAFETY: the pointer in the cursor is to a segment which this side alone writes (invariants 2 and 3) and which is freed
// only by the reader or with the ring; payloads are `Send`. So moving the value moves access as `&mut` would.
unsafe impl<O: RingOwner + Send> Send for Writer<O> {}
// SAFETY: methods on `&self` read plain numbers and the owner.
unsafe impl<O: RingOwner + Sync> Sync for Writer<O> {}

impl<O: RingOwner> Writer<O> {
    /// Claims the producing side, or returns None if it was claimed before. There is no way to give it back.
    pub(crate) fn claim(owner: O) -> Option<Self> {
        if !owner.ring().claim(Ring::WRITER) {
            return None;
        }
        Some(Self {
            cursor: None,
            in_use_from: 0,
            published: 0,
            unpublished_words: 0,
            pushed_weight: 0,
            released_seen: 0,
            owner,
        })
    }

    #[inline]
    pub(crate) fn owner(&self) -> &O {
        &self.owner
    }

    /// Pushes a record, copying `payload` into the ring.
    ///
    /// # Panics
    /// If the payload is 4 GiB or longer.
    #[inline]
    pub(crate) fn push_slice(&mut self, tag: u16, free: bool, payload: &[u8]) {
        self.push_slices(tag, free, payload, &[]);
    }

    /// Pushes one record whose payload is `head` followed by `tail`.
    ///
    /// # Panics
    /// If they are 4 GiB or longer together.
    #[inline]
    pub(crate) fn push_slices(&mut self, tag: u16, free: bool, head: &[u8], tail: &[u8]) {
        let len = head.len() + tail.len();
        let header = Header::new(Kind::Slice, tag, free, len);
        let words = 1 + words_for(len as u64);
        let cursor = self.reserve(words);
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = &unsafe { cursor.segment() }.words;
        // SAFETY: `reserve` returned that many words that are contiguous and ours.
        unsafe { memory.write(cursor.at, header.word()) };
        // SAFETY: as above.
        unsafe { memory.write_slices(cursor.at + 1, head, tail) };
        self.pushed(cursor, words, record_weight(len, free));
    }

    /// Pushes a record that owns `payload`; nothing is copied but the handle.
    ///
    /// # Panics
    /// If the payload is 4 GiB or longer.
    #[inline]
    pub(crate) fn push_bytes(&mut self, tag: u16, free: bool, payload: Bytes) {
        let len = payload.len();
        let header = Header::new(Kind::Shared, tag, free, len);
        let words = 1 + HANDLE_WORDS;
        let cursor = self.reserve(words);
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = &unsafe { cursor.segment() }.words;
        // SAFETY: `reserve` returned that many words that are contiguous and ours.
        unsafe { memory.write(cursor.at, header.word()) };
        // SAFETY: as above.
        unsafe { memory.write_handle(cursor.at + 1, payload) };
        self.pushed(cursor, words, record_weight(len, free));
    }

    /// Makes everything pushed so far visible to the reader.
    #[inline]
    pub(crate) fn publish(&mut self) {
        let Some(cursor) = self.cursor else { return };
        if cursor.at == self.published {
            return;
        }
        self.published = cursor.at;
        self.unpublished_words = 0;
        // ORDERING: pairs with `Reader::settle`; publishes the words before `tail`, the links between segments and, the
        // first time, `oldest`.
        self.ring().writer.tail.store(cursor.at, Ordering::Release);
    }

    /// Bytes of the ring taken by records pushed since the last [`Self::publish`]; an owned payload counts its handle only.
    #[inline]
    pub(crate) fn unpublished_bytes(&self) -> u64 {
        self.unpublished_words * WORD_BYTES
    }

    /// Weight of all records ever pushed.
    #[inline]
    pub(crate) fn pushed_weight(&self) -> u64 {
        self.pushed_weight
    }

    /// Weight pushed and not released, as of the last look at the reader: never less than it is now.
    #[inline]
    pub(crate) fn pending_weight(&self) -> u64 {
        self.pushed_weight - self.released_seen
    }

    /// Looks at the reader's counter, then as [`Self::pending_weight`].
    #[inline]
    pub(crate) fn refresh(&mut self) -> u64 {
        self.released_seen = self.ring().released();
        self.pending_weight()
    }

    /// Whether `weight` may be pushed under `limit`; an empty ring admits any weight.
    ///
    /// Loads the reader's counter only if what was last seen of it says no. Only the reader's progress changes the answer
    /// from outside, so a yes stays true until the next push.
    #[inline]
    pub(crate) fn has_room(&mut self, weight: u64, limit: u64) -> bool {
        let admits = |pending: u64| pending == 0 || pending.saturating_add(weight) <= limit;
        admits(self.pending_weight()) || admits(self.refresh())
    }

    /// If the reader has released everything and the ring has grown, goes on in a fresh small segment; the reader
    /// frees the big one when it next looks. Returns whether it did. Meant to be called rarely: it allocates.
    pub(crate) fn shrink_if_idle(&mut self) -> bool {
        let Some(cursor) = self.cursor else {
            return false;
        };
        if self.segment_bytes() <= FIRST_SEGMENT_BYTES as u64 || self.load_head() != cursor.at {
            return false;
        }
        self.cursor = Some(self.link(cursor, FIRST_WORDS));
        self.publish();
        true
    }

    /// Bytes of the newest segment, which is the only one when the ring is idle; 0 before the first push.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.cursor.map_or(0, |cursor| {
            // SAFETY: the newest segment is alive (invariant 3).
            unsafe { cursor.segment() }.words.len() * WORD_BYTES
        })
    }

    #[inline]
    fn ring(&self) -> Ring<'_> {
        self.owner.ring()
    }

    fn load_head(&self) -> u64 {
        // ORDERING: pairs with `Reader::release`; publishes that the reader is done with the words before `head`.
        self.ring().reader.head.load(Ordering::Acquire)
    }

    #[inline]
    fn pushed(&mut self, mut cursor: Cursor, words: u64, weight: u64) {
        cursor.at += words;
        self.cursor = Some(cursor);
        self.unpublished_words += words;
        self.pushed_weight += weight;
    }

    /// Finds `words` contiguous words that are ours. They stay so until the caller moves the cursor behind them.
    #[inline]
    fn reserve(&mut self, words: u64) -> Cursor {
        if let Some(cursor) = self.cursor {
            // SAFETY: the newest segment is alive (invariant 3).
            let memory = &unsafe { cursor.segment() }.words;
            let fits = words <= memory.contiguous(cursor.at);
            // One word more: a LINK must always fit behind the newest record.
            if fits && cursor.at + words < self.in_use_from + memory.len() {
                return cursor;
            }
        }
        self.reserve_slow(words)
    }

    #[cold]
    #[inline(never)]
    fn reserve_slow(&mut self, words: u64) -> Cursor {
        let Some(mut cursor) = self.cursor else {
            return self.first(words);
        };
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = &unsafe { cursor.segment() }.words;
        let contiguous = memory.contiguous(cursor.at);
        let padding = if words <= contiguous { 0 } else { contiguous };
        // A `head` that still lies in an older segment is lower than where this one starts.
        self.in_use_from = self.in_use_from.max(self.load_head());
        if cursor.at + padding + words < self.in_use_from + memory.len() {
            if padding > 0 {
                let pad = Header::new(Kind::Pad, 0, true, 0);
                // SAFETY: invariant 2 and the comparison above: the word is ours, `padding` being at least 1.
                unsafe { memory.write(cursor.at, pad.word()) };
                cursor.at += padding;
                self.cursor = Some(cursor);
            }
            return cursor;
        }
        let cursor = self.link(cursor, Self::segment_words(words).max(2 * memory.len()));
        self.cursor = Some(cursor);
        cursor
    }

    /// The first segment of the ring.
    fn first(&mut self, words: u64) -> Cursor {
        // It starts where the record does, so there is no padding; one word more for a LINK.
        let segment = Segment::alloc((words + 1).next_power_of_two().max(FIRST_WORDS));
        // Relaxed: `publish` publishes it, and before that only `RingPair::drop` reads it.
        let oldest = &self.ring().reader.oldest;
        oldest.store(segment.as_ptr(), Ordering::Relaxed);
        let cursor = Cursor { segment, at: 0 };
        self.cursor = Some(cursor);
        cursor
    }

    /// Goes on in a new segment of `words` words, from a LINK at `cursor`. The caller stores the cursor returned.
    fn link(&mut self, mut cursor: Cursor, words: u64) -> Cursor {
        let segment = Segment::alloc(words);
        // SAFETY: the newest segment is alive (invariant 3), and after this no longer the newest.
        let old = unsafe { cursor.segment() };
        // Relaxed: published with the LINK, by `publish`.
        old.next.store(segment.as_ptr(), Ordering::Relaxed);
        let link = Header::new(Kind::Link, 0, true, 0);
        // SAFETY: `reserve` has kept this word free.
        unsafe { old.words.write(cursor.at, link.word()) };
        // SAFETY: `old` is freed by the reader, after the LINK is published, that is not before this returns.
        unsafe { cursor.follow() };
        self.in_use_from = cursor.at;
        cursor
    }

    /// The smallest segment in which a record of `words` words fits when it is otherwise empty, wherever it starts: with
    /// padding, which is shorter than the record, and with the word kept for a LINK.
    fn segment_words(words: u64) -> u64 {
        (2 * words).next_power_of_two().max(FIRST_WORDS)
    }
}

impl<O: RingOwner> Drop for Writer<O> {
    fn drop(&mut self) {
        if let Some(cursor) = self.cursor {
            // Relaxed: read by `RingPair::drop`, which the owner orders after us.
            self.ring()
                .writer
                .written
                .store(cursor.at, Ordering::Relaxed);
        }
    }
}
