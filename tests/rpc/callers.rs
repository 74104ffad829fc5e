//! What ends a call at its caller, wherever it waits: its deadline, its parent, and its session, each beside the others.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ringmux::drpc::Profile;
use ringmux::rpc::{
    Channel, ClientStreaming, Code, Context, Method, Origin, Raw, Sender, Server, ServerBuilder,
    Status,
};
use ringmux::{Config, Processed};
use tokio::task::coop;

use crate::host::*;

const TIME: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(5);
/// One that no server has, so that it is not in the way of the others.
const NOWHERE: Method<Bytes, Bytes, ClientStreaming> =
    Method::client_streaming::<Raw>("test.Test/Nowhere");

/// Both wires: over DRPC no server knows the deadline.
fn wires() -> [Config; 2] {
    let drpc = Config::builder().drpc(Profile::COCKROACH);
    [settings().build().unwrap(), drpc.build().unwrap()]
}

/// One place, and handlers that never return, read nothing, and count themselves.
fn full(begun: &Arc<AtomicUsize>) -> ServerBuilder {
    let [a, b, c] = [(); 3].map(|()| Arc::clone(begun));
    Server::builder()
        .max_calls(1)
        .unary(ECHO, move |_, _| {
            a.fetch_add(1, Ordering::SeqCst);
            pending()
        })
        .client_streaming(COLLECT, move |_, requests| {
            b.fetch_add(1, Ordering::SeqCst);
            async move {
                let _unread = requests;
                pending().await
            }
        })
        .bidirectional(CHAT, move |_, requests, answers| {
            c.fetch_add(1, Ordering::SeqCst);
            async move {
                let _unread = (requests, answers);
                pending().await
            }
        })
}

async fn send_until_it_fails(sender: &mut Sender<Bytes>) -> Status {
    let message = Bytes::from(vec![0; 64 * 1024]);
    loop {
        if let Err(status) = sender.send(&message).await {
            return status;
        }
    }
}

