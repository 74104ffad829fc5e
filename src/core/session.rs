//! One session as a value: its streams, its life, and its keepalive. A wire and the bridge drive it.

use std::time::Instant;

use super::keepalive::{Keepalive, Lost};
use super::life::Life;
use super::mux::{Mux, caller};
use super::orphan::Orphan;
use super::ping::Ping;
use super::pool::Share;
use super::port::{Count, RecvEnd, SessionPort};
use super::streams::Key;
use super::terms::Terms;
use super::timers::Timer;
use super::violation::Violation;
use crate::config::Config;
use crate::error::{Limit, SessionError, codes};

pub(crate) mod calls;

/// The action of a driver on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Go on.
    Open,
    /// Nothing is left to send: flush, shut the socket down, close it.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core<S: SessionPort> {
    pub(crate) mux: Mux<S>,
    pub(crate) life: Life,
    pub(crate) keepalive: Keepalive,
    pub(crate) ping: Ping,
    pub(crate) orphan: Orphan,
}

impl<S: SessionPort> Core<S> {
    /// A session, and the size of its initial window. An `is_silent` one sends nothing before the peer has. `seed`
    /// determines the jitter, and is unknown to the peer.
    pub(crate) fn new(
        app: S,
        pool: S::Memory,
        config: &Config,
        terms: Terms,
        (is_silent, seed): (bool, u64),
        now: Instant,
    ) -> (Self, u32) {
        let mut pool = Share::new(pool, config.receive_pool());
        let (wanted, floor) = (config.session_window(), terms.floors.session_window);
        // Without credit the peer is promised nothing, and memory is taken when it is needed.
        let window = match terms.credit && pool.take_to_begin((wanted - floor).into()) {
            true => wanted,
            false => floor,
        };
        let mut mux = Mux::new(app, config, terms, (pool, window), seed, now);
        let timers = &mut mux.base.timers;
        timers.set(Timer::Handshake, now + config.handshake_timeout());
        let keepalive = Keepalive::new(config, seed, terms.ping, now, timers);
        let core = Self {
            mux,
            life: Life::new(is_silent, config.close_linger()),
            keepalive,
            ping: Ping::default(),
            orphan: Orphan::default(),
        };
        (core, window)
    }

    // ---- time -------------------------------------------------------------------------------

