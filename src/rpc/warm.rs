//! What is kept of a call in one frame for the next one: memory, and counts of references.

use std::sync::Arc;

use tokio::time::Instant;

use super::answering::Answering;
use super::context::{Context, Peer};
use super::held::{Common, Held};
use super::incoming::{Head, Incoming};
use super::tally::Tally;

/// A call, and what is kept of it for the next one.
#[doc(hidden)]
pub struct Warm {
    pub(super) call: Incoming,
    /// With no other owner, unless the last handler kept it.
    cx: Option<Context>,
    tally: Tally,
}

impl Warm {
    pub(super) fn new(peer: &Arc<Peer>, server: &Arc<Common>) -> Self {
        Self {
            call: idle(peer, server),
            cx: None,
            tally: Tally::default(),
        }
    }

    /// Begins a call here; false if there is no place for it. Places of session and server are kept from one call to the next, until
    /// [`pause`](Self::pause).
    pub(super) fn begin(&mut self, row: usize, since: Instant) -> bool {
        let placed = self.call.held.take_places();
        if placed {
            self.call.held.seen.begin_in_place(row, since);
        }
        placed
    }

    /// Gives the places back and counts the calls: before anything else is done than to run calls here.
    pub(super) fn pause(&mut self) {
        self.call.held.give_back();
        if !self.tally.is_empty() {
            let rows = &self.call.held.server.rows;
            self.tally.settle(rows, None);
            self.tally.flush(rows);
        }
    }

    /// The calls that were over since the last time have ended by now.
    pub(super) fn settle(&mut self, now: Instant) {
        let rows = &self.call.held.server.rows;
        self.tally.settle(rows, Some(now));
    }

    /// The call, to go on elsewhere.
    pub(super) fn take(&mut self) -> Incoming {
        self.call.held.seen.count(&self.call.held.server.rows);
        let idle = idle(&self.call.held.peer, &self.call.held.server);
        std::mem::replace(&mut self.call, idle)
    }

    /// The context of this call.
    pub(super) fn context(&mut self) -> Context {
        let metadata = std::mem::take(&mut self.call.head.metadata);
        let (method, deadline) = (self.call.head.method, self.call.deadline);
        let metadata = match self.cx.take() {
            Some(mut cx) => match cx.renew(method, deadline, metadata) {
                Ok(()) => return cx,
                Err(metadata) => metadata,
            },
            None => metadata,
        };
        Context::of(
            deadline,
            metadata,
            Some((method, Arc::clone(&self.call.held.peer))),
        )
    }

    /// The call is over.
    #[inline]
    pub(super) fn rest(&mut self, cx: Context) {
        self.cx = Some(cx);
        let held = &mut self.call.held;
        held.seen.end_in_place(&held.server.rows, &mut self.tally);
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.pause();
    }
}

fn idle(peer: &Arc<Peer>, server: &Arc<Common>) -> Incoming {
    Incoming {
        recv: None,
        send: Answering::Over,
        message: None,
        head: Head::default(),
        deadline: None,
        was_late: false,
        held: Held::new(peer, server),
    }
}

impl std::fmt::Debug for Warm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warm").finish_non_exhaustive()
    }
}
