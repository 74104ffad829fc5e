//! Room for a message in the queue, and waiting for it.

use std::task::{Context, Poll};

use super::{SendStream, asked};
use crate::bridge::{Lane, RECORD_CHARGE, SendEnd, reason};
use crate::error::SendError;
use crate::queue::record_weight;

impl SendStream {
    #[inline]
    pub(in crate::handle) fn poll_room(
        &mut self,
        cx: &Context<'_>,
        len: usize,
    ) -> Poll<Result<(), SendError>> {
        if has_room_now(self, len) {
            return self.fair.poll(cx).map(Ok);
        }
        self.wait_for_room(cx, len)
    }

    #[cold]
    fn wait_for_room(&mut self, cx: &Context<'_>, len: usize) -> Poll<Result<(), SendError>> {
        if let Some(ready) = self.room(len) {
            return Poll::Ready(ready);
        }
        self.fair.waits();
        self.register(cx);
        let more = match self.is_held_back(record_weight(RECORD_CHARGE, len, false)) {
            true => reason::MORE,
            false => 0,
        };
        self.lane().raise(reason::ROOM | more);
        self.room(len).map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether a message of this length may be queued; `None`: not yet.
    pub(super) fn room(&mut self, len: usize) -> Option<Result<(), SendError>> {
        let known = self.lane().session().is_established();
        match self.check(len) {
            // Before the handshake the peer's limit is not known yet.
            Err(SendError::TooLong { .. }) if !known => None,
            Err(error) => Some(Err(error)),
            Ok(()) => self.has_room(len).then_some(Ok(())),
        }
    }

    #[inline]
    pub(super) fn has_room(&mut self, len: usize) -> bool {
        let weight = record_weight(RECORD_CHARGE, len, false);
        let limit = u64::from(self.lane().send_limit());
        self.writer.has_room(weight, limit) || self.has_room_by_growing(weight)
    }

    #[cold]
    fn has_room_by_growing(&mut self, weight: u64) -> bool {
        while self.is_held_back(weight) && self.lane().grow_send_limit() {
            let limit = u64::from(self.lane().send_limit());
            if self.writer.has_room(weight, limit) {
                return true;
            }
        }
        false
    }

    /// Whether there would be room if the session's other streams left more of the budget.
    fn is_held_back(&self, weight: u64) -> bool {
        let most = self.lane().session().send_buffer;
        self.lane().send_limit() < most && self.writer.pending_weight() + weight <= u64::from(most)
    }

    /// Requests a higher limit, once between two messages: senders that poll may call it repeatedly.
    pub(super) fn ask_for_more(&mut self, len: usize) {
        if self.is_held_back(record_weight(RECORD_CHARGE, len, false)) && self.asks(asked::MORE) {
            self.lane().raise(reason::MORE);
        }
    }

    /// Whether the request was not yet made since a message was last queued; marks it as made.
    pub(super) fn asks(&mut self, what: u8) -> bool {
        let queued = self.writer.pushed_weight();
        if std::mem::replace(&mut self.asked_at, queued) != queued {
            self.asked = 0;
        }
        let asks = self.asked & what == 0;
        self.asked |= what;
        asks
    }

    pub(in crate::handle) fn check(&self, len: usize) -> Result<(), SendError> {
        self.check_open()?;
        let limit = self.lane().session().peer_max_message();
        if len > limit {
            Err(SendError::TooLong { len, limit })
        } else {
            Ok(())
        }
    }

    pub(super) fn check_open(&self) -> Result<(), SendError> {
        // First: the result must not depend on the engine's progress.
        if self.finished {
            return Err(SendError::Finished);
        }
        end_or_inherited(self.lane()).map_or(Ok(()), Err)
    }
}

/// Whether a message of this length may be queued now. If not, [`SendStream::room`] says why.
#[inline]
pub(super) fn has_room_now(stream: &mut SendStream, len: usize) -> bool {
    let open = !stream.finished && stream.lane().send_end().is_none();
    open && len <= stream.lane().session().peer_max_message() && stream.has_room(len)
}

/// Why the sending direction has ended, if it has.
pub(super) fn end_error(lane: &Lane) -> Option<SendError> {
    lane.send_end().map(|end| match end {
        SendEnd::Stopped { code } => SendError::Stopped { code: *code },
        SendEnd::Error(error) => SendError::Stream(error.clone()),
    })
}

/// As [`end_error`], and see [`Lane::inherited_end`]: to be checked before waiting.
pub(super) fn end_or_inherited(lane: &Lane) -> Option<SendError> {
    end_error(lane).or_else(|| lane.inherited_end().map(SendError::Stream))
}
