//! The producing side of the ring. Progress and invariants: see the parent module.

use super::segment::{Cursor, Header, Kind, Segment};
use super::words::{HANDLE_WORDS, WORD_BYTES, words_for};
use super::{FIRST_SEGMENT_BYTES, FIRST_WORDS, LEAST_CHARGE, Ring, RingOwner, record_weight};
use crate::sync::Ordering;
use bytes::Bytes;
use std::ptr::NonNull;

/// Pushes records and publishes them in batches.
///
/// It is a handle: its state is stored in the ring, in the cache line of its end, so that moving it costs nothing. Dropping it
/// leaves the ring to the reader; unpublished records are dropped with the ring.
#[derive(Debug)]
pub(crate) struct Writer<O: RingOwner> {
    owner: O,
}

/// The private state of the writer.
#[derive(Debug)]
pub(super) struct WriterState {
    /// The position of the next record, in the newest segment. None until the first push, unless the ring was renewed.
    pub(super) cursor: Option<Cursor>,
    /// The first word in use of the newest segment, as far as known: the last `head` seen, or the start of the segment.
    in_use_from: u64,
    /// Words of the records pushed since the last publication.
    unpublished_words: u64,
    /// Weight of all records ever pushed.
    pushed_weight: u64,
    /// The last `released` seen: `released_seen ≤ released ≤ pushed_weight`.
    released_seen: u64,
    /// The segment in which `tail` lies, where that is not the newest.
    published_in: Option<NonNull<Segment>>,
}

impl<O: RingOwner> Writer<O> {
    /// The producing side of the owner's ring.
    ///
    /// # Safety
    /// No other `Writer` of this ring exists while this one does.
    pub(crate) const unsafe fn new(owner: O) -> Self {
        const { assert!(O::CHARGE as u64 >= LEAST_CHARGE) };
        Self { owner }
    }

    #[inline]
    pub(crate) fn owner(&self) -> &O {
        &self.owner
    }

    #[inline(always)]
    fn parts(&mut self) -> (Ring<'_>, &mut WriterState) {
        let ring = self.owner.ring();
        // SAFETY: invariant 5, by the contract of `new`; `&mut self` proves that this writer has no other user now.
        let own = ring.writer.own.with_mut(|own| unsafe { &mut *own });
        (ring, own)
    }

    #[inline(always)]
    fn own(&self) -> &WriterState {
        // SAFETY: as above; `&mut WriterState` requires `&mut self`.
        self.owner.ring().writer.own.with(|own| unsafe { &*own })
    }

    /// Pushes a record, copying `payload` into the ring.
    ///
    /// # Panics
    /// If the payload is 4 GiB or longer.
    #[inline(always)] // For loops; what is rare in it is a call.
    pub(crate) fn push_slice(&mut self, tag: u16, free: bool, payload: &[u8]) {
        self.push_slices(tag, free, payload, &[]);
    }

    /// Pushes one record whose payload is `head` followed by `tail`.
    ///
    /// # Panics
    /// If they are 4 GiB or longer together.
    #[inline(always)]
    pub(crate) fn push_slices(&mut self, tag: u16, free: bool, head: &[u8], tail: &[u8]) {
        let header = Header::new(Kind::Slice, tag, free, head.len() + tail.len());
        let (ring, own) = self.parts();
        match own.room(ring, header.words()) {
            Some(cursor) => own.push_slices::<O>(cursor, header, head, tail),
            // Apart from the other, so that a loop keeps its registers.
            None => own.grow_and_push::<O>(ring, header, head, tail),
        }
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
        let (ring, own) = self.parts();
        let cursor = own.reserve(ring, words);
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = unsafe { cursor.words() };
        // SAFETY: `reserve` returned that many words that are contiguous and ours.
        unsafe { memory.write(cursor.at, header.word()) };
        // SAFETY: as above.
        unsafe { memory.write_handle(cursor.at + 1, payload) };
        own.pushed(cursor, words, record_weight(O::CHARGE, len, free));
    }

