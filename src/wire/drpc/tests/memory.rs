//! One end under a virtual clock: memory taken from the pool, and how long messages that are not complete are kept.

use std::time::Instant;

use bytes::BytesMut;
use futures_util::FutureExt;

use super::*;
use crate::bridge::Protocol;
use crate::drpc::FlowControl;
use crate::drpc::MAX_OPENING;
use crate::error::{Limit, StreamError};
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::Batch;

const MUX: Profile = Profile::COCKROACH;
const KIB: usize = 1024;
/// The part of a session's memory that is not of the pool.
const FLOOR: u64 = 256 << 10;

/// An accepting end; the test is its peer, its driver and its application.
struct Solo {
    now: Instant,
    engine: Engine<Drpc>,
    session: Session,
    pool: Arc<Pool>,
    batch: Batch,
    recv: BytesMut,
    /// In the socket, not received yet.
    arrived: BytesMut,
    said: Vec<u8>,
}

impl Solo {
    fn new(role: Role, builder: ConfigBuilder, pool: &Arc<Pool>) -> Self {
        let now = Instant::now();
        let config = builder.build().unwrap();
        let info = Info::of_a_test(role);
        let (engine, link) = Engine::new(role, &config, info, Arc::clone(pool), now);
        Self {
            now,
            engine,
            session: Session::new(link),
            pool: Arc::clone(pool),
            batch: Batch::new(),
            recv: BytesMut::new(),
            arrived: BytesMut::new(),
            said: Vec::new(),
        }
    }

    fn acceptor(builder: ConfigBuilder) -> Self {
        Self::new(Role::Acceptor, builder, &Pool::new(256 << 20))
    }

    /// The peer sends, and the driver runs until it makes no progress.
    fn hear(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
        self.run();
    }

    /// In the order of the drivers.
    fn run(&mut self) {
        let engine = &mut self.engine;
        loop {
            let (mut moved, mut held_back) = (false, false);
            if !engine.wants_bytes() {
                held_back = true;
            } else if !self.arrived.is_empty() {
                let room = engine.recv_capacity().saturating_sub(self.recv.len());
                let n = room.min(self.arrived.len());
                self.recv.extend_from_slice(&self.arrived.split_to(n));
                engine.count_received(n, self.now);
                while engine.receive(&mut self.recv, self.now) {
                    engine.deliver_wakes();
                }
                moved = true;
            }
            engine.take_work(self.now);
            if engine.next_deadline().is_some_and(|at| at <= self.now) {
                engine.on_deadline(self.now);
                moved = true;
            }
            while engine.transmit(&mut self.batch, self.now) {
                self.said.extend(self.batch.remaining().concat());
                let n = self.batch.len();
                self.batch.clear();
                engine.written(n, false, self.now);
                moved = true;
            }
            engine.deliver_wakes();
            if !(moved || held_back && engine.wants_bytes()) {
                return;
            }
        }
    }

    fn elapse(&mut self, time: Duration) {
        let until = self.now + time;
        self.run();
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.run();
        }
        self.now = until;
        self.run();
    }

    fn invoke(&mut self, id: u64) -> Stream {
        self.hear(&packet(Kind::Invoke, id, 1, b"/m"));
        let accepted = self.session.accept().now_or_never().expect("a call");
        accepted.unwrap().unwrap()
    }

    fn used(&self) -> u64 {
        self.pool.used()
    }
}

impl Solo {
    /// Bytes of openings and errors that are not complete.
    fn parts(&self) -> u64 {
        let wire = &self.engine.wire;
        (wire.setups.bytes() + wire.errors.bytes()) as u64
    }

    fn tripped(&self, limit: Limit) -> u64 {
        self.session.stats().tripped.get(limit)
    }

    /// The codes of the Errors that it has sent, by stream.
    fn errors_said(&mut self) -> Vec<(u64, u32)> {
        let said = frames(&std::mem::take(&mut self.said));
        let errors = said.iter().filter(|(header, _)| header.kind == Kind::Error);
        errors
            .map(|(header, data)| (header.stream, super::super::failure::decode(data).code))
            .collect()
    }
}

fn stalled(stream: &mut Stream) -> bool {
    let end = stream.recv().now_or_never();
    matches!(end, Some(Err(StreamError::LimitExceeded(it))) if it.limit == Limit::MessageStalled)
}

