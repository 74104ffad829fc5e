//! Memory and floods: each kind is bounded, and says by which limit.

use super::*;
use crate::drpc::FlowControl;
use crate::error::{Limit, StreamError};
use crate::handle::whole::{Stream, Whole as _};

const MUX: Profile = Profile::COCKROACH;

/// A server with small limits, and its peer.
fn small() -> (End, Peer) {
    let builder = settings(MUX)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024);
    Peer::of(Role::Acceptor, builder)
}

async fn tripped(session: &Session) -> Limit {
    match soon(session.closed()).await {
        SessionError::LimitExceeded(exceeded) => exceeded.limit,
        other => panic!("{other:?}"),
    }
}

async fn accept(session: &Session) -> Stream {
    soon(session.accept()).await.unwrap().unwrap()
}

/// Sends a repeated frame until the session ends; the bytes sent.
async fn flood(
    session: &Session,
    peer: &mut Peer,
    mut frame: impl FnMut(u64) -> Vec<u8>,
    most: u64,
) -> usize {
    let mut sent = 0;
    for n in 0..most {
        let bytes = frame(n);
        sent += bytes.len();
        let _ = soon(peer.io.write_all(&bytes)).await;
        // The session is over when its last word could not be written in time.
        if session.state().end().is_some() || session.stats().limits_tripped > 0 {
            return sent;
        }
    }
    panic!("{most} frames were taken");
}

#[tokio::test]
async fn floods_without_a_purpose_end_the_session_by_name() {
    type Make = fn(u64) -> Vec<u8>;
    let floods: [(&str, Make); 7] = [
        ("unknown kinds with the control bit", |n| {
            let header = Header {
                control: true,
                ..Header::new(Kind::Unknown(40), 1, 2 + n, 0)
            };
            frame(&header, b"")
        }),
        ("ends of unknown streams", |n| {
            packet(Kind::CloseSend, 1 << 40, 1 + n, b"")
        }),
        ("messages of unknown streams", |n| {
            packet(Kind::Message, 1 << 40, 1 + n, b"")
        }),
        ("messages of stream 0", |n| {
            packet(Kind::Message, 0, 1 + n, b"x")
        }),
        ("empty pieces", |_| part(Kind::Message, 1, 2, b"")),
        ("credit", |_| packet(Kind::WindowUpdate, 1, 0, &[1])),
        ("ends of ended streams", |_| packet(Kind::Cancel, 2, 9, b"")),
    ];
    for (name, make) in floods {
        let ((session, _task), mut peer) = Peer::of(Role::Acceptor, settings(MUX));
        peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
        peer.send(&packet(Kind::Invoke, 2, 1, b"/m")).await;
        peer.send(&packet(Kind::Cancel, 2, 2, b"")).await;
        let _served = accept(&session).await;
        flood(&session, &mut peer, make, 100_000).await;
        assert_eq!(tripped(&session).await, Limit::GlitchRate, "{name}");
    }
}

#[tokio::test]
async fn openings_without_an_end_are_bounded_in_number_and_bytes() {
    for len in [1, 30_000] {
        let builder = settings(MUX).receive_buffer(0);
        let ((session, _task), mut peer) = Peer::of(Role::Acceptor, builder);
        let name = message(len);
        let invoke = |n| part(Kind::Invoke, 1 + n, 1, &name);
        let sent = flood(&session, &mut peer, invoke, 100_000).await;
        assert_eq!(tripped(&session).await, Limit::Unaccepted);
        assert!(sent <= 257 * (len + HEADER_MAX) + 2 * PIPE, "{sent}");
    }
}

#[tokio::test]
async fn calls_that_are_refused_and_whose_refusals_are_not_read_end_the_session() {
    let ((session, _task), mut peer) = Peer::of(Role::Acceptor, settings(MUX));
    flood(
        &session,
        &mut peer,
        |n| packet(Kind::Invoke, 1 + n, 1, b"\0"),
        1_000_000,
    )
    .await;
    let limit = tripped(&session).await;
    assert!(
        matches!(limit, Limit::Unaccepted | Limit::GlitchRate),
        "{limit:?}"
    );
}

