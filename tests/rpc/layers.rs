//! Layers of tower around the handlers of a server.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ringmux::Processed;
use ringmux::rpc::{
    Code, Context, Handled, Handlers, Handling, Receiver, Sender, Server, ServerBuilder, Status,
};
use tower::{Layer, Service, ServiceBuilder};

use crate::host::*;

/// Counts calls and their ends, by outcome, and gives each handler a value.
#[derive(Clone, Default)]
struct Count(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    ok: AtomicUsize,
    failed: AtomicUsize,
}

impl Counts {
    fn get(&self) -> [usize; 3] {
        [&self.begun, &self.ok, &self.failed].map(|count| count.load(Ordering::SeqCst))
    }
}

#[derive(Clone)]
struct Counting<S>(S, Arc<Counts>);

/// What the layer gives the handler.
struct Number(usize);

impl<S> Layer<S> for Count {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting(inner, Arc::clone(&self.0))
    }
}

impl<S> Service<Handling> for Counting<S>
where
    S: Service<Handling, Response = Handled, Error = Status, Future: Send + 'static>,
{
    type Response = Handled;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Handled, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, call: Handling) -> Self::Future {
        let counts = Arc::clone(&self.1);
        let number = counts.begun.fetch_add(1, Ordering::SeqCst);
        let cx = call.context().with_value(Number(number));
        let handled = self.0.call(call.with_context(cx));
        Box::pin(async move {
            let handled = handled.await;
            let count = match &handled {
                Ok(_) => &counts.ok,
                Err(_) => &counts.failed,
            };
            count.fetch_add(1, Ordering::SeqCst);
            handled
        })
    }
}

async fn number(cx: Context, request: Bytes) -> Result<Bytes, Status> {
    if request == "late" {
        tokio::task::yield_now().await;
    }
    if request == "fail" {
        return Err(Status::aborted("as asked").with_details("why"));
    }
    let number = cx.value::<Number>().expect("the layer gives it").0;
    Ok(number.to_string().into())
}

async fn hang(_: Context, _: Bytes) -> Result<Bytes, Status> {
    std::future::pending().await
}

#[tokio::test]
async fn a_layer_sees_each_call_of_all_four_kinds_and_its_outcome() {
    async fn feed(_: Context, request: Bytes, mut to: Sender<Bytes>) -> Result<(), Status> {
        to.send(request).await
    }
    async fn collect(_: Context, mut from: Receiver<Bytes>) -> Result<Bytes, Status> {
        from.recv()
            .await?
            .ok_or_else(|| Status::out_of_range("none"))
    }
    async fn chat(
        _: Context,
        mut from: Receiver<Bytes>,
        mut to: Sender<Bytes>,
    ) -> Result<(), Status> {
        while let Some(message) = from.recv().await? {
            to.send(message).await?;
        }
        Ok(())
    }
    let count = Count::default();
    let counts = Arc::clone(&count.0);
    let builder = Server::builder()
        .unary(ECHO, number)
        .server_streaming(FEED, feed)
        .client_streaming(COLLECT, collect)
        .bidirectional(CHAT, chat)
        .layer(count);
    let host = Host::new(builder).await;
    let call = async |request: &'static str| {
        soon(host.channel.call(&ECHO, &request.into()).into_future()).await
    };
    assert_eq!(call("").await.unwrap(), "0");
    assert_eq!(call("late").await.unwrap(), "1");
    let status = call("fail").await.unwrap_err();
    assert_eq!(
        (status.code(), &status.details()[..]),
        (Code::ABORTED, &b"why"[..])
    );
    assert_eq!(status.was_processed(), Processed::Yes);

    let request = Bytes::from("a");
    let mut answers = soon(host.channel.server_streaming(&FEED, &request).open())
        .await
        .unwrap();
    assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), "a");
    assert_eq!(soon(answers.recv()).await.unwrap(), None);
    let (mut rows, reply) = soon(host.channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    soon(rows.send(request.clone())).await.unwrap();
    assert_eq!(soon(reply).await.unwrap(), "a");
    let (mut to, mut from) = soon(host.channel.bidirectional(&CHAT).open())
        .await
        .unwrap();
    soon(to.send(request.clone())).await.unwrap();
    assert_eq!(soon(from.recv()).await.unwrap().unwrap(), "a");
    to.finish().unwrap();
    assert_eq!(soon(from.recv()).await.unwrap(), None);
    until("all are over", || counts.get() == [6, 5, 1]).await;
}

