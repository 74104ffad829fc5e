//! Credit and memory: grants, messages larger than their window, streams that stall.

use tokio::io::AsyncReadExt;

use super::solo::{Solo, cancel, data, id, open};
use super::*;
use crate::error::{Limit, LimitExceeded, StreamError};
use crate::wire::native::frame::{FRAME_COST, Frame, Settings};

const KIB: usize = 1024;

fn pools(sender: u64, receiver: u64) -> [Arc<Pool>; 2] {
    [Pool::new(sender), Pool::new(receiver)]
}

/// A pair in which the accepting side has this much memory beyond its floor.
fn pair_with(receiver: u64, config: &Config) -> Pair {
    let pools = pools(1 << 30, receiver);
    let mut pair = Pair::with(config, config, &pools, &Weather::FAIR, 0);
    pair.drive();
    pair
}

fn tripped(session: &Session, limit: Limit) -> u64 {
    let stats = session.stats();
    assert_eq!(stats.limits_tripped, stats.tripped.get(limit), "no other");
    stats.tripped.get(limit)
}

fn total(streams: &mut [Stream]) -> usize {
    let mut sum = 0;
    for stream in streams {
        while let Some(message) = stream.try_recv() {
            sum += message.len();
        }
    }
    sum
}

#[test]
fn a_message_many_times_its_window_is_admitted_by_an_advance() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    let sent = message(3 << 20);
    now(sender.send(sent.clone())).unwrap();
    sender.finish().unwrap();
    pair.drive();
    assert_eq!(now(receiver.recv()).unwrap().unwrap(), sent);
    assert_eq!(now(receiver.recv()).unwrap(), None);
    drop((sender, receiver));
    pair.is_clean();
    assert_eq!(pair.ends[A].pool.used(), 0, "its window is at its floor");
}

#[test]
fn a_message_that_finds_no_memory_ends_its_stream_and_no_other() {
    let mut pair = pair_with(256 * 1024, &small_config());
    let (mut large, mut receiver) = pair.stream(D);
    let (mut small, mut other) = pair.stream(D);
    now(large.send(message(1 << 20))).unwrap();
    pair.elapse(Duration::from_secs(9));
    Polled::new(receiver.recv()).pending();
    pair.elapse(Duration::from_secs(2));
    assert!(matches!(
        now(receiver.recv()),
        Err(StreamError::LimitExceeded(LimitExceeded {
            limit: Limit::MessageMemory,
            ..
        }))
    ));
    assert!(matches!(
        now(large.recv()),
        Err(StreamError::Cancelled { code, .. }) if code == crate::codes::LIMIT_EXCEEDED
    ));
    assert_eq!(tripped(pair.ends[A].session(), Limit::MessageMemory), 1);
    now(small.send(message(10_000))).unwrap();
    pair.drive();
    assert_eq!(now(other.recv()).unwrap().unwrap().len(), 10_000);
    drop((large, receiver, small, other));
    pair.is_clean();
}

#[test]
fn a_message_that_waits_for_memory_goes_on_when_there_is_some() {
    let mut pair = pair_with(256 * 1024 + 600 * 1024, &small_config());
    let (mut first, mut first_receiver) = pair.stream(D);
    let (mut second, mut second_receiver) = pair.stream(D);
    now(first.send(message(500 * KIB))).unwrap();
    pair.elapse(Duration::from_secs(1));
    now(second.send(message(500 * KIB))).unwrap();
    pair.elapse(Duration::from_secs(5));
    Polled::new(second_receiver.recv()).pending();
    assert_eq!(
        now(first_receiver.recv()).unwrap().unwrap().len(),
        500 * KIB
    );
    pair.elapse(Duration::from_secs(1));
    assert_eq!(
        now(second_receiver.recv()).unwrap().unwrap().len(),
        500 * KIB
    );
    let queues = crate::core::mux::queue_lengths(&pair.ends[A].connection.core.mux);
    assert!(queues.iter().all(|len| *len < 4), "{queues:?}");
    drop((first, first_receiver, second, second_receiver));
    pair.is_clean();
}

