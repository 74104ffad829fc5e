//! A sending half that two use in turns, and that either cancels at any time.

use super::SendStream;
use super::room::has_room_now;
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
                close(stream);
            }
            step(stream)
        })
    }

    /// Queues a copy of a message if there is room now. False: nothing has changed, and a step is to wait or fails. The caller gives
    /// other tasks their turns.
    #[inline]
    pub(crate) fn push_at_once(&self, message: &[u8]) -> bool {
        let pushed = self.try_with(|stream| {
            let has_room = has_room_now(stream, message.len());
            if has_room {
                stream.push_slice(message);
                stream.flush();
            }
            has_room
        });
        pushed == Some(true)
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
            close(self.turns.get_mut());
        }
    }
}

/// Nothing more is sent, as after a cancel.
const fn close(stream: &mut SendStream) {
    stream.finished = true;
    stream.asked = 0;
}
