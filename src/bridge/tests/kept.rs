//! Requests and answers of unary calls that applications hold when their session ends.

use super::calls::{answered, serving, taken};
use super::*;
use crate::handle::call::{Acceptor, PendingCall};

const ANSWER: usize = 3000;
const REQUEST: usize = 10_000;
/// What a record weighs besides its length, in bytes.
const CHARGE: u64 = 256;
/// What a request's frame costs besides its message: its opening block, two lengths, and [`CHARGE`].
const PREFIXES: std::ops::Range<u64> = CHARGE..CHARGE + 32;

/// How a session ends.
#[derive(Clone, Copy, Debug)]
enum How {
    Lost,
    Closed,
}

impl Pair {
    fn finish(&mut self, side: usize, how: How) {
        match how {
            How::Lost => self.crash(side, Cut::Eof),
            How::Closed => {
                self.ends[side].session().close();
                for _ in 0..100 {
                    self.now += Duration::from_millis(100);
                    self.drive_unchecked();
                }
            }
        }
        assert!(self.ends[side].session().link().end().is_some());
    }

    /// Bytes of the pool, and those that the session says are held.
    fn kept(&self, side: usize) -> [u64; 2] {
        let end = &self.ends[side];
        [end.pool.used(), end.session().stats().bytes_held]
    }

    /// Calls whose answers have arrived and were not read.
    fn unread(&mut self, acceptor: &mut Acceptor, count: usize) -> Vec<PendingCall<'static>> {
        let calls = (0..count).map(|_| self.call("request")).collect();
        self.drive();
        while let Some(mut call) = taken(acceptor) {
            call.reply(message(ANSWER));
        }
        self.drive();
        calls
    }
}

#[test]
fn answers_that_callers_of_ended_sessions_hold_are_charged_until_they_are_read_or_dropped() {
    const EACH: u64 = ANSWER as u64 + CHARGE;
    for how in [How::Lost, How::Closed] {
        let (mut pair, mut acceptor) = serving(&small_config());
        // Some are read while the session lives, or given up.
        let mut calls = pair.unread(&mut acceptor, 8);
        assert_eq!(answered(&mut calls[0]).len(), ANSWER);
        drop(calls.split_off(6));
        let unanswered = pair.call("request");
        pair.drive();
        pair.finish(D, how);
        assert_eq!(pair.kept(D), [5 * EACH; 2], "{how:?}");
        assert_eq!(answered(&mut calls[1]).len(), ANSWER);
        assert_eq!(pair.kept(D), [4 * EACH; 2], "{how:?}");
        drop(unanswered);
        drop(calls.split_off(3));
        assert_eq!(pair.kept(D), [EACH; 2], "{how:?}");
        drop(calls);
        assert_eq!(pair.kept(D), [0, 0], "{how:?}");
    }
}

/// The caller gives up what has been answered, and the engine learns of both in either order, or not at all.
#[test]
fn answers_that_cross_a_cancel_are_not_charged_whenever_the_session_ends() {
    for heard in [false, true] {
        for listed in [false, true] {
            let (mut pair, mut acceptor) = serving(&small_config());
            let calls: Vec<_> = (0..4).map(|_| pair.call("request")).collect();
            pair.drive();
            let link = Arc::clone(pair.ends[D].session().link());
            while let Some(mut call) = taken(&mut acceptor) {
                call.reply(message(ANSWER));
            }
            let mut calls = calls;
            if listed {
                // On the list before the answers arrive.
                calls.iter_mut().for_each(|call| call.cancel(7));
            }
            if heard {
                pair.drive();
            }
            pair.crash(D, Cut::Eof);
            calls.iter_mut().for_each(|call| call.cancel(7));
            drop(calls);
            let held = link.stats().bytes_held;
            let used = pair.ends[D].pool.used();
            assert_eq!((used, held), (0, 0), "heard {heard}, listed {listed}");
        }
    }
}

#[test]
fn requests_that_handlers_of_ended_sessions_hold_are_charged_until_they_are_read_or_dropped() {
    let each = |used: u64, count: u64| {
        let least = count * (REQUEST as u64 + PREFIXES.start);
        let most = count * (REQUEST as u64 + PREFIXES.end);
        (least..=most).contains(&used)
    };
    for how in [How::Lost, How::Closed] {
        let (mut pair, mut acceptor) = serving(&small_config());
        let mut callers: Vec<_> = (0..6).map(|_| pair.call(message(REQUEST))).collect();
        pair.drive();
        // One is read, one is read and answered, one the caller has given up, two wait for the acceptor.
        let mut calls: Vec<_> = (0..4).filter_map(|_| taken(&mut acceptor)).collect();
        assert_eq!(calls[0].take_request().len(), REQUEST);
        assert_eq!(calls[1].take_request().len(), REQUEST);
        calls[1].reply("answer".into());
        callers[2].cancel(7);
        pair.drive();
        let mut request = calls[3].hold_request();
        pair.finish(A, how);
        let [used, held] = pair.kept(A);
        assert_eq!(used, held);
        assert!(each(used, 4), "{how:?}: {used}");
        drop(calls.remove(2));
        assert!(each(pair.kept(A)[0], 3), "{how:?}");
        request.truncate(1);
        assert!(each(pair.kept(A)[0], 3), "{how:?}: it does not say so");
        calls[2].note_read();
        assert!(each(pair.kept(A)[0], 2), "{how:?}");
        let mut waited = taken(&mut acceptor).expect("it was queued before the end");
        assert!(each(pair.kept(A)[0], 2), "{how:?}: it is not read");
        assert_eq!(waited.take_request().len(), REQUEST);
        assert!(each(pair.kept(A)[0], 1), "{how:?}");
        waited.reply("too late".into());
        drop((calls, waited));
        assert!(each(pair.kept(A)[0], 1), "{how:?}: one was never taken");
        let link = Arc::clone(pair.ends[A].session().link());
        link.calls.drop_incoming();
        assert_eq!(pair.kept(A), [0, 0], "{how:?}");
    }
}

/// The last handle takes what no handler can take any more with it.
#[test]
fn requests_that_no_handler_can_take_any_more_go_with_the_sessions_last_handle() {
    let (mut pair, acceptor) = serving(&small_config());
    let _callers: Vec<_> = (0..3).map(|_| pair.call(message(REQUEST))).collect();
    pair.drive();
    let pool = Arc::clone(&pair.ends[A].pool);
    pair.crash(A, Cut::Eof);
    assert!(pool.used() >= 3 * REQUEST as u64);
    drop(acceptor);
    pair.ends[A].session = None;
    assert_eq!(pool.used(), 0);
}
