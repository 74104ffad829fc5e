//! One stream: opening, both directions, and every way to end it.

use bytes::Bytes;
use ringmux::{OpenError, RecvStream, SendError, SendStream, Session, Side, StreamError, codes};

use crate::host::{Net, Soon, echo, eventually, pattern, pause, round_trip};

everywhere!(
    either_side_opens_and_every_message_comes_back_in_order,
    an_opening_block_arrives_with_its_stream,
    a_finished_direction_leaves_the_other_open,
    an_error_arrives_after_every_message_before_it,
    a_cancel_ends_both_directions_and_nothing_else,
    a_stop_ends_one_direction_only,
    dropping_the_receiver_early_stops_the_peers_sender,
    dropping_the_sender_before_it_finished_cancels,
    dropping_the_sender_after_it_finished_does_nothing,
    opaque_blocks_arrive_in_order_with_the_messages,
    a_cancel_after_the_end_does_nothing,
);
on_sockets!(
    sending_after_the_end_is_refused_with_the_reason,
    an_opening_block_too_long_is_refused_before_anything_is_sent,
    a_stream_cancelled_before_it_left_never_reaches_the_peer,
    an_error_reaches_both_halves_of_the_peer_although_its_stream_is_dropped_at_once,
);

mod one_engine_carries_both_ends {
    use super::either_side_opens_and_every_message_comes_back_in_order as case;
    use crate::host::{self, run};

    #[test]
    fn tokio_one_thread_tcp() {
        run(host::tokio_one_thread_tcp, case);
    }
    #[test]
    fn tokio_uring_one_thread_tcp() {
        run(host::tokio_uring_one_thread_tcp, case);
    }
    #[test]
    fn uring_one_thread_tcp() {
        run(host::uring_one_thread_tcp, case);
    }
}

async fn either_side_opens_and_every_message_comes_back_in_order(net: Net) {
    let (client, server) = net.pair().await;
    echo(client.clone());
    echo(server.clone());
    for session in [&client, &server] {
        let (mut send, mut recv) = session.open("").soon().await.unwrap();
        for n in 0..20 {
            let message = pattern(n * 7, n as u64);
            send.send(message.clone()).soon().await.unwrap();
            assert_eq!(recv.recv().soon().await.unwrap(), Some(message));
        }
        let burst: Vec<Bytes> = (0..20).map(|n| pattern(n * 11, n as u64)).collect();
        send.send_all(burst.clone()).soon().await.unwrap();
        send.finish().unwrap();
        for message in burst {
            assert_eq!(recv.recv().soon().await.unwrap(), Some(message));
        }
        assert_eq!(recv.recv().soon().await.unwrap(), None);
    }
}

async fn an_opening_block_arrives_with_its_stream(net: Net) {
    let (client, server) = net.pair().await;
    for block in [Bytes::new(), pattern(1, 1), pattern(8 * 1024, 2)] {
        for (from, to, parity) in [(&client, &server, 1), (&server, &client, 0)] {
            let (opened_send, _opened_recv) = from.open(block.clone()).soon().await.unwrap();
            assert_eq!(opened_send.opening(), &block);
            let (accepted_send, _accepted_recv) = to.accept().soon().await.unwrap().unwrap();
            assert_eq!(accepted_send.opening(), &block);
            let id = accepted_send.id().expect("an accepted stream has its id");
            assert_eq!(id.as_u64() % 2, parity, "odd ids are the dialling side's");
            assert_eq!(opened_send.id(), Some(id));
        }
    }
}

async fn a_finished_direction_leaves_the_other_open(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    ours_send.send("question").soon().await.unwrap();
    ours_send.finish().unwrap();
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap().unwrap(),
        "question"
    );
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    for n in 0..3_u64 {
        theirs_send.send(pattern(100, n)).soon().await.unwrap();
        assert_eq!(
            ours_recv.recv().soon().await.unwrap(),
            Some(pattern(100, n))
        );
    }
    theirs_send.finish().unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap(), None);
    assert_eq!(
        ours_recv.recv().soon().await.unwrap(),
        None,
        "the end stays"
    );
}

