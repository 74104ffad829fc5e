//! A set of places that are claimed and released, each with a permanent value.
//!
//! ```text
//!   first ──► block: used = 0b…0101, 64 values ──► block ──► null      (appended, never removed before the drop)
//! ```
//! For values of which each thread or session needs one: wakers ([`waiters`](super::waiters)), counters of sessions.
//! Values are made with their block and never replaced: a new holder finds its predecessor's value.
//!
//! # Invariants
//! 1. A slot whose bit in `used` is set belongs to one key.
//! 2. Blocks are appended and live as long as the set, so a block once seen can be used without further ado.
//!
//! # Progress
//! `claim` is **lock-free**, and allocates a block when 64 times the number of blocks places are taken; memory is
//! bounded by the greatest number of places taken at once. All else is **wait-free**, bounded by the number of blocks.

use crate::sync::{AtomicPtr, AtomicU64, Ordering};
use std::ptr::null_mut;

/// Values in a block; few under loom, which explores them all.
pub(super) const SLOTS: usize = if cfg!(ringmux_loom) { 2 } else { 64 };
const FULL: u64 = u64::MAX >> (64 - SLOTS);

#[derive(Debug)]
struct Block<T> {
    /// A bit for each slot that has a key.
    used: AtomicU64,
    values: [T; SLOTS],
    next: AtomicPtr<Self>,
}

/// A place in a [`Slots`], to be given back to it with [`Slots::release`]: a key forgotten occupies it for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a key must be released in the end"]
pub(crate) struct Key(usize);

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    /// Null until the first claim.
    first: AtomicPtr<Block<T>>,
    /// Frees blocks of values from any thread.
    owns: std::marker::PhantomData<Box<Block<T>>>,
}

impl<T: Default> Slots<T> {
    pub(crate) fn new() -> Self {
        Self {
            first: AtomicPtr::new(null_mut()),
            owns: std::marker::PhantomData,
        }
    }

    /// Takes a place.
    pub(crate) fn claim(&self) -> Key {
        let mut base = 0;
        let mut link = &self.first;
        loop {
            let block = Self::load_or_append(link);
            if let Some(slot) = block.claim() {
                return Key(base + slot);
            }
            base += SLOTS;
            link = &block.next;
        }
    }

    #[inline]
    fn load_or_append(link: &AtomicPtr<Block<T>>) -> &Block<T> {
        match Self::load(link) {
            Some(block) => block,
            None => Self::append(link),
        }
    }

    #[cold]
    #[inline(never)]
    fn append(link: &AtomicPtr<Block<T>>) -> &Block<T> {
        let new = Box::into_raw(Box::new(Block::new()));
        // ORDERING: pairs with `load` and with this same exchange when it fails; publishes the block, ours or the other's.
        let won = link.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        let block = match won {
            Ok(_) => new,
            Err(other) => {
                // SAFETY: it was leaked above, and no one has seen it.
                drop(unsafe { Box::from_raw(new) });
                other
            }
        };
        // SAFETY: linked now, by us or by another; invariant 2.
        unsafe { &*block }
    }
}

impl<T> Slots<T> {
    /// The value of a place.
    ///
    /// # Panics
    /// If the key is not from this set and there is no such place.
    pub(crate) fn value(&self, key: &Key) -> &T {
        &self.block(key).values[key.0 % SLOTS]
    }

    /// Gives a place back. The next holder sees earlier writes to its value.
    ///
    /// # Panics
    /// If the key is not from this set and there is no such place.
    pub(crate) fn release(&self, key: Key) {
        let bit = 1 << (key.0 % SLOTS);
        // ORDERING: pairs with `Block::claim`; publishes that we are done with the slot.
        let before = self.block(&key).used.fetch_and(!bit, Ordering::Release);
        debug_assert!(before & bit != 0, "a key is released once, to its own set");
    }

    /// Calls `f` with the value of each taken place.
    pub(crate) fn each_taken(&self, mut f: impl FnMut(&T)) {
        let all: Option<()> = self.find_taken(|value| {
            f(value);
            None
        });
        debug_assert!(all.is_none());
    }

