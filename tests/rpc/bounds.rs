//! How many calls run at once, and the fate of more.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmux::Processed;
use ringmux::rpc::{
    Channel, Code, Context, MethodOptions, Origin, Receiver, Sender, Server, Status, WhenFull,
};
use tokio::sync::Semaphore;

use crate::host::*;

/// A handler that waits for a permit, and counts those that run.
#[derive(Clone)]
struct Gate {
    permits: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Gate {
    fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(0)),
            running: Arc::default(),
            most: Arc::default(),
        }
    }

    async fn pass(self, request: Bytes) -> Result<Bytes, Status> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let permit = self.permits.acquire().await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        drop(permit);
        Ok(request)
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

fn gated(gate: &Gate) -> ringmux::rpc::ServerBuilder {
    let gate = gate.clone();
    Server::builder()
        .unary(ECHO, move |_, request| gate.clone().pass(request))
        .unary(OTHER, echo)
}

#[tokio::test]
async fn ten_thousand_calls_at_a_server_bounded_at_64_all_end_and_never_more_run() {
    const CALLS: usize = 10_000;
    const BOUND: usize = 64;
    let gate = Gate::new();
    let config = settings().max_pending_opens(20_000).build().unwrap();
    let host = Host::with(gated(&gate).max_calls(BOUND), &config).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..CALLS {
        let channel = host.channel.clone();
        calls.spawn(async move {
            let request = Bytes::from(n.to_string());
            let call = channel.call(&ECHO, &request).timeout(LIMIT);
            assert_eq!(call.await.unwrap(), request);
        });
    }
    until("the server is full", || gate.running() == BOUND).await;
    // Besides those that run, the one that waits for a place is taken.
    until("one more is taken", || {
        host.server.stats().calls > BOUND as u64
    })
    .await;
    // Those that wait hold no memory of the server's: it takes no more of them.
    for _ in 0..20 {
        soon(host.client.ping()).await.unwrap();
    }
    assert_eq!(host.server.stats().in_flight, BOUND as u64);
    assert_eq!(host.server.stats().calls, BOUND as u64 + 1);
    gate.permits.add_permits(BOUND);
    while let Some(call) = soon(calls.join_next()).await {
        call.unwrap();
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), BOUND);
    until("no call is left", || host.server.stats().in_flight == 0).await;
    assert_eq!(host.server.stats().calls, CALLS as u64);
}