async fn an_error_arrives_after_every_message_before_it(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (theirs_send, theirs_recv)) =
        net.stream(&client, &server).await;
    let (mut send, mut recv) = (theirs_send, theirs_recv);
    send.send("one").soon().await.unwrap();
    send.send("two").soon().await.unwrap();
    send.finish_with_details(42, "no such key", b"details")
        .unwrap();
    assert!(matches!(send.finish(), Err(SendError::Finished)));

    assert_eq!(ours_recv.recv().soon().await.unwrap().unwrap(), "one");
    assert_eq!(ours_recv.recv().soon().await.unwrap().unwrap(), "two");
    for _ in 0..2 {
        let error = ours_recv.recv().soon().await.unwrap_err();
        let StreamError::Failed(failure) = error else {
            panic!("{error}");
        };
        assert_eq!((failure.code, &*failure.message), (42, "no such key"));
        assert_eq!(failure.details, "details");
    }
    let error = ours_send.send("late").soon().await.unwrap_err();
    assert!(
        matches!(error, SendError::Stream(StreamError::Failed(_))),
        "{error}"
    );
    // The side that failed a stream has ended its other direction as well.
    let error = recv.recv().soon().await.unwrap_err();
    assert!(
        matches!(
            error,
            StreamError::Cancelled {
                by: Side::This,
                code: 42
            }
        ),
        "{error}"
    );
}

async fn an_error_reaches_both_halves_of_the_peer_although_its_stream_is_dropped_at_once(net: Net) {
    let (client, server) = net.pair().await;
    for _ in 0..50 {
        let ((mut ours_send, mut ours_recv), (mut theirs_send, theirs_recv)) =
            net.stream(&client, &server).await;
        theirs_send.finish_with_error(42, "no such key").unwrap();
        drop((theirs_send, theirs_recv));
        let error = ours_recv.recv().soon().await.unwrap_err();
        assert!(
            matches!(&error, StreamError::Failed(failure) if failure.code == 42),
            "{error}"
        );
        let error = ours_send.send("late").soon().await.unwrap_err();
        let named = matches!(error, SendError::Stream(StreamError::Failed(_)));
        assert!(named, "{error}");
    }
}

async fn a_cancel_ends_both_directions_and_nothing_else(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    ours_send.send("may be lost").soon().await.unwrap();
    ours_send.cancel(77);

    let error = until_error(&mut theirs_recv).await;
    assert!(
        matches!(
            error,
            StreamError::Cancelled {
                by: Side::Peer,
                code: 77
            }
        ),
        "{error}"
    );
    let error = theirs_send.send("late").soon().await.unwrap_err();
    assert!(
        matches!(
            error,
            SendError::Stream(StreamError::Cancelled {
                by: Side::Peer,
                code: 77
            })
        ),
        "{error}"
    );
    let error = until_error(&mut ours_recv).await;
    assert!(
        matches!(
            error,
            StreamError::Cancelled {
                by: Side::This,
                code: 77
            }
        ),
        "{error}"
    );

    echo(server.clone());
    round_trip(&client, Bytes::from_static(b"others go on")).await;
    drop(((ours_send, ours_recv), (theirs_send, theirs_recv)));
    all_streams_end(&client, &server).await;
    assert_eq!((client.stats().cancelled, server.stats().cancelled), (1, 1));
}

async fn a_stop_ends_one_direction_only(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    ours_recv.stop(5);
    let error = send_until_error(&mut theirs_send).await;
    assert!(matches!(error, SendError::Stopped { code: 5 }), "{error}");
    assert!(matches!(
        theirs_send.finish(),
        Err(SendError::Stopped { code: 5 })
    ));

    ours_send.send("the other direction").soon().await.unwrap();
    ours_send.finish().unwrap();
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap().unwrap(),
        "the other direction"
    );
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    drop(((ours_send, ours_recv), (theirs_send, theirs_recv)));
    all_streams_end(&client, &server).await;
    assert_eq!(client.stats().cancelled, 0);
}

