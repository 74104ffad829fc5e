//! Deadlines, cancels, panics, and sessions that end.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use ringmux::Processed;
use ringmux::rpc::{CLEANUP_MAX, Channel, Code, Context, Origin, Receiver, Sender, Server, Status};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::host::*;

/// How many handlers have begun and ended.
#[derive(Default)]
struct Seen {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Seen {
    fn begin(self: &Arc<Self>) -> Running {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(self))
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

struct Running(Arc<Seen>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// A handler of each kind that never returns.
fn stuck(seen: &Arc<Seen>) -> ringmux::rpc::ServerBuilder {
    let [a, b, c, d] = [(); 4].map(|()| Arc::clone(seen));
    Server::builder()
        .unary(ECHO, move |_, _| {
            let running = a.begin();
            async move {
                let _running = running;
                pending().await
            }
        })
        .server_streaming(FEED, move |_, _, sender| {
            let running = (b.begin(), sender);
            async move {
                let _running = running;
                pending().await
            }
        })
        .client_streaming(COLLECT, move |_, receiver| {
            let running = (c.begin(), receiver);
            async move {
                let _running = running;
                pending().await
            }
        })
        .bidirectional(CHAT, move |_, receiver, sender| {
            let running = (d.begin(), receiver, sender);
            async move {
                let _running = running;
                pending().await
            }
        })
        .unary(OTHER, echo)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_drops_its_handler_within_a_round_trip() {
    let seen = Arc::new(Seen::default());
    let host = Host::new(stuck(&seen)).await;
    let request = Bytes::new();

    let call = host.channel.call(&ECHO, &request).into_future();
    let call = tokio::time::timeout(Duration::from_millis(20), call);
    assert!(call.await.is_err());
    let answers = soon(host.channel.server_streaming(&FEED, &request).open())
        .await
        .unwrap();
    let (mut rows, reply) = soon(host.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    let (to, mut from) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    until("all four have begun", || seen.begun() == 4).await;
    let ended = seen.ended();
    drop(answers);
    // A sender that is finished is no end.
    rows.finish().unwrap();
    drop(reply);
    drop(to);
    until("all four have ended", || seen.ended() == 4).await;
    assert!(ended <= 1);
    let status = soon(from.recv()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.origin()),
        (Code::CANCELLED, Origin::Transport)
    );
    // The session and its other calls go on.
    assert_eq!(
        soon(host.channel.call(&OTHER, &"x".into()).into_future())
            .await
            .unwrap(),
        "x"
    );
    until("no call is left", || host.server.stats().in_flight == 0).await;
    assert_eq!(host.server.stats().cancelled, 4);
}

#[tokio::test]
async fn a_cancel_reaches_the_handler_before_an_answer_to_what_was_asked_after_it() {
    let seen = Arc::new(Seen::default());
    let host = Host::new(stuck(&seen)).await;
    let request = Bytes::new();
    for n in 1..=50 {
        let mut call = Box::pin(host.channel.call(&ECHO, &request).into_future());
        while seen.begun() < n {
            let turn = tokio::time::timeout(Duration::from_millis(1), &mut call);
            assert!(turn.await.is_err());
        }
        drop(call);
        // One round trip, and the turn of the task that was told.
        soon(host.client.ping()).await.unwrap();
        let mut turns = 0;
        while seen.ended() < n {
            turns += 1;
            assert!(turns < 20, "not told by the answer to a PING that followed");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_call_on_both_sides() {
    let seen = Arc::new(Seen::default());
    let host = Host::new(stuck(&seen)).await;
    let request = Bytes::new();
    let limit = Duration::from_millis(30);
    let begun = Instant::now();
    let call = host
        .channel
        .call(&ECHO, &request)
        .timeout(limit)
        .into_future();
    let status = soon(call).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(status.was_processed(), Processed::Maybe);
    assert!(!status.is_retryable());
    assert!(begun.elapsed() >= limit);

    let call = host
        .channel
        .server_streaming(&FEED, &request)
        .timeout(limit);
    let status = match soon(call.open()).await {
        Ok(mut answers) => soon(answers.recv()).await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    let call = host.channel.client_streaming(&COLLECT).timeout(limit);
    let status = match soon(call.open()).await {
        Ok((rows, reply)) => {
            let status = soon(reply).await.unwrap_err();
            drop(rows);
            status
        }
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(seen.begun(), 3);
    until("each handler has ended", || seen.ended() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn the_server_keeps_the_deadline_also_if_the_caller_does_not() {
    let seen = Arc::new(Seen::default());
    let host = Host::new(stuck(&seen)).await;
    // A caller of another make: 20 ms, and no cancel of its own.
    let opening = b"\x01\x04\x00\x0etest.Test/Echo";
    let mut block = opening[..4].to_vec();
    block.extend_from_slice(&20_000_u64.to_le_bytes());
    block.extend_from_slice(&opening[4..]);
    let (mut send, mut recv) = host.client.open(block).await.unwrap();
    send.send("request").await.unwrap();
    send.finish().unwrap();
    let status = Status::from(soon(recv.recv()).await.unwrap_err());
    assert_eq!(
        (status.code(), status.origin()),
        (Code::DEADLINE_EXCEEDED, Origin::PeerLibrary)
    );
    assert_eq!((seen.begun(), seen.ended()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_runs_while_it_waits_to_be_taken() {
    const LIMIT_MS: u64 = 50;
    let (ran, released) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let handler = {
        let (ran, released) = (Arc::clone(&ran), Arc::clone(&released));
        move |_, request: Bytes| {
            let released = Arc::clone(&released);
            ran.fetch_add(1, Ordering::SeqCst);
            async move {
                released.notified().await;
                Ok(request)
            }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler).max_calls(1)).await;
    let first = tokio::spawn(host.channel.call(&ECHO, &Bytes::new()).detach());
    until("the first runs", || ran.load(Ordering::SeqCst) == 1).await;
    // Of a caller that does not keep the deadline. The server takes the one and waits for its place; the other waits to be taken.
    let mut opening = b"\x01\x04\0\x0e".to_vec();
    opening.extend_from_slice(&(LIMIT_MS * 1000).to_le_bytes());
    opening.extend_from_slice(b"test.Test/Echo");
    let mut calls = Vec::new();
    for _ in 0..2 {
        let (mut send, recv) = soon(host.client.open(opening.clone())).await.unwrap();
        soon(send.send("late")).await.unwrap();
        send.finish().unwrap();
        calls.push((send, recv));
    }
    soon(host.client.ping()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(LIMIT_MS * 2)).await;
    released.notify_waiters();
    soon(first).await.unwrap().unwrap();
    for (_, recv) in &mut calls {
        let status = Status::from(soon(recv.recv()).await.unwrap_err());
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
        assert_eq!(status.was_processed(), Processed::No);
    }
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_deadline_that_has_passed_never_runs_the_handler_nor_sends_anything() {
    let seen = Arc::new(Seen::default());
    let host = Host::new(stuck(&seen)).await;
    let request = Bytes::new();
    let opened = host.client.stats().opened;
    let call = host.channel.call(&ECHO, &request).timeout(Duration::ZERO);
    let status = soon(call.into_future()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.was_processed()),
        (Code::DEADLINE_EXCEEDED, Processed::No)
    );
    let cancelled = Context::new();
    cancelled.cancel();
    let call = host.channel.call(&ECHO, &request).parent(&cancelled);
    let status = soon(call.into_future()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.was_processed()),
        (Code::CANCELLED, Processed::No)
    );
    let call = host.channel.bidirectional(&CHAT).parent(&cancelled);
    assert_eq!(soon(call.open()).await.unwrap_err().code(), Code::CANCELLED);
    assert_eq!(host.client.stats().opened, opened);

    // Too late when it arrives: the caller says 0 µs.
    let block = b"\x01\x04\x00\x0e\0\0\0\0\0\0\0\0test.Test/Echo";
    let (mut send, mut recv) = host.client.open(&block[..]).await.unwrap();
    send.send("request").await.unwrap();
    send.finish().unwrap();
    let status = Status::from(soon(recv.recv()).await.unwrap_err());
    assert_eq!(
        (status.code(), status.was_processed()),
        (Code::DEADLINE_EXCEEDED, Processed::No)
    );
    assert_eq!(seen.begun(), 0);
    assert_eq!(host.server.stats().late, 1);
}

/// Keeps the thread for as long as the call has time.
pub(crate) fn work_until_late(cx: &Context) {
    while let Some(left) = cx.time_left().filter(|left| !left.is_zero()) {
        std::thread::sleep(left);
    }
}

#[tokio::test]
async fn a_call_that_an_interceptor_has_made_late_never_runs() {
    let ran = Arc::new(AtomicUsize::new(0));
    let handler = {
        let ran = Arc::clone(&ran);
        move |_, request: Bytes| {
            ran.fetch_add(1, Ordering::SeqCst);
            async move { Ok(request) }
        }
    };
    let slow = |cx: Context| async move {
        work_until_late(&cx);
        Ok(cx)
    };
    let host = Host::new(Server::builder().unary(ECHO, handler).intercept(slow)).await;
    let request = Bytes::new();
    let call = host.channel.call(&ECHO, &request);
    let call = call.timeout(Duration::from_millis(100)).detach();
    let status = soon(call).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    until("it is over", || {
        let stats = host.server.stats();
        stats.calls == 1 && stats.in_flight == 0
    })
    .await;
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    assert_eq!(host.server.stats().late, 1);
}

#[tokio::test]
async fn cancelling_a_context_cancels_the_calls_of_which_it_is_the_parent() {
    let seen = Arc::new(Seen::default());
    let host = Host::new(stuck(&seen)).await;
    let cx = Context::new();
    let (one, two) = (cx.clone(), cx.with_timeout(LIMIT));
    let channel = host.channel.clone();
    let unary = tokio::spawn(async move {
        channel
            .call(&ECHO, &Bytes::new())
            .parent(&one)
            .await
            .unwrap_err()
    });
    let call = host.channel.bidirectional(&CHAT).parent(&two);
    let (mut to, mut from) = soon(call.open()).await.unwrap();
    until("both have begun", || seen.begun() == 2).await;
    cx.cancel();
    let status = soon(unary).await.unwrap();
    assert_eq!(
        (status.code(), status.origin()),
        (Code::CANCELLED, Origin::Library)
    );
    // Receiving says why, sending says that it is over.
    assert_eq!(soon(from.recv()).await.unwrap_err().code(), Code::CANCELLED);
    assert_eq!(
        soon(to.send(Bytes::new())).await.unwrap_err().code(),
        Code::CANCELLED
    );
    until("both have ended", || seen.ended() == 2).await;
}

#[tokio::test]
async fn a_cancel_ends_also_what_need_not_wait_for_room_or_for_a_message() {
    async fn three(_: Context, _: Receiver<Bytes>, mut to: Sender<Bytes>) -> Result<(), Status> {
        for _ in 0..3 {
            to.send(Bytes::from_static(b"m")).await?;
        }
        pending().await
    }
    let host = Host::new(Server::builder().bidirectional(CHAT, three)).await;
    let cx = Context::new();
    let call = host.channel.bidirectional(&CHAT).parent(&cx);
    let (mut to, mut from) = soon(call.open()).await.unwrap();
    soon(to.send(Bytes::new())).await.unwrap();
    // The other two have arrived with it.
    assert_eq!(soon(from.recv()).await.unwrap().unwrap(), "m");
    cx.cancel();
    let sent = to.send(Bytes::new()).now_or_never().unwrap();
    assert_eq!(sent.unwrap_err().code(), Code::CANCELLED);
    let received = from.recv().now_or_never().unwrap();
    assert_eq!(received.unwrap_err().code(), Code::CANCELLED);
    assert_eq!(soon(from.recv()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_for_the_cancel_cleans_up() {
    let cleaned = Arc::new(AtomicUsize::new(0));
    let handler = {
        let cleaned = Arc::clone(&cleaned);
        move |cx: Context, _: Bytes| {
            let cleaned = Arc::clone(&cleaned);
            async move {
                let code = cx.cancelled().await;
                tokio::task::yield_now().await;
                cleaned.store(code.number() as usize, Ordering::SeqCst);
                Ok(Bytes::new())
            }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let request = Bytes::new();
    let call = host.channel.call(&ECHO, &request).into_future();
    assert!(
        tokio::time::timeout(Duration::from_millis(20), call)
            .await
            .is_err()
    );
    until("it cleaned up", || cleaned.swap(0, Ordering::SeqCst) == 1).await;
    let call = host
        .channel
        .call(&ECHO, &request)
        .timeout(Duration::from_millis(20));
    let status = soon(call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    until("it cleaned up", || cleaned.load(Ordering::SeqCst) > 0).await;
}

#[tokio::test(start_paused = true)]
async fn cleaning_up_is_given_a_limited_time() {
    let seen = Arc::new(Seen::default());
    let handler = {
        let seen = Arc::clone(&seen);
        move |cx: Context, _: Bytes| {
            let running = seen.begin();
            async move {
                let _running = running;
                cx.cancelled().await;
                pending().await
            }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let request = Bytes::new();
    let call = host.channel.call(&ECHO, &request).into_future();
    assert!(
        tokio::time::timeout(Duration::from_millis(20), call)
            .await
            .is_err()
    );
    tokio::time::sleep(CLEANUP_MAX / 2).await;
    assert_eq!(seen.ended(), 0);
    tokio::time::sleep(CLEANUP_MAX).await;
    assert_eq!(seen.ended(), 1);
}

#[tokio::test]
async fn a_panic_is_internal_and_its_calls_alone() {
    async fn at_once(_: Context, _: Bytes) -> Result<Bytes, Status> {
        panic!("a secret")
    }
    fn when_called(_: Context, _: Bytes) -> std::future::Ready<Result<Bytes, Status>> {
        panic!("a secret")
    }
    async fn later(_: Context, _: Bytes, mut to: Sender<Bytes>) -> Result<(), Status> {
        to.send(Bytes::from_static(b"one")).await?;
        tokio::task::yield_now().await;
        panic!("a secret of {}", 1);
    }
    async fn midway(_: Context, mut from: Receiver<Bytes>) -> Result<Bytes, Status> {
        from.recv().await?;
        panic!("a secret");
    }
    let builder = Server::builder()
        .unary(ECHO, at_once)
        .unary(OTHER, when_called)
        .server_streaming(FEED, later)
        .client_streaming(COLLECT, midway);
    let host = Host::new(builder).await;
    let request = Bytes::new();
    for method in [ECHO, OTHER] {
        let status = soon(host.channel.call(&method, &request).into_future())
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), status.origin()),
            (Code::INTERNAL, Origin::PeerLibrary)
        );
        assert_eq!(status.was_processed(), Processed::Yes);
        assert!(!status.message().contains("secret"), "{status}");
    }
    let mut answers = soon(host.channel.server_streaming(&FEED, &request).open())
        .await
        .unwrap();
    assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), "one");
    // A stream that panics never looks complete.
    assert_eq!(
        soon(answers.recv()).await.unwrap_err().code(),
        Code::INTERNAL
    );
    let (mut rows, reply) = soon(host.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    soon(rows.send(Bytes::new())).await.unwrap();
    assert_eq!(soon(reply).await.unwrap_err().code(), Code::INTERNAL);
    assert_eq!(host.server.stats().panicked, 4);
    assert!(host.client.state().is_open());
}

#[tokio::test]
async fn a_session_that_ends_tells_each_handler_at_once_and_waits_for_none() {
    let seen = Arc::new(Seen::default());
    let host = Host::new(stuck(&seen)).await;
    let channel = host.channel.clone();
    let unary = tokio::spawn(async move { channel.call(&ECHO, &Bytes::new()).await });
    let (rows, reply) = soon(host.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    let (to, mut from) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    until("all have begun", || seen.begun() == 3).await;
    host.client.close();
    soon(host.serving).await.unwrap();
    until("all have ended", || seen.ended() == 3).await;
    for status in [
        soon(unary).await.unwrap().unwrap_err(),
        soon(reply).await.unwrap_err(),
        soon(from.recv()).await.unwrap_err(),
    ] {
        assert_eq!(
            (status.code(), status.origin()),
            (Code::UNAVAILABLE, Origin::Transport)
        );
        assert_eq!(status.was_processed(), Processed::Maybe);
    }
    drop((rows, to));
    let late = soon(host.channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap_err();
    assert_eq!(
        (late.code(), late.was_processed()),
        (Code::UNAVAILABLE, Processed::No)
    );
}

#[tokio::test]
async fn a_shutdown_ends_on_time_although_a_handler_never_returns() {
    let seen = Arc::new(Seen::default());
    let server = stuck(&seen).build().unwrap();
    let listener = Arc::new(ringmux::listen("tcp://127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().to_string();
    let serving = {
        let (server, listener) = (server.clone(), Arc::clone(&listener));
        tokio::spawn(async move { server.serve(listener).await })
    };
    let channel = Channel::new(ringmux::connect(addr).await.unwrap());
    let call = {
        let channel = channel.clone();
        tokio::spawn(async move { channel.call(&ECHO, &Bytes::new()).await })
    };
    until("the handler has begun", || seen.begun() == 1).await;
    let drained = soon(listener.shutdown(Duration::from_millis(50))).await;
    assert_eq!((drained.finished, drained.cancelled), (0, 1));
    soon(serving).await.unwrap().unwrap();
    assert_eq!(
        soon(call).await.unwrap().unwrap_err().code(),
        Code::UNAVAILABLE
    );
    until("the handler has ended", || seen.ended() == 1).await;
}
