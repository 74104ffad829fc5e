//! What a session has queued for sending as a whole, and who has it.

use super::solo::{Solo, cancel, id};
use super::*;
use crate::SendError;
use crate::bridge::SEND_FLOOR;
use crate::wire::native::frame::{Frame, Scope, Settings};

const KIB: u64 = 1024;
const SEND_BUFFER: u64 = 64 * KIB;
const BUDGET: u64 = 128 * KIB;
/// What messages of 1000 bytes weigh.
const WEIGHT: u64 = 1256;

/// A connection that may have `BUDGET` queued, `SEND_BUFFER` a stream.
fn solo(settings: Settings) -> Solo {
    let config = config()
        .send_buffer(SEND_BUFFER as u32)
        .session_send_buffer(BUDGET as u32)
        .build()
        .unwrap();
    Solo::with(Role::Dialer, &config, settings)
}

/// The peer takes nothing but OPENs.
fn no_credit() -> Settings {
    Settings {
        streams: 1000,
        ..Settings::FLOORS
    }
}

/// The peer takes everything.
fn generous() -> Settings {
    Settings {
        stream_window: 64 << 20,
        session_window: 1 << 30,
        ..no_credit()
    }
}

fn open(solo: &mut Solo, n: usize) -> Vec<Stream> {
    let session = solo.end.session().clone();
    let streams = (0..n).map(|_| session.try_open("").unwrap()).collect();
    solo.said();
    streams
}

/// Queues as much as there is room for, and how much that is.
fn fill(stream: &mut Stream) -> u64 {
    let mut queued = 0;
    while stream.try_send(message(1000)).is_ok() {
        queued += WEIGHT;
    }
    queued
}

/// What the streams may have queued beyond their floors, by id.
fn loans(solo: &mut Solo) -> Vec<u64> {
    let streams = solo.end.connection.core.mux.base.streams.iter_mut();
    let loan = |(_, stream): (_, &mut crate::core::Stream<crate::bridge::port::LanePort>)| {
        u64::from(stream.port.lane().send_limit() - SEND_FLOOR)
    };
    streams.map(loan).collect()
}

/// One turn of the engine, and one batch.
fn turn(solo: &mut Solo) {
    let (connection, now) = (&mut solo.end.connection, solo.now);
    connection.take_work(now);
    if connection.transmit(&mut solo.end.batch, now) {
        let n = solo.end.batch.len();
        solo.end.batch.clear();
        solo.end.connection.written(n, false, now);
    }
    solo.end.connection.deliver_wakes();
    // A driver may sleep now.
    assert!(!solo.end.connection.core.mux.budget.has_to_lend());
    invariants::what_is_queued_is_bounded(&mut solo.end.connection);
}

#[track_caller]
fn all_is_back(solo: &mut Solo) {
    turn(solo);
    assert_eq!(
        invariants::outbound_books(&mut solo.end.connection),
        [0, BUDGET, 0]
    );
}

#[test]
fn a_few_streams_have_their_send_buffer_without_the_engine() {
    let mut solo = solo(generous());
    let mut streams = open(&mut solo, 1);
    let queued = fill(&mut streams[0]);
    assert!(queued > SEND_BUFFER - WEIGHT, "{queued}");
    assert_eq!(loans(&mut solo), [SEND_BUFFER - u64::from(SEND_FLOOR)]);
}

#[test]
fn streams_that_nobody_reads_queue_the_budget_and_their_floors_and_no_more() {
    const STREAMS: usize = 300;
    let mut solo = solo(Settings {
        session_window: 256 * 1024,
        ..no_credit()
    });
    let mut streams = open(&mut solo, STREAMS);
    let mut queued = 0;
    for _ in 0..50 {
        for stream in &mut streams {
            queued += fill(stream);
        }
        turn(&mut solo);
    }
    let sent = 256 * KIB;
    let floors = STREAMS as u64 * (u64::from(SEND_FLOOR) + WEIGHT);
    assert!(queued <= BUDGET + floors + sent, "{queued}");
    // Most of it is used.
    let least = STREAMS as u64 * (u64::from(SEND_FLOOR) - WEIGHT) + BUDGET / 2;
    assert!(queued >= least, "{queued}");
    drop(streams);
    all_is_back(&mut solo);
}

#[test]
fn one_message_of_any_size_enters_an_empty_queue_whatever_others_have_queued() {
    let mut solo = solo(Settings {
        max_message: 1 << 20,
        ..no_credit()
    });
    let mut streams = open(&mut solo, 40);
    let (last, others) = streams.split_last_mut().unwrap();
    for _ in 0..9 {
        others.iter_mut().for_each(|stream| {
            fill(stream);
        });
        turn(&mut solo);
    }
    last.try_send(message(1 << 20)).unwrap();
    assert!(last.try_send(message(1)).is_err());
    turn(&mut solo);
}

