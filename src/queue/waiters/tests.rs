//! The set of wakers in one thread, then under several.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Wake;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn waking_an_empty_set_allocates_nothing() {
    let set = WakerSet::new();
    set.wake_all();
    assert_eq!(set.wakers.block_count(), 0);
}

#[test]
fn every_waiter_is_woken_once_for_each_time_it_set_its_waker() {
    let set = WakerSet::new();
    let counts: Vec<_> = (0..200).map(|_| Arc::new(Count::default())).collect();
    let keys: Vec<_> = counts.iter().map(|_| set.insert()).collect();
    assert_eq!(set.wakers.block_count(), 4);
    for _ in 0..2 {
        for (key, count) in keys.iter().zip(&counts) {
            set.set(key, &Waker::from(Arc::clone(count)));
        }
        set.wake_all();
        set.wake_all();
    }
    assert!(
        counts
            .iter()
            .all(|count| count.0.load(Ordering::Relaxed) == 2)
    );
}

#[test]
fn one_waiter_is_woken_at_a_time_and_none_twice() {
    let set = WakerSet::new();
    let counts: Vec<_> = (0..70).map(|_| Arc::new(Count::default())).collect();
    let keys: Vec<_> = counts.iter().map(|_| set.insert()).collect();
    for (key, count) in keys.iter().zip(&counts) {
        set.set(key, &Waker::from(Arc::clone(count)));
    }
    let woken = || -> usize {
        let counts = counts.iter().map(|count| count.0.load(Ordering::Relaxed));
        counts.inspect(|count| assert!(*count <= 1)).sum()
    };
    for n in 1..=counts.len() {
        set.wake_one();
        assert_eq!(woken(), n);
    }
    set.wake_one();
    assert_eq!(woken(), counts.len());
}

#[test]
fn a_removed_waiter_is_not_woken_and_its_waker_is_dropped() {
    let set = WakerSet::new();
    let count = Arc::new(Count::default());
    let key = set.insert();
    set.set(&key, &Waker::from(Arc::clone(&count)));
    set.remove(key);
    assert_eq!(Arc::strong_count(&count), 1);
    set.wake_all();
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
}

#[test]
fn places_are_used_again_so_memory_follows_the_most_waiters_at_once() {
    let set = WakerSet::new();
    for _ in 0..50 {
        let keys: Vec<_> = (0..crate::queue::slots::SLOTS)
            .map(|_| set.insert())
            .collect();
        keys.into_iter().for_each(|key| set.remove(key));
    }
    assert_eq!(set.wakers.block_count(), 1);
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn threads_that_wait_for_a_flag_all_see_it() {
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 2000 };
    for _ in 0..ROUNDS {
        let set = WakerSet::new();
        let flag = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                    let key = set.insert();
                    loop {
                        set.set(&key, &waker);
                        if flag.load(Ordering::Relaxed) {
                            break;
                        }
                        std::thread::park();
                    }
                    set.remove(key);
                });
            }
            std::thread::yield_now();
            flag.store(true, Ordering::Relaxed);
            set.wake_all();
        });
    }
}
