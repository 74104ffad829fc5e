//! Many streams, many threads, and streams without a reader.
//!
//! Tests that depend on the state of the process-wide receive pool are in `tests/alone`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use ringmux::{Config, Limit, LimitExceeded, SendStream, Session, StreamError, TrySendError};
use tokio::task::JoinHandle;

use crate::host::{AWAIT_GUARD, Halves, Net, Soon, echo, eventually, pattern, tokio_runtime};
use crate::streams::all_streams_end;

on_each_driver!(
    ten_thousand_streams_at_once_each_echo,
    one_stalled_consumer_of_a_hundred_holds_at_most_twice_its_window,
    stalled_consumers_without_memory_to_spare_are_ended_and_the_others_go_on,
    a_huge_message_that_nobody_reads_leaves_the_others_going,
    unaccepted_streams_without_memory_to_spare_are_ended_and_the_others_go_on,
    what_streams_queue_together_is_bounded_and_all_of_it_arrives,
);
on_sockets!(
    eight_threads_send_on_their_own_streams_each_message_once_and_in_order,
    unaccepted_streams_leave_the_accepted_ones_going,
    streams_are_opened_from_both_sides_at_once,
);

const WINDOW: u64 = 64 * 1024;

/// Each on a thread and a runtime of its own, away from the engine's.
async fn eight_threads_send_on_their_own_streams_each_message_once_and_in_order(net: Net) {
    const MESSAGES: u64 = 5_000;
    let size = |thread: u64, n: u64| 8 + (n * 31 + thread) as usize % 200;
    let (client, server) = net.pair().await;
    let senders: Vec<_> = (0..8_u64)
        .map(|thread| {
            let client = client.clone();
            tokio::task::spawn_blocking(move || {
                tokio_runtime().block_on(async move {
                    let opening = Bytes::copy_from_slice(&thread.to_le_bytes());
                    let (mut send, mut recv) = client.open(opening).soon().await.unwrap();
                    for n in 0..MESSAGES {
                        send.send(pattern(size(thread, n), n)).soon().await.unwrap();
                    }
                    send.finish().unwrap();
                    assert_eq!(recv.recv().soon().await.unwrap().unwrap(), "all here");
                    assert_eq!(recv.recv().soon().await.unwrap(), None);
                });
            })
        })
        .collect();
    let receivers: Vec<_> = (0..8)
        .map(|_| {
            let server = server.clone();
            tokio::task::spawn_blocking(move || {
                tokio_runtime().block_on(async move {
                    let (mut stream_send, mut stream_recv) =
                        server.accept().soon().await.unwrap().unwrap();
                    let thread = u64::from_le_bytes(stream_send.opening()[..].try_into().unwrap());
                    for n in 0..MESSAGES {
                        let message = stream_recv.recv().soon().await.unwrap().unwrap();
                        assert!(
                            message == pattern(size(thread, n), n),
                            "{n} of thread {thread}"
                        );
                    }
                    assert_eq!(stream_recv.recv().soon().await.unwrap(), None);
                    stream_send.send("all here").soon().await.unwrap();
                    stream_send.finish().unwrap();
                });
            })
        })
        .collect();
    for thread in senders.into_iter().chain(receivers) {
        thread.within(Duration::from_secs(50)).await.unwrap();
    }
    all_streams_end(&client, &server).await;
    assert_eq!(client.stats().messages_sent, 8 * MESSAGES);
    assert_eq!(server.stats().messages_received, 8 * MESSAGES);
}

async fn ten_thousand_streams_at_once_each_echo(net: Net) {
    const STREAMS: u64 = 10_000;
    let config = Config::builder()
        .max_streams(STREAMS as u32)
        .build()
        .unwrap();
    let (client, server) = net.pair_with(&config, &config).await;
    echo(server.clone());
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let opening = Bytes::copy_from_slice(&n.to_le_bytes());
        streams.push(client.open(opening).soon().await.unwrap());
    }
    for (stream, n) in streams.iter_mut().zip(0..) {
        stream.0.send(pattern(64, n)).soon().await.unwrap();
    }
    for (stream, n) in streams.iter_mut().zip(0..) {
        assert_eq!(
            stream.1.recv().soon().await.unwrap(),
            Some(pattern(64, n)),
            "stream {n}"
        );
    }
    for session in [&client, &server] {
        assert_eq!(
            session.stats().streams,
            STREAMS,
            "all of them are open at once"
        );
    }
    for stream in &mut streams {
        stream.0.finish().unwrap();
    }
    for stream in &mut streams {
        assert_eq!(stream.1.recv().soon().await.unwrap(), None);
    }
    drop(streams);
    all_streams_end(&client, &server).await;
    for session in [&client, &server] {
        eventually("nothing is held", || session.stats().bytes_held == 0).await;
    }
}

/// Streams whose messages are not received: `(senders, receivers)`.
async fn stall(client: &Session, server: &Session, streams: usize) -> Stalled {
    let mut stalled = Stalled::default();
    for _ in 0..streams {
        let (mut send, recv) = client.open("stalled").soon().await.unwrap();
        stalled
            .received
            .push(server.accept().soon().await.unwrap().unwrap());
        stalled.answers.push(recv);
        stalled.senders.push(tokio::spawn(async move {
            for n in 0.. {
                if send.send(pattern(1000, n)).await.is_err() {
                    break;
                }
            }
            send
        }));
    }
    stalled
}

