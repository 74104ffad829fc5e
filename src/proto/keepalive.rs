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

use super::connection::Connection;
use super::timers::{Timer, Timers};
use crate::config::Config;
use crate::error::SessionError;

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
pub(super) struct Keepalive {
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
    seed: u64,
}

impl Keepalive {
    /// Sets the timers of keepalive and age, which differ a little from session to session.
    pub(super) fn new(config: &Config, seed: u64, now: Instant, timers: &mut Timers) -> Self {
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
    pub(super) const fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.inside = false;
    }

    /// What came ended inside a frame.
    #[inline]
    pub(super) fn stop_inside(&mut self, now: Instant, timers: &mut Timers) {
        self.inside = true;
        timers.set_by(Timer::Keepalive, now + self.sign_after);
    }

    /// The socket is offered bytes, from now on.
    #[inline]
    pub(super) fn offer(&mut self, now: Instant, timers: &mut Timers) {
        self.unwritten = Some(now);
        self.said = now;
        timers.set_by(Timer::Keepalive, now + self.first_look);
    }

    /// The PING that asks the peer ends after so many bytes of the batch that is being built.
    pub(super) const fn place_ping(&mut self, bytes: usize) {
        self.ping_end = self.taken + bytes as u64;
    }

    /// How much of what is queued in the socket was seen to leave it; of a few frames nothing is said.
    pub(super) const fn seen_to_leave(&self) -> u64 {
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
            .map(|idle| idle - (idle / IDLE_JITTER).mul_f64(part));
        self.probe_after = self.idle.map_or(Duration::MAX, |idle| idle / PROBE_PART);
    }
}

impl Connection {
    /// The socket took so many bytes of the batch; `rest` are left of it.
    pub(crate) fn written(&mut self, bytes: usize, rest: bool, now: Instant) {
        self.keepalive.unwritten = rest.then_some(now);
        self.keepalive.taken += bytes as u64;
    }

    /// Whether [`see_socket`](Self::see_socket) is to be called before [`on_deadline`](Self::on_deadline).
    pub(crate) fn looks_at_socket(&self, now: Instant) -> bool {
        self.life.is_established()
            && (self.timers.get(Timer::Keepalive)).is_some_and(|at| at <= now)
    }

    /// So many bytes that the socket has taken are still there, if that is known.
    pub(crate) fn see_socket(&mut self, queued: Option<u64>, now: Instant) {
        match queued {
            Some(queued) => self.keepalive.see(queued, now),
            None => self.keepalive.first_look = self.config.write_timeout(),
        }
    }

    /// It was to be looked at `at`.
    pub(super) fn check_keepalive(&mut self, at: Instant, now: Instant) {
        // Once only: else a machine that is always late would never notice a dead peer.
        let forgive = now - at > LATE && !self.keepalive.forgiven;
        let write_timeout = self.config.write_timeout();
        if let Some(since) = self.keepalive.stuck_since()
            && now - since >= write_timeout
        {
            if !forgive {
                self.link.counters.write_timeouts.add(1);
                // The final GOAWAY could not leave either.
                return self.abort(SessionError::WriteTimeout(write_timeout));
            }
            self.keepalive.forgiven = true;
            self.keepalive.unwritten = Some(now);
        }
        let quiet_until = match (self.keepalive.idle, self.keepalive.asked) {
            (None, _) => None,
            (Some(idle), None) => self.ask_if_silent(idle, now),
            (Some(idle), Some(asked)) if self.keepalive.heard >= asked => {
                self.keepalive.asked = None;
                self.keepalive.forgiven = false;
                self.ask_if_silent(idle, now)
            }
            (Some(_), Some(asked)) => {
                let timeout = self.config.keepalive_timeout();
                let since = asked.max(self.keepalive.before_ping_at);
                if now - since < timeout {
                    Some(since + timeout)
                } else if forgive {
                    self.keepalive.forgiven = true;
                    self.keepalive.asked = Some(now);
                    Some(now + timeout)
                } else {
                    return self.lose_peer(timeout);
                }
            }
        };
        let owes_sign = self.keepalive.owes_sign(now);
        if owes_sign {
            (self.ping.wanted, self.ping.again) = (true, true);
        }
        let keepalive = &self.keepalive;
        let sign_at = if owes_sign { now } else { keepalive.said } + keepalive.sign_after;
        let waits = keepalive.asked.is_some() || keepalive.unwritten.is_some();
        let look_at = [
            quiet_until,
            keepalive.stuck_since().map(|since| since + write_timeout),
            (waits && keepalive.sees).then(|| now + keepalive.look_every),
            (keepalive.inside && keepalive.heard > keepalive.said).then_some(sign_at),
        ]
        .into_iter()
        .flatten()
        .min();
        if let Some(at) = look_at {
            self.timers.set(Timer::Keepalive, at);
        }
    }

    /// Asks the peer for a sign of life if it has been silent for long enough; returns when to look again.
    fn ask_if_silent(&mut self, idle: Duration, now: Instant) -> Option<Instant> {
        let silent_at = self.keepalive.heard + idle;
        if now < silent_at {
            return Some(silent_at);
        }
        Some(self.ask_peer(now))
    }

    /// Asks the peer for a sign of life; returns when to look for it.
    fn ask_peer(&mut self, now: Instant) -> Instant {
        self.link.counters.keepalives.add(1);
        // If a PING of somebody else is under way, its answer will do.
        if self.ping.in_flight.is_none() {
            self.ping.wanted = true;
            self.keepalive.ping_end = u64::MAX;
        }
        self.keepalive.asked = Some(now);
        self.keepalive.draw_idle(&self.config);
        self.keepalive.probe_from = now;
        now + self.config.keepalive_timeout()
    }

    /// Something of an application is about to be sent. After a silence nobody knows whether the peer is still there: it is
    /// asked in the same batch, so that a dead one is known a timeout from now and not from the end of the idle time.
    #[inline]
    pub(super) fn probe_before_use(&mut self, now: Instant) {
        if now >= self.keepalive.probe_from {
            self.probe_if_silent(now);
        }
    }

    #[cold]
    fn probe_if_silent(&mut self, now: Instant) {
        let Keepalive {
            heard,
            asked,
            probe_after,
            ..
        } = self.keepalive;
        if now.duration_since(heard) < probe_after {
            // `None`: it never asks.
            if let Some(at) = heard.checked_add(probe_after) {
                self.keepalive.probe_from = at;
            }
        } else if asked.is_none_or(|asked| heard >= asked) && self.life.is_established() {
            self.ask_peer(now);
            // What lies in the socket before it is looked at at once.
            self.timers.set(Timer::Keepalive, now);
        }
    }

    fn lose_peer(&mut self, timeout: Duration) {
        self.link.counters.keepalive_timeouts.add(1);
        let error = SessionError::KeepaliveTimeout(timeout);
        if self.keepalive.unwritten.is_some() {
            return self.abort(error);
        }
        // It may be this direction only that works.
        self.end(error);
    }
}
