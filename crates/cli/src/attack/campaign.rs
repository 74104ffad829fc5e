//! One attack against one server: its connections, their pace, and the results.
//!
//! It has a thread of its own, so that the attacker's work does not disturb the measured neighbour. A connection that has
//! ended is replaced after [`RECONNECT`]; while the attack is paused nothing is sent.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringmux::Addr;

use super::kinds::{Attack, Kind};
use super::peer::Peer;

/// From the end of a connection to the next.
const RECONNECT: Duration = Duration::from_millis(20);
/// From one burst to the next.
const TICK: Duration = Duration::from_millis(1);
/// Frames of the pace per connection: it costs the server about as much.
const CONNECTION_FRAMES: f64 = 10.0;
/// Frames of a burst without a pace.
const BURST: f64 = 1000.0;

const PAUSED: u8 = 0;
const PLAYING: u8 = 1;
const OVER: u8 = 2;

/// The results of an attack.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) connections: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// Streams that the server has ended.
    pub(super) resets: u64,
    /// Connections ended by the server, by the reason it gave.
    pub(super) answers: BTreeMap<String, u64>,
    /// The last text of a GOAWAY, in full.
    pub(super) last_answer: Option<String>,
    /// The server has said that it takes calls in frames.
    pub(super) takes_calls: bool,
    /// Refused connections, and the error of the last one.
    pub(super) refused: u64,
    pub(super) last_refusal: Option<io::Error>,
}

impl Outcome {
    pub(super) fn ended(&self) -> u64 {
        self.answers.values().sum()
    }

    fn count(&mut self, peer: &Peer) {
        self.frames += peer.frames;
        self.bytes += peer.bytes;
        self.resets += peer.resets;
        self.takes_calls |= peer.may_call();
    }

    fn answer(&mut self, text: Option<String>) {
        let name = text.as_deref().map_or("hung up", answer_name);
        *self.answers.entry(name.to_owned()).or_default() += 1;
        self.last_answer = text.or_else(|| self.last_answer.take());
    }
}

/// The rule or the limit that a GOAWAY names, without its values.
fn answer_name(text: &str) -> &str {
    let end = text.find(" exceeded at ").or_else(|| text.find(": "));
    &text[..end.unwrap_or(text.len())]
}

/// An attack under way, paused at first.
#[derive(Debug)]
pub(super) struct Campaign {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<Outcome>,
}

impl Campaign {
    /// `rate`: frames a second at most; 0 is as many as the server takes. `method`: what calls are for.
    ///
    /// # Errors
    /// Starting its thread failed.
    pub(super) fn start(kind: Kind, addr: Addr, rate: u32, method: String) -> io::Result<Self> {
        let phase = Arc::new(AtomicU8::new(PAUSED));
        let seen = Arc::clone(&phase);
        let thread = thread::Builder::new()
            .name("attack".to_owned())
            .spawn(move || Attacker::new(kind, addr, rate, method).run(&seen))?;
        Ok(Self { phase, thread })
    }

    pub(super) fn play(&self) {
        self.phase.store(PLAYING, Ordering::Relaxed);
    }

    pub(super) fn pause(&self) {
        self.phase.store(PAUSED, Ordering::Relaxed);
    }

    /// Ends it, and its connections. `None`: it has panicked.
    pub(super) fn end(self) -> Option<Outcome> {
        self.phase.store(OVER, Ordering::Relaxed);
        self.thread.join().ok()
    }
}

/// A place for a connection.
enum Place {
    Connected(Box<Peer>, Box<dyn Attack>),
    /// When the next attempt is made.
    Waiting(Instant),
}

struct Attacker {
    kind: Kind,
    addr: Addr,
    rate: u32,
    method: String,
    places: Vec<Place>,
    outcome: Outcome,
}

impl Attacker {
    fn new(kind: Kind, addr: Addr, rate: u32, method: String) -> Self {
        let now = Instant::now();
        let places = (0..kind.connections()).map(|_| Place::Waiting(now));
        Self {
            kind,
            addr,
            rate,
            method,
            places: places.collect(),
            outcome: Outcome::default(),
        }
    }

