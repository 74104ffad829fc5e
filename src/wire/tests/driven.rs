//! The tiny wire under the same handles and driver as the native wire: two ends over a pipe in memory, one test a property.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::tiny::{HEADER, PIECE, Tiny, kind};
use crate::bridge::{Engine, Info, Pool};
use crate::config::Config;
use crate::driver::tokio::TokioIo;
use crate::driver::{Turns, clock};
use crate::error::{
    NotCarried, OpenError, ProtocolError, SendError, SessionError, Side, StreamError,
};
use crate::handle::Session;
use crate::handle::whole::Whole as _;
use crate::wire::Role;

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn end(role: Role, config: &Config, io: DuplexStream) -> (Session, JoinHandle<SessionError>) {
    let pool = Pool::new(1 << 30);
    let info = Info::of_a_test(role);
    let (engine, link) = Engine::<Tiny>::new(role, config, info, pool, clock::now());
    let turns = Turns::new(engine, TokioIo::new(io, |_| None));
    (Session::new(link), tokio::spawn(turns))
}

fn ends(config: &Config) -> [(Session, JoinHandle<SessionError>); 2] {
    let (near, far) = duplex(64 * 1024);
    [
        end(Role::Dialer, config, near),
        end(Role::Acceptor, config, far),
    ]
}