    /// Memory in the ring for the payload of a record of `len` bytes, which are zero.
    ///
    /// # Panics
    /// If `len` is 4 GiB or more.
    pub(crate) fn reserve(&mut self, len: usize) -> Reserved<'_, O> {
        let _fits = Header::new(Kind::Slice, 0, false, len);
        let (ring, own) = self.parts();
        let cursor = own.reserve(ring, 1 + words_for(len as u64));
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = unsafe { cursor.words() };
        // SAFETY: `reserve` returned that many words that are contiguous and ours.
        unsafe { memory.clear(cursor.at + 1, len) };
        Reserved { writer: self, len }
    }

    /// Makes everything pushed so far visible to the reader.
    #[inline]
    pub(crate) fn publish(&mut self) {
        let (ring, own) = self.parts();
        own.publish(ring);
    }

    /// Bytes of the ring taken by records pushed since the last [`Self::publish`]; an owned payload counts its handle only.
    #[inline]
    pub(crate) fn unpublished_bytes(&self) -> u64 {
        self.own().unpublished_words * WORD_BYTES
    }

    /// Weight of all records ever pushed.
    #[inline]
    pub(crate) fn pushed_weight(&self) -> u64 {
        self.own().pushed_weight
    }

    /// Weight pushed and not released, as of the last load of the reader's counter: never less than the current value.
    #[inline]
    pub(crate) fn pending_weight(&self) -> u64 {
        self.own().pending_weight()
    }

    /// Loads the reader's counter, then as [`Self::pending_weight`].
    #[inline]
    pub(crate) fn refresh(&mut self) -> u64 {
        let (ring, own) = self.parts();
        own.refresh(ring)
    }

    /// Whether `weight` may be pushed under `limit`; an empty ring admits any weight.
    ///
    /// Loads the reader's counter only if the last value seen says no. Only the reader's progress changes the answer from
    /// outside, so a yes holds until the next push.
    #[inline]
    pub(crate) fn has_room(&mut self, weight: u64, limit: u64) -> bool {
        let (ring, own) = self.parts();
        let admits = |pending: u64| pending == 0 || pending.saturating_add(weight) <= limit;
        admits(own.pending_weight()) || admits(own.refresh(ring))
    }

    /// If the reader has released everything and the ring has grown, continues in a new small segment; the reader
    /// frees the big one at its next look-up. Returns whether it did. Call it rarely: it allocates.
    pub(crate) fn shrink_if_idle(&mut self) -> bool {
        let (ring, own) = self.parts();
        let idle = own.cursor.is_some_and(|it| ring.load_head() == it.at);
        idle && own.go_small(ring)
    }

    /// If the ring has grown, continues in a new small segment, so that the reader, with the last record that it releases,
    /// frees the big ones. Returns whether it did. Publishes pushed records.
    pub(crate) fn go_small(&mut self) -> bool {
        let (ring, own) = self.parts();
        own.go_small(ring)
    }

    /// Takes back unpublished records: drops their payloads, and frees the segments that contain nothing else. Returns their
    /// weight. Meant for the end: later pushes may begin a new segment without need.
    pub(crate) fn retract(&mut self) -> u64 {
        let (ring, own) = self.parts();
        own.retract(ring, O::CHARGE)
    }

    /// Bytes of the newest segment, which is the only one when the ring is idle; 0 before the first push.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.own().segment_bytes()
    }
}

/// A reserved record, not yet pushed: its payload can be written, behind the cursor of its writer. Dropping it cancels the
/// reservation.
#[derive(Debug)]
pub(crate) struct Reserved<'a, O: RingOwner> {
    /// Not used otherwise since `WriterState::reserve`: its cursor is the position of the header.
    writer: &'a mut Writer<O>,
    len: usize,
}

impl<'a, O: RingOwner> Reserved<'a, O> {
    fn cursor(&self) -> Cursor {
        self.writer.own().cursor.expect("something was reserved")
    }

    pub(crate) fn payload(&self) -> &[u8] {
        let cursor = self.cursor();
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = unsafe { cursor.words() };
        // SAFETY: cleared by `Writer::reserve`, and ours until the writer is used again, which this borrows.
        unsafe { memory.slice(cursor.at + 1, self.len) }
    }

    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        let cursor = self.cursor();
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = unsafe { cursor.words() };
        // SAFETY: as for `payload`; `&mut self` proves exclusive access.
        unsafe { memory.slice_mut(cursor.at + 1, self.len) }
    }

    /// Pushes the record with the written payload, as [`Writer::push_slice`] does.
    pub(crate) fn push(self, tag: u16, free: bool) -> &'a mut Writer<O> {
        let (cursor, len) = (self.cursor(), self.len);
        let header = Header::new(Kind::Slice, tag, free, len);
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = unsafe { cursor.words() };
        // SAFETY: `reserve` returned this word and those of the payload, and nothing was pushed since.
        unsafe { memory.write(cursor.at, header.word()) };
        let (_, own) = self.writer.parts();
        let words = 1 + words_for(len as u64);
        own.pushed(cursor, words, record_weight(O::CHARGE, len, free));
        self.writer
    }
}

impl WriterState {
    /// For a ring that begins in this segment, or without a segment before the first push.
    pub(super) fn new(first: Option<NonNull<Segment>>) -> Self {
        Self {
            cursor: first.map(|segment| Cursor { segment, at: 0 }),
            in_use_from: 0,
            unpublished_words: 0,
            pushed_weight: 0,
            released_seen: 0,
            published_in: None,
        }
    }

