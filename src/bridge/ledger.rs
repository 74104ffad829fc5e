//! Counters that outlive their sessions: a ledger for each engine, all of them known to the process.
//!
//! ```text
//!   process ──► ledgers, taken by engines ──► blocks of counters, taken by sessions ◄── engine writes, any thread reads
//! ```
//! A session takes a block of counters and returns it when its last handle is gone. The next session continues
//! from its numbers and remembers the values at its start ([`Entry::since_start`]). So the sum over all
//! blocks covers all sessions since the start, those that have gone included: nothing is moved when one
//! ends, sums never decrease, and memory is bounded by the sessions that existed at once. The same holds for ledgers and
//! engines.
//!
//! To the protocol, which reads raw counters, only differences are meaningful.
//!
//! Each block has one writer, the engine of the session that owns it. Readers take no part; sums may be off by
//! concurrent updates.

use std::ops::Deref;

use crossbeam_utils::CachePadded;

use super::counter::Counter;
use super::stats::{Counters, SessionStats};
use crate::error::SessionError;
use crate::queue::{PerProcess, SetOnce, SlotKey, Slots};
use crate::sync::Arc;

macro_rules! ends {
    ($($(#[$doc:meta])* $name:ident: $pattern:pat),+ $(,)?) => {
        #[derive(Debug, Default)]
        struct EndCounters { $($name: Counter),+ }

        /// Sessions that have ended, by reason; see [`SessionError`](crate::SessionError).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SessionEnds { $($(#[$doc])* pub $name: u64),+ }

        impl EndCounters {
            fn count(&self, reason: &SessionError) {
                match reason { $($pattern => self.$name.add(1)),+ }
            }

            fn snapshot(&self) -> SessionEnds {
                SessionEnds { $($name: self.$name.get()),+ }
            }
        }

        impl SessionEnds {
            /// Each reason by name, and the number of sessions that ended for it.
            ///
            /// # Examples
            /// ```
            /// let totals = ringmux::process_stats().totals;
            /// let ended: u64 = totals.ended.by_reason().map(|(_, sessions)| sessions).sum();
            /// assert!(ended <= totals.started);
            /// assert!(totals.ended.by_reason().any(|(reason, _)| reason == "keepalive_timeout"));
            /// ```
            pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }

            const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            const fn since(&self, base: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(base.$name)),+ }
            }
        }
    };
}

ends! {
    /// Closed by this side.
    closed: SessionError::Closed,
    /// Closed by the peer.
    peer_closed: SessionError::PeerClosed { .. },
    /// The connection ended without a GOAWAY.
    disconnected: SessionError::Disconnected,
    /// The socket failed.
    io: SessionError::Io(_),
    /// The peer broke the protocol.
    protocol: SessionError::Protocol(_),
    /// The peer tripped a limit of this side.
    limit_exceeded: SessionError::LimitExceeded(_),
    /// The handshake did not complete in time.
    handshake_timeout: SessionError::HandshakeTimeout(_),
    /// The peer gave no sign of life.
    keepalive_timeout: SessionError::KeepaliveTimeout(_),
    /// The socket took no bytes.
    write_timeout: SessionError::WriteTimeout(_),
    /// The engine stopped.
    engine_stopped: SessionError::EngineStopped,
}

/// Counters summed over several sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Sessions started, also those whose handshake failed.
    pub started: u64,
    /// Sessions that have ended, by reason.
    pub ended: SessionEnds,
    /// The sums over all of them, those that have ended included; of current numbers (`streams`,
    /// `bytes_held`), over the live ones.
    ///
    /// `wakes_issued` is as of the last time that each session slept.
    pub sessions: SessionStats,
}

impl Totals {
    /// Sessions that have not ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        let ended: u64 = self.ended.by_reason().map(|(_, count)| count).sum();
        self.started.saturating_sub(ended)
    }

    const fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.ended.add(&other.ended);
        self.sessions.add(&other.sessions);
    }

    const fn since(&self, base: &Self) -> Self {
        Self {
            started: self.started.saturating_sub(base.started),
            ended: self.ended.since(&base.ended),
            sessions: self.sessions.since(&base.sessions),
        }
    }
}

/// The counters of one session after another.
#[derive(Debug, Default)]
struct Block {
    counters: Counters,
    started: Counter,
    ended: EndCounters,
}

/// The blocks of one engine after another. Created by the owner of the slot.
#[derive(Debug, Default)]
struct Ledger(Slots<SetOnce<Arc<CachePadded<Block>>>>);

impl Ledger {
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for block in self.0.all().filter_map(SetOnce::get) {
            totals.add(&Totals {
                // Before the start: of a session that ends concurrently both are counted, or the start alone.
                ended: block.ended.snapshot(),
                started: block.started.get(),
                sessions: block.counters.snapshot(),
            });
        }
        totals
    }
}

type Ledgers = Slots<SetOnce<Arc<Ledger>>>;