    /// Acts on the deadlines that have passed.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        self.mux.base.turn = now;
        for timer in Timer::ALL {
            // An earlier timer may have moved the session on.
            if self.life.timers().contains(timer)
                && let Some(at) = self.mux.base.timers.take_expired(timer, now)
            {
                self.on_timer(timer, at, now);
                self.end_if_tripped();
            }
        }
    }

    /// The timer set for `at` has expired.
    fn on_timer(&mut self, timer: Timer, at: Instant, now: Instant) {
        match timer {
            Timer::Handshake => {
                let timeout = self.mux.base.config.handshake_timeout();
                self.abort(SessionError::HandshakeTimeout(timeout));
            }
            Timer::FirstCall => {
                if let Some(limit) = self.mux.base.config.drpc().first_call {
                    self.abort(SessionError::HandshakeTimeout(limit));
                }
            }
            Timer::HelloGrace | Timer::Ceiling => {
                // A `close` that could not flush is not a failed drain.
                if !self.life.waits_for_queues() {
                    self.mux.base.app.add(Count::ShutdownForced, 1);
                }
                self.end(SessionError::Closed);
            }
            Timer::Pong => {
                let action = self.life.pong_overdue();
                self.act(action);
            }
            Timer::FinalGoaway => self.abort(SessionError::Closed),
            Timer::Age => self.drain(self.mux.base.config.drain_timeout(), now),
            Timer::Recheck => self.mux.recheck_memory(now),
            Timer::Advances => self.mux.check_advances(now),
            Timer::Keepalive => self.check_keepalive(at, now),
            Timer::Shrink => self.mux.grown.shrink(&mut self.mux.base, now),
            Timer::Spares => self.mux.spares.give_back(&mut self.mux.base, now),
            Timer::Deadlines => {
                let mux = &mut self.mux;
                while let Some(key) = mux.deadlines.take_expired(&mut mux.base, now) {
                    mux.cancel(key, codes::DEADLINE);
                }
                mux.deadlines.set_timer(&mut mux.base);
            }
            Timer::Calls => caller::cancel_late_calls(&mut self.mux, now),
            Timer::Orphan => {
                let (established, left) = self.seen();
                if (self.orphan).is_stuck(&mut self.mux, established, left, now) {
                    self.close(now);
                }
            }
        }
    }

    fn check_keepalive(&mut self, at: Instant, now: Instant) {
        let base = &mut self.mux.base;
        match self.keepalive.check(base, &mut self.ping, at, now) {
            None => {}
            Some(Lost::Closed) => self.eof(),
            Some(Lost::Stuck(timeout)) => {
                base.app.add(Count::WriteTimeouts, 1);
                self.abort(SessionError::WriteTimeout(timeout));
            }
            Some(Lost::Silent { timeout, takes }) => {
                base.app.add(Count::KeepaliveTimeouts, 1);
                let error = SessionError::KeepaliveTimeout(timeout);
                if takes {
                    self.end(error);
                } else {
                    self.abort(error);
                }
            }
        }
    }

    /// The bytes whose movement counts as progress of an orphaned session.
    const fn seen(&self) -> (bool, u64) {
        (self.life.is_established(), self.keepalive.seen_to_leave())
    }

    // ---- requests of the application --------------------------------------------------------

    /// A turn begins. False if the session has ended.
    #[inline]
    pub(crate) fn begin_turn(&mut self, now: Instant) -> bool {
        self.mux.base.turn = now;
        self.mux.budget.begin_turn();
        !self.life.is_closed()
    }

    /// All requests of the turn are registered.
    #[inline]
    pub(crate) fn end_turn(&mut self, now: Instant) {
        self.mux.budget.serve_waiting(&mut self.mux.base);
        self.close_if_unused(now);
        self.end_if_tripped();
        self.mux.base.app.add(Count::Turns, 1);
    }

    /// The last `Session` has gone.
    pub(crate) fn on_orphaned(&mut self, now: Instant) {
        let (established, left) = self.seen();
        self.orphan.look(&mut self.mux, established, left, now);
        self.refuse_all_unaccepted();
    }

    #[inline]
    fn close_if_unused(&mut self, now: Instant) {
        if self.orphan.is_unused(&self.mux) {
            self.close(now);
        }
    }

    /// Another connection needs the place of this one, whose handshake is not complete.
    pub(crate) fn trip_half_open(&mut self) {
        if self.life.is_in_hello() {
            // Its socket takes a place too: it does not wait for a silent peer.
            self.life.close_socket_by(self.mux.base.turn);
            let max = self.mux.base.config.max_half_open();
            self.mux.limits.trip(Limit::HalfOpen, max.into());
            self.end_if_tripped();
        }
    }

    // ---- actions of the peer ----------------------------------------------------------------

    /// Bytes arrived. False if received frames have no effect any more.
    #[inline]
    pub(crate) fn begin_reception(&mut self, now: Instant) -> bool {
        self.mux.base.turn = now;
        if self.life.is_ending() {
            return false;
        }
        self.keepalive.hear(now);
        true
    }

    /// All frames were taken; `inside`: the reception ended inside a frame.
    #[inline(always)] // Several wires call it, each in one place: 90 instructions of a round trip.
    pub(crate) fn end_reception(&mut self, inside: bool, now: Instant) {
        // Any frames, also those of ended streams, have shrunk the session's window.
        self.mux.watch_window(now);
        if inside {
            (self.keepalive).stop_inside(now, &mut self.mux.base.timers);
        }
        self.end_if_tripped();
    }

    /// The peer's first bytes arrived.
    pub(crate) fn greeted(&mut self) {
        let action = self.life.preface();
        self.act(action);
    }

    /// The handshake is complete. The peer accepts messages up to `max_message` bytes, and `streams` more streams than the floor.
    pub(crate) fn established(&mut self, max_message: u32, streams: u32) {
        let action = self.life.settings();
        self.act(action);
        let Mux { base, permits, .. } = &mut self.mux;
        permits.on_granted(base, streams);
        base.app.establish(max_message);
        base.wakes.state = true;
        for (key, stream) in base.streams.iter_mut() {
            // Its message may be longer than the peer had to accept before it sent its limits.
            base.wakes.offer_room(key, stream);
        }
        if base.terms.ping {
            // The first round trip determines how fast windows may grow.
            self.ping.ask_next();
        }
        self.mux.schedule.enter_all(&mut self.mux.base.streams);
    }

    /// The peer opens a stream, whose OPEN has this cost.
    pub(crate) fn open_by_peer(
        &mut self,
        id: u32,
        block: &[u8],
        fin: bool,
        cost: u64,
        now: Instant,
    ) -> Result<(), Violation> {
        self.mux.flow.receive(cost)?;
        self.mux.base.app.add(Count::Accepted, 1);
        let admits = self.life.admits() && !self.orphan.is_orphaned();
        self.life.count_streams(1);
        if admits && self.mux.insert_of_peer(id, block, fin, cost, now) {
            return Ok(());
        }
        if !admits {
            self.mux.refuse(id, cost);
        }
        self.count_refused();
        Ok(())
    }

    /// The peer ends a stream, in both directions, with this code.
    pub(crate) fn cancel_by_peer(&mut self, key: Key, code: u32) {
        let error = self.life.reason.cancelled_as(code);
        let end = RecvEnd::Discard(error);
        self.mux.cancelled_by_peer(key, code, end);
    }

    /// The peer accepts no new streams: those that `lost` selects (by their id, and whether the peer opened them) were not
    /// processed. With `soon` the last id is not known yet.
    pub(crate) fn goaway_by_peer(
        &mut self,
        error: SessionError,
        soon: bool,
        mut lost: impl FnMut(Option<u32>, bool) -> bool,
    ) {
        self.mux.base.refuse_opens(error.clone());
        self.life.reason.peer_goaway(error.clone(), soon);
        caller::lose_calls(&mut self.mux, &error, |id| lost(id, false));
        self.mux.lose(&error, lost);
        self.mux.limits.charge_goaway(self.mux.base.turn);
    }

    /// An answer to the PING with this number arrived. False if none was expected.
    pub(crate) fn pong_by_peer(&mut self, number: u64, now: Instant) -> bool {
        if !self.ping.is_expected(number) {
            return false;
        }
        let action = self.life.pong(number);
        self.act(action);
        // Of an earlier one: the answer to the last one follows, and serves all callers.
        if let Some(rtt) = self.ping.answer(number, now) {
            let base = &mut self.mux.base;
            base.app
                .record_pong(u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX));
            base.wakes.pings = true;
        }
        true
    }

    // ---- sending ----------------------------------------------------------------------------

    /// Whether there may be frames other than openings and messages. For a lone message two calls find nothing at all to send
    /// for each call that sends: this check keeps them cheap.
    #[inline]
    pub(crate) fn has_more_than_messages(&self) -> bool {
        !self.life.is_open()
            || self.orphan.is_orphaned()
            || self.ping.is_wanted()
            || self.mux.has_more_than_messages()
    }

    /// An application's message is about to be sent, see [`Keepalive::probe_before_use`].
    #[inline]
    pub(crate) fn probe_before_use(&mut self, now: Instant) {
        if self.life.is_established() && self.mux.base.terms.ping {
            let (base, ping) = (&mut self.mux.base, &mut self.ping);
            self.keepalive.probe_before_use(base, ping, now);
        }
    }

    /// Begins a batch. True if streams and session may send, false if only the final GOAWAY is left.
    pub(crate) fn begin_batch(&mut self, now: Instant) -> bool {
        let Mux { base, receipts, .. } = &mut self.mux;
        if !receipts.is_empty() {
            receipts.answer(base);
        }
        if self.life.is_closing() {
            if !self.mux.base.terms.goaway {
                self.said();
            }
            return false;
        }
        if !self.mux.base.terms.goaway {
            // The wire has no GOAWAY for a drain: no stream is accepted any more, at once.
            while self.next_goaway(now).is_some() {
                let action = self.life.pong_overdue();
                self.act(action);
            }
        }
        if self.mux.wants_to_send() {
            self.probe_before_use(now);
        }
        true
    }

    /// The number of the PING to send now.
    pub(crate) fn next_ping(&mut self, now: Instant) -> Option<u64> {
        if !self.life.is_established() {
            return None;
        }
        self.ping.take(now)
    }

    /// All frames that streams and session may send are in the batch: moves on if none is left.
    pub(crate) fn end_messages(&mut self, now: Instant) {
        self.close_if_unused(now);
        self.mux.budget.serve_waiting(&mut self.mux.base);
        self.end_if_emptied(now);
        self.end_if_tripped();
        if !self.mux.base.terms.goaway && self.life.is_closing() {
            self.said();
        }
    }

    /// The batch, of this many bytes, is offered to the socket.
    pub(crate) fn end_batch(&mut self, bytes: usize, now: Instant) {
        let base = &mut self.mux.base;
        base.app.add(Count::Batches, 1);
        base.app.add(Count::BytesSent, bytes as u64);
        self.keepalive.offer(now, &mut base.timers);
    }
}