    fn run(mut self, phase: &AtomicU8) -> Outcome {
        let mut allowed = 0.0;
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            let passed = now.duration_since(std::mem::replace(&mut last, now));
            match phase.load(Ordering::Relaxed) {
                OVER => break,
                PLAYING => allowed = self.allowance(allowed, passed),
                _ => allowed = 0.0,
            }
            let playing = allowed > 0.0;
            if playing {
                allowed -= self.connect(now, allowed);
                allowed -= self.play(allowed) as f64;
            }
            self.turn(now);
            // Without a pace, and unless the server stopped it, continue at once.
            if !(playing && self.rate == 0 && allowed <= 0.0) {
                thread::sleep(TICK);
            }
        }
        for place in &self.places {
            if let Place::Connected(peer, _) = place {
                self.outcome.count(peer);
            }
        }
        self.outcome
    }

    /// The allowance saves up at most ten bursts.
    fn allowance(&self, left: f64, passed: Duration) -> f64 {
        if self.rate == 0 {
            return BURST;
        }
        let rate = f64::from(self.rate);
        let most = (rate * TICK.as_secs_f64() * 10.0).max(1.0);
        (left + rate * passed.as_secs_f64()).min(most)
    }

    /// Returns the frames of the pace spent on it.
    fn connect(&mut self, now: Instant, allowed: f64) -> f64 {
        let mut spent = 0.0;
        for place in &mut self.places {
            if spent >= allowed || !matches!(place, Place::Waiting(until) if *until <= now) {
                continue;
            }
            spent += CONNECTION_FRAMES;
            match Peer::connect(&self.addr) {
                Ok(mut peer) => {
                    let attack = self.kind.start(self.outcome.connections, &self.method);
                    self.outcome.connections += 1;
                    if self.kind.is_drpc() {
                        peer.is_foreign = true;
                    } else if attack.greets() {
                        peer.greet();
                    }
                    *place = Place::Connected(Box::new(peer), attack);
                }
                Err(error) => {
                    self.outcome.refused += 1;
                    self.outcome.last_refusal = Some(error);
                    *place = Place::Waiting(now + RECONNECT);
                }
            }
        }
        spent
    }

    /// Lets the connections take steps, in turn, until this many frames are sent or no connection sends any.
    fn play(&mut self, allowed: f64) -> u64 {
        let mut said = 0;
        let mut moved = true;
        while moved && (said as f64) < allowed {
            moved = false;
            for place in &mut self.places {
                let Place::Connected(peer, attack) = place else {
                    continue;
                };
                if peer.is_full() {
                    continue;
                }
                let before = (peer.frames, peer.bytes);
                attack.step(peer);
                said += peer.frames - before.0;
                moved |= peer.bytes != before.1;
            }
        }
        said
    }

    fn turn(&mut self, now: Instant) {
        for place in &mut self.places {
            let Place::Connected(peer, _) = place else {
                continue;
            };
            if peer.turn().is_ok() {
                continue;
            }
            self.outcome.count(peer);
            self.outcome.answer(peer.goaway.take());
            *place = Place::Waiting(now + RECONNECT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_the_rule_or_limit_they_name() {
        let limit = "limit ping-rate exceeded at 11 PINGs: see the setting ping_rate";
        assert_eq!(answer_name(limit), "limit ping-rate");
        assert_eq!(answer_name("zero-credit: a WINDOW of 0"), "zero-credit");
        assert_eq!(answer_name("so long"), "so long");
    }

    #[test]
    fn a_pace_saves_up_ten_bursts_and_no_more() {
        let addr = Addr::Tcp("h:1".to_owned());
        let attacker = |rate| Attacker::new(Kind::RapidReset, addr.clone(), rate, "a/B".to_owned());
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(near(attacker(2000).allowance(0.5, TICK), 2.5));
        assert!(near(attacker(2000).allowance(0.5, TICK * 1000), 20.0));
        assert!(near(attacker(1).allowance(0.0, TICK * 10_000), 1.0));
        assert!(near(attacker(0).allowance(0.0, TICK), BURST));
    }
}
