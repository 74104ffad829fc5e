//! A reader with a walk over its passed records, for an application that reads a message in several steps.

use super::segment::Cursor;
use super::{Passed, Reader, RingOwner};

/// The passed records of a reader, and a walk over them that can be resumed. The reader is not used otherwise meanwhile.
#[derive(Debug)]
pub(crate) struct Held<'a, O: RingOwner> {
    reader: &'a mut Reader<O>,
    /// The position of the walk, between `head` and the position; at `head` before its first step.
    walk: Option<Cursor>,
}

// SAFETY: the cursor stands for a shared borrow of the payloads, which are `Sync`; it goes with the reader.
unsafe impl<O: RingOwner + Send> Send for Held<'_, O> {}
// SAFETY: as above.
unsafe impl<O: RingOwner + Sync> Sync for Held<'_, O> {}

impl<'a, O: RingOwner> Held<'a, O> {
    #[inline]
    pub(crate) const fn new(reader: &'a mut Reader<O>) -> Self {
        Self { reader, walk: None }
    }

    #[inline]
    pub(crate) const fn reader(&self) -> &Reader<O> {
        self.reader
    }

    /// Ends the walk and returns the reader.
    #[inline]
    pub(crate) const fn let_go(&mut self) -> &mut Reader<O> {
        self.walk = None;
        self.reader
    }

    /// The records that the walk has not stepped over.
    pub(crate) fn rest(&self) -> Passed<'_> {
        let mut rest = self.reader.passed();
        if let Some(walk) = self.walk {
            // No commit or rewind since the walk's last step: that requires `let_go`.
            rest.go_on_from(walk);
        }
        rest
    }

    /// Steps over the first record of the rest.
    pub(crate) fn step(&mut self) {
        let mut rest = self.rest();
        rest.next();
        self.walk = rest.position();
    }
}
