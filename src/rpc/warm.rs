//! What is kept of a call in one frame for the next one: memory, and counts of references.

use std::sync::Arc;

use super::answering::Answering;
use super::context::{Context, Peer};
use super::held::{Common, Held};
use super::incoming::{Head, Incoming};

/// A call, and what is kept of it for the next one.
#[doc(hidden)]
pub struct Warm {
    pub(super) call: Incoming,
    /// With no other owner, unless the last handler kept it.
    cx: Option<Context>,
}

impl Warm {
    pub(super) fn new(peer: &Arc<Peer>, server: &Arc<Common>) -> Self {
        Self {
            call: idle(peer, server),
            cx: None,
        }
    }

    /// The call, to go on elsewhere.
    pub(super) fn take(&mut self) -> Incoming {
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
    pub(super) fn rest(&mut self, cx: Context) {
        self.cx = Some(cx);
        self.call.held.over();
        self.call.send = Answering::Over;
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
