//! A session as a whole: opening within the grant, ping, urgency, and its end.

use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use ringmux::{Addr, Config, OpenError, SendError, SessionError, StreamError, codes};

use crate::host::{Net, Place, Soon, Wire, echo, eventually, pattern, round_trip};
use crate::messages::small_windows;
use crate::streams::all_streams_end;

everywhere!(
    a_waiting_open_is_granted_when_a_stream_ends,
    a_dropped_waiting_open_gives_its_place_back,
    close_delivers_what_was_queued_before_it,
    both_sides_learn_why_a_session_ended,
    dropping_every_handle_closes_the_session_in_order,
    a_stream_outlives_its_session_handle,
    a_stream_opened_just_before_the_last_handle_is_dropped_lives_on,
    ping_measures_a_round_trip,
    a_more_urgent_stream_sends_first,
);
on_sockets!(
    close_delivers_what_was_queued_beyond_the_peers_window,
    close_ends_streams_that_are_still_open,
    streams_that_arrived_before_the_end_are_still_accepted,
    opens_beyond_the_number_that_may_wait_are_refused,
    a_waiting_open_ends_with_its_session,
    try_open_does_not_wait,
    a_session_knows_its_addresses_and_driver,
    counters_count,
    pings_are_shared,
);
// On the application's own thread, where the session cannot run between two calls without await.
test_on!(one_wake_serves_all_streams_that_want_a_sleeping_session:
    tokio_inline_tcp tokio_uring_inline_tcp uring_inline_tcp uring_block_on_tcp pipe_of_64
);

/// Sixteen streams are the grant before SETTINGS.
fn few_streams() -> Config {
    Config::builder().max_streams(16).build().unwrap()
}

async fn a_waiting_open_is_granted_when_a_stream_ends(net: Net) {
    let (client, server) = net.pair_with(&few_streams(), &few_streams()).await;
    for (from, to) in [(&client, &server), (&server, &client)] {
        let mut streams = Vec::new();
        for _ in 0..16 {
            streams.push(net.stream(from, to).await);
        }
        let mut waiting = std::pin::pin!(from.open("the seventeenth"));
        assert!(poll!(waiting.as_mut()).is_pending());
        from.ping().soon().await.unwrap();
        assert!(
            poll!(waiting.as_mut()).is_pending(),
            "sixteen streams are open"
        );

        let (mut ours, mut theirs) = streams.pop().unwrap();
        ours.0.finish().unwrap();
        theirs.0.finish().unwrap();
        assert_eq!(theirs.1.recv().soon().await.unwrap(), None);
        assert_eq!(ours.1.recv().soon().await.unwrap(), None);
        drop((ours, theirs));
        let opened = waiting.soon().await.unwrap();
        let (accepted_send, accepted_recv) = to.accept().soon().await.unwrap().unwrap();
        assert_eq!(accepted_send.opening(), "the seventeenth");
        drop((opened, (accepted_send, accepted_recv), streams));
        all_streams_end(&client, &server).await;
    }
}

async fn a_dropped_waiting_open_gives_its_place_back(net: Net) {
    let client = Config::builder().max_pending_opens(1).max_streams(16);
    let (client, server) = net
        .pair_with(&client.build().unwrap(), &few_streams())
        .await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(net.stream(&client, &server).await);
    }
    for _ in 0..3 {
        let mut waiting = Box::pin(client.open("given up"));
        assert!(poll!(waiting.as_mut()).is_pending());
        let error = client.open("too many").soon().await.unwrap_err();
        assert!(
            matches!(error, OpenError::TooManyPending { limit: 1 }),
            "{error}"
        );
        drop(waiting);
        // One that was given up is counted until the engine has seen it.
        client.ping().soon().await.unwrap();
    }
    let mut waiting = std::pin::pin!(client.open("patient"));
    assert!(poll!(waiting.as_mut()).is_pending());
    streams.pop();
    let _opened = waiting.soon().await.unwrap();
    let (accepted_send, _accepted_recv) = server.accept().soon().await.unwrap().unwrap();
    assert_eq!(
        accepted_send.opening(),
        "patient",
        "dropped opens stay unknown to the peer"
    );
}

async fn opens_beyond_the_number_that_may_wait_are_refused(net: Net) {
    let client = Config::builder().max_pending_opens(3).build().unwrap();
    let (client, server) = net.pair_with(&client, &few_streams()).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(net.stream(&client, &server).await);
    }
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(client.open(""))).collect();
    for open in &mut waiting {
        assert!(poll!(open).is_pending());
    }
    let error = client.open("").soon().await.unwrap_err();
    assert!(
        matches!(error, OpenError::TooManyPending { limit: 3 }),
        "{error}"
    );
    assert!(error.is_retryable());
    drop(streams);
    for open in waiting {
        // If it were dropped earlier, it might never be sent.
        let _opened = open.soon().await.unwrap();
        server.accept().soon().await.unwrap().unwrap();
    }
    all_streams_end(&client, &server).await;
}

