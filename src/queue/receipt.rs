//! One question of a handle, answered by the engine: have all messages queued before it been written?
//!
//! ```text
//!   NONE ──ask──► ASKED ──take──► TAKEN ──answer──► DONE
//!                   ▲ ─────────────ask──┴─────────────┘
//! ```
//! A handle publishes, asks, and makes the engine check. The engine takes the question, writes everything published until
//! then, and answers.
//!
//! # Invariant
//! DONE answers the last question: one that is asked while an earlier one is with the engine makes that answer fail, and the
//! engine takes the new one.
//!
//! # Progress
//! Every operation is **wait-free**. One handle asks, one engine takes and answers.

use crate::sync::{AtomicU8, Ordering};

/// Never asked.
const NONE: u8 = 0;
/// For the engine to take.
const ASKED: u8 = 1;
/// With the engine.
const TAKEN: u8 = 2;
/// Written.
const DONE: u8 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Receipt(AtomicU8);

impl Receipt {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(NONE))
    }

    /// Asks about everything published before. The caller then makes the engine check.
    pub(crate) fn ask(&self) {
        // ORDERING: pairs with `take`; publishes the `tail` of the messages concerned. An exchange, as are the other two, so that
        // each sees the latest of them.
        self.0.swap(ASKED, Ordering::Release);
    }

    /// Whether the last question was answered.
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: pairs with `answer`: the engine's writes come before.
        self.0.load(Ordering::Acquire) == DONE
    }

    /// Takes a question; false if there is none. Everything published before it is visible afterwards.
    pub(crate) fn take(&self) -> bool {
        // ORDERING: Acquire pairs with `ask`.
        let (taken, none) = (Ordering::Acquire, Ordering::Relaxed);
        let result = self.0.compare_exchange(ASKED, TAKEN, taken, none);
        result.is_ok()
    }

    /// Answers the question that was taken; false if another was asked since.
    pub(crate) fn answer(&self) -> bool {
        // ORDERING: Release pairs with `is_done`.
        let (done, asked) = (Ordering::Release, Ordering::Relaxed);
        let result = self.0.compare_exchange(TAKEN, DONE, done, asked);
        result.is_ok()
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_question_is_answered() {
        let receipt = Receipt::new();
        assert!(!receipt.take() && !receipt.answer() && !receipt.is_done());
        receipt.ask();
        assert!(!receipt.answer(), "it was not taken");
        assert!(receipt.take() && !receipt.take());
        receipt.ask();
        assert!(!receipt.answer(), "it would answer the one before");
        assert!(receipt.take() && receipt.answer() && receipt.is_done());
        receipt.ask();
        assert!(!receipt.is_done());
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{Arc, AtomicU64};
    use loom::thread;

    /// The number published by a handle, and the number written by the engine.
    struct Wire {
        published: AtomicU64,
        written: AtomicU64,
        receipt: Receipt,
    }

    #[test]
    fn an_answer_is_about_all_that_was_published_before_the_last_question() {
        loom::model(|| {
            let wire = Arc::new(Wire {
                published: AtomicU64::new(0),
                written: AtomicU64::new(0),
                receipt: Receipt::new(),
            });
            let engine = Arc::clone(&wire);
            let thread = thread::spawn(move || {
                for _ in 0..2 {
                    if engine.receipt.take() {
                        let published = engine.published.load(Ordering::Relaxed);
                        engine.written.store(published, Ordering::Relaxed);
                        let _answered = engine.receipt.answer();
                    }
                }
            });
            for number in 1..=2 {
                // The first question is abandoned.
                wire.published.store(number, Ordering::Relaxed);
                wire.receipt.ask();
            }
            if wire.receipt.is_done() {
                assert_eq!(wire.written.load(Ordering::Relaxed), 2);
            }
            thread.join().unwrap();
            if wire.receipt.is_done() {
                assert_eq!(wire.written.load(Ordering::Relaxed), 2);
            }
        });
    }
}
