//! Credit returned to the peer, the session and the pool as applications consume; and memory for messages larger
//! than their window.
//!
//! A peer on a wire without credit is held back by not reading from it: `hold`.

mod hold;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::base::Base;
use super::pool::{Growth, Share};
use super::port::{Count, Memory, SessionPort, StreamPort};
use super::state::Receiving;
use super::stream::{Stamp, Stream, owed};
use super::streams::Key;
use super::timers::Timer;
use super::violation::Violation;
use super::window::{RecvWindow, report_mark};
use crate::error::Limit;
use hold::Hold;

/// Session credit is returned in steps of at least this many bytes while it is scarce.
const SCARCE_STEP: u64 = 32 * 1024;
/// A stream that consumes nothing for this long while its session is full counts as stalled.
const STALL: Duration = Duration::from_secs(1);
/// The frames of one message may cost this many bytes beyond twice its size: for a few short pieces
/// where credit ran out.
const PIECES_SLACK: u64 = 64 * 1024;
/// Interval at which streams that wait for memory, or hold it, are checked again.
const RECHECK: Duration = Duration::from_millis(5);
/// Streams' windows are raised by at most the session's largest window divided by this, together.
const WIDENED_SHARE: u64 = 4;
/// The window of a wire without credit, which the peer cannot overrun, in bytes.
const NO_WINDOW: u32 = 1 << 30;

/// A limit of this side that a stream has reached: the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Exceeded {
    pub(crate) key: Key,
    pub(crate) limit: Limit,
    pub(crate) value: u64,
}

/// What gives way where the session's window is scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Victim {
    Stream(Exceeded),
    /// The call that waits longest for a handler.
    Call,
}

/// A session's receive window, and its memory.
#[derive(Debug)]
pub(crate) struct Flow<M> {
    pub(crate) pool: Share<M>,
    pub(crate) window: RecvWindow,
    /// Without credit.
    hold: Hold,
    /// Bytes by which the windows of live streams were raised.
    widened: u64,
    /// A WINDOW frame of the session is owed.
    pub(crate) owed: bool,
    last_return: Instant,
    pub(crate) hungry: bool,
    pub(crate) starved: VecDeque<Key>,
    stalled_since: Option<Instant>,
}

impl<M: Memory> Flow<M> {
    /// With a window of `window` bytes, taken from the `pool`; without credit it grows up to `limit`.
    pub(crate) fn new(pool: Share<M>, credit: bool, window: u32, limit: u32, now: Instant) -> Self {
        Self {
            pool,
            window: RecvWindow::new(Self::initial(credit, window)),
            hold: Hold::new(window.into(), limit.into()),
            widened: 0,
            owed: false,
            last_return: now,
            hungry: false,
            starved: VecDeque::new(),
            stalled_since: None,
        }
    }

    /// The initial window of a session or a stream.
    pub(crate) const fn initial(credit: bool, window: u32) -> u32 {
        if credit { window } else { NO_WINDOW }
    }

    // ---- receiving --------------------------------------------------------------------------

    /// Debits a message, or a piece of one, from the session's window.
    #[inline]
    pub(crate) fn receive(&mut self, cost: u64) -> Result<(), Violation> {
        match self.window.receive(cost) {
            Ok(_) => Ok(()),
            Err(credit) => Err(Violation::SessionCredit { cost, credit }),
        }
    }

    // ---- consuming --------------------------------------------------------------------------