fn process() -> &'static Ledgers {
    static PROCESS: PerProcess<Ledgers> = PerProcess::new();
    PROCESS.get_or_init(Slots::new)
}

/// The counters of all sessions of the process.
pub(crate) fn process_totals() -> Totals {
    let mut totals = Totals::default();
    for ledger in process().all().filter_map(SetOnce::get) {
        totals.add(&ledger.totals());
    }
    totals
}

/// The value of a slot whose holder is the caller.
fn value_of<T: Default>(slot: &SetOnce<Arc<T>>) -> Arc<T> {
    if slot.get().is_none() {
        // No other thread sets it: this one owns the slot.
        let _ = slot.set(Arc::default());
    }
    slot.get().map(Arc::clone).unwrap_or_default()
}

/// An engine's ledger, returned after the engine and the last of its sessions have gone.
#[derive(Debug)]
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    /// The pool it belongs to: not the ledgers of the process that drops it, which may be a fork.
    ledgers: &'static Ledgers,
    key: Option<SlotKey>,
    /// The numbers that earlier engines had counted in it.
    base: Totals,
}

impl Account {
    pub(crate) fn new() -> Arc<Self> {
        let ledgers = process();
        let key = ledgers.claim();
        let ledger = value_of(ledgers.value(&key));
        Arc::new(Self {
            base: ledger.totals(),
            ledger,
            ledgers,
            key: Some(key),
        })
    }

    /// The account of sessions without an engine.
    pub(crate) fn of_the_process() -> Arc<Self> {
        static UNHOSTED: PerProcess<Arc<Account>> = PerProcess::new();
        Arc::clone(UNHOSTED.get_or_init(Self::new))
    }

    pub(crate) fn totals(&self) -> Totals {
        self.ledger.totals().since(&self.base)
    }

    /// Begins to count a session.
    pub(super) fn open(account: &Arc<Self>) -> Entry {
        let key = account.ledger.0.claim();
        let block = value_of(account.ledger.0.value(&key));
        // Numbers left by a session that has ended belong to no session.
        block.counters.streams.set(0);
        block.counters.bytes_held.set(0);
        let base = block.counters.snapshot();
        block.started.add(1);
        Entry {
            account: Arc::clone(account),
            key: Some(key),
            base,
            block,
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.ledgers.release(key);
        }
    }
}

/// A session's block.
#[derive(Debug)]
pub(crate) struct Entry {
    block: Arc<CachePadded<Block>>,
    /// The numbers that earlier sessions had counted in it.
    base: SessionStats,
    account: Arc<Account>,
    key: Option<SlotKey>,
}

impl Entry {
    /// The session's own numbers.
    pub(super) fn since_start(&self) -> SessionStats {
        self.block.counters.snapshot().since(&self.base)
    }

    /// The number of wakes by the session's bell.
    pub(super) fn note_wakes(&self, wakes: u64) {
        self.wakes.set(self.base.wakes_issued + wakes);
    }

    /// The session ends. Called once.
    pub(super) fn end(&self, reason: &SessionError, wakes: u64) {
        self.note_wakes(wakes);
        self.block.ended.count(reason);
    }
}

impl Deref for Entry {
    type Target = Counters;

    #[inline]
    fn deref(&self) -> &Counters {
        &self.block.counters
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.account.ledger.0.release(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger that no other test uses.
    fn account() -> Arc<Account> {
        Arc::new(Account {
            ledger: Arc::default(),
            ledgers: process(),
            key: None,
            base: Totals::default(),
        })
    }

    #[test]
    fn a_session_sees_its_own_numbers_and_the_sum_keeps_those_of_all() {
        let account = account();
        for round in 1..=3 {
            let (one, other) = (Account::open(&account), Account::open(&account));
            one.messages_sent.add(5);
            one.streams.set(2);
            assert_eq!(one.since_start().messages_sent, 5);
            assert_eq!(other.since_start(), SessionStats::default());
            let totals = account.totals();
            assert_eq!((totals.started, totals.open()), (2 * round, 2));
            assert_eq!(totals.sessions.messages_sent, 5 * round);
            assert_eq!(totals.sessions.streams, 2);
            one.end(&SessionError::Closed, 1);
            other.end(&SessionError::Disconnected, 0);
            let ended = account.totals().ended;
            assert_eq!((ended.closed, ended.disconnected), (round, round));
        }
        assert_eq!(
            account.ledger.0.all().filter(|slot| slot.is_set()).count(),
            2
        );
        assert_eq!(account.totals().sessions.wakes_issued, 3);
    }

    #[test]
    fn an_engine_sees_its_own_sum_and_the_process_that_of_all() {
        let before = process_totals().started;
        for round in 1..=3 {
            let account = Account::new();
            assert_eq!(account.totals(), Totals::default());
            let entry = Account::open(&account);
            drop(account);
            assert_eq!(entry.account.totals().started, 1);
            // Other tests may start sessions meanwhile.
            assert!(process_totals().started >= before + round);
        }
    }
}