#[tokio::test]
async fn a_peer_whose_streams_are_faulty_one_after_the_other_is_ended() {
    let builder = settings(MUX).max_faulty_streams(100);
    let ((session, _task), mut peer) = Peer::of(Role::Acceptor, builder);
    let accepting = session.clone();
    let serving = tokio::spawn(async move { while let Ok(Some(_)) = accepting.accept().await {} });
    for id in 1..=100 {
        peer.send(&packet(Kind::Invoke, id, 1, b"/m")).await;
        peer.send(&packet(Kind::Message, id, 0, b"out of order"))
            .await;
        peer.expect_error(id, 13).await;
    }
    peer.send(&packet(Kind::Invoke, 101, 1, b"/m")).await;
    peer.send(&packet(Kind::Message, 101, 0, b"out of order"))
        .await;
    assert_eq!(tripped(&session).await, Limit::FaultyStreams);
    soon(serving).await.unwrap();
}

#[tokio::test]
async fn a_message_in_tiny_frames_ends_its_stream_alone() {
    let ((session, _task), mut peer) = Peer::of(Role::Acceptor, settings(MUX));
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    let mut served = accept(&session).await;
    for _ in 0..300 {
        peer.send(&part(Kind::Message, 1, 2, b"x")).await;
    }
    let end = soon(served.recv()).await;
    assert!(
        matches!(&end, Err(StreamError::LimitExceeded(it)) if it.limit == Limit::MessagePieces),
        "{end:?}"
    );
    peer.expect_error(1, 8).await;
    peer.send(&packet(Kind::Invoke, 2, 1, b"/m")).await;
    accept(&session).await;
}

#[tokio::test]
async fn without_credit_an_unread_stream_stops_the_connection_at_the_window() {
    let ((session, _task), mut peer) = small();
    peer.send(&packet(Kind::Invoke, 1, 1, b"/unread")).await;
    peer.send(&packet(Kind::Invoke, 2, 1, b"/read")).await;
    let mut unread = accept(&session).await;
    let mut read = accept(&session).await;
    const MESSAGES: u64 = 128;
    let writer = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let bytes = packet(Kind::Message, 1, 2 + n, &message(16 * 1024));
            peer.send(&bytes).await;
        }
        peer.send(&packet(Kind::Message, 2, 2, b"behind")).await;
        peer
    });
    // Until nothing moves: all of it is on this thread.
    let (mut held, mut quiet) = (0, 0);
    while held == 0 || quiet < 1000 {
        tokio::task::yield_now().await;
        let now = session.stats().bytes_received as usize;
        quiet = if now == held { quiet + 1 } else { 0 };
        held = now;
    }
    let most = 256 * 1024 + 2 * PIPE;
    assert!((256 * 1024..=most).contains(&held), "{held}");
    // As soon as it is read, the connection goes on.
    for _ in 0..MESSAGES {
        assert!(soon(unread.recv()).await.unwrap().is_some());
    }
    assert_eq!(soon(read.recv()).await.unwrap().unwrap(), "behind");
    drop(soon(writer).await.unwrap());
}

#[tokio::test]
async fn unfinished_messages_of_many_streams_take_memory_from_the_pool_and_go_on() {
    let ((session, _task), mut peer) = small();
    const STREAMS: u64 = 64;
    let long = message(256 * 1024);
    for id in 1..=STREAMS {
        peer.send(&packet(Kind::Invoke, id, 1, b"/m")).await;
    }
    let mut calls = Vec::new();
    for _ in 1..=STREAMS {
        calls.push(accept(&session).await);
    }
    let (last, first) = (&long[192 * 1024..], &long[..192 * 1024]);
    for piece in first.chunks(64 * 1024) {
        for id in 1..=STREAMS {
            peer.send(&part(Kind::Message, id, 2, piece)).await;
        }
    }
    for (id, call) in (1..=STREAMS).zip(&mut calls) {
        peer.send(&packet(Kind::Message, id, 2, last)).await;
        assert!(soon(call.recv()).await.unwrap().unwrap() == long, "{id}");
    }
    // The last of them are not reported yet.
    assert!(session.stats().bytes_held < 256 * 1024);
}

