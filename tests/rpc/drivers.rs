//! The core of calls on each driver, over TCP: on the application's thread, on an engine's, and on the shared engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Code, Context, Receiver, Sender, Server, Status};
use ringmux::{Config, Driver, Engine, Listener};
use tokio::task::JoinHandle;

use crate::host::*;

/// The engine of both sides.
#[derive(Clone, Copy)]
enum Place {
    Inline(Driver),
    Thread(Driver),
    Shared,
}

/// A listener that is served, and a session to it.
struct Net {
    channel: Channel,
    server: Server,
    listener: Arc<Listener>,
    serving: JoinHandle<()>,
}

impl Net {
    async fn new(place: Place) -> Self {
        let engine = || match place {
            Place::Inline(driver) => Engine::inline(driver),
            Place::Thread(driver) => Engine::thread(driver),
            Place::Shared => Engine::auto(),
        };
        let (dialling, listening) = (engine().unwrap(), engine().unwrap());
        let (addr, config) = ("tcp://127.0.0.1:0".parse().unwrap(), Config::default());
        let listener = Arc::new(soon(listening.listen(&addr, &config)).await.unwrap());
        let server = Server::builder()
            .unary(ECHO, answer)
            .server_streaming(FEED, feed)
            .client_streaming(COLLECT, collect)
            .bidirectional(CHAT, chat);
        let server = server.build().unwrap();
        let serving = {
            let (server, listener) = (server.clone(), Arc::clone(&listener));
            tokio::spawn(async move { server.serve(listener).await.unwrap() })
        };
        let session = soon(dialling.connect(listener.local_addr(), &config)).await;
        Self {
            channel: Channel::new(session.unwrap()),
            server,
            listener,
            serving,
        }
    }

    async fn idle(&self) {
        until("no call is left", || self.server.stats().in_flight == 0).await;
    }

    async fn end(self) {
        soon(self.listener.shutdown(LIMIT)).await;
        soon(self.serving).await.unwrap();
    }
}

/// Answers at once, later, never, or with a status.
async fn answer(_: Context, request: Bytes) -> Result<Bytes, Status> {
    match &request[..] {
        b"later" => tokio::time::sleep(Duration::from_millis(1)).await,
        b"never" => std::future::pending().await,
        b"fail" => return Err(Status::already_exists("it").with_details("d")),
        _ => {}
    }
    Ok(request)
}

async fn feed(_: Context, request: Bytes, mut to: Sender<Bytes>) -> Result<(), Status> {
    loop {
        to.send(request.clone()).await?;
    }
}

async fn collect(_: Context, mut rows: Receiver<Bytes>) -> Result<Bytes, Status> {
    let mut bytes = 0;
    while let Some(row) = rows.recv().await? {
        bytes += row.len();
    }
    Ok(bytes.to_string().into())
}

async fn chat(_: Context, mut from: Receiver<Bytes>, mut to: Sender<Bytes>) -> Result<(), Status> {
    while let Some(message) = from.recv().await? {
        to.send(message).await?;
    }
    Ok(())
}

fn run<F: Future<Output = ()>>(place: Place, case: impl FnOnce(Net) -> F) {
    let case = async { case(Net::new(place).await).await };
    match place {
        Place::Inline(Driver::TokioUring) => tokio_uring::start(case),
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(case),
    }
}

macro_rules! on_each_driver {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            use super::*;

            #[test]
            fn tokio_inline() {
                run(Place::Inline(Driver::Tokio), super::$case);
            }

            #[test]
            fn tokio_uring_inline() {
                run(Place::Inline(Driver::TokioUring), super::$case);
            }

            #[test]
            fn tokio_uring_thread() {
                run(Place::Thread(Driver::TokioUring), super::$case);
            }

            #[test]
            fn uring_inline() {
                run(Place::Inline(Driver::Uring), super::$case);
            }

            #[test]
            fn uring_thread() {
                run(Place::Thread(Driver::Uring), super::$case);
            }

            #[test]
            fn shared() {
                run(Place::Shared, super::$case);
            }
        })+
    };
}

