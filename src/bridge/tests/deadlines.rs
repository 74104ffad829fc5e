//! Deadlines of streams, at their time and not before.

use super::*;
use crate::error::codes;
use crate::error::{SendError, Side, StreamError};

const SECOND: Duration = Duration::from_secs(1);

fn ran_out(error: &StreamError, who: Side) -> bool {
    matches!(error, StreamError::Cancelled { by, code: codes::DEADLINE } if *by == who)
}

#[test]
fn a_stream_ends_at_its_deadline_on_both_sides_and_the_others_go_on() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut ours, mut theirs) = pair.stream(D);
    let (mut other, mut other_in) = pair.stream(D);
    let start = pair.now;
    ours.0.set_deadline(Some(start + SECOND));
    other.0.set_deadline(Some(start + 3 * SECOND));
    pair.drive();
    assert_eq!(
        pair.ends[D].connection.next_deadline(),
        Some(start + SECOND)
    );
    pair.elapse(SECOND - Duration::from_millis(1));
    Polled::new(ours.recv()).pending();
    {
        // In a task that waits already.
        let mut waiting = Polled::new(ours.recv());
        waiting.pending();
        pair.elapse(Duration::from_millis(1));
        assert!(waiting.wakes() > 0);
        assert!(ran_out(&waiting.now().unwrap().unwrap_err(), Side::This));
    }
    let error = now(ours.send(message(1))).unwrap_err();
    assert!(matches!(&error, SendError::Stream(error) if ran_out(error, Side::This)));
    assert!(ran_out(&now(theirs.recv()).unwrap_err(), Side::Peer));

    now(other.send(message(9))).unwrap();
    other.finish().unwrap();
    pair.drive();
    assert_eq!(now(other_in.recv()).unwrap().unwrap().len(), 9);
    other_in.finish().unwrap();
    pair.drive();
    assert_eq!(now(other.recv()).unwrap(), None, "it was done before");
    drop((ours, theirs, other, other_in));
    pair.drive();
    assert!({
        let mux = &pair.ends[D].connection.core.mux;
        mux.deadlines.len() == 0
            && !mux
                .base
                .timers
                .is_set(crate::core::timers::Timer::Deadlines)
    });
    pair.is_clean();
}

#[test]
fn a_deadline_can_be_moved_taken_back_and_lie_in_the_past() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let start = pair.now;
    let (mut moved, _moved_in) = pair.stream(D);
    let (mut free, _free_in) = pair.stream(D);
    let (mut late, _late_in) = pair.stream(D);
    moved.0.set_deadline(Some(start + SECOND));
    free.0.set_deadline(Some(start + SECOND));
    pair.drive();
    moved.0.set_deadline(Some(start + 2 * SECOND));
    free.0.set_deadline(None);
    pair.elapse(SECOND);
    Polled::new(moved.recv()).pending();
    pair.elapse(SECOND);
    assert!(ran_out(&now(moved.recv()).unwrap_err(), Side::This));
    pair.elapse(60 * SECOND);
    Polled::new(free.recv()).pending();
    free.0
        .set_deadline(start.checked_add(Duration::from_secs(1 << 35)));
    pair.elapse(SECOND);
    Polled::new(free.recv()).pending();
    late.0.set_deadline(Some(start));
    pair.drive();
    pair.elapse(Duration::ZERO);
    assert!(ran_out(&now(late.recv()).unwrap_err(), Side::This));
}

/// One that comes after streams with a deadline has none, also where it has the lane of one of them.
#[test]
fn a_deadline_is_of_its_stream_alone() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let start = pair.now;
    for _ in 0..3 {
        let (mut ours, mut theirs) = pair.stream(D);
        ours.0.set_deadline(Some(start + SECOND));
        ours.finish().unwrap();
        theirs.finish().unwrap();
        pair.drive();
        drop((ours, theirs));
        pair.drive();
    }
    let (mut next, _theirs) = pair.stream(D);
    pair.elapse(2 * SECOND);
    Polled::new(next.recv()).pending();
}

#[test]
fn the_heap_of_deadlines_is_bounded_by_the_streams() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let start = pair.now;
    let (stream, _theirs) = pair.stream(D);
    for n in 0..10_000_u32 {
        stream
            .0
            .set_deadline(Some(start + 60 * SECOND + n % 7 * SECOND));
        pair.drive();
        assert!(
            pair.ends[D].connection.core.mux.deadlines.len() <= 2 + 16 + 1,
            "{n}"
        );
    }
}
