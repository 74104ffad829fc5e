//! Memory that a burst took, given back when its stream is idle.
//!
//! The ring to a receiver grows with what is not consumed, up to the stream's window, and keeps its size: the next burst
//! finds it warm. A stream whose ring has grown is listed when its application reports what it consumed. If nothing is in
//! the ring when it is looked at, [`IDLE`] later, the ring goes on in a small segment, and the receiver is woken once for
//! nothing, which frees the big one. Nothing of this happens per message; the list holds a stream once at most.
//!
//! What is not given back before the stream ends: the ring from a sender, which only its sender could shrink, and that runs
//! nowhere while it is idle (`send_buffer` and `queue::ring` bound it); and what less than half a window took, which is not
//! reported.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::base::Base;
use super::port::{SessionPort, StreamPort};
use super::stream::wake;
use super::streams::{Key, PRUNE_SLACK};
use super::timers::{Timer, Timers};

/// A ring up to this size is kept, in bytes.
pub(crate) const KEPT_BYTES: u64 = 4 * 1024;
/// How long a stream consumes nothing before its ring shrinks.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

/// Whether a stream has gone, and left its memory, since that kept for streams to come was looked at last. It goes when
/// for [`IDLE`], and twice that at most, none has.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    used: bool,
}

impl Spares {
    #[inline]
    pub(crate) fn kept(&mut self, timers: &mut Timers, now: Instant) {
        self.used = true;
        if !timers.is_set(Timer::Spares) {
            timers.set(Timer::Spares, now + IDLE);
        }
    }

    pub(crate) fn give_back<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
        if std::mem::take(&mut self.used) {
            base.timers.set(Timer::Spares, now + IDLE);
        } else {
            base.app.drop_spares();
        }
    }
}

/// Streams whose ring has grown, and since when.
#[derive(Debug, Default)]
pub(crate) struct Grown(VecDeque<(Instant, Key)>);

impl Grown {
    /// To be called when the application has consumed something.
    pub(crate) fn watch<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key, now: Instant) {
        if let Some(stream) = base.streams.get_mut(key)
            && !stream.listed_grown
            && stream.port.buffer_bytes() > KEPT_BYTES
        {
            stream.listed_grown = true;
            self.0.push_back((now, key));
            base.timers.set_by(Timer::Shrink, now + IDLE);
            if self.0.len() > 2 * base.streams.len() + PRUNE_SLACK {
                let streams = &mut base.streams;
                self.0.retain(|(_, key)| streams.get_mut(*key).is_some());
            }
        }
    }

    /// Shrinks the rings that have been idle for long.
    pub(crate) fn shrink<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
        while let Some((since, key)) = self.0.front().copied() {
            if since + IDLE > now {
                return base.timers.set(Timer::Shrink, since + IDLE);
            }
            self.0.pop_front();
            let stamp = base.stamp(now);
            let Some(stream) = base.streams.get_mut(key) else {
                continue;
            };
            stream.listed_grown = false;
            let idle = stamp.since(stream.last_progress) >= IDLE;
            if idle && stream.port.shrink_if_idle() {
                base.wakes.notify(key, stream, wake::RECEIVER);
            } else {
                self.watch(base, key, now);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
