//! The slot under loom. A lost wake-up is a deadlock, which loom reports, or a count that is missing.

use super::*;
use crate::sync::{Arc, AtomicUsize};
use loom::future::block_on;
use loom::thread;
use std::future::poll_fn;
use std::task::{Poll, Wake};

#[derive(Debug)]
struct Mailbox {
    /// Relaxed on both sides: only the slot's fences and the wake order it.
    posted: AtomicUsize,
    slot: WakerSlot,
}

impl Mailbox {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            posted: AtomicUsize::new(0),
            slot: WakerSlot::new(),
        })
    }

    fn post(&self) {
        self.posted.fetch_add(1, Ordering::Relaxed);
        self.slot.wake();
    }

    fn register(&self, waker: &Waker) {
        // SAFETY: each model has one thread that waits.
        unsafe { self.slot.register(waker) }
    }

    fn wait_for(&self, posted: usize) {
        block_on(poll_fn(|cx| {
            if self.posted.load(Ordering::Relaxed) >= posted {
                return Poll::Ready(());
            }
            self.register(cx.waker());
            if self.posted.load(Ordering::Relaxed) >= posted {
                return Poll::Ready(());
            }
            // Whoever is being woken wakes itself, again and again while the waker's thread does nothing.
            thread::yield_now();
            Poll::Pending
        }));
    }
}

#[test]
fn a_waiter_is_woken_again_and_again() {
    loom::model(|| {
        let mailbox = Mailbox::new();
        let poster = Arc::clone(&mailbox);
        let thread = thread::spawn(move || {
            poster.post();
            poster.post();
        });
        mailbox.wait_for(1);
        mailbox.wait_for(2);
        thread.join().unwrap();
    });
}

#[test]
fn one_of_two_that_wake_wakes() {
    loom::model(|| {
        let mailbox = Mailbox::new();
        let threads = [0, 1].map(|_| {
            let poster = Arc::clone(&mailbox);
            thread::spawn(move || poster.post())
        });
        mailbox.wait_for(2);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn clearing_and_dropping_meet_a_wake() {
    loom::model(|| {
        let mailbox = Mailbox::new();
        let poster = Arc::clone(&mailbox);
        let thread = thread::spawn(move || poster.post());
        mailbox.wait_for(1);
        // SAFETY: this thread is the one that waits.
        unsafe { mailbox.slot.clear() };
        drop(mailbox);
        thread.join().unwrap();
    });
}

/// Loom does not look inside: only that it was called.
#[derive(Debug, Default)]
struct Count(std::sync::atomic::AtomicUsize);

impl Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_task_that_takes_over_is_woken_or_sees_what_came() {
    loom::model(|| {
        let mailbox = Mailbox::new();
        let [first, second] = [0, 1].map(|_| std::sync::Arc::new(Count::default()));
        let poster = Arc::clone(&mailbox);
        let thread = thread::spawn(move || poster.post());
        mailbox.register(&Waker::from(std::sync::Arc::clone(&first)));
        mailbox.register(&Waker::from(std::sync::Arc::clone(&second)));
        let seen = mailbox.posted.load(Ordering::Relaxed) == 1;
        thread.join().unwrap();
        let woken = second.0.load(std::sync::atomic::Ordering::Relaxed) > 0;
        assert!(seen || woken);
    });
}
