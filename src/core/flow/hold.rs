//! A session over a wire without credit: how many bytes it may hold, and when reading stops.
//!
//! The peer was promised nothing, so nothing is taken from the pool before it is needed: a session begins with its floor. What
//! it may hold doubles when three quarters are held, up to a limit and half of an equal share of the pool, and halves when
//! less than a quarter is. Where it cannot be raised, reading stops while it is full.
//!
//! A peer that is not read cannot complete its messages, so that time does not count for their least rate: unless the peer
//! sends of other streams only whenever it is read. Otherwise one slow reader would keep the messages of all others in
//! the pool.

use std::time::{Duration, Instant};

use super::{Exceeded, Flow, PIECES_SLACK, check_advances_in_time};
use crate::core::base::Base;
use crate::core::pool::Growth;
use crate::core::port::{Count, Memory, SessionPort};
use crate::core::stream::Assembly;
use crate::core::streams::Key;
use crate::core::timers::Timer;
use crate::error::Limit;

/// A full session looks for memory again after this time.
const AGAIN: Duration = Duration::from_millis(100);

/// What a session may hold, in bytes.
#[derive(Debug)]
pub(super) struct Hold {
    /// Reading stops while it holds as many.
    most: u64,
    /// `most` is at least this, which is not of the pool, and never above `limit`.
    floor: u64,
    limit: u64,
    /// Since when reading has stopped.
    paused: Option<Instant>,
    /// Bytes held of packets that the wire puts together.
    parts: u64,
}

impl Hold {
    pub(super) const fn new(floor: u64, limit: u64) -> Self {
        Self {
            most: floor,
            floor,
            limit,
            paused: None,
            parts: 0,
        }
    }

    /// It holds more than its floor, or may: memory of the pool.
    pub(super) const fn is_raised(&self) -> bool {
        self.most > self.floor
    }

    /// Since when messages wait for reading to go on: those that do.
    pub(super) fn waits<S: SessionPort>(
        &self,
        base: &Base<S>,
    ) -> impl Fn(&Assembly) -> Option<Instant> + use<S> {
        let paused = self.paused;
        let (taken, streams) = taken(base);
        move |assembly| paused.filter(|_| !assembly.turns.is_behind(taken, streams))
    }
}

/// The bytes that the session has received, and its streams.
fn taken<S: SessionPort>(base: &Base<S>) -> (u64, usize) {
    (base.app.get(Count::BytesReceived), base.streams.len())
}

impl<M: Memory> Flow<M> {
    /// The peer bounds each stream itself: the session may hold this much, if the pool has it.
    pub(crate) fn raise_limit(&mut self, limit: u32) {
        self.hold.limit = self.hold.limit.max(limit.into());
    }

    /// The wire holds so many bytes of packets that it puts together: part of what the session holds.
    pub(crate) fn hold_parts<S: SessionPort>(&mut self, base: &Base<S>, bytes: u64) {
        let before = self.hold.parts;
        if bytes < before {
            self.return_to_session(base, before - bytes);
        } else if bytes == before || self.receive(bytes - before).is_err() {
            return;
        }
        self.hold.parts = bytes;
    }

    #[cfg(test)]
    pub(crate) const fn parts(&self) -> u64 {
        self.hold.parts
    }

    /// The session has ended: all of the pool's memory goes back.
    pub(crate) fn end(&mut self) {
        self.pool.end();
        self.hold.most = self.hold.floor;
    }

    const fn is_at_most(&self) -> bool {
        self.window.held() >= self.hold.most
    }

