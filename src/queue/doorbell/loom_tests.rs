//! Reasons, ready list and doorbell as they are used together: the engine sleeps in `block_on`, and a lost wake-up is a
//! deadlock, which loom reports.
//!
//! Not covered: the Acquire and Release on `parked`, and so the claim that a ring that sees `parked` also sees the waker. Loom's
//! `AtomicWaker` is a lock, which orders registration and wake by itself.

use super::*;
use crate::queue::ready::{Node, ReadyList};
use crate::queue::reasons::Reasons;
use crate::sync::{Arc, AtomicPtr};
use loom::future::block_on;
use loom::thread;
use std::future::poll_fn;
use std::task::Poll;

#[derive(Debug)]
struct Lane {
    next: AtomicPtr<Self>,
    reasons: Reasons,
    /// Stands for the published data of a ring; Relaxed, so that only the reasons order it.
    work: [AtomicU64; 2],
}

// SAFETY: `next` is private to the list; `Engine::wants` pushes as the trait asks.
unsafe impl Node for Lane {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

fn lane() -> Arc<Lane> {
    Arc::new(Lane {
        next: AtomicPtr::new(std::ptr::null_mut()),
        reasons: Reasons::new(),
        work: [AtomicU64::new(0), AtomicU64::new(0)],
    })
}

#[derive(Debug)]
struct Engine {
    ready: ReadyList<Lane>,
    bell: Doorbell,
}

impl Engine {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ready: ReadyList::new(),
            bell: Doorbell::new(),
        })
    }

    /// A producer's step. False if the engine has ended.
    fn wants(&self, lane: &Arc<Lane>, who: usize, work: u64) -> bool {
        lane.work[who].store(work, Ordering::Relaxed);
        if lane.reasons.raise(1 << who) && self.ready.push(Arc::clone(lane)).is_err() {
            return false;
        }
        self.bell.ring();
        true
    }

    /// Runs turns, each of which hands the lanes it takes to `serve`, until that returns true.
    fn run(&self, mut serve: impl FnMut(&Lane, u32) -> bool) {
        block_on(poll_fn(|context| {
            loop {
                let mut done = false;
                for lane in self.ready.take_all() {
                    let reasons = lane.reasons.take();
                    assert_ne!(reasons, 0);
                    done |= serve(&lane, reasons);
                }
                if done {
                    return Poll::Ready(());
                }
                self.bell.prepare(context.waker());
                if self.ready.is_empty() {
                    return Poll::Pending;
                }
                self.bell.cancel();
            }
        }));
    }
}

#[test]
fn work_of_two_producers_with_a_lane_each_is_all_seen_and_no_wake_is_lost() {
    loom::model(|| {
        let engine = Engine::new();
        let producers: Vec<_> = (0..2)
            .map(|who| {
                let engine = Arc::clone(&engine);
                thread::spawn(move || assert!(engine.wants(&lane(), who, 1)))
            })
            .collect();
        let mut served = 0;
        engine.run(|lane, reasons| {
            assert_eq!(lane.work[reasons as usize - 1].load(Ordering::Relaxed), 1);
            served += 1;
            served == 2
        });
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
fn work_of_two_producers_on_one_lane_is_all_seen_though_one_of_them_pushes() {
    loom::model(|| {
        let engine = Engine::new();
        let lane = lane();
        let producers: Vec<_> = (0..2)
            .map(|who| {
                let (engine, lane) = (Arc::clone(&engine), Arc::clone(&lane));
                thread::spawn(move || assert!(engine.wants(&lane, who, 1)))
            })
            .collect();
        let mut seen = 0;
        engine.run(|lane, reasons| {
            for who in 0..2 {
                if reasons & 1 << who != 0 {
                    assert_eq!(lane.work[who].load(Ordering::Relaxed), 1);
                }
            }
            seen |= reasons;
            seen == 3
        });
        for producer in producers {
            producer.join().unwrap();
        }
        assert_eq!(lane.reasons.peek(), 0);
    });
}

#[test]
fn a_producer_that_comes_again_is_served_again() {
    loom::model(|| {
        let engine = Engine::new();
        let lane = lane();
        let producer = thread::spawn({
            let (engine, lane) = (Arc::clone(&engine), Arc::clone(&lane));
            move || {
                assert!(engine.wants(&lane, 0, 1));
                assert!(engine.wants(&lane, 0, 2));
            }
        });
        engine.run(|lane, _| lane.work[0].load(Ordering::Relaxed) == 2);
        producer.join().unwrap();
    });
}

#[test]
fn an_engine_that_closes_serves_or_refuses_each_producer() {
    loom::model(|| {
        let engine = Engine::new();
        let lanes = [lane(), lane()];
        let producers: Vec<_> = lanes
            .iter()
            .map(|lane| {
                let (engine, lane) = (Arc::clone(&engine), Arc::clone(lane));
                thread::spawn(move || engine.wants(&lane, 0, 1))
            })
            .collect();
        let mut served = 0;
        engine.run(|_, _| {
            served += 1;
            true
        });
        served += engine.ready.close().count();
        let accepted = producers
            .into_iter()
            .filter_map(|producer| producer.join().unwrap().then_some(()));
        assert_eq!(served, accepted.count());
        assert!(lanes.iter().all(|lane| Arc::strong_count(lane) == 1));
    });
}
