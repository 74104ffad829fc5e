//! A channel under the layers of tower.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future;
use ringmux::Engine;
use ringmux::manage::{Dial, Manager};
use ringmux::rpc::{Channel, Code, Context, Endpoint, Request, Response, Server, Status};
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::hedge::{Hedge, Policy};
use tower::load::Load;
use tower::retry::Policy as RetryPolicy;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::host::*;

fn request(message: &'static str) -> Request {
    Request::new(&ECHO, &message.into()).unwrap()
}

fn is_ready(endpoint: &mut Endpoint) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    endpoint.poll_ready(&mut cx).map(Result::unwrap).is_ready()
}

#[tokio::test]
async fn an_endpoint_answers_and_its_load_is_the_calls_in_flight() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let mut endpoint = Endpoint::with_places(host.channel.clone(), 2);
    assert_eq!(endpoint.load(), 0);
    let answer = soon(endpoint.ready())
        .await
        .unwrap()
        .call(request("a").metadata("k", "v"));
    assert_eq!(endpoint.load(), 1);
    assert_eq!(soon(answer).await.unwrap().decode(&ECHO).unwrap(), "a");
    assert_eq!(endpoint.load(), 0);
    let wrong = soon(endpoint.ready())
        .await
        .unwrap()
        .call(request("a").metadata("K", "v"));
    assert_eq!(
        soon(wrong).await.unwrap_err().code(),
        Code::INVALID_ARGUMENT
    );
}

#[tokio::test]
async fn ready_holds_a_place_and_is_pending_without_one() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let mut one = Endpoint::with_places(host.channel.clone(), 1);
    let mut two = one.clone();
    assert!(is_ready(&mut one));
    assert!(!is_ready(&mut two));
    assert!(is_ready(&mut one));
    soon(one.call(request("a"))).await.unwrap();
    soon(two.ready()).await.unwrap();
    assert!(!is_ready(&mut one));
}

#[tokio::test]
async fn ready_is_pending_while_there_is_no_session_and_never_an_error() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let mut endpoint = Endpoint::new(host.channel.clone());
    assert!(is_ready(&mut endpoint));
    host.session.close();
    soon(host.client.draining()).await;
    assert!(!is_ready(&mut endpoint));
    assert!(!is_ready(&mut endpoint.clone()));

    let dial = Dial::new(
        Engine::auto().unwrap(),
        "tcp://127.0.0.1:1".parse().unwrap(),
        settings().build().unwrap(),
    );
    let manager = Manager::builder(dial).build().unwrap();
    let mut endpoint = Endpoint::new(Channel::from(manager.clone()));
    assert!(!is_ready(&mut endpoint));
    tokio::spawn(manager.start().unwrap());
    assert!(!is_ready(&mut endpoint));
    let (client, session) = pipe(&settings().build().unwrap()).await;
    let server = Server::builder().unary(ECHO, echo).build().unwrap();
    tokio::spawn(async move { server.serve_session(session).await });
    manager.replace(client).unwrap();
    soon(endpoint.ready()).await.unwrap();
    assert_eq!(
        soon(endpoint.call(request("a"))).await.unwrap().message,
        "a"
    );
    manager.close();
    until("not ready", || !is_ready(&mut endpoint)).await;
}

#[tokio::test]
async fn a_place_that_the_end_of_a_session_frees_makes_no_endpoint_of_it_ready() {
    let handler = |_: Context, _: Bytes| std::future::pending::<Result<Bytes, Status>>();
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let mut one = Endpoint::with_places(host.channel.clone(), 1);
    let mut two = one.clone();
    let held = soon(one.ready()).await.unwrap().call(request("a"));
    let held = tokio::spawn(held);
    assert!(!is_ready(&mut two));
    host.client.close();
    soon(held).await.unwrap().unwrap_err();
    assert!(!is_ready(&mut two));
    assert!(!is_ready(&mut one));
    assert_eq!(two.load(), 0);
}

#[tokio::test]
async fn an_endpoint_that_is_dropped_while_it_waits_passes_its_turn_on() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let mut one = Endpoint::with_places(host.channel.clone(), 1);
    let (mut two, mut three) = (one.clone(), one.clone());
    assert!(is_ready(&mut one));
    assert!(!is_ready(&mut two));
    assert!(!is_ready(&mut three));
    let waiting = tokio::spawn(async move { three.ready().await.map(drop) });
    tokio::task::yield_now().await;
    // The turn is of `two`, which looks no more.
    drop(one);
    drop(two);
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn limits_and_timeouts_of_tower_fit() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        move |_: Context, message: Bytes| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                match &message[..] {
                    b"hang" => std::future::pending().await,
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(message)
            }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let service = ServiceBuilder::new()
        .concurrency_limit(2)
        .service(Endpoint::new(host.channel.clone()));
    let calls = (0..20).map(|_| service.clone().oneshot(request("a")));
    let answers = soon(future::join_all(calls)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(most.load(Ordering::SeqCst), 2);

    let service = ServiceBuilder::new()
        .timeout(Duration::from_millis(30))
        .service(Endpoint::new(host.channel.clone()));
    let error = soon(service.oneshot(request("hang"))).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    // Dropped, and so cancelled.
    until("the handler is gone", || host.server.stats().in_flight == 0).await;
}