#[tokio::test]
async fn a_server_that_refuses_says_that_nothing_was_done() {
    let gate = Gate::new();
    let builder = gated(&gate).max_calls(2).when_full(WhenFull::Refuse);
    let host = Host::new(builder).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let channel = host.channel.clone();
        calls.spawn(async move { channel.call(&ECHO, &Bytes::new()).await.unwrap() });
    }
    until("the server is full", || gate.running() == 2).await;
    for _ in 0..10 {
        let status = soon(host.channel.call(&ECHO, &Bytes::new()).into_future()).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
        assert_eq!(status.origin(), Origin::PeerLibrary);
        assert_eq!(status.was_processed(), Processed::No);
        assert!(status.is_retryable());
    }
    assert_eq!(host.server.stats().refused, 10);
    gate.permits.add_permits(2);
    while let Some(call) = soon(calls.join_next()).await {
        call.unwrap();
    }
    soon(host.channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap();
    assert_eq!(gate.most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_bound_of_a_session_leaves_the_others_alone() {
    let gate = Gate::new();
    let server = gated(&gate).max_session_calls(2).build().unwrap();
    let mut channels = Vec::new();
    for _ in 0..2 {
        let (client, session) = pipe(&settings().build().unwrap()).await;
        let server = server.clone();
        tokio::spawn(async move { server.serve_session(session).await });
        channels.push(Channel::new(client));
    }
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..10 {
        let channel = channels[n % 2].clone();
        calls.spawn(async move { channel.call(&ECHO, &Bytes::new()).await.unwrap() });
    }
    until("both sessions are full", || gate.running() == 4).await;
    assert_eq!(server.stats().in_flight, 4);
    gate.permits.add_permits(1);
    while let Some(call) = soon(calls.join_next()).await {
        call.unwrap();
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_method_that_is_full_lets_the_others_go_on() {
    for when_full in [WhenFull::Wait, WhenFull::Refuse] {
        let gate = Gate::new();
        let options = MethodOptions::default().max_calls(1).when_full(when_full);
        let host = Host::new(gated(&gate).max_calls(8).options(ECHO, options)).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let channel = host.channel.clone();
            calls.spawn(async move { channel.call(&ECHO, &Bytes::new()).await });
        }
        until("the method is full", || gate.running() == 1).await;
        for _ in 0..20 {
            soon(host.channel.call(&OTHER, &Bytes::new()).into_future())
                .await
                .unwrap();
        }
        gate.permits.add_permits(1);
        let mut refused = 0;
        while let Some(call) = soon(calls.join_next()).await {
            if let Err(status) = call.unwrap() {
                assert_eq!(status.was_processed(), Processed::No);
                refused += 1;
            }
        }
        assert_eq!(gate.most.load(Ordering::SeqCst), 1);
        assert_eq!(refused > 0, when_full == WhenFull::Refuse, "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_method_gives_its_place_up_when_it_is_cancelled() {
    let gate = Gate::new();
    let host = Host::new(gated(&gate).options(ECHO, MethodOptions::default().max_calls(1))).await;
    let request = Bytes::new();
    let first = {
        let channel = host.channel.clone();
        tokio::spawn(async move { channel.call(&ECHO, &Bytes::new()).await })
    };
    until("the method is full", || gate.running() == 1).await;
    for _ in 0..5 {
        let call = host.channel.call(&ECHO, &request).into_future();
        assert!(
            tokio::time::timeout(Duration::from_millis(5), call)
                .await
                .is_err()
        );
    }
    until("all five have gone", || host.server.stats().cancelled == 5).await;
    let late = host
        .channel
        .call(&ECHO, &request)
        .timeout(Duration::from_millis(5));
    let status = soon(late.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    gate.permits.add_permits(1);
    soon(first).await.unwrap().unwrap();
    assert_eq!(gate.most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_never_reads_holds_a_bounded_part_and_no_one_else_up() {
    /// The windows of a stream at both ends, and its queue.
    const HELD_MAX: usize = 2 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let endless = {
        let sent = Arc::clone(&sent);
        move |_: Context, _: Bytes, mut to: Sender<Bytes>| {
            let sent = Arc::clone(&sent);
            async move {
                loop {
                    to.send(Bytes::from(vec![7; 8 * 1024])).await?;
                    sent.fetch_add(8 * 1024, Ordering::SeqCst);
                }
            }
        }
    };
    let builder = Server::builder()
        .server_streaming(FEED, endless)
        .unary(OTHER, echo);
    let host = Host::new(builder).await;
    let request = Bytes::new();
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(
            soon(host.channel.server_streaming(&FEED, &request).open())
                .await
                .unwrap(),
        );
    }
    until("all run", || host.server.stats().in_flight == 8).await;
    let others = async |calls: usize| {
        for _ in 0..calls {
            soon(host.channel.call(&OTHER, &request).into_future())
                .await
                .unwrap();
        }
    };
    others(200).await;
    let held = sent.load(Ordering::SeqCst);
    assert!(held < unread.len() * HELD_MAX, "{held} bytes");
    others(200).await;
    assert_eq!(sent.load(Ordering::SeqCst), held);
    drop(unread);
    until("all have ended", || host.server.stats().in_flight == 0).await;
}

#[tokio::test]
async fn handlers_that_never_return_leave_the_rest_of_the_server_to_others() {
    let builder = Server::builder()
        .unary(ECHO, |_, _| pending::<Result<Bytes, Status>>())
        .unary(OTHER, echo);
    let host = Host::new(builder).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let channel = host.channel.clone();
        calls.spawn(async move { channel.call(&ECHO, &Bytes::new()).await });
    }
    until("all run", || host.server.stats().in_flight == 100).await;
    for _ in 0..1000 {
        soon(host.channel.call(&OTHER, &Bytes::new()).into_future())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn calls_that_are_ready_at_once_let_others_on_the_thread_have_their_turn() {
    async fn slow(_: Context, request: Bytes) -> Result<Bytes, Status> {
        // Ready at once, and not short.
        std::thread::sleep(Duration::from_micros(200));
        Ok(request)
    }
    let host = Host::new(Server::builder().unary(ECHO, slow)).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let channel = host.channel.clone();
        calls.spawn(async move { channel.call(&ECHO, &Bytes::new()).await.unwrap() });
    }
    // On the same thread, a turn at a time.
    let mut turns = 0;
    while !calls.is_empty() {
        tokio::task::yield_now().await;
        turns += 1;
        while calls.try_join_next().is_some() {}
    }
    assert!(turns >= 10, "{turns} turns");
}

/// A server with one place, and a call of each kind on another session of which only the opening has come.
#[tokio::test]
async fn a_call_whose_request_is_on_its_way_takes_no_place_from_the_calls_of_other_sessions() {
    async fn collect(_: Context, mut from: Receiver<Bytes>) -> Result<Bytes, Status> {
        Ok(from.recv().await?.unwrap_or_default())
    }
    let builder = Server::builder()
        .unary(ECHO, echo)
        .client_streaming(COLLECT, collect)
        .options(ECHO, MethodOptions::default().max_calls(1))
        .max_calls(1);
    let host = Host::new(builder).await;
    let (slow, session) = pipe(&settings().build().unwrap()).await;
    let server = host.server.clone();
    tokio::spawn(async move { server.serve_session(session).await });

    // The second has metadata that is to follow.
    let openings = [
        &b"\x01\0\0\x0etest.Test/Echo"[..],
        b"\x01\x09\0\x11test.Test/Collect",
    ];
    for opening in openings {
        let (mut send, mut recv) = slow.open(opening).await.unwrap();
        // Every second call is a quick one.
        until("the call is taken", || host.server.stats().calls % 2 == 1).await;
        let request = Bytes::from("quick");
        let call = host.channel.call(&ECHO, &request).timeout(LIMIT / 4);
        assert_eq!(call.await.unwrap(), request);

        if opening[1] != 0 {
            send.send_meta(&b"\x01"[..]).await.unwrap();
        }
        send.send("late").await.unwrap();
        send.finish().unwrap();
        assert_eq!(soon(recv.recv()).await.unwrap().unwrap(), "late");
    }
    until("the places are free", || host.server.stats().in_flight == 0).await;
}

/// It waits for the place that it has given up.
#[tokio::test]
async fn a_request_that_comes_to_a_full_server_waits_for_a_place() {
    let gate = Gate::new();
    let host = Host::new(gated(&gate).max_calls(1)).await;
    let opening = &b"\x01\0\0\x0ftest.Test/Other"[..];
    let (mut send, mut recv) = host.client.open(opening).await.unwrap();
    until("the call is taken", || host.server.stats().calls == 1).await;
    until("it waits", || host.server.stats().in_flight == 0).await;
    let channel = host.channel.clone();
    let first = tokio::spawn(async move { channel.call(&ECHO, &Bytes::new()).await });
    until("the server is full", || gate.running() == 1).await;

    send.send("late").await.unwrap();
    send.finish().unwrap();
    for _ in 0..20 {
        soon(host.client.ping()).await.unwrap();
    }
    assert!(recv.try_recv().is_none(), "there is one place");
    gate.permits.add_permits(1);
    assert_eq!(soon(recv.recv()).await.unwrap().unwrap(), "late");
    assert!(soon(first).await.unwrap().is_ok());
}

/// Of its method by the method's rule, whatever the server's is.
#[tokio::test]
async fn a_late_request_waits_for_a_place_of_its_method_or_is_refused_as_the_method_says() {
    for (method, server) in [
        (WhenFull::Wait, WhenFull::Refuse),
        (WhenFull::Refuse, WhenFull::Wait),
    ] {
        let gate = Gate::new();
        let options = MethodOptions::default().max_calls(1).when_full(method);
        let builder = gated(&gate).when_full(server).options(ECHO, options);
        let host = Host::new(builder).await;
        let opening = &b"\x01\0\0\x0etest.Test/Echo"[..];
        let (mut send, mut recv) = host.client.open(opening).await.unwrap();
        until("the call is taken", || host.server.stats().calls == 1).await;
        until("it has lent its place", || {
            host.server.stats().in_flight == 0
        })
        .await;
        let channel = host.channel.clone();
        let first = tokio::spawn(async move { channel.call(&ECHO, &Bytes::new()).await });
        until("the method is full", || gate.running() == 1).await;

        send.send("late").await.unwrap();
        send.finish().unwrap();
        for _ in 0..20 {
            soon(host.client.ping()).await.unwrap();
        }
        let refused = host.server.stats().refused;
        assert_eq!(refused == 1, method == WhenFull::Refuse, "{method:?}");
        gate.permits.add_permits(2);
        let answer = soon(recv.recv()).await;
        assert_eq!(answer.is_ok(), method == WhenFull::Wait, "{answer:?}");
        assert!(soon(first).await.unwrap().is_ok());
    }
}
