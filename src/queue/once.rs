//! A cell that is written once and read without waiting.
//!
//! It is not `std::sync::OnceLock`: no one ever waits for a writer, so a reader that comes during the write sees nothing
//! yet. Meant for the terminal state of a lane or session, which one thread writes.
//!
//! ```text
//!   EMPTY ──set, by CAS──► WRITING ──value written──► SET     (never back)
//! ```
//! # Invariants
//! 1. Whoever turned EMPTY to WRITING is the only one to write the value, and does so before SET.
//! 2. From SET on the value is not written again before the cell is dropped.
//!
//! # Progress
//! `set` and `get` are **wait-free**. A `set` that is stopped halfway keeps the cell unset for readers and makes other
//! `set`s fail, but stops no one.

use crate::sync::{AtomicU32, Ordering, UnsafeCell};
use std::mem::MaybeUninit;

const EMPTY: u32 = 0;
const WRITING: u32 = 1;
const SET: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct SetOnce<T> {
    state: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: `set` moves a `T` in from any thread, and the thread that drops the cell drops it (`Send`); `get` shares it
// (`Sync`). Writing is exclusive by invariant 1 and over before reading by invariant 2.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}
// SAFETY: the cell owns its value.
unsafe impl<T: Send> Send for SetOnce<T> {}

impl<T> SetOnce<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Sets the value.
    ///
    /// # Errors
    /// Gives `value` back if another `set` came first, even if its value cannot be read yet.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        // Relaxed: it only decides who writes; nothing is read that another `set` wrote.
        let won = self
            .state
            .compare_exchange(EMPTY, WRITING, Ordering::Relaxed, Ordering::Relaxed);
        if won.is_err() {
            return Err(value);
        }
        self.value.with_mut(|cell| {
            // SAFETY: invariant 1: we turned the state to WRITING, so no one else writes, and no one reads before SET.
            unsafe { cell.cast::<T>().write(value) };
        });
        // ORDERING: pairs with `get`; publishes the value.
        self.state.store(SET, Ordering::Release);
        Ok(())
    }

    /// The value, once a `set` is complete.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // ORDERING: pairs with `set`; publishes the value.
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        Some(self.value.with(|cell| {
            // SAFETY: SET was acquired: the value is there, and by invariant 2 stays unchanged while `self` is borrowed.
            unsafe { &*cell.cast::<T>() }
        }))
    }

    /// Whether [`Self::get`] would return a value.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.get().is_some()
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
        if self.state.load(Ordering::Relaxed) == SET {
            self.value.with_mut(|cell| {
                // SAFETY: SET says that the value is there; no one borrows it any more.
                unsafe { cell.cast::<T>().drop_in_place() };
            });
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