// ---- the pool -------------------------------------------------------------------------------------

#[test]
fn sessions_without_calls_take_nothing_from_the_pool() {
    use FlowControl::{Off, On, Required, WhenSeen};
    let pool = Pool::new(256 << 20);
    let mut sessions = Vec::new();
    for role in [Role::Dialer, Role::Acceptor] {
        for profile in [Profile::STORJ, Profile::COCKROACH_BEFORE_MUX, MUX] {
            for flow in [Off, WhenSeen, On, Required] {
                let builder = settings(profile.flow_control(flow));
                sessions.push(Solo::new(role, builder, &pool));
                assert_eq!(pool.used(), 0, "{role:?} {profile:?} {flow:?}");
            }
        }
    }
}

/// A session's limit of held bytes doubles as they fill it, up to the setting, and halves as they are consumed.
#[test]
fn memory_of_the_pool_is_taken_as_a_session_fills_and_given_back_as_it_empties() {
    let without = MUX.flow_control(FlowControl::Off);
    for (profile, most) in [(MUX, 16 << 20), (without, 1 << 20)] {
        let mut solo = Solo::acceptor(settings(profile));
        let mut call = solo.invoke(1);
        let mut sent = 0;
        while solo.arrived.is_empty() {
            sent += 1;
            solo.hear(&packet(Kind::Message, 1, 1 + sent, &message(16 * KIB)));
            let held = sent * (16 * KIB as u64 + 256);
            assert!(
                solo.used() <= (held * 8 / 3).saturating_sub(FLOOR),
                "{sent}"
            );
        }
        let held = solo.session.stats().bytes_held;
        assert!((most..most + (128 << 10)).contains(&held), "{held}");
        assert_eq!(solo.used(), most - FLOOR);
        while call.try_recv().is_some() {
            solo.run();
        }
        assert!(solo.arrived.is_empty());
        assert_eq!(solo.used(), 0);
    }
}

#[test]
fn a_session_that_found_no_memory_goes_on_once_there_is_some() {
    let mut solo = Solo::acceptor(settings(MUX));
    let all = 256 << 20;
    assert!(solo.pool.take(all, 0, u64::MAX));
    let _unread = solo.invoke(1);
    let mut other = solo.invoke(2);
    for n in 0..32 {
        solo.hear(&packet(Kind::Message, 1, 2 + n, &message(16 * KIB)));
    }
    solo.hear(&packet(Kind::Message, 2, 2, b"behind"));
    solo.elapse(Duration::from_secs(10));
    assert!(!solo.arrived.is_empty() && other.try_recv().is_none());
    solo.pool.give(all);
    solo.elapse(Duration::from_millis(200));
    assert_eq!(other.try_recv().unwrap(), "behind");
}

// ---- packets that are not complete ----------------------------------------------------------------

/// Openings all begin short, and grow when there are as many as there may be.
#[test]
fn openings_that_grow_after_they_were_begun_are_bounded_and_counted_and_refused_alone() {
    const OPENINGS: u64 = 256;
    let long = vec![b'n'; MAX_OPENING - 16];
    // A key, and a value of which the first bytes come at once.
    let metadata = [&[0x0a, 6, 0x0a, 1, b'k', 0x12, 1, b'v'][..]; 4000].concat();
    let mut solo = Solo::acceptor(settings(MUX));
    let mut kept = solo.invoke(1000);
    let ids = || 1..=OPENINGS;
    for id in ids() {
        solo.hear(&part(Kind::InvokeMetadata, id, 1, &metadata[..1]));
    }
    let mut most = 0;
    for id in ids() {
        // All at once, as small frames are counted.
        solo.hear(&packet(Kind::InvokeMetadata, id, 1, &metadata[1..]));
        solo.hear(&part(Kind::Invoke, id, 2, &long));
        most = most.max(solo.parts());
        assert!(solo.session.stats().bytes_held >= solo.parts(), "{id}");
    }
    assert!(most <= FLOOR / 2, "{most}");
    assert_eq!(solo.used(), 0);
    // The connection goes on, and a call that fits is taken.
    solo.hear(&packet(Kind::Message, 1000, 2, b"still here"));
    assert_eq!(kept.try_recv().unwrap(), "still here");
    for id in ids() {
        solo.hear(&packet(Kind::Invoke, id, 2, b""));
    }
    let refused = solo.errors_said();
    assert_eq!(refused.len() as u64, OPENINGS);
    assert!(refused.iter().all(|(_, code)| *code == 8), "{refused:?}");
    assert_eq!(solo.parts(), 0);
    assert!(solo.session.stats().bytes_held <= 1024);
    let mut later = solo.invoke(2000);
    solo.hear(&packet(Kind::Message, 2000, 2, b"later"));
    assert_eq!(later.try_recv().unwrap(), "later");
}

