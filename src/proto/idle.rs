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

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::registry::{Key, PRUNE_SLACK};
use super::stream::wake;
use super::timers::{Timer, Timers};

/// A ring up to this size is kept, in bytes.
pub(super) const KEPT_BYTES: u64 = 4 * 1024;
/// How long a stream consumes nothing before its ring shrinks.
pub(super) const IDLE: Duration = Duration::from_secs(10);

/// Whether a stream has gone, and left its lane, since the lanes kept for streams to come were looked at last. They go when
/// for [`IDLE`], and twice that at most, none has.
#[derive(Debug, Default)]
pub(super) struct Spares {
    used: bool,
}

impl Spares {
    #[inline]
    pub(super) fn kept(&mut self, timers: &mut Timers, now: Instant) {
        self.used = true;
        if !timers.is_set(Timer::Spares) {
            timers.set(Timer::Spares, now + IDLE);
        }
    }
}

impl Connection {
    /// To be called when the application has consumed something.
    pub(super) fn watch_ring(&mut self, key: Key, now: Instant) {
        if let Some(stream) = self.registry.get_mut(key)
            && !stream.listed_grown
            && stream.rx.segment_bytes() > KEPT_BYTES
        {
            stream.listed_grown = true;
            self.grown.push_back((now, key));
            self.timers.set_by(Timer::Shrink, now + IDLE);
            if self.grown.len() > 2 * self.registry.len() + PRUNE_SLACK {
                let registry = &mut self.registry;
                self.grown
                    .retain(|(_, key)| registry.get_mut(*key).is_some());
            }
        }
    }

    pub(super) fn shrink_idle(&mut self, now: Instant) {
        while let Some((since, key)) = self.grown.front().copied() {
            if since + IDLE > now {
                return self.timers.set(Timer::Shrink, since + IDLE);
            }
            self.grown.pop_front();
            let Some(stream) = self.registry.get_mut(key) else {
                continue;
            };
            stream.listed_grown = false;
            let idle = self.stamps.of(now).since(stream.last_progress) >= IDLE;
            if idle && stream.rx.shrink_if_idle() {
                Self::notify(&mut self.wakes, key, stream, wake::RECEIVER);
            } else {
                self.watch_ring(key, now);
            }
        }
    }

    pub(super) fn give_spares_back(&mut self, now: Instant) {
        if std::mem::take(&mut self.spares.used) {
            self.timers.set(Timer::Spares, now + IDLE);
        } else {
            self.link.drop_spares();
        }
    }
}
