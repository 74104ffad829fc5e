//! State that every part of a session needs: its streams, its application, its limits; and two lists of streams: those whose
//! tasks are to be woken, and those that owe the peer control frames.

use std::collections::VecDeque;
use std::time::Instant;

use super::calls::Calls;
use super::port::{Count, SessionPort, StreamPort};
use super::state::Receiving;
use super::stream::{Stamp, Stamps, Stream, owed, wake};
use super::streams::{Key, Streams};
use super::terms::Terms;
use super::timers::Timers;
use crate::config::Config;
use crate::error::SessionError;

/// See the module.
#[derive(Debug)]
pub(crate) struct Base<S: SessionPort> {
    pub(crate) app: S,
    pub(crate) config: Config,
    /// The capabilities of the wire.
    pub(crate) terms: Terms,
    pub(crate) streams: Streams<S::Stream>,
    pub(crate) calls: Calls<S::Call>,
    pub(crate) wakes: Wakes,
    pub(crate) owing: Owing,
    /// The wire has frames of its own to send, for which a session that drains does not end.
    pub(crate) wire_owes: bool,
    pub(crate) timers: Timers,
    /// Frames received and sent, counted as short frames.
    pub(crate) work: u64,
    pub(crate) stamps: Stamps,
    /// When the current turn began.
    pub(crate) turn: Instant,
}

impl<S: SessionPort> Base<S> {
    pub(crate) fn new(app: S, config: &Config, terms: Terms, seed: u64, now: Instant) -> Self {
        Self {
            app,
            config: config.clone(),
            terms,
            streams: Streams::new(seed),
            calls: Calls::new(seed),
            wakes: Wakes::default(),
            owing: Owing::default(),
            wire_owes: false,
            timers: Timers::new(now),
            work: 0,
            stamps: Stamps::new(now),
            turn: now,
        }
    }

    #[inline]
    pub(crate) fn stamp(&mut self, now: Instant) -> Stamp {
        self.stamps.of(now)
    }

    /// Streams and calls that are not over on the wire.
    pub(crate) fn count_alive(&mut self) -> u64 {
        self.streams.count_alive() + self.calls.count_alive()
    }

    /// Updates the counter of streams, calls among them.
    pub(crate) fn count_streams(&self) {
        let streams = self.streams.len() + self.calls.len();
        self.app.set(Count::Streams, streams as u64);
    }

    /// Counts `frames` received frames, which are `work` short frames.
    #[inline]
    pub(crate) fn count_received(&mut self, frames: u64, work: u64) {
        self.app.add(Count::FramesReceived, frames);
        self.work += work;
    }

    /// Counts `frames` frames put into the batch.
    #[inline]
    pub(crate) fn count_sent(&mut self, frames: u64) {
        self.work += frames;
        self.app.add(Count::FramesSent, frames);
    }

    /// Handles open no more streams, for this reason.
    pub(crate) fn refuse_opens(&mut self, reason: SessionError) {
        self.app.refuse_opens(reason);
        self.wakes.state = true;
    }

    /// The receiver takes pieces from now on, also those of a message under way; or whole messages again.
    pub(crate) fn switch_chunks(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.chunks = stream.port.takes_chunks();
        if stream.chunks {
            stream.port.publish();
            self.wakes.notify(key, stream, wake::RECEIVER);
        }
    }

    /// The control frames that one stream owes. Those of a stream whose OPEN was not sent follow the OPEN.
    pub(crate) fn next_owed(&mut self) -> Option<Owed> {
        loop {
            let key = self.owing.pop()?;
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            if stream.id == 0 {
                continue;
            }
            let owes = std::mem::take(&mut stream.owes);
            return Some(Owed {
                key,
                id: stream.id,
                cancel: owes & owed::CANCEL != 0,
                stop: owes & owed::STOP != 0,
                fin: owes & owed::FIN != 0,
                window: owes & owed::WINDOW != 0,
                code: stream.owed_code,
            });
        }
    }

    /// Streams and calls with tasks to wake.
    #[inline]
    pub(crate) fn waking(&self) -> usize {
        self.wakes.streams.len() + self.calls.waking()
    }

    /// Wakes the tasks noted since the last call.
    #[inline(always)]
    pub(crate) fn deliver_wakes(&mut self) {
        let waiters = self.wakes.acceptors | self.wakes.state | self.wakes.pings;
        if !self.wakes.streams.is_empty() | self.calls.wakes_due | waiters {
            self.wake_noted();
        }
    }

