//! Two takers, and the thread that closes.

use super::*;
use crate::sync::{Arc, UnsafeCell};
use loom::thread;

/// An account that must never be negative.
#[derive(Debug)]
struct Account {
    bytes: AtomicU64,
    /// Loom has one order for all exchanges of `bytes`, and reports a read of this that is not ordered behind the charge.
    is_charged: UnsafeCell<bool>,
}

// SAFETY: that `is_charged` is not read while it is written is for the model to show.
unsafe impl Sync for Account {}

impl Account {
    fn charge(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // SAFETY: loom checks that no other thread is there.
        self.is_charged.with_mut(|place| unsafe { *place = true });
    }

    fn give(&self, bytes: u64) {
        // SAFETY: loom checks that no other thread writes.
        assert!(self.is_charged.with(|place| unsafe { *place }));
        assert!(self.bytes.fetch_sub(bytes, Ordering::Relaxed) >= bytes);
    }
}

/// Two takers and the close, in any order: each charged byte is given back once, and not before it was charged.
#[test]
fn the_charge_of_the_close_is_given_back_once_and_not_before_it() {
    loom::model(|| {
        let outstanding = Arc::new(Outstanding::new());
        let account = Arc::new(Account {
            bytes: AtomicU64::new(0),
            is_charged: UnsafeCell::new(false),
        });
        outstanding.give(1);
        outstanding.give(2);
        let takers: Vec<_> = [1, 2]
            .into_iter()
            .map(|bytes| {
                let (outstanding, account) = (Arc::clone(&outstanding), Arc::clone(&account));
                thread::spawn(move || {
                    if outstanding.take(bytes) {
                        account.give(bytes);
                    }
                })
            })
            .collect();
        let meanwhile = outstanding.close(|bytes| account.charge(bytes));
        account.give(meanwhile);
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(account.bytes.load(Ordering::Relaxed), 0);
    });
}
