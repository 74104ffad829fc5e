//! Tests that need a process without other activity: memory, file descriptors, the process-wide receive pool, and the events
//! of a `tracing` subscriber. One test at a time, in a binary of its own.

#[path = "../it/host.rs"]
#[allow(dead_code, unused_macros)]
#[macro_use]
mod host;

mod busy;
mod count;
mod kept;
mod observed;
mod stalled;
mod waiting;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmux::{Addr, Config, RecvStream, SendStream, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use busy::a_busy_engine_answers_pings;
use count::{Footprint, nothing_left_after};
use host::{Halves, Host, Net, Soon, echo, eventually, pattern, round_trip};
use stalled::{
    a_stalled_consumer_takes_at_most_twice_its_window_of_memory,
    ninety_nine_streams_keep_their_throughput_beside_a_stalled_one,
};

/// Tolerance in bytes between two samples: activity of the test harness, the growth of a table.
const SLACK_BYTES: i64 = 64 * 1024;
/// A receive buffer of a session, once several streams are busy.
const RECEIVE_BUFFER_BYTES: i64 = 64 * 1024;
const WINDOW: u64 = 64 * 1024;

macro_rules! alone {
    ($hosts:tt: $($case:ident),+ $(,)?) => {
        $(mod $case {
            alone!(@each $case $hosts);
        })+
    };
    (@each $case:ident ($($host:ident)+)) => {
        $(#[test]
        fn $host() {
            super::$case(crate::host::$host);
        })+
    };
}

// Where sessions begin and end: wherever an engine runs, on each driver.
alone!((tokio_inline_tcp tokio_thread_tcp tokio_uring_inline_tcp tokio_uring_thread_tcp uring_inline_tcp uring_thread_tcp):
    sessions_that_are_dropped_in_any_state_leave_nothing,
    a_peer_that_hangs_up_half_way_and_reads_nothing_leaves_nothing,
    ninety_nine_streams_keep_their_throughput_beside_a_stalled_one,
    a_stalled_consumer_takes_at_most_twice_its_window_of_memory,
);

// The remains of streams in the core, which are the same whatever drives it.
alone!((tokio_inline_tcp): a_hundred_thousand_streams_opened_and_closed_leave_nothing);

// The remains of streams in one session: each driver's loop, once.
alone!((tokio_uring_thread_tcp uring_thread_tcp): twenty_thousand_streams_opened_and_closed_leave_nothing);
alone!((tokio_inline_tcp tokio_uring_thread_tcp uring_thread_tcp):
    ten_thousand_streams_at_once_leave_nothing,
    sixty_four_stalled_consumers_of_a_hundred_lose_nothing_and_hold_twice_their_windows,
);

mod handlers_of_ended_sessions_hold_no_unfinished_message_and_the_rest_is_counted {
    use super::kept::handlers_of_ended_sessions_hold_no_unfinished_message_and_the_rest_is_counted as case;
    use crate::host;

    #[test]
    fn tokio_thread_tcp() {
        case(host::tokio_thread_tcp);
    }
    #[test]
    fn tokio_uring_thread_tcp() {
        case(host::tokio_uring_thread_tcp);
    }
    #[test]
    fn uring_thread_tcp() {
        case(host::uring_thread_tcp);
    }
}

/// On one thread for everything, engines and applications, and on one for each of the two. With more busy threads than
/// there are processors the scheduler's slices are longer than the bound; `perf/reports/` has figures of that.
mod a_busy_engine_answers_pings_in_time {
    use super::a_busy_engine_answers_pings;
    use crate::host;