#[test]
fn a_message_that_fits_its_window_waits_for_a_slow_consumer_as_long_as_it_takes() {
    // No memory beyond the floor: the fourth message is cut where the window ends.
    let mut pair = pair_with(0, &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    for _ in 0..4 {
        now(sender.send(message(10_000))).unwrap();
    }
    pair.elapse(Duration::from_secs(60));
    for _ in 0..4 {
        assert_eq!(now(receiver.recv()).unwrap().unwrap().len(), 10_000);
        pair.elapse(Duration::from_secs(60));
    }
    drop((sender, receiver));
    pair.is_clean();
}

#[test]
fn memory_given_for_a_message_whose_next_piece_does_not_come_is_taken_back() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    let mut first = vec![0; 16_000];
    first[..4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    let mut streams = Vec::new();
    for n in 0..3 {
        solo.hear(&open(2 * n + 1, b""));
        streams.push(now(session.accept()).unwrap().unwrap());
        solo.hear(&data(2 * n + 1, &first, false, false));
    }
    solo.said();
    assert!(solo.end.pool.used() > 2 << 20);
    solo.elapse(Duration::from_secs(9));
    // One of them continues.
    solo.hear(&data(1, &[0; 16_000], false, false));
    solo.elapse(Duration::from_millis(1100));
    assert!(solo.end.pool.used() < 1 << 20);
    Polled::new(streams[0].recv()).pending();
    for stream in &mut streams[1..] {
        let end = now(stream.recv());
        assert!(
            matches!(end, Err(StreamError::LimitExceeded { .. })),
            "{end:?}"
        );
    }
    solo.elapse(Duration::from_secs(9));
    assert!(now(streams[0].recv()).is_err());
    assert_eq!(tripped(&session, Limit::MessageStalled), 3);
    // The pieces are freed, also while the handles are held.
    assert_eq!(solo.end.pool.used(), 0);
    drop(streams);
    solo.said();
    assert_eq!(solo.end.pool.used(), 0);
}

/// Otherwise a peer that cancels its streams could have more memory than the pool has.
#[test]
fn a_message_of_a_cancelled_stream_is_charged_as_long_as_it_is_queued() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, receiver) = pair.stream(D);
    let len = 300 * KIB as u64;
    now(sender.send(message(300 * KIB))).unwrap();
    pair.drive();
    sender.cancel(7);
    pair.drive();
    let end = &pair.ends[A];
    let held = end.connection.core.mux.flow.window.held();
    assert!(held <= FRAME_COST, "others may go on: {held}");
    let used = end.pool.used();
    assert!(used >= len && used < len + len / 8, "{used} bytes");
    drop((sender, receiver));
    pair.is_clean();
    assert_eq!(pair.ends[A].pool.used(), 0);
}

/// Three pieces of a message that was given memory.
fn hear_pieces(solo: &mut Solo) {
    let first = [&(1_u32 << 20).to_le_bytes()[..], &[0; 16_000]].concat();
    solo.hear(&open(1, b""));
    solo.hear(&data(1, &first, false, false));
    solo.said();
    solo.hear(&data(1, &[0; 16_000], false, false));
    solo.hear(&data(1, &[0; 16_000], false, false));
}

fn on_the_books(solo: &Solo) -> u64 {
    solo.end.pool.used()
}

/// They are not complete, so the application cannot receive them, and the queue cannot drop them.
#[test]
fn pieces_of_a_message_that_a_stop_leaves_behind_are_freed() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    hear_pieces(&mut solo);
    let mut stream = now(solo.end.session().accept()).unwrap().unwrap();
    stream.stop(7);
    assert_eq!(solo.said(), ["STOP 1 0x7"]);
    assert_eq!(on_the_books(&solo), 0);
    // The other direction stays open, and the memory stays freed.
    now(stream.send(message(1000))).unwrap();
    solo.said();
    assert_eq!(on_the_books(&solo), 0);
    drop(stream);
    solo.said();
    assert_eq!(on_the_books(&solo), 0);
}

/// The rest of it will not arrive, even while the application holds the error.
#[test]
fn a_failure_inside_a_message_returns_the_memory_for_the_missing_pieces() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    hear_pieces(&mut solo);
    let mut stream = now(solo.end.session().accept()).unwrap().unwrap();
    assert!(on_the_books(&solo) > 1 << 19);
    solo.hear(&Frame::Error {
        stream: id(1),
        code: 7,
        message: "no more",
        details: b"",
    });
    assert!(matches!(now(stream.recv()), Err(StreamError::Failed(_))));
    assert_eq!(on_the_books(&solo), 0);
    drop(stream);
    solo.said();
    assert_eq!(on_the_books(&solo), 0);
}

/// The handles are gone, but the socket takes no bytes: the stream stays until its last frame is sent.
#[test]
fn pieces_of_a_dropped_stream_are_freed_before_its_cancel_is_sent() {
    for accepted in [true, false] {
        let mut solo = Solo::new(Role::Acceptor, &small_config());
        hear_pieces(&mut solo);
        if accepted {
            drop(now(solo.end.session().accept()).unwrap().unwrap());
        } else {
            // As a shutdown does.
            solo.end.connection.core.refuse_all_unaccepted();
        }
        solo.end.connection.take_work(solo.now);
        assert_eq!(on_the_books(&solo), 0);
        let said = solo.said();
        assert!(
            said.iter().any(|line| line.starts_with("CANCEL 1 ")),
            "{said:?}"
        );
        assert_eq!(on_the_books(&solo), 0);
    }
}

