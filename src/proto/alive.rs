//! Whether the peer is still there, and whether the socket still takes bytes.
//!
//! ```text
//!   heard ──idle──► PING ──timeout──► the peer is lost          any byte is life; first use after silence asks at once
//!   offered ──────write_timeout─────► the connection is stuck   any byte taken is progress
//! ```
//! What happens often only stores a time. *One* deadline says when to look at it, and it is moved when it has passed: a
//! session under load sets its timer every few seconds, not at every turn.

use std::time::{Duration, Instant};

use super::connection::{Connection, Phase};
use crate::config::Config;
use crate::error::SessionError;
use crate::frame::codes;

/// A deadline noticed later than this means that this side was stopped: what happened meanwhile is still to be read.
const LATE: Duration = Duration::from_secs(1);
/// The idle time is shortened by up to one part in so many, so that many sessions do not ask at once.
const IDLE_JITTER: u32 = 10;
/// A session that is used after a silence of one part in so many of the idle time asks for a sign of life first.
const PROBE_PART: u32 = 3;

/// What is known of the peer's life; see the module.
#[derive(Debug)]
pub(super) struct Alive {
    /// When bytes came last.
    heard: Instant,
    /// After how much silence the peer is asked next. `None`: never.
    idle: Option<Duration>,
    /// After how much silence it is asked by the next use. Looked at for each batch, so nothing is divided there.
    probe_after: Duration,
    /// When the peer was asked, if it has not been heard since.
    asked: Option<Instant>,
    /// Since when the socket has taken nothing of what it was offered.
    unwritten: Option<Instant>,
    /// When to look.
    check: Option<Instant>,
    /// Being late was forgiven since the last sign of life.
    forgiven: bool,
    seed: u64,
    /// When the session has reached its greatest age.
    pub(super) age_at: Option<Instant>,
}

impl Alive {
    pub(super) fn new(config: &Config, seed: u64, now: Instant) -> Self {
        let mut this = Self {
            heard: now,
            idle: None,
            probe_after: Duration::MAX,
            asked: None,
            unwritten: None,
            check: None,
            forgiven: false,
            seed,
            age_at: None,
        };
        this.draw_idle(config);
        // From nine to eleven tenths of it.
        let part = 0.9 + 0.2 * this.draw_part();
        this.age_at = config.max_age().map(|age| now + age.mul_f64(part));
        this.check = this.idle.map(|idle| now + idle);
        this
    }

    #[cfg(test)]
    pub(super) const fn first_check(&self) -> Option<Instant> {
        self.check
    }

    /// Bytes came.
    #[inline]
    pub(super) const fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The socket is offered bytes, from now on.
    #[inline]
    pub(super) fn offer(&mut self, now: Instant, timeout: Duration) {
        self.unwritten = Some(now);
        let at = now + timeout;
        if self.check.is_none_or(|check| check > at) {
            self.check = Some(at);
        }
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
    /// When to look at the peer's life at the latest.
    pub(super) const fn alive_deadline(&self) -> Option<Instant> {
        // Before, the handshake has a deadline; after, the end has.
        if self.is_established() {
            self.alive.check
        } else {
            None
        }
    }

    /// The socket took bytes of the batch; `rest` are left of it.
    pub(crate) fn written(&mut self, rest: bool, now: Instant) {
        self.alive.unwritten = rest.then_some(now);
    }

    pub(super) fn check_alive(&mut self, now: Instant) {
        let Some(at) = self.alive_deadline().filter(|at| now >= *at) else {
            return;
        };
        // Once only: else a machine that is always late would never notice a dead peer.
        let forgive = now - at > LATE && !self.alive.forgiven;
        let write_timeout = self.config.write_timeout();
        if let Some(since) = self.alive.unwritten
            && now - since >= write_timeout
        {
            if !forgive {
                self.link.counters.write_timeouts.add(1);
                // A last word could not be said either.
                return self.terminate(SessionError::WriteTimeout(write_timeout));
            }
            self.alive.forgiven = true;
            self.alive.unwritten = Some(now);
        }
        let quiet_until = match (self.alive.idle, self.alive.asked) {
            (None, _) => None,
            (Some(idle), None) => self.ask_if_silent(idle, now),
            (Some(idle), Some(asked)) if self.alive.heard >= asked => {
                self.alive.asked = None;
                self.alive.forgiven = false;
                self.ask_if_silent(idle, now)
            }
            (Some(_), Some(asked)) => {
                let timeout = self.config.keepalive_timeout();
                if now - asked < timeout {
                    Some(asked + timeout)
                } else if forgive {
                    self.alive.forgiven = true;
                    self.alive.asked = Some(now);
                    Some(now + timeout)
                } else {
                    return self.lose_peer(timeout);
                }
            }
        };
        let stuck_at = self.alive.unwritten.map(|since| since + write_timeout);
        self.alive.check = [quiet_until, stuck_at].into_iter().flatten().min();
    }

    /// Asks the peer for a sign of life if it has been silent for long enough; returns when to look again.
    fn ask_if_silent(&mut self, idle: Duration, now: Instant) -> Option<Instant> {
        let silent_at = self.alive.heard + idle;
        if now < silent_at {
            return Some(silent_at);
        }
        Some(self.ask_peer(now))
    }

    /// Asks the peer for a sign of life; returns when to look for it.
    fn ask_peer(&mut self, now: Instant) -> Instant {
        self.link.counters.keepalives.add(1);
        // If a PING of somebody else is under way, its answer will do.
        self.ping.wanted |= self.ping.in_flight.is_none();
        self.alive.asked = Some(now);
        self.alive.draw_idle(&self.config);
        now + self.config.keepalive_timeout()
    }

    /// Something of an application is about to be sent. After a silence nobody knows whether the peer is still there: it is
    /// asked in the same batch, so that a dead one is known a timeout from now and not from the end of the idle time.
    #[inline]
    pub(super) fn probe_before_use(&mut self, now: Instant) {
        let Alive { heard, asked, .. } = self.alive;
        if now.duration_since(heard) >= self.alive.probe_after
            && asked.is_none_or(|asked| heard >= asked)
            && self.is_established()
        {
            let at = self.ask_peer(now);
            self.alive.check = Some(self.alive.check.map_or(at, |check| check.min(at)));
        }
    }

    fn lose_peer(&mut self, timeout: Duration) {
        self.link.counters.keepalive_timeouts.add(1);
        let error = SessionError::KeepaliveTimeout(timeout);
        if self.alive.unwritten.is_some() {
            return self.terminate(error);
        }
        // It may be this direction only that works.
        let text = error.to_string();
        self.finish_with(error, codes::KEEPALIVE, &text);
        debug_assert!(!matches!(self.phase, Phase::Open));
    }
}
