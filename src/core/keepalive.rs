//! Detects a dead peer and a stuck socket.
//!
//! ```text
//!   heard ──idle──► PING ──timeout──► the peer is lost          any byte is a sign of life; first use after silence sends a PING
//!   offered ──────write_timeout─────► the connection is stuck   any byte taken, left or received is progress
//! ```
//! Frequent events only store a time. *One* timer says when to check it, and it is moved when it has expired: a session
//! under load sets its timer every few seconds, not at every turn.
//!
//! # Slow is not dead
//! On a slow connection the PING and its answer wait behind bytes queued before them, and a full socket takes no bytes for
//! long. So before a timer ends the session, and [`LOOKS`] times meanwhile, the driver reports how many bytes the socket
//! still holds. If that number falls, the peer's system is receiving: the socket is not stuck, and a peer that the PING has
//! not reached cannot have answered. (Once it has, only its application can answer.) Departures are noticed up to one look
//! late, so a peer that dies in the middle of a transfer is detected up to a [`LOOKS`]th of the timeout later.
//!
//! Behind a proxy bytes may be where neither system can see them. There the receiver helps: if its receptions end inside
//! a frame, again and again, and it has sent nothing for half of the timeout, it sends a PING, which is a sign of life for the
//! sender, answered or not.
//!
//! # Without PINGs
//! Where a wire has none, the peer's system answers for it: [`PeerSystem`]. While it has not acknowledged all bytes that the
//! socket has taken, the driver looks, and bytes that it leaves unanswered count as bytes that the socket does not take. An
//! idle session has nothing to look for, and no timer: the driver's sockets have the system probe the peer's.
//! A side that does not read, until the application has consumed, would not see the end of its connection either: it looks for
//! that.
//!
//! # Bytes that are left
//! A peer may close the connection in order while bytes of it are not read. The application has `drain_timeout` to make room for
//! the next of them.

use std::time::{Duration, Instant};

use super::base::Base;
use super::ping::Ping;
use super::port::{Count, SessionPort};
use super::timers::{Timer, Timers};
use crate::config::Config;

/// A deadline noticed later than this means that this process was stopped: bytes received meanwhile are still unread.
const LATE: Duration = Duration::from_secs(1);
/// The idle time is shortened by up to one part in this many, so that many sessions do not send PINGs at once.
const IDLE_JITTER: u32 = 10;
/// This many bytes in the socket are no backlog: PINGs and their answers.
const FEW: u64 = 4096;
/// Looks at the socket during one timeout.
const LOOKS: u32 = 4;
/// A session used after a silence of one part in this many of the idle time sends a PING first.
const PROBE_PART: u32 = 3;

/// What the system at the other end of a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerSystem {
    /// It cannot be seen.
    Unknown,
    /// It answers, if only that it takes nothing at present.
    Answers,
    /// It has left bytes, or probes, unanswered for this long, or longer. Of a system that is only asked now and then the time
    /// grows by the questions, so that one lost packet is no silence.
    Silent(Duration),
}

/// The peer's signs of life; see the module.
#[derive(Debug)]
pub(crate) struct Keepalive {
    /// When bytes were last received.
    heard: Instant,
    /// The silence after which a PING is sent. `None`: never.
    idle: Option<Duration>,
    /// The silence after which the next use sends a PING.
    probe_after: Duration,
    /// No use before this time sends a PING: moved on when it has passed, if the peer was heard meanwhile.
    probe_from: Instant,
    /// When a PING was sent, if the peer has not been heard since.
    asked: Option<Instant>,
    /// The end of that PING, in bytes since the start; `u64::MAX` until it is encoded.
    ping_end: u64,
    /// Since when the socket has taken none of the bytes offered.
    unwritten: Option<Instant>,
    /// Since when the peer's system has left bytes in the socket unanswered; never on a wire with PINGs.
    unanswered: Option<Instant>,
    /// The socket holds bytes whose arrival can be seen; never on a wire with PINGs.
    watches: bool,
    /// Since when the peer is known to have closed the connection, behind bytes that are not read.
    closed: Option<Instant>,
    /// When this side last sent something.
    said: Instant,
    /// Since the last check the timer was set for the first look.
    looks: bool,
    /// The last reception ended inside a frame.
    inside: bool,
    /// Bytes that the socket has taken.
    taken: u64,
    /// Of these, the bytes that had left for the peer at the last look, and those that had not.
    left: u64,
    queued: u64,
    /// When bytes were seen to have left; the same for bytes before the PING.
    left_at: Instant,
    before_ping_at: Instant,
    /// The driver can read how much the socket holds.
    sees: bool,
    /// The interval between looks.
    look_every: Duration,
    /// When to look first after bytes are offered to the socket. Where the driver cannot read it: at the timeout.
    first_look: Duration,
    /// A receiver of a slow frame that was silent for this long sends a PING.
    sign_after: Duration,
    /// A late timer was forgiven since the last sign of life.
    forgiven: bool,
    /// The wire has PINGs.
    asks: bool,
    seed: u64,
}