on_each_driver! {
    unary_calls_of_all_sizes_are_answered_beside_each_other,
    all_kinds_of_streams_carry_their_messages,
    a_deadline_and_a_cancel_reach_the_handler,
    a_call_that_ends_with_its_session_says_so,
}

async fn unary_calls_of_all_sizes_are_answered_beside_each_other(net: Net) {
    let mut calls = tokio::task::JoinSet::new();
    for size in [0, 1, 512, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 1 << 20] {
        for _ in 0..4 {
            let request = Bytes::from(vec![7; size]);
            let call = net.channel.call(&ECHO, &request).timeout(LIMIT).detach();
            calls.spawn(async move { assert_eq!(call.await.unwrap(), request) });
        }
    }
    for request in ["now", "later"] {
        for _ in 0..20 {
            let call = net
                .channel
                .call(&ECHO, &request.into())
                .timeout(LIMIT)
                .detach();
            calls.spawn(async move { assert_eq!(call.await.unwrap(), request) });
        }
    }
    while let Some(call) = soon(calls.join_next()).await {
        call.unwrap();
    }
    let status = soon(net.channel.call(&ECHO, &"fail".into()).into_future()).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::ALREADY_EXISTS);
    assert_eq!((status.message(), &status.details()[..]), ("it", &b"d"[..]));
    net.end().await;
}

async fn all_kinds_of_streams_carry_their_messages(net: Net) {
    let row = Bytes::from(vec![7; 1000]);
    let mut answers = soon(net.channel.server_streaming(&FEED, &row).open())
        .await
        .unwrap();
    for _ in 0..1000 {
        assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), row);
    }
    drop(answers);
    let (mut rows, reply) = soon(net.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    for _ in 0..1000 {
        soon(rows.send(&row)).await.unwrap();
    }
    rows.finish().unwrap();
    assert_eq!(soon(reply).await.unwrap(), "1000000");
    let (mut to, mut from) = soon(net.channel.bidirectional(&CHAT).open()).await.unwrap();
    for _ in 0..100 {
        soon(to.send(&row)).await.unwrap();
        assert_eq!(soon(from.recv()).await.unwrap().unwrap(), row);
    }
    to.finish().unwrap();
    assert_eq!(soon(from.recv()).await.unwrap(), None);
    net.idle().await;
    net.end().await;
}

async fn a_deadline_and_a_cancel_reach_the_handler(net: Net) {
    let request = Bytes::from("never");
    let late = net.channel.call(&ECHO, &request);
    let late = late.timeout(Duration::from_millis(20)).into_future();
    let status = soon(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    net.idle().await;

    let dropped = net.channel.call(&ECHO, &request).timeout(LIMIT).detach();
    let dropped = tokio::spawn(dropped);
    until("it runs", || net.server.stats().in_flight == 1).await;
    dropped.abort();
    net.idle().await;

    let parent = Context::new();
    let child = net
        .channel
        .call(&ECHO, &request)
        .timeout(LIMIT)
        .parent(&parent);
    let child = tokio::spawn(child.detach());
    until("it runs", || net.server.stats().in_flight == 1).await;
    parent.cancel();
    let status = soon(child).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED);
    net.idle().await;
    net.end().await;
}

async fn a_call_that_ends_with_its_session_says_so(net: Net) {
    let call = net
        .channel
        .call(&ECHO, &"never".into())
        .timeout(LIMIT)
        .detach();
    let call = tokio::spawn(call);
    until("it runs", || net.server.stats().in_flight == 1).await;
    soon(net.listener.shutdown(Duration::from_millis(20))).await;
    let status = soon(call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    net.idle().await;
    let status = soon(net.channel.call(&ECHO, &Bytes::new()).into_future()).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    assert_eq!(status.was_processed(), ringmux::Processed::No);
    soon(net.serving).await.unwrap();
}