async fn dropping_the_receiver_early_stops_the_peers_sender(net: Net) {
    let (client, server) = net.pair().await;
    let ((ours_send, ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let (mut send, recv) = (ours_send, ours_recv);
    drop(recv);
    let error = send_until_error(&mut theirs_send).await;
    assert!(
        matches!(
            error,
            SendError::Stopped {
                code: codes::CANCELLED
            }
        ),
        "{error}"
    );
    send.send("still sending").soon().await.unwrap();
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap().unwrap(),
        "still sending"
    );
    send.finish().unwrap();
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
}

async fn dropping_the_sender_before_it_finished_cancels(net: Net) {
    let (client, server) = net.pair().await;
    let ((ours_send, ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let (send, mut recv) = (ours_send, ours_recv);
    drop(send);
    let error = until_error(&mut theirs_recv).await;
    assert!(
        matches!(
            error,
            StreamError::Cancelled {
                by: Side::Peer,
                code: codes::CANCELLED,
            }
        ),
        "{error}"
    );
    let error = recv.recv().soon().await.unwrap_err();
    let ours = matches!(error, StreamError::Cancelled { by: Side::This, .. });
    assert!(ours, "{error}");
}

async fn dropping_the_sender_after_it_finished_does_nothing(net: Net) {
    let (client, server) = net.pair().await;
    let ((ours_send, ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let (mut send, mut recv) = (ours_send, ours_recv);
    send.send("all there is").soon().await.unwrap();
    send.finish().unwrap();
    drop(send);
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap().unwrap(),
        "all there is"
    );
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    theirs_send.send("answer").soon().await.unwrap();
    theirs_send.finish().unwrap();
    assert_eq!(recv.recv().soon().await.unwrap().unwrap(), "answer");
    assert_eq!(recv.recv().soon().await.unwrap(), None);
    drop((recv, (theirs_send, theirs_recv)));
    all_streams_end(&client, &server).await;
    assert_eq!((client.stats().cancelled, server.stats().cancelled), (0, 0));
}

async fn opaque_blocks_arrive_in_order_with_the_messages(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let trailers = pattern(8 * 1024, 3);
    ours_send.send_meta("headers").soon().await.unwrap();
    ours_send.send("body").soon().await.unwrap();
    ours_send.send_meta(trailers.clone()).soon().await.unwrap();
    let error = ours_send.send_meta("third").soon().await.unwrap_err();
    assert!(matches!(error, SendError::TooManyMetas), "{error}");
    ours_send.finish().unwrap();

    assert_eq!(theirs_recv.recv().soon().await.unwrap().unwrap(), "body");
    assert_eq!(theirs_recv.metas().first().unwrap(), "headers");
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    assert_eq!(
        theirs_recv.metas(),
        [Bytes::from_static(b"headers"), trailers]
    );
}

async fn a_cancel_after_the_end_does_nothing(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    for send in [&mut ours_send, &mut theirs_send] {
        send.send("whole").soon().await.unwrap();
        send.finish().unwrap();
    }
    for recv in [&mut ours_recv, &mut theirs_recv] {
        assert_eq!(recv.recv().soon().await.unwrap().unwrap(), "whole");
        assert_eq!(recv.recv().soon().await.unwrap(), None);
    }
    ours_send.cancel(1);
    theirs_send.cancel(2);
    drop(((ours_send, ours_recv), (theirs_send, theirs_recv)));
    all_streams_end(&client, &server).await;
    assert_eq!((client.stats().cancelled, server.stats().cancelled), (0, 0));
}

async fn sending_after_the_end_is_refused_with_the_reason(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), _theirs) = net.stream(&client, &server).await;
    ours_send.finish().unwrap();
    assert!(matches!(
        ours_send.send("x").soon().await,
        Err(SendError::Finished)
    ));
    assert!(matches!(
        ours_send.send_slice(b"x").soon().await,
        Err(SendError::Finished)
    ));
    assert!(matches!(
        ours_send.send_meta("x").soon().await,
        Err(SendError::Finished)
    ));
    assert!(matches!(ours_send.finish(), Err(SendError::Finished)));
    assert!(matches!(
        ours_send.finish_with_error(1, ""),
        Err(SendError::Finished)
    ));
    let refused = ours_send
        .try_send(Bytes::from_static(b"comes back"))
        .unwrap_err();
    assert_eq!(refused.into_message(), "comes back");
}

async fn an_opening_block_too_long_is_refused_before_anything_is_sent(net: Net) {
    let (client, server) = net.pair().await;
    let error = client
        .open(pattern(8 * 1024 + 1, 0))
        .soon()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::BlockTooLong {
                len: 8193,
                limit: 8192
            }
        ),
        "{error}"
    );
    client.ping().soon().await.unwrap();
    assert_eq!((client.stats().opened, server.stats().accepted), (0, 0));
}

async fn a_stream_cancelled_before_it_left_never_reaches_the_peer(net: Net) {
    use crate::host::Place;

    let (client, server) = net.pair().await;
    // An engine on its own thread may have sent it already.
    echo(server.clone());
    let before = client.stats().opened;
    // On one thread no task runs between these lines.
    drop(client.open("never seen").soon().await.unwrap());
    client.ping().soon().await.unwrap();
    let (left, came) = (client.stats().opened - before, server.stats().accepted);
    assert_eq!(left, came);
    if matches!(
        net.host.place,
        Place::Inline | Place::Spinning | Place::BlockOn
    ) {
        assert_eq!(left, 0);
    }
    all_streams_end(&client, &server).await;
}

/// Receives until the stream fails.
pub(crate) async fn until_error(recv: &mut RecvStream) -> StreamError {
    loop {
        match recv.recv().soon().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a clean end where an error was expected"),
            Err(error) => return error,
        }
    }
}

/// Sends until the stream fails.
async fn send_until_error(send: &mut SendStream) -> SendError {
    loop {
        if let Err(error) = send.send("x").soon().await {
            return error;
        }
        pause().await;
    }
}

/// Both registries are empty.
pub(crate) async fn all_streams_end(client: &Session, server: &Session) {
    for session in [client, server] {
        eventually("no stream is left", || session.stats().streams == 0).await;
    }
}
