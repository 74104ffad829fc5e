//! A connection as a run drives it, over either wire.

use std::sync::Arc;
use std::time::Instant;

use super::{Sabotage, promises};
use crate::bridge::SessionLink;
use crate::bridge::tests::net::{Cut, Rng};
use crate::bridge::tests::{A, D, End, Pair, Pool, invariants};
use crate::error::SessionError;
use crate::wire::drpc::check_sent;
use crate::wire::{Drpc, Native, Wire};

/// See the module.
pub(super) trait Wired {
    fn has_cause(&self, side: usize) -> bool;
    fn next_event(&self) -> Option<Instant>;
    fn set_now(&mut self, now: Instant);
    /// A turn of a side's driver, or all turns until it makes no progress. `looked`: tasks of other threads have acted since it
    /// read their requests.
    fn drive(&mut self, side: usize, to_its_end: bool, looked: bool);
    fn crash(&mut self, side: usize, how: Cut);
    fn is_closed(&self, side: usize) -> bool;
    fn link(&self, side: usize) -> &Arc<SessionLink>;
    fn pool(&self, side: usize) -> &Arc<Pool>;
    /// Bytes that a side has taken from its pool.
    fn taken(&mut self, side: usize) -> u64;
    /// Panics if an account does not balance.
    fn check(&mut self);
    fn check_silence(&self, now: Instant) -> Result<(), String>;
    /// A side has held the other back for that one's `write_timeout`, which ends the session.
    fn is_held_back(&mut self) -> bool;
    /// Everything must be as at the start.
    fn inspect(&mut self);
    /// Both sides are closed.
    fn check_end(&mut self);
    /// Does the damage, if it can be done now.
    fn damage(&mut self, what: Sabotage, rng: &mut Rng) -> bool;
    fn dump(&mut self) -> String;
}

impl<W: Checked> Wired for Pair<W> {
    fn has_cause(&self, side: usize) -> bool {
        Self::has_cause(self, side)
    }

    fn next_event(&self) -> Option<Instant> {
        Self::next_event(self)
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    fn drive(&mut self, side: usize, to_its_end: bool, looked: bool) {
        if to_its_end {
            self.run(side);
            W::nothing_sendable_is_left(&mut self.ends[side]);
        } else {
            self.ends[side].looked = looked;
            self.turn(side);
            self.ends[side].looked = false;
        }
    }

    fn crash(&mut self, side: usize, how: Cut) {
        Self::crash(self, side, how);
    }

    fn is_closed(&self, side: usize) -> bool {
        self.ends[side].closed
    }

    fn link(&self, side: usize) -> &Arc<SessionLink> {
        &self.ends[side].connection.link
    }

    fn pool(&self, side: usize) -> &Arc<Pool> {
        &self.ends[side].pool
    }

    fn taken(&mut self, side: usize) -> u64 {
        invariants::taken(&mut self.ends[side])
    }

    fn check(&mut self) {
        W::accounts_balance(self);
        self.ends.iter_mut().for_each(promises::memory_is_bounded);
    }

    fn check_silence(&self, now: Instant) -> Result<(), String> {
        if !W::TERMS.ping {
            return Ok(());
        }
        for side in [D, A] {
            let silence = promises::silence(&self.ends[side], now);
            silence.map_err(|what| format!("{side}: {what}"))?;
        }
        Ok(())
    }

    fn is_held_back(&mut self) -> bool {
        [D, A].into_iter().any(|side| {
            let config = &self.ends[1 - side].connection.core.mux.base.config;
            let time = config.write_timeout();
            let end = self.ends[1 - side].connection.link.end();
            let given_up = matches!(end, Some(SessionError::WriteTimeout(_)));
            given_up && self.ends[side].holds_back_for(time, self.now)
        })
    }

    fn inspect(&mut self) {
        self.ends.iter_mut().for_each(invariants::at_rest);
    }

    fn check_end(&mut self) {
        for (side, end) in self.ends.iter().enumerate() {
            assert_eq!(
                end.connection.core.mux.flow.pool.taken(),
                [0, 0],
                "a session that is over owes nothing"
            );
            W::check_sent(&end.unprocessed, side);
        }
    }

    fn damage(&mut self, what: Sabotage, rng: &mut Rng) -> bool {
        let established = |end: &End<W>| end.connection.core.life.is_established();
        let now = what != Sabotage::None && self.ends.iter().all(established);
        if !now || !rng.one_in(8) {
            return false;
        }
        let side = rng.below(2);
        match what {
            Sabotage::None => false,
            Sabotage::Credit => self.ends[side].connection.core.mux.credit.add(1).is_some(),
            Sabotage::Flip => self.pipes[side].flip(rng.below(3)),
        }
    }

    fn dump(&mut self) -> String {
        let mut text = String::new();
        for end in &mut self.ends {
            text = format!("{text}\n  {}", end.dump());
            for (_, stream) in end.connection.core.mux.base.streams.iter_mut() {
                text = format!("{text}\n    {stream:?}");
            }
        }
        text
    }
}

/// What can be checked of a wire.
pub(super) trait Checked: Wire {
    fn accounts_balance(pair: &mut Pair<Self>);
    fn nothing_sendable_is_left(end: &mut End<Self>);
    /// Of all bytes that a side has sent.
    fn check_sent(bytes: &[u8], side: usize);
}

impl Checked for Native {
    fn accounts_balance(pair: &mut Pair) {
        invariants::check_but_pools(pair);
    }

    fn nothing_sendable_is_left(end: &mut End) {
        promises::nothing_sendable_is_left(end);
    }

    fn check_sent(_: &[u8], _: usize) {}
}

impl Checked for Drpc {
    fn accounts_balance(pair: &mut Pair<Self>) {
        let ends = &mut pair.ends;
        ends.iter_mut()
            .for_each(invariants::books_of_one_side_balance);
    }

    fn nothing_sendable_is_left(end: &mut End<Self>) {
        promises::nothing_sendable_is_left_of_drpc(end);
    }

    fn check_sent(bytes: &[u8], side: usize) {
        check_sent(bytes, side == D);
    }
}
