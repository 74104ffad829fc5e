//! A cell that is written once and read without waiting, in one word.
//!
//! It is not `std::sync::OnceLock`: no one ever waits for a writer, and an unset cell holds no room for a value. Meant
//! for the terminal state of a lane or session, which most of them reach late.
//!
//! ```text
//!   null ──set, by CAS──► address of a box, or of a static value, marked     (never back)
//! ```
//! # Invariants
//! 1. The word leaves null once, for an address of a whole value, and stays the same until the cell is dropped.
//! 2. An address without the mark is that of a box, which belongs to the cell; one with it, that of a `'static` value.
//!
//! # Progress
//! `set` and `get` are **wait-free**; `set` allocates.

use crate::sync::{AtomicPtr, Ordering};
use std::marker::PhantomData;
use std::ptr::null_mut;

/// The bit of an address that marks a static value; values are aligned to more than that.
const STATIC: usize = 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct SetOnce<T> {
    value: AtomicPtr<T>,
    /// Neither `Send` nor `Sync` but for the reasons below.
    owns: PhantomData<*mut T>,
}

// SAFETY: `set` moves a `T` in from any thread, and the thread that drops the cell drops it (`Send`); `get` shares it
// (`Sync`), unchanged by invariant 1.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}
// SAFETY: the cell owns its value, or shares one that is static, which takes `Sync`.
unsafe impl<T: Send + Sync> Send for SetOnce<T> {}

impl<T> SetOnce<T> {
    pub(crate) fn new() -> Self {
        const { assert!(align_of::<T>() > STATIC) };
        Self {
            value: AtomicPtr::new(null_mut()),
            owns: PhantomData,
        }
    }

    /// A cell with this value, if any.
    pub(crate) fn with(value: Option<T>) -> Self {
        let mut cell = Self::new();
        if let Some(value) = value {
            cell.value = AtomicPtr::new(Box::into_raw(Box::new(value)));
        }
        cell
    }

    /// Sets the value.
    ///
    /// # Errors
    /// Gives `value` back if another `set` came first.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let value = Box::into_raw(Box::new(value));
        if self.store(value) {
            return Ok(());
        }
        // SAFETY: leaked above, and no one has seen it.
        Err(*unsafe { Box::from_raw(value) })
    }

    /// Sets the value, without allocating. False if another `set` came first.
    pub(crate) fn set_static(&self, value: &'static T) -> bool {
        self.store(
            std::ptr::from_ref(value)
                .cast_mut()
                .map_addr(|at| at | STATIC),
        )
    }

    fn store(&self, value: *mut T) -> bool {
        // ORDERING: Release pairs with `get`; publishes the value. Relaxed if it fails: nothing is read then.
        self.value
            .compare_exchange(null_mut(), value, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// The value, once it is set.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // ORDERING: pairs with `store`; publishes the value.
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: null, or by invariant 2 a value that lives as long as the cell, and by invariant 1 it is not changed.
        unsafe { value.map_addr(|at| at & !STATIC).as_ref() }
    }

    /// Whether [`Self::get`] would return a value.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // ORDERING: as in `get`.
        !self.value.load(Ordering::Acquire).is_null()
    }
}

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for SetOnce<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` means that the owner has ordered every `set` before us.
        let value = self.value.load(Ordering::Relaxed);
        if !value.is_null() && value.addr() & STATIC == 0 {
            // SAFETY: invariant 2: leaked by `set`, and no one borrows it any more.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_first_value_stays_and_later_ones_come_back() {
        let cell = SetOnce::new();
        assert!(!cell.is_set());
        assert_eq!(cell.set(1), Ok(()));
        assert_eq!(cell.set(2), Err(2));
        assert_eq!(cell.get(), Some(&1));
        let cell = SetOnce::with(Some(3));
        assert_eq!((cell.set(4), cell.get()), (Err(4), Some(&3)));
        assert_eq!(SetOnce::<u32>::with(None).get(), None);
    }

    #[test]
    fn the_value_is_dropped_with_the_cell_and_once() {
        let value = Arc::new(());
        let cell = SetOnce::new();
        cell.set(Arc::clone(&value)).unwrap();
        assert_eq!(Arc::strong_count(&value), 2);
        drop(cell);
        assert_eq!(Arc::strong_count(&value), 1);
        drop(SetOnce::<Arc<()>>::new());
    }

    #[test]
    fn a_static_value_is_shared_and_stays() {
        static VALUE: u32 = 7;
        let cell = SetOnce::new();
        assert!(cell.set_static(&VALUE));
        assert!(!cell.set_static(&VALUE));
        assert_eq!(cell.set(1), Err(1));
        assert!(std::ptr::eq(cell.get().unwrap(), &raw const VALUE));
        drop(cell);
        let cell = SetOnce::new();
        cell.set(1).unwrap();
        assert!(!cell.set_static(&VALUE));
        assert_eq!(cell.get(), Some(&1));
    }

    #[test]
    fn of_racing_threads_exactly_one_sets_and_all_read_its_value() {
        for _ in 0..200 {
            let cell = SetOnce::new();
            let winners: Vec<u32> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|id| {
                        scope.spawn({
                            let cell = &cell;
                            move || cell.set(id).is_ok().then_some(id)
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .filter_map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert_eq!(winners.len(), 1);
            assert_eq!(cell.get(), Some(&winners[0]));
        }
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn one_of_two_setters_wins_and_a_reader_sees_a_whole_value_or_none() {
        loom::model(|| {
            let cell = Arc::new(SetOnce::new());
            let setters: Vec<_> = (1..3_usize)
                .map(|id| {
                    let cell = Arc::clone(&cell);
                    thread::spawn(move || cell.set(Arc::new([id; 2])).is_ok())
                })
                .collect();
            if let Some(value) = cell.get() {
                assert_eq!(value[0], value[1]);
            }
            let won: Vec<bool> = setters
                .into_iter()
                .map(|setter| setter.join().unwrap())
                .collect();
            assert!(won[0] != won[1]);
            let winner = if won[0] { 1 } else { 2 };
            assert_eq!(**cell.get().unwrap(), [winner; 2]);
        });
    }
}
