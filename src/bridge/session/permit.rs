//! The peer's permission of a stream.

use crate::sync::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
#[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
const GIVEN_UP: u8 = 2;

/// Whether the peer permits a stream. One that waits is either permitted or given up: the first of the two stays.
#[derive(Debug)]
pub(crate) struct Permit(AtomicU8);

impl Permit {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(WAITING))
    }

    pub(super) fn is_granted(&self) -> bool {
        // ORDERING: pairs with `grant` and `grant_waiting`.
        self.0.load(Ordering::Acquire) == GRANTED
    }

    /// Of a stream that nothing else knows yet.
    pub(super) fn grant(&self) {
        // ORDERING: pairs with `is_granted`.
        self.0.store(GRANTED, Ordering::Release);
    }

    /// Of a stream that waits; false if the application has given it up, and cancels it.
    pub(crate) fn grant_waiting(&self) -> bool {
        self.settle(GRANTED)
    }

    /// The application wants the stream no more, and cancels it; false if the peer has permitted it by now.
    #[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
    pub(crate) fn give_up(&self) -> bool {
        self.settle(GIVEN_UP)
    }

    fn settle(&self, end: u8) -> bool {
        // ORDERING: pairs with `is_granted`, and with the other of the two.
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let settled = self.0.compare_exchange(WAITING, end, success, failure);
        settled.is_ok()
    }
}
