//! The list alone: two producers, takes and a close at any point.

use super::*;
use loom::thread;

#[derive(Debug)]
struct Lane {
    id: usize,
    next: AtomicPtr<Self>,
}

// SAFETY: `next` is private to the list, and the models push each node once.
unsafe impl Node for Lane {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

fn lane(id: usize) -> Arc<Lane> {
    Arc::new(Lane {
        id,
        next: AtomicPtr::new(null_mut()),
    })
}

#[test]
fn nodes_of_two_producers_are_taken_once_and_in_each_producers_order() {
    loom::model(|| {
        let list = Arc::new(ReadyList::new());
        let producers: Vec<_> = [[1, 2], [11, 12]]
            .into_iter()
            .map(|ids| {
                let list = Arc::clone(&list);
                thread::spawn(move || {
                    for id in ids {
                        list.push(lane(id)).unwrap();
                    }
                })
            })
            .collect();
        let mut seen: Vec<usize> = list.take_all().map(|lane| lane.id).collect();
        for producer in producers {
            producer.join().unwrap();
        }
        seen.extend(list.take_all().map(|lane| lane.id));
        let of = |producer: usize| seen.iter().filter(move |id| **id / 10 == producer);
        assert!(of(0).eq(&[1, 2]));
        assert!(of(1).eq(&[11, 12]));
    });
}

#[test]
fn a_push_that_races_with_close_is_either_handed_out_or_given_back() {
    loom::model(|| {
        let list = Arc::new(ReadyList::new());
        let why = Arc::new(loom::cell::UnsafeCell::new(0));
        let producers: Vec<_> = (0..2)
            .map(|id| {
                let (list, why) = (Arc::clone(&list), Arc::clone(&why));
                thread::spawn(move || {
                    let refused = list.push(lane(id)).is_err();
                    if refused {
                        // SAFETY: written before the close that a failed push acquires; loom checks it.
                        assert_eq!(why.with(|why| unsafe { *why }), 7);
                    }
                    usize::from(refused)
                })
            })
            .collect();
        let taken = list.take_all().count();
        // SAFETY: read only by those whose push failed; loom checks it.
        why.with_mut(|why| unsafe { *why = 7 });
        let closed = list.close().count();
        let refused: usize = producers
            .into_iter()
            .map(|producer| producer.join().unwrap())
            .sum();
        assert_eq!(taken + closed + refused, 2);
        assert!(list.is_closed());
        assert_eq!(list.take_all().count(), 0);
    });
}

#[test]
fn a_take_that_races_with_close_leaves_the_list_closed_and_loses_no_node() {
    loom::model(|| {
        let list = Arc::new(ReadyList::new());
        list.push(lane(0)).unwrap();
        let closer = thread::spawn({
            let list = Arc::clone(&list);
            move || list.close().count()
        });
        let producer = thread::spawn({
            let list = Arc::clone(&list);
            move || usize::from(list.push(lane(1)).is_err())
        });
        let taken = list.take_all().count();
        let closed = closer.join().unwrap();
        let refused = producer.join().unwrap();
        assert_eq!(taken + closed + refused, 2);
        assert!(list.is_closed());
    });
}

#[test]
fn a_list_dropped_with_nodes_on_it_releases_them() {
    loom::model(|| {
        let list = Arc::new(ReadyList::new());
        let node = lane(0);
        let producer = thread::spawn({
            let (list, node) = (Arc::clone(&list), Arc::clone(&node));
            move || list.push(node).unwrap()
        });
        drop(list);
        producer.join().unwrap();
        assert_eq!(Arc::strong_count(&node), 1);
    });
}