async fn a_waiting_open_ends_with_its_session(net: Net) {
    let (client, server) = net.pair_with(&few_streams(), &few_streams()).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(net.stream(&client, &server).await);
    }
    let mut waiting = std::pin::pin!(client.open(""));
    assert!(poll!(waiting.as_mut()).is_pending());
    server.close();
    let error = waiting.soon().await.unwrap_err();
    assert!(
        matches!(error, OpenError::Session(SessionError::PeerClosed { .. })),
        "{error}"
    );
}

async fn try_open_does_not_wait(net: Net) {
    let (client, server) = net.pair_with(&few_streams(), &few_streams()).await;
    let streams: Vec<_> = (0..16).map(|_| client.try_open("").unwrap()).collect();
    let error = client.try_open("").unwrap_err();
    assert!(matches!(error, OpenError::NoCredit), "{error}");
    for _ in 0..16 {
        server.accept().soon().await.unwrap().unwrap();
    }
    drop(streams);
    eventually("a stream is granted", || client.try_open("").is_ok()).await;
}

async fn close_delivers_what_was_queued_before_it(net: Net) {
    // A pipe of one byte takes long on a busy machine.
    let patient = Config::builder()
        .close_linger(Duration::from_secs(20))
        .build()
        .unwrap();
    let (client, server) = net.pair_with(&patient, &Config::default()).await;
    let (mut send, _recv) = client.open("last words").soon().await.unwrap();
    let messages: Vec<Bytes> = (0..10).map(|n| pattern(n * 100, n as u64)).collect();
    send.send_all(messages.clone()).soon().await.unwrap();
    send.finish().unwrap();
    client.close();
    client.close();
    let error = client.open("").soon().await.unwrap_err();
    assert!(
        matches!(error, OpenError::Session(SessionError::Closed)),
        "{error}"
    );

    let (accepted_send, mut accepted_recv) = server.accept().soon().await.unwrap().unwrap();
    assert_eq!(accepted_send.opening(), "last words");
    for message in messages {
        assert_eq!(accepted_recv.recv().soon().await.unwrap(), Some(message));
    }
    assert_eq!(accepted_recv.recv().soon().await.unwrap(), None);
}

/// More than the peer's window: it is sent only while the peer's application consumes.
async fn close_delivers_what_was_queued_beyond_the_peers_window(net: Net) {
    let patient = Config::builder()
        .close_linger(Duration::from_secs(20))
        .build()
        .unwrap();
    let (client, server) = net.pair_with(&patient, &small_windows()).await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let messages: Vec<Bytes> = (0..20).map(|n| pattern(10_000, n)).collect();
    ours_send.send_all(messages.clone()).soon().await.unwrap();
    ours_send.finish().unwrap();
    client.close();
    for message in messages {
        assert_eq!(theirs_recv.recv().soon().await.unwrap(), Some(message));
    }
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    assert!(matches!(client.closed().soon().await, SessionError::Closed));
}

async fn close_ends_streams_that_are_still_open(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    ours_send.send("delivered").soon().await.unwrap();
    client.close();
    let error = ours_recv.recv().soon().await.unwrap_err();
    assert!(
        matches!(error, StreamError::Session(SessionError::Closed)),
        "{error}"
    );
    let error = ours_send.send("late").soon().await.unwrap_err();
    assert!(
        matches!(
            error,
            SendError::Stream(StreamError::Session(SessionError::Closed))
        ),
        "{error}"
    );
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap().unwrap(),
        "delivered"
    );
    let error = theirs_recv.recv().soon().await.unwrap_err();
    assert!(
        matches!(error, StreamError::Session(SessionError::PeerClosed { .. })),
        "{error}"
    );
}

async fn streams_that_arrived_before_the_end_are_still_accepted(net: Net) {
    let (client, server) = net.pair().await;
    let mut streams = Vec::new();
    for n in 0..3_u64 {
        let (mut send, recv) = client.open("").soon().await.unwrap();
        send.send(pattern(10, n)).soon().await.unwrap();
        send.finish().unwrap();
        streams.push((send, recv));
    }
    client.close();
    server.closed().soon().await;
    for n in 0..3_u64 {
        let (_stream_send, mut stream_recv) = server.accept().soon().await.unwrap().unwrap();
        assert_eq!(
            stream_recv.recv().soon().await.unwrap(),
            Some(pattern(10, n))
        );
        assert_eq!(stream_recv.recv().soon().await.unwrap(), None);
    }
    let end = server.accept().soon().await.unwrap();
    assert!(end.is_none(), "the peer closed in order");
}

