//! Calls where no runtime of tokio is entered, as under an engine that hosts futures itself, or one without time.

use std::time::Duration;

use bytes::Bytes;
use ringmux::manage::{Dial, Manager};
use ringmux::rpc::{
    Channel, ChannelTarget, Code, Context, Endpoint, Request, Retry, Sender, Server, Status,
};
use ringmux::{Config, Driver, Engine, SessionError};
use tower::ServiceExt;

use crate::host::*;

async fn feed(_: Context, _: Bytes, out: Sender<Bytes>) -> Result<(), Status> {
    // Longer than the caller looks.
    let _out = out;
    std::future::pending().await
}

#[test]
fn what_needs_tokios_clock_fails_by_name_where_there_is_none_and_the_rest_works() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (addr, serving) = runtime.block_on(async {
        let listener = ringmux::listen("tcp://127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().clone();
        let server = Server::builder().unary(ECHO, echo);
        let server = server.server_streaming(FEED, feed).build().unwrap();
        (
            addr,
            tokio::spawn(async move { server.serve(listener).await }),
        )
    });
    let hosted = Engine::builder(Driver::Uring).block_on(|engine| async move {
        let session = engine.connect(&addr, &Config::default()).await.unwrap();
        let channel = Channel::new(session.clone());
        let request = Bytes::from("a call");
        assert_eq!(channel.call(&ECHO, &request).await.unwrap(), request);

        // The engine keeps the deadline of a call that is open.
        let limit = Duration::from_millis(50);
        let mut late = 0;
        let mut answers = loop {
            let call = channel.server_streaming(&FEED, &request);
            match call.timeout(limit).open().await {
                // The machine kept this thread waiting for longer.
                Err(status) if status.code() == Code::DEADLINE_EXCEEDED => late += 1,
                opened => break opened.unwrap(),
            }
            assert!(limit * late < LIMIT, "never in time");
        };
        let status = answers.recv().await.unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");

        let server = Server::builder().unary(ECHO, echo).build().unwrap();
        let error = server.serve_session(session).await.unwrap_err();
        assert!(matches!(error, SessionError::Io(_)), "{error}");
        let local = "tcp://127.0.0.1:0".parse().unwrap();
        let listener = engine.listen(&local, &Config::default()).await.unwrap();
        let error = server.serve(listener).await.unwrap_err();
        assert!(format!("{error:?}").contains("tokio"), "{error:?}");
    });
    hosted.unwrap();
    serving.abort();
}

/// The fewest that a peer may grant.
const PLACES: u32 = 16;

/// A unary call and one of each streaming kind with a deadline, which have to wait: how they end.
async fn waiting_calls(target: impl Into<ChannelTarget>) -> Vec<Status> {
    let channel = Channel::builder(target).retry(Retry::new(2)).build();
    let (request, limit) = (Bytes::from("a call"), Duration::from_secs(30));
    let call = channel.call(&ECHO, &request).timeout(limit);
    let mut ends = vec![call.await.unwrap_err()];
    let call = channel.server_streaming(&FEED, &request).timeout(limit);
    ends.push(match call.open().await {
        Ok(mut answers) => answers.recv().await.unwrap_err(),
        Err(status) => status,
    });
    let call = channel.client_streaming(&COLLECT).timeout(limit);
    ends.push(match call.open().await {
        Ok((_rows, reply)) => reply.await.unwrap_err(),
        Err(status) => status,
    });
    ends
}

#[test]
fn a_runtime_without_time_fails_by_name_what_needs_it_and_panics_nowhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let config = settings().max_streams(PLACES).build().unwrap();
    let (session, peer, manager) = runtime.block_on(async {
        let (session, peer) = pipe(&config).await;
        let server = Server::builder().server_streaming(FEED, feed);
        let server = server.build().unwrap();
        let serving = peer.clone();
        tokio::spawn(async move { server.serve_session(serving).await });
        // Of a server that is not there.
        let addr = "tcp://127.0.0.1:1".parse().unwrap();
        let dial = Dial::new(Engine::current().unwrap(), addr, Config::default());
        let manager = Manager::builder(dial).build().unwrap();
        tokio::spawn(manager.start().unwrap());
        (session, peer, manager)
    });
    let timeless = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    timeless.block_on(async {
        let channel = Channel::new(session.clone());
        let request = Bytes::from("a call");
        let call = channel.server_streaming(&FEED, &request);
        let _answers = call.timeout(Duration::from_secs(30)).open().await.unwrap();
        let mut held = Vec::new();
        for _ in 1..PLACES {
            let call = channel.server_streaming(&FEED, &request);
            held.push(call.open().await.unwrap());
        }
        let mut ends = waiting_calls(session).await;
        ends.extend(waiting_calls(manager.clone()).await);
        for status in &ends {
            assert_eq!(status.code(), Code::FAILED_PRECONDITION, "{status}");
            assert!(status.message().contains("time enabled"), "{status}");
        }
        assert_eq!(ends.len(), 6);
        manager.close();
        let endpoint = Endpoint::new(Channel::from(manager));
        let request = Request::new(&ECHO, &request).unwrap();
        endpoint.oneshot(request).await.unwrap_err();

        let server = Server::builder().unary(ECHO, echo).build().unwrap();
        let error = server.serve_session(peer).await.unwrap_err();
        assert!(matches!(error, SessionError::Io(_)), "{error}");
    });
}
