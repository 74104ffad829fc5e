//! Permission to open streams, in both directions.
//!
//! The peer grants a number of streams. A handle takes one permission from the link without the engine; when none
//! is left its stream waits here, in order, and new permissions go to waiting streams before any go to
//! the link.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::base::Base;
use super::port::{SessionPort, StreamPort};
use super::stream::{Opening, wake};
use super::streams::Key;
use super::violation::Violation;

/// Openings for which the queue keeps its memory; the memory of larger bursts is freed.
const OPENS_KEPT: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Streams opened by handles, not yet permitted by the peer.
    pub(crate) waiting: VecDeque<Key>,
    /// Streams permitted, whose OPEN is not sent yet.
    pub(crate) opens: VecDeque<Key>,
    /// Streams that the peer may still open.
    pub(crate) peer_streams: u32,
    /// Streams to grant to the peer again.
    pub(crate) grant_owed: u32,
    /// Ids of the peer's streams that are refused.
    pub(crate) refusals: VecDeque<u32>,
}

impl Permits {
    pub(crate) const fn new(peer_streams: u32) -> Self {
        Self {
            waiting: VecDeque::new(),
            opens: VecDeque::new(),
            peer_streams,
            grant_owed: 0,
            refusals: VecDeque::new(),
        }
    }

    // ---- streams of this side ---------------------------------------------------------------

    /// A stream of this side that has taken a permission a moment ago, or waits for one.
    pub(crate) fn enter<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key, granted: bool) {
        if granted {
            // One that is given up at this moment returns its permission when it is forgotten.
            self.grant(base, key);
        } else {
            self.waiting.push_back(key);
            // Streams that were given up while the peer granted nothing.
            (base.streams).prune(&mut self.waiting, |stream| !stream.state.is_over());
        }
    }

    /// False if the stream needs no permission any more.
    fn grant<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) -> bool {
        let Some(stream) = base.streams.get_mut(key) else {
            return false;
        };
        if stream.state.is_over() {
            return false;
        }
        if !stream.port.is_granted() {
            if !stream.port.grant() {
                return false;
            }
            base.wakes.notify(key, stream, wake::SENDER);
        }
        stream.opening = Opening::Granted;
        self.opens.push_back(key);
        true
    }

    /// Permissions arrived: for the waiting streams, the rest for the handles.
    pub(crate) fn on_granted<S: SessionPort>(&mut self, base: &mut Base<S>, mut streams: u32) {
        while streams > 0 {
            let Some(key) = self.waiting.pop_front() else {
                return base.app.add_open_credit(streams);
            };
            streams -= u32::from(self.grant(base, key));
        }
    }

    /// The first stream to be opened; some may have been given up meanwhile, see [`drop_front`](Self::drop_front).
    #[inline]
    pub(crate) fn front(&self) -> Option<Key> {
        self.opens.front().copied()
    }

    /// The front was opened, or will not be.
    pub(crate) fn drop_front(&mut self) {
        self.opens.pop_front();
        if self.opens.is_empty() && self.opens.capacity() > OPENS_KEPT {
            self.shrink();
        }
    }

    #[cold]
    #[inline(never)]
    fn shrink(&mut self) {
        self.opens.shrink_to(OPENS_KEPT);
    }

    /// Openings wait for credit or room.
    pub(crate) fn hold<S: SessionPort>(&mut self, base: &mut Base<S>) {
        (base.streams).prune(&mut self.opens, |stream| !stream.state.is_over());
    }

    /// The peer grants this many more streams.
    pub(crate) fn add<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        streams: u32,
    ) -> Result<(), Violation> {
        let entries = base.streams.len() + base.calls.len();
        let in_use = entries as u64 + u64::from(base.app.open_credit());
        if in_use + u64::from(streams) > u64::from(u32::MAX) {
            return Err(Violation::CreditOverflow { credit: streams });
        }
        self.on_granted(base, streams);
        Ok(())
    }

    // ---- streams of the peer ----------------------------------------------------------------

    /// The peer opens one more.
    pub(crate) fn take(&mut self, limit: u32) -> Result<(), Violation> {
        let left = self.peer_streams.checked_sub(1);
        self.peer_streams = left.ok_or(Violation::TooManyStreams { limit })?;
        Ok(())
    }

    /// Permissions of ended streams are granted again, several at a time unless the peer has few left.
    pub(crate) const fn owes_grants(&self, max_streams: u32) -> bool {
        let few = max_streams / 4;
        self.grant_owed > 0 && (self.grant_owed >= few || self.peer_streams < few)
    }

    /// The grant that is owed now.
    pub(crate) fn take_grant(&mut self, max_streams: u32) -> Option<NonZeroU32> {
        if !self.owes_grants(max_streams) {
            return None;
        }
        let streams = std::mem::take(&mut self.grant_owed);
        self.peer_streams += streams;
        NonZeroU32::new(streams)
    }

    /// The id of a refused stream; the peer gets its permission back.
    pub(crate) fn next_refusal(&mut self) -> Option<u32> {
        let id = self.refusals.pop_front()?;
        self.grant_owed += 1;
        Some(id)
    }

    /// A stream is gone, and with it its permission.
    pub(crate) fn forget<S: SessionPort>(&mut self, base: &mut Base<S>, id: u32, opening: Opening) {
        match opening {
            Opening::Received => self.grant_owed += 1,
            Opening::Granted if id == 0 => self.on_granted(base, 1),
            _ => {}
        }
    }
}