async fn both_sides_learn_why_a_session_ended(net: Net) {
    for client_closes in [true, false] {
        let (client, server) = net.pair().await;
        let (closing, other) = if client_closes {
            (client, server)
        } else {
            (server, client)
        };
        assert!(closing.state().end().is_none());
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { other.closed().soon().await }
        });
        closing.close();
        assert!(matches!(
            closing.closed().soon().await,
            SessionError::Closed
        ));
        let error = waiting.soon().await.unwrap();
        let SessionError::PeerClosed { code, reason } = &error else {
            panic!("{error}");
        };
        assert_eq!((*code, &**reason), (codes::NO_ERROR, ""));
        for session in [&closing, &other] {
            assert!(session.state().end().is_some());
            assert!(session.accept().soon().await.unwrap().is_none());
            assert!(session.ping().soon().await.is_err());
            assert!(session.open("").soon().await.is_err());
        }
    }
}

async fn dropping_every_handle_closes_the_session_in_order(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let second = client.clone();
    drop(client);
    second.ping().soon().await.expect("a handle is left");
    drop(second);
    ours_send.send("a stream is left").soon().await.unwrap();
    ours_send.finish().unwrap();
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap().unwrap(),
        "a stream is left"
    );
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    assert!(server.state().end().is_none());
    theirs_send.finish().unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap(), None);
    drop((ours_send, ours_recv));
    let error = server.closed().soon().await;
    assert!(
        matches!(
            error,
            SessionError::PeerClosed {
                code: codes::NO_ERROR,
                ..
            }
        ),
        "{error}"
    );
}

async fn a_stream_outlives_its_session_handle(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    drop((client, server));
    for n in 0..5_u64 {
        ours_send.send(pattern(50, n)).soon().await.unwrap();
        assert_eq!(
            theirs_recv.recv().soon().await.unwrap(),
            Some(pattern(50, n))
        );
        theirs_send.send(pattern(60, n)).soon().await.unwrap();
        assert_eq!(ours_recv.recv().soon().await.unwrap(), Some(pattern(60, n)));
    }
    ours_send.finish().unwrap();
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    theirs_send.finish().unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap(), None);
}

async fn a_stream_opened_just_before_the_last_handle_is_dropped_lives_on(net: Net) {
    let (client, server) = net.pair().await;
    let (mut ours_send, mut ours_recv) = client.open("").soon().await.unwrap();
    drop(client);
    let (mut theirs_send, mut theirs_recv) = server.accept().soon().await.unwrap().unwrap();
    ours_send.send("there").soon().await.unwrap();
    assert_eq!(theirs_recv.recv().soon().await.unwrap().unwrap(), "there");
    theirs_send.send("back").soon().await.unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap().unwrap(), "back");
}

async fn ping_measures_a_round_trip(net: Net) {
    let (client, server) = net.pair().await;
    for session in [&client, &server] {
        for _ in 0..3 {
            let started = std::time::Instant::now();
            let rtt = session.ping().soon().await.unwrap();
            assert!(rtt > Duration::ZERO && rtt <= started.elapsed() + Duration::from_secs(1));
        }
    }
}

async fn pings_are_shared(net: Net) {
    let (client, server) = net.pair().await;
    client.ping().soon().await.unwrap();
    let before = server.stats().frames_received;
    let pings = (0..200).map(|_| client.ping());
    for rtt in futures_util::future::join_all(pings).soon().await {
        rtt.unwrap();
    }
    // One is under way at a time. The answer to the server's own first PING may come meanwhile. An engine on another thread may get
    // answers while some are still begun.
    let frames = server.stats().frames_received - before;
    let most = match net.host.place {
        Place::Inline | Place::Spinning | Place::BlockOn => 2,
        Place::Thread | Place::OneThread | Place::Shared => 100,
    };
    println!("{:?}: {frames} frames", net.host);
    assert!(
        (1..=most).contains(&frames),
        "{frames} frames for 200 pings"
    );
}

