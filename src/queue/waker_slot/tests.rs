//! The slot in one thread, and its memory.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn register(slot: &WakerSlot, waker: &Waker) {
    // SAFETY: these tests have one thread.
    unsafe { slot.register(waker) }
}

fn wake(slot: &WakerSlot) {
    // SAFETY: as in `register`.
    unsafe { slot.wake() }
}

#[test]
fn a_wait_is_woken_once() {
    let (slot, count) = (WakerSlot::new(), Arc::new(Count::default()));
    let waker = Waker::from(Arc::clone(&count));
    wake(&slot);
    assert_eq!(count.get(), 0);
    for waits in 1..=3 {
        register(&slot, &waker);
        register(&slot, &waker);
        wake(&slot);
        wake(&slot);
        assert_eq!(count.get(), waits);
    }
}

#[test]
fn a_task_that_waits_again_is_not_cloned_again() {
    let (slot, count) = (WakerSlot::new(), Arc::new(Count::default()));
    let waker = Waker::from(Arc::clone(&count));
    for _ in 0..3 {
        register(&slot, &waker);
        assert_eq!(
            Arc::strong_count(&count),
            3,
            "the test's two and the slot's"
        );
        wake(&slot);
    }
}

#[test]
fn the_last_who_waits_is_woken_and_no_other() {
    let slot = WakerSlot::new();
    let [first, second] = [0, 1].map(|_| Arc::new(Count::default()));
    register(&slot, &Waker::from(Arc::clone(&first)));
    register(&slot, &Waker::from(Arc::clone(&second)));
    assert_eq!(Arc::strong_count(&first), 1, "dropped when it was replaced");
    wake(&slot);
    assert_eq!((first.get(), second.get()), (0, 1));
}

#[test]
fn a_slot_that_was_cleared_holds_no_task() {
    let (slot, count) = (WakerSlot::new(), Arc::new(Count::default()));
    for woken in [false, true] {
        register(&slot, &Waker::from(Arc::clone(&count)));
        if woken {
            wake(&slot);
        }
        // SAFETY: as in `register`.
        unsafe { slot.clear() };
        assert_eq!(Arc::strong_count(&count), 1);
        wake(&slot);
    }
    assert_eq!(count.get(), 1);
}

/// A waker that is used from inside of its own wake, as by an executor that polls in place.
struct Again {
    slot: WakerSlot,
    count: Arc<Count>,
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        register(&self.slot, &Waker::from(Arc::clone(&self.count)));
    }
}

#[test]
fn another_task_that_registers_during_a_wake_is_woken_at_once() {
    let again = Arc::new(Again {
        slot: WakerSlot::new(),
        count: Arc::new(Count::default()),
    });
    register(&again.slot, &Waker::from(Arc::clone(&again)));
    wake(&again.slot);
    assert_eq!(again.count.get(), 1);
    // SAFETY: as in `register`. The slot would keep itself alive.
    unsafe { again.slot.clear() };
}

/// A task that waits again before the call that woke it returns.
struct Waits {
    slot: WakerSlot,
    count: Count,
}

impl Wake for Waits {
    fn wake(self: Arc<Self>) {
        self.count.0.fetch_add(1, Ordering::Relaxed);
        register(&self.slot, &Waker::from(Arc::clone(&self)));
    }
}

#[test]
fn a_task_that_waits_again_during_its_wake_is_left_alone_until_the_next() {
    let task = Arc::new(Waits {
        slot: WakerSlot::new(),
        count: Count::default(),
    });
    register(&task.slot, &Waker::from(Arc::clone(&task)));
    for wakes in 1..=3 {
        wake(&task.slot);
        assert_eq!(task.count.get(), wakes);
    }
    // SAFETY: as in `register`. The slot would keep itself alive.
    unsafe { task.slot.clear() };
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("by design");
    }
}

#[test]
fn a_waker_that_panics_leaves_the_slot_usable() {
    let (slot, count) = (WakerSlot::new(), Arc::new(Count::default()));
    register(&slot, &Waker::from(Arc::new(Panics)));
    let panicked = catch_unwind(AssertUnwindSafe(|| wake(&slot)));
    assert!(panicked.is_err());
    register(&slot, &Waker::from(Arc::clone(&count)));
    wake(&slot);
    assert_eq!(count.get(), 1);
}
