//! The virtual network: bytes in one direction, with delay, splitting, stalls, freezes and cuts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A small generator (splitmix64): every run is a function of its seed.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for one part of a run, so that parts do not disturb each other.
    pub(crate) fn of(seed: u64, part: u64) -> Self {
        let mut rng = Self(seed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn range(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// True in one of `n` cases; never if that is 0.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        n > 0 && self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn micros(&mut self, to: usize) -> Duration {
        Duration::from_micros(self.below(to + 1) as u64)
    }
}

/// The ways in which a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Eof,
    Error,
}

/// The properties of the network.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// Maximum delay of a byte, in microseconds.
    pub(super) delay: usize,
    /// Maximum of bytes under way.
    pub(super) capacity: usize,
    /// Maximum of bytes per write and per read; 0 is no limit.
    pub(super) piece: usize,
    /// One in this many writes is followed by a pause; 0 is never.
    pub(super) stall: usize,
    /// Bytes that pass in a second, one [`SLOW_PIECE`] after the other, and the writer's system can count those left; 0: all
    /// pass at once, and it cannot.
    pub(super) rate: usize,
}

/// Bytes that a slow direction passes on at a time.
const SLOW_PIECE: usize = 1448;

impl Weather {
    /// No delay, no splitting.
    pub(super) const FAIR: Self = Self {
        delay: 0,
        capacity: 1 << 22,
        piece: 0,
        stall: 0,
        rate: 0,
    };
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Nothing,
    Bytes(usize),
    End(Cut),
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    weather: Weather,
    rng: Rng,
    chunks: VecDeque<(Instant, VecDeque<u8>)>,
    queued: usize,
    /// Bytes written since the start.
    written: u64,
    last: Instant,
    /// After this many bytes the direction ends in this way.
    pub(super) cut: Option<(u64, Cut)>,
    /// Between these times nothing arrives; it does afterwards.
    pub(super) frozen: Option<(Instant, Instant)>,
    /// How the direction has ended, and when its reader can know.
    closed: Option<(Instant, Cut)>,
    /// The reader is gone: written bytes are accepted and lost.
    sunk: bool,
}

impl Pipe {
    pub(super) fn new(weather: Weather, rng: Rng, now: Instant) -> Self {
        Self {
            weather,
            rng,
            chunks: VecDeque::new(),
            queued: 0,
            written: 0,
            last: now,
            cut: None,
            frozen: None,
            closed: None,
            sunk: false,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.queued < self.weather.capacity || self.closed.is_some()
    }

    fn split(&mut self, most: usize) -> usize {
        if self.weather.piece == 0 {
            return most;
        }
        let piece = match self.rng.below(8) {
            0 => 1,
            1..4 => self.rng.range(1, 40),
            _ => self.rng.range(1, self.weather.piece),
        };
        piece.min(most)
    }

    /// Accepts some bytes, as many as it returns; `None` if there is no room. `Err` after a cut.
    pub(super) fn write(&mut self, bytes: &[u8], now: Instant) -> Result<Option<usize>, ()> {
        if self.closed.is_some() {
            return Err(());
        }
        if self.sunk {
            return Ok(Some(bytes.len()));
        }
        let room = self.weather.capacity.saturating_sub(self.queued);
        if room == 0 {
            return Ok(None);
        }
        let n = self.split(bytes.len().min(room));
        let (mut kept, mut ends) = (n, None);
        if let Some((at, cut)) = self.cut
            && self.written + n as u64 >= at
        {
            kept = (at - self.written) as usize;
            ends = Some(cut);
        }
        self.written += n as u64;
        let mut arrives = now + self.rng.micros(self.weather.delay);
        if self.weather.stall > 0 && self.rng.one_in(self.weather.stall) {
            arrives += self.rng.micros(200_000);
        }
        self.last = self.last.max(self.thawed(arrives));
        self.closed = ends.map(|cut| (self.last, cut));
        if self.weather.rate > 0 {
            self.pass_slowly(&bytes[..kept]);
        } else if kept > 0 {
            self.queued += kept;
            let chunk = bytes[..kept].to_vec().into();
            self.chunks.push_back((self.last, chunk));
        }
        Ok(Some(n))
    }

    fn pass_slowly(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(SLOW_PIECE) {
            let takes = Duration::from_secs_f64(piece.len() as f64 / self.weather.rate as f64);
            self.last = self.thawed(self.last + takes);
            self.queued += piece.len();
            self.chunks.push_back((self.last, piece.to_vec().into()));
        }
    }

    /// Bytes that have not left, as the writer's system sees it.
    pub(super) fn queued(&self, now: Instant) -> Option<u64> {
        let here = self.chunks.iter().filter(|(arrives, _)| *arrives > now);
        let here = here.map(|(_, chunk)| chunk.len() as u64).sum();
        (self.weather.rate > 0).then_some(here)
    }

    /// How it has ended, as its reader's system knows in front of bytes that are not read.
    pub(super) fn ended(&self, now: Instant) -> Option<Cut> {
        let known = self.closed.filter(|(at, _)| *at <= now);
        known.map(|(_, cut)| cut)
    }

    /// Bytes have arrived that were not read, or are under way.
    pub(super) const fn has_bytes(&self) -> bool {
        self.queued > 0
    }

    /// The reader is gone.
    pub(super) const fn has_no_reader(&self) -> bool {
        self.sunk
    }

    /// The reader waits for the end only, and then goes.
    pub(super) fn sink(&mut self) {
        self.sunk = true;
        self.chunks.clear();
        self.queued = 0;
    }

    /// The writer has shut this direction down, or is gone.
    pub(super) fn shut(&mut self, how: Cut, now: Instant) {
        self.last = self.last.max(self.thawed(now));
        self.closed.get_or_insert((self.last, how));
    }

    /// When bytes due at `at` arrive.
    fn thawed(&self, at: Instant) -> Instant {
        match self.frozen {
            Some((from, to)) if (from..to).contains(&at) => to,
            _ => at,
        }
    }

    pub(super) fn read(&mut self, into: &mut bytes::BytesMut, room: usize, now: Instant) -> Read {
        let Some((arrives, _)) = self.chunks.front() else {
            return match self.closed {
                Some((at, cut)) if at <= now => Read::End(cut),
                _ => Read::Nothing,
            };
        };
        if *arrives > now {
            return Read::Nothing;
        }
        let most = self.split(room.max(1));
        let mut n = 0;
        while n < most {
            let Some((arrives, chunk)) = self.chunks.front_mut() else {
                break;
            };
            if *arrives > now {
                break;
            }
            let take = chunk.len().min(most - n);
            let (a, b) = chunk.as_slices();
            let first = take.min(a.len());
            into.extend_from_slice(&a[..first]);
            into.extend_from_slice(&b[..take - first]);
            chunk.drain(..take);
            n += take;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.queued -= n;
        Read::Bytes(n)
    }

    pub(super) fn is_readable(&self, now: Instant) -> bool {
        self.next_arrival().is_some_and(|at| at <= now)
    }

    /// Of bytes, or of the end.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        let bytes = self.chunks.front().map(|(arrives, _)| *arrives);
        bytes.or(self.closed.map(|(at, _)| at))
    }

    /// Flips a byte that is under way, counted from the oldest; false if there is none.
    pub(super) fn flip(&mut self, mut index: usize) -> bool {
        for (_, chunk) in &mut self.chunks {
            if let Some(byte) = chunk.get_mut(index) {
                *byte ^= 0x20;
                return true;
            }
            index -= chunk.len();
        }
        false
    }
}