/// A whole message that waits for the application, with memory that was given for an earlier one.
#[test]
fn memory_of_a_whole_queued_message_sets_the_next_one_no_deadline() {
    let config = config()
        .stream_window(32 * 1024)
        .stream_window_max(64 * 1024)
        .build()
        .unwrap();
    let mut solo = Solo::silent(Role::Acceptor, &config);
    let session = solo.end.session().clone();
    solo.hello(Settings::FLOORS);
    // Within two round trips, so that the window is raised together with the advance.
    solo.end
        .connection
        .core
        .ping
        .set_rtt(Duration::from_secs(1));
    solo.hear(&open(1, b""));
    let mut stream = now(session.accept()).unwrap().unwrap();
    let piece = vec![0; 16_000];
    let first = [&40_000_u32.to_le_bytes(), &piece[4..]].concat();
    for second in [false, true] {
        solo.hear(&data(1, &first, false, false));
        solo.said();
        solo.hear(&data(1, &piece, false, false));
        if !second {
            solo.hear(&data(1, &piece[..8004], true, false));
        }
    }
    // The peer has less credit left than a piece of the second message needs.
    solo.elapse(Duration::from_secs(11));
    assert_eq!(tripped(&session, Limit::MessageStalled), 0);
    assert_eq!(now(stream.recv()).unwrap().unwrap().len(), 40_000);
    solo.said();
    solo.hear(&data(1, &piece[..8004], true, false));
    assert_eq!(now(stream.recv()).unwrap().unwrap().len(), 40_000);
}

#[test]
fn a_message_that_was_given_memory_late_may_take_as_long_as_any_other() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    let first = [&100_000_u32.to_le_bytes()[..], &[0; 16_000]].concat();
    solo.hear(&open(1, b""));
    solo.hear(&open(3, b""));
    let _streams = [(); 2].map(|()| now(session.accept()).unwrap().unwrap());
    // This one has its memory at once, and its deadline is checked after 10 s.
    solo.hear(&data(1, &first, false, false));
    let rest = small_config().receive_pool() - solo.end.pool.used();
    assert!(solo.end.pool.take(rest, 0, u64::MAX));
    solo.hear(&data(3, &first, false, false));
    solo.elapse(Duration::from_secs(9));
    solo.end.pool.give(rest);
    solo.hear(&data(1, &[0; 16_000], false, false));
    solo.elapse(Duration::from_secs(9));
    assert_eq!(session.stats().limits_tripped, 0);
    solo.elapse(Duration::from_secs(2));
    assert_eq!(tripped(&session, Limit::MessageStalled), 2);
}

/// The time in which it waits for memory does not count, and no more than that.
#[test]
fn a_message_that_waits_for_memory_again_and_again_is_timed_in_between() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    let first = [&100_000_u32.to_le_bytes()[..], &[0; 16_000]].concat();
    solo.hear(&open(1, b""));
    let _stream = now(session.accept()).unwrap().unwrap();
    solo.hear(&data(1, &first, false, false));
    let rest = small_config().receive_pool() - solo.end.pool.used();
    let mut seconds = 0;
    while session.stats().limits_tripped == 0 {
        assert!(seconds < 60);
        assert!(solo.end.pool.take(rest, 0, u64::MAX));
        // Each piece costs more than its length.
        solo.hear(&data(1, &[0], false, false));
        solo.elapse(Duration::from_secs(2));
        solo.end.pool.give(rest);
        solo.elapse(Duration::from_secs(3));
        solo.said();
        seconds += 3;
    }
    assert_eq!(tripped(&session, Limit::MessageStalled), 1);
    assert_eq!(seconds, 12);
}

#[test]
fn a_message_in_needlessly_small_pieces_meets_a_limit() {
    const TOTAL: u64 = 128 * 1024;
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let mut stream = now(session.accept()).unwrap().unwrap();
    let costs = |pieces: u64| {
        let rest = TOTAL - pieces;
        pieces * (1 + FRAME_COST) + rest + FRAME_COST * rest.div_ceil(16 * 1024)
    };
    let most = 2 * TOTAL + 64 * 1024;
    let mut pieces = 1;
    solo.hear(&data(1, &[0, 0, 2, 0, 1], false, false));
    while costs(pieces) <= most {
        solo.said();
        assert_eq!(session.stats().limits_tripped, 0, "{pieces} pieces");
        solo.hear(&data(1, &[0], false, false));
        pieces += 1;
    }
    let error = LimitExceeded {
        limit: Limit::MessagePieces,
        value: costs(pieces),
    };
    let end = now(stream.recv());
    assert!(
        matches!(end, Err(StreamError::LimitExceeded(tripped)) if tripped == error),
        "{end:?}"
    );
    assert_eq!(tripped(&session, Limit::MessagePieces), 1);
    assert!(session.state().end().is_none());
}

#[test]
fn unfinished_messages_that_fill_the_sessions_window_do_not_wait_for_each_other() {
    let config = config()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let mut pair = Pair::established(&config, &config);
    let streams: Vec<_> = (0..10).map(|_| pair.stream(D)).collect();
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    for sender in &mut senders {
        now(sender.send(message(60_000))).unwrap();
    }
    pair.elapse(Duration::from_millis(100));
    assert_eq!(total(&mut receivers), 600_000);
    assert_eq!(pair.ends[A].session().stats().limits_tripped, 0);
    drop((senders, receivers));
    pair.is_clean();
}