#[test]
fn errors_that_are_not_complete_are_bounded_and_counted_and_keep_their_codes() {
    const CALLS: u64 = 250;
    let mut solo = Solo::acceptor(settings(MUX));
    let mut calls: Vec<_> = (1..=CALLS).map(|id| solo.invoke(id)).collect();
    let text = vec![0xff; 64 * KIB];
    // A text of which each byte is none in UTF-8, in the form of a status.
    let mut error = vec![1, 0x08, 42, 0x12];
    crate::drpc::put_varint(&mut error, text.len() as u64);
    error.extend_from_slice(&text);
    for id in 1..=CALLS {
        solo.hear(&part(Kind::Error, id, 2, &error));
        assert!(solo.parts() <= FLOOR / 2, "{id}: {}", solo.parts());
        assert!(solo.session.stats().bytes_held >= solo.parts(), "{id}");
    }
    // One that ends in another way, and one after the other.
    drop(calls.pop());
    for (id, call) in (1..).zip(&mut calls) {
        solo.hear(&packet(Kind::Error, id, 2, b""));
        let Some(Err(StreamError::Failed(failure))) = call.recv().now_or_never() else {
            panic!("{id}");
        };
        let len = failure.message.len() + failure.details.len();
        assert!(len <= 24 * KIB, "{id}: {len}");
        // The first ones had room.
        assert!(
            id > 5 || (failure.code, len > 10 * KIB) == (42, true),
            "{id}"
        );
    }
    assert_eq!(solo.parts(), 0);
    // One that arrives at once needs no room.
    let mut call = solo.invoke(1000);
    solo.hear(&packet(Kind::Error, 1000, 2, &error));
    let Some(Err(StreamError::Failed(failure))) = call.recv().now_or_never() else {
        panic!("it failed");
    };
    assert_eq!(failure.code, 42);
    assert!(failure.message.len() <= 16 * KIB);
    assert_eq!(solo.used(), 0);
}

// ---- messages that are not complete ---------------------------------------------------------------

const PIECE: usize = 16 * KIB;

/// A session that may hold its floor alone.
fn small() -> Solo {
    let builder = settings(MUX)
        .session_window(FLOOR as u32)
        .session_window_max(FLOOR as u32);
    Solo::acceptor(builder)
}

/// Fills a session by messages of a stream that is not read; the number of the next one.
fn fill(solo: &mut Solo, id: u64) -> u64 {
    let mut number = 2;
    while solo.arrived.is_empty() {
        solo.hear(&packet(Kind::Message, id, number, &message(PIECE)));
        number += 1;
    }
    number
}

/// As long as the reader is slow the session is full again as soon as a message is consumed.
#[test]
fn an_unfinished_message_is_timed_though_a_slow_reader_keeps_its_session_full() {
    let mut solo = small();
    let mut stuck: Vec<_> = (1..=4).map(|id| solo.invoke(id)).collect();
    for id in 1..=4 {
        solo.hear(&part(Kind::Message, id, 2, &message(100 * KIB)));
    }
    let mut slow = solo.invoke(5);
    let mut number = fill(&mut solo, 5);
    assert!(solo.used() >= 4 * 100 * KIB as u64);
    let mut tenths = 0;
    while solo.tripped(Limit::MessageStalled) < 4 {
        assert!(tenths < 300, "{} of 4", solo.tripped(Limit::MessageStalled));
        tenths += 1;
        assert!(slow.try_recv().is_some());
        solo.hear(&packet(Kind::Message, 5, number, &message(PIECE)));
        number += 1;
        solo.elapse(Duration::from_millis(100));
    }
    // Their time, and that in which each of them might have had its turn.
    assert!(tenths >= 100, "{tenths}");
    assert!(stuck.iter_mut().all(stalled));
    assert_eq!(solo.used(), 0);
    assert!(slow.try_recv().is_some());
}

