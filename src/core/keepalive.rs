//! Whether the peer is still there, and whether the socket still takes bytes.
//!
//! ```text
//!   heard ──idle──► PING ──timeout──► the peer is lost          any byte is life; first use after silence asks at once
//!   offered ──────write_timeout─────► the connection is stuck   any byte taken, left or received is progress
//! ```
//! What happens often only stores a time. *One* timer says when to look at it, and it is moved when it has passed: a
//! session under load sets its timer every few seconds, not at every turn.
//!
//! # Slow is not dead
//! On a slow connection the PING and its answer wait behind what was queued before them, and a socket that is full takes
//! nothing for long. So before a timer ends the session, and [`LOOKS`] times meanwhile, the driver says how much the socket
//! still holds. If less of what it was given is there, the peer's system is taking it: the socket is not stuck, and a peer
//! that the PING has not reached cannot have answered. (Once it has, its application is what is asked for.) That bytes left
//! is seen up to a look late, so what dies in the middle of a transfer is known up to a [`LOOKS`]th of the timeout later.
//!
//! Behind a proxy bytes lie where neither system can see them. There the one who receives helps: if what comes ends
//! inside a frame, again and again, and nothing was said for half of the timeout, it says a PING, which is life for the
//! sender, whatever becomes of the answer.

use std::time::{Duration, Instant};

use super::base::Base;
use super::ping::Ping;
use super::port::{Count, SessionPort};
use super::timers::{Timer, Timers};
use crate::config::Config;

/// A deadline noticed later than this means that this side was stopped: what happened meanwhile is still to be read.
const LATE: Duration = Duration::from_secs(1);
/// The idle time is shortened by up to one part in so many, so that many sessions do not ask at once.
const IDLE_JITTER: u32 = 10;
/// So many bytes in the socket are no backlog: PINGs and their answers.
const FEW: u64 = 4096;
/// Looks at the socket while a timer runs.
const LOOKS: u32 = 4;
/// A session that is used after a silence of one part in so many of the idle time asks for a sign of life first.
const PROBE_PART: u32 = 3;

/// What is known of the peer's signs of life; see the module.
#[derive(Debug)]
pub(crate) struct Keepalive {
    /// When bytes came last.
    heard: Instant,
    /// After how much silence the peer is asked next. `None`: never.
    idle: Option<Duration>,
    /// After how much silence it is asked by the next use.
    probe_after: Duration,
    /// Before that no use asks: moved on when it has passed, as the peer was heard meanwhile.
    probe_from: Instant,
    /// When the peer was asked, if it has not been heard since.
    asked: Option<Instant>,
    /// The end of the PING that it was asked by, in bytes since the start; not known before the PING is encoded.
    ping_end: u64,
    /// Since when the socket has taken nothing of what it was offered.
    unwritten: Option<Instant>,
    /// When something was said last.
    said: Instant,
    /// What came last ended inside a frame.
    inside: bool,
    /// Bytes that the socket has taken.
    taken: u64,
    /// Of them, those that had left for the peer when that was looked at, and those that had not.
    left: u64,
    queued: u64,
    /// When bytes were seen to have left; the same of bytes before the PING.
    left_at: Instant,
    before_ping_at: Instant,
    /// The driver sees what the socket holds.
    sees: bool,
    /// How often it looks.
    look_every: Duration,
    /// When to look first at bytes that the socket was offered. Where the driver sees nothing: when time is up.
    first_look: Duration,
    /// A receiver of a slow frame that was silent for so long says something.
    sign_after: Duration,
    /// Being late was forgiven since the last sign of life.
    forgiven: bool,
    /// The wire has a way to ask.
    asks: bool,
    seed: u64,
}

