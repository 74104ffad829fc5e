//! Calls with one request and one answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Code, Context, Metadata, Origin, Server, Status};
use ringmux::{Error, Processed};
use tokio::sync::Semaphore;

use crate::host::*;

#[tokio::test]
async fn an_answer_comes_to_its_call() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let calls = (0..100_u32).map(|n| {
        let channel = host.channel.clone();
        tokio::spawn(async move {
            let request = Bytes::from(n.to_string());
            assert_eq!(channel.call(&ECHO, &request).await.unwrap(), request);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        soon(call).await.unwrap();
    }
    let stats = host.server.stats();
    assert_eq!((stats.calls, stats.failed, stats.in_flight), (100, 0, 0));
}

#[tokio::test]
async fn metadata_goes_with_the_request_and_with_the_answer() {
    async fn handler(cx: Context, _: Bytes) -> Result<Bytes, Status> {
        assert_eq!(cx.method(), "test.Test/Echo");
        cx.add_header("age", "7")?;
        cx.add_trailer("cost", [1, 2])?;
        cx.add_trailer("more", "")?;
        let tenant = cx.metadata().get_str("tenant").unwrap_or("none");
        Ok(tenant.to_owned().into())
    }
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let request = Bytes::new();
    let call = host.channel.call(&ECHO, &request).metadata("tenant", "a");
    let response = soon(call.detailed()).await.unwrap();
    assert_eq!(response.message, "a");
    assert_eq!(response.headers.get("age"), Some(&b"7"[..]));
    assert_eq!(response.trailers.get("cost"), Some(&[1, 2][..]));
    assert_eq!(response.trailers.iter().count(), 2);
    assert_eq!(host.channel.call(&ECHO, &request).await.unwrap(), "none");
}

#[tokio::test]
async fn a_status_arrives_as_the_handler_made_it() {
    async fn handler(_: Context, _: Bytes) -> Result<Bytes, Status> {
        let mut metadata = Metadata::new();
        metadata.insert("retry-after", "3")?;
        Err(Status::new(Code::new(1234), "not today")
            .with_details(&b"details"[..])
            .with_metadata(metadata))
    }
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let status = soon(host.channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::new(1234));
    assert_eq!(status.message(), "not today");
    assert_eq!(&status.details()[..], b"details");
    assert_eq!(status.metadata().get_str("retry-after"), Some("3"));
    assert_eq!(status.origin(), Origin::Handler);
    assert_eq!(status.was_processed(), Processed::Yes);
    assert!(!status.is_retryable());

    let error = Error::from(status);
    assert_eq!(error.was_processed(), Processed::Yes);
    let error = Error::from(std::io::Error::from(error));
    assert_eq!(error.find::<Status>().unwrap().code(), Code::new(1234));
}

#[tokio::test]
async fn a_status_that_says_not_processed_may_be_tried_again() {
    async fn handler(_: Context, _: Bytes) -> Result<Bytes, Status> {
        Err(Status::unavailable("busy").not_processed())
    }
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let status = soon(host.channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap_err();
    assert_eq!(status.was_processed(), Processed::No);
    assert!(status.is_retryable());
}

#[tokio::test]
async fn the_server_calls_its_client_over_the_same_session() {
    async fn twice(cx: Context, request: Bytes) -> Result<Bytes, Status> {
        let back = cx.channel().expect("a call has a caller");
        let answer = back.call(&OTHER, &request).parent(&cx).await?;
        Ok([&request[..], &answer[..]].concat().into())
    }
    let host = Host::new(Server::builder().unary(ECHO, twice)).await;
    let reversed = |_, request: Bytes| async move {
        Ok(request.iter().rev().copied().collect::<Vec<_>>().into())
    };
    let server = Server::builder().unary(OTHER, reversed).build().unwrap();
    let session = host.client.clone();
    tokio::spawn(async move { server.serve_session(session).await });
    let answer = soon(host.channel.call(&ECHO, &"ab".into()).into_future()).await;
    assert_eq!(answer.unwrap(), "abba");
}

#[tokio::test(start_paused = true)]
async fn a_child_has_the_smaller_deadline_and_the_trace_of_its_parent() {
    async fn handler(cx: Context, _: Bytes) -> Result<Bytes, Status> {
        let left = cx.time_left().expect("the parent has a deadline");
        let trace = cx.metadata().get_str("traceparent").unwrap_or_default();
        let tenant = cx.metadata().get_str("tenant").unwrap_or("none");
        Ok(format!("{} {trace} {tenant}", left.as_secs()).into())
    }
    async fn outer(cx: Context, request: Bytes) -> Result<Bytes, Status> {
        cx.channel()
            .unwrap()
            .call(&OTHER, &request)
            .parent(&cx)
            .await
    }
    let host = Host::new(Server::builder().unary(ECHO, outer)).await;
    let server = Server::builder().unary(OTHER, handler).build().unwrap();
    let session = host.client.clone();
    tokio::spawn(async move { server.serve_session(session).await });
    let request = Bytes::new();
    let call = host.channel.call(&ECHO, &request);
    let call = call
        .timeout(Duration::from_secs(1000))
        .metadata("traceparent", "00-ab");
    let answer = soon(call.metadata("tenant", "a").into_future())
        .await
        .unwrap();
    // The one call's default of 30 s, as its parent has more.
    assert!(
        answer == "29 00-ab none" || answer == "30 00-ab none",
        "{answer:?}"
    );
    let call = host
        .channel
        .call(&ECHO, &request)
        .timeout(Duration::from_secs(10));
    let answer = soon(call.into_future()).await.unwrap();
    assert!(answer == "9  none" || answer == "10  none", "{answer:?}");
}

#[tokio::test]
async fn a_channel_is_shared_by_threads_and_calls_need_no_mutable_one() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn sent<T: Send>(future: T) -> T {
        future
    }
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    shared(&host.channel);
    shared(&host.server);
    let channel: &Channel = &host.channel;
    let (a, b) = (Bytes::from("a"), Bytes::from("b"));
    let both = tokio::join!(
        sent(channel.call(&ECHO, &a).into_future()),
        sent(channel.call(&ECHO, &b).into_future())
    );
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (a, b));
}

#[tokio::test]
async fn handlers_that_are_not_send_run_on_a_local_set() {
    use std::cell::Cell;
    use std::rc::Rc;

    let (client, session) = pipe(&settings().build().unwrap()).await;
    let count = Rc::new(Cell::new(0));
    let handler = {
        let count = Rc::clone(&count);
        move |_: Context, _: Bytes| {
            let count = Rc::clone(&count);
            async move {
                let before = count.get();
                tokio::task::yield_now().await;
                count.set(before + 1);
                Ok(Bytes::from(count.get().to_string()))
            }
        }
    };
    let server = Server::local().unary(ECHO, handler).build().unwrap();
    let local = tokio::task::LocalSet::new();
    let channel = Channel::new(client);
    local.spawn_local(async move { server.serve_session(session).await });
    let calls = async {
        for n in 1..=10 {
            let answer = channel.call(&ECHO, &Bytes::new()).await.unwrap();
            assert_eq!(answer, n.to_string());
        }
    };
    soon(local.run_until(calls)).await;
    assert_eq!(count.get(), 10);
}

#[test]
fn a_server_with_a_method_twice_is_not_built() {
    use ringmux::rpc::{BuildError, MethodOptions};

    let twice = Server::builder().unary(ECHO, echo).unary(ECHO, echo);
    assert_eq!(twice.build().unwrap_err(), BuildError::Twice(ECHO.name()));
    let missing = Server::builder().options(ECHO, MethodOptions::default());
    assert_eq!(
        missing.build().unwrap_err(),
        BuildError::Missing(ECHO.name())
    );
    let none = Server::builder().unary(ECHO, echo).max_calls(0);
    assert_eq!(none.build().unwrap_err(), BuildError::NoPlaces);
}

#[test]
fn a_method_without_places_is_not_built_wherever_its_options_were_set() {
    use ringmux::rpc::{BuildError, MethodOptions, Router, Service};

    struct Full;

    impl Service for Full {
        const NAME: &'static str = "test.Test";

        fn register(self: Arc<Self>, router: &mut Router) {
            router.unary(ECHO, echo);
            router.options(ECHO.name(), MethodOptions::default().max_calls(0));
        }
    }

    let mut router: Router = Router::new();
    router.unary(ECHO, echo);
    router.options(ECHO.name(), MethodOptions::default().max_calls(0));
    let builders = [
        Server::builder().add(Full),
        Server::builder().merge(router),
        Server::builder()
            .unary(ECHO, echo)
            .options(ECHO, MethodOptions::default().max_calls(0)),
    ];
    for (nth, builder) in builders.into_iter().enumerate() {
        let built = builder.build().map(drop);
        assert_eq!(built, Err(BuildError::NoPlaces), "{nth}");
    }
    // The last word counts.
    let more = Server::builder().add(Full);
    let more = more.options(ECHO, MethodOptions::default().max_calls(1));
    assert!(more.build().is_ok());
}

/// The last handle of a session closes it in order: calls that are under way have their answers first.
#[tokio::test]
async fn a_detached_call_is_answered_after_its_channel_and_session_are_dropped() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let handler = move |_: Context, request: Bytes| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await.map(drop).unwrap();
            Ok(request)
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let Host {
        channel,
        client,
        server,
        serving,
        ..
    } = host;
    let call = |n: u8| tokio::spawn(channel.call(&ECHO, &Bytes::from(vec![n])).detach());
    let calls: Vec<_> = (0..3).map(call).collect();
    until("handlers wait", || server.stats().in_flight == 3).await;
    drop((channel, client));
    gate.add_permits(3);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(soon(call).await.unwrap().unwrap(), vec![n as u8]);
    }
    soon(serving).await.unwrap();
}
