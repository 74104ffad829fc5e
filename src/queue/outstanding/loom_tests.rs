//! Two takers, and the thread that closes.

use super::*;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

/// An account that must never be negative.
#[derive(Debug)]
struct Account(AtomicU64);

impl Account {
    fn charge(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give(&self, bytes: u64) {
        assert!(self.0.fetch_sub(bytes, Ordering::Relaxed) >= bytes);
    }
}

/// Two takers and the close, in any order: each charged byte is given back once, and not before it was charged.
#[test]
fn the_charge_of_the_close_is_given_back_once_and_not_before_it() {
    loom::model(|| {
        let outstanding = Arc::new(Outstanding::new());
        let account = Arc::new(Account(AtomicU64::new(0)));
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
        assert_eq!(account.0.load(Ordering::Relaxed), 0);
    });
}
