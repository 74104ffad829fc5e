//! The consuming side of the ring. Progress and invariants: see the parent module.

use super::segment::{Cursor, Header, Kind, Segment};
use super::{Passed, Payload, Record, Ring, RingOwner, Taken, record_weight};
use crate::sync::Ordering;
use bytes::Bytes;
use std::ptr::NonNull;

/// Walks over published records and releases them in batches.
///
/// It is a handle: its state is stored in the ring, in the cache line of its end, so that moving it costs nothing. Dropping it
/// releases nothing: unreleased records are dropped with the ring.
#[derive(Debug)]
pub(crate) struct Reader<O: RingOwner> {
    owner: O,
}

/// The private state of the reader. Its released position is in the shared words.
#[derive(Debug)]
pub(super) struct ReaderState {
    /// The position of the walk. None until the first publication, unless the ring was renewed.
    position: Option<Cursor>,
    /// The last `tail` seen.
    tail_seen: u64,
    /// Weight of the records between `head` and `position`.
    passed_weight: u64,
    /// An upper bound of those that own a `Bytes`.
    passed_handles: u64,
}

/// What is at the position of a reader.
enum Next {
    Record(Cursor, Header),
    /// No record is published behind it.
    Nothing,
    /// Padding, a link or a taken record; or the first segment is not known yet.
    Other,
}

impl<O: RingOwner> Reader<O> {
    /// The consuming side of the owner's ring.
    ///
    /// # Safety
    /// No other `Reader` of this ring exists while this one does, and none did since the ring was made or renewed.
    pub(crate) const unsafe fn new(owner: O) -> Self {
        Self { owner }
    }

    #[inline]
    pub(crate) fn owner(&self) -> &O {
        &self.owner
    }

    /// Returns the owner; ends the reader.
    #[inline]
    pub(crate) fn into_owner(self) -> O {
        self.owner
    }

    #[inline(always)]
    fn parts(&mut self) -> (Ring<'_>, &mut ReaderState) {
        let ring = self.owner.ring();
        // SAFETY: invariant 5, by the contract of `new`; `&mut self` proves that this reader has no other user now.
        let own = ring.reader.own.with_mut(|own| unsafe { &mut *own });
        (ring, own)
    }

    #[inline(always)]
    fn own(&self) -> &ReaderState {
        // SAFETY: as above; `&mut ReaderState` requires `&mut self`.
        self.owner.ring().reader.own.with(|own| unsafe { &*own })
    }