/// Ten seconds of slack, and the time that its bytes may take.
#[test]
fn a_message_that_only_trickles_ends_as_one_that_stands_still_does() {
    let config = config().min_message_rate(1000).build().unwrap();
    // Bytes a second, and the lifetime of the stream in seconds.
    for (rate, lives) in [(1, 11), (500, 19), (990, u64::MAX)] {
        let mut solo = Solo::new(Role::Acceptor, &config);
        let session = solo.end.session().clone();
        solo.hear(&open(1, b""));
        let mut stream = now(session.accept()).unwrap().unwrap();
        let first = [&100_000_u32.to_le_bytes()[..], b"x"].concat();
        solo.hear(&data(1, &first, false, false));
        let whole = 99_999 / rate.max(100);
        for second in 0..lives.min(whole) {
            assert_eq!(session.stats().limits_tripped, 0, "{rate}/s, {second} s");
            solo.elapse(Duration::from_secs(1));
            if session.stats().limits_tripped == 0 {
                solo.hear(&data(1, &vec![0; rate as usize], false, false));
                solo.said();
            }
        }
        if lives > whole {
            let rest = 99_999 - whole * rate;
            solo.hear(&data(1, &vec![0; rest as usize], true, false));
            assert_eq!(now(stream.recv()).unwrap().unwrap().len(), 100_000);
            continue;
        }
        assert_eq!(tripped(&session, Limit::MessageStalled), 1, "{rate}/s");
        let end = now(stream.recv());
        assert!(
            matches!(end, Err(StreamError::LimitExceeded { .. })),
            "{end:?}"
        );
    }
}

/// Each fits its window, but together they fill the session's, so they are charged to the pool.
#[test]
fn unfinished_messages_that_moved_to_the_pool_do_not_lie_there_for_ever() {
    let config = config()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let mut solo = Solo::new(Role::Acceptor, &config);
    let session = solo.end.session().clone();
    let first = [&60_000_u32.to_le_bytes()[..], &[0; 16_000]].concat();
    for n in 0..5 {
        solo.hear(&open(2 * n + 1, b""));
        solo.hear(&data(2 * n + 1, &first, false, false));
        for _ in 0..2 {
            solo.hear(&data(2 * n + 1, &[0; 16_000], false, false));
        }
    }
    let _streams = [(); 5].map(|()| now(session.accept()).unwrap().unwrap());
    solo.said();
    assert!(solo.end.pool.used() > 4 * 48_000);
    solo.elapse(Duration::from_secs(9));
    assert_eq!(session.stats().limits_tripped, 0);
    solo.elapse(Duration::from_secs(2));
    assert!(tripped(&session, Limit::MessageStalled) >= 4);
}

#[test]
fn credit_of_a_stream_returns_as_its_messages_are_consumed() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let mut stream = now(session.accept()).unwrap().unwrap();
    for _ in 0..3 {
        solo.hear(&data(1, &[0; 16_200], true, false));
    }
    assert!(solo.said().is_empty());
    // The handle reports at half of the window, 32 768.
    now(stream.recv()).unwrap().unwrap();
    assert!(solo.said().is_empty(), "a quarter is not worth a report");
    now(stream.recv()).unwrap().unwrap();
    assert_eq!(solo.said(), ["WINDOW 1 32912"]);
    now(stream.recv()).unwrap().unwrap();
    assert!(solo.said().is_empty());
}

#[test]
fn credit_not_worth_a_frame_is_returned_when_the_session_runs_out() {
    let config = config()
        .stream_window(256 * 1024)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let mut solo = Solo::new(Role::Dialer, &config);
    let session = solo.end.session().clone();
    let mut quick = session.try_open("").unwrap();
    let _slow = session.try_open("").unwrap();
    solo.said();
    for _ in 0..7 {
        solo.hear(&data(1, &[0; 16_000], true, false));
        now(quick.recv()).unwrap().unwrap();
    }
    quick.stop(1);
    assert_eq!(solo.said(), ["STOP 1 0x1"], "43 % are consumed");
    let mut said = Vec::new();
    for _ in 0..9 {
        solo.hear(&data(3, &[0; 16_000], true, false));
        said.extend(solo.said());
    }
    assert!(said[0].starts_with("WINDOW session"), "{said:?}");
}

#[test]
fn a_session_with_half_of_its_window_unread_lets_its_engine_rest() {
    let config = config()
        .stream_window(256 * 1024)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .keepalive_idle(None)
        .build()
        .unwrap();
    let mut solo = Solo::new(Role::Dialer, &config);
    let session = solo.end.session().clone();
    let mut read = session.try_open("").unwrap();
    let _unread = session.try_open("").unwrap();
    solo.said();
    for stream in [1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3] {
        solo.hear(&data(stream, &[0; 16_000], true, false));
    }
    let soon = solo.end.connection.next_deadline().unwrap();
    assert!(soon - solo.now < Duration::from_millis(10), "it is short");
    while read.try_recv().is_some() {}
    let said = solo.said();
    assert!(said[0].starts_with("WINDOW session"), "{said:?}");
    solo.elapse(Duration::from_millis(20));
    let next = solo.end.connection.next_deadline();
    assert!(next.is_none_or(|at| at - solo.now > Duration::from_secs(1)));
}

