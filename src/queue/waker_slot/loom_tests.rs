//! The slot under loom. A lost wake-up is a deadlock, which loom reports, or a count that is missing.

use super::*;
use crate::sync::{Arc, AtomicUsize};
use loom::future::block_on;
use loom::thread;
use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake};

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
        self.posted.fetch_add(1, Relaxed);
        // SAFETY: each model has one thread that posts.
        unsafe { self.slot.wake() }
    }

    fn register(&self, waker: &Waker) {
        // SAFETY: each model has one thread that waits.
        unsafe { self.slot.register(waker) }
    }

    fn poll(&self, posted: usize, waker: &Waker) -> Poll<()> {
        if self.posted.load(Relaxed) >= posted {
            return Poll::Ready(());
        }
        self.register(waker);
        if self.posted.load(Relaxed) >= posted {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn wait_for(&self, posted: usize) {
        block_on(poll_fn(|cx| self.poll(posted, cx.waker())));
    }
}

/// Another waker of the same task, which detects that the previous one is being called.
fn wait_as_another(mailbox: &Mailbox, posted: usize) {
    block_on(poll_fn(|cx| {
        let polled = mailbox.poll(posted, cx.waker());
        if polled.is_pending() {
            thread::yield_now();
        }
        polled
    }));
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
        // It must not spin until the end of a call. A clone, as `will_wake` works only for clones of loom's waker.
        let mut own = None;
        let mut poll = |posted, cx: &Context<'_>| {
            mailbox.poll(posted, own.get_or_insert_with(|| cx.waker().clone()))
        };
        block_on(async {
            for posted in 1..=2 {
                poll_fn(|cx| poll(posted, cx)).await;
            }
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_waiter_with_another_waker_is_woken_too() {
    loom::model(|| {
        let mailbox = Mailbox::new();
        let poster = Arc::clone(&mailbox);
        let thread = thread::spawn(move || {
            poster.post();
            poster.post();
        });
        mailbox.wait_for(1);
        wait_as_another(&mailbox, 2);
        thread.join().unwrap();
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

/// Not modelled by loom: counts calls only.
#[derive(Debug, Default)]
struct Count(std::sync::atomic::AtomicUsize);

impl Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
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
        let seen = mailbox.posted.load(Relaxed) == 1;
        thread.join().unwrap();
        let woken = second.0.load(Relaxed) > 0;
        assert!(seen || woken);
    });
}