    /// The record at the position, or None without a published one.
    ///
    /// A None can be outdated as soon as it is returned; a record cannot.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<Record<'_>> {
        let (ring, own) = self.parts();
        let (cursor, header) = own.settle::<O>(ring)?;
        // SAFETY: `settle` found a record before `tail`; it is ours until `commit`, which needs `&mut self`.
        Some(unsafe { cursor.record(header) })
    }

    /// Passes over records while `wanted` returns true. Returns the tag of the first other one, or None at the end of the
    /// published records.
    #[inline(always)]
    pub(crate) fn advance_while(
        &mut self,
        mut wanted: impl FnMut(Record<'_>) -> bool,
    ) -> Option<u16> {
        let (ring, own) = self.parts();
        loop {
            let (cursor, header) = own.settle::<O>(ring)?;
            // SAFETY: as in `peek`.
            if !wanted(unsafe { cursor.record(header) }) {
                return Some(header.tag());
            }
            own.pass::<O>(cursor, header);
        }
    }

    /// Whether there is no published record beyond the position.
    #[inline]
    pub(crate) fn is_empty(&mut self) -> bool {
        let (ring, own) = self.parts();
        own.settle::<O>(ring).is_none()
    }

    /// Whether the last look for a record found none behind the position.
    #[inline]
    pub(crate) fn has_seen_all(&self) -> bool {
        let own = self.own();
        own.position
            .is_none_or(|position| position.at == own.tail_seen)
    }

    /// The same, and it has looked.
    #[inline]
    pub(crate) fn has_found_the_end(&self) -> bool {
        let own = self.own();
        own.position
            .is_some_and(|position| position.at == own.tail_seen)
    }

    /// Passes over the record at the position; its memory stays as it is until [`Self::commit`]. False if there is none.
    #[inline]
    pub(crate) fn advance(&mut self) -> bool {
        self.advance_unless(0).is_some()
    }

    /// As [`Self::advance`], unless the record's tag has one of these bits: then it stays. Its tag either way.
    #[inline]
    pub(crate) fn advance_unless(&mut self, tags: u16) -> Option<u16> {
        let (ring, own) = self.parts();
        match own.next(ring) {
            Next::Nothing => None,
            Next::Record(cursor, header) => Some(own.pass_unless::<O>(tags, cursor, header)),
            Next::Other => own.advance_behind::<O>(ring, tags),
        }
    }

    /// Passes over the record at the position and lends its payload, if it has this tag and is stored in the ring, and no padding is
    /// before it; else nothing changes.
    #[inline(always)]
    pub(crate) fn advance_slice(&mut self, tag: u16) -> Option<&[u8]> {
        let (ring, own) = self.parts();
        match own.next(ring) {
            Next::Record(cursor, header) if header.tag() == tag && !header.owns_handle() => {
                own.pass::<O>(cursor, header);
                // SAFETY: `next` found the record before `tail`; it is ours until `commit`, which needs `&mut self`.
                match unsafe { cursor.record(header) }.payload {
                    Payload::Slice(slice) => Some(slice),
                    Payload::Shared(_) => None,
                }
            }
            _ => None,
        }
    }

    /// Passes over the record at the position, moving its payload out; one stored in the ring is copied.
    ///
    /// The record is not restored by [`Self::rewind`]; its weight is released by the next [`Self::commit`].
    pub(crate) fn take(&mut self) -> Option<Taken> {
        let (ring, own) = self.parts();
        let (cursor, header) = own.settle::<O>(ring)?;
        let payload = if header.owns_handle() {
            // SAFETY: `settle` found the record before `tail`: it is ours, and `&mut self` says that no one borrows it.
            unsafe { cursor.take_handle(header) }
        } else {
            // SAFETY: as above; the borrow ends with the copy.
            let record = unsafe { cursor.record(header) };
            let copy = Bytes::copy_from_slice(record.payload.as_slice());
            // SAFETY: the segment is alive (invariant 3).
            let words = unsafe { cursor.words() };
            // SAFETY: as above.
            unsafe { words.write(cursor.at, header.taken().word()) };
            copy
        };
        own.pass::<O>(cursor, header.taken());
        Some(Taken {
            tag: header.tag(),
            free: header.is_free(),
            payload,
        })
    }

    /// Goes back to the last commit: passed records that were not taken are read again.
    pub(crate) fn rewind(&mut self) {
        let (ring, own) = self.parts();
        own.position = own.committed(ring);
        own.passed_weight = 0;
        own.passed_handles = 0;
    }

    /// The records between the last commit and the position, oldest first.
    pub(crate) fn passed(&self) -> Passed<'_> {
        Passed::new(self.own().passed_range(self.owner.ring()))
    }

    /// The record between the last commit and the position, if it is exactly one.
    #[inline]
    pub(crate) fn only_passed(&self) -> Option<Record<'_>> {
        let (from, to) = self.own().passed_range(self.owner.ring())?;
        if from.at == to.at {
            return None;
        }
        // SAFETY: between `head` and `position`: ours by invariant 2, and unchanged while the reader is borrowed.
        let header = unsafe { from.header() };
        let mut end = from;
        if header.is_record() {
            // SAFETY: the segment is alive (invariant 3).
            unsafe { end.pass(header) };
            if end.at == to.at {
                // SAFETY: as above.
                return Some(unsafe { from.record(header) });
            }
        }
        self.only_passed_among_others()
    }

    /// As [`Self::only_passed`], for more than one record: padding, a link, taken records, other records.
    #[cold]
    fn only_passed_among_others(&self) -> Option<Record<'_>> {
        let mut passed = self.passed();
        let first = passed.next()?;
        passed.next().is_none().then_some(first)
    }

    /// Weight of all records published and not released, which it walks over; for tests.
    #[cfg(test)]
    pub(crate) fn queued_weights(&mut self) -> Vec<u64> {
        assert_eq!(self.passed_weight(), 0, "to be called between turns");
        let mut weights = Vec::new();
        while let Some(record) = self.peek() {
            weights.push(record.weight(O::CHARGE));
            self.advance();
        }
        self.rewind();
        weights
    }

    /// Weight of all records released so far.
    #[inline]
    pub(crate) fn released(&self) -> u64 {
        // Relaxed: this side is the only writer.
        self.owner.ring().reader.released.load(Ordering::Relaxed)
    }

    /// Weight of the records passed and not released.
    #[inline]
    pub(crate) fn passed_weight(&self) -> u64 {
        self.own().passed_weight
    }

    /// Releases everything passed: drops the payloads it owns, frees the segments left behind and gives words and weight
    /// back to the writer. Returns the weight.
    #[inline]
    pub(crate) fn commit(&mut self) -> u64 {
        let (ring, own) = self.parts();
        own.commit(ring)
    }
}

impl ReaderState {
    /// For a ring that begins in this segment, or without a segment before the first push.
    pub(super) fn new(first: Option<NonNull<Segment>>) -> Self {
        Self {
            position: first.map(|segment| Cursor { segment, at: 0 }),
            tail_seen: 0,
            passed_weight: 0,
            passed_handles: 0,
        }
    }

