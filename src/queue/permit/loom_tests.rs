//! An engine that grants, and a handle that waits, gives up, or is dropped. Each writes something before its step that the other
//! reads when it has learnt of it; loom reports a read that is not ordered behind its write.

use super::*;
use crate::queue::WakerSlot;
use crate::sync::{Arc, UnsafeCell};
use loom::future::block_on;
use loom::thread;
use std::future::poll_fn;
use std::task::Poll;

/// A stream that waits for its permission.
#[derive(Debug)]
struct Waiting {
    permit: Permit,
    waker: WakerSlot,
    /// By the engine, before it grants: the stream's credit, say.
    of_engine: UnsafeCell<u32>,
    /// By the handle, before it gives up: its code, say.
    of_handle: UnsafeCell<u32>,
}

// SAFETY: that its fields are reached by one thread at a time is for the models to show.
unsafe impl Sync for Waiting {}

impl Waiting {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            permit: Permit::new(),
            waker: WakerSlot::new(),
            of_engine: UnsafeCell::new(0),
            of_handle: UnsafeCell::new(0),
        })
    }

    fn write(place: &UnsafeCell<u32>) {
        // SAFETY: loom checks that no other thread is there.
        place.with_mut(|place| unsafe { *place = 7 });
    }

    fn read(place: &UnsafeCell<u32>) {
        // SAFETY: loom checks that no other thread writes.
        assert_eq!(place.with(|place| unsafe { *place }), 7);
    }

    /// The engine's step; false if the handle has given up.
    fn grant(&self) -> bool {
        Self::write(&self.of_engine);
        let granted = self.permit.grant_waiting();
        if granted {
            // SAFETY: each model has one engine.
            unsafe { self.waker.wake() }
        } else {
            Self::read(&self.of_handle);
        }
        granted
    }

    /// The handle's step; false if the engine has granted.
    fn give_up(&self) -> bool {
        Self::write(&self.of_handle);
        let given_up = self.permit.give_up();
        if !given_up {
            Self::read(&self.of_engine);
        }
        given_up
    }
}

#[test]
fn one_of_a_grant_and_a_giving_up_is_the_end_and_the_other_side_sees_all_before_it() {
    loom::model(|| {
        let waiting = Waiting::new();
        let engine = Arc::clone(&waiting);
        let engine = thread::spawn(move || engine.grant());
        let given_up = waiting.give_up();
        let granted = engine.join().unwrap();
        assert_ne!(granted, given_up);
        assert_eq!(waiting.permit.is_granted(), granted);
    });
}

#[test]
fn a_handle_that_waits_is_woken_and_sees_all_before_the_grant() {
    loom::model(|| {
        let waiting = Waiting::new();
        let engine = Arc::clone(&waiting);
        let engine = thread::spawn(move || assert!(engine.grant()));
        block_on(poll_fn(|cx| {
            if !waiting.permit.is_granted() {
                // SAFETY: each model has one handle.
                unsafe { waiting.waker.register(cx.waker()) }
                if !waiting.permit.is_granted() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        }));
        Waiting::read(&waiting.of_engine);
        engine.join().unwrap();
    });
}

/// A stream of a call, which nothing waits for when it is granted: its handle may be dropped at once.
#[test]
fn a_grant_without_a_wait_is_seen_with_all_before_it_or_not_at_all() {
    loom::model(|| {
        let waiting = Waiting::new();
        let engine = Arc::clone(&waiting);
        let engine = thread::spawn(move || {
            Waiting::write(&engine.of_engine);
            engine.permit.grant();
        });
        if waiting.permit.is_granted() {
            Waiting::read(&waiting.of_engine);
            assert!(!waiting.permit.give_up());
        }
        drop(waiting);
        engine.join().unwrap();
    });
}

/// The handle looks, and is dropped between the look and the grant: the last owner frees the stream.
#[test]
fn a_handle_that_is_dropped_while_it_waits_gives_up_or_finds_the_grant() {
    loom::model(|| {
        let waiting = Waiting::new();
        let engine = Arc::clone(&waiting);
        let engine = thread::spawn(move || engine.grant());
        let seen = waiting.permit.is_granted();
        let given_up = waiting.give_up();
        assert!(!(seen && given_up), "a grant is never taken back");
        drop(waiting);
        assert_ne!(engine.join().unwrap(), given_up);
    });
}