#[test]
fn a_session_that_runs_out_by_frames_of_ended_streams_returns_consumed_credit() {
    let config = config()
        .stream_window(256 * 1024)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let mut solo = Solo::new(Role::Dialer, &config);
    let session = solo.end.session().clone();
    let _slow = session.try_open("").unwrap();
    drop(session.try_open("").unwrap());
    let cancelled = session.try_open("").unwrap();
    solo.said();
    drop(cancelled);
    assert_eq!(solo.said(), ["CANCEL 3 0xffffff03"]);
    for _ in 0..9 {
        solo.hear(&data(1, &[0; 16_000], true, false));
    }
    assert!(solo.said().is_empty());
    let mut said = Vec::new();
    for _ in 0..7 {
        solo.hear(&data(3, &[0; 16_000], true, false));
        said.extend(solo.said());
    }
    assert!(said[0].starts_with("WINDOW session"), "{said:?}");
}

#[test]
fn whatever_the_windows_size_a_consumer_that_took_all_lets_the_sender_go_on() {
    for stream_window in (32 * 1024..32 * 1024 + 600).step_by(7) {
        let config = config().stream_window(stream_window).build().unwrap();
        let mut pair = Pair::established(&config, &config);
        let (mut sender, mut receiver) = pair.stream(D);
        // Half a window less one byte, twice: the worst moment for both marks.
        let half = stream_window as usize / 2;
        for len in [half - 256, half - 257, 5000, half - 300, 1000, 16_000] {
            now(sender.send(message(len))).unwrap();
            pair.elapse(Duration::from_millis(50));
            assert_eq!(now(receiver.recv()).unwrap().unwrap().len(), len);
        }
        drop((sender, receiver));
        pair.is_clean();
    }
}