    /// Everything before is released. None until the first publication, unless the ring was renewed.
    #[inline]
    fn committed(&self, ring: Ring<'_>) -> Option<Cursor> {
        self.position?;
        // Relaxed, both: from the first publication on only this side stores them, and `attach` has seen that. The writer
        // of a renewed ring never stores them.
        let segment = NonNull::new(ring.reader.oldest.load(Ordering::Relaxed))?;
        let at = ring.reader.head.load(Ordering::Relaxed);
        Some(Cursor { segment, at })
    }

    /// From the released position to the walk's.
    #[inline]
    fn passed_range(&self, ring: Ring<'_>) -> Option<(Cursor, Cursor)> {
        self.committed(ring).zip(self.position)
    }

    #[inline]
    fn commit(&mut self, ring: Ring<'_>) -> u64 {
        let Some((from, to)) = self.passed_range(ring) else {
            return 0;
        };
        if from.at == to.at {
            return 0;
        }
        if self.passed_handles > 0 || from.segment != to.segment {
            return self.release_owned(ring, from, to);
        }
        self.release(ring, to)
    }

    /// Looks at the position, without moving it.
    #[inline(always)]
    fn next(&mut self, ring: Ring<'_>) -> Next {
        let Some(cursor) = self.position else {
            return Next::Other;
        };
        if cursor.at == self.tail_seen {
            // ORDERING: pairs with `Writer::publish`; publishes the words before `tail` and the links among them.
            self.tail_seen = ring.writer.tail.load(Ordering::Acquire);
            if cursor.at == self.tail_seen {
                return Next::Nothing;
            }
        }
        // SAFETY: invariants 1 to 3: before `tail` and not before `head`, so written, ours, and its segment alive.
        let header = unsafe { cursor.header() };
        match header.is_record() {
            true => Next::Record(cursor, header),
            false => Next::Other,
        }
    }

    /// The header of the record at the position, which is moved over padding, links and taken records to find it.
    #[inline]
    fn settle<O: RingOwner>(&mut self, ring: Ring<'_>) -> Option<(Cursor, Header)> {
        match self.next(ring) {
            Next::Nothing => None,
            Next::Record(cursor, header) => Some((cursor, header)),
            Next::Other => self.settle_behind::<O>(ring),
        }
    }

    /// As [`Self::settle`], behind padding.
    #[inline(never)]
    fn settle_behind<O: RingOwner>(&mut self, ring: Ring<'_>) -> Option<(Cursor, Header)> {
        self.pass_padding(ring);
        match self.next(ring) {
            Next::Nothing => None,
            Next::Record(cursor, header) => Some((cursor, header)),
            Next::Other => self.settle_further::<O>(ring),
        }
    }

    /// As [`Reader::advance_unless`], behind padding.
    #[inline(never)]
    fn advance_behind<O: RingOwner>(&mut self, ring: Ring<'_>, tags: u16) -> Option<u16> {
        self.pass_padding(ring);
        match self.next(ring) {
            Next::Nothing => None,
            Next::Record(cursor, header) => Some(self.pass_unless::<O>(tags, cursor, header)),
            Next::Other => self.advance_further::<O>(ring, tags),
        }
    }

    #[cold]
    #[inline(never)]
    fn advance_further<O: RingOwner>(&mut self, ring: Ring<'_>, tags: u16) -> Option<u16> {
        let (cursor, header) = self.settle_further::<O>(ring)?;
        Some(self.pass_unless::<O>(tags, cursor, header))
    }

    /// As [`Self::settle`], from any position.
    #[cold]
    #[inline(never)]
    fn settle_further<O: RingOwner>(&mut self, ring: Ring<'_>) -> Option<(Cursor, Header)> {
        loop {
            match self.next(ring) {
                Next::Nothing => return None,
                Next::Record(cursor, header) => return Some((cursor, header)),
                Next::Other => match self.position {
                    Some(cursor) => self.skip::<O>(ring, cursor),
                    None => self.attach(ring)?,
                },
            }
        }
    }

    /// Moves the position, where [`Self::next`] found no record, over padding.
    #[inline(always)]
    fn pass_padding(&mut self, ring: Ring<'_>) {
        let Some(mut cursor) = self.position else {
            return;
        };
        // SAFETY: as in `next`.
        let header = unsafe { cursor.header() };
        if header.kind() != Kind::Pad {
            return;
        }
        let from = cursor.at;
        // SAFETY: the segment is alive (invariant 3).
        unsafe { cursor.pass(header) };
        self.position = Some(cursor);
        // Relaxed: from the first publication on only this side stores it.
        if ring.reader.head.load(Ordering::Relaxed) == from {
            // Only padding was passed: a single record behind it is then found by `only_passed`.
            self.release(ring, cursor);
        }
    }

