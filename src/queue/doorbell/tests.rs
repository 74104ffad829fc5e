//! The doorbell with a waker that counts, then with a thread that really sleeps.

use super::*;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_bell_rung_while_the_engine_runs_wakes_no_one() {
    let count = Arc::new(Count::default());
    let bell = Doorbell::new();
    assert!(!bell.ring());
    bell.prepare(&Waker::from(Arc::clone(&count)));
    bell.cancel();
    assert!(!bell.is_parked());
    assert!(!bell.ring());
    assert_eq!((count.0.load(Ordering::Relaxed), bell.wakes()), (0, 0));
}

#[test]
fn a_parked_engine_is_woken_once_for_a_batch() {
    let count = Arc::new(Count::default());
    let bell = Doorbell::new();
    for round in 1..4 {
        bell.prepare(&Waker::from(Arc::clone(&count)));
        assert!(bell.is_parked());
        assert!(bell.ring());
        assert!(!bell.ring());
        assert_eq!(count.0.load(Ordering::Relaxed), round);
    }
    assert_eq!(bell.wakes(), 3);
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_sleeping_engine_misses_no_work_of_two_threads() {
    const WORK: u64 = if cfg!(miri) { 50 } else { 50_000 };
    let bell = Doorbell::new();
    let work = AtomicU64::new(0);
    let mut done = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..WORK {
                    work.fetch_add(1, Ordering::Release);
                    bell.ring();
                    if round % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        while done < 2 * WORK {
            let taken = work.swap(0, Ordering::Acquire);
            done += taken;
            if taken > 0 {
                continue;
            }
            bell.prepare(&waker);
            if work.load(Ordering::Relaxed) == 0 {
                // A lost wake-up makes this hang, or fail by time-out where tests have one.
                std::thread::park();
            }
            bell.cancel();
        }
    });
    assert_eq!(done, 2 * WORK);
}
