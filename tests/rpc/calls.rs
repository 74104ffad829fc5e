//! Unary calls that are one frame each way, and those that are streams; and all other cases once more, over streams.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ringmux::Processed;
use ringmux::rpc::{Code, Context, Server, Status};
use ringmux_testing::allocator::allocations;

use crate::ends::work_until_late;
use crate::host::*;

/// Some of the calls after the first ones: by then the client knows that the server takes them.
async fn warm(host: &Host) {
    soon(host.client.ping()).await.unwrap();
    for _ in 0..100 {
        soon(host.channel.call(&OTHER, &"x".into()).into_future())
            .await
            .unwrap();
    }
}

/// How many of the client's streams are calls in one frame while `future` runs.
async fn counted<F: IntoFuture>(host: &Host, future: F) -> (F::Output, [u64; 2]) {
    let before = host.client.stats();
    let output = soon(future.into_future()).await;
    let after = host.client.stats();
    (
        output,
        [after.calls - before.calls, after.opened - before.opened],
    )
}

#[test]
fn every_case_passes_over_streams_as_well() {
    if over_streams() {
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .env(OVER_STREAMS, "1")
        // The first have processes of their own, and their calls have spans either way; the second are about frames.
        .args(["--skip", "spans::", "--skip", "flooded::"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}");
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[tokio::test]
async fn a_call_is_one_frame_each_way_if_it_fits_and_else_a_stream() {
    async fn handler(cx: Context, request: Bytes) -> Result<Bytes, Status> {
        match &request[..] {
            b"long" => Ok(vec![7; 100_000].into()),
            b"headers" => {
                cx.add_header("a", "1")?;
                cx.add_trailer("b", "2")?;
                Ok(request)
            }
            b"fail" => Err(Status::not_found("no").with_details(&b"d"[..])),
            b"yield" => {
                tokio::task::yield_now().await;
                Ok(request)
            }
            _ => Ok(request),
        }
    }
    let host = Host::new(Server::builder().unary(ECHO, handler).unary(OTHER, echo)).await;
    warm(&host).await;
    let one = u64::from(!over_streams());
    let request = |text: &'static str| Bytes::from_static(text.as_bytes());

    for text in ["", "short", "yield", "headers"] {
        let request = request(text);
        let call = host.channel.call(&ECHO, &request).metadata("k", "v");
        let (response, frames) = counted(&host, call.detailed()).await;
        let response = response.unwrap();
        assert_eq!((response.message, frames), (request, [one, 1]), "{text}");
        assert_eq!(response.headers.get_str("a").is_some(), text == "headers");
        assert_eq!(response.trailers.get_str("b").is_some(), text == "headers");
    }
    let (answer, frames) = counted(&host, host.channel.call(&ECHO, &request("long"))).await;
    assert_eq!((answer.unwrap().len(), frames), (100_000, [one, 1]));
    let (status, frames) = counted(&host, host.channel.call(&ECHO, &request("fail"))).await;
    let status = status.unwrap_err();
    assert_eq!((status.code(), frames), (Code::NOT_FOUND, [one, 1]));
    assert_eq!(&status.details()[..], b"d");

    let large = Bytes::from(vec![1; 17_000]);
    let (answer, frames) = counted(&host, host.channel.call(&ECHO, &large)).await;
    assert_eq!((answer.unwrap(), frames), (large, [0, 1]));
    let small = request("urgent");
    let (answer, frames) = counted(&host, host.channel.call(&ECHO, &small).urgency(0)).await;
    assert_eq!((answer.unwrap(), frames), (small, [0, 1]));
    until("no call is left", || {
        host.server.stats().in_flight == 0 && host.client.stats().streams == 0
    })
    .await;
}

#[tokio::test]
async fn a_server_that_takes_streams_alone_is_sent_no_call() {
    let (client, server) = pipe(&settings().build().unwrap()).await;
    let accepted = tokio::spawn(async move {
        let (mut send, mut recv) = server.accept().await.unwrap().unwrap();
        let request = recv.recv().await.unwrap().unwrap();
        send.send(request).await.unwrap();
        send.finish().unwrap();
        server
    });
    let channel = ringmux::rpc::Channel::new(client.clone());
    assert_eq!(
        soon(channel.call(&ECHO, &"x".into()).into_future())
            .await
            .unwrap(),
        "x"
    );
    drop(soon(accepted).await.unwrap());
    assert_eq!(client.stats().calls, 0);
}

#[tokio::test]
async fn what_a_handler_keeps_of_its_call_is_of_no_other_call() {
    let kept = Arc::new(Mutex::new(Vec::<Context>::new()));
    let keep = {
        let kept = Arc::clone(&kept);
        move |cx: Context, request: Bytes| {
            let keeps = request == "keep";
            assert!(cx.cancellation().is_none() && cx.metadata().is_empty());
            if keeps {
                kept.lock().unwrap().push(cx.clone());
                // Of this call alone.
                cx.cancel();
            }
            async move {
                if request == "headers" {
                    cx.add_header("a", "1")?;
                }
                Ok(request)
            }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, keep).unary(OTHER, echo)).await;
    warm(&host).await;
    for round in 0..3 {
        for text in ["keep", "plain", "headers", "plain"] {
            let limit = Duration::from_secs(30 + round);
            let request = Bytes::from_static(text.as_bytes());
            let call = host.channel.call(&ECHO, &request).timeout(limit);
            let response = soon(call.detailed()).await.unwrap();
            assert_eq!(response.message, text);
            assert_eq!(response.headers.is_empty(), text != "headers");
        }
    }
    let kept = kept.lock().unwrap();
    assert_eq!(kept.len(), 3);
    assert!(
        kept.iter()
            .all(|cx| cx.cancellation() == Some(Code::CANCELLED))
    );
    assert!(
        kept.windows(2)
            .all(|two| two[0].deadline() < two[1].deadline())
    );
}

#[tokio::test]
async fn a_handler_that_panics_or_waits_leaves_the_next_call_alone() {
    async fn handler(_: Context, request: Bytes) -> Result<Bytes, Status> {
        match &request[..] {
            b"panic" => panic!("at once"),
            b"later" => {
                tokio::task::yield_now().await;
                panic!("later")
            }
            b"wait" => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => {}
        }
        Ok(request)
    }
    let host = Host::new(Server::builder().unary(ECHO, handler).unary(OTHER, echo)).await;
    warm(&host).await;
    for text in ["panic", "a", "later", "wait", "b", "wait", "panic", "c"] {
        let request = Bytes::from_static(text.as_bytes());
        let answer = soon(host.channel.call(&ECHO, &request).into_future()).await;
        match text {
            "panic" | "later" => assert_eq!(answer.unwrap_err().code(), Code::INTERNAL),
            _ => assert_eq!(answer.unwrap(), text),
        }
    }
    assert_eq!(host.server.stats().panicked, 3);
    until("no call is left", || host.server.stats().in_flight == 0).await;
}

#[tokio::test]
async fn a_call_that_a_handler_before_it_has_made_late_never_runs() {
    const CALLS: usize = 4;
    let ran = Arc::new(AtomicUsize::new(0));
    let handler = {
        let ran = Arc::clone(&ran);
        move |cx: Context, request: Bytes| {
            ran.fetch_add(1, Ordering::SeqCst);
            work_until_late(&cx);
            async move { Ok(request) }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler).unary(OTHER, echo)).await;
    warm(&host).await;
    let before = host.server.stats().calls;
    // All on this thread: they are written, received and taken together.
    let limit = Duration::from_millis(400);
    let request = Bytes::new();
    let calls = (0..CALLS).map(|_| host.channel.call(&ECHO, &request).timeout(limit).detach());
    // The first may have its answer.
    for ended in soon(join_all(calls)).await.into_iter().skip(1) {
        assert_eq!(ended.unwrap_err().code(), Code::DEADLINE_EXCEEDED);
    }
    until("all are over", || {
        let stats = host.server.stats();
        stats.calls - before == CALLS as u64 && stats.in_flight == 0
    })
    .await;
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    assert_eq!(host.server.stats().late, CALLS as u64 - 1);
}

#[tokio::test]
async fn a_handler_that_yields_lets_the_call_behind_it_begin() {
    let polls = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let polls = Arc::clone(&polls);
        move |_, request: Bytes| {
            let polls = Arc::clone(&polls);
            async move {
                polls.lock().unwrap().push((request.clone(), "begins"));
                tokio::task::yield_now().await;
                polls.lock().unwrap().push((request.clone(), "goes on"));
                Ok(request)
            }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler).unary(OTHER, echo)).await;
    warm(&host).await;
    let requests = [Bytes::from("a"), Bytes::from("b")];
    let calls = requests
        .iter()
        .map(|it| host.channel.call(&ECHO, it).detach());
    for answer in soon(join_all(calls)).await {
        answer.unwrap();
    }
    let polls: Vec<_> = polls.lock().unwrap().iter().map(|(_, it)| *it).collect();
    assert_eq!(polls, ["begins", "begins", "goes on", "goes on"]);
}

#[tokio::test]
async fn a_call_whose_time_ends_before_it_is_sent_was_not_processed_and_says_so() {
    const WINDOW: u32 = 256 * 1024;
    async fn hold(_: Context, _: Bytes) -> Result<Bytes, Status> {
        std::future::pending().await
    }
    if over_streams() {
        return;
    }
    let config = settings().session_window(WINDOW).session_window_max(WINDOW);
    let builder = Server::builder().unary(ECHO, hold).unary(OTHER, echo);
    let host = Host::with(builder.max_calls(1), &config.build().unwrap()).await;
    warm(&host).await;
    // One runs, and those that wait for its place keep the whole of the window.
    let large = Bytes::from(vec![7; 16_000]);
    let held: Vec<_> = (0..20)
        .map(|_| tokio::spawn(host.channel.call(&ECHO, &large).detach()))
        .collect();
    until("the one runs", || host.server.stats().in_flight > 0).await;
    // Behind some of them, which wait for credit.
    let call = host.channel.call(&ECHO, &large);
    let call = call.timeout(Duration::from_millis(30));
    let status = soon(call.into_future()).await.unwrap_err();
    let end = (status.code(), status.was_processed());
    assert_eq!(end, (Code::DEADLINE_EXCEEDED, Processed::No), "{status:?}");
    assert!(!status.is_retryable());
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[test]
fn a_call_whose_handler_is_ready_allocates_nothing_on_either_side() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "calls::child", "--ignored", "--nocapture"])
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

#[tokio::test]
#[ignore = "run by the test above in a process of its own"]
async fn child() {
    const CALLS: u64 = 10_000;
    let host = Host::new(Server::builder().unary(ECHO, echo).unary(OTHER, echo)).await;
    let request = Bytes::from_static(&[7; 64]);
    for _ in 0..1000 {
        host.channel.call(&ECHO, &request).await.unwrap();
    }
    let before = allocations();
    for _ in 0..CALLS {
        host.channel.call(&ECHO, &request).await.unwrap();
    }
    let made = allocations() - before;
    println!("{made} allocations in {CALLS} calls");
    if !over_streams() {
        assert!(made < CALLS / 100, "{made} allocations in {CALLS} calls");
    }
}
