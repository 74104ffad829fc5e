//! Faults of the fake ring, and counts of their occurrences.

/// Order of a cancel and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Race {
    /// The target ends first, then the cancel.
    Before,
    /// The cancel is done first; the target ends later.
    After,
    /// The target can no longer be cancelled; it ends later by itself.
    Already,
    /// Data arrives just before, which may complete the target.
    Data,
}

/// The faults of a ring. Odds are `one in so many`, 0 for never; sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Operations that can be queued.
    pub(super) queue: usize,
    /// Completions that can wait; more overflow.
    pub(super) completions: usize,
    pub(super) buffers: u16,
    /// Sockets with a fixed place.
    pub(super) places: u32,
    /// An operation that could complete does so later.
    pub(super) hold: usize,
    /// An operation ends with `EINTR` or `EAGAIN`.
    pub(super) interrupt: usize,
    /// A multishot operation ends without an error.
    pub(super) disarm: usize,
    /// A send is short, and takes at most this much.
    pub(super) short: usize,
    pub(super) send: usize,
    /// The most bytes received at a time.
    pub(super) receive: usize,
    /// A completion of an operation that ended with its socket is posted again, or one with an unknown token.
    pub(super) stale: usize,
    /// A receive that ends without data has consumed a buffer.
    pub(super) waste: usize,
    /// A direct send takes some bytes; otherwise it takes none and goes through the ring.
    pub(super) direct: usize,
    /// A connection is reset.
    pub(super) reset: usize,
    /// `None`: any.
    pub(super) race: Option<Race>,
    pub(super) sabotage: Sabotage,
}

/// A fault that no driver can survive, to prove the checks. Injected once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// A received byte changes.
    Flip,
    /// A completion is lost.
    Lose,
}

impl Faults {
    /// No faults.
    pub(super) const NONE: Self = Self {
        queue: 256,
        completions: 4096,
        buffers: 16,
        places: 1024,
        hold: 0,
        interrupt: 0,
        disarm: 0,
        short: 0,
        send: usize::MAX,
        receive: usize::MAX,
        stale: 0,
        waste: 0,
        direct: 0,
        reset: 0,
        race: None,
        sabotage: Sabotage::None,
    };
}

/// Occurrences of each fault, to prove that a run meets them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) numbers: [u64; Happened::Waited as usize + 1],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Happened {
    Multi,
    Single,
    Cancel,
    Short,
    Refused,
    NoBuffers,
    Interrupted,
    Disarmed,
    Overflowed,
    Reset,
    Stale,
    Wasted,
    Bell,
    SentNow,
    ReceivedNow,
    Waited,
}

impl Tally {
    pub(super) const fn count(&mut self, what: Happened) {
        self.numbers[what as usize] += 1;
    }

    pub(super) const fn of(&self, what: Happened) -> u64 {
        self.numbers[what as usize]
    }

    pub(super) fn add(&mut self, other: Self) {
        for (sum, number) in self.numbers.iter_mut().zip(other.numbers) {
            *sum += number;
        }
    }

    pub(super) fn least(&self) -> u64 {
        self.numbers.iter().copied().min().unwrap_or_default()
    }
}