#[tokio::test]
async fn an_unfinished_message_without_memory_ends_its_stream_and_the_others_go_on() {
    let builder = settings(MUX)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .receive_pool(512 * 1024);
    let ((session, _task), mut peer) = Peer::of(Role::Acceptor, builder);
    for id in 1..=4 {
        peer.send(&packet(Kind::Invoke, id, 1, b"/m")).await;
    }
    let mut calls = Vec::new();
    for _ in 1..=4 {
        calls.push(accept(&session).await);
    }
    // More than window and pool together.
    for _ in 0..8 {
        for id in 1..=3 {
            peer.send(&part(Kind::Message, id, 2, &message(64 * 1024)))
                .await;
        }
    }
    peer.send(&packet(Kind::Message, 4, 2, b"neighbour")).await;
    assert_eq!(soon(calls[3].recv()).await.unwrap().unwrap(), "neighbour");
    let mut ended = 0;
    for id in 1..=3 {
        peer.send(&packet(Kind::Message, id, 2, b"")).await;
    }
    for call in &mut calls[..3] {
        match soon(call.recv()).await {
            Ok(Some(whole)) => assert_eq!(whole.len(), 512 * 1024),
            Err(StreamError::LimitExceeded(it)) => {
                assert_eq!(it.limit, Limit::MessageMemory);
                ended += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=2).contains(&ended), "{ended}");
}

#[tokio::test]
async fn with_credit_an_unread_stream_leaves_63_others_alone() {
    // Of a pool of the usual size, which other sessions share.
    let config = settings(MUX.flow_control(FlowControl::On)).build().unwrap();
    let pool = Pool::new(config.receive_pool());
    let ends_of_pool = || {
        let (near, far) = duplex(PIPE);
        [(Role::Dialer, near), (Role::Acceptor, far)]
            .map(|(role, io)| end_with(Arc::clone(&pool), role, &config, io))
    };
    let _others: [_; 8] = std::array::from_fn(|_| ends_of_pool());
    let [(client, _a), (server, _b)] = ends_of_pool();
    assert!(pool.used() <= config.receive_pool() / 4);
    let serve = tokio::spawn(async move {
        let mut unread = Vec::new();
        for _ in 0..64 {
            let mut served = accept(&server).await;
            if served.opening() == "/unread" {
                unread.push(served);
                continue;
            }
            tokio::spawn(async move {
                while let Some(message) = served.recv().await.unwrap() {
                    served.send(message).await.unwrap();
                }
            });
        }
        std::future::pending::<()>().await;
        drop(unread);
    });
    let mut stuck = soon(client.open("/unread")).await.unwrap();
    let stuck = tokio::spawn(async move { while stuck.send(message(30_000)).await.is_ok() {} });
    let calls: Vec<_> = (0..63)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut call = soon(client.open("/echo")).await.unwrap();
                for n in 0..200 {
                    call.send(message(10_000 + n)).await.unwrap();
                    let answer = soon(call.recv()).await.unwrap().unwrap();
                    assert_eq!(answer.len(), 10_000 + n);
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert!(!stuck.is_finished());
    serve.abort();
}

#[tokio::test]
async fn a_connection_without_a_call_ends_at_its_limit_and_one_that_had_a_call_does_not() {
    let limit = Duration::from_millis(100);
    let invoke = packet(Kind::Invoke, 1, 1, b"/m");
    for (bytes, first_call, ends) in [
        (&b""[..], Some(limit), true),
        (b"DRPC!!!1", Some(limit), true),
        (&invoke[..invoke.len() - 1], Some(limit), true),
        (&invoke, Some(limit), false),
        (b"", None, false),
    ] {
        let profile = MUX.first_call(first_call);
        let ((session, _task), mut peer) = Peer::of(Role::Acceptor, settings(profile));
        peer.send(bytes).await;
        if ends {
            let end = soon(session.closed()).await;
            assert!(
                matches!(end, SessionError::HandshakeTimeout(after) if after == limit),
                "{end:?}"
            );
        } else {
            let served = match bytes {
                b"" => None,
                _ => Some(accept(&session).await),
            };
            let closed = timeout(5 * limit, session.closed()).await;
            assert!(closed.is_err(), "{closed:?}");
            drop(served);
        }
    }
}
