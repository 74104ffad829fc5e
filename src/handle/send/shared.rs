//! A sending half that two use in turns, and that either cancels at any time.

use super::SendStream;
use crate::bridge::Lane;
use crate::queue::Turns;
use crate::sync::{Arc, AtomicU32, Ordering};

/// See the module.
pub(crate) struct SharedHalf {
    /// The code of a cancel; 0: none.
    cancelled: AtomicU32,
    /// To cancel without a turn. Before the stream: a lane of which there is no other owner can be used again.
    lane: Arc<Lane>,
    turns: Turns<SendStream>,
}

impl SharedHalf {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self {
            cancelled: AtomicU32::new(0),
            lane: Arc::clone(stream.lane()),
            turns: Turns::new(stream),
        }
    }

    /// One step with the stream; `None` if the other is in the middle of one.
    #[inline(always)]
    pub(crate) fn try_with<R>(&self, step: impl FnOnce(&mut SendStream) -> R) -> Option<R> {
        self.turns.try_with(|stream| {
            // ORDERING: pairs with `cancel`. A cancel during the step is as one behind it.
            if self.cancelled.load(Ordering::Acquire) != 0 {
                stream.was_cancelled();
            }
            step(stream)
        })
    }

    /// Cancels the stream, in both directions; the first code stays.
    pub(crate) fn cancel(&self, code: u32) {
        let (success, failure) = (Ordering::Release, Ordering::Relaxed);
        // ORDERING: pairs with `try_with`: from now on no step finds the stream open.
        let first = self.cancelled.compare_exchange(0, code, success, failure);
        if first.is_ok() {
            self.lane.cancel(code);
        }
    }
}

impl Drop for SharedHalf {
    fn drop(&mut self) {
        // Relaxed: this is the last owner.
        if self.cancelled.load(Ordering::Relaxed) != 0 {
            // Dropping the stream is to leave the code as it is.
            self.turns.get_mut().was_cancelled();
        }
    }
}