/// Tries calls again that were not processed.
#[derive(Clone)]
struct Again(u32);

impl RetryPolicy<Request, Response<Bytes>, Status> for Again {
    type Future = future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request,
        result: &mut Result<Response<Bytes>, Status>,
    ) -> Option<Self::Future> {
        let again = self.0 > 0 && result.as_ref().is_err_and(Status::is_retryable);
        again.then(|| {
            self.0 -= 1;
            future::ready(())
        })
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn retries_of_tower_go_by_whether_the_call_was_processed() {
    let count = Arc::new(AtomicUsize::new(0));
    let handler = {
        let count = Arc::clone(&count);
        move |_, message: Bytes| {
            let seen = count.fetch_add(1, Ordering::SeqCst);
            let status = Status::unavailable("not yet");
            future::ready(match &message[..] {
                b"done" => Err(status),
                _ if seen < 3 => Err(status.not_processed()),
                _ => Ok(message),
            })
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let service = ServiceBuilder::new()
        .retry(Again(5))
        .service(Endpoint::new(host.channel.clone()));
    assert_eq!(
        soon(service.clone().oneshot(request("a")))
            .await
            .unwrap()
            .message,
        "a"
    );
    assert_eq!(count.swap(10, Ordering::SeqCst), 4);
    assert!(soon(service.oneshot(request("done"))).await.is_err());
    assert_eq!(count.load(Ordering::SeqCst), 11);
}

/// All calls may run twice.
#[derive(Clone)]
struct Twice;

impl Policy<Request> for Twice {
    fn clone_request(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &Request) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_is_answered_by_the_second_when_the_first_hangs() {
    let count = Arc::new(AtomicUsize::new(0));
    let handler = {
        let count = Arc::clone(&count);
        move |_: Context, message: Bytes| {
            let hangs = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(message)
            }
        }
    };
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let endpoint = Endpoint::new(host.channel.clone());
    // As if calls had taken a millisecond so far.
    let (period, taken) = (Duration::from_secs(1), [1; 20]);
    let mut service = Hedge::new_with_mock_latencies(endpoint, Twice, 10, 0.9, period, &taken);
    let answer = soon(service.ready()).await.unwrap().call(request("a"));
    assert_eq!(soon(answer).await.unwrap().message, "a");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    until("the hedged one is cancelled", || {
        host.server.stats().in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn a_balancer_over_three_servers_loses_no_call_while_one_is_restarted() {
    const CALLS: usize = 600;
    let ran: [Arc<AtomicUsize>; 3] = Default::default();
    let (changes, discover) = tokio::sync::mpsc::unbounded_channel::<Result<_, Status>>();
    let mut hosts = Vec::new();
    let serving = |at: usize| {
        let ran = Arc::clone(&ran[at]);
        Server::builder().unary(ECHO, move |_: Context, message: Bytes| {
            let ran = Arc::clone(&ran);
            async move {
                ran.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(message)
            }
        })
    };
    for at in 0..3 {
        let host = Host::new(serving(at)).await;
        changes
            .send(Ok(Change::Insert(at, Endpoint::new(host.channel.clone()))))
            .unwrap();
        hosts.push(host);
    }
    let discover = futures_util::stream::unfold(discover, |mut from| async move {
        from.recv().await.map(|change| (change, from))
    });
    let balance = Balance::new(Box::pin(discover));
    let service = ServiceBuilder::new().buffer(64).service(balance);
    let service = ServiceBuilder::new().retry(AgainBoxed).service(service);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..CALLS {
        calls.spawn(service.clone().oneshot(request("a")));
        if n == CALLS / 3 {
            let session = hosts[0].session.clone();
            tokio::spawn(async move { session.shutdown(LIMIT).await });
        }
        if n == CALLS / 2 {
            hosts[0] = Host::new(serving(0)).await;
            let endpoint = Endpoint::new(hosts[0].channel.clone());
            changes.send(Ok(Change::Insert(0, endpoint))).unwrap();
        }
        if n % 8 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while let Some(answer) = soon(calls.join_next()).await {
        answer.unwrap().unwrap();
    }
    let counts = ran.map(|ran| ran.load(Ordering::SeqCst));
    assert_eq!(counts.iter().sum::<usize>(), CALLS, "{counts:?}");
    assert!(counts.iter().all(|&count| count > CALLS / 20), "{counts:?}");
}

/// As [`Again`] without an end, behind a buffer, whose errors are boxed.
#[derive(Clone)]
pub(crate) struct AgainBoxed;

impl RetryPolicy<Request, Response<Bytes>, tower::BoxError> for AgainBoxed {
    type Future = future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request,
        result: &mut Result<Response<Bytes>, tower::BoxError>,
    ) -> Option<Self::Future> {
        let status = result
            .as_ref()
            .err()
            .and_then(|error| error.downcast_ref::<Status>());
        status
            .is_some_and(Status::is_retryable)
            .then(|| future::ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}