#[test]
fn a_late_stream_has_its_share_of_others_that_never_run_empty() {
    const STREAMS: usize = 15;
    let mut solo = solo(generous());
    let mut streams = open(&mut solo, STREAMS);
    for _ in 0..20 {
        streams.iter_mut().for_each(|stream| {
            fill(stream);
        });
        turn(&mut solo);
    }
    streams.extend(open(&mut solo, 1));
    let mut rounds = 0;
    let share = BUDGET / (STREAMS as u64 + 1);
    loop {
        streams.iter_mut().for_each(|stream| {
            fill(stream);
        });
        turn(&mut solo);
        let loans = loans(&mut solo);
        let even = (loans.iter()).all(|loan| loan.abs_diff(share) <= KIB);
        if even {
            break;
        }
        rounds += 1;
        assert!(rounds < 200, "share {share}: {loans:?}");
    }
    // And keeps it.
    for _ in 0..50 {
        streams.iter_mut().for_each(|stream| {
            fill(stream);
        });
        turn(&mut solo);
        let loans = loans(&mut solo);
        assert!(
            (loans.iter()).all(|loan| *loan >= share - 2 * KIB),
            "{loans:?}"
        );
    }
}

#[test]
fn what_streams_with_nothing_queued_have_goes_to_those_that_ask() {
    // Whoever waits asks as well as whoever tries.
    let waits =
        |stream: &mut Stream| while Polled::new(stream.send(message(1000))).now().is_some() {};
    let tries = |stream: &mut Stream| {
        fill(stream);
    };
    for ask in [&waits as &dyn Fn(&mut Stream), &tries] {
        let mut solo = solo(generous());
        let mut streams = open(&mut solo, 200);
        let (last, others) = streams.split_last_mut().unwrap();
        for stream in others.iter_mut() {
            fill(stream);
        }
        solo.said();
        let lent = loans(&mut solo).iter().filter(|loan| **loan > 0).count();
        assert!(lent > 5, "{lent}");
        let mut most = 0;
        for _ in 0..60 {
            ask(last);
            most = most.max(loans(&mut solo)[199]);
            turn(&mut solo);
        }
        assert_eq!(most, SEND_BUFFER - u64::from(SEND_FLOOR));
    }
}

/// Streams that have the whole budget and cannot send, and one that has what they left of it.
fn stuck(solo: &mut Solo, n: usize) -> Vec<Stream> {
    let mut streams = open(solo, n + 1);
    for _ in 0..20 {
        streams[..n].iter_mut().for_each(|stream| {
            fill(stream);
        });
        turn(solo);
    }
    for _ in 0..9 {
        fill(&mut streams[n]);
        turn(solo);
    }
    streams
}

/// A sender that waits, and how often it was woken by then: the first time it looks twice.
fn waiting<'a>(
    solo: &mut Solo,
    stream: &'a mut Stream,
) -> (Polled<'a, Result<(), SendError>>, usize) {
    for _ in 0..9 {
        fill(stream);
        turn(solo);
    }
    fill(stream);
    let mut waiting = Polled::new(stream.send(message(1000)));
    waiting.pending();
    turn(solo);
    waiting.pending();
    turn(solo);
    let wakes = waiting.wakes();
    (waiting, wakes)
}

#[test]
fn a_sender_that_waits_for_the_budget_is_woken_when_some_comes_back_and_not_before() {
    let mut solo = solo(no_credit());
    let mut streams = stuck(&mut solo, 4);
    let mut late = open(&mut solo, 1).remove(0);
    let (sender, before) = waiting(&mut solo, &mut late);
    for _ in 0..9 {
        turn(&mut solo);
    }
    assert_eq!(sender.wakes(), before);
    streams.iter_mut().for_each(|stream| stream.cancel(1));
    turn(&mut solo);
    assert_eq!(sender.wakes(), before + 1);
    sender.ready().unwrap();
}

#[test]
fn those_that_wait_are_served_in_order() {
    let mut solo = solo(no_credit());
    let mut streams = stuck(&mut solo, 30);
    let mut late = open(&mut solo, 2);
    let [first, second] = late.get_disjoint_mut([0, 1]).unwrap();
    let (first, first_before) = waiting(&mut solo, first);
    let (second, second_before) = waiting(&mut solo, second);
    let mut orders = Vec::new();
    for stream in &mut streams {
        let woken = [first.wakes() > first_before, second.wakes() > second_before];
        orders.push(woken);
        stream.cancel(1);
        turn(&mut solo);
    }
    orders.dedup();
    assert_eq!(orders, [[false, false], [true, false], [true, true]]);
    first.ready().unwrap();
    second.ready().unwrap();
}