impl Keepalive {
    /// Sets the timers of keepalive and age, which vary a little between sessions. Without `ping` no PING is
    /// sent.
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
            unanswered: None,
            watches: false,
            closed: None,
            said: now,
            looks: false,
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

    /// Bytes were received.
    #[inline]
    pub(crate) const fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.inside = false;
    }

    /// The reception ended inside a frame.
    #[inline]
    pub(crate) fn stop_inside(&mut self, now: Instant, timers: &mut Timers) {
        self.inside = true;
        timers.set_by(Timer::Keepalive, now + self.sign_after);
    }

    /// Bytes are offered to the socket from now on.
    #[inline]
    pub(crate) fn offer(&mut self, now: Instant, timers: &mut Timers) {
        self.unwritten = Some(now);
        self.said = now;
        if !self.looks {
            self.looks = true;
            timers.set_by(Timer::Keepalive, now + self.first_look);
        }
    }

    /// The PING of the keepalive ends after this many bytes of the batch under construction.
    pub(crate) const fn place_ping(&mut self, bytes: usize) {
        self.ping_end = self.taken + bytes as u64;
    }

    /// How many bytes were seen to leave the socket; a few frames are not counted.
    pub(crate) const fn seen_to_leave(&self) -> u64 {
        if self.queued > FEW { self.left } else { 0 }
    }

    /// This side does not read, and so does not see the end of the connection unless the driver looks for it.
    pub(crate) fn pause(&self, now: Instant, timers: &mut Timers) {
        timers.set_by(Timer::Keepalive, now + self.look_every);
    }

    /// The peer has closed the connection, behind bytes that are not read: nothing is offered to the socket any more.
    pub(crate) fn peer_has_closed(&mut self, now: Instant, timers: &mut Timers) {
        self.closed.get_or_insert(now);
        self.unwritten = None;
        timers.set_by(Timer::Keepalive, now + self.look_every);
    }

    /// The end of the time in which more of the bytes is to be read that the peer sent before it closed the connection.
    fn unread_until(&self, config: &Config) -> Option<Instant> {
        let closed = self.closed?;
        Some(closed.max(self.heard) + config.drain_timeout())
    }

    /// Since when the socket has taken nothing, or the peer's system has acknowledged none of its bytes, nothing has left it, and
    /// nothing was received from it.
    fn stuck_since(&self) -> Option<Instant> {
        let since = match (self.unwritten, self.unanswered) {
            (Some(unwritten), Some(unanswered)) => unwritten.min(unanswered),
            (unwritten, unanswered) => unwritten.or(unanswered)?,
        };
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

    /// Whether the peer, which is sending a long frame slowly, has not heard from this side for long.
    fn owes_sign(&self, now: Instant) -> bool {
        self.inside && self.heard > self.said && now - self.said >= self.sign_after
    }

    /// A pseudo-random number from 0 to 1.
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

/// The ways in which the peer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Lost {
    /// It has closed the connection, and for long none of the bytes that it sent before were read.
    Closed,
    /// The socket took nothing for this long: the final GOAWAY could not leave either.
    Stuck(Duration),
    /// The peer gave no sign of life for this long. If the socket takes bytes, only the other direction may be broken.
    Silent { timeout: Duration, takes: bool },
}

