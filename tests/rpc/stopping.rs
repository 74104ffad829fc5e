//! A program whose `main` awaits `serve`: calls in flight at a shutdown are answered before it returns.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Context, Sender, Server, Status};
use ringmux::{Listener, Session};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use crate::host::*;

/// What the two sides share: both run in this process, each on its own runtime.
#[derive(Clone, Default)]
struct Signals {
    stop: Arc<Notify>,
    answer: Arc<Notify>,
}

async fn slow(signals: Signals, request: Bytes) -> Result<Bytes, Status> {
    signals.answer.notified().await;
    Ok(request)
}

async fn feed(signals: Signals, request: Bytes, mut out: Sender<Bytes>) -> Result<(), Status> {
    out.send(&request).await?;
    signals.answer.notified().await;
    out.send(&request).await
}

/// Listens, and shuts down in a task of its own when it is told to.
async fn listening(signals: &Signals, addr: mpsc::Sender<String>) -> Arc<Listener> {
    let listener = Arc::new(ringmux::listen("tcp://127.0.0.1:0").await.unwrap());
    addr.send(listener.local_addr().to_string()).unwrap();
    let (stopping, stop) = (Arc::clone(&listener), Arc::clone(&signals.stop));
    tokio::spawn(async move {
        stop.notified().await;
        stopping.shutdown(LIMIT).await;
    });
    listener
}

async fn main_shared(signals: Signals, addr: mpsc::Sender<String>) {
    let listener = listening(&signals, addr).await;
    let (one, two) = (signals.clone(), signals);
    let server = Server::builder()
        .unary(ECHO, move |_: Context, request| slow(one.clone(), request))
        .server_streaming(FEED, move |_: Context, request, out| {
            feed(two.clone(), request, out)
        })
        .build()
        .unwrap();
    server.serve(listener).await.unwrap();
    assert_eq!((server.stats().calls, server.stats().failed), (2, 0));
}

async fn main_local(signals: Signals, addr: mpsc::Sender<String>) {
    let listener = listening(&signals, addr).await;
    let (one, two) = (signals.clone(), signals);
    let server = Server::local()
        .unary(ECHO, move |_: Context, request| slow(one.clone(), request))
        .server_streaming(FEED, move |_: Context, request, out| {
            feed(two.clone(), request, out)
        })
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.run_until(server.serve(listener)).await.unwrap();
}

/// A client with two calls in flight while the program stops.
async fn two_calls(addr: String, signals: Signals) {
    let session: Session = soon(ringmux::connect(addr)).await.unwrap();
    let channel = Channel::new(session.clone());
    let request = Bytes::from("in flight");
    let unary = tokio::spawn(channel.call(&ECHO, &request).detach());
    let mut fed = soon(channel.server_streaming(&FEED, &request).open())
        .await
        .unwrap();
    assert_eq!(soon(fed.recv()).await.unwrap().unwrap(), request);
    soon(session.ping()).await.unwrap();
    signals.stop.notify_one();
    soon(session.wait_for(|state| state.reason().is_some())).await;
    // What the program did wrong it has done by now, or does while this waits.
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..2 {
        signals.answer.notify_one();
        tokio::task::yield_now().await;
    }
    signals.answer.notify_waiters();
    let answer = tokio::time::timeout(LIMIT, unary).await.unwrap().unwrap();
    assert_eq!(answer.unwrap(), request);
    assert_eq!(soon(fed.recv()).await.unwrap().unwrap(), request);
    assert_eq!(soon(fed.recv()).await.unwrap(), None);
}

fn run<F: Future<Output = ()>>(
    runtime: Runtime,
    main: impl FnOnce(Signals, mpsc::Sender<String>) -> F + Send + 'static,
) {
    let signals = Signals::default();
    let (send, addr) = mpsc::channel();
    let program = {
        let signals = signals.clone();
        std::thread::spawn(move || {
            runtime.block_on(main(signals, send));
            // As at the end of `main`: what still runs is dropped.
            drop(runtime);
        })
    };
    let addr = addr.recv().unwrap();
    let client = Builder::new_current_thread().enable_all().build().unwrap();
    client.block_on(two_calls(addr, signals));
    program.join().unwrap();
}

fn many_threads() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn serve_returns_when_the_calls_in_flight_were_answered() {
    run(many_threads(), main_shared);
    run(one_thread(), main_shared);
}

#[test]
fn a_local_server_returns_when_the_calls_in_flight_were_answered() {
    run(many_threads(), main_local);
    run(one_thread(), main_local);
}