    #[test]
    fn tokio_inline_tcp() {
        a_busy_engine_answers_pings(host::tokio_inline_tcp);
    }
    #[test]
    fn tokio_uring_inline_tcp() {
        a_busy_engine_answers_pings(host::tokio_uring_inline_tcp);
    }
    #[test]
    fn uring_inline_tcp() {
        a_busy_engine_answers_pings(host::uring_inline_tcp);
    }
    #[test]
    fn tokio_one_thread_tcp() {
        a_busy_engine_answers_pings(host::tokio_one_thread_tcp);
    }
    #[test]
    fn tokio_uring_one_thread_tcp() {
        a_busy_engine_answers_pings(host::tokio_uring_one_thread_tcp);
    }
    #[test]
    fn uring_one_thread_tcp() {
        a_busy_engine_answers_pings(host::uring_one_thread_tcp);
    }
}

fn a_hundred_thousand_streams_opened_and_closed_leave_nothing(host: Host) {
    streams_opened_and_closed_leave_nothing(host, 100_000);
}

fn twenty_thousand_streams_opened_and_closed_leave_nothing(host: Host) {
    streams_opened_and_closed_leave_nothing(host, 20_000);
}

/// On a few concurrent tasks, because a single one would take most of a minute.
fn streams_opened_and_closed_leave_nothing(host: Host, count: u64) {
    const TASKS: u64 = 8;
    async fn one_after_another(client: Session, count: u64) {
        for n in 0..count {
            round_trip(&client, pattern(32, n)).await;
        }
    }
    async fn on_tasks(client: &Session, count: u64) {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| tokio::spawn(one_after_another(client.clone(), count / TASKS)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    let streams = |count: u64| {
        move |net: Net| async move {
            let (client, server) = net.pair().await;
            echo(server.clone());
            on_tasks(&client, count / 10).await;
            no_streams(&client, &server).await;
            let settled = Footprint::now().bytes;
            on_tasks(&client, count / 10 * 9).await;
            no_streams(&client, &server).await;
            let grown = Footprint::now().bytes - settled;
            // A receive buffer of each session may have been replaced by a larger one. The least allocation that each of 18,000
            // streams could leave is more.
            let most = SLACK_BYTES + 2 * RECEIVE_BUFFER_BYTES;
            assert!(grown < most, "{grown} bytes in {count} streams");
            assert_eq!(
                (client.stats().opened, server.stats().accepted),
                (count, count)
            );
            assert_eq!(client.stats().cancelled, 0);
        }
    };
    nothing_left_after(host, streams(800), streams(count));
}

fn ten_thousand_streams_at_once_leave_nothing(host: Host) {
    let streams = |count: u64| {
        move |net: Net| async move {
            let config = Config::builder().max_streams(10_000).build().unwrap();
            let (client, server) = net.pair_with(&config, &config).await;
            let mut open: Vec<(Halves, Halves)> = Vec::new();
            for n in 0..count {
                let ((mut ours_send, ours_recv), (theirs_send, mut theirs_recv)) =
                    net.stream(&client, &server).await;
                ours_send.send(pattern(64, n)).soon().await.unwrap();
                assert_eq!(
                    theirs_recv.recv().soon().await.unwrap(),
                    Some(pattern(64, n))
                );
                open.push(((ours_send, ours_recv), (theirs_send, theirs_recv)));
            }
            assert_eq!(client.stats().streams, count);
            drop(open);
            no_streams(&client, &server).await;
        }
    };
    nothing_left_after(host, streams(100), streams(10_000));
}

/// Idle, in the middle of messages, waiting, unaccepted, closed by one side or the other.
fn sessions_that_are_dropped_in_any_state_leave_nothing(host: Host) {
    let sessions = |rounds: u64| {
        move |net: Net| async move {
            for round in 0..rounds {
                let few = Config::builder().max_streams(16).build().unwrap();
                let (client, server) = net.pair_with(&few, &few).await;
                let ((mut ours_send, ours_recv), theirs) = net.stream(&client, &server).await;
                if round % 2 == 0 {
                    // Never received: it stays in both rings, in pieces.
                    ours_send
                        .send(pattern(1 << 20, round))
                        .soon()
                        .await
                        .unwrap();
                }
                let unaccepted = client.open("unaccepted").soon().await.unwrap();
                match round % 5 {
                    0 => client.close(),
                    1 => server.close(),
                    2 => drop(((ours_send, ours_recv), theirs)),
                    3 => drop(unaccepted),
                    _ => {}
                }
            }
        }
    };
    nothing_left_after(host, sessions(10), sessions(100));
}

/// The library's last write never completes by itself.
fn a_peer_that_hangs_up_half_way_and_reads_nothing_leaves_nothing(host: Host) {
    let peers = |count: u32| {
        move |net: Net| async move {
            let brief = Config::builder()
                .close_linger(Duration::from_millis(100))
                .build()
                .unwrap();
            let listener = net.listen(&brief).await;
            let Addr::Tcp(addr) = listener.local_addr() else {
                panic!("a TCP host");
            };
            for _ in 0..count {
                let mut raw = tokio::net::TcpStream::connect(addr).soon().await.unwrap();
                // A preface, and SETTINGS with 1 GiB of window for each stream and for the session.
                let mut hello = b"RINGMUX\x01\x0C\0\0\x70\0\0\0\0".to_vec();
                hello.extend_from_slice(b"\x03\0\0\0\0\x40\x04\0\0\0\0\x40");
                raw.write_all(&hello).soon().await.unwrap();
                let session = listener.accept().soon().await.unwrap();
                let (mut send, recv) = session.open("").soon().await.unwrap();
                let message = Bytes::from(vec![1; 60_000]);
                // Until the socket is full.
                let stuck = async { while send.send(message.clone()).await.is_ok() {} };
                let waited = tokio::time::timeout(Duration::from_millis(300), stuck);
                assert!(waited.await.is_err(), "the peer reads nothing");
                raw.shutdown().soon().await.unwrap();
                let started = Instant::now();
                session.closed().soon().await;
                assert!(started.elapsed() < Duration::from_secs(5));
                drop((session, (send, recv)));
                let mut rest = Vec::new();
                // The bytes in transit, and then the end, perhaps as a reset.
                let _ = raw.read_to_end(&mut rest).soon().await;
            }
        }
    };
    nothing_left_after(host, peers(1), peers(3));
}

fn sixty_four_stalled_consumers_of_a_hundred_lose_nothing_and_hold_twice_their_windows(host: Host) {
    let stalled = |active: usize| {
        move |net: Net| async move {
            let (client, server) = net.pair().await;
            let mut stalled = Vec::new();
            for n in 0..64 {
                let (mut ours, theirs) = net.stream(&client, &server).await;
                let sender = tokio::spawn(async move {
                    while ours.0.send(pattern(1000, n)).await.is_ok() {}
                    drop(ours);
                });
                stalled.push((theirs, sender));
            }
            let mut tasks = Vec::new();
            for _ in 0..active {
                let (ours, theirs) = net.stream(&client, &server).await;
                tasks.push(tokio::spawn(one_way(ours, theirs)));
            }
            for task in tasks {
                task.soon().await.unwrap();
            }
            eventually("the stalled streams have used their windows up", || {
                server.stats().bytes_held > 64 * (WINDOW - 2 * 1256)
            })
            .await;
            assert!(server.stats().bytes_held <= 64 * 2 * WINDOW);
            assert_eq!(server.stats().limits_tripped, 0, "there is memory to spare");
            for (n, (stream, _)) in stalled.iter_mut().enumerate() {
                for _ in 0..200 {
                    let message = stream.1.recv().soon().await.unwrap();
                    assert_eq!(message, Some(pattern(1000, n as u64)));
                }
            }
        }
    };
    nothing_left_after(host, stalled(1), stalled(36));
}

async fn one_way(
    (mut ours_send, _ours_recv): (SendStream, RecvStream),
    (_theirs_send, mut theirs_recv): (SendStream, RecvStream),
) {
    for n in 0..100 {
        ours_send.send(pattern(1024, n)).soon().await.unwrap();
        assert_eq!(
            theirs_recv.recv().soon().await.unwrap(),
            Some(pattern(1024, n))
        );
    }
}

async fn no_streams(client: &Session, server: &Session) {
    for session in [client, server] {
        eventually("no stream is left", || session.stats().streams == 0).await;
    }
}
