//! Permission to open streams, in both directions.
//!
//! The peer grants a number of streams. A handle takes one permission from the link without asking
//! the engine; when none is left its stream waits here, in order, and permissions that come go to
//! those who wait before any go to the link.

use std::time::Instant;

use bytes::Bytes;

use super::connection::Connection;
use super::output::Batch;
use super::registry::Key;
use super::state::{Effect, Event};
use super::stream::{Opening, Stream, wake};
use super::window::report_mark;
use crate::error::{Limit, ProtocolError, SessionError, StreamError};
use crate::frame::{HEADER_LEN, StreamId, cost, put_open};
use crate::link::{EngineSide, Lane, OpenState, RecvEnd, SEND_FLOOR};

/// OPENs for which the queue keeps its memory; what a larger burst took is given back.
const OPENS_KEPT: usize = 1024;

impl Connection {
    /// A handle has opened a stream. `None` if it is refused.
    pub(super) fn register_local(&mut self, side: EngineSide, now: Instant) -> Option<Key> {
        let lane = side.lane();
        // Not the link's reason, which `close` sets at once: what was opened before it is still to be sent.
        if let Some(reason) = self.life.refusal() {
            if lane.open_state() == OpenState::Granted {
                self.link.add_open_credit(1);
            }
            self.outbound.take_back(lane);
            side.refuse(&StreamError::NotProcessed(reason));
            return None;
        }
        let granted = lane.open_state() == OpenState::Granted
            || (self.waiting.is_empty() && self.link.take_open_credit());
        let opening = if granted {
            Opening::Granted
        } else {
            Opening::Waiting
        };
        let (credit, window) = (self.peer.stream_window, self.config.stream_window());
        let grown = lane.send_limit() > SEND_FLOOR;
        let now = self.stamps.of(now);
        let stream = Stream::new(side, None, opening, credit, window, now);
        let key = self.registry.insert(stream);
        if grown {
            self.list_borrower(key);
        }
        self.link.counters.streams.set(self.registry.len() as u64);
        if granted {
            self.grant(key);
        } else {
            self.waiting.push_back(key);
            // Those that were given up while the peer granted nothing.
            self.registry
                .prune(&mut self.waiting, |stream| !stream.state.is_over());
        }
        Some(key)
    }

    fn grant(&mut self, key: Key) -> bool {
        let Some(stream) = self.registry.get_mut(key) else {
            return false;
        };
        if stream.state.is_over() {
            return false;
        }
        stream.opening = Opening::Granted;
        if stream.lane().open_state() == OpenState::Waiting {
            stream.lane().grant();
            Self::notify(&mut self.wakes, key, stream, wake::SENDER);
        }
        self.opens.push_back(key);
        true
    }

    /// Permissions came: to those who wait, the rest to the link.
    pub(super) fn on_streams_granted(&mut self, mut streams: u32) {
        while streams > 0 {
            let Some(key) = self.waiting.pop_front() else {
                return self.link.add_open_credit(streams);
            };
            streams -= u32::from(self.grant(key));
        }
    }

    /// Encodes the OPEN of permitted streams; false if the batch or the session's credit is used up.
    pub(super) fn put_opens(&mut self, batch: &mut Batch) -> bool {
        while let Some(&key) = self.opens.front() {
            let Some(stream) = self.registry.get_mut(key) else {
                self.opens.pop_front();
                continue;
            };
            if stream.state.is_over() {
                // Cancelled before it was sent: the peer never hears of it.
                self.opens.pop_front();
                self.remove_if_done(key);
                continue;
            }
            let block = stream.lane().opening();
            let cost = cost(block.len() as u32);
            let fits = self
                .credit
                .payload()
                .is_some_and(|most| block.len() as u64 <= most);
            if !fits || batch.room() < HEADER_LEN + block.len() {
                self.registry
                    .prune(&mut self.opens, |stream| !stream.state.is_over());
                return false;
            }
            let id = self.next_id;
            batch.head().put_with(HEADER_LEN + block.len(), |dst| {
                put_open(dst, id, block, false);
            });
            batch.copied(HEADER_LEN + block.len());
            self.credit.debit(cost);
            stream.id = Some(id);
            stream.opening = Opening::Done;
            stream.lane().set_id(id.get());
            if stream.owes != 0 {
                self.owing.push_back(key);
            }
            self.schedule.enter(key, stream);
            self.opens.pop_front();
            self.registry.name(key, id);
            self.next_id = self.following_id(id);
            self.link.counters.opened.add(1);
            self.link.counters.frames_sent.add(1);
            self.work += 1;
        }
        self.opens.shrink_to(OPENS_KEPT);
        true
    }

