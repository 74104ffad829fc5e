//! Senders that outlive their handlers, and senders whose call has ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Code, Context, Origin, Receiver, Sender, Server, Status};
use tokio::sync::Notify;

use crate::host::*;

const MESSAGES: usize = 1000;

/// How the task ends that has the sender.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Drops,
    Finishes,
    Panics,
    Keeps,
}

fn of(request: &Bytes) -> End {
    match &request[..] {
        b"drops" => End::Drops,
        b"finishes" => End::Finishes,
        b"panics" => End::Panics,
        _ => End::Keeps,
    }
}

/// Sends all messages, after the handler has returned for sure.
async fn feed(mut out: Sender<Bytes>, end: End, returned: Arc<Notify>) {
    returned.notified().await;
    for n in 0..MESSAGES {
        if out.send(Bytes::from(n.to_string())).await.is_err() {
            return;
        }
    }
    match end {
        End::Drops => {}
        End::Finishes => {
            out.finish().unwrap();
            let refused = out.send(Bytes::new()).await.unwrap_err();
            assert!(refused.message().contains("finished"), "{refused}");
            // It is kept, and sends no more.
            std::future::pending::<()>().await;
        }
        End::Panics => panic!("as asked"),
        End::Keeps => std::future::pending().await,
    }
}

async fn host() -> (Host, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let (one, two) = (Arc::clone(&go), Arc::clone(&go));
    let builder = Server::builder()
        .server_streaming(FEED, move |cx: Context, request, out| {
            let go = Arc::clone(&one);
            async move {
                cx.add_trailer("sent", "all")?;
                tokio::spawn(feed(out, of(&request), go));
                Ok(())
            }
        })
        .bidirectional(CHAT, move |_, mut rows: Receiver<Bytes>, out| {
            let go = Arc::clone(&two);
            async move {
                let request = rows.recv().await?.unwrap_or_default();
                tokio::spawn(feed(out, of(&request), go));
                Ok(())
            }
        });
    (Host::new(builder).await, go)
}

async fn both_kinds(host: &Host, request: &'static str) -> [Receiver<Bytes>; 2] {
    let request = Bytes::from(request);
    let fed = soon(host.channel.server_streaming(&FEED, &request).open());
    let fed = fed.await.unwrap();
    let (mut rows, chat) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    soon(rows.send(&request)).await.unwrap();
    rows.finish().unwrap();
    // The handlers have returned by then, or shortly after: their calls go on.
    soon(host.client.ping()).await.unwrap();
    [fed, chat]
}

async fn all_of(answers: &mut Receiver<Bytes>) -> (usize, Result<(), Status>) {
    let mut count = 0;
    loop {
        match soon(answers.recv()).await {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, Ok(())),
            Err(status) => return (count, Err(status)),
        }
    }
}

#[tokio::test]
async fn an_answer_ends_when_the_sender_that_a_handler_has_handed_on_is_dropped_or_finished() {
    for request in ["drops", "finishes"] {
        let (host, go) = host().await;
        for (kind, mut answers) in both_kinds(&host, request).await.into_iter().enumerate() {
            go.notify_one();
            let (count, end) = all_of(&mut answers).await;
            end.unwrap();
            assert_eq!(count, MESSAGES, "{request}, kind {kind}");
            if kind == 0 {
                assert_eq!(answers.trailers().get_str("sent"), Some("all"));
            }
        }
        until("no call is left", || host.server.stats().in_flight == 0).await;
        assert_eq!(host.server.stats().failed, 0);
    }
}

#[tokio::test]
async fn an_answer_whose_sender_was_dropped_by_a_panic_does_not_look_complete() {
    let (host, go) = host().await;
    for mut answers in both_kinds(&host, "panics").await {
        go.notify_one();
        let (_, end) = all_of(&mut answers).await;
        let status = end.unwrap_err();
        assert_eq!(
            (status.code(), status.origin()),
            (Code::INTERNAL, Origin::PeerLibrary)
        );
    }
    assert_eq!(host.server.stats().panicked, 2);
}

