//! What a peer may do to a session, and how often: counted where it happens, ended where it is too much.
//!
//! Nothing here is on the way of a message. Time is that of the turn. A limit that is tripped is counted, and ends the
//! session with one error, whose text the peer gets as its reason; what is left of the bytes that were read changes
//! nothing any more.
//!
//! *Control frames without a cause*: each frame that this side sends may be answered by so many control frames of an honest
//! peer, whatever it does with it. What comes beyond is charged to the bucket of glitches. So are frames of unknown kinds,
//! beyond those that may go with a message.

use std::time::Instant;

use super::base::Base;
use super::bucket::Bucket;
use super::port::{Count, SessionPort, StreamPort};
use super::streams::Key;
use crate::config::Config;
use crate::error::{Limit, LimitExceeded};

/// Control frames that each frame of ours may cause: credit for a stream and the session, an end, a grant.
const CAUSED: u64 = 4;
/// The most that are saved up: what a peer with full windows may owe us.
const CAUSED_MAX: u64 = 1 << 20;
/// Frames of kinds that this version does not know that may come with each message, and with each frame of ours: what a
/// later version may have to say about one.
const CARRIED: u64 = 4;
/// Farewells that a session can need: that it ends soon, the last id, the reason.
const GOAWAYS: u8 = 3;

/// Counts of what the peer did; see the module.
#[derive(Debug)]
pub(crate) struct Limits {
    glitches: Bucket,
    resets: Option<Bucket>,
    pings: Option<Bucket>,
    /// Control frames that have a cause and did not come yet.
    caused: u64,
    /// Of the frames that we sent, what `caused` knows of.
    sent_seen: u64,
    /// Frames of unknown kinds that may come with the messages that came.
    carried: u64,
    /// Of the messages that came, what `carried` knows of.
    messages_seen: u64,
    goaways: u8,
    /// Streams that we had to end because of what the peer did.
    faulty: u32,
    /// Streams that the peer has reset, as long as no application has accepted them; some that were accepted since.
    early_resets: Vec<Key>,
    /// The first one that was tripped, until the session ends by it.
    tripped: Option<LimitExceeded>,
}

impl Limits {
    /// The session's counters are where others may have counted before.
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

    /// The limit by which the session is to end.
    #[inline]
    pub(crate) const fn take_tripped(&mut self) -> Option<LimitExceeded> {
        self.tripped.take()
    }

    /// The peer asks for a round trip.
    pub(crate) fn charge_ping(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.pings
            && let Err(pings) = bucket.take(now)
        {
            self.trip(Limit::PingRate, pings);
        }
    }

    /// A stream of the peer was reset before it came to its end, by either side.
    pub(crate) fn charge_reset(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.resets
            && let Err(resets) = bucket.take(now)
        {
            self.trip(Limit::ResetRate, resets);
        }
    }

    /// A limit has ended a stream: was it the peer's doing?
    pub(crate) fn charge_fault(&mut self, config: &Config, limit: Limit) {
        // The others come of our application, or of what it left of our memory.
        if !matches!(limit, Limit::MessageStalled | Limit::MessagePieces) {
            return;
        }
        self.faulty = self.faulty.saturating_add(1);
        if self.faulty > config.max_faulty_streams() {
            self.trip(Limit::FaultyStreams, self.faulty.into());
        }
    }

    /// A control frame came that only an answer to ours can be.
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

    /// A frame came of a kind that this version does not know. It was ignored, and costs no credit.
    pub(crate) fn charge_unknown<S: SessionPort>(&mut self, base: &Base<S>) {
        let came = base.app.get(Count::MessagesReceived);
        let new = came
            .wrapping_sub(self.messages_seen)
            .saturating_mul(CARRIED);
        self.messages_seen = came;
        self.carried = self.carried.saturating_add(new).min(CAUSED_MAX);
        match self.carried.checked_sub(1) {
            Some(left) => self.carried = left,
            None => self.charge_control(base),
        }
    }

    /// The peer has said that it takes no more streams, or that it ends.
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

    /// The peer has reset a stream of its own. Few may wait for the application like that.
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
        // No more of them are remembered than there can be streams.
        if self.early_resets.len() <= max.min(2 * streams.len()) {
            return;
        }
        // Those that were accepted meanwhile are forgotten here, so `accept` need not tell.
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
