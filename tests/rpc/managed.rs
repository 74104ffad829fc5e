//! Channels over a manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmux::manage::{Dial, Manager};
use ringmux::rpc::{Channel, Code, Context, Retry, Server, Status};
use ringmux::{Config, Engine, Listener, Processed};

use crate::host::*;

fn manager(addr: &str) -> Manager {
    let dial = Dial::new(
        Engine::auto().unwrap(),
        addr.parse().unwrap(),
        settings().build().unwrap(),
    );
    let manager = Manager::builder(dial).build().unwrap();
    tokio::spawn(manager.start().unwrap());
    manager
}

async fn listening(server: &Server, addr: &str) -> Arc<Listener> {
    let engine = Engine::current().unwrap();
    let listener = listen(&engine, &addr.parse().unwrap(), &Config::default()).await;
    let listener = Arc::new(listener);
    let (server, serving) = (server.clone(), Arc::clone(&listener));
    tokio::spawn(async move { server.serve(serving).await });
    listener
}

#[tokio::test]
async fn a_call_waits_for_a_session_no_longer_than_it_has_time() {
    let channel = Channel::from(manager("tcp://127.0.0.1:1"));
    let request = Bytes::new();
    let time = Duration::from_millis(50);
    let unary = channel.call(&ECHO, &request).timeout(time);
    let opening = channel.bidirectional(&CHAT).timeout(time).open();
    for status in [
        soon(unary.into_future()).await.unwrap_err(),
        soon(opening).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
        assert_eq!(
            (status.was_processed(), status.is_retryable()),
            (Processed::No, false)
        );
        // With the reason why there is none.
        assert!(
            status.message().contains("waited for a session"),
            "{status}"
        );
        assert!(status.message().contains("no session within"), "{status}");
    }
}

#[tokio::test]
async fn a_call_that_waits_for_a_session_ends_with_its_parent() {
    let manager = manager("tcp://127.0.0.1:1");
    let request = Bytes::new();
    for channel in [
        Channel::from(manager.clone()),
        Channel::builder(manager.clone())
            .retry(Retry::new(3))
            .build(),
    ] {
        for time in [None, Some(2 * LIMIT)] {
            let (one, other) = (Context::new(), Context::new());
            let unary = channel.call(&ECHO, &request).parent(&one).timeout(time);
            let opening = channel.bidirectional(&CHAT).parent(&other).timeout(time);
            // It begins to wait before it is cancelled.
            let (unary, ()) = tokio::join!(soon(unary), async { one.cancel() });
            let (opened, ()) = tokio::join!(soon(opening.open()), async { other.cancel() });
            for status in [unary.unwrap_err(), opened.map(drop).unwrap_err()] {
                assert_eq!(
                    (status.code(), status.was_processed()),
                    (Code::CANCELLED, Processed::No)
                );
            }
        }
    }
    assert_eq!(manager.metrics().waiting, 0);
}

#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_call_that_could_be_tried_again() {
    const CALLERS: usize = 8;
    let ran = Arc::new(AtomicUsize::new(0));
    let handler = {
        let ran = Arc::clone(&ran);
        move |_: Context, request: Bytes| {
            let ran = Arc::clone(&ran);
            async move {
                tokio::task::yield_now().await;
                ran.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Status>(request)
            }
        }
    };
    let server = Server::builder().unary(ECHO, handler).build().unwrap();
    let mut listener = listening(&server, "tcp://127.0.0.1:0").await;
    let addr = listener.local_addr().to_string();
    let manager = manager(&addr);
    let retry = Retry::new(1000).pause(Duration::from_millis(2));
    let channel = Channel::builder(manager.clone()).retry(retry).build();

    let stop = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (channel, stop) = (channel.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut calls, request) = (0, Bytes::from_static(b"x"));
                while stop.load(Ordering::SeqCst) == 0 {
                    channel.call(&ECHO, &request).timeout(LIMIT).await.unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for round in 1..=5 {
        let before = ran.load(Ordering::SeqCst);
        until("calls go on", || ran.load(Ordering::SeqCst) > before + 200).await;
        let drained = soon(listener.shutdown(Duration::from_secs(20))).await;
        assert_eq!(drained.forced, 0, "round {round}: {drained:?}");
        drop(listener);
        listener = listening(&server, &addr).await;
    }
    stop.store(1, Ordering::SeqCst);
    let mut calls = 0;
    for caller in callers {
        calls += soon(caller).await.unwrap();
    }
    // None ran twice.
    assert_eq!(calls, ran.load(Ordering::SeqCst));
    manager.close();
    let status = soon(channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.was_processed()),
        (Code::UNAVAILABLE, Processed::No)
    );
}