    /// The next id of this side; ids wrap, and those still in use are passed over (RFC 1982).
    fn following_id(&self, id: StreamId) -> StreamId {
        let mut next = id.next();
        while self.registry.find(next).is_some() {
            next = next.next();
        }
        next
    }

    /// The peer opened a stream.
    pub(super) fn on_open(
        &mut self,
        id: StreamId,
        block: &[u8],
        fin: bool,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        if !id.is_opened_by(self.role.peer()) {
            return Err(ProtocolError::WrongParity { id });
        }
        if let Some(last) = self.last_peer_id
            && !id.is_after(last)
        {
            return Err(ProtocolError::IdNotIncreasing { id, last });
        }
        self.retire_wrapped_id(id)?;
        let limit = self.config.max_streams();
        self.peer_streams = self
            .peer_streams
            .checked_sub(1)
            .ok_or(ProtocolError::TooManyStreams { id, limit })?;
        self.last_peer_id = Some(id);
        let cost = cost(block.len() as u32);
        self.receive_on_session(cost)?;
        self.link.counters.accepted.add(1);
        if !self.admits() {
            self.refuse(id, cost);
            return Ok(());
        }
        let (credit, window) = (self.peer.stream_window, self.config.stream_window());
        let (handles, side) = Lane::pair(
            &self.link,
            Bytes::copy_from_slice(block),
            report_mark(u64::from(window)),
        );
        handles.lane().set_id(id.get());
        let now = self.stamps.of(now);
        let mut stream = Stream::new(side, Some(id), Opening::Done, credit, window, now);
        stream.open_charge = cost as u32;
        if fin && stream.state.on(Event::RecvFin) == Effect::Act {
            handles.lane().end_recv(RecvEnd::Finished);
        }
        let key = self.registry.insert(stream);
        if self.link.push_accept(handles).is_err() {
            self.registry.remove(key);
            self.link.counters.trip(Limit::Unaccepted);
            self.count_refused();
            self.refuse(id, cost);
            return Ok(());
        }
        self.link.counters.streams.set(self.registry.len() as u64);
        self.wake_accept = true;
        Ok(())
    }

    /// Turns a stream away that the peer has opened: nobody has seen it.
    fn refuse(&mut self, id: StreamId, cost: u64) {
        self.return_to_session(cost);
        self.refusals.push_back(id);
        self.charge_reset();
    }

    /// Ids come round again after 2^31 streams. If the one that had this id is over on the wire, and
    /// only an application holds it still, the id is free; else the peer should have passed over it.
    fn retire_wrapped_id(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        let Some(key) = self.registry.find(id) else {
            return Ok(());
        };
        let over = (self.registry.get_mut(key)).is_some_and(|stream| stream.state.is_over());
        if !over {
            return Err(ProtocolError::WrongParity { id });
        }
        self.registry.unname(key);
        Ok(())
    }

    /// The peer takes no streams above `last` any more, or none at all from now on (`soon`).
    pub(super) fn on_goaway(&mut self, last: Option<StreamId>, error: SessionError, soon: bool) {
        self.link.refuse_opens(error.clone());
        self.life.peer_goaway(error.clone(), soon);
        self.wake_state = true;
        let lost: Vec<Key> = self
            .registry
            .iter_mut()
            .filter(|(_, stream)| match (stream.id, last) {
                (None, _) => true,
                (Some(_), _) if soon => false,
                (Some(id), Some(last)) => id.is_opened_by(self.role) && id.is_after(last),
                (Some(id), None) => id.is_opened_by(self.role),
            })
            .map(|(key, _)| key)
            .collect();
        for key in lost {
            if let Some(stream) = self.registry.get_mut(key) {
                stream.end_both(&StreamError::NotProcessed(error.clone()));
            }
            self.cancel_stream(key, 0, Event::RecvCancel);
            self.remove_if_done(key);
        }
    }
}
