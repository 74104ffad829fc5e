//! Limits on the peer's behaviour in a session, as counts and rates: counted at the event, enforced by ending the session.
//! Limits on credit and memory are in `flow` (small messages too: each costs a fixed charge), on the number of streams and calls in
//! `permits`, on sizes in `mux::incoming`; on calls that run at once in `rpc::bound`.
//!
//! No message passes through here. Times are those of the turn. A tripped limit is counted, and ends the session with one
//! error, whose text the peer gets as its reason; the rest of the received bytes has no effect
//! any more.
//!
//! *Control frames without a cause*: an honest peer may answer each frame of this side with at most [`CAUSED`] control
//! frames, however it handles it. Frames beyond that are charged to the bucket of glitches. So are frames of unknown kinds,
//! beyond [`CARRIED`] a message.

use std::time::Instant;

use super::base::Base;
use super::bucket::Bucket;
use super::port::{Count, SessionPort, StreamPort};
use super::streams::Key;
use crate::config::Config;
use crate::error::{Limit, LimitExceeded};

/// Control frames that each of our frames may cause: credit for a stream and the session, an end, a grant.
const CAUSED: u64 = 4;
/// The most that are saved up: as many as a peer with full windows may owe us.
const CAUSED_MAX: u64 = 1 << 20;
/// Frames of unknown kinds accepted with each message, and with each frame of ours: room for the extensions of a
/// later version.
const CARRIED: u64 = 4;
/// GOAWAYs that a session can need: SOON, the last id, the reason.
const GOAWAYS: u8 = 3;

/// Counts of the peer's actions; see the module.
#[derive(Debug)]
pub(crate) struct Limits {
    glitches: Bucket,
    resets: Option<Bucket>,
    pings: Option<Bucket>,
    /// Control frames that have a cause and were not received yet.
    caused: u64,
    /// Frames sent that are included in `caused`.
    sent_seen: u64,
    /// Frames of unknown kinds that may accompany the messages received.
    carried: u64,
    /// Messages received that are included in `carried`.
    messages_seen: u64,
    goaways: u8,
    /// Streams that we had to end because of the peer's behaviour.
    faulty: u32,
    /// Streams that the peer has reset before an application accepted them; some were accepted since.
    early_resets: Vec<Key>,
    /// The first limit tripped, until the session ends by it.
    tripped: Option<LimitExceeded>,
}

impl Limits {
    /// The session's counters may start above zero.
    pub(crate) fn new<S: SessionPort>(config: &Config, app: &S, now: Instant) -> Self {
        let bucket = |rate| Bucket::new(rate, now);
        Self {
            glitches: bucket(config.glitch_rate()),
            resets: config.reset_rate().map(bucket),
            pings: config.ping_rate().map(bucket),
            caused: 0,
            sent_seen: app.get(Count::FramesSent),
            carried: 0,
            messages_seen: app.get(Count::MessagesReceived),
            goaways: 0,
            faulty: 0,
            early_resets: Vec::new(),
            tripped: None,
        }
    }

    /// A limit was tripped: the session is to end.
    #[cold]
    pub(crate) fn trip(&mut self, limit: Limit, value: u64) {
        self.tripped.get_or_insert(LimitExceeded { limit, value });
    }

    /// Whether the session is to end by a limit.
    #[inline]
    pub(crate) const fn is_tripped(&self) -> bool {
        self.tripped.is_some()
    }

    /// The limit by which the session is to end.
    pub(crate) const fn take_tripped(&mut self) -> Option<LimitExceeded> {
        self.tripped.take()
    }

    /// The peer sent a PING.
    pub(crate) fn charge_ping(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.pings
            && let Err(pings) = bucket.take(now)
        {
            self.trip(Limit::PingRate, pings);
        }
    }

    /// A stream of the peer was reset before its end, by either side.
    pub(crate) fn charge_reset(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.resets
            && let Err(resets) = bucket.take(now)
        {
            self.trip(Limit::ResetRate, resets);
        }
    }

    /// A limit has ended a stream: charges the peer if it is the peer's fault.
    pub(crate) fn charge_fault(&mut self, config: &Config, limit: Limit) {
        // The others are due to our application, or to memory that it holds.
        if matches!(limit, Limit::MessageStalled | Limit::MessagePieces) {
            self.charge_faulty(config);
        }
    }

    /// A fault of the peer has ended a stream.
    pub(crate) fn charge_faulty(&mut self, config: &Config) {
        self.faulty = self.faulty.saturating_add(1);
        if self.faulty > config.max_faulty_streams() {
            self.trip(Limit::FaultyStreams, self.faulty.into());
        }
    }

    /// A control frame arrived that only answers a frame of ours.
    pub(crate) fn charge_control<S: SessionPort>(&mut self, base: &Base<S>) {
        let sent = base.app.get(Count::FramesSent);
        let new = sent.wrapping_sub(self.sent_seen).saturating_mul(CAUSED);
        self.sent_seen = sent;
        self.caused = self.caused.saturating_add(new).min(CAUSED_MAX);
        match self.caused.checked_sub(1) {
            Some(left) => self.caused = left,
            None => self.charge_glitch(base.turn),
        }
    }

    /// A frame of an unknown kind arrived. It was ignored, and costs no credit.
    pub(crate) fn charge_unknown<S: SessionPort>(&mut self, base: &Base<S>) {
        let received = base.app.get(Count::MessagesReceived);
        let new = received
            .wrapping_sub(self.messages_seen)
            .saturating_mul(CARRIED);
        self.messages_seen = received;
        self.carried = self.carried.saturating_add(new).min(CAUSED_MAX);
        match self.carried.checked_sub(1) {
            Some(left) => self.carried = left,
            None => self.charge_control(base),
        }
    }

    /// The peer sent a GOAWAY.
    pub(crate) fn charge_goaway(&mut self, now: Instant) {
        self.goaways = self.goaways.saturating_add(1);
        if self.goaways > GOAWAYS {
            self.charge_glitch(now);
        }
    }

    fn charge_glitch(&mut self, now: Instant) {
        if let Err(glitches) = self.glitches.take(now) {
            self.trip(Limit::GlitchRate, glitches);
        }
    }

    /// The peer has reset a stream of its own. Few such streams may wait for the application.
    pub(crate) fn on_peer_reset<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) {
        let Some(max) = base.config.max_unaccepted_resets() else {
            return;
        };
        let streams = &mut base.streams;
        let accepted = streams
            .get_mut(key)
            .is_none_or(|stream| stream.port.is_accepted());
        if accepted {
            return;
        }
        let max = max as usize;
        self.early_resets.push(key);
        // No more of them are kept than there can be streams.
        if self.early_resets.len() <= max.min(2 * streams.len()) {
            return;
        }
        // Streams accepted meanwhile are dropped here, so `accept` need not report them.
        self.early_resets.retain(|key| {
            let stream = streams.get_mut(*key);
            stream.is_some_and(|stream| !stream.port.is_accepted())
        });
        let waiting = self.early_resets.len();
        if waiting > max {
            self.trip(Limit::UnacceptedResets, waiting as u64);
        }
    }
}
