//! A set of wakers that are woken together: for what several tasks may wait for at once (accept, closed, ping).
//!
//! It is not a queue: there is no order, a wake reaches every waiter, and each finds out by itself whether it is concerned.
//!
//! ```text
//!   first ──► block: used = 0b…0101, 64 wakers ──► block ──► null      (appended, never removed before the drop)
//! ```
//! The caller's pattern, which loses no wake-up: at the first Pending [`insert`](WakerSet::insert); at each poll [`set`](WakerSet::set)
//! the waker *and then* check the condition again; when done or dropped [`remove`](WakerSet::remove). The other side makes the
//! condition true *and then* calls [`wake_all`](WakerSet::wake_all).
//!
//! # Why no wake-up is lost
//! `set` ends and `wake_all` begins with a SeqCst fence, and the two are in one total order. If the one in `set` is first, the
//! `wake_all` sees the slot in use, with its waker. If the one in `wake_all` is first, the check that follows `set` sees the
//! condition.
//!
//! # Invariants
//! 1. A slot whose bit in `used` is set belongs to one key; only its holder registers a waker there.
//! 2. Blocks are appended and live as long as the set, so a block once seen can be used without further ado.
//!
//! # Progress
//! `insert` is **lock-free**, and allocates a block when 64 times the number of blocks waiters are there at once; memory
//! is bounded by the greatest number of waiters there were at once. `set`, `remove` and `wake_all` are **wait-free**, bounded
//! by the number of blocks (and `wake_all` by the waiters; the wakers it calls are the executor's).

use crate::sync::{AtomicPtr, AtomicU64, AtomicWaker, Ordering, fence};
use std::ptr::null_mut;
use std::task::Waker;

/// Wakers in a block; few under loom, which explores them all.
const SLOTS: usize = if cfg!(ringmux_loom) { 2 } else { 64 };
const FULL: u64 = u64::MAX >> (64 - SLOTS);

#[derive(Debug)]
struct Block {
    /// A bit for each slot that has a key.
    used: AtomicU64,
    wakers: [AtomicWaker; SLOTS],
    next: AtomicPtr<Self>,
}

/// A place in a [`WakerSet`], to be given back to it with [`WakerSet::remove`]: a key forgotten occupies it for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a key must be removed in the end"]
pub(crate) struct Key(usize);

/// See the module.
#[derive(Debug)]
pub(crate) struct WakerSet {
    /// Null until the first waiter.
    first: AtomicPtr<Block>,
}

impl WakerSet {
    pub(crate) fn new() -> Self {
        Self {
            first: AtomicPtr::new(null_mut()),
        }
    }

    /// Takes a place. The waker comes with [`Self::set`].
    pub(crate) fn insert(&self) -> Key {
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

    /// Sets the waker of a place. After this the caller must check again what it waits for.
    ///
    /// # Panics
    /// If the key is not from this set and there is no such place.
    pub(crate) fn set(&self, key: &Key, waker: &Waker) {
        self.waker(key).register(waker);
        // ORDERING: pairs with the fence in `wake_all`; publishes the bit in `used` and the block, see the module.
        fence(Ordering::SeqCst);
    }

    /// Gives a place back and drops its waker.
    ///
    /// # Panics
    /// If the key is not from this set and there is no such place.
    pub(crate) fn remove(&self, key: Key) {
        drop(self.waker(&key).take());
        let bit = 1 << (key.0 % SLOTS);
        // ORDERING: pairs with `Block::claim`; publishes that we are done with the slot.
        let before = self.block(&key).used.fetch_and(!bit, Ordering::Release);
        debug_assert!(before & bit != 0, "a key is removed once, from its own set");
    }

    /// Wakes every waiter. To be called after what they wait for was made true.
    pub(crate) fn wake_all(&self) {
        // ORDERING: pairs with the fence in `set`; publishes the condition made true before, see the module.
        fence(Ordering::SeqCst);
        let mut link = &self.first;
        while let Some(block) = Self::load(link) {
            let mut used = block.used.load(Ordering::Relaxed);
            while used != 0 {
                block.wakers[used.trailing_zeros() as usize].wake();
                used &= used - 1;
            }
            link = &block.next;
        }
    }

    fn block(&self, key: &Key) -> &Block {
        let mut block = Self::load(&self.first).expect("a key's block exists");
        for _ in 0..key.0 / SLOTS {
            block = Self::load(&block.next).expect("a key's block exists");
        }
        block
    }

    fn waker(&self, key: &Key) -> &AtomicWaker {
        &self.block(key).wakers[key.0 % SLOTS]
    }

    fn load(link: &AtomicPtr<Block>) -> Option<&Block> {
        // ORDERING: pairs with `load_or_append`; publishes the block.
        let block = link.load(Ordering::Acquire);
        // SAFETY: null, or a block that `load_or_append` leaked; it lives as long as the set, which `link` borrows.
        unsafe { block.as_ref() }
    }

    fn load_or_append(link: &AtomicPtr<Block>) -> &Block {
        if let Some(block) = Self::load(link) {
            return block;
        }
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

impl Block {
    fn new() -> Self {
        Self {
            used: AtomicU64::new(0),
            wakers: std::array::from_fn(|_| AtomicWaker::new()),
            next: AtomicPtr::new(null_mut()),
        }
    }

    /// Takes a slot, or returns None if all are taken.
    fn claim(&self) -> Option<usize> {
        let mut used = self.used.load(Ordering::Relaxed);
        while used != FULL {
            let slot = used.trailing_ones();
            // ORDERING: pairs with `remove`; publishes that the slot's last holder is done with it.
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

impl Drop for WakerSet {
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
mod loom_tests;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;