/// They are announced: their first piece is enough to be given memory for the whole message.
#[test]
fn one_peers_unfinished_messages_leave_memory_to_those_of_others() {
    let config = config().receive_pool(16 << 20).build().unwrap();
    let pool = Pool::new(u64::MAX);
    let [mut greedy, mut modest] = [(); 2].map(|()| {
        let now = Instant::now();
        let end = End::new(Role::Acceptor, &config, &pool, now);
        let mut solo = Solo { now, end };
        solo.hello(Settings::FLOORS);
        solo
    });
    let mut first = vec![0; 16_000];
    first[..4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    let session = greedy.end.session().clone();
    let mut streams = Vec::new();
    for n in 0..16 {
        greedy.hear(&open(2 * n + 1, b""));
        streams.push(now(session.accept()).unwrap().unwrap());
        greedy.hear(&data(2 * n + 1, &first, false, false));
    }
    let of_windows = 2 * ((1 << 20) - u64::from(Settings::FLOORS.session_window));
    let half = ((16 << 20) - of_windows) / 2;
    let of_messages = pool.used() - of_windows;
    assert!(
        (half - (1 << 20)..=half + (1 << 19)).contains(&of_messages),
        "{of_messages} of twice {half}"
    );
    let given = modest.end.session().clone();
    modest.hear(&open(1, b""));
    let mut stream = now(given.accept()).unwrap().unwrap();
    modest.hear(&data(1, &first, false, false));
    let said = modest.said();
    assert!(
        said.iter().any(|line| line.starts_with("WINDOW 1 ")),
        "{said:?}"
    );
    // Those of the greedy session that got none end like all that get none.
    greedy.elapse(Duration::from_millis(10_010));
    let stats = session.stats();
    assert!(stats.tripped.get(Limit::MessageMemory) >= 8, "{stats:?}");
    assert_eq!(given.stats().limits_tripped, 0);
    modest.hear(&data(1, &[0; 16_000], false, false));
    assert!(Polled::new(stream.recv()).now().is_none());
    drop((greedy, modest));
    assert_eq!(pool.used(), 0);
}

#[test]
fn however_many_sessions_lie_idle_there_is_memory_for_a_long_message() {
    let config = Config::default();
    let pool = Pool::new(u64::MAX);
    let mut sessions = Vec::from_iter((0..1000).map(|_| {
        let now = Instant::now();
        let end = End::new(Role::Acceptor, &config, &pool, now);
        Solo { now, end }
    }));
    let last = sessions.last_mut().unwrap();
    last.hello(Settings::FLOORS);
    last.hear(&open(1, b""));
    let _stream = now(last.end.session().accept()).unwrap().unwrap();
    let total = config.max_message();
    let first = [&total.to_le_bytes()[..], &[0; 16_000]].concat();
    last.hear(&data(1, &first, false, false));
    let said = last.said();
    let credit = said.iter().find_map(|line| line.strip_prefix("WINDOW 1 "));
    let credit: u64 = credit.expect("memory is given").parse().unwrap();
    assert!(credit > u64::from(total - config.stream_window()));
}

/// Its beginning is in the window behind a message that is not received yet.
#[test]
fn a_message_that_fits_is_completed_within_the_window_once_the_message_before_it_is_consumed() {
    let mut pair = Pair::established(&config().build().unwrap(), &config().build().unwrap());
    let (mut sender, mut receiver) = pair.stream(D);
    now(sender.send(message(5000))).unwrap();
    now(sender.send(message(60_000))).unwrap();
    pair.elapse(Duration::from_secs(5));
    assert_eq!(pair.ends[A].session().stats().messages_received, 1);
    let held = pair.ends[A].session().stats().bytes_held;
    assert!(
        held <= 64 * 1024 + FRAME_COST,
        "{held} bytes, the OPEN among them"
    );
    let soon = pair.now + Duration::from_secs(5);
    let quiet = pair.next_event().is_none_or(|at| at > soon);
    assert!(quiet, "nothing is polled for");
    // Far less than the mark of a stream that lacks nothing.
    assert_eq!(receiver.try_recv().unwrap().len(), 5000);
    pair.drive();
    assert_eq!(receiver.try_recv().unwrap().len(), 60_000);
    drop((sender, receiver));
    pair.is_clean();
}

/// Its ERROR waits for credit behind a message, and no STOP may overtake it.
#[test]
fn a_failed_stream_that_is_dropped_lets_its_peer_send_until_the_error_has_come() {
    let mut pair = Pair::established(&config().build().unwrap(), &config().build().unwrap());
    let (mut failing, mut peer) = pair.stream(D);
    for _ in 0..20 {
        now(failing.send(message(10_000))).unwrap();
    }
    failing.finish_with_error(3, "enough").unwrap();
    drop(failing);
    for _ in 0..100 {
        now(peer.send(message(10_000))).expect("discarded messages need no room");
        pair.drive();
    }
    for _ in 0..20 {
        assert_eq!(now(peer.recv()).unwrap().unwrap().len(), 10_000);
        pair.drive();
    }
    assert!(matches!(now(peer.recv()), Err(StreamError::Failed(f)) if f.code == 3));
    let error = now(peer.send("late")).unwrap_err();
    assert!(matches!(error, crate::SendError::Stream(StreamError::Failed(f)) if f.code == 3));
    drop(peer);
    pair.is_clean();
}

/// Both sides have more to send than the other receives, and each gives up on the other.
#[test]
fn a_failed_stream_ends_although_its_peer_stops_it_before_the_error_has_come() {
    for stopped_first in [false, true] {
        let mut pair = Pair::established(&config().build().unwrap(), &config().build().unwrap());
        let (mut failing, mut peer) = pair.stream(D);
        for _ in 0..20 {
            now(failing.send(message(10_000))).unwrap();
            now(peer.send(message(10_000))).unwrap();
        }
        peer.finish().unwrap();
        failing.finish_with_error(3, "enough").unwrap();
        pair.drive();
        let (_, failing_recv) = failing.split();
        let (_, peer_recv) = peer.split();
        if stopped_first {
            drop(peer_recv);
            pair.drive();
            drop(failing_recv);
        } else {
            drop(failing_recv);
            pair.drive();
            drop(peer_recv);
        }
        pair.is_clean();
    }
}

#[test]
fn stalled_streams_do_not_stop_the_others_while_the_window_can_be_raised() {
    let config = config()
        .max_streams(128)
        .session_send_buffer(64 << 20)
        .build()
        .unwrap();
    let mut pair = Pair::established(&config, &config);
    let mut streams: Vec<_> = (0..100).map(|_| pair.stream(D)).collect();
    for (sender, _) in &mut streams[..64] {
        while sender.try_send(message(4000)).is_ok() {}
    }
    pair.elapse(Duration::from_secs(3));
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    for _ in 0..20 {
        for sender in &mut senders[64..] {
            now(sender.send(message(8000))).unwrap();
        }
        pair.elapse(Duration::from_millis(10));
        assert_eq!(total(&mut receivers[64..]), 36 * 8000);
    }
    assert_eq!(pair.ends[A].session().stats().limits_tripped, 0);
    assert!(pair.ends[A].connection.core.mux.flow.window.target() > 1 << 20);
    drop((senders, receivers));
    pair.is_clean();
}

#[test]
fn where_it_cannot_be_raised_the_stream_that_stalled_longest_ends() {
    let config = config()
        .session_send_buffer(64 << 20)
        .max_streams(128)
        .session_window_max(1 << 20)
        .build()
        .unwrap();
    let mut pair = Pair::established(&config, &config);
    let streams: Vec<_> = (0..100).map(|_| pair.stream(D)).collect();
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    now(senders[5].send(message(8000))).unwrap();
    pair.elapse(Duration::from_millis(10));
    for sender in &mut senders[..64] {
        while sender.try_send(message(4000)).is_ok() {}
    }
    pair.elapse(Duration::from_secs(3));
    assert!(matches!(
        now(receivers[5].recv()),
        Err(StreamError::LimitExceeded(LimitExceeded {
            limit: Limit::StalledStream,
            ..
        }))
    ));
    for _ in 0..20 {
        for sender in &mut senders[64..] {
            now(sender.send(message(8000))).unwrap();
        }
        let mut arrived = 0;
        for _ in 0..30 {
            pair.elapse(Duration::from_millis(100));
            arrived += total(&mut receivers[64..]);
        }
        assert_eq!(arrived, 36 * 8000);
    }
    let ended = tripped(pair.ends[A].session(), Limit::StalledStream);
    assert!((1..64).contains(&ended), "{ended} streams ended");
    drop((senders, receivers));
    pair.is_clean();
}

#[test]
fn streams_that_were_fast_before_they_stalled_do_not_fill_their_session() {
    const STREAMS: usize = 64;
    const STEP: Duration = Duration::from_micros(500);
    let weather = Weather {
        delay: 500,
        ..Weather::FAIR
    };
    let config = Config::default();
    let pools = pools(1 << 30, 1 << 30);
    let mut pair = Pair::with(&config, &config, &pools, &weather, 1);
    pair.elapse(STEP * 10);
    let open = |_| now(pair.ends[D].session().open("")).unwrap();
    let mut senders: Vec<Stream> = (0..STREAMS).map(open).collect();
    pair.elapse(STEP * 10);
    let accept = |_| now(pair.ends[A].session().accept()).unwrap().unwrap();
    let mut receivers: Vec<Stream> = (0..STREAMS).map(accept).collect();

    let mut fill = |pair: &mut Pair, time| {
        for sender in &mut senders {
            while sender.try_send(message(1000)).is_ok() {}
        }
        pair.elapse(time);
    };
    for _ in 0..100 {
        fill(&mut pair, STEP);
        total(&mut receivers);
    }
    for _ in 0..20 {
        fill(&mut pair, Duration::from_secs(1));
    }
    let stats = pair.ends[A].session().stats();
    let windows = STREAMS as u64 * 64 * 1024;
    assert_eq!(stats.limits_tripped, 0, "{stats:?}");
    assert!(
        stats.bytes_held > windows + (2 << 20),
        "some windows have grown: {stats:?}"
    );
    assert!(
        stats.bytes_held <= windows + (4 << 20),
        "not too far: {stats:?}"
    );
}

/// Three quarters of the window count as held, as consumption below the marks is not reported.
#[test]
fn streams_of_which_all_was_read_are_not_ended_as_stalled() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    let mut streams = Vec::new();
    for n in 0..12 {
        solo.hear(&open(2 * n + 1, b""));
        let mut stream = now(session.accept()).unwrap().unwrap();
        // OPEN 256, frame 256, payload: 16 KiB a stream, and its mark is not reached.
        solo.hear(&data(2 * n + 1, &[7; 16 * 1024 - 512], true, false));
        assert!(stream.try_recv().is_some());
        streams.push(stream);
    }
    solo.said();
    solo.elapse(Duration::from_secs(3));
    assert_eq!(tripped(&session, Limit::StalledStream), 0);
}

