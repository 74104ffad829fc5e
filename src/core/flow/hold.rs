//! A session over a wire without credit: how many bytes it may hold, and when reading stops.
//!
//! The peer was promised nothing, so nothing is taken from the pool before it is needed: a session begins with its floor. What
//! it may hold doubles when three quarters are held, up to a limit and half of an equal share of the pool, and halves when
//! less than a quarter is. Where it cannot be raised, reading stops while it is full.

use std::time::{Duration, Instant};

use super::{Exceeded, Flow, check_advances_in_time};
use crate::core::base::Base;
use crate::core::pool::Growth;
use crate::core::port::{Count, Memory, SessionPort};
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
    /// Reading has stopped.
    paused: bool,
    /// Bytes held of packets that the wire puts together.
    parts: u64,
}

impl Hold {
    pub(super) const fn new(floor: u64, limit: u64) -> Self {
        Self {
            most: floor,
            floor,
            limit,
            paused: false,
            parts: 0,
        }
    }

    pub(super) const fn most(&self) -> u64 {
        self.most
    }

    /// It holds more than its floor, or may: memory of the pool.
    const fn is_raised(&self) -> bool {
        self.most > self.floor
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }
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

    const fn is_at_most(&self) -> bool {
        self.window.held() >= self.hold.most
    }

    /// Adapts what the session may hold to what it holds.
    #[inline]
    pub(super) fn fit<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
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
        if self.hold.paused && !full {
            self.resume(base, now);
        }
        self.hold.paused = full;
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

    /// Reading goes on: the time in between was no fault of the peer.
    fn resume<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
        for (_, stream) in base.streams.iter_mut() {
            if let Some(assembly) = &mut stream.assembly {
                assembly.since = now;
            }
        }
    }
}
