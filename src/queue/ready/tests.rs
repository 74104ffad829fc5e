//! The list in one thread, then under several.

use super::*;
use crate::queue::reasons::Reasons;

#[derive(Debug)]
struct Lane {
    id: usize,
    next: AtomicPtr<Self>,
    reasons: Reasons,
}

// SAFETY: `next` is private to the list, and the tests push a node only while it is on no list.
unsafe impl Node for Lane {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

fn lane(id: usize) -> Arc<Lane> {
    Arc::new(Lane {
        id,
        next: AtomicPtr::new(null_mut()),
        reasons: Reasons::new(),
    })
}

fn ids(taken: Taken<Lane>) -> Vec<usize> {
    taken.map(|lane| lane.id).collect()
}

#[test]
fn nodes_come_in_the_order_of_their_pushes() {
    let list = ReadyList::new();
    assert!(list.is_empty());
    assert!(ids(list.take_all()).is_empty());
    for round in 0..3 {
        for id in 0..10 {
            list.push(lane(id + round)).unwrap();
        }
        assert!(!list.is_empty());
        assert_eq!(
            ids(list.take_all()),
            (round..round + 10).collect::<Vec<_>>()
        );
        assert!(list.is_empty());
    }
}

#[test]
fn a_node_handed_out_can_be_pushed_again_while_the_rest_is_still_there() {
    let list = ReadyList::new();
    list.push(lane(1)).unwrap();
    list.push(lane(2)).unwrap();
    let mut taken = list.take_all();
    list.push(taken.next().unwrap()).unwrap();
    assert_eq!(ids(taken), [2]);
    assert_eq!(ids(list.take_all()), [1]);
}

#[test]
fn a_closed_list_refuses_nodes_and_hands_out_those_it_had() {
    let list = ReadyList::new();
    list.push(lane(1)).unwrap();
    assert_eq!(ids(list.close()), [1]);
    assert!(list.is_closed() && list.is_empty());
    assert_eq!(list.push(lane(2)).unwrap_err().id, 2);
    assert!(ids(list.take_all()).is_empty());
    assert!(ids(list.close()).is_empty());
    assert!(list.is_closed());
}

#[test]
fn nodes_are_released_by_whichever_of_list_and_iterator_is_dropped() {
    let list = ReadyList::new();
    let nodes: Vec<_> = (0..6).map(lane).collect();
    for node in &nodes[..4] {
        list.push(Arc::clone(node)).unwrap();
    }
    let mut taken = list.take_all();
    drop(taken.next());
    drop(taken);
    for node in &nodes[4..] {
        list.push(Arc::clone(node)).unwrap();
    }
    assert_eq!(Arc::strong_count(&nodes[5]), 2);
    drop(list);
    assert!(nodes.iter().all(|node| Arc::strong_count(node) == 1));
}

#[test]
fn every_raise_of_four_threads_is_taken_once_and_a_lane_is_never_on_the_list_twice() {
    const RAISES: u64 = if cfg!(miri) { 50 } else { 50_000 };
    const LANES: usize = 3;
    let list = ReadyList::new();
    let lanes: Vec<_> = (0..LANES).map(lane).collect();
    let work: Vec<_> = (0..LANES)
        .map(|_| std::sync::atomic::AtomicU64::new(0))
        .collect();
    let mut done = 0;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (list, lanes, work) = (&list, &lanes, &work);
            scope.spawn(move || {
                for round in 0..RAISES {
                    let id = (thread + round as usize) % LANES;
                    work[id].fetch_add(1, Ordering::Relaxed);
                    if lanes[id].reasons.raise(1 << thread) {
                        list.push(Arc::clone(&lanes[id])).unwrap();
                    }
                }
            });
        }
        while done < 4 * RAISES {
            let mut turn = 0;
            for lane in list.take_all() {
                turn += 1;
                assert_ne!(lane.reasons.take(), 0);
                done += work[lane.id].swap(0, Ordering::Relaxed);
            }
            if turn == 0 {
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(done, 4 * RAISES);
    drop(list);
    assert!(lanes.iter().all(|lane| Arc::strong_count(lane) == 1));
}
