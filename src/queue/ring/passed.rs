//! A walk over the records that a reader has passed and not released.
//!
//! They are lent: while it borrows the reader nothing is released, so the memory of the records stays as it is.

use super::Record;
use super::segment::Cursor;
use std::marker::PhantomData;

/// Iterates over the records passed and not released. From `Reader::passed`.
#[derive(Debug, Clone)]
pub(crate) struct Passed<'a> {
    range: Option<(Cursor, Cursor)>,
    lease: PhantomData<&'a [u8]>,
}

// SAFETY: it stands for shared borrows of the payloads, which are `Sync`.
unsafe impl Send for Passed<'_> {}
// SAFETY: as above.
unsafe impl Sync for Passed<'_> {}

impl<'a> Passed<'a> {
    /// The records of a range, which no one releases or changes while the reader is borrowed.
    #[inline]
    pub(super) const fn new(range: Option<(Cursor, Cursor)>) -> Self {
        Self {
            range,
            lease: PhantomData,
        }
    }

    /// Where the walk is.
    #[inline]
    pub(super) fn position(&self) -> Option<Cursor> {
        self.range.map(|(from, _)| from)
    }

    /// Goes on from where another walk over the same records was.
    #[inline]
    pub(super) const fn go_on_from(&mut self, walk: Cursor) {
        if let Some((from, _)) = &mut self.range {
            *from = walk;
        }
    }
}

impl<'a> Iterator for Passed<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (mut cursor, to) = self.range?;
        while cursor.at != to.at {
            // SAFETY: between `head` and `position`: ours by invariant 2, and unchanged while the reader is borrowed.
            let header = unsafe { cursor.header() };
            let here = cursor;
            // SAFETY: the segments passed are freed by `commit`, which cannot run while the reader is borrowed.
            unsafe { cursor.step(header) };
            self.range = Some((cursor, to));
            if header.is_record() {
                // SAFETY: as above.
                return Some(unsafe { here.record(header) });
            }
        }
        None
    }
}

impl Passed<'_> {
    /// Bytes of payload in the records left.
    pub(crate) fn payload_len(&self) -> usize {
        self.clone().map(|record| record.payload.len()).sum()
    }
}
