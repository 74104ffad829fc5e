//! What a peer may do to a session, and how often: counted where it happens, ended where it is too much.
//!
//! Nothing here is on the way of a message. Time is that of the turn. A limit that is tripped is counted, and ends the
//! session with one error, whose text the peer gets in the GOAWAY; what is left of the bytes that were read changes
//! nothing any more.
//!
//! *Control frames without a cause*: each frame that this side sends may be answered by so many control frames of an honest
//! peer, whatever it does with it. What comes beyond is charged to the bucket of glitches. So are frames of unknown kinds,
//! beyond those that may go with a message.

use std::time::Instant;

use super::bucket::Bucket;
use super::connection::Connection;
use super::registry::Key;
use crate::config::Config;
use crate::error::{Limit, LimitExceeded, ProtocolError, SessionError};
use crate::frame::StreamId;
use crate::link::SessionLink;

/// Control frames that each frame of ours may cause: WINDOWs for a stream and the session, an end, a grant.
const CAUSED: u64 = 4;
/// The most that are saved up: what a peer with full windows may owe us.
const CAUSED_MAX: u64 = 1 << 20;
/// Frames of kinds that this version does not know that may come with each message, and with each frame of ours: what a
/// later version may have to say about one.
const CARRIED: u64 = 4;
/// GOAWAYs that a session can need: SOON, the last id, the final one.
const GOAWAYS: u8 = 3;

/// Counts of what the peer did; see the module.
#[derive(Debug)]
pub(super) struct Limits {
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
}

impl Limits {
    /// The session's counters are where others may have counted before.
    pub(super) fn new(config: &Config, link: &SessionLink, now: Instant) -> Self {
        let bucket = |rate| Bucket::new(rate, now);
        Self {
            glitches: bucket(config.glitch_rate()),
            resets: config.reset_rate().map(bucket),
            pings: config.ping_rate().map(bucket),
            caused: 0,
            sent_seen: link.counters.frames_sent.get(),
            carried: 0,
            messages_seen: link.counters.messages_received.get(),
            goaways: 0,
            faulty: 0,
            early_resets: Vec::new(),
        }
    }
}

impl Connection {
    /// A limit was tripped: the session ends, and the peer is told why in the same words.
    #[cold]
    pub(super) fn trip(&mut self, limit: Limit, value: u64) {
        if self.life.is_ending() {
            return;
        }
        self.link.counters.trip(limit);
        self.end(SessionError::from(LimitExceeded { limit, value }));
    }

    /// The peer asks for a round trip.
    pub(super) fn charge_ping(&mut self) {
        if let Some(bucket) = &mut self.limits.pings
            && let Err(pings) = bucket.take(self.turn)
        {
            self.trip(Limit::PingRate, pings);
        }
    }

    /// A stream of the peer was reset before it came to its end, by either side.
    pub(super) fn charge_reset(&mut self) {
        if let Some(bucket) = &mut self.limits.resets
            && let Err(resets) = bucket.take(self.turn)
        {
            self.trip(Limit::ResetRate, resets);
        }
    }

    /// A limit has ended a stream: was it the peer's doing?
    pub(super) fn charge_fault(&mut self, limit: Limit) {
        // The others come of our application, or of what it left of our memory.
        if !matches!(limit, Limit::MessageStalled | Limit::MessagePieces) {
            return;
        }
        self.limits.faulty = self.limits.faulty.saturating_add(1);
        if self.limits.faulty > self.config.max_faulty_streams() {
            self.trip(Limit::FaultyStreams, self.limits.faulty.into());
        }
    }

    /// A control frame came that only an answer to ours can be.
    pub(super) fn charge_control(&mut self) {
        let sent = self.link.counters.frames_sent.get();
        let limits = &mut self.limits;
        let new = sent.wrapping_sub(limits.sent_seen).saturating_mul(CAUSED);
        limits.sent_seen = sent;
        limits.caused = limits.caused.saturating_add(new).min(CAUSED_MAX);
        match limits.caused.checked_sub(1) {
            Some(left) => limits.caused = left,
            None => self.charge_glitch(),
        }
    }

    /// A frame came of a kind that this version does not know. It was ignored, and costs no credit.
    pub(super) fn charge_unknown(&mut self) {
        let came = self.link.counters.messages_received.get();
        let limits = &mut self.limits;
        let new = came
            .wrapping_sub(limits.messages_seen)
            .saturating_mul(CARRIED);
        limits.messages_seen = came;
        limits.carried = limits.carried.saturating_add(new).min(CAUSED_MAX);
        match limits.carried.checked_sub(1) {
            Some(left) => limits.carried = left,
            None => self.charge_control(),
        }
    }

    /// A GOAWAY came.
    pub(super) fn charge_goaway(&mut self) {
        self.limits.goaways = self.limits.goaways.saturating_add(1);
        if self.limits.goaways > GOAWAYS {
            self.charge_glitch();
        }
    }

    fn charge_glitch(&mut self) {
        if let Err(glitches) = self.limits.glitches.take(self.turn) {
            self.trip(Limit::GlitchRate, glitches);
        }
    }

    /// A frame for a stream that is not there: late, or a violation.
    pub(super) fn late(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        self.check_ended(id)?;
        self.charge_control();
        Ok(())
    }

    /// The peer has reset a stream of its own. Few may wait for the application like that.
    pub(super) fn on_peer_reset(&mut self, key: Key) {
        let Some(max) = self.config.max_unaccepted_resets() else {
            return;
        };
        let accepted = (self.registry.get_mut(key)).is_none_or(|stream| stream.lane().accepted());
        if accepted {
            return;
        }
        let max = max as usize;
        self.limits.early_resets.push(key);
        // No more of them are remembered than there can be streams.
        if self.limits.early_resets.len() <= max.min(2 * self.registry.len()) {
            return;
        }
        // Those that were accepted meanwhile are forgotten here, so `accept` need not tell.
        let mut resets = std::mem::take(&mut self.limits.early_resets);
        resets.retain(|key| {
            let stream = self.registry.get_mut(*key);
            stream.is_some_and(|stream| !stream.lane().accepted())
        });
        let waiting = resets.len();
        self.limits.early_resets = resets;
        if waiting > max {
            self.trip(Limit::UnacceptedResets, waiting as u64);
        }
    }

    /// Another connection needs the place of this one, whose handshake is not done.
    pub(super) fn trip_half_open(&mut self) {
        if self.life.is_in_hello() {
            // Its socket is a place too: a silent peer is not waited for.
            self.life.close_socket_by(self.turn);
            self.trip(Limit::HalfOpen, self.config.max_half_open().into());
        }
    }
}