    /// Accounts the bytes that the application has consumed of a stream since the last call.
    pub(crate) fn account<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key, now: Instant) {
        let stamp = base.stamp(now);
        let Some(stream) = base.streams.get_mut(key) else {
            return;
        };
        if stream.discarded {
            return self.settle_lingering(stream);
        }
        let total = stream.port.consumed();
        let consumed = total - stream.consumed;
        if consumed == 0 {
            return;
        }
        stream.consumed = total;
        stream.last_progress = stamp;
        let retired = stream.window.consume(consumed);
        if retired > 0 {
            self.pool.give(retired);
        }
        // Credit goes back to a stream once a quarter of its window has been consumed. Handles report when they have consumed
        // half. Part of that may have been accounted and returned before, and as much again may be consumed before the next
        // report; since less than a quarter is kept back here, a quarter is always left for the peer.
        let returnable = stream.window.returnable();
        let worth_it = returnable * 4 >= stream.window.target()
            || (!base.terms.credit && returnable * 2 >= u64::from(base.config.reported_window()));
        if worth_it && stream.state.receiving == Receiving::Open {
            base.owing.owe(key, stream, owed::WINDOW);
        }
        self.return_to_session(base, consumed - retired);
    }

    /// Bytes that a session held have been consumed or discarded.
    pub(crate) fn return_to_session<S: SessionPort>(&mut self, base: &Base<S>, bytes: u64) {
        self.window.consume(bytes);
        base.app.set(Count::BytesHeld, self.window.held());
        self.return_if_worth_it();
    }

    pub(crate) fn return_if_worth_it(&mut self) {
        let returnable = self.window.returnable();
        self.owed |=
            returnable * 2 >= self.window.target() || (self.hungry && returnable >= SCARCE_STEP);
    }

    /// Whether [`watch_session_window`](Self::watch_session_window) has nothing to do, as is usual where there is credit.
    #[inline(always)]
    pub(crate) fn has_plenty_of_window<S: SessionPort>(&mut self, base: &Base<S>) -> bool {
        let (held, target) = (self.window.held(), self.window.target());
        let plenty =
            !self.hungry && self.window.outstanding() * 4 > target && held * 4 < target * 3;
        if !plenty || !base.terms.credit {
            return false;
        }
        base.app.set(Count::BytesHeld, held);
        self.stalled_since = None;
        true
    }

    /// Checks whether the session is running out of window. Returns what is to end.
    pub(crate) fn watch_session_window<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        now: Instant,
    ) -> Option<Victim> {
        let held = self.window.held();
        base.app.set(Count::BytesHeld, held);
        let (outstanding, target) = if base.terms.credit {
            (self.window.outstanding(), self.window.target())
        } else {
            self.left_to_hold(base, now)
        };
        let hungry = if self.hungry {
            outstanding * 2 < target
        } else {
            // The mark that `relieve` uses is below this one: by then all consumption is reported.
            outstanding * 4 <= target
        };
        // The streams were checked a moment ago, and are again soon.
        let looked = base.timers.is_set(Timer::Recheck);
        if hungry != self.hungry {
            self.hungry = hungry;
            base.app.set_hungry(hungry);
            if hungry {
                // Consumption below the mark was not reported; from now on all is. A release that races with
                // the flag is found by the recheck.
                if !looked {
                    self.account_all(base, now);
                }
                recheck_soon(base, now);
            }
        }
        if hungry {
            // Credit too small for a frame before may now be all that the peer can wait for.
            self.return_if_worth_it();
        }
        if self.window.held() * 4 < self.window.target() * 3 {
            self.stalled_since = None;
            return None;
        }
        self.relieve(base, now, looked)
    }

    pub(crate) fn account_all<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) {
        let keys: Vec<Key> = base.streams.iter_mut().map(|(key, _)| key).collect();
        for key in keys {
            self.release_open_charge(base, key);
            self.account(base, key, now);
        }
    }

    /// The part of the session's credit that an OPEN holds is returned when the stream is accepted.
    pub(crate) fn release_open_charge<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) {
        let Some(stream) = base.streams.get_mut(key) else {
            return;
        };
        if stream.open_charge > 0 && stream.port.is_accepted() {
            let charge = std::mem::take(&mut stream.open_charge);
            self.return_to_session(base, charge.into());
        }
    }

    // ---- scarce memory ----------------------------------------------------------------------

    /// Three quarters of the session's window are held by streams that do not consume and calls that no handler takes: raises
    /// it from the pool, or returns the call that waits longest if calls hold most of it, else the stream that has stalled
    /// longest, to be ended, so that the others continue. Checked with each recheck, not with each reception.
    #[cold]
    fn relieve<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        now: Instant,
        looked: bool,
    ) -> Option<Victim> {
        if self.grow_session_window(base, Growth::Full) {
            self.stalled_since = None;
            self.owed = true;
            return None;
        }
        if looked {
            return None;
        }
        recheck_soon(base, now);
        if self.cover_assemblies(base, now) {
            return None;
        }
        let since = *self.stalled_since.get_or_insert(now);
        if now.duration_since(since) < STALL {
            return None;
        }
        if base.calls.count_charges() * 2 > self.window.held() {
            return Some(Victim::Call);
        }
        let now = base.stamp(now);
        let held =
            |stream: &Stream<S::Stream>| stream.window.held() + u64::from(stream.open_charge);
        let streams = base.streams.iter_mut();
        streams
            .map(|(key, stream)| (key, held(stream), stream.last_progress))
            .filter(|(_, held, since)| *held > 0 && now.since(*since) >= STALL)
            .min_by_key(|(.., since)| *since)
            .map(|(key, value, _)| {
                Victim::Stream(Exceeded {
                    key,
                    limit: Limit::StalledStream,
                    value,
                })
            })
    }

    /// Messages with missing pieces cannot be consumed, and the missing pieces need the session's window: moves
    /// the charge of the received pieces to the pool. True if any was moved.
    fn cover_assemblies<S: SessionPort>(&mut self, base: &mut Base<S>, now: Instant) -> bool {
        let mut moved = 0;
        for (_, stream) in base.streams.iter_mut() {
            let Some(assembly) = stream.assembly.as_ref().filter(|_| !stream.chunks) else {
                continue;
            };
            let cost = assembly.cost.min(stream.window.uncovered());
            if cost > 0 && self.pool.take_for_message(cost, false) {
                stream.window.cover(cost);
                moved += cost;
            }
        }
        if moved > 0 {
            check_advances_in_time(base, now);
        }
        self.return_to_session(base, moved);
        moved > 0
    }

    /// Doubles the session's window if its maximum and the pool allow.
    fn grow_session_window<S: SessionPort>(&mut self, base: &Base<S>, why: Growth) -> bool {
        let target = self.window.target();
        let wanted = (target * 2).min(u64::from(base.config.session_window_max()));
        let may = wanted > target && wanted <= self.pool.window_max();
        if !may || !self.pool.take_to_grow(wanted - target, why) {
            return false;
        }
        self.window.grow(wanted);
        base.app.add(Count::WindowsGrown, 1);
        true
    }

    // ---- messages in pieces -----------------------------------------------------------------

    /// Makes sure that the rest of a message in pieces can be sent: with the bytes that the application has consumed,
    /// else with an advance from the pool, else later.
    pub(crate) fn feed_assembly<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        key: Key,
        now: Instant,
    ) -> Option<Exceeded> {
        self.account(base, key, now);
        let max_piece = u64::from(base.config.max_frame());
        let stream = base.streams.get_mut(key)?;
        let assembly = stream.assembly.as_deref().copied()?;
        if stream.state.receiving != Receiving::Open || stream.chunks {
            return None;
        }
        if !base.terms.credit {
            return self.on_piece(base, key, now);
        }
        let received = u64::from(assembly.received);
        let exceeded = |limit, value| Some(Exceeded { key, limit, value });
        // Of a message of unknown size, one more piece.
        let total = assembly.total.map_or(received + max_piece, u64::from);
        let rest = total - received;
        let need = rest + u64::from(S::Stream::CHARGE) * rest.div_ceil(max_piece).max(1);
        let whole = assembly.cost + need;
        if whole > 2 * total + PIECES_SLACK {
            return exceeded(Limit::MessagePieces, whole);
        }
        let has = stream.window.outstanding();
        if has >= need {
            stream.set_starved(false, now);
            return None;
        }
        let short = need.saturating_sub(has + stream.window.returnable());
        // A message that fits into the window waits for the application, not for memory.
        let fits = whole <= stream.window.target();
        let waiting = stream.window.held().saturating_sub(assembly.cost);
        let advance = !fits && waiting <= stream.window.target();
        if short == 0 || (advance && self.pool.take_for_message(short, assembly.given)) {
            stream.window.advance(short);
            stream.set_starved(false, now);
            if let Some(assembly) = stream.assembly.as_mut().filter(|_| short > 0) {
                assembly.given = true;
            }
            base.owing.owe(key, stream, owed::WINDOW);
            if short > 0 {
                check_advances_in_time(base, now);
            }
            return None;
        }
        let timeout = base.config.message_timeout();
        let late = |from| now.saturating_duration_since(from) >= timeout;
        if !fits && assembly.starved.is_some_and(late) {
            return exceeded(Limit::MessageMemory, total);
        }
        stream.set_starved(true, now);
        // From now on each release is reported. One that raced with this is found by the next recheck.
        if fits && assembly.starved.is_some() {
            return None;
        }
        if !std::mem::replace(&mut stream.listed_starved, true) {
            self.starved.push_back(key);
        }
        recheck_soon(base, now);
        None
    }

    /// A stream that waits for memory, and is due for a check.
    pub(crate) fn next_starved<S: SessionPort>(&mut self, base: &mut Base<S>) -> Option<Key> {
        loop {
            let key = self.starved.pop_front()?;
            if let Some(stream) = base.streams.get_mut(key) {
                stream.listed_starved = false;
                return Some(key);
            }
        }
    }

    /// Finds messages that were given memory beyond the window, or are in a session without credit that was, and do not
    /// progress at the least rate: their streams are to end, which returns the memory. A peer without credit for the next piece,
    /// or that is not read, cannot send it: then the application here does not consume, or memory is lacking.
    pub(crate) fn check_advances<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        now: Instant,
    ) -> Option<Exceeded> {
        let timeout = base.config.message_timeout();
        let mut late = None;
        let waits = self.hold.waits(base);
        let Base {
            streams, timers, ..
        } = base;
        for (key, stream) in streams.iter_mut() {
            let Some(assembly) = &stream.assembly else {
                continue;
            };
            let has_memory = stream.window.advanced() > 0 || self.hold.is_raised();
            if stream.chunks || !has_memory {
                continue;
            }
            let since = match assembly.starved.or_else(|| waits(assembly)) {
                Some(from) => assembly.excused(from, now),
                None => assembly.since,
            };
            let at = since + timeout;
            if at > now {
                timers.set_by(Timer::Advances, at);
                continue;
            }
            let exceeded = Exceeded {
                key,
                limit: Limit::MessageStalled,
                value: assembly.total.unwrap_or(assembly.received).into(),
            };
            if late.replace(exceeded).is_some() {
                // One at a time: the next one at once afterwards.
                timers.set_by(Timer::Advances, now);
            }
        }
        late
    }

    // ---- the end of a direction -------------------------------------------------------------

    /// The receiving direction is over: the bytes it holds count as consumed, so that ended streams stop no others. Pieces of
    /// a message are dropped. Queued bytes are charged to the pool until the application consumes them or drops the stream.
    pub(crate) fn discard_received<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) {
        if let Some(stream) = base.streams.get_mut(key) {
            let bytes = self.discard(stream);
            self.return_to_session(base, bytes);
        }
    }

    /// The same, without returning the bytes to the session: 0, if it was called before.
    #[inline(always)]
    fn discard<P: StreamPort>(&mut self, stream: &mut Stream<P>) -> u64 {
        if std::mem::replace(&mut stream.discarded, true) {
            return 0;
        }
        stream.assembly = None;
        let total = stream.port.consumed();
        let consumed = total - std::mem::replace(&mut stream.consumed, total);
        let retired = stream.window.consume(consumed);
        let queued = stream.put_in_order();
        stream.lingering = queued as u32;
        let (to_session, to_pool) = stream.window.discard();
        self.pool.keep(retired + to_pool, queued);
        consumed - retired + to_session
    }

    /// The application has read from a stream whose direction was discarded.
    fn settle_lingering<P: StreamPort>(&mut self, stream: &mut Stream<P>) {
        if stream.lingering > 0 && stream.port.unconsumed() == 0 {
            self.pool.give(std::mem::take(&mut stream.lingering).into());
        }
    }

    /// The peer has ended the direction inside a message: its pieces are dropped, and the messages before it are delivered.
    pub(crate) fn drop_unfinished<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) {
        let Some(stream) = base.streams.get_mut(key) else {
            return;
        };
        stream.assembly = None;
        let unused = stream.window.retire_unused();
        let pieces = stream.port.retract();
        let retired = stream.window.consume(pieces);
        self.pool.give(unused + retired);
        self.return_to_session(base, pieces - retired);
    }

    /// The stream is gone. Returns the bytes that go back to the session.
    pub(crate) fn forget<P: StreamPort>(&mut self, stream: &mut Stream<P>) -> u64 {
        self.widened -= u64::from(stream.widened);
        let held = match stream.discarded || stream.window.advanced() > 0 {
            // The session's part is all, however much of it was consumed.
            false => stream.window.held(),
            true => self.forget_rest(stream),
        };
        held + u64::from(stream.open_charge)
    }

    /// The same where some of it is on the pool's account.
    #[cold]
    #[inline(never)]
    fn forget_rest<P: StreamPort>(&mut self, stream: &mut Stream<P>) -> u64 {
        let discarded = self.discard(stream);
        self.pool.give(stream.lingering.into());
        discarded
    }

    // ---- credit for the peer ----------------------------------------------------------------

    /// Credit of the session, if it is owed. A window used up within two round trips is doubled.
    pub(crate) fn give_session_back<S: SessionPort>(
        &mut self,
        base: &Base<S>,
        rtt: Option<Duration>,
        now: Instant,
    ) -> Option<NonZeroU32> {
        if rtt.is_some_and(|rtt| now.duration_since(self.last_return) < 2 * rtt) {
            self.grow_session_window(base, Growth::Fast);
        }
        self.last_return = now;
        credit(self.window.give_back())
    }

    /// Credit of a stream. A window used up within two round trips is doubled.
    pub(crate) fn give_stream_back<S: SessionPort>(
        &mut self,
        base: &mut Base<S>,
        key: Key,
        rtt: Option<Duration>,
        now: Instant,
    ) -> Option<NonZeroU32> {
        let max = u64::from(base.config.stream_window_max());
        let most = u64::from(base.config.session_window_max()) / WIDENED_SHARE;
        let now: Stamp = base.stamp(now);
        let stream = base.streams.get_mut(key)?;
        let fast = rtt.is_some_and(|rtt| now.since(stream.last_return) < 2 * rtt);
        let target = stream.window.target();
        let step = (target * 2).min(max).saturating_sub(target);
        // The growth of fast streams, which may stall later, must not fill the session.
        if fast && step > 0 && step <= most - self.widened {
            self.widened += step;
            stream.widened += step as u32;
            stream.window.grow(target + step);
            base.app.add(Count::WindowsGrown, 1);
            if (stream.assembly.as_ref()).is_none_or(|assembly| assembly.starved.is_none()) {
                let mark = report_mark(stream.window.target());
                stream.port.set_credit_mark(mark);
            }
        }
        stream.last_return = now;
        credit(stream.window.give_back())
    }
}

/// As much as fits into one frame.
fn credit(bytes: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// Sets the timer for the next check of streams that wait for memory or hold it.
pub(super) fn recheck_soon<S: SessionPort>(base: &mut Base<S>, now: Instant) {
    base.timers.set_by(Timer::Recheck, now + RECHECK);
}

/// Memory was given for an incomplete message: sets the timer that checks its progress.
fn check_advances_in_time<S: SessionPort>(base: &mut Base<S>, now: Instant) {
    let at = now + base.config.message_timeout();
    base.timers.set_by(Timer::Advances, at);
}
