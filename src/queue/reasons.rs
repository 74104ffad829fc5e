//! The readiness bits of a node: the reasons for which it needs the engine; non-zero while it is on the ready list.
//!
//! It is a set of bits, not a counter: raising a reason twice before it is taken is raising it once.
//!
//! ```text
//!        raise(a): 0 ──► a     true: the caller pushes the node
//!        raise(b): a ──► a|b   false: it is on the list, or its pusher is about to push it
//!        take():   a|b ──► 0   the engine, after the list has handed the node out, before it reads the rings
//! ```
//! # Invariant
//! A node whose word is not zero is on the ready list, or the thread that turned the word is about to push it, or the list is
//! closed. So a node is on the list at most once.
//!
//! No raise is lost: it comes before a take or after it. If before, the take acquires the writes before the raise (ring
//! publications too). If after, it found zero and the node is pushed again.
//!
//! # Progress
//! `take` and `touch` are **wait-free**. So is `raise` where a machine has the instruction (ARMv8.1); on x86-64 it is a
//! compare-exchange that is repeated only if another thread has changed the word: **lock-free**. (A thread stopped
//! between its raise and its push delays this node only.)

use super::home::Home;
use crate::sync::{AtomicU32, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Reasons(AtomicU32);

impl Reasons {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Adds `bits`, at least one. True if there were none: the caller must push the node.
    #[inline]
    #[must_use = "true obliges the caller to push the node"]
    pub(crate) fn raise(&self, bits: u32) -> bool {
        debug_assert!(bits != 0, "no reason");
        // ORDERING: pairs with `take`, both ways; publishes the caller's earlier writes (to the engine), and acquires that the
        // list has released the node (from the engine), so that it may be pushed again. Consecutive raises are RMWs: the take
        // acquires from all of them.
        self.0.fetch_or(bits, Ordering::AcqRel) == 0
    }

    /// The first reasons of a node to which no other thread can add any before the caller has pushed it: the list publishes them.
    pub(crate) fn begin(&self, bits: u32) {
        debug_assert!(self.peek() == 0, "another thread has raised");
        self.0.store(bits, Ordering::Relaxed);
    }

    /// Takes all reasons of a node to which no other thread can add any.
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// As [`raise`](Self::raise) with two loads only, if the caller is on the engine's thread and its bits are already set.
    ///
    /// Relaxed: such a caller runs between two takes, and the next one takes these bits after its earlier writes.
    #[inline]
    #[must_use = "true obliges the caller to push the node"]
    pub(crate) fn raise_near(&self, home: &Home, bits: u32) -> bool {
        let has_all = self.0.load(Ordering::Relaxed) & bits == bits;
        !(has_all && home.is_here()) && self.raise(bits)
    }

    /// Takes all reasons. The engine calls it after the list has handed the node out and before it reads the data that the
    /// reasons concern.
    #[inline]
    pub(crate) fn take(&self) -> u32 {
        // ORDERING: pairs with `raise`, both ways; see there.
        self.0.swap(0, Ordering::AcqRel)
    }

    /// Takes nothing, but orders: the engine's earlier writes come before the actions of the next raiser; the writes of earlier
    /// raisers come before the engine's later actions.
    pub(crate) fn touch(&self) {
        // ORDERING: pairs with `raise`, both ways, as `take` does.
        self.0.fetch_or(0, Ordering::AcqRel);
    }

    /// The reasons possibly outdated, for assertions and reports.
    pub(crate) fn peek(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sync::{AtomicBool, AtomicU64};

    #[test]
    fn only_the_raise_that_finds_no_reason_obliges_to_push() {
        let reasons = Reasons::new();
        assert!(reasons.raise(1));
        assert!(!reasons.raise(4));
        assert!(!reasons.raise(1));
        assert_eq!(reasons.peek(), 5);
        assert_eq!(reasons.take(), 5);
        assert_eq!(reasons.take(), 0);
        assert!(reasons.raise(2));
    }

    #[test]
    fn near_the_engine_only_what_is_new_is_raised() {
        let (reasons, home) = (Reasons::new(), Home::new());
        home.settle();
        assert!(reasons.raise_near(&home, 1));
        assert!(!reasons.raise_near(&home, 1));
        assert!(!reasons.raise_near(&home, 3));
        assert_eq!(reasons.take(), 3);
        assert!(reasons.raise_near(&home, 1));
    }

    /// Far from the engine, raised bits may be taken before the next raise is visible.
    ///
    /// A raise that was wrongly left out shows after one more round of the engine, however long that takes. Where threads share
    /// processors there are fewer rounds; the model below covers every order.
    #[test]
    fn far_from_the_engine_no_raise_is_left_out() {
        const ROUNDS: u64 = 100_000;
        const TIME: Duration = Duration::from_secs(2);
        let (reasons, home) = (Reasons::new(), Home::new());
        let (published, seen, passes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let done = AtomicBool::new(false);
        let all_seen = |round| {
            // ORDERING: pairs with the engine's count, both ways. Wait for a pass already begun, and one that begins after this.
            let enough = passes.fetch_add(0, Ordering::AcqRel) + 2;
            loop {
                let passed = passes.load(Ordering::Acquire);
                if seen.load(Ordering::Relaxed) >= 2 * round {
                    return true;
                }
                if passed >= enough {
                    return false;
                }
                std::thread::yield_now();
            }
        };
        let lost = std::thread::scope(|scope| {
            scope.spawn(|| {
                home.settle();
                while !done.load(Ordering::Relaxed) {
                    if reasons.take() != 0 {
                        seen.store(published.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                    passes.fetch_add(1, Ordering::AcqRel);
                    std::hint::spin_loop();
                }
            });
            let started = Instant::now();
            let lost = (1..=ROUNDS)
                .take_while(|_| started.elapsed() < TIME)
                .find(|round| {
                    for number in [2 * round - 1, 2 * round] {
                        published.store(number, Ordering::Relaxed);
                        let _pushed = reasons.raise_near(&home, 1);
                    }
                    !all_seen(*round)
                });
            done.store(true, Ordering::Relaxed);
            lost
        });
        assert_eq!(lost, None, "the round whose second raise was lost");
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests {
    use loom::thread;

    use super::*;
    use crate::sync::{Arc, AtomicU64};

    /// The home is bound to no thread, so all are far: loom's threads share the thread-local that identifies a home.
    #[test]
    fn far_from_the_engine_no_raise_is_left_out() {
        loom::model(|| {
            let reasons = Arc::new((Reasons::new(), Home::new(), AtomicU64::new(0)));
            let engine = {
                let reasons = Arc::clone(&reasons);
                thread::spawn(move || {
                    let (reasons, _, published) = &*reasons;
                    (reasons.take() != 0).then(|| published.load(Ordering::Relaxed))
                })
            };
            let (word, home, published) = &*reasons;
            for number in [1, 2] {
                published.store(number, Ordering::Relaxed);
                let _pushed = word.raise_near(home, 1);
            }
            let seen = engine.join().unwrap();
            let later = (word.take() != 0).then(|| published.load(Ordering::Relaxed));
            assert_eq!(later.or(seen), Some(2));
        });
    }
}
