//! A writer that pushes and grows, and the engine that lowers its limit and reads the ring.

use super::*;
use crate::queue::Reasons;
use crate::sync::Arc;
use loom::thread;

/// Stands for a ring of records of weight 1: the number of published ones. None is released.
#[derive(Debug)]
struct Lane {
    limit: Limit,
    reasons: Reasons,
    tail: AtomicU32,
}

/// As a sender does: checks, pushes, publishes, raises. Returns the number of pushed records.
fn write(lane: &Lane, budget: &Budget, records: u32) -> u32 {
    let mut pushed = 0;
    while pushed < records {
        let limit = lane.limit.get();
        if pushed > 0 && pushed + 1 > limit {
            let part = budget.take(0, 1);
            if part == 0 {
                break;
            }
            if !lane.limit.grow(limit, part as u32) {
                budget.give(part);
            }
            continue;
        }
        pushed += 1;
        lane.tail.store(pushed, Ordering::Release);
        let _ = lane.reasons.raise(1);
    }
    pushed
}

#[test]
fn an_engine_that_finds_the_ring_empty_is_wrong_by_one_record() {
    loom::model(|| {
        let lane = Arc::new(Lane {
            limit: Limit::new(3),
            reasons: Reasons::new(),
            tail: AtomicU32::new(0),
        });
        let writer = {
            let lane = Arc::clone(&lane);
            thread::spawn(move || write(&lane, &Budget::new(0), 3))
        };
        assert_eq!(lane.limit.lower(1), 2);
        lane.reasons.touch();
        let empty = lane.tail.load(Ordering::Acquire) == 0;
        let pushed = writer.join().unwrap();
        assert!(!empty || pushed <= 1, "{pushed}");
    });
}

#[test]
fn nothing_of_the_budget_is_lost_or_made() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(8));
        let lane = Arc::new(Lane {
            limit: Limit::new(1),
            reasons: Reasons::new(),
            tail: AtomicU32::new(0),
        });
        let writer = {
            let (lane, budget) = (Arc::clone(&lane), Arc::clone(&budget));
            thread::spawn(move || write(&lane, &budget, 3))
        };
        let mut held = budget.take_all();
        held += u64::from(lane.limit.lower(1));
        let limit = lane.limit.get();
        held -= u64::from(lane.limit.grow(limit, 1));
        budget.give(held);
        let pushed = writer.join().unwrap();
        let lent = u64::from(lane.limit.get()) - 1;
        assert_eq!(lent + budget.left(), 8);
        assert!((1..=3).contains(&pushed));
    });
}