#[test]
fn finished_unread_streams_do_not_keep_the_session_from_others() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let mut unread = Vec::new();
    for _ in 0..8 {
        let (mut call, mut answer) = pair.stream(D);
        call.finish().unwrap();
        now(answer.send(message(32_000))).unwrap();
        answer.finish().unwrap();
        pair.drive();
        unread.push(call);
    }
    let (mut other, mut answer) = pair.stream(D);
    pair.elapse(Duration::from_secs(5));
    let mut received = 0;
    for _ in 0..5 {
        let _ = answer.try_send(message(3_000));
        pair.elapse(Duration::from_secs(2));
        while other.try_recv().is_some() {
            received += 1;
        }
    }
    assert_eq!(received, 5);
    let trips = pair.ends[D].session().stats().tripped;
    assert!(trips.get(Limit::StalledStream) <= 8, "{trips:?}");
    for call in &mut unread {
        assert_eq!(
            now(call.recv()).unwrap().unwrap().len(),
            32_000,
            "it is still queued"
        );
    }
}

#[test]
fn a_message_longer_than_the_window_is_received_after_bytes_were_read() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    for _ in 0..2 {
        now(sender.send("magic")).unwrap();
        pair.drive();
        let mut magic = [0; 5];
        now(receiver.1.read_exact(&mut magic)).unwrap();
        now(sender.send(message(100_000))).unwrap();
        pair.drive();
        let mut received = Polled::new(receiver.recv());
        assert!(received.poll().is_pending(), "the window is shorter");
        pair.elapse(Duration::from_secs(1));
        let received = received.now().expect("all of it has come").unwrap();
        assert_eq!(received.unwrap(), message(100_000));
    }
}

