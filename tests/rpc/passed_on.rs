//! What a handler passes on by `?`: its caller has it of a handler that has run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ringmux::Processed;
use ringmux::rpc::{
    Channel, Code, Context, Origin, Receiver, Retry, Sender, Server, ServerBuilder, Status,
};
use ringmux::{Config, OpenError, SessionError, StreamError};
use tower::{Layer, Service};

use crate::host::*;

/// What handlers here fail with, after they were counted.
#[derive(Clone)]
struct Failing {
    ran: Arc<AtomicUsize>,
    /// Of a call to another service, whose session has ended.
    down: Channel,
}

const ERRORS: [&str; 7] = [
    "call", "hop", "connect", "open", "stream", "send", "metadata",
];

impl Failing {
    async fn fail(&self, what: &Bytes) -> Result<(), Status> {
        self.ran.fetch_add(1, Ordering::SeqCst);
        match &what[..] {
            b"call" => drop(self.down.call(&ECHO, what).await?),
            // As it is when another server has refused a call.
            b"hop" => {
                let host = Host::new(Server::builder().unary(ECHO, refuse)).await;
                drop(host.channel.call(&ECHO, what).await?);
            }
            b"connect" => drop(ringmux::connect("tcp://127.0.0.1:1").await?),
            b"open" => Err(OpenError::TooManyPending { limit: 1 })?,
            b"stream" => Err(StreamError::NotProcessed(SessionError::Disconnected))?,
            b"send" => Err(ringmux::SendError::TooLong { len: 2, limit: 1 })?,
            b"metadata" => {
                let mut metadata = ringmux::rpc::Metadata::new();
                metadata.insert("No Key", "")?;
            }
            _ => return Err(Status::unavailable("not now").not_processed()),
        }
        Ok(())
    }

    fn server(&self) -> ServerBuilder {
        let [a, b, c, d, e] = std::array::from_fn(|_| self.clone());
        Server::builder()
            .unary(ECHO, move |_, what: Bytes| {
                let failing = a.clone();
                async move { failing.fail(&what).await.map(|()| what) }
            })
            .unary(OTHER, move |_, what: Bytes| {
                let failing = b.clone();
                async move {
                    tokio::task::yield_now().await;
                    failing.fail(&what).await.map(|()| what)
                }
            })
            .server_streaming(FEED, move |_, what: Bytes, mut out: Sender<Bytes>| {
                let failing = c.clone();
                async move {
                    out.send(Bytes::new()).await?;
                    failing.fail(&what).await
                }
            })
            .client_streaming(COLLECT, move |_, mut rows: Receiver<Bytes>| {
                let failing = d.clone();
                async move {
                    let what = rows.recv().await?.unwrap_or_default();
                    failing.fail(&what).await.map(|()| what)
                }
            })
            .bidirectional(
                CHAT,
                move |_, mut rows: Receiver<Bytes>, out: Sender<Bytes>| {
                    let failing = e.clone();
                    async move {
                        let what = rows.recv().await?.unwrap_or_default();
                        let _out = out;
                        failing.fail(&what).await
                    }
                },
            )
    }
}

async fn refuse(_: Context, _: Bytes) -> Result<Bytes, Status> {
    Err(Status::unavailable("of the other service").not_processed())
}

async fn failing() -> Failing {
    let (session, _peer) = pipe(&Config::default()).await;
    session.close();
    session.closed().await;
    Failing {
        ran: Arc::default(),
        down: Channel::new(session),
    }
}

/// The status of a call of each kind.
async fn each_kind(channel: &Channel, what: &'static str) -> [Status; 5] {
    let request = Bytes::from(what);
    let mut fed = soon(channel.server_streaming(&FEED, &request).open())
        .await
        .unwrap();
    soon(fed.recv()).await.unwrap();
    let (mut rows, reply) = soon(channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    soon(rows.send(&request)).await.unwrap();
    let (mut orders, mut fills) = soon(channel.bidirectional(&CHAT).open()).await.unwrap();
    soon(orders.send(&request)).await.unwrap();
    [
        soon(channel.call(&ECHO, &request)).await.unwrap_err(),
        soon(channel.call(&OTHER, &request)).await.unwrap_err(),
        soon(fed.recv()).await.unwrap_err(),
        soon(reply).await.unwrap_err(),
        soon(fills.recv()).await.unwrap_err(),
    ]
}

fn retrying(host: &Host) -> Channel {
    let retry = Retry::new(3).pause(std::time::Duration::from_millis(1));
    Channel::builder(host.client.clone()).retry(retry).build()
}

/// Lets all calls pass.
#[derive(Clone)]
struct Passing<S>(S);

impl<S: Service<ringmux::rpc::Handling>> Service<ringmux::rpc::Handling> for Passing<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, call: ringmux::rpc::Handling) -> S::Future {
        self.0.call(call)
    }
}

struct Pass;

impl<S> Layer<S> for Pass {
    type Service = Passing<S>;

    fn layer(&self, inner: S) -> Passing<S> {
        Passing(inner)
    }
}

#[tokio::test]
async fn a_handler_that_has_begun_runs_once_whatever_error_it_passes_on() {
    for layered in [false, true] {
        for what in ERRORS {
            let failing = failing().await;
            let mut builder = failing.server();
            if layered {
                builder = builder.layer(Pass);
            }
            let host = Host::new(builder).await;
            for (kind, status) in each_kind(&retrying(&host), what)
                .await
                .into_iter()
                .enumerate()
            {
                assert_eq!(
                    (status.origin(), status.was_processed()),
                    (Origin::Handler, Processed::Yes),
                    "{what}, kind {kind}, layered {layered}: {status:?}"
                );
                assert!(!status.is_retryable());
            }
            let ran = failing.ran.load(Ordering::SeqCst);
            assert_eq!(ran, 5, "{what}, layered {layered}");
        }
    }
}

#[tokio::test]
async fn a_handler_that_says_itself_that_it_did_nothing_is_believed() {
    for layered in [false, true] {
        let failing = failing().await;
        let mut builder = failing.server();
        if layered {
            builder = builder.layer(Pass);
        }
        let host = Host::new(builder).await;
        for status in each_kind(&retrying(&host), "said").await {
            assert_eq!(
                (status.origin(), status.was_processed()),
                (Origin::Handler, Processed::No),
                "{status:?}"
            );
            assert!(status.is_retryable());
        }
        // The unary ones were tried three times each.
        assert_eq!(failing.ran.load(Ordering::SeqCst), 9);
    }
}

#[tokio::test]
async fn what_an_interceptor_passes_on_is_of_the_application_and_before_the_handler() {
    let failing = failing().await;
    let ran = Arc::clone(&failing.ran);
    let down = failing.down.clone();
    let builder = failing.server().intercept(move |cx| {
        let down = down.clone();
        async move {
            down.call(&ECHO, &Bytes::new()).await?;
            Ok(cx)
        }
    });
    let host = Host::new(builder).await;
    let status = soon(host.channel.call(&ECHO, &Bytes::new()))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.origin(), status.was_processed()),
        (Code::UNAVAILABLE, Origin::Handler, Processed::No)
    );
    assert!(!status.is_retryable());
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}