#[test]
fn an_unfinished_message_that_goes_on_in_its_turn_is_not_ended_by_the_pauses_of_others() {
    let mut solo = small();
    let mut calls: Vec<_> = (1..=4).map(|id| solo.invoke(id)).collect();
    let mut slow = solo.invoke(5);
    let mut number = fill(&mut solo, 5);
    const ROUNDS: usize = 60;
    for _ in 0..ROUNDS {
        for id in 1..=4 {
            solo.hear(&part(Kind::Message, id, 2, &message(PIECE)));
            solo.hear(&packet(Kind::Message, 5, number, &message(PIECE)));
            number += 1;
        }
        while !solo.arrived.is_empty() {
            solo.elapse(Duration::from_secs(2));
            assert!(slow.try_recv().is_some());
            solo.run();
        }
    }
    for (id, call) in (1..).zip(&mut calls) {
        solo.hear(&packet(Kind::Message, id, 2, b""));
        while !solo.arrived.is_empty() {
            assert!(slow.try_recv().is_some());
            solo.run();
        }
        let whole = call.recv().now_or_never().expect("whole").unwrap().unwrap();
        assert_eq!(whole.len(), ROUNDS * PIECE, "{id}");
    }
    assert_eq!(solo.session.stats().limits_tripped, 0);
}

/// A reader that takes nothing for long is no fault of the peer either.
#[test]
fn the_time_in_which_the_application_consumes_nothing_does_not_count() {
    let mut solo = small();
    let mut call = solo.invoke(1);
    solo.hear(&part(Kind::Message, 1, 2, &message(100 * KIB)));
    let mut slow = solo.invoke(2);
    fill(&mut solo, 2);
    solo.elapse(Duration::from_secs(9));
    solo.elapse(Duration::from_secs(60));
    while slow.try_recv().is_some() {}
    solo.elapse(Duration::from_secs(9));
    solo.hear(&packet(Kind::Message, 1, 2, b"end"));
    let whole = call.recv().now_or_never().expect("whole").unwrap().unwrap();
    assert_eq!(whole.len(), 100 * KIB + 3);
}

/// Pauses do not add up to more time than there was.
#[test]
fn the_time_before_a_pause_counts() {
    let mut solo = small();
    let mut call = solo.invoke(1);
    let mut slow = solo.invoke(2);
    // The more there are, the more may be sent between two turns of one.
    let _others: Vec<_> = (3..9).map(|id| solo.invoke(id)).collect();
    solo.hear(&part(Kind::Message, 1, 2, &message(100 * KIB)));
    let mut number = 2;
    for _ in 0..3 {
        while solo.arrived.is_empty() {
            solo.hear(&packet(Kind::Message, 2, number, &message(PIECE)));
            number += 1;
        }
        solo.elapse(Duration::from_secs(4));
        while slow.try_recv().is_some() {}
        assert_eq!(solo.tripped(Limit::MessageStalled), 0);
        solo.elapse(Duration::from_secs(4));
    }
    assert!(stalled(&mut call), "12 s without a pause");
}

#[test]
fn unfinished_messages_in_memory_of_the_pool_are_timed_before_the_session_is_full() {
    const CALLS: u64 = 100;
    let mut solo = Solo::acceptor(settings(MUX));
    let mut calls: Vec<_> = (1..=CALLS).map(|id| solo.invoke(id)).collect();
    // As long as it takes no memory of the pool it waits.
    solo.hear(&part(Kind::Message, 1, 2, &message(100 * KIB)));
    solo.elapse(Duration::from_secs(60));
    assert_eq!(solo.session.stats().limits_tripped, 0);
    for id in 2..=CALLS {
        solo.hear(&part(Kind::Message, id, 2, &message(100 * KIB)));
    }
    assert!(solo.used() >= (CALLS - 5) * 100 * KIB as u64);
    solo.elapse(Duration::from_secs(11));
    // One is left, for which the session needs no memory of the pool.
    assert_eq!(solo.tripped(Limit::MessageStalled), CALLS - 1);
    let ended: u64 = calls.iter_mut().map(|call| u64::from(stalled(call))).sum();
    assert_eq!(ended, CALLS - 1);
    assert_eq!(solo.used(), 0);
}