    /// Calls `f` with the values of taken places until it returns something.
    pub(crate) fn find_taken<U>(&self, mut f: impl FnMut(&T) -> Option<U>) -> Option<U> {
        for block in self.blocks() {
            let mut used = block.used.load(Ordering::Relaxed);
            while used != 0 {
                let found = f(&block.values[used.trailing_zeros() as usize]);
                if found.is_some() {
                    return found;
                }
                used &= used - 1;
            }
        }
        None
    }

    /// The values of all places, taken or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.blocks().flat_map(|block| &block.values)
    }

    fn blocks(&self) -> impl Iterator<Item = &Block<T>> {
        std::iter::successors(Self::load(&self.first), |&block| Self::load(&block.next))
    }

    /// Blocks so far.
    #[cfg(all(test, not(ringmux_loom)))]
    pub(super) fn block_count(&self) -> usize {
        self.blocks().count()
    }

    fn block(&self, key: &Key) -> &Block<T> {
        let mut blocks = self.blocks();
        blocks.nth(key.0 / SLOTS).expect("a key's block exists")
    }

    fn load(link: &AtomicPtr<Block<T>>) -> Option<&Block<T>> {
        // ORDERING: pairs with `load_or_append`; publishes the block.
        let block = link.load(Ordering::Acquire);
        // SAFETY: null, or a block that `load_or_append` leaked; it lives as long as the set, which `link` borrows.
        unsafe { block.as_ref() }
    }
}

impl<T: Default> Block<T> {
    fn new() -> Self {
        Self {
            used: AtomicU64::new(0),
            values: std::array::from_fn(|_| T::default()),
            next: AtomicPtr::new(null_mut()),
        }
    }
}

impl<T> Block<T> {
    /// Takes a slot, or returns None if all are taken.
    fn claim(&self) -> Option<usize> {
        let mut used = self.used.load(Ordering::Relaxed);
        while used != FULL {
            let slot = used.trailing_ones();
            // ORDERING: pairs with `release`; publishes that the slot's last holder is done with it.
            match self.used.compare_exchange_weak(
                used,
                used | 1 << slot,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(slot as usize),
                Err(now) => used = now,
            }
        }
        None
    }
}

impl<T: Default> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` means that the owner has ordered everything before us.
        let mut block = self.first.load(Ordering::Relaxed);
        while !block.is_null() {
            // SAFETY: invariant 2: leaked by `load_or_append`, linked once, and freed only here.
            let owned = unsafe { Box::from_raw(block) };
            block = owned.next.load(Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::Arc;
    use loom::thread;

    /// Relaxed on both sides: only the set orders it.
    type Numbers = Slots<AtomicU64>;

    fn add_one(slots: &Numbers) {
        let key = slots.claim();
        let number = slots.value(&key);
        // Not an RMW, as by an only writer: if a place were shared, increments would be lost.
        number.store(number.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        slots.release(key);
    }

    #[test]
    fn a_place_has_one_holder_who_sees_what_the_last_one_wrote() {
        loom::model(|| {
            let slots = Arc::new(Numbers::new());
            let taken = slots.claim();
            let thread = thread::spawn({
                let slots = Arc::clone(&slots);
                move || add_one(&slots)
            });
            add_one(&slots);
            thread.join().unwrap();
            let sum: u64 = slots.all().map(|n| n.load(Ordering::Relaxed)).sum();
            assert_eq!(sum, 2);
            slots.release(taken);
        });
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_given_back_is_taken_again_with_what_is_there() {
        let slots = Slots::<AtomicU64>::new();
        assert_eq!(slots.all().count(), 0);
        let key = slots.claim();
        slots.value(&key).store(7, Ordering::Relaxed);
        slots.release(key);
        slots.each_taken(|_| panic!("none is taken"));
        let again = slots.claim();
        assert_eq!(slots.value(&again).load(Ordering::Relaxed), 7);
        slots.release(again);
    }

    #[test]
    fn memory_follows_the_greatest_number_of_places_taken_at_once() {
        let slots = Slots::<AtomicU64>::new();
        for _ in 0..3 {
            let keys: Vec<_> = (0..200).map(|_| slots.claim()).collect();
            let mut taken = 0;
            slots.each_taken(|_| taken += 1);
            assert_eq!(taken, 200);
            keys.into_iter().for_each(|key| slots.release(key));
        }
        assert_eq!(slots.block_count(), 4);
    }
}