impl Keepalive {
    /// Sets the timers of keepalive and age, which differ a little from session to session. Without a `ping` the peer is
    /// never asked.
    pub(crate) fn new(
        config: &Config,
        seed: u64,
        ping: bool,
        now: Instant,
        timers: &mut Timers,
    ) -> Self {
        let mut this = Self {
            heard: now,
            idle: None,
            probe_after: Duration::MAX,
            probe_from: now,
            asked: None,
            ping_end: 0,
            unwritten: None,
            said: now,
            inside: false,
            taken: 0,
            left: 0,
            queued: 0,
            left_at: now,
            before_ping_at: now,
            sees: false,
            look_every: config.keepalive_timeout().min(config.write_timeout()) / LOOKS,
            first_look: config.keepalive_timeout().min(config.write_timeout()) / LOOKS,
            sign_after: config.keepalive_timeout() / 2,
            forgiven: false,
            asks: ping,
            seed,
        };
        this.draw_idle(config);
        // From nine to eleven tenths of it.
        let part = 0.9 + 0.2 * this.draw_part();
        if let Some(age) = config.max_age() {
            timers.set(Timer::Age, now + age.mul_f64(part));
        }
        if let Some(idle) = this.idle {
            timers.set(Timer::Keepalive, now + idle);
        }
        this
    }

    /// Bytes came.
    #[inline]
    pub(crate) const fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.inside = false;
    }

    /// What came ended inside a frame.
    #[inline]
    pub(crate) fn stop_inside(&mut self, now: Instant, timers: &mut Timers) {
        self.inside = true;
        timers.set_by(Timer::Keepalive, now + self.sign_after);
    }

    /// The socket is offered bytes, from now on.
    #[inline]
    pub(crate) fn offer(&mut self, now: Instant, timers: &mut Timers) {
        self.unwritten = Some(now);
        self.said = now;
        timers.set_by(Timer::Keepalive, now + self.first_look);
    }

    /// The PING that asks the peer ends after so many bytes of the batch that is being built.
    pub(crate) const fn place_ping(&mut self, bytes: usize) {
        self.ping_end = self.taken + bytes as u64;
    }

    /// How much of what is queued in the socket was seen to leave it; of a few frames nothing is said.
    pub(crate) const fn seen_to_leave(&self) -> u64 {
        if self.queued > FEW { self.left } else { 0 }
    }

    /// Since when neither the socket has taken anything, nor anything has left it or come from it.
    fn stuck_since(&self) -> Option<Instant> {
        let since = self.unwritten?;
        Some(since.max(self.left_at).max(self.heard))
    }

    fn see(&mut self, queued: u64, now: Instant) {
        self.sees = true;
        let left = self.taken.saturating_sub(queued);
        if left > self.left {
            self.left_at = now;
            if self.queued > 0 && self.left < self.ping_end {
                self.before_ping_at = now;
            }
        }
        (self.left, self.queued) = (left, queued);
    }

    /// Whether the peer, which sends something that takes long to come, has not heard of this side for long.
    fn owes_sign(&self, now: Instant) -> bool {
        self.inside && self.heard > self.said && now - self.said >= self.sign_after
    }

    /// From 0 to 1.
    fn draw_part(&mut self) -> f64 {
        // splitmix64
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let drawn = ((z ^ (z >> 31)) >> 32) as u32;
        f64::from(drawn) / f64::from(u32::MAX)
    }

    fn draw_idle(&mut self, config: &Config) {
        let part = self.draw_part();
        self.idle = config
            .keepalive_idle()
            .filter(|_| self.asks)
            .map(|idle| idle - (idle / IDLE_JITTER).mul_f64(part));
        self.probe_after = self.idle.map_or(Duration::MAX, |idle| idle / PROBE_PART);
    }
}

/// The peer is taken to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Lost {
    /// The socket took nothing for so long: the final GOAWAY could not leave either.
    Stuck(Duration),
    /// The peer gave no sign of life for so long. It may be this direction only that works, if the socket takes something.
    Silent { timeout: Duration, takes: bool },
}

impl Keepalive {
    /// The socket took so many bytes of the batch; `rest` are left of it.
    #[inline]
    pub(crate) fn written(&mut self, bytes: usize, rest: bool, now: Instant) {
        self.unwritten = rest.then_some(now);
        self.taken += bytes as u64;
    }

    /// So many bytes that the socket has taken are still there, if that is known.
    pub(crate) fn see_socket(&mut self, queued: Option<u64>, config: &Config, now: Instant) {
        match queued {
            Some(queued) => self.see(queued, now),
            None => self.first_look = config.write_timeout(),
        }
    }

