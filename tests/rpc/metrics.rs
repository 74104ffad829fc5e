//! Counts and times of calls, by method, on both sides.

use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Code, Context, Method, MethodMetrics, Raw, Sender, Server, Status};

use crate::host::*;

/// The row of a method.
fn row(metrics: &[MethodMetrics], method: &str) -> MethodMetrics {
    let row = metrics.iter().find(|row| row.method == method);
    row.unwrap_or_else(|| panic!("no row of {method}: {metrics:?}"))
        .clone()
}

/// Waits as long as its request says, in milliseconds; fails if that is no number.
async fn wait(_: Context, request: Bytes) -> Result<Bytes, Status> {
    let text = std::str::from_utf8(&request).unwrap();
    let ms = text.parse().map_err(|_| Status::aborted("no number"))?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(request)
}

#[tokio::test]
async fn both_sides_count_the_calls_of_each_method_by_their_codes_and_times() {
    const UNKNOWN: Method<Bytes, Bytes> = Method::unary::<Raw>("test.Test/Unknown");
    async fn hang(_: Context, _: Bytes, mut to: Sender<Bytes>) -> Result<(), Status> {
        to.send(Bytes::new()).await?;
        std::future::pending().await
    }
    let builder = Server::builder().unary(ECHO, wait).unary(OTHER, echo);
    let host = Host::new(builder.server_streaming(FEED, hang)).await;
    let channel = &host.channel;
    assert_eq!((channel.metrics(), host.server.metrics()), (vec![], vec![]));

    for request in ["0", "20", "x"] {
        let _ = soon(channel.call(&ECHO, &request.into()).into_future()).await;
    }
    soon(channel.call(&UNKNOWN, &Bytes::new()).into_future())
        .await
        .unwrap_err();
    let request = Bytes::new();
    let mut answers = soon(channel.server_streaming(&FEED, &request).open())
        .await
        .unwrap();
    soon(answers.recv()).await.unwrap();
    until("the calls are over at the server", || {
        row(&host.server.metrics(), "test.Test/Echo").in_flight() == 0
    })
    .await;
    for (side, metrics) in [
        ("client", channel.metrics()),
        ("server", host.server.metrics()),
    ] {
        println!("{side}: {metrics:#?}");
        let echo = row(&metrics, "test.Test/Echo");
        assert_eq!((echo.started, echo.ended(), echo.in_flight()), (3, 3, 0));
        assert_eq!(echo.ended_with(Code::OK), 2);
        assert_eq!(echo.ended_with(Code::ABORTED), 1);
        assert!(echo.latency.quantile(1.0).unwrap() >= Duration::from_millis(20));
        assert!(echo.latency.sum() >= Duration::from_millis(20));
        let feed = row(&metrics, "test.Test/Feed");
        assert_eq!((feed.started, feed.in_flight()), (1, 1));
        // The client knows its own method; the server has one row for all that it does not have.
        let unknown = row(&metrics, if side == "client" { UNKNOWN.name() } else { "" });
        assert_eq!(unknown.ended_with(Code::UNIMPLEMENTED), 1);
        assert!(metrics.iter().all(|row| row.method != "test.Test/Other"));
    }
    drop(answers);
    let cancelled = |metrics: Vec<_>| row(&metrics, "test.Test/Feed").ended_with(Code::CANCELLED);
    assert_eq!(cancelled(channel.metrics()), 1);
    until("the cancel has arrived", || {
        cancelled(host.server.metrics()) == 1
    })
    .await;
}

#[tokio::test]
async fn methods_that_a_server_does_not_have_share_one_row() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    for n in 0..100 {
        let name: &'static str = format!("test.Test/Unknown{n}").leak();
        let method: Method<Bytes, Bytes> = Method::unary::<Raw>(name);
        soon(host.channel.call(&method, &Bytes::new()).into_future())
            .await
            .unwrap_err();
    }
    until("all are over", || host.server.stats().refused == 100).await;
    let metrics = host.server.metrics();
    assert_eq!(metrics.len(), 1, "{metrics:?}");
    assert_eq!((metrics[0].method, metrics[0].started), ("", 100));
    assert_eq!(host.server.stats().calls, 100);
}

#[tokio::test]
async fn a_call_that_ends_by_its_deadline_or_is_dropped_is_counted_as_such() {
    let host = Host::new(Server::builder().unary(ECHO, wait)).await;
    let request = Bytes::from("60000");
    let late = host.channel.call(&ECHO, &request);
    let late = late.timeout(Duration::from_millis(20)).into_future();
    soon(late).await.unwrap_err();
    let mut dropped = Box::pin(host.channel.call(&ECHO, &request).into_future());
    let _ = futures_util::poll!(&mut dropped);
    assert_eq!(row(&host.channel.metrics(), ECHO.name()).in_flight(), 1);
    drop(dropped);
    // Never polled, so never begun.
    drop(host.channel.call(&ECHO, &request).into_future());
    let client = row(&host.channel.metrics(), ECHO.name());
    assert_eq!((client.started, client.in_flight()), (2, 0));
    assert_eq!(client.ended_with(Code::DEADLINE_EXCEEDED), 1);
    assert_eq!(client.ended_with(Code::CANCELLED), 1);
}
