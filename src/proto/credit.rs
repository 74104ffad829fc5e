//! Credit that comes back: what applications consumed, to the peer, the session and the pool; and
//! memory for messages larger than their window.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::outbound::Outbound;
use super::pool::Growth;
use super::registry::Key;
use super::state::{Event, Receiving};
use super::stream::{Stream, owed, wake};
use super::timers::Timer;
use super::window::report_mark;
use crate::error::{Limit, LimitExceeded, StreamError};
use crate::frame::{FRAME_COST, codes};
use crate::link::{RecvEnd, SendEnd, failure, tx_tag};

/// Session credit is returned in steps of at least this while it is scarce, in bytes.
const SCARCE_STEP: u64 = 32 * 1024;
/// A stream that consumed nothing for this long while its session is full counts as stalled.
const STALL: Duration = Duration::from_secs(1);
/// What the frames of one message may cost beyond twice its size, in bytes: a few short pieces
/// where credit ran out.
const PIECES_SLACK: u64 = 64 * 1024;

impl Connection {
    /// Books what the application has consumed of a stream since the last time.
    pub(super) fn account(&mut self, key: Key, now: Instant) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.discarded {
            return self.settle_lingering(key);
        }
        let total = stream.lane().consumed();
        let consumed = total - stream.consumed;
        if consumed == 0 {
            return;
        }
        stream.consumed = total;
        stream.last_progress = self.stamps.of(now);
        let retired = stream.window.consume(consumed);
        if retired > 0 {
            self.pool.give(retired);
        }
        self.return_to_session(consumed - retired);
        self.return_to_stream(key);
    }

    /// Owes the peer a WINDOW for a stream once a quarter of it has been consumed.
    ///
    /// Handles report when they have consumed half of it. Part of that may have been accounted and
    /// returned before, and as much again may be consumed before the next report; with less than a
    /// quarter kept back here, a quarter is always left for the peer.
    fn return_to_stream(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        let worth_it = stream.window.returnable() * 4 >= stream.window.target();
        if worth_it && stream.state.receiving == Receiving::Open {
            Self::owe(&mut self.owing, key, stream, owed::WINDOW);
        }
    }

    /// Bytes that a session held have been consumed or thrown away.
    pub(super) fn return_to_session(&mut self, bytes: u64) {
        self.window.consume(bytes);
        self.link.counters.bytes_held.set(self.window.held());
        self.return_if_worth_it();
    }

    fn return_if_worth_it(&mut self) {
        let returnable = self.window.returnable();
        self.window_owed |=
            returnable * 2 >= self.window.target() || (self.hungry && returnable >= SCARCE_STEP);
    }

    /// Is the session running out of window?
    pub(super) fn watch_session_window(&mut self, now: Instant) {
        self.link.counters.bytes_held.set(self.window.held());
        let (outstanding, target) = (self.window.outstanding(), self.window.target());
        let hungry = if self.hungry {
            outstanding * 2 < target
        } else {
            // What `relieve` acts on is among it: by then all that was consumed has been reported.
            outstanding * 4 <= target
        };
        // All streams were looked at a moment ago, and are again soon.
        let looked = self.timers.is_set(Timer::Recheck);
        if hungry != self.hungry {
            self.hungry = hungry;
            self.link.set_hungry(hungry);
            if hungry {
                // What was consumed below the mark was not reported; from now on all is. A release that races with
                // the flag is found by the recheck.
                if !looked {
                    self.account_all(now);
                }
                self.recheck_soon(now);
            }
        }
        if hungry {
            // What was not worth a frame before may be all that the peer can hope for now.
            self.return_if_worth_it();
        }
        self.relieve(now, looked);
    }

    fn account_all(&mut self, now: Instant) {
        let keys: Vec<Key> = self.registry.iter_mut().map(|(key, _)| key).collect();
        for key in keys {
            self.release_open_charge(key);
            self.account(key, now);
        }
    }

    /// The part of the session's credit that an OPEN holds goes back when the stream is accepted.
    pub(super) fn release_open_charge(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.open_charge > 0 && stream.lane().accepted() {
            let charge = std::mem::take(&mut stream.open_charge);
            self.return_to_session(charge.into());
        }
    }

    /// Streams wait for memory, or the session is nearly full: look again.
    pub(super) fn recheck_memory(&mut self, now: Instant) {
        if self.hungry {
            self.account_all(now);
        }
        self.watch_session_window(now);
        for _ in 0..self.starved.len() {
            let Some(key) = self.starved.pop_front() else {
                break;
            };
            if let Some(stream) = self.registry.get_mut(key) {
                stream.listed_starved = false;
                self.feed_assembly(key, now);
            }
        }
    }

    /// Three quarters of the session's window are held by streams that do not consume: raise it
    /// from the pool, or end the one that has stalled longest, so that the others go on. The streams are looked at
    /// with each recheck, and not with each reception.
    fn relieve(&mut self, now: Instant, looked: bool) {
        if self.window.held() * 4 < self.window.target() * 3 {
            self.stalled_since = None;
            return;
        }
        if self.grow_session_window(Growth::Full) {
            self.stalled_since = None;
            self.window_owed = true;
            return;
        }
        if looked {
            return;
        }
        self.recheck_soon(now);
        if self.cover_assemblies(now) {
            return;
        }
        let since = *self.stalled_since.get_or_insert(now);
        if now.duration_since(since) < STALL {
            return;
        }
        let now = self.stamps.of(now);
        let held = |stream: &Stream| stream.window.held() + u64::from(stream.open_charge);
        let stalled = self
            .registry
            .iter_mut()
            .map(|(key, stream)| (key, held(stream), stream.last_progress))
            .filter(|(_, held, since)| *held > 0 && now.since(*since) >= STALL)
            .min_by_key(|(.., since)| *since)
            .map(|(key, held, _)| (key, held));
        if let Some((key, held)) = stalled {
            self.exceed(key, Limit::StalledStream, held);
            // One that is over on the wire is not cancelled any more; what it holds goes back all the same.
            self.discard_received(key);
            // A stream that nobody accepts is not dropped by anybody either.
            if let Some(stream) = self.registry.get_mut(key) {
                let charge = std::mem::take(&mut stream.open_charge);
                self.return_to_session(charge.into());
            }
        }
    }

    /// Messages of which pieces are missing cannot be consumed, and the missing pieces need the
    /// session's window: what has come of them moves to the pool. True if anything did.
    fn cover_assemblies(&mut self, now: Instant) -> bool {
        let mut moved = 0;
        for (_, stream) in self.registry.iter_mut() {
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
            self.check_advances_in_time(now);
        }
        self.return_to_session(moved);
        moved > 0
    }

    /// Memory was given for a message that is not complete.
    fn check_advances_in_time(&mut self, now: Instant) {
        let at = now + self.config.message_timeout();
        self.timers.set_by(Timer::Advances, at);
    }

    /// Doubles the session's window if its maximum and the pool allow.
    pub(super) fn grow_session_window(&mut self, why: Growth) -> bool {
        let target = self.window.target();
        let wanted = (target * 2).min(u64::from(self.config.session_window_max()));
        let may = wanted > target && wanted <= self.pool.window_max();
        if !may || !self.pool.take_to_grow(wanted - target, why) {
            return false;
        }
        self.window.grow(wanted);
        self.link.counters.windows_grown.add(1);
        true
    }

    /// Makes sure that the rest of a message in pieces can be sent: with what the application has
    /// consumed, else with an advance from the pool, else later.
    pub(super) fn feed_assembly(&mut self, key: Key, now: Instant) {
        self.account(key, now);
        let max_frame = u64::from(self.config.max_frame());
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        let Some(assembly) = stream.assembly.as_deref().copied() else {
            return;
        };
        if stream.state.receiving != Receiving::Open || stream.chunks {
            return;
        }
        let rest = u64::from(assembly.total - assembly.received);
        let need = rest + FRAME_COST * rest.div_ceil(max_frame).max(1);
        let total = u64::from(assembly.total);
        let whole = assembly.cost + need;
        if whole > 2 * total + PIECES_SLACK {
            return self.exceed(key, Limit::MessagePieces, whole);
        }
        let has = stream.window.outstanding();
        if has >= need {
            return Self::set_starved(stream, false, now);
        }
        let short = need.saturating_sub(has + stream.window.returnable());
        // One that fits into the window waits for the application, not for memory.
        let fits = whole <= stream.window.target();
        let waiting = stream.window.held().saturating_sub(assembly.cost);
        let advance = !fits && waiting <= stream.window.target();
        if short == 0 || (advance && self.pool.take_for_message(short, assembly.given)) {
            stream.window.advance(short);
            Self::set_starved(stream, false, now);
            if let Some(assembly) = stream.assembly.as_mut().filter(|_| short > 0) {
                assembly.given = true;
            }
            Self::owe(&mut self.owing, key, stream, owed::WINDOW);
            if short > 0 {
                self.check_advances_in_time(now);
            }
            return;
        }
        if !fits && now.duration_since(assembly.since) >= self.config.message_timeout() {
            return self.exceed(key, Limit::MessageMemory, total);
        }
        Self::set_starved(stream, true, now);
        // From now on a release is reported. One that raced with this is found by the next recheck.
        if fits && assembly.starved {
            return;
        }
        if !std::mem::replace(&mut stream.listed_starved, true) {
            self.starved.push_back(key);
        }
        self.recheck_soon(now);
    }

    /// Memory beyond the window was given for messages that do not go on, or not at the least rate: it is
    /// taken back, with the stream. A peer without the credit for that piece cannot send it: it is the
    /// application here that does not consume, or the memory that is not there.
    pub(super) fn check_advances(&mut self, now: Instant) {
        let timeout = self.config.message_timeout();
        let mut late = None;
        for (key, stream) in self.registry.iter_mut() {
            let Some(assembly) = &stream.assembly else {
                continue;
            };
            if stream.chunks || stream.window.advanced() == 0 {
                continue;
            }
            let since = if assembly.starved {
                now
            } else {
                assembly.since
            };
            let at = since + timeout;
            if at > now {
                self.timers.set_by(Timer::Advances, at);
            } else if late.replace((key, u64::from(assembly.total))).is_some() {
                // One at a time: the others at once afterwards.
                self.timers.set_by(Timer::Advances, now);
            }
        }
        if let Some((key, total)) = late {
            self.exceed(key, Limit::MessageStalled, total);
        }
    }

    /// While a stream is starved its handle reports every release.
    fn set_starved(stream: &mut Stream, starved: bool, now: Instant) {
        let Some(assembly) = &mut stream.assembly else {
            return;
        };
        if assembly.starved == starved {
            return;
        }
        (assembly.starved, assembly.since) = (starved, now);
        let mark = match starved {
            true => 0,
            false => report_mark(stream.window.target()),
        };
        stream.lane().set_credit_mark(mark);
    }

    /// A limit of this side ends a stream.
    pub(super) fn exceed(&mut self, key: Key, limit: Limit, value: u64) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        let error = StreamError::LimitExceeded(LimitExceeded { limit, value });
        stream.lane().end_send(SendEnd::Error(error.clone()));
        stream.lane().end_recv(match limit {
            Limit::StalledStream => RecvEnd::Discard(error),
            _ => RecvEnd::Error(error),
        });
        self.link.counters.trip(limit);
        let charge = std::mem::take(&mut stream.open_charge);
        self.return_to_session(charge.into());
        self.cancel_stream(key, codes::LIMIT_EXCEEDED, Event::LocalCancel);
        self.charge_fault(limit);
    }

    /// The receiving direction is over: what it holds counts as consumed, so that streams that have ended stop no others.
    /// What is not complete goes. What still lies here for the application is charged to the pool until the application has
    /// consumed it or lets go of the stream.
    pub(super) fn discard_received(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut stream.discarded, true) {
            return;
        }
        stream.assembly = None;
        let total = stream.lane().consumed();
        let consumed = total - std::mem::replace(&mut stream.consumed, total);
        let retired = stream.window.consume(consumed);
        let lies = stream.put_in_order();
        stream.lingering = lies as u32;
        let (to_session, to_pool) = stream.window.discard();
        self.pool.keep(retired + to_pool, lies);
        self.return_to_session(consumed - retired + to_session);
    }

    /// The application has looked at a stream whose direction was discarded.
    fn settle_lingering(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.lingering > 0 && stream.rx.refresh() == 0 {
            self.pool.give(std::mem::take(&mut stream.lingering).into());
        }
    }

    /// The peer has ended the direction inside a message: what has come of it goes, and what lies before is delivered.
    pub(super) fn drop_unfinished(&mut self, key: Key) {
        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        stream.assembly = None;
        let unused = stream.window.retire_unused();
        let pieces = stream.rx.retract();
        let retired = stream.window.consume(pieces);
        self.pool.give(unused + retired);
        self.return_to_session(pieces - retired);
    }

    /// Ends both directions of a stream; the peer is told unless it said so itself or never heard
    /// of the stream. The lane's ends were set by the caller.
    pub(super) fn cancel_stream(&mut self, key: Key, code: u32, event: Event) {
        use super::state::Effect;
        use super::stream::Opening;

        let Some(stream) = self.registry.get_mut(key) else {
            return;
        };
        if stream.state.on(event) != Effect::Act {
            return;
        }
        self.link.counters.cancelled.add(1);
        let of_peer = (stream.id).is_some_and(|id| id.is_opened_by(self.role.peer()));
        stream.owes = 0;
        stream.owed_code = code;
        if event == Event::LocalCancel && stream.opening == Opening::Done {
            Self::owe(&mut self.owing, key, stream, owed::CANCEL);
        }
        Self::notify(&mut self.wakes, key, stream, wake::SENDER | wake::RECEIVER);
        Self::discard_queued(&mut self.outbound, stream);
        self.discard_received(key);
        if of_peer {
            self.charge_reset();
        }
    }

    /// Nobody wants what was queued, but for the ERROR that may be behind it: that stays, and this is its code.
    pub(super) fn discard_before_error(
        outbound: &mut Outbound,
        stream: &mut Stream,
    ) -> Option<u32> {
        let code = loop {
            match stream.tx.peek() {
                None => break None,
                Some(record) if record.tag == tx_tag::ERROR => {
                    let (code, ..) = failure::decode(record.payload.as_slice());
                    break Some(code);
                }
                Some(_) => {}
            }
            stream.tx.advance();
        };
        stream.tx.commit();
        stream.sent = 0;
        outbound.settle(stream);
        code
    }

    /// The sending direction is over: what was queued is not sent.
    pub(super) fn discard_queued(outbound: &mut Outbound, stream: &mut Stream) {
        while stream.tx.advance() {}
        stream.tx.commit();
        stream.sent = 0;
        outbound.settle(stream);
    }

    /// Remembers a control frame that a stream owes the peer.
    pub(super) fn owe(
        owing: &mut std::collections::VecDeque<Key>,
        key: Key,
        stream: &mut Stream,
        bits: u8,
    ) {
        if stream.owes == 0 {
            owing.push_back(key);
        }
        stream.owes |= bits;
    }
}