#[derive(Default)]
struct Stalled {
    senders: Vec<JoinHandle<SendStream>>,
    answers: Vec<ringmux::RecvStream>,
    received: Vec<Halves>,
}

/// Streams that go there and back, `rounds` times, on streams that are all open at once.
async fn active(client: &Session, server: &Session, streams: usize, rounds: u64) {
    let mut pairs = Vec::new();
    for _ in 0..streams {
        let ours = client.open("active").soon().await.unwrap();
        pairs.push((ours, server.accept().soon().await.unwrap().unwrap()));
    }
    let tasks: Vec<_> = pairs
        .into_iter()
        .map(|(mut ours, theirs)| {
            tokio::spawn(crate::host::echo_stream(theirs));
            tokio::spawn(async move {
                for n in 0..rounds {
                    let message = pattern(1024, n);
                    ours.0.send(message.clone()).soon().await.unwrap();
                    assert_eq!(ours.1.recv().soon().await.unwrap(), Some(message));
                }
                ours.0.finish().unwrap();
                assert_eq!(ours.1.recv().soon().await.unwrap(), None);
            })
        })
        .collect();
    for task in tasks {
        task.soon().await.unwrap();
    }
}

async fn one_stalled_consumer_of_a_hundred_holds_at_most_twice_its_window(net: Net) {
    let (client, server) = net.pair().await;
    let mut stalled = stall(&client, &server, 1).await;
    let frame = 1000 + 256;
    eventually("the stalled stream has used its window up", || {
        server.stats().bytes_held + frame > WINDOW
    })
    .await;
    active(&client, &server, 99, 50).await;
    eventually("only the stalled stream holds anything", || {
        server.stats().bytes_held <= 2 * WINDOW
    })
    .await;
    assert!(server.stats().bytes_held + frame > WINDOW);
    assert_eq!(server.stats().limits_tripped, 0);

    // It has lost no message.
    let mut stream = stalled.received.remove(0);
    for n in 0..500 {
        assert_eq!(
            stream.1.recv().soon().await.unwrap(),
            Some(pattern(1000, n))
        );
    }
}

async fn stalled_consumers_without_memory_to_spare_are_ended_and_the_others_go_on(net: Net) {
    let fixed = Config::builder()
        .session_window_max(1 << 20)
        .build()
        .unwrap();
    let (client, server) = net.pair_with(&fixed, &fixed).await;
    let mut stalled = stall(&client, &server, 64).await;
    active(&client, &server, 36, 50).await;
    eventually("a limit was tripped", || server.stats().limits_tripped > 0).await;
    eventually("enough is free again", || {
        server.stats().bytes_held < 768 << 10
    })
    .await;
    active(&client, &server, 36, 50).await;
    let mut ended = 0;
    for stream in &mut stalled.received {
        match stream.1.recv().soon().await {
            Ok(message) => assert_eq!(message, Some(pattern(1000, 0))),
            Err(error) => {
                let named = matches!(
                    error,
                    StreamError::LimitExceeded(LimitExceeded {
                        limit: Limit::StalledStream,
                        ..
                    })
                );
                assert!(named, "{error}");
                ended += 1;
            }
        }
    }
    assert!((1..64).contains(&ended), "{ended} streams were ended");
    assert_eq!(ended, server.stats().limits_tripped);
}

async fn a_huge_message_that_nobody_reads_leaves_the_others_going(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let huge = pattern(4 << 20, 1);
    ours_send.send(huge.clone()).soon().await.unwrap();
    eventually("it is there", || server.stats().messages_received == 1).await;
    for n in 0..3 {
        let _ = ours_send.try_send(pattern(2 << 20, n));
    }
    active(&client, &server, 99, 20).await;
    assert!(theirs_recv.recv().soon().await.unwrap().unwrap() == huge);
}

/// Unaccepted streams cost the session's credit, but never all of it.
async fn unaccepted_streams_leave_the_accepted_ones_going(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), theirs) = net.stream(&client, &server).await;
    tokio::spawn(crate::host::echo_stream(theirs));
    let mut unaccepted = Vec::new();
    for n in 0..200 {
        let (mut send, recv) = client.open(pattern(8 * 1024, n)).soon().await.unwrap();
        send.send(pattern(1000, n)).soon().await.unwrap();
        unaccepted.push((send, recv));
    }
    for n in 0..50 {
        ours_send.send(pattern(10_000, n)).soon().await.unwrap();
        assert_eq!(
            ours_recv.recv().soon().await.unwrap(),
            Some(pattern(10_000, n))
        );
    }
    for n in 0..200 {
        let (stream_send, mut stream_recv) = server.accept().soon().await.unwrap().unwrap();
        assert_eq!(stream_send.opening(), &pattern(8 * 1024, n));
        assert_eq!(
            stream_recv.recv().soon().await.unwrap(),
            Some(pattern(1000, n))
        );
    }
}