#[test]
fn however_a_stream_ends_its_loan_comes_back() {
    type Way = fn(&mut Solo, Stream);
    let ways: [(&str, Way); 7] = [
        ("finished", |solo, mut stream| {
            stream.finish().unwrap();
            solo.hear(&Frame::Window {
                scope: Scope::Stream(id(1)),
                credit: (1 << 20).try_into().unwrap(),
            });
            solo.said();
            // The other direction goes on.
            all_is_back(solo);
        }),
        ("failed", |solo, mut stream| {
            stream.finish_with_error(1, "").unwrap();
            solo.hear(&Frame::Window {
                scope: Scope::Stream(id(1)),
                credit: (1 << 20).try_into().unwrap(),
            });
            solo.said();
        }),
        ("cancelled", |_, mut stream| stream.cancel(1)),
        ("dropped", |_, stream| drop(stream)),
        ("cancelled by the peer", |solo, mut stream| {
            solo.hear(&cancel(1, 5, false));
            assert!(now(stream.send(message(1))).is_err());
        }),
        ("stopped by the peer", |solo, mut stream| {
            solo.hear(&cancel(1, 5, true));
            all_is_back(solo);
            let stopped = now(stream.send(message(1)));
            assert!(matches!(stopped, Err(SendError::Stopped { code: 5 })));
        }),
        ("not processed", |solo, _stream| {
            solo.hear(&Frame::GoAway {
                last: None,
                code: 0,
                debug: "",
                soon: false,
            });
        }),
    ];
    for (way, end) in ways {
        let mut solo = solo(Settings {
            session_window: 1 << 30,
            ..no_credit()
        });
        let mut streams = open(&mut solo, 1);
        for _ in 0..3 {
            fill(&mut streams[0]);
            turn(&mut solo);
        }
        assert_eq!(
            loans(&mut solo),
            [SEND_BUFFER - u64::from(SEND_FLOOR)],
            "{way}"
        );
        end(&mut solo, streams.remove(0));
        all_is_back(&mut solo);
    }
}

#[test]
fn a_stream_that_is_not_opened_any_more_gives_back_what_it_took() {
    let mut solo = solo(no_credit());
    let session = solo.end.session().clone();
    solo.hear(&Frame::GoAway {
        last: None,
        code: 0,
        debug: "",
        soon: true,
    });
    // As if it had been opened just before the engine heard of it.
    let (handle, engine) = crate::bridge::Lane::pair(session.link(), Bytes::new(), 0);
    handle.lane().grant();
    engine.open(session.link());
    assert!(handle.lane().grow_send_limit());
    all_is_back(&mut solo);
}

#[test]
fn the_end_of_the_session_is_told_to_those_that_wait() {
    let mut solo = solo(no_credit());
    let mut streams = open(&mut solo, 30);
    for _ in 0..9 {
        streams.iter_mut().for_each(|stream| {
            fill(stream);
        });
        turn(&mut solo);
    }
    let mut waiting = Polled::new(streams[29].send(message(1000)));
    waiting.pending();
    turn(&mut solo);
    solo.end.connection.eof();
    assert!(waiting.wakes() > 0);
    assert!(matches!(waiting.ready(), Err(SendError::Stream(_))));
}

#[test]
fn the_queues_of_keys_do_not_grow_with_the_streams_that_have_gone() {
    let mut solo = solo(no_credit());
    let mut streams = open(&mut solo, 900);
    for stream in &mut streams {
        fill(stream);
    }
    turn(&mut solo);
    let queues = solo.end.connection.core.mux.budget.queue_lengths();
    // Each loan is a part at least.
    assert!(queues[0] as u64 <= BUDGET / KIB, "{queues:?}");
    drop(streams);
    solo.said();
    // A few, which need not ask.
    for _ in 0..200 {
        fill(&mut open(&mut solo, 1)[0]);
        turn(&mut solo);
    }
    let queues = solo.end.connection.core.mux.budget.queue_lengths();
    assert!(queues.iter().all(|len| *len < 50), "{queues:?}");
}

#[test]
fn all_that_many_streams_queue_arrives_in_order() {
    const STREAMS: usize = 60;
    const MESSAGES: usize = 120;
    let config = config()
        .max_streams(64)
        .send_buffer(16 * 1024)
        .session_send_buffer(32 * 1024)
        .build()
        .unwrap();
    let mut pair = Pair::established(&config, &config);
    let mut streams: Vec<_> = (0..STREAMS).map(|_| (pair.stream(D), 0, 0)).collect();
    let mut arrived = 0;
    while arrived < STREAMS * MESSAGES {
        for ((sender, _), sent, _) in &mut streams {
            while *sent < MESSAGES && sender.try_send(message(*sent * 10)).is_ok() {
                *sent += 1;
            }
        }
        pair.drive();
        let before = arrived;
        for ((_, receiver), _, received) in &mut streams {
            while let Some(got) = receiver.try_recv() {
                assert_eq!(got.len(), *received * 10);
                *received += 1;
                arrived += 1;
            }
        }
        pair.drive();
        assert!(arrived > before, "{arrived} have arrived");
    }
    drop(streams);
    pair.is_clean();
    assert_eq!(
        invariants::outbound_books(&mut pair.ends[D].connection),
        [0, 32 * 1024, 0]
    );
}
