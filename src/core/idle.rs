//! Returns the memory of a burst when its stream is idle.
//!
//! The ring to a receiver grows with unconsumed bytes, up to the stream's window, and keeps its size: the next burst finds it
//! warm. A stream whose ring has grown is listed when its application reports consumption. If the ring is empty when it is
//! checked, [`IDLE`] later, it continues in a small segment, and the receiver is woken once without data, to free the large
//! one. Nothing of this happens per message; the list holds a stream once at most.
//!
//! Not returned before the stream ends: the ring from a sender, which only its sender could shrink, and an idle sender does
//! not run (`send_buffer` and `queue::ring` bound it); and growth by less than half a window, which is not
//! reported.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::base::Base;
use super::port::{SessionPort, StreamPort};
use super::stream::{KEPT_BYTES, wake};
use super::streams::{Key, PRUNE_SLACK};
use super::timers::{Timer, Timers};

/// A ring shrinks after its stream has consumed nothing for this long.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

/// Whether a stream or a call has left its memory for reuse since the last check. The kept memory is freed when none has for
/// [`IDLE`], at most twice that.
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

/// Streams whose ring has grown, and when that was noted.
#[derive(Debug, Default)]
pub(crate) struct Grown(VecDeque<(Instant, Key)>);

impl Grown {
    /// To be called when the application has consumed bytes.
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

    /// Shrinks the rings that have been idle for [`IDLE`].
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
