//! Interceptors on both sides, and retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmux::Processed;
use ringmux::rpc::{Channel, Code, Context, Retry, Server, Status};

use crate::host::*;

struct Caller(String);

async fn authenticate(cx: Context) -> Result<Context, Status> {
    tokio::task::yield_now().await;
    let name = cx.metadata().get_str("user").map(str::to_owned);
    match name {
        Some(name) => Ok(cx.with_value(Caller(name))),
        None => Err(Status::unauthenticated("who are you?")),
    }
}

async fn whoami(cx: Context, _: Bytes) -> Result<Bytes, Status> {
    cx.add_trailer("seen", "1")?;
    let caller = cx.value::<Caller>().expect("the interceptor adds it");
    assert_eq!(cx.method(), "test.Test/Echo");
    Ok(caller.0.clone().into())
}

#[tokio::test]
async fn interceptors_of_both_sides_see_a_call_and_may_fail_it() {
    let host = Host::new(
        Server::builder()
            .unary(ECHO, whoami)
            .intercept(authenticate),
    )
    .await;
    let request = Bytes::new();
    let status = soon(host.channel.call(&ECHO, &request).into_future())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::UNAUTHENTICATED);
    assert_eq!(status.was_processed(), Processed::No);
    assert!(!status.is_retryable());

    let channel = Channel::builder(host.client.clone())
        .intercept(|mut call| async move {
            tokio::task::yield_now().await;
            if call.metadata.get("user").is_none() {
                call.metadata.insert("user", "a")?;
            }
            Ok(call)
        })
        .intercept(|call| async move {
            match call.metadata.get_str("user") {
                Some("guest") => Err(Status::permission_denied("not here")),
                _ => Ok(call),
            }
        })
        .build();
    let response = soon(channel.call(&ECHO, &request).detailed())
        .await
        .unwrap();
    assert_eq!(response.message, "a");
    assert_eq!(response.trailers.get_str("seen"), Some("1"));
    let opened = host.client.stats().opened;
    let call = channel.call(&ECHO, &request).metadata("user", "guest");
    let status = soon(call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::PERMISSION_DENIED);
    assert_eq!(host.client.stats().opened, opened);
}

#[tokio::test]
async fn an_interceptor_that_hangs_is_ended_by_the_deadline() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let channel = Channel::builder(host.client.clone())
        .intercept(|_| std::future::pending())
        .build();
    let request = Bytes::new();
    let call = channel
        .call(&ECHO, &request)
        .timeout(Duration::from_millis(20));
    let status = soon(call.into_future()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.was_processed()),
        (Code::DEADLINE_EXCEEDED, Processed::No)
    );
}

/// Refuses so often, and counts.
fn refusing(times: u32, processed: bool) -> (Arc<AtomicU32>, ringmux::rpc::ServerBuilder) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let handler = move |_, request| {
        let seen = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let status = Status::unavailable("not yet");
            match seen < times {
                true if processed => Err(status),
                true => Err(status.not_processed()),
                false => Ok(request),
            }
        }
    };
    (count, Server::builder().unary(ECHO, handler))
}

#[tokio::test]
async fn a_call_is_tried_again_only_if_it_was_not_processed_and_only_if_asked_for() {
    let retry = Retry::new(4).pause(Duration::from_millis(1));
    let request = Bytes::new();
    for (times, processed, asked, ok, tries) in [
        (3, false, true, true, 4),
        (4, false, true, false, 4),
        (1, true, true, false, 1),
        (1, false, false, false, 1),
    ] {
        let (count, builder) = refusing(times, processed);
        let host = Host::new(builder).await;
        let mut channel = Channel::builder(host.client.clone());
        if asked {
            channel = channel.retry(retry);
        }
        let result = soon(channel.build().call(&ECHO, &request).into_future()).await;
        assert_eq!(result.is_ok(), ok, "{times} {processed} {asked}");
        assert_eq!(count.load(Ordering::SeqCst), tries);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_deadline() {
    let (count, builder) = refusing(u32::MAX, false);
    let host = Host::new(builder).await;
    let retry = Retry::new(1000).pause(Duration::from_millis(10));
    let channel = Channel::builder(host.client.clone()).retry(retry).build();
    let request = Bytes::new();
    let call = channel
        .call(&ECHO, &request)
        .timeout(Duration::from_millis(100));
    let status = soon(call.into_future()).await.unwrap_err();
    // The last attempt's own, which says more than that the time is over.
    assert!(
        matches!(status.code(), Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED),
        "{status:?}"
    );
    assert!((1..100).contains(&count.load(Ordering::SeqCst)));
}
