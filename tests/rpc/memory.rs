//! Memory stays flat: in a process of its own, as other tests allocate beside it.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use ringmux::rpc::{Context, Method, Raw, Sender, Server, Status};
use ringmux_testing::allocator::{Counting, live_bytes};
use tokio::sync::Semaphore;

use crate::host::*;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CALLS: usize = 10_000;
const BOUND: usize = 64;
/// Between two samples: tables that grow, and the runtime's own.
const SLACK_BYTES: i64 = 256 * 1024;

#[test]
fn calls_that_wait_or_are_over_or_are_not_read_make_memory_grow_no_further() {
    alone("memory::child");
}

#[test]
fn a_session_keeps_little_memory_for_handlers_however_many_methods_it_calls() {
    alone("memory::kept");
}

/// Runs a case in a process of its own.
fn alone(case: &str) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}");
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(said.contains("1 passed"));
}

async fn endless(_: Context, _: Bytes, mut to: Sender<Bytes>) -> Result<(), Status> {
    loop {
        to.send(Bytes::from(vec![7; 8 * 1024])).await?;
    }
}

#[tokio::test]
#[ignore = "run by the test above in a process of its own"]
async fn child() {
    let permits = Arc::new(Semaphore::new(0));
    let gated = {
        let permits = Arc::clone(&permits);
        move |_: Context, request: Bytes| {
            let permits = Arc::clone(&permits);
            async move {
                drop(permits.acquire().await);
                Ok(request)
            }
        }
    };
    let builder = Server::builder()
        .unary(ECHO, gated)
        .unary(OTHER, echo)
        .server_streaming(FEED, endless)
        .max_calls(BOUND);
    let config = settings().max_pending_opens(20_000).build().unwrap();
    let host = Host::with(builder, &config).await;
    let mut after = Vec::new();
    for round in 0..4 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..CALLS {
            let channel = host.channel.clone();
            calls.spawn(async move { channel.call(&ECHO, &Bytes::new()).timeout(LIMIT).await });
        }
        until("the server is full", || {
            host.server.stats().in_flight == BOUND as u64
        })
        .await;
        let full = live_bytes();
        for _ in 0..100 {
            soon(host.client.ping()).await.unwrap();
        }
        let grown = live_bytes() - full;
        println!("round {round}: {full} bytes with {CALLS} calls, {grown} more after a while");
        assert!(grown < SLACK_BYTES);
        permits.add_permits(BOUND);
        while let Some(call) = soon(calls.join_next()).await {
            call.unwrap().unwrap();
        }
        until("no call is left", || host.server.stats().in_flight == 0).await;
        permits.forget_permits(BOUND);
        drop(calls);
        after.push(live_bytes());
    }
    println!("after the rounds: {after:?}");
    assert!(after[3] - after[1] < SLACK_BYTES, "{after:?}");

    let request = Bytes::new();
    let mut unread = Vec::new();
    for _ in 0..8 {
        let call = host.channel.server_streaming(&FEED, &request);
        unread.push(soon(call.open()).await.unwrap());
    }
    until("all run", || host.server.stats().in_flight == 8).await;
    let mut before = 0;
    for round in 0..2 {
        for _ in 0..500 {
            soon(host.channel.call(&OTHER, &request).into_future())
                .await
                .unwrap();
        }
        match round {
            0 => before = live_bytes(),
            _ => println!("unread: {before} bytes, then {}", live_bytes()),
        }
    }
    assert!(live_bytes() - before < SLACK_BYTES);
}

/// A future of this length, ready at once.
async fn of_bytes<const LENGTH: usize>(_: Context, request: Bytes) -> Result<Bytes, Status> {
    let kept = [request.len() as u8; LENGTH];
    std::future::ready(()).await;
    let kept = std::hint::black_box(kept);
    assert_eq!(usize::from(kept[LENGTH / 2]), request.len());
    Ok(request)
}

#[tokio::test]
#[ignore = "run by a test above in a process of its own"]
async fn kept() {
    const METHODS: usize = 100;
    /// For handlers, and for buffers that are given back by and by.
    const MOST: i64 = 48 * 1024;

    let name = |nth| -> &'static str { format!("test.Many/Method{nth}").leak() };
    let small: Vec<_> = (0..METHODS)
        .map(|nth| Method::unary::<Raw>(name(nth)))
        .collect();
    let large: Method<Bytes, Bytes> = Method::unary::<Raw>("test.Large/Method");
    let mut builder = Server::builder()
        .unary(OTHER, echo)
        .unary(large, of_bytes::<100_000>);
    for method in &small {
        builder = builder.unary(*method, of_bytes::<800>);
    }
    let host = Host::new(builder).await;
    let request = Bytes::from("request");
    let methods = || small.iter().chain([&large]);
    // As streams, whose handlers keep nothing: the caller has its tables then, and the sessions have their buffers.
    for method in methods().chain(methods()) {
        soon(host.channel.call(method, &request).urgency(1))
            .await
            .unwrap();
    }
    for _ in 0..2000 {
        soon(host.channel.call(&OTHER, &request)).await.unwrap();
    }
    let before = live_bytes();
    for round in 0..3 {
        for method in methods() {
            soon(host.channel.call(method, &request)).await.unwrap();
        }
        let kept = live_bytes() - before;
        println!("round {round}: {kept} bytes of {METHODS} methods and a large one");
        assert!(kept < MOST, "{kept}");
    }
    let frames = host.client.stats().calls;
    assert!(over_streams() || frames >= METHODS as u64, "{frames}");
}
