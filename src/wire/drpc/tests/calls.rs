//! Calls between two ends of the wire.

use super::super::failure;
use super::*;
use crate::drpc::{CancelForm, FlowControl, Invocation};
use crate::error::{
    NotCarried, OpenError, PingError, Processed, SendError, Side, StreamError, codes,
};
use crate::handle::whole::Whole as _;

const BOTH: [Profile; 2] = [Profile::STORJ, Profile::COCKROACH];
const CALLS: u32 = 2_000;

#[tokio::test]
async fn a_call_goes_there_and_back_without_a_handshake() {
    for profile in BOTH {
        let [(client, _a), (server, _b)] = ends(settings(profile));
        let opening = Invocation::encode("/a.B/C", [("k", "v")]).unwrap();
        let mut call = soon(client.open(opening)).await.unwrap();
        call.send("question").await.unwrap();
        call.finish().unwrap();
        let mut served = soon(server.accept()).await.unwrap().unwrap();
        let opening = served.opening().clone();
        let invocation = Invocation::decode(&opening).unwrap();
        assert_eq!(invocation.path(), "/a.B/C");
        assert_eq!(invocation.entries().count(), 1);
        assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "question");
        assert_eq!(soon(served.recv()).await.unwrap(), None);
        served.send("answer").await.unwrap();
        served.finish().unwrap();
        assert_eq!(soon(call.recv()).await.unwrap().unwrap(), "answer");
        assert_eq!(soon(call.recv()).await.unwrap(), None);
        assert_eq!(call.id(), served.id());
    }
}

#[tokio::test]
async fn messages_of_any_length_arrive_whole() {
    let lengths = [
        0,
        1,
        4095,
        4096,
        4097,
        65_535,
        65_536,
        65_537,
        70_000,
        1 << 20,
        4 << 20,
    ];
    for profile in BOTH {
        let [(client, _a), (server, _b)] = ends(settings(profile));
        let mut call = soon(client.open("/m")).await.unwrap();
        let sender = tokio::spawn(async move {
            for len in lengths {
                call.send(message(len)).await.unwrap();
            }
            call.finish().unwrap();
            call
        });
        let mut served = soon(server.accept()).await.unwrap().unwrap();
        for len in lengths {
            let received = soon(served.recv()).await.unwrap().unwrap();
            assert!(received == message(len), "{len}");
        }
        assert_eq!(soon(served.recv()).await.unwrap(), None);
        drop(sender.await.unwrap());
    }
}

#[tokio::test]
async fn large_messages_of_64_streams_are_interleaved() {
    let [(client, _a), (server, _b)] = ends(settings(Profile::COCKROACH));
    let serve = tokio::spawn(async move {
        for _ in 0..64 {
            let mut served = soon(server.accept()).await.unwrap().unwrap();
            tokio::spawn(async move {
                while let Some(message) = served.recv().await.unwrap() {
                    served.send(message).await.unwrap();
                }
                served.finish().unwrap();
            });
        }
        server
    });
    let calls = (0..64).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut call = soon(client.open("/echo")).await.unwrap();
            let question = message(300_000 + n);
            call.send(question.clone()).await.unwrap();
            call.finish().unwrap();
            assert!(soon(call.recv()).await.unwrap().unwrap() == question);
            assert_eq!(soon(call.recv()).await.unwrap(), None);
        })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        call.await.unwrap();
    }
    drop(serve.await.unwrap());
}