impl Keepalive {
    /// The socket took this many bytes of the batch; `rest`: some are left of it.
    #[inline]
    pub(crate) fn written(&mut self, bytes: usize, rest: bool, now: Instant) {
        self.unwritten = rest.then_some(now);
        self.taken += bytes as u64;
    }

    /// The number of bytes that the socket still holds, if the driver can read it.
    pub(crate) fn see_socket(&mut self, queued: Option<u64>, config: &Config, now: Instant) {
        match queued {
            Some(queued) => self.see(queued, now),
            None => self.first_look = config.write_timeout(),
        }
    }

    /// What the peer's system does, as seen right after the bytes in the socket. Only over a wire without PINGs.
    pub(crate) fn see_peer_system(&mut self, system: PeerSystem, now: Instant) {
        self.watches = self.queued > 0 && system != PeerSystem::Unknown;
        self.unanswered = match system {
            PeerSystem::Silent(time) if self.queued > 0 => {
                // It may have been silent before, with nothing to answer.
                let since = self.unanswered.unwrap_or(now);
                let heard = now.checked_sub(time);
                Some(heard.map_or(since, |heard| since.max(heard)))
            }
            _ => None,
        };
    }

    /// The timer set for `at` has expired.
    pub(crate) fn check<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        ping: &mut Ping,
        at: Instant,
        now: Instant,
    ) -> Option<Lost> {
        self.looks = false;
        // Once only: else a machine that is always late would never detect a dead peer.
        let forgive = now - at > LATE && !self.forgiven;
        let write_timeout = base.config.write_timeout();
        if self.unread_until(&base.config).is_some_and(|at| at <= now) {
            if !forgive {
                return Some(Lost::Closed);
            }
            self.forgiven = true;
            self.closed = Some(now);
        }
        match self.stuck_since() {
            Some(since) if now - since >= write_timeout => {
                if !forgive {
                    return Some(Lost::Stuck(write_timeout));
                }
                self.forgiven = true;
                self.unwritten = self.unwritten.map(|_| now);
                self.unanswered = self.unanswered.map(|_| now);
            }
            // With PINGs their answers are the signs of life.
            None if !self.asks && self.closed.is_none() => self.forgiven = false,
            _ => {}
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
        // Where the wire has no PING, no sign can be given.
        let owes_sign = self.asks && self.owes_sign(now);
        if owes_sign {
            ping.ask_again();
        }
        if let Some(at) = self.look_at(quiet_until, owes_sign, &base.config, now) {
            base.timers.set(Timer::Keepalive, at);
        }
        None
    }

    /// The time of the next check.
    fn look_at(
        &self,
        quiet_until: Option<Instant>,
        owes_sign: bool,
        config: &Config,
        now: Instant,
    ) -> Option<Instant> {
        let sign_at = if owes_sign { now } else { self.said } + self.sign_after;
        let waits = self.asked.is_some() || self.unwritten.is_some();
        [
            quiet_until,
            self.unread_until(config),
            self.stuck_since()
                .map(|since| since + config.write_timeout()),
            ((waits && self.sees) || self.watches).then(|| now + self.look_every),
            (self.asks && self.inside && self.heard > self.said).then_some(sign_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Sends a PING if the peer has been silent for long enough; returns the time of the next check.
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

    /// Sends a PING; returns the time of the next check.
    fn ask_peer<S: SessionPort>(
        &mut self,
        base: &Base<S>,
        ping: &mut Ping,
        now: Instant,
    ) -> Instant {
        base.app.add(Count::Keepalives, 1);
        // If a PING of another caller is under way, its answer serves.
        if ping.ask() {
            self.ping_end = u64::MAX;
        }
        self.asked = Some(now);
        self.draw_idle(&base.config);
        self.probe_from = now;
        now + base.config.keepalive_timeout()
    }

    /// An application's message is about to be sent. After a silence the state of the peer is unknown: a PING goes out in the
    /// same batch, so that a dead peer is detected a timeout from now and not from the end of the idle time.
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
            // `None`: never.
            if let Some(at) = heard.checked_add(self.probe_after) {
                self.probe_from = at;
            }
        } else if asked.is_none_or(|asked| heard >= asked) {
            self.ask_peer(base, ping, now);
            // Counts the bytes already in the socket, at once.
            base.timers.set(Timer::Keepalive, now);
        }
    }
}