    #[inline]
    fn publish(&mut self, ring: Ring<'_>) {
        let Some(cursor) = self.cursor else { return };
        // Relaxed: only the writer stores it.
        if cursor.at == ring.writer.tail.load(Ordering::Relaxed) {
            return;
        }
        self.unpublished_words = 0;
        self.published_in = None;
        // ORDERING: pairs with `Reader::settle`; publishes the words before `tail`, the links between segments and, the
        // first time, `oldest`.
        ring.writer.tail.store(cursor.at, Ordering::Release);
    }

    #[inline]
    fn pending_weight(&self) -> u64 {
        self.pushed_weight - self.released_seen
    }

    #[inline]
    fn refresh(&mut self, ring: Ring<'_>) -> u64 {
        self.released_seen = ring.released();
        self.pending_weight()
    }

    fn segment_bytes(&self) -> u64 {
        self.cursor.map_or(0, |cursor| {
            // SAFETY: the newest segment is alive (invariant 3).
            unsafe { cursor.words() }.len() * WORD_BYTES
        })
    }

    #[inline]
    fn pushed(&mut self, mut cursor: Cursor, words: u64, weight: u64) {
        cursor.at += words;
        self.cursor = Some(cursor);
        self.unpublished_words += words;
        self.pushed_weight += weight;
    }

    /// Pushes a record at the cursor from [`Self::room`].
    #[inline(always)]
    fn push_slices<O: RingOwner>(
        &mut self,
        cursor: Cursor,
        header: Header,
        head: &[u8],
        tail: &[u8],
    ) {
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = unsafe { cursor.words() };
        // SAFETY: `room` or `grow` returned that many words that are contiguous and ours.
        unsafe { memory.write(cursor.at, header.word()) };
        // SAFETY: as above.
        unsafe { memory.write_slices(cursor.at + 1, head, tail) };
        self.pushed(cursor, header.words(), header.weight(O::CHARGE));
    }

    /// The same in another segment.
    #[cold]
    #[inline(never)]
    fn grow_and_push<O: RingOwner>(
        &mut self,
        ring: Ring<'_>,
        header: Header,
        head: &[u8],
        tail: &[u8],
    ) {
        let cursor = self.grow(ring, header.words());
        self.push_slices::<O>(cursor, header, head, tail);
    }

    /// The cursor, behind padding if need be, if `words` contiguous words from there on are ours. They stay so until the caller
    /// moves the cursor behind them.
    #[inline(always)]
    fn room(&mut self, ring: Ring<'_>, words: u64) -> Option<Cursor> {
        let mut cursor = self.cursor?;
        // SAFETY: the newest segment is alive (invariant 3).
        let memory = unsafe { cursor.words() };
        let contiguous = memory.contiguous(cursor.at);
        let padding = if words <= contiguous { 0 } else { contiguous };
        // One word more: a LINK must always fit behind the newest record.
        let end = cursor.at + padding + words + 1;
        if end > self.in_use_from + memory.len() {
            // A `head` that still lies in an older segment is lower than where this one starts.
            self.in_use_from = self.in_use_from.max(ring.load_head());
            if end > self.in_use_from + memory.len() {
                return None;
            }
        }
        if padding > 0 {
            let pad = Header::new(Kind::Pad, 0, true, 0);
            // SAFETY: invariant 2 and the comparison above: the word is ours, `padding` being at least 1.
            unsafe { memory.write(cursor.at, pad.word()) };
            cursor.at += padding;
            self.cursor = Some(cursor);
        }
        Some(cursor)
    }

    /// As [`Self::room`], in another segment where there is none.
    #[inline]
    fn reserve(&mut self, ring: Ring<'_>, words: u64) -> Cursor {
        match self.room(ring, words) {
            Some(cursor) => cursor,
            None => self.grow(ring, words),
        }
    }