fn message(len: usize) -> Bytes {
    ringmux_testing::message(len).into()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

#[tokio::test]
async fn a_call_goes_there_and_back_without_a_handshake() {
    let [(client, _a), (server, _b)] = ends(&Config::default());
    let mut call = soon(client.open("")).await.unwrap();
    call.send("question").await.unwrap();
    call.finish().unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "question");
    assert_eq!(soon(served.recv()).await.unwrap(), None);
    served.send("answer").await.unwrap();
    served.finish().unwrap();
    assert_eq!(soon(call.recv()).await.unwrap().unwrap(), "answer");
    assert_eq!(soon(call.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn an_opening_block_that_comes_in_two_parts_is_one() {
    let [(client, _a), (server, _b)] = ends(&Config::default());
    let _call = soon(client.open("a block of seventeen")).await.unwrap();
    let served = soon(server.accept()).await.unwrap().unwrap();
    assert_eq!(served.opening(), "a block of seventeen");
}

#[tokio::test]
async fn messages_whose_total_is_not_told_arrive_whole() {
    let [(client, _a), (server, _b)] = ends(&Config::default());
    let mut call = soon(client.open("")).await.unwrap();
    // The last one is larger than its stream's window.
    let lengths = [0, 1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE, 300_000];
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
        assert_eq!(received.len(), len);
        assert_eq!(received, message(len));
    }
    assert_eq!(soon(served.recv()).await.unwrap(), None);
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_session_though_no_total_is_told() {
    let small = Config::builder().max_message(64 * 1024).build().unwrap();
    let (near, far) = duplex(64 * 1024);
    let (client, _a) = end(Role::Dialer, &Config::default(), near);
    let (server, _b) = end(Role::Acceptor, &small, far);
    let mut call = soon(client.open("")).await.unwrap();
    call.send(message(64 * 1024 + 1)).await.unwrap();
    let end = soon(server.closed()).await;
    assert!(matches!(
        end,
        SessionError::Protocol(ProtocolError::Foreign { .. })
    ));
    assert!(matches!(
        soon(client.closed()).await,
        SessionError::Disconnected
    ));
}

#[tokio::test]
async fn streams_come_one_after_the_other_and_the_next_waits_for_the_last() {
    let [(client, _a), (server, _b)] = ends(&Config::default());
    let mut first = soon(client.open("first")).await.unwrap();
    let mut second = soon(client.open("second")).await.unwrap();
    first.send("1").await.unwrap();
    second.send("2").await.unwrap();
    first.finish().unwrap();
    second.finish().unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    assert_eq!(served.opening(), "first");
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "1");
    assert_eq!(soon(served.recv()).await.unwrap(), None);
    assert_eq!(server.stats().accepted, 1, "the second waits");
    served.finish().unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    assert_eq!(served.opening(), "second");
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "2");
}

#[tokio::test]
async fn a_receiver_that_consumes_nothing_is_sent_no_more_than_its_session_holds() {
    let config = Config::builder()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let [(client, _a), (server, _b)] = ends(&config);
    let mut call = soon(client.open("")).await.unwrap();
    const MESSAGES: usize = 2000;
    let sender = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            call.send(message(PIECE)).await.unwrap();
        }
        call.finish().unwrap();
        call
    });
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    // The sender has stopped when nothing arrives for a while.
    let mut held = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = server.stats().bytes_received;
        if now > 0 && now == held {
            break;
        }
        held = now;
    }
    // The contents of the window, and one reception more.
    assert!(held >= 200 * 1024, "{held}");
    assert!(
        held <= 256 * 1024 + u64::from(config.receive_buffer()),
        "{held}"
    );
    let mut received = 0;
    while let Some(message) = soon(served.recv()).await.unwrap() {
        assert_eq!(message.len(), PIECE);
        received += 1;
    }
    assert_eq!(received, MESSAGES);
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn a_cancel_reaches_the_peer_with_its_code() {
    let [(client, _a), (server, _b)] = ends(&Config::default());
    let mut call = soon(client.open("")).await.unwrap();
    call.send("never mind").await.unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    call.cancel(7);
    let end = loop {
        match soon(served.recv()).await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    let by = Side::Peer;
    assert!(
        matches!(end, Err(StreamError::Cancelled { by: found, code: 7 }) if found == by),
        "{end:?}"
    );
    // The next stream finds a free slot.
    let _next = soon(client.open("next")).await.unwrap();
    assert_eq!(
        soon(server.accept()).await.unwrap().unwrap().opening(),
        "next"
    );
}

#[tokio::test]
async fn an_error_of_the_application_arrives_behind_its_messages() {
    let [(client, _a), (server, _b)] = ends(&Config::default());
    let mut call = soon(client.open("")).await.unwrap();
    call.send("question").await.unwrap();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    served.send("half of an answer").await.unwrap();
    served.finish_with_error(9, "no more").unwrap();
    assert_eq!(
        soon(call.recv()).await.unwrap().unwrap(),
        "half of an answer"
    );
    let Err(StreamError::Failed(failure)) = soon(call.recv()).await else {
        panic!("it failed");
    };
    assert_eq!((failure.code, &failure.message[..]), (9, "no more"));
}

#[tokio::test]
async fn handles_get_an_error_for_blocks_that_the_wire_cannot_carry() {
    let [(client, _a), (_server, _b)] = ends(&Config::default());
    let open = client.try_open(message(101)).map(drop);
    assert!(
        matches!(open, Err(OpenError::BlockTooLong { limit: 100, .. })),
        "{open:?}"
    );
    let mut call = soon(client.open("")).await.unwrap();
    let block = soon(call.send_meta("a block")).await;
    assert!(matches!(
        block,
        Err(SendError::NotCarried(NotCarried::Meta))
    ));
}

#[tokio::test]
async fn a_close_sends_queued_messages_and_ends_without_a_goaway() {
    let [(client, a), (server, b)] = ends(&Config::default());
    let mut call = soon(client.open("")).await.unwrap();
    for _ in 0..100 {
        call.send(message(PIECE)).await.unwrap();
    }
    client.close();
    let mut served = soon(server.accept()).await.unwrap().unwrap();
    for _ in 0..100 {
        assert_eq!(soon(served.recv()).await.unwrap().unwrap(), message(PIECE));
    }
    assert!(soon(served.recv()).await.is_err());
    assert!(matches!(soon(a).await.unwrap(), SessionError::Closed));
    assert!(matches!(soon(b).await.unwrap(), SessionError::Disconnected));
}

#[tokio::test]
async fn a_shutdown_lets_streams_end_though_nothing_can_be_said_of_it() {
    let [(client, a), (server, _b)] = ends(&Config::default());
    let mut call = soon(client.open("")).await.unwrap();
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

#[tokio::test]
async fn garbage_and_streams_of_the_accepting_side_end_the_session_by_name() {
    for (frame, rule) in [
        (kind::OPEN, "the accepting side opens no streams"),
        (99, "a kind that is not known"),
    ] {
        let (near, mut far) = duplex(1024);
        let (client, _a) = end(Role::Dialer, &Config::default(), near);
        let _call = soon(client.open("")).await.unwrap();
        let mut seen = [0; 2 * HEADER];
        soon(far.read_exact(&mut seen)).await.unwrap();
        let bytes = [frame, 1, 0, 0, 0, 0, 0, 0, 0];
        soon(far.write_all(&bytes)).await.unwrap();
        let end = soon(client.closed()).await;
        assert!(
            matches!(end, SessionError::Protocol(ProtocolError::Foreign { rule: found }) if found == rule),
            "{end:?}"
        );
    }
}