    /// Passes over a record whose tag has none of these bits; its tag either way.
    #[inline(always)]
    fn pass_unless<O: RingOwner>(&mut self, tags: u16, cursor: Cursor, header: Header) -> u16 {
        let tag = header.tag();
        if tag & tags == 0 {
            self.pass::<O>(cursor, header);
        }
        tag
    }

    /// Moves the position, which is at `cursor`, over padding, a link or a taken record.
    fn skip<O: RingOwner>(&mut self, ring: Ring<'_>, mut cursor: Cursor) {
        // SAFETY: as in `next`, which has found no record there.
        let header = unsafe { cursor.header() };
        if header.kind() == Kind::Pad {
            return self.pass_padding(ring);
        }
        let untouched = self
            .committed(ring)
            .is_some_and(|from| from.at == cursor.at);
        self.passed_weight += header.weight(O::CHARGE);
        // SAFETY: the words before `tail` happen-before this, and segments from `head` on are alive (invariant 3).
        unsafe { cursor.step(header) };
        self.position = Some(cursor);
        if header.kind() == Kind::Link && untouched {
            // Only this was passed: the old segment is freed at once, which releases a big one early.
            self.commit(ring);
        }
    }

    /// Finds the first segment. None before the first publication.
    fn attach(&mut self, ring: Ring<'_>) -> Option<()> {
        // ORDERING: pairs with `Writer::publish`; publishes `oldest` and the words before `tail`.
        self.tail_seen = ring.writer.tail.load(Ordering::Acquire);
        if self.tail_seen == 0 {
            return None;
        }
        let oldest = NonNull::new(ring.reader.oldest.load(Ordering::Relaxed));
        let segment = oldest.expect("`oldest` is set before the first publication");
        self.position = Some(Cursor { segment, at: 0 });
        Some(())
    }

    #[inline]
    fn pass<O: RingOwner>(&mut self, mut cursor: Cursor, header: Header) {
        self.passed_weight += record_weight(O::CHARGE, header.len() as usize, header.is_free());
        if header.is_shared() {
            self.passed_handles += u64::from(!header.is_taken());
        }
        cursor.pass_record(header);
        self.position = Some(cursor);
    }

    /// Drops the payloads owned by records from `from` to `to`. Each is marked before it is dropped, so that none is
    /// dropped twice if one of them panics.
    #[cold]
    fn drop_handles(from: Cursor, to: Cursor) {
        let mut cursor = from;
        while cursor.at != to.at {
            // SAFETY: `from` is `head` and `to` at most `tail`: ours by invariant 2.
            let header = unsafe { cursor.header() };
            if header.owns_handle() {
                // SAFETY: as above, and `commit` has `&mut self`, so no one borrows the record.
                drop(unsafe { cursor.take_handle(header) });
            }
            // SAFETY: the words before `tail` happen-before this; the segments are freed later, by `release`.
            unsafe { cursor.step(header) };
        }
    }

    /// As [`Self::release`], where records own payloads, or segments are left behind.
    #[cold]
    #[inline(never)]
    fn release_owned(&mut self, ring: Ring<'_>, from: Cursor, to: Cursor) -> u64 {
        if self.passed_handles > 0 {
            Self::drop_handles(from, to);
        }
        if from.segment == to.segment {
            return self.release(ring, to);
        }
        // Relaxed: from the first publication on only this side reads it, and then `RingPair::drop`.
        (ring.reader.oldest).store(to.segment.as_ptr(), Ordering::Relaxed);
        let weight = self.release(ring, to);
        Self::free_segments(from.segment, to.segment);
        weight
    }

    /// Gives everything up to `to`, which is the position, back to the writer.
    #[inline]
    fn release(&mut self, ring: Ring<'_>, to: Cursor) -> u64 {
        let weight = self.passed_weight;
        self.passed_weight = 0;
        self.passed_handles = 0;
        let shared = ring.reader;
        // ORDERING: pairs with `Ring::load_head`; publishes that we are done with the words before `head`.
        shared.head.store(to.at, Ordering::Release);
        if weight > 0 {
            // Relaxed: this side is the only writer.
            let released = shared.released.load(Ordering::Relaxed) + weight;
            // ORDERING: pairs with `released`; publishes the `head` that goes with this weight.
            shared.released.store(released, Ordering::Release);
        }
        weight
    }

    /// Frees the segments from `from` up to `to`, which stays.
    #[cold]
    fn free_segments(from: NonNull<Segment>, to: NonNull<Segment>) {
        let mut segment = from;
        while segment != to {
            // SAFETY: invariant 3: not yet freed, since segments are freed in order and each once.
            let next = unsafe { segment.as_ref() }.next.load(Ordering::Relaxed);
            // SAFETY: both cursors are in `to` or later, and the writer left this segment when it linked the next one.
            unsafe { Segment::free(segment) };
            segment = NonNull::new(next).expect("`to` is linked behind `from`");
        }
    }
}
