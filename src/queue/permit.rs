//! A permission that one side waits for: granted by the other side, or given up by its own.
//!
//! ```text
//!   WAITING ──grant, grant_waiting──► GRANTED        by the engine
//!      └──────give_up───────────────► GIVEN_UP       by the handle
//! ```
//! # Invariant
//! The first of the two ends stays, and each side learns which it is: of `grant_waiting` and `give_up` one returns true. The
//! side that learns of the other's end sees all that the other did before it.
//!
//! # Progress
//! Every operation is **wait-free**: a load, a store, or one compare-exchange that is not repeated.

use crate::sync::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
#[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
const GIVEN_UP: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Permit(AtomicU8);

impl Permit {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(WAITING))
    }

    pub(crate) fn is_granted(&self) -> bool {
        // ORDERING: pairs with `grant` and `grant_waiting`.
        self.0.load(Ordering::Acquire) == GRANTED
    }

    /// Where the side that waits has not begun to, so that it has not given up.
    pub(crate) fn grant(&self) {
        // ORDERING: pairs with `is_granted` and `give_up`.
        self.0.store(GRANTED, Ordering::Release);
    }

    /// False if the other side has given up.
    pub(crate) fn grant_waiting(&self) -> bool {
        self.settle(GRANTED)
    }

    /// Waits no longer; false if it is granted by now.
    #[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
    pub(crate) fn give_up(&self) -> bool {
        self.settle(GIVEN_UP)
    }

    fn settle(&self, end: u8) -> bool {
        // ORDERING: success pairs with `is_granted`, and with the failure of the other of the two.
        let (success, failure) = (Ordering::Release, Ordering::Acquire);
        let settled = self.0.compare_exchange(WAITING, end, success, failure);
        settled.is_ok()
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests;

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_stays() {
        let granted = Permit::new();
        assert!(!granted.is_granted());
        assert!(granted.grant_waiting() && granted.is_granted());
        assert!(!granted.give_up() && granted.is_granted());
        let given_up = Permit::new();
        assert!(given_up.give_up());
        assert!(!given_up.grant_waiting() && !given_up.is_granted());
    }
}