    /// It was to be looked at `at`.
    pub(crate) fn check<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        ping: &mut Ping,
        at: Instant,
        now: Instant,
    ) -> Option<Lost> {
        // Once only: else a machine that is always late would never notice a dead peer.
        let forgive = now - at > LATE && !self.forgiven;
        let write_timeout = base.config.write_timeout();
        if let Some(since) = self.stuck_since()
            && now - since >= write_timeout
        {
            if !forgive {
                return Some(Lost::Stuck(write_timeout));
            }
            self.forgiven = true;
            self.unwritten = Some(now);
        }
        let quiet_until = match (self.idle, self.asked) {
            (None, _) => None,
            (Some(idle), None) => self.ask_if_silent(base, ping, idle, now),
            (Some(idle), Some(asked)) if self.heard >= asked => {
                self.asked = None;
                self.forgiven = false;
                self.ask_if_silent(base, ping, idle, now)
            }
            (Some(_), Some(asked)) => {
                let timeout = base.config.keepalive_timeout();
                let since = asked.max(self.before_ping_at);
                if now - since < timeout {
                    Some(since + timeout)
                } else if forgive {
                    self.forgiven = true;
                    self.asked = Some(now);
                    Some(now + timeout)
                } else {
                    let takes = self.unwritten.is_none();
                    return Some(Lost::Silent { timeout, takes });
                }
            }
        };
        let owes_sign = self.owes_sign(now);
        if owes_sign {
            ping.ask_again();
        }
        if let Some(at) = self.look_at(quiet_until, owes_sign, write_timeout, now) {
            base.timers.set(Timer::Keepalive, at);
        }
        None
    }

    /// When to look again.
    fn look_at(
        &self,
        quiet_until: Option<Instant>,
        owes_sign: bool,
        write_timeout: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let sign_at = if owes_sign { now } else { self.said } + self.sign_after;
        let waits = self.asked.is_some() || self.unwritten.is_some();
        [
            quiet_until,
            self.stuck_since().map(|since| since + write_timeout),
            (waits && self.sees).then(|| now + self.look_every),
            (self.inside && self.heard > self.said).then_some(sign_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Asks the peer for a sign of life if it has been silent for long enough; returns when to look again.
    fn ask_if_silent<S: SessionPort>(
        &mut self,
        base: &Base<S>,
        ping: &mut Ping,
        idle: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let silent_at = self.heard + idle;
        if now < silent_at {
            return Some(silent_at);
        }
        Some(self.ask_peer(base, ping, now))
    }

    /// Asks the peer for a sign of life; returns when to look for it.
    fn ask_peer<S: SessionPort>(
        &mut self,
        base: &Base<S>,
        ping: &mut Ping,
        now: Instant,
    ) -> Instant {
        base.app.add(Count::Keepalives, 1);
        // If a PING of somebody else is under way, its answer will do.
        if ping.ask() {
            self.ping_end = u64::MAX;
        }
        self.asked = Some(now);
        self.draw_idle(&base.config);
        self.probe_from = now;
        now + base.config.keepalive_timeout()
    }

    /// Something of an application is about to be sent. After a silence nobody knows whether the peer is still there: it is
    /// asked in the same batch, so that a dead one is known a timeout from now and not from the end of the idle time.
    #[inline]
    pub(crate) fn probe_before_use<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        ping: &mut Ping,
        now: Instant,
    ) {
        if now >= self.probe_from {
            self.probe_if_silent(base, ping, now);
        }
    }

    #[cold]
    fn probe_if_silent<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        ping: &mut Ping,
        now: Instant,
    ) {
        let Self { heard, asked, .. } = *self;
        if now.duration_since(heard) < self.probe_after {
            // `None`: it never asks.
            if let Some(at) = heard.checked_add(self.probe_after) {
                self.probe_from = at;
            }
        } else if asked.is_none_or(|asked| heard >= asked) {
            self.ask_peer(base, ping, now);
            // What lies in the socket before it is looked at at once.
            base.timers.set(Timer::Keepalive, now);
        }
    }
}
