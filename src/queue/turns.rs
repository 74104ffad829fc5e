//! A value that several use in turns, each for a moment. One that finds it in use does not wait: it tries again later.
//!
//! # Invariant
//! The value is accessed only by the one whose exchange has turned `in_use` from false to true, until it stores false.
//!
//! # Progress
//! **Wait-free**, but for the step itself. A thread that is stopped in its turn keeps all others from theirs.

use crate::sync::{AtomicBool, Ordering, UnsafeCell};

/// See the module.
pub(crate) struct Turns<T> {
    in_use: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: by the invariant one thread at a time has the value, which may be sent between them.
unsafe impl<T: Send> Sync for Turns<T> {}

/// The end of a turn, also by a panic.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // ORDERING: pairs with the exchange in `try_with`; publishes what the step has changed.
        self.0.store(false, Ordering::Release);
    }
}

impl<T> Turns<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            in_use: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// One step with the value; `None` if another has it.
    #[inline(always)]
    pub(crate) fn try_with<R>(&self, step: impl FnOnce(&mut T) -> R) -> Option<R> {
        // ORDERING: pairs with the end of a turn; what its step has changed is visible.
        if self.in_use.swap(true, Ordering::Acquire) {
            return None;
        }
        let _turn = Turn(&self.in_use);
        Some(self.value.with_mut(|value| {
            // SAFETY: the invariant: the exchange found it unused, and this turn has not ended.
            step(unsafe { &mut *value })
        }))
    }

    /// The value, of which no turn can be under way.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` proves exclusive access.
        self.value.with_mut(|value| unsafe { &mut *value })
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn one_has_the_value_at_a_time_and_a_panic_ends_its_turn() {
        let mut turns = Turns::new(1);
        let inner = turns.try_with(|value| {
            *value += 1;
            turns.try_with(|value| *value += 1)
        });
        assert_eq!(inner, Some(None));
        let panics = AssertUnwindSafe(|| turns.try_with(|_| panic!("as told")));
        assert!(catch_unwind(panics).is_err());
        assert_eq!(turns.try_with(|value| *value), Some(2));
        assert_eq!(*turns.get_mut(), 2);
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::Arc;
    use loom::thread;

    #[test]
    fn a_step_sees_all_steps_before_it_and_none_beside_it() {
        loom::model(|| {
            let turns = Arc::new(Turns::new(0));
            let threads = [(); 2].map(|()| {
                let turns = Arc::clone(&turns);
                thread::spawn(move || {
                    let steps = [(); 2].map(|()| turns.try_with(|value| *value += 1));
                    steps.into_iter().flatten().count()
                })
            });
            let done = threads.map(|thread| thread.join().unwrap());
            let mut turns = Arc::try_unwrap(turns).ok().unwrap();
            assert_eq!(*turns.get_mut(), done.into_iter().sum::<usize>());
        });
    }
}