async fn unaccepted_streams_without_memory_to_spare_are_ended_and_the_others_go_on(net: Net) {
    let fixed = Config::builder()
        .session_window_max(1 << 20)
        .build()
        .unwrap();
    let (client, server) = net.pair_with(&fixed, &fixed).await;
    let ((mut ours_send, mut ours_recv), theirs) = net.stream(&client, &server).await;
    tokio::spawn(crate::host::echo_stream(theirs));
    let mut unaccepted = Vec::new();
    for n in 0..200 {
        unaccepted.push(client.open(pattern(8 * 1024, n)).soon().await.unwrap());
    }
    for n in 0..50 {
        ours_send.send(pattern(10_000, n)).soon().await.unwrap();
        assert_eq!(
            ours_recv.recv().soon().await.unwrap(),
            Some(pattern(10_000, n))
        );
    }
    let tripped = server.stats().limits_tripped;
    assert!((1..200).contains(&tripped), "{tripped} streams were ended");
    let mut accepted = Vec::new();
    for _ in 0..200 {
        accepted.push(server.accept().soon().await.unwrap().unwrap());
    }
    // One may be ended while they are accepted.
    let mut ended = 0;
    eventually("as many have ended as were counted", || {
        accepted.retain_mut(|stream| {
            let Some(Err(error)) = stream.1.recv().now_or_never() else {
                return true;
            };
            let named = matches!(
                error,
                StreamError::LimitExceeded(LimitExceeded {
                    limit: Limit::StalledStream,
                    ..
                })
            );
            assert!(named, "{error}");
            ended += 1;
            false
        });
        ended == server.stats().limits_tripped
    })
    .await;
}

async fn streams_are_opened_from_both_sides_at_once(net: Net) {
    let (client, server) = net.pair().await;
    for session in [&client, &server] {
        echo(session.clone());
    }
    let tasks: Vec<_> = [&client, &server]
        .into_iter()
        .flat_map(|session| std::iter::repeat_n(session, 8))
        .map(|session| {
            let session = session.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    crate::host::round_trip(&session, pattern(300, n)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.soon().await.unwrap();
    }
    all_streams_end(&client, &server).await;
    assert_eq!((client.stats().opened, server.stats().opened), (400, 400));
}

/// The bound of `session_send_buffer`. No message is read until the senders stall.
async fn what_streams_queue_together_is_bounded_and_all_of_it_arrives(net: Net) {
    const STREAMS: u64 = 64;
    const BUDGET: u64 = 128 * 1024;
    const FLOOR: u64 = 4 * 1024;
    /// Of one stream, at the peer.
    const WINDOW: u32 = 32 * 1024;
    const MESSAGE: usize = 4000;
    const WEIGHT: u64 = MESSAGE as u64 + 256;
    let ours = Config::builder()
        .send_buffer(64 * 1024)
        .session_send_buffer(BUDGET as u32)
        .build()
        .unwrap();
    // Enough for all windows, so that no stream counts as stalled.
    let theirs = Config::builder()
        .stream_window(WINDOW)
        .stream_window_max(WINDOW)
        .session_window(3 << 20)
        .session_window_max(3 << 20)
        .build()
        .unwrap();
    let (client, server) = net.pair_with(&ours, &theirs).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (sender, receiver) = net.stream(&client, &server).await;
        streams.push((sender, receiver, 0));
    }
    let (mut standing, mut queued, begun) = (0, 0, Instant::now());
    // A PING may be answered before messages that wait for a later batch are sent.
    while standing < 3 || queued < BUDGET / 2 {
        assert!(begun.elapsed() < AWAIT_GUARD, "{queued} bytes are queued");
        let mut moved = false;
        for (sender, _, sent) in &mut streams {
            loop {
                match sender.0.try_send(pattern(MESSAGE, *sent)) {
                    Ok(()) => (*sent, moved) = (*sent + 1, true),
                    Err(TrySendError::Full(_)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        client.ping().soon().await.unwrap();
        standing = if moved { 0 } else { standing + 1 };
        let accepted: u64 = streams.iter().map(|(.., sent)| sent).sum();
        queued = WEIGHT * (accepted - client.stats().messages_sent);
        assert!(
            queued <= BUDGET + STREAMS * (FLOOR + WEIGHT),
            "{queued} bytes are queued"
        );
    }
    for (_, receiver, sent) in &mut streams {
        for n in 0..*sent {
            let received = receiver.1.recv().soon().await.unwrap();
            assert!(received == Some(pattern(MESSAGE, n)), "message {n}");
        }
    }

    // No part of the budget is lost: a new stream gets its whole share at once.
    drop(streams);
    client.ping().soon().await.unwrap();
    let ((mut last_send, _last_recv), _theirs) = net.stream(&client, &server).await;
    let message = pattern(1000, 0);
    let mut queued = 0;
    while last_send.try_send(message.clone()).is_ok() {
        queued += message.len() as u64 + 256;
    }
    assert!(queued > u64::from(ours.send_buffer()) - 1256, "{queued}");
}