#[tokio::test]
async fn one_call_at_a_time_waits_in_open_until_the_last_is_over() {
    let [(client, _a), (server, _b)] = ends(settings(Profile::STORJ));
    let mut first = soon(client.open("/first")).await.unwrap();
    assert!(matches!(client.try_open("/x"), Err(OpenError::NoCredit)));
    let waiting = client.clone();
    let second = tokio::spawn(async move { waiting.open("/second").await });
    first.finish().unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    assert_eq!(soon(served.recv()).await.unwrap(), None);
    assert!(!second.is_finished());
    served.finish().unwrap();
    let mut second = soon(second).await.unwrap().unwrap();
    second.send("2").await.unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    assert_eq!(served.opening(), "/second");
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "2");
    // The handles of the first are still there.
    assert_eq!(soon(first.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn the_next_call_is_opened_also_when_the_client_is_the_last_to_finish() {
    let [(client, _a), (server, _b)] = ends(settings(Profile::STORJ));
    let mut first = soon(client.open("/first")).await.unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    served.finish().unwrap();
    assert_eq!(soon(first.recv()).await.unwrap(), None);
    let waiting = client.clone();
    let second = tokio::spawn(async move { waiting.open("/second").await });
    while !second.is_finished() {
        let _ = first.finish();
        tokio::task::yield_now().await;
    }
    let _second = soon(second).await.unwrap().unwrap();
    assert_eq!(
        soon(server.accept()).await.unwrap().unwrap().opening(),
        "/second"
    );
}

#[tokio::test]
async fn many_calls_follow_each_other_and_leave_nothing_behind() {
    for profile in BOTH {
        let [(client, _a), (server, _b)] = ends(settings(profile));
        let serve = tokio::spawn(async move {
            while let Ok(Some(mut served)) = server.accept().await {
                let message = served.recv().await.unwrap().unwrap();
                served.send(message).await.unwrap();
                served.finish().unwrap();
            }
            server.stats()
        });
        for n in 0..CALLS {
            let mut call = soon(client.open("/m")).await.unwrap();
            let question = Bytes::copy_from_slice(&n.to_be_bytes());
            call.send(question.clone()).await.unwrap();
            call.finish().unwrap();
            assert_eq!(soon(call.recv()).await.unwrap().unwrap(), question);
            assert_eq!(soon(call.recv()).await.unwrap(), None);
        }
        client.close();
        assert_eq!(soon(serve).await.unwrap().accepted, u64::from(CALLS));
    }
}

#[tokio::test]
async fn a_cancelled_call_is_seen_as_cancelled_and_the_connection_goes_on() {
    for profile in BOTH {
        let [(client, _a), (server, _b)] = ends(settings(profile));
        let mut call = soon(client.open("/m")).await.unwrap();
        call.send("never mind").await.unwrap();
        let mut served = soon(server.accept()).await.unwrap().unwrap();
        call.cancel(7);
        let end = loop {
            match soon(served.recv()).await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        let (by, code) = (Side::Peer, codes::CANCELLED);
        assert!(
            matches!(end, Err(StreamError::Cancelled { by: b, code: c }) if (b, c) == (by, code)),
            "{end:?}"
        );
        let _next = soon(client.open("/next")).await.unwrap();
        let served = soon(server.accept()).await.unwrap().unwrap();
        assert_eq!(served.opening(), "/next");
    }
}

#[tokio::test]
async fn a_server_that_cancels_sends_an_error() {
    for profile in BOTH {
        let [(client, _a), (server, _b)] = ends(settings(profile));
        let mut call = soon(client.open("/m")).await.unwrap();
        let mut served = soon(server.accept()).await.unwrap().unwrap();
        served.cancel(codes::DEADLINE);
        let Err(StreamError::Failed(failure)) = soon(call.recv()).await else {
            panic!("it failed");
        };
        assert_eq!(failure.code, 4);
        soon(client.open("/next")).await.unwrap();
    }
}

#[tokio::test]
async fn an_error_of_the_application_arrives_behind_its_messages() {
    for profile in BOTH {
        let [(client, _a), (server, _b)] = ends(settings(profile));
        let mut call = soon(client.open("/m")).await.unwrap();
        let mut served = soon(server.accept()).await.unwrap().unwrap();
        served.send("half").await.unwrap();
        served.finish_with_error(42, "deliberate failure").unwrap();
        assert_eq!(soon(call.recv()).await.unwrap().unwrap(), "half");
        let Err(StreamError::Failed(failure)) = soon(call.recv()).await else {
            panic!("it failed");
        };
        assert_eq!(
            (failure.code, &failure.message[..]),
            (42, "deliberate failure")
        );
    }
}

#[tokio::test]
async fn what_the_wire_cannot_carry_is_an_error_at_the_caller() {
    let [(client, _a), (server, _b)] = ends(settings(Profile::COCKROACH));
    let long = client.try_open(message(32 * 1024 + 1)).map(drop);
    assert!(matches!(
        long,
        Err(OpenError::BlockTooLong { limit: 32_768, .. })
    ));
    let mut call = soon(client.open("/m")).await.unwrap();
    let block = soon(call.send_meta("a block")).await;
    assert!(matches!(
        block,
        Err(SendError::NotCarried(NotCarried::Meta))
    ));
    let open = soon(server.open("/m")).await.map(drop);
    assert!(matches!(open, Err(OpenError::NotThisSide)), "{open:?}");
    let open = server.try_open("/m").map(drop);
    assert!(matches!(open, Err(OpenError::NotThisSide)), "{open:?}");
    let open = soon(server.open_with("/m", "1", true)).await.map(drop);
    assert!(matches!(open, Err(OpenError::NotThisSide)), "{open:?}");
    assert!(matches!(
        soon(client.ping()).await,
        Err(PingError::NotCarried(NotCarried::Ping))
    ));
    assert!(matches!(
        soon(server.ping()).await,
        Err(PingError::NotCarried(NotCarried::Ping))
    ));
    let too_long = soon(call.send(message((4 << 20) + 1))).await;
    assert!(matches!(too_long, Err(SendError::TooLong { .. })));
}

#[tokio::test]
async fn a_hard_cancel_ends_the_connection_and_nothing_else_was_processed() {
    let profile = Profile::STORJ.cancel(CancelForm::Hard);
    let [(client, a), (server, b)] = ends(settings(profile));
    let mut call = soon(client.open("/m")).await.unwrap();
    let _served = soon(server.accept()).await.unwrap().unwrap();
    let waiting = client.clone();
    let second = tokio::spawn(async move { waiting.open("/second").await.map(drop) });
    call.cancel(7);
    assert!(matches!(soon(a).await.unwrap(), SessionError::Closed));
    assert!(matches!(soon(b).await.unwrap(), SessionError::Disconnected));
    assert!(matches!(
        soon(second).await.unwrap(),
        Err(OpenError::Session(SessionError::Closed))
    ));
}

#[tokio::test]
async fn a_shutdown_lets_calls_end() {
    for profile in BOTH {
        let [(client, a), (server, _b)] = ends(settings(profile));
        let mut call = soon(client.open("/m")).await.unwrap();
        call.send("question").await.unwrap();
        call.finish().unwrap();
        let mut served = soon(server.accept()).await.unwrap().unwrap();
        let asking = client.clone();
        let drained = tokio::spawn(async move { asking.shutdown(PATIENCE).await });
        while client.stats().requests == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "question");
        served.send("answer").await.unwrap();
        served.finish().unwrap();
        assert_eq!(soon(call.recv()).await.unwrap().unwrap(), "answer");
        assert_eq!(soon(call.recv()).await.unwrap(), None);
        let drained = soon(drained).await.unwrap();
        assert_eq!((drained.finished, drained.forced), (1, 0), "{drained:?}");
        assert!(matches!(soon(a).await.unwrap(), SessionError::Closed));
    }
}

#[tokio::test]
async fn a_shutdown_refuses_each_new_call_and_tells_the_caller() {
    let ((session, task), mut peer) = Peer::of(Role::Acceptor, settings(Profile::COCKROACH));
    peer.send(&packet(Kind::Invoke, 1, 1, b"/runs")).await;
    let mut runs = soon(session.accept()).await.unwrap().unwrap();
    let draining = session.clone();
    let shutdown = tokio::spawn(async move { draining.shutdown(2 * PATIENCE).await });
    let _ = soon(session.draining()).await;
    let invokes = (2..=41).map(|id| packet(Kind::Invoke, id, 1, b"/late"));
    peer.send(&invokes.collect::<Vec<_>>().concat()).await;
    for id in 2..=41 {
        peer.expect_error(id, 14).await;
    }
    // Refused while the last call ends: the connection stays until that is said.
    peer.send(&packet(Kind::Invoke, 42, 1, b"/late")).await;
    peer.send(&packet(Kind::CloseSend, 1, 2, b"")).await;
    assert_eq!(soon(runs.recv()).await.unwrap(), None);
    runs.finish().unwrap();
    drop(runs);
    let ends = [soon(peer.next()).await.0, soon(peer.next()).await.0];
    let mut ends = ends.map(|header| (header.stream, header.kind));
    ends.sort_by_key(|(stream, _)| *stream);
    assert_eq!(ends, [(1, Kind::CloseSend), (42, Kind::Error)]);
    soon(shutdown).await.unwrap();
    assert!(peer.rest().await.is_empty());
    soon(task).await.unwrap();
}

#[tokio::test]
async fn a_client_sends_a_server_that_shuts_down_no_call_after_its_first_refusal() {
    let [(client, task), (server, _server_task)] = ends(settings(Profile::COCKROACH));
    let mut runs = soon(client.open("/runs")).await.unwrap();
    runs.0.send("x").await.unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    let draining = server.clone();
    let shutdown = tokio::spawn(async move { draining.shutdown(2 * PATIENCE).await });
    let _ = soon(server.draining()).await;
    let mut late = soon(client.open("/late")).await.unwrap();
    late.0.send("x").await.unwrap();
    let refused = soon(late.1.recv()).await.unwrap_err();
    assert!(matches!(&refused, StreamError::Failed(it) if it.code == 14));
    let left = soon(client.draining()).await;
    assert!(matches!(
        left,
        SessionError::PeerClosed {
            code: codes::SHUTDOWN,
            ..
        }
    ));
    let opened = soon(client.open("/later")).await.unwrap_err();
    assert_eq!(opened.was_processed(), Processed::No);
    // The call that runs goes on to its end.
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "x");
    runs.0.finish().unwrap();
    assert_eq!(soon(served.recv()).await.unwrap(), None);
    served.send("y").await.unwrap();
    served.finish().unwrap();
    assert_eq!(soon(runs.1.recv()).await.unwrap().unwrap(), "y");
    assert_eq!(soon(runs.1.recv()).await.unwrap(), None);
    drop(served);
    soon(shutdown).await.unwrap();
    soon(task).await.unwrap();
}

#[tokio::test]
async fn a_handler_that_passes_on_that_another_server_shuts_down_leaves_its_own_session_open() {
    let (code, text) = failure::of_code(codes::SHUTDOWN);
    for profile in [Profile::STORJ, Profile::COCKROACH] {
        let [(client, _a), (server, _b)] = ends(settings(profile));
        for _ in 0..3 {
            let mut call = soon(client.open("/m")).await.unwrap();
            let mut served = soon(server.accept()).await.unwrap().unwrap();
            served.finish_with_error(code, text).unwrap();
            match soon(call.recv()).await.unwrap_err() {
                StreamError::Failed(it) => {
                    assert_eq!(it.code, code);
                    assert!(it.message.contains("is shutting down"), "{}", it.message);
                }
                end => panic!("{end:?}"),
            }
            let mut call = soon(client.open("/m")).await.unwrap();
            let mut served = soon(server.accept()).await.unwrap().unwrap();
            served.cancel(codes::SHUTDOWN);
            assert!(soon(call.recv()).await.is_err());
        }
        assert!(futures_util::poll!(Box::pin(client.draining())).is_pending());
    }
}

#[tokio::test]
async fn with_flow_control_a_long_stream_goes_through_and_a_stalled_one_waits() {
    let profile = Profile::COCKROACH
        .flow_control(FlowControl::On)
        .window(128 * 1024);
    let [(client, _a), (server, _b)] = ends(settings(profile));
    let mut call = soon(client.open("/m")).await.unwrap();
    const MESSAGES: usize = 2000;
    let sender = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            call.send(message(4000)).await.unwrap();
        }
        call.finish().unwrap();
        call
    });
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    for n in 0..MESSAGES {
        assert!(soon(served.recv()).await.unwrap().is_some(), "{n}");
    }
    assert_eq!(soon(served.recv()).await.unwrap(), None);
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn with_a_window_of_any_size_a_message_of_any_length_follows_one_that_was_consumed() {
    for window in [1, 100, 5000, 20_000, 60_000, 100_000] {
        let profile = Profile::COCKROACH
            .flow_control(FlowControl::On)
            .window(window);
        let [(client, _a), (server, _b)] = ends(settings(profile));
        let mut call = soon(client.open("/m")).await.unwrap();
        call.send("first").await.unwrap();
        let mut served = soon(server.accept()).await.unwrap().unwrap();
        assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "first");
        let lengths = [1, 90, 3000, 14_000, 19_999, 40_000, 65_536];
        for n in 0..60 {
            let len = lengths[n % lengths.len()];
            call.send(message(len)).await.unwrap();
            let received = soon(served.recv()).await.unwrap().unwrap();
            assert_eq!(received.len(), len, "{n} with {window}");
            served.send(message(len)).await.unwrap();
            let received = soon(call.recv()).await.unwrap().unwrap();
            assert_eq!(received.len(), len, "{n} with {window}");
        }
    }
}