/// Everything urgent that is queued goes out before anything less urgent.
async fn a_more_urgent_stream_sends_first(net: Net) {
    let wide = Config::builder()
        .stream_window(4 << 20)
        .stream_window_max(4 << 20)
        .session_window(16 << 20)
        .send_buffer(4 << 20)
        .session_send_buffer(16 << 20)
        .build()
        .unwrap();
    let (client, server) = net.pair_with(&wide, &wide).await;
    let ((mut urgent_send, _urgent_recv), (_urgent_in_send, mut urgent_in_recv)) =
        net.stream(&client, &server).await;
    let ((mut idle_send, _idle_recv), (_idle_in_send, mut idle_in_recv)) =
        net.stream(&client, &server).await;
    urgent_send.set_urgency(0);
    idle_send.set_urgency(200);
    // After a PING the engine has seen the urgencies.
    client.ping().soon().await.unwrap();
    let messages = net.scaled(1 << 20) / 10_000;
    for n in 0..messages {
        urgent_send.try_send(pattern(10_000, n as u64)).unwrap();
    }
    idle_send.try_send(Bytes::from_static(b"whenever")).unwrap();
    assert_eq!(
        idle_in_recv.recv().soon().await.unwrap().unwrap(),
        "whenever"
    );
    for n in 0..messages {
        let received = urgent_in_recv
            .try_recv()
            .expect("the urgent message has overtaken");
        assert!(received == pattern(10_000, n as u64));
    }

    // And in the other order, on hosts where no task runs between two lines and the pipe is short.
    if matches!(net.host.wire, Wire::Pipe(_)) {
        for n in 0..messages {
            idle_send.try_send(pattern(10_000, n as u64)).unwrap();
        }
        urgent_send.try_send(Bytes::from_static(b"now")).unwrap();
        assert_eq!(urgent_in_recv.recv().soon().await.unwrap().unwrap(), "now");
        let arrived = std::iter::from_fn(|| idle_in_recv.try_recv()).count();
        assert!(
            arrived < messages.div_ceil(2),
            "{arrived} of {messages} came before"
        );
    }
}

async fn a_session_knows_its_addresses_and_driver(net: Net) {
    let listener = net.listen(&Config::default()).await;
    let client = net.connect(&listener, &Config::default()).await;
    let server = listener.accept().soon().await.unwrap();
    assert_eq!(net.host.wire, Wire::Tcp);
    assert_eq!(client.peer_addr(), Some(listener.local_addr()));
    assert_eq!(server.local_addr(), Some(listener.local_addr()));
    assert_eq!(client.local_addr(), server.peer_addr());
    assert!(matches!(client.local_addr(), Some(Addr::Tcp(_))));
    for session in [&client, &server] {
        assert_eq!(session.driver(), net.driver());
    }
}

async fn counters_count(net: Net) {
    let (client, server) = net.pair().await;
    echo(server.clone());
    for n in 0..10 {
        round_trip(&client, pattern(100, n)).await;
    }
    all_streams_end(&client, &server).await;
    let (ours, theirs) = (client.stats(), server.stats());
    assert_eq!((ours.opened, ours.accepted), (10, 0));
    assert_eq!((theirs.opened, theirs.accepted), (0, 10));
    for stats in [ours, theirs] {
        assert_eq!((stats.messages_sent, stats.messages_received), (10, 10));
        // A message and its FIN may share a frame.
        assert!(stats.frames_sent >= 10 && stats.frames_received >= 10);
        assert!(stats.bytes_sent > 1000 && stats.bytes_received > 1000);
        assert!(stats.batches > 0 && stats.turns >= stats.batches);
        assert_eq!(
            (stats.streams, stats.cancelled, stats.limits_tripped),
            (0, 0, 0)
        );
    }
}

async fn one_wake_serves_all_streams_that_want_a_sleeping_session(net: Net) {
    const STREAMS: u64 = 10;
    let (client, _server) = net.pair().await;
    // There is no signal that a session sleeps: work left by the handshake may keep it awake a little.
    for _ in 0..100 {
        let before = client.stats();
        let streams: Vec<_> = (0..STREAMS).map(|_| client.try_open("").unwrap()).collect();
        let issued = client.stats().wakes_issued - before.wakes_issued;
        assert!(issued <= 1, "{issued} wakes without a sleep between them");
        eventually("they are opened", || {
            client.stats().opened == before.opened + STREAMS
        })
        .await;
        let after = client.stats();
        assert_eq!(after.activations - before.activations, STREAMS);
        assert_eq!(
            (
                after.wakes_issued - before.wakes_issued,
                after.wakes_suppressed - before.wakes_suppressed
            ),
            (issued, STREAMS - issued)
        );
        if issued == 1 {
            return;
        }
        drop(streams);
        eventually("they are gone", || client.stats().streams == 0).await;
    }
    panic!("the session never slept");
}
