//! Calls that stream, in either direction and in both.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use ringmux::rpc::{Code, Context, Receiver, Sender, Server, Status};

use crate::host::*;

fn number(n: usize) -> Bytes {
    n.to_string().into()
}

/// As many messages as the request says.
async fn feed(cx: Context, request: Bytes, mut sender: Sender<Bytes>) -> Result<(), Status> {
    let count: usize = std::str::from_utf8(&request).unwrap().parse().unwrap();
    cx.add_header("count", &request)?;
    for n in 0..count {
        sender.send(number(n)).await?;
    }
    cx.add_trailer("sent", &request)?;
    Ok(())
}

async fn collect(_: Context, mut rows: Receiver<Bytes>) -> Result<Bytes, Status> {
    let mut sum = 0;
    while let Some(row) = rows.recv().await? {
        sum += row.len();
    }
    Ok(number(sum))
}

async fn chat(_: Context, mut from: Receiver<Bytes>, mut to: Sender<Bytes>) -> Result<(), Status> {
    while let Some(message) = from.recv().await? {
        to.send(message).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_of_answers_comes_in_order_with_headers_and_trailers() {
    let host = Host::new(Server::builder().server_streaming(FEED, feed)).await;
    for count in [0, 1, 10_000] {
        let request = number(count);
        let call = host.channel.server_streaming(&FEED, &request).open();
        let mut answers = soon(call).await.unwrap();
        if count > 0 {
            let headers = soon(answers.headers()).await.unwrap();
            assert_eq!(headers.get("count"), Some(&request[..]));
        }
        for n in 0..count {
            assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), number(n));
        }
        assert_eq!(soon(answers.recv()).await.unwrap(), None);
        assert_eq!(soon(answers.recv()).await.unwrap(), None);
        assert_eq!(answers.trailers().get("sent"), Some(&request[..]));
    }
}

#[tokio::test]
async fn a_stream_of_requests_has_one_answer() {
    let host = Host::new(Server::builder().client_streaming(COLLECT, collect)).await;
    let (mut rows, reply) = soon(host.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    for _ in 0..1000 {
        soon(rows.send(Bytes::from_static(b"0123456789")))
            .await
            .unwrap();
    }
    rows.finish().unwrap();
    assert_eq!(soon(reply).await.unwrap(), "10000");
    let error = rows.send(Bytes::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::CANCELLED);
}

#[tokio::test]
async fn both_directions_go_on_beside_each_other() {
    let host = Host::new(Server::builder().bidirectional(CHAT, chat)).await;
    let (mut to, mut from) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    for n in 0..100 {
        soon(to.send(number(n))).await.unwrap();
        assert_eq!(soon(from.recv()).await.unwrap().unwrap(), number(n));
    }
    // Far more than lies in queues: only if both go on does it end.
    let sending = async {
        for _ in 0..1000 {
            to.send(Bytes::from(vec![7; 10_000])).await.unwrap();
        }
        to.finish().unwrap();
    };
    let receiving = async {
        let mut received = 0;
        while let Some(message) = from.recv().await.unwrap() {
            received += message.len();
        }
        received
    };
    let ((), received) = soon(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(received, 10_000_000);
}

#[tokio::test]
async fn streams_and_sinks_of_the_ecosystem_fit() {
    let host = Host::new(Server::builder().bidirectional(CHAT, chat)).await;
    let (to, from) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    let sending = stream::iter((0..500).map(|n| Ok(number(n)))).forward(to);
    let receiving = from.try_collect::<Vec<_>>();
    let (sent, received) = soon(async { tokio::join!(sending, receiving) }).await;
    sent.unwrap();
    let expected: Vec<_> = (0..500).map(number).collect();
    assert_eq!(received.unwrap(), expected);

    let (mut to, from) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    soon(to.send_all(stream::iter([number(1), number(2)])))
        .await
        .unwrap();
    soon(SinkExt::close(&mut to)).await.unwrap();
    assert_eq!(soon(from.count()).await, 2);
}

#[tokio::test]
async fn a_handler_that_answers_before_its_requests_are_complete_ends_the_call() {
    async fn first(_: Context, mut rows: Receiver<Bytes>) -> Result<Bytes, Status> {
        Ok(rows.recv().await?.unwrap_or_default())
    }
    let host = Host::new(Server::builder().client_streaming(COLLECT, first)).await;
    let (mut rows, reply) = soon(host.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    soon(rows.send(Bytes::from_static(b"first"))).await.unwrap();
    assert_eq!(soon(reply).await.unwrap(), "first");
    soon(rows.closed()).await;
    let error = rows.send(Bytes::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::CANCELLED);
}

#[tokio::test]
async fn a_status_comes_behind_the_messages_before_it() {
    async fn handler(_: Context, _: Bytes, mut to: Sender<Bytes>) -> Result<(), Status> {
        to.send(Bytes::from_static(b"one")).await?;
        to.send(Bytes::from_static(b"two")).await?;
        Err(Status::failed_precondition("no more"))
    }
    let host = Host::new(Server::builder().server_streaming(FEED, handler)).await;
    let request = Bytes::new();
    let mut answers = soon(host.channel.server_streaming(&FEED, &request).open())
        .await
        .unwrap();
    assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), "one");
    assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), "two");
    let status = soon(answers.recv()).await.unwrap_err();
    assert_eq!(status.code(), Code::FAILED_PRECONDITION);
    assert_eq!(soon(answers.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn metadata_too_long_for_an_opening_arrives_before_the_first_request() {
    async fn handler(cx: Context, mut rows: Receiver<Bytes>) -> Result<Bytes, Status> {
        let long = cx.metadata().get("long").map_or(0, <[u8]>::len);
        let mut count = 0;
        while rows.recv().await?.is_some() {
            count += 1;
        }
        Ok(format!("{long} {count}").into())
    }
    let host = Host::new(Server::builder().client_streaming(COLLECT, handler)).await;
    for early in [true, false] {
        let call = host
            .channel
            .client_streaming(&COLLECT)
            .metadata("long", [7; 8180]);
        let (mut rows, reply) = soon(call.open()).await.unwrap();
        if !early {
            until("the handler runs", || host.server.stats().in_flight == 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        soon(rows.send(Bytes::from_static(b"row"))).await.unwrap();
        rows.finish().unwrap();
        assert_eq!(soon(reply).await.unwrap(), "8180 1");
    }
}