    /// Bytes that the session may hold: in addition to those held, and in all.
    #[inline(never)] // Out of the way of wires with credit.
    pub(super) fn left_to_hold<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        now: Instant,
    ) -> (u64, u64) {
        self.fit(base, now);
        let most = self.hold.most;
        (most.saturating_sub(self.window.held()), most)
    }

    /// Adapts the limit `most` to the bytes held.
    #[inline]
    fn fit<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
        if self.window.held() * 4 >= self.hold.most * 3 {
            self.hold_more(base, now);
        } else {
            self.give_rest_back();
        }
    }

    /// The session holds less than it did.
    #[inline]
    pub(crate) fn give_rest_back(&mut self) {
        if self.hold.is_raised() && self.window.held() * 4 <= self.hold.most {
            self.hold_less();
        }
    }

    #[cold]
    fn hold_more<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
        if !self.hungry {
            // Some of it has been consumed, and was not reported.
            self.account_all(base, now);
        }
        while self.window.held() * 4 >= self.hold.most * 3 {
            let most = self.hold.most;
            let more = (most * 2).min(self.hold.limit);
            let may = more > most && more <= self.pool.window_max();
            if !may || !self.pool.take_to_grow(more - most, Growth::Full) {
                return;
            }
            self.hold.most = more;
            base.app.add(Count::WindowsGrown, 1);
            check_advances_in_time(base, now);
        }
    }

    #[cold]
    fn hold_less(&mut self) {
        while self.hold.is_raised() && self.window.held() * 4 <= self.hold.most {
            let less = (self.hold.most / 2).max(self.hold.floor);
            self.pool.give_window(self.hold.most - less);
            self.hold.most = less;
        }
    }

    /// Whether reading is to go on: not while the session holds as much as it may. `Err`: first a stream is to end, whose
    /// message is not complete, as there is no memory for it and nothing else to wait for.
    pub(crate) fn may_read<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        now: Instant,
    ) -> Result<bool, Exceeded> {
        self.fit(base, now);
        if self.is_at_most() {
            self.cover_unfinished(base, now)?;
        }
        let full = self.is_at_most();
        if full {
            self.hold.paused.get_or_insert(now);
        } else if self.hold.paused.is_some() {
            self.resume(base, now);
        }
        if full && self.hold.most < self.hold.limit {
            base.timers.set_by(Timer::Recheck, now + AGAIN);
        }
        Ok(!full)
    }

    /// Bytes of messages that are not complete, and not charged to the pool: moves their charge to the pool. `Err`: a stream
    /// for which it has no memory, and nothing else to wait for.
    fn cover_unfinished<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        now: Instant,
    ) -> Result<(), Exceeded> {
        let (mut refused, mut left) = (None, 0);
        let mut moved = 0;
        for (key, stream) in base.streams.iter_mut() {
            let Some(assembly) = stream.assembly.as_mut().filter(|_| !stream.chunks) else {
                continue;
            };
            let cost = assembly.cost.min(stream.window.uncovered());
            if cost > 0 && self.pool.take_for_message(cost, assembly.given) {
                assembly.given = true;
                stream.window.cover(cost);
                moved += cost;
            } else if cost > 0 {
                left += cost;
                let value = assembly.received.into();
                refused = refused.or(Some((key, value)));
            }
        }
        if moved > 0 {
            check_advances_in_time(base, now);
            self.return_to_session(base, moved);
        }
        match refused {
            Some((key, value)) if self.window.held() - left < self.hold.most => Err(Exceeded {
                key,
                limit: Limit::MessageMemory,
                value,
            }),
            _ => Ok(()),
        }
    }

    /// Reading goes on: the time in between does not count for the messages that had their turns before.
    fn resume<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
        let waits = self.hold.waits(base);
        self.hold.paused = None;
        for (_, stream) in base.streams.iter_mut() {
            let Some(assembly) = &mut stream.assembly else {
                continue;
            };
            if let Some(from) = waits(assembly) {
                assembly.since = assembly.excused(from, now);
            }
        }
    }

    /// A piece of a message that is not complete has arrived.
    pub(super) fn on_piece<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        key: Key,
        now: Instant,
    ) -> Option<Exceeded> {
        let (taken, streams) = taken(base);
        let assembly = base.streams.get_mut(key)?.assembly.as_mut()?;
        assembly.turns.took(assembly.received, taken, streams);
        let cost = assembly.cost;
        let costly = cost > 2 * u64::from(assembly.received) + PIECES_SLACK;
        if self.hold.is_raised() {
            check_advances_in_time(base, now);
        }
        let (limit, value) = (Limit::MessagePieces, cost);
        costly.then_some(Exceeded { key, limit, value })
    }
}
