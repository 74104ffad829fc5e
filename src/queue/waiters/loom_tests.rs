//! The set under loom, with blocks of two slots. A lost wake-up is a deadlock, which loom reports.
//!
//! Loom's `AtomicWaker` is a lock, which orders a slot's holders by itself; the models of `Slots` show that it orders them too.

use super::*;
use crate::sync::{Arc, AtomicBool, AtomicUsize};
use loom::future::block_on;
use loom::thread;
use std::future::poll_fn;
use std::task::Poll;

#[derive(Debug)]
struct Flag {
    /// Relaxed on both sides: only the set orders it.
    up: AtomicBool,
    waiters: WakerSet,
}

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            up: AtomicBool::new(false),
            waiters: WakerSet::new(),
        })
    }

    fn wait(&self) {
        let mut key = None;
        block_on(poll_fn(|context| {
            let key = key.get_or_insert_with(|| self.waiters.insert());
            self.waiters.set(key, context.waker());
            if self.up.load(Ordering::Relaxed) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        self.waiters.remove(key.expect("polled"));
    }

    fn raise(&self) {
        self.up.store(true, Ordering::Relaxed);
        self.waiters.wake_all();
    }
}

#[test]
fn a_waiter_that_comes_at_any_time_is_woken() {
    loom::model(|| {
        let flag = Flag::new();
        let raiser = thread::spawn({
            let flag = Arc::clone(&flag);
            move || flag.raise()
        });
        flag.wait();
        raiser.join().unwrap();
    });
}

#[test]
fn two_waiters_that_come_at_any_time_are_both_woken() {
    loom::model(|| {
        let flag = Flag::new();
        let waiter = thread::spawn({
            let flag = Arc::clone(&flag);
            move || flag.wait()
        });
        let raiser = thread::spawn({
            let flag = Arc::clone(&flag);
            move || flag.raise()
        });
        flag.wait();
        waiter.join().unwrap();
        raiser.join().unwrap();
    });
}

#[test]
fn a_waiter_in_the_second_block_is_woken() {
    loom::model(|| {
        let flag = Flag::new();
        let others = [flag.waiters.insert(), flag.waiters.insert()];
        let raiser = thread::spawn({
            let flag = Arc::clone(&flag);
            move || flag.raise()
        });
        flag.wait();
        raiser.join().unwrap();
        others.into_iter().for_each(|key| flag.waiters.remove(key));
    });
}

#[test]
fn places_are_never_shared_while_threads_insert_and_remove() {
    loom::model(|| {
        let flag = Flag::new();
        let thread = thread::spawn({
            let flag = Arc::clone(&flag);
            move || {
                let keys = [flag.waiters.insert(), flag.waiters.insert()];
                let [first, second] = keys;
                flag.waiters.remove(first);
                second
            }
        });
        let first = flag.waiters.insert();
        let second = flag.waiters.insert();
        let other = thread.join().unwrap();
        assert!(first != second && first != other && second != other);
        for key in [first, second, other] {
            flag.waiters.remove(key);
        }
    });
}

/// Things of which each waiter takes one.
#[derive(Debug)]
struct Things {
    /// Relaxed on both sides, as `Flag::up`.
    left: AtomicUsize,
    waiters: WakerSet,
}

impl Things {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(0),
            waiters: WakerSet::new(),
        })
    }

    fn add(&self, things: usize) {
        self.left.fetch_add(things, Ordering::Relaxed);
        self.waiters.wake_one();
    }

    fn try_take(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        (self.left)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn pass_on(&self) {
        if self.left.load(Ordering::Relaxed) > 0 {
            self.waiters.wake_one();
        }
    }

    fn take(&self) {
        let mut key = None;
        block_on(poll_fn(|context| {
            let key = key.get_or_insert_with(|| self.waiters.insert());
            self.waiters.set(key, context.waker());
            if self.try_take() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        self.waiters.remove(key.expect("polled"));
        self.pass_on();
    }
}

#[test]
fn two_waiters_get_a_thing_each_though_one_of_them_is_woken() {
    loom::model(|| {
        let things = Things::new();
        let waiter = thread::spawn({
            let things = Arc::clone(&things);
            move || things.take()
        });
        let maker = thread::spawn({
            let things = Arc::clone(&things);
            move || things.add(2)
        });
        things.take();
        waiter.join().unwrap();
        maker.join().unwrap();
    });
}

#[test]
fn a_waiter_that_gives_up_passes_its_wake_on() {
    loom::model(|| {
        let things = Things::new();
        let gives_up = thread::spawn({
            let things = Arc::clone(&things);
            move || {
                let key = things.waiters.insert();
                things.waiters.set(&key, Waker::noop());
                things.waiters.remove(key);
                things.pass_on();
            }
        });
        let maker = thread::spawn({
            let things = Arc::clone(&things);
            move || things.add(1)
        });
        things.take();
        gives_up.join().unwrap();
        maker.join().unwrap();
    });
}