fn ended_here(status: &Status, code: Code) {
    assert_eq!(
        (status.code(), status.origin(), status.was_processed()),
        (code, Origin::Library, Processed::Maybe),
        "{status:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sender_whose_reply_is_not_awaited_yet_ends_with_the_deadline_of_its_call() {
    for config in wires() {
        let host = Host::with(full(&Arc::default()), &config).await;
        // It has the one place, or over DRPC reads nothing.
        let call = host.channel.client_streaming(&COLLECT);
        let _first = soon(call.open()).await.unwrap();
        let call = host.channel.client_streaming(&COLLECT).timeout(TIME);
        let (mut requests, reply) = soon(call.open()).await.unwrap();
        let status = soon(send_until_it_fails(&mut requests)).await;
        assert_eq!(status.code(), Code::CANCELLED);
        ended_here(&soon(reply).await.unwrap_err(), Code::DEADLINE_EXCEEDED);

        let call = host.channel.bidirectional(&CHAT).timeout(TIME);
        let (mut requests, mut answers) = soon(call.open()).await.unwrap();
        soon(send_until_it_fails(&mut requests)).await;
        soon(requests.closed()).await;
        let status = soon(answers.recv()).await.unwrap_err();
        ended_here(&status, Code::DEADLINE_EXCEEDED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_whose_reply_is_not_awaited_yet_ends_with_the_parent_of_its_call() {
    for config in wires() {
        let host = Host::with(full(&Arc::default()), &config).await;
        let cx = Context::new();
        let cancelling = async |cx: &Context| {
            tokio::time::sleep(TIME).await;
            cx.cancel();
            pending::<()>().await;
        };
        let call = host.channel.client_streaming(&COLLECT).parent(&cx);
        let (mut requests, reply) = soon(call.open()).await.unwrap();
        let status = tokio::select! {
            status = soon(send_until_it_fails(&mut requests)) => status,
            () = cancelling(&cx) => unreachable!(),
        };
        assert_eq!(status.code(), Code::CANCELLED);
        ended_here(&soon(reply).await.unwrap_err(), Code::CANCELLED);

        // One that waits for the peer to want no more, and one that has room.
        let cx = Context::new();
        let call = host.channel.bidirectional(&CHAT).parent(&cx);
        let (mut requests, mut answers) = soon(call.open()).await.unwrap();
        let call = host.channel.bidirectional(&CHAT).parent(&cx);
        let (mut other, _other_answers) = soon(call.open()).await.unwrap();
        other.send(Bytes::from("room")).await.unwrap();
        tokio::select! {
            () = soon(requests.closed()) => {}
            () = cancelling(&cx) => unreachable!(),
        };
        let status = other.send(Bytes::from("room")).await.unwrap_err();
        assert_eq!(status.code(), Code::CANCELLED);
        ended_here(&soon(answers.recv()).await.unwrap_err(), Code::CANCELLED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_requests_that_falls_silent_is_left_at_the_end_of_its_call() {
    for config in wires() {
        let host = Host::with(full(&Arc::default()), &config).await;
        let call = host.channel.client_streaming(&COLLECT).timeout(TIME);
        let (mut requests, reply) = soon(call.open()).await.unwrap();
        let silent = requests.send_all(futures_util::stream::pending());
        assert_eq!(soon(silent).await.unwrap_err().code(), Code::CANCELLED);
        ended_here(&soon(reply).await.unwrap_err(), Code::DEADLINE_EXCEEDED);

        // A server that has failed the call.
        let (mut requests, reply) = soon(host.channel.client_streaming(&NOWHERE).open())
            .await
            .unwrap();
        let silent = requests.send_all(futures_util::stream::pending());
        assert_eq!(soon(silent).await.unwrap_err().code(), Code::CANCELLED);
        soon(reply).await.unwrap_err();
    }
}

/// Sends a thousand answers, and no end.
async fn feed(_: Context, _: Bytes, mut answers: Sender<Bytes>) -> Result<(), Status> {
    for n in 0..1000 {
        answers.send(Bytes::from(n.to_string())).await?;
    }
    pending().await
}

#[tokio::test(start_paused = true)]
async fn a_receiver_whose_next_message_is_always_there_ends_with_its_call() {
    for config in wires() {
        let host = Host::with(Server::builder().server_streaming(FEED, feed), &config).await;
        let (request, cx) = (Bytes::new(), Context::new());
        let call = host.channel.server_streaming(&FEED, &request).timeout(TIME);
        let mut late = soon(call.open()).await.unwrap();
        let call = host.channel.server_streaming(&FEED, &request).parent(&cx);
        let mut cancelled = soon(call.open()).await.unwrap();
        for answers in [&mut late, &mut cancelled] {
            assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), "0");
        }
        tokio::time::sleep(LATER).await;
        cx.cancel();
        let status = late.recv().await.unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
        ended_here(&cancelled.recv().await.unwrap_err(), Code::CANCELLED);
        for mut answers in [late, cancelled] {
            assert!(soon(answers.recv()).await.unwrap().is_none());
        }
        until("no handler is left", || host.server.stats().in_flight == 0).await;
    }
}

/// Polls a future once, with nothing left of what tokio lets a task do at a time.
async fn poll_without_turns<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|task| {
        while let Poll::Ready(turn) = coop::poll_proceed(task) {
            turn.made_progress();
        }
        Poll::Ready(future.as_mut().poll(task))
    })
    .await
}

#[tokio::test]
async fn a_call_that_was_given_up_as_it_opened_says_no_only_if_its_handler_never_begins() {
    for config in wires() {
        let begun = Arc::new(AtomicUsize::new(0));
        let host = Host::with(full(&begun), &config).await;
        let cx = Context::new();
        let mut opening = pin!(host.channel.client_streaming(&COLLECT).parent(&cx).open());
        assert!(poll_without_turns(opening.as_mut()).await.is_pending());
        until("its handler has begun", || {
            begun.load(Ordering::SeqCst) == 1
        })
        .await;
        cx.cancel();
        let Poll::Ready(opened) = poll_without_turns(opening.as_mut()).await else {
            panic!("it goes on without its parent");
        };
        ended_here(&opened.map(drop).unwrap_err(), Code::CANCELLED);

        // The request of these goes behind.
        let (request, cx) = (Bytes::new(), Context::new());
        let call = host.channel.server_streaming(&FEED, &request).parent(&cx);
        let mut opening = pin!(call.open());
        assert!(poll_without_turns(opening.as_mut()).await.is_pending());
        cx.cancel();
        let Poll::Ready(opened) = poll_without_turns(opening.as_mut()).await else {
            panic!("it goes on without its parent");
        };
        let status = opened.map(drop).unwrap_err();
        assert_eq!(
            (status.code(), status.was_processed()),
            (Code::CANCELLED, Processed::No)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_time_of_an_interceptor_ends_the_call_here_and_a_longer_one_does_not_prolong_it()
{
    for config in wires() {
        let host = Host::with(full(&Arc::default()), &config).await;
        let request = Bytes::new();
        for (own, given) in [
            (None, Some(TIME)),
            (Some(LIMIT), Some(TIME)),
            (Some(TIME), None),
        ]
        .into_iter()
        .chain([(Some(TIME), Some(LIMIT))])
        {
            let channel = Channel::builder(host.client.clone())
                .intercept(move |mut call| async move {
                    call.timeout = given;
                    Ok(call)
                })
                .build();
            let begun = tokio::time::Instant::now();
            let call = channel.client_streaming(&COLLECT).timeout(own);
            let status = match soon(call.open()).await {
                Ok((_requests, reply)) => soon(reply).await.unwrap_err(),
                Err(status) => status,
            };
            assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{own:?} {given:?}");
            let call = channel.call(&ECHO, &request).timeout(own);
            let status = soon(call.into_future()).await.unwrap_err();
            assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{own:?} {given:?}");
            let took = begun.elapsed();
            assert!(took >= 2 * TIME && took < 3 * TIME, "{took:?}");
        }
        let channel = Channel::builder(host.client.clone())
            .intercept(|mut call| async move {
                call.timeout = Some(Duration::ZERO);
                Ok(call)
            })
            .build();
        let opened = host.client.stats().opened;
        let unary = soon(channel.call(&ECHO, &request).into_future()).await;
        let streaming = soon(channel.client_streaming(&COLLECT).open()).await;
        for status in [
            unary.map(drop).unwrap_err(),
            streaming.map(drop).unwrap_err(),
        ] {
            assert_eq!(
                (status.code(), status.was_processed()),
                (Code::DEADLINE_EXCEEDED, Processed::No)
            );
        }
        assert_eq!(host.client.stats().opened, opened);
    }
}