#[tokio::test]
async fn a_call_whose_sender_is_kept_ends_by_its_deadline_and_by_a_cancel() {
    let (host, _go) = host().await;
    let request = Bytes::from("keeps");
    let call = host.channel.server_streaming(&FEED, &request);
    let limit = Duration::from_millis(50);
    let status = match soon(call.timeout(limit).open()).await {
        Ok(mut answers) => all_of(&mut answers).await.1.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    drop(both_kinds(&host, "keeps").await);
    until("no call is left", || host.server.stats().in_flight == 0).await;
}

#[tokio::test]
async fn calls_that_their_caller_drops_while_the_handler_sends_are_cancelled_and_not_failed() {
    const CALLS: u64 = 100;
    async fn endless(_: Context, request: Bytes, mut out: Sender<Bytes>) -> Result<(), Status> {
        loop {
            out.send(&request).await?;
        }
    }
    async fn chat(
        _: Context,
        mut rows: Receiver<Bytes>,
        mut out: Sender<Bytes>,
    ) -> Result<(), Status> {
        let row = rows.recv().await?.unwrap_or_default();
        loop {
            // Never waits for long, so that it is the sender that tells.
            out.send(&row).await?;
            tokio::task::yield_now().await;
        }
    }
    let builder = Server::builder()
        .server_streaming(FEED, endless)
        .bidirectional(CHAT, chat);
    let host = Host::new(builder).await;
    let request = Bytes::from(vec![7; 1000]);
    for _ in 0..CALLS / 2 {
        let mut fed = soon(host.channel.server_streaming(&FEED, &request).open())
            .await
            .unwrap();
        soon(fed.recv()).await.unwrap();
        drop(fed);
        let (mut rows, mut fills) = soon(host.channel.bidirectional(&CHAT).open())
            .await
            .unwrap();
        soon(rows.send(&request)).await.unwrap();
        soon(fills.recv()).await.unwrap();
    }
    until("no call is left", || host.server.stats().in_flight == 0).await;
    let stats = host.server.stats();
    assert_eq!(
        (stats.calls, stats.failed, stats.cancelled),
        (CALLS, 0, CALLS)
    );
    for row in host.server.metrics() {
        assert_eq!(row.ended_with(Code::CANCELLED), CALLS / 2, "{row:?}");
    }
}

#[tokio::test]
async fn a_send_to_a_call_that_was_answered_early_says_which_half_has_the_answer() {
    async fn early(_: Context, rows: Receiver<Bytes>) -> Result<Bytes, Status> {
        drop(rows);
        Ok("enough".into())
    }
    async fn refused(_: Context, rows: Receiver<Bytes>, _out: Sender<Bytes>) -> Result<(), Status> {
        drop(rows);
        Err(Status::invalid_argument("no such thing"))
    }
    let builder = Server::builder()
        .client_streaming(COLLECT, early)
        .bidirectional(CHAT, refused);
    let host = Host::new(builder).await;

    let (mut rows, reply) = soon(host.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    let error = soon(async {
        loop {
            if let Err(status) = rows.send(Bytes::from("row")).await {
                break status;
            }
        }
    });
    let error = error.await;
    assert_eq!(error.code(), Code::CANCELLED);
    let says = "await its reply, or its receiver, which says why";
    assert!(error.message().ends_with(says), "{error}");
    assert_eq!(soon(reply).await.unwrap(), "enough");

    let (mut orders, mut fills) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    let error = soon(async {
        loop {
            if let Err(status) = orders.send(Bytes::from("order")).await {
                break status;
            }
        }
    });
    let error = error.await;
    assert!(error.message().ends_with(says), "{error}");
    let status = soon(fills.recv()).await.unwrap_err();
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
}