    #[inline(never)]
    fn wake_noted(&mut self) {
        for key in &self.wakes.streams {
            let Some(stream) = self.streams.get_mut(*key) else {
                continue;
            };
            let bits = std::mem::take(&mut stream.wakes);
            if bits & wake::SENDER != 0 {
                stream.port.wake_sender();
            }
            if bits & wake::RECEIVER != 0 {
                stream.port.wake_receiver();
            }
        }
        self.wakes.streams.clear();
        if self.calls.wakes_due {
            self.calls.deliver_wakes(&mut self.app);
        }
        if self.wakes.acceptors {
            self.wakes.acceptors = false;
            self.app.wake_acceptors();
        }
        if self.wakes.state | self.wakes.pings {
            self.wake_waiting();
        }
    }

    /// Wakes the tasks that wait for the session itself.
    #[cold]
    #[inline(never)]
    fn wake_waiting(&mut self) {
        if std::mem::take(&mut self.wakes.state) {
            self.app.wake_state();
        }
        if std::mem::take(&mut self.wakes.pings) {
            self.app.wake_pings();
        }
    }
}

impl<S: SessionPort> Base<S> {
    /// Whether the peer is to be told that this side takes calls, or does not any more.
    pub(crate) fn take_announcement(&mut self) -> Option<bool> {
        if !std::mem::take(&mut self.calls.announce) {
            return None;
        }
        let takes = self.app.takes_calls();
        let news = takes || self.calls.announced;
        self.calls.announced |= takes;
        news.then_some(takes)
    }

    /// Whether the peer may ever have been told that this side takes calls.
    pub(crate) const fn has_announced_calls(&self) -> bool {
        self.calls.announced
    }
}

/// The control frames that a stream owes the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    pub(crate) key: Key,
    pub(crate) id: u32,
    /// CANCEL: both directions end, with the code; nothing else is owed then.
    pub(crate) cancel: bool,
    /// STOP: the peer is to send no more, with the code.
    pub(crate) stop: bool,
    /// A bare FIN.
    pub(crate) fin: bool,
    /// WINDOW, see [`Flow::give_stream_back`](super::flow::Flow::give_stream_back).
    pub(crate) window: bool,
    pub(crate) code: u32,
}

/// Tasks to be woken after the next I/O submission.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    streams: Vec<Key>,
    pub(crate) acceptors: bool,
    pub(crate) state: bool,
    pub(crate) pings: bool,
}

impl Wakes {
    /// Number of streams with tasks to wake.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Notes tasks of a stream to wake.
    #[inline]
    pub(crate) fn notify<P>(&mut self, key: Key, stream: &mut Stream<P>, bits: u8) {
        if stream.wakes == 0 {
            self.streams.push(key);
        }
        stream.wakes |= bits;
    }

    /// There is room, or an obstacle to a message has gone: wakes a waiting sender, also one that has tried and
    /// whose request the engine has not read yet.
    #[inline]
    pub(crate) fn offer_room<P>(&mut self, key: Key, stream: &mut Stream<P>) {
        if std::mem::take(&mut stream.wants_room) {
            self.notify(key, stream, wake::SENDER);
        } else {
            stream.made_room = true;
        }
    }
}

/// Streams that owe the peer a control frame.
#[derive(Debug, Default)]
pub(crate) struct Owing {
    streams: VecDeque<Key>,
}

impl Owing {
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Notes a control frame that a stream owes the peer.
    pub(crate) fn owe<P>(&mut self, key: Key, stream: &mut Stream<P>, bits: u8) {
        if stream.owes == 0 {
            self.streams.push_back(key);
        }
        stream.owes |= bits;
    }

    /// A stream that owes frames has got its id only now.
    pub(crate) fn push(&mut self, key: Key) {
        self.streams.push_back(key);
    }

    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.streams.pop_front()
    }

    /// A peer that was asked to stop may need credit to reach its FIN.
    pub(crate) fn keep_stopped_stream_moving<P: StreamPort>(
        &mut self,
        key: Key,
        stream: &mut Stream<P>,
    ) {
        let scarce = stream.window.returnable() * 2 >= stream.window.target();
        if stream.state.receiving == Receiving::Stopped && scarce {
            self.owe(key, stream, owed::WINDOW);
        }
    }
}