    /// Makes room for `words` contiguous words in the first segment, or in a larger one.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, ring: Ring<'_>, words: u64) -> Cursor {
        let Some(cursor) = self.cursor else {
            return self.first(ring, words);
        };
        // SAFETY: the newest segment is alive (invariant 3).
        let twice = 2 * unsafe { cursor.words() }.len();
        let cursor = self.link(cursor, Self::segment_words(words).max(twice));
        self.cursor = Some(cursor);
        cursor
    }

    /// The first segment of the ring.
    fn first(&mut self, ring: Ring<'_>, words: u64) -> Cursor {
        // It starts where the record does, so there is no padding; one word more for a LINK.
        let segment = Segment::alloc((words + 1).next_power_of_two().max(FIRST_WORDS));
        // Relaxed: `publish` publishes it, and before that only `RingPair::drop` reads it.
        let oldest = &ring.reader.oldest;
        oldest.store(segment.as_ptr(), Ordering::Relaxed);
        let cursor = Cursor { segment, at: 0 };
        self.cursor = Some(cursor);
        cursor
    }

    fn go_small(&mut self, ring: Ring<'_>) -> bool {
        let Some(cursor) = self.cursor else {
            return false;
        };
        if self.segment_bytes() <= FIRST_SEGMENT_BYTES as u64 {
            return false;
        }
        self.cursor = Some(self.link(cursor, FIRST_WORDS));
        self.publish(ring);
        true
    }

    fn retract(&mut self, ring: Ring<'_>, charge: u32) -> u64 {
        // Relaxed: only the writer stores it.
        let tail = ring.writer.tail.load(Ordering::Relaxed);
        let Some(end) = self.cursor.filter(|end| end.at != tail) else {
            return 0;
        };
        let from = Cursor {
            segment: self.published_in.unwrap_or(end.segment),
            at: tail,
        };
        let mut weight = 0;
        let mut cursor = from;
        while cursor.at != end.at {
            // SAFETY: invariants 2 and 3: from `tail` up to the cursor all was written, and is ours.
            let header = unsafe { cursor.header() };
            weight += header.weight(charge);
            if header.owns_handle() {
                // SAFETY: as above; the header says that a handle is here, and marks it before it is dropped.
                drop(unsafe { cursor.take_handle(header) });
            }
            // SAFETY: the segments behind are freed below.
            unsafe { cursor.step(header) };
        }
        self.pushed_weight -= weight;
        self.unpublished_words = 0;
        self.go_back_to(ring, from);
        weight
    }

    /// Continues at `tail`, which is at `from`. The records behind it are discarded.
    fn go_back_to(&mut self, ring: Ring<'_>, from: Cursor) {
        // SAFETY: invariant 3: the segment in which `tail` lies is alive.
        let segment = unsafe { from.segment() };
        let mut next = segment.next.load(Ordering::Relaxed);
        // Relaxed: the reader loads `next` only at a LINK before `tail`, and there is none in this segment.
        segment.next.store(std::ptr::null_mut(), Ordering::Relaxed);
        while let Some(behind) = NonNull::new(next) {
            // SAFETY: it was never published, so that the reader does not know it; it is freed once, here.
            next = unsafe { behind.as_ref() }.next.load(Ordering::Relaxed);
            // SAFETY: as above; the writer leaves it below.
            unsafe { Segment::free(behind) };
        }
        if self.published_in.take().is_some() {
            // The start of that segment need not be known: `head` is at or after it, or the words before belong to the reader.
            self.in_use_from = ring.load_head();
        }
        // SAFETY: as above.
        let words = unsafe { from.words() }.len();
        if from.at == 0 && words > FIRST_WORDS {
            // The reader does not know it: `attach` loads `oldest` only after a `tail` that is not 0, and a renewed ring
            // begins in a small one.
            // Relaxed: as in `first`.
            (ring.reader.oldest).store(std::ptr::null_mut(), Ordering::Relaxed);
            self.cursor = None;
            // SAFETY: as above.
            unsafe { Segment::free(from.segment) };
        } else {
            self.cursor = Some(from);
        }
    }

    /// Continues in a new segment of `words` words, from a LINK at `cursor`. The caller stores the cursor returned.
    fn link(&mut self, mut cursor: Cursor, words: u64) -> Cursor {
        let segment = Segment::alloc(words);
        self.published_in.get_or_insert(cursor.segment);
        // SAFETY: the newest segment is alive (invariant 3), and after this no longer the newest.
        let old = unsafe { cursor.segment() };
        // Relaxed: published with the LINK, by `publish`.
        old.next.store(segment.as_ptr(), Ordering::Relaxed);
        let link = Header::new(Kind::Link, 0, true, 0);
        // SAFETY: as above.
        let memory = unsafe { cursor.words() };
        // SAFETY: `reserve` has kept this word free.
        unsafe { memory.write(cursor.at, link.word()) };
        // SAFETY: `old` is freed by the reader, after the LINK is published, that is not before this returns.
        unsafe { cursor.follow() };
        self.in_use_from = cursor.at;
        cursor
    }

    /// The smallest segment that has room, when otherwise empty, for a record of `words` words at any start: with
    /// padding, which is shorter than the record, and with the word reserved for a LINK.
    fn segment_words(words: u64) -> u64 {
        (2 * words).next_power_of_two().max(FIRST_WORDS)
    }
}
