//! Calls that wait for a place, and limits of the peer.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use ringmux::Processed;
use ringmux::rpc::{Channel, Code, Context, Retry, Sender, Server, Status};

use crate::host::*;

/// The fewest that a peer may grant.
const PLACES: u32 = 16;

async fn hold(_: Context, _: Bytes, _out: Sender<Bytes>) -> Result<(), Status> {
    pending().await
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_ends_while_it_waits_for_a_place_was_not_processed_and_says_so() {
    let config = settings().max_streams(PLACES).build().unwrap();
    let builder = Server::builder()
        .server_streaming(FEED, hold)
        .unary(ECHO, echo);
    let host = Host::with(builder, &config).await;
    let request = Bytes::from("request");
    let mut held = Vec::new();
    for _ in 0..PLACES {
        let call = host.channel.server_streaming(&FEED, &request).open();
        held.push(soon(call).await.unwrap());
    }
    let calls = || host.server.stats().calls;
    until("all places are taken", || calls() == PLACES.into()).await;
    let sent = host.client.stats().messages_sent;

    let retrying = Channel::builder(host.client.clone()).retry(Retry::new(3));
    let retrying = retrying.build();
    let large = Bytes::from(vec![1; 100_000]);
    let limit = Duration::from_millis(20);
    for channel in [&host.channel, &retrying] {
        let ends = [
            soon(channel.call(&ECHO, &request).timeout(limit))
                .await
                .unwrap_err(),
            soon(channel.call(&ECHO, &large).timeout(limit))
                .await
                .unwrap_err(),
            soon(channel.call(&ECHO, &request).urgency(1).timeout(limit))
                .await
                .unwrap_err(),
            soon(
                channel
                    .server_streaming(&FEED, &request)
                    .timeout(limit)
                    .open(),
            )
            .await
            .unwrap_err(),
            soon(channel.client_streaming(&COLLECT).timeout(limit).open())
                .await
                .unwrap_err(),
            soon(channel.bidirectional(&CHAT).timeout(limit).open())
                .await
                .unwrap_err(),
        ];
        for (nth, status) in ends.into_iter().enumerate() {
            assert_eq!(
                (status.code(), status.was_processed()),
                (Code::DEADLINE_EXCEEDED, Processed::No),
                "call {nth}: {status:?}"
            );
            assert!(status.message().contains("max_streams"), "{nth}: {status}");
        }
    }
    let cx = Context::new();
    let call = channel_call(&host.channel, &request, &cx);
    cx.cancel();
    let status = soon(call).await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.was_processed()),
        (Code::CANCELLED, Processed::No)
    );
    assert_eq!(host.client.stats().messages_sent, sent);
    assert_eq!(calls(), PLACES.into());
    drop(held);
    assert_eq!(
        soon(host.channel.call(&ECHO, &request)).await.unwrap(),
        request
    );
}

/// In a task, once it waits.
fn channel_call(
    channel: &Channel,
    request: &Bytes,
    cx: &Context,
) -> tokio::task::JoinHandle<Result<Bytes, Status>> {
    let (channel, request, cx) = (channel.clone(), request.clone(), cx.clone());
    tokio::spawn(async move { channel.call(&ECHO, &request).parent(&cx).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_given_up_at_the_moment_of_its_permission_has_either_run_or_says_no() {
    const CALLS: u64 = 3000;
    let ran = Arc::new(SegQueue::new());
    let seen = Arc::clone(&ran);
    let handler = move |_, request: Bytes| {
        seen.push(request.clone());
        async move {
            tokio::task::yield_now().await;
            Ok(request)
        }
    };
    let config = settings().max_streams(PLACES).build().unwrap();
    let host = Host::with(Server::builder().unary(ECHO, handler), &config).await;
    let mut calls = Vec::new();
    for n in 0..CALLS {
        let request = Bytes::from(n.to_string());
        // From none to all of the time that the calls before it take.
        let limit = Duration::from_micros(1 + n * 7919 % 20_000);
        let call = host.channel.call(&ECHO, &request).timeout(limit).detach();
        calls.push((request, tokio::spawn(call)));
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (mut not_run, mut ok) = (BTreeSet::new(), 0);
    for (request, call) in calls {
        match soon(call).await.unwrap() {
            Ok(answer) => {
                assert_eq!(answer, request);
                ok += 1;
            }
            Err(status) if status.was_processed() == Processed::No => {
                not_run.insert(request);
            }
            Err(_) => {}
        }
    }
    // No permission was lost.
    for _ in 0..2 * PLACES {
        let request = Bytes::from("after");
        assert_eq!(
            soon(host.channel.call(&ECHO, &request)).await.unwrap(),
            request
        );
    }
    println!("{ok} answered, {} not run", not_run.len());
    while let Some(request) = ran.pop() {
        assert!(!not_run.contains(&request), "{request:?} has run");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_peers_memory_is_named_at_the_caller() {
    let config = settings()
        .receive_pool(0)
        .message_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let host = Host::with(Server::builder().unary(ECHO, echo), &config).await;
    let request = Bytes::from(vec![7; 2_000_000]);
    let calls: Vec<_> = (0..64)
        .map(|_| tokio::spawn(host.channel.call(&ECHO, &request).detach()))
        .collect();
    let mut named = 0;
    for call in calls {
        if let Err(status) = soon(call).await.unwrap() {
            assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status}");
            assert!(status.message().contains("receive_pool"), "{status}");
            named += 1;
        }
    }
    assert!(named > 0);
}

#[tokio::test]
async fn a_call_that_was_ended_here_gives_its_place_back_though_its_receiver_is_kept() {
    let config = settings().max_streams(PLACES).build().unwrap();
    let host = Host::with(Server::builder().server_streaming(FEED, hold), &config).await;
    let request = Bytes::new();
    for turns in 0..20 {
        let cx = Context::new();
        let call = host.channel.server_streaming(&FEED, &request).parent(&cx);
        let mut ended = soon(call.open()).await.unwrap();
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        cx.cancel();
        let status = soon(ended.recv()).await.unwrap_err();
        assert_eq!(status.code(), Code::CANCELLED);
        let mut held = Vec::new();
        for _ in 0..PLACES {
            let call = host.channel.server_streaming(&FEED, &request).open();
            held.push(soon(call).await.unwrap());
        }
        drop(ended);
    }
}