#[test]
fn a_long_message_arrives_also_for_one_that_has_read_bytes_and_tries_now() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    now(sender.send("magic")).unwrap();
    pair.drive();
    let mut magic = [0; 5];
    now(receiver.1.read_exact(&mut magic)).unwrap();
    now(sender.send(message(100_000))).unwrap();
    let mut got = None;
    for _ in 0..100 {
        pair.elapse(Duration::from_secs(1));
        got = got.or_else(|| receiver.try_recv());
    }
    assert_eq!(got.map(|message| message.len()), Some(100_000));
}

/// Sessions whose streams begin messages of 1 MiB each and end; messages that handlers hold are kept.
#[test]
fn messages_that_handlers_of_ended_sessions_hold_are_charged_and_unfinished_ones_are_freed() {
    let pool = Pool::new(8 << 20);
    let mut first = vec![0; 16_000];
    first[..4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    let (mut held, mut ended) = (Vec::new(), Vec::new());
    for round in 0..40 {
        let at = Instant::now();
        let end = End::new(Role::Acceptor, &small_config(), &pool, at);
        let mut solo = Solo { now: at, end };
        solo.hello(Settings::FLOORS);
        let session = solo.end.session().clone();
        for n in 0..8 {
            solo.hear(&open(2 * n + 1, b""));
            let stream = now(session.accept()).unwrap().unwrap();
            // One whole message of each is available to the application.
            solo.hear(&data(2 * n + 1, &[7; 1000], true, false));
            solo.hear(&data(2 * n + 1, &first, false, false));
            held.push(stream);
        }
        match round % 3 {
            0 => solo.end.connection.eof(),
            1 => (0..8).for_each(|n| solo.hear(&cancel(2 * n + 1, 7, false))),
            _ => drop(std::mem::replace(
                &mut solo.end,
                End::new(Role::Acceptor, &small_config(), &pool, at),
            )),
        }
        let held_now = session.stats().bytes_held;
        assert!(
            round % 3 == 1 || held_now >= 8 * 1256,
            "{round}: {held_now}"
        );
        // The rest of a session under way is not examined.
        solo.end.connection.eof();
        ended.push((session, solo));
        let most = held.len() as u64 * 5 * 1256 * 2;
        assert!(pool.used() >= held.len() as u64 * 1256, "{}", pool.used());
        assert!(pool.used() <= most, "{round}: {} of {most}", pool.used());
    }
    for stream in &mut held {
        if let Ok(Some(message)) = now(stream.recv()) {
            assert_eq!(message.len(), 1000);
            assert!(now(stream.recv()).is_err());
        }
    }
    let after = pool.used();
    assert_eq!(after, 0, "they have seen the end");
    assert!(
        ended
            .iter()
            .all(|(session, _)| session.stats().bytes_held == 0)
    );
}

#[test]
fn a_pool_full_of_messages_of_dead_sessions_admits_no_new_one_until_the_handles_are_gone() {
    let pool = Pool::new(1 << 20);
    let config = small_config();
    let pools = [Pool::new(1 << 30), Arc::clone(&pool)];
    let mut held = Vec::new();
    while pool.used() < 1 << 20 {
        let mut pair = Pair::with(&config, &config, &pools, &Weather::FAIR, 0);
        establish(&mut pair);
        for _ in 0..4 {
            let (mut sender, receiver) = stream_of(&mut pair);
            now(sender.send(message(20_000))).unwrap();
            pair.drive_unchecked();
            held.push((sender, receiver));
        }
        let before = pool.used();
        pair.ends[A].connection.eof();
        assert!(pool.used() > before + 4 * 20_000);
    }
    let mut pair = Pair::with(&config, &config, &pools, &Weather::FAIR, 0);
    establish(&mut pair);
    let (mut sender, mut receiver) = stream_of(&mut pair);
    now(sender.send(message(500 * KIB))).unwrap();
    pair.drive_unchecked();
    Polled::new(receiver.recv()).pending();
    held.clear();
    for _ in 0..100 {
        pair.now += Duration::from_millis(10);
        pair.drive_unchecked();
    }
    assert_eq!(now(receiver.recv()).unwrap().unwrap().len(), 500 * KIB);
}

/// Where other sessions use the pool as well.
fn stream_of(pair: &mut Pair) -> (Stream, Stream) {
    let opened = now(pair.ends[D].session().open("")).unwrap();
    pair.drive_unchecked();
    (
        opened,
        now(pair.ends[A].session().accept()).unwrap().unwrap(),
    )
}

fn establish(pair: &mut Pair) {
    pair.drive_unchecked();
    assert!(now(pair.ends[D].session().established()).is_ok());
}

#[test]
fn messages_of_a_cancelled_stream_are_charged_until_they_are_read() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let mut stream = now(session.accept()).unwrap().unwrap();
    solo.hear(&data(1, &[7; 10_000], true, false));
    let before = solo.end.pool.used();
    solo.hear(&cancel(1, 7, false));
    assert!(
        session.stats().bytes_held <= FRAME_COST,
        "it stops no other"
    );
    assert!(solo.end.pool.used() >= before + 10_256);
    assert!(now(stream.recv()).is_err());
    solo.said();
    assert_eq!(solo.end.pool.used(), before);
}