#[tokio::test]
async fn a_limit_of_tower_bounds_the_handlers_and_a_shed_call_was_not_processed() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        move |_: Context, message: Bytes| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(message)
            }
        }
    };
    let limit = ServiceBuilder::new().concurrency_limit(3).into_inner();
    let host = Host::new(Server::builder().unary(ECHO, handler).layer(limit)).await;
    let request = Bytes::new();
    let calls = (0..100).map(|_| host.channel.call(&ECHO, &request).into_future());
    let answers = soon(futures_util::future::join_all(calls)).await;
    assert!(answers.iter().all(Result::is_ok));
    let most = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");

    let shed = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .into_inner();
    let host = Host::new(Server::builder().unary(ECHO, hang).layer(shed)).await;
    let first = tokio::spawn(host.channel.call(&ECHO, &request).detach());
    until("the first runs", || host.server.stats().in_flight == 1).await;
    let status = soon(host.channel.call(&ECHO, &request).into_future())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
    assert_eq!(status.was_processed(), Processed::No);
    assert!(status.is_retryable());
    first.abort();
}

#[tokio::test]
async fn a_timeout_of_tower_drops_the_handler_and_is_a_deadline_exceeded() {
    struct Ended(Arc<AtomicUsize>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicUsize::new(0));
    let handler = {
        let ended = Arc::clone(&ended);
        move |_, _: Bytes| {
            let running = Ended(Arc::clone(&ended));
            async move {
                let _running = running;
                std::future::pending::<Result<Bytes, Status>>().await
            }
        }
    };
    let timeout = ServiceBuilder::new()
        .timeout(Duration::from_millis(20))
        .into_inner();
    let host = Host::new(Server::builder().unary(ECHO, handler).layer(timeout)).await;
    let status = soon(host.channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(status.was_processed(), Processed::Yes);
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

/// Fails the calls of this name before their handlers, and runs the others in a task of its own.
#[derive(Clone)]
struct Elsewhere(Handlers);

impl Service<Handling> for Elsewhere {
    type Response = Handled;
    type Error = tower::BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Handled, tower::BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Handling) -> Self::Future {
        if call.context().metadata().get("refuse").is_some() {
            return Box::pin(async { Err("not here".into()) });
        }
        let handled = self.0.call(call);
        Box::pin(async { Ok(tokio::spawn(handled).await.expect("it does not panic")?) })
    }
}

fn elsewhere(handlers: ServerBuilder) -> ServerBuilder {
    handlers.layer(tower::layer::layer_fn(Elsewhere))
}

#[tokio::test]
async fn a_layer_may_refuse_a_call_or_run_it_in_a_task_of_its_own() {
    let count = Count::default();
    let counts = Arc::clone(&count.0);
    // The first layer is outside.
    let builder = elsewhere(Server::builder().unary(ECHO, number)).layer(count);
    let host = Host::new(builder).await;
    for request in ["", "late"] {
        let answer = host.channel.call(&ECHO, &request.into()).detach();
        soon(answer).await.unwrap();
    }
    let request = Bytes::new();
    let call = host.channel.call(&ECHO, &request).metadata("refuse", "");
    let status = soon(call.into_future()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::UNKNOWN, "not here")
    );
    assert_eq!(status.was_processed(), Processed::No);
    assert_eq!(counts.get(), [2, 2, 0]);
}

#[tokio::test]
async fn a_handler_inside_of_layers_that_panics_or_is_cancelled_ends_its_own_call_only() {
    async fn panics(_: Context, request: Bytes) -> Result<Bytes, Status> {
        match &request[..] {
            b"panic" => panic!("as asked"),
            b"hang" => std::future::pending().await,
            _ => Ok(request),
        }
    }
    let host = Host::new(elsewhere(Server::builder().unary(ECHO, panics))).await;
    let status = soon(host.channel.call(&ECHO, &"panic".into()).into_future()).await;
    assert_eq!(status.unwrap_err().code(), Code::INTERNAL);
    let hanging = tokio::spawn(host.channel.call(&ECHO, &"hang".into()).detach());
    until("it hangs", || host.server.stats().in_flight == 1).await;
    hanging.abort();
    until("it is gone", || host.server.stats().in_flight == 0).await;
    let answer = soon(host.channel.call(&ECHO, &"a".into()).into_future()).await;
    assert_eq!(answer.unwrap(), "a");
}
