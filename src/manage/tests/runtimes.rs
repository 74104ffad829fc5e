//! Tasks and callers that are polled without a tokio runtime, on one without time, or on another than before.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};

use super::builder;
use super::peer::Peer;
use crate::manage::{Dropped, ManageError, Outbox, Outcome};

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_task_without_a_clock_is_an_error_that_callers_learn() {
    let timeless = Builder::new_current_thread().build().unwrap();
    for on_runtime in [false, true] {
        let _entered = on_runtime.then(|| timeless.enter());
        let manager = builder(&Peer::new()).sessions(3).build().unwrap();
        let outbox = Outbox::builder(manager.clone()).build().unwrap();
        let running = manager.start().unwrap();
        let mut waiting = Box::pin(manager.session());
        assert!(waiting.as_mut().now_or_never().is_none());

        let receipt = outbox.push("", "message").unwrap();
        let delivered = poll(outbox.start().unwrap());
        assert!(matches!(
            delivered,
            Poll::Ready(Err(ManageError::NoRuntime))
        ));
        let outcome = poll(receipt);
        assert!(matches!(
            outcome,
            Poll::Ready(Outcome::Dropped(Dropped::Closed))
        ));

        let ran = poll(running);
        assert!(matches!(ran, Poll::Ready(Err(ManageError::NoRuntime))));
        let told = poll(waiting);
        assert!(matches!(told, Poll::Ready(Err(ManageError::NoRuntime))));
        let told = poll(manager.session());
        assert!(matches!(told, Poll::Ready(Err(ManageError::NoRuntime))));
        assert!(poll(manager.closed()).is_ready());
    }
}

#[test]
fn a_caller_with_a_time_limit_and_no_clock_gets_an_error() {
    let runtime = runtime();
    let peer = Peer::new();
    peer.never_answers();
    let manager = builder(&peer).build().unwrap();
    runtime.spawn(manager.start().unwrap());
    let waited = poll(manager.session_within(Duration::from_secs(1)));
    assert!(matches!(waited, Poll::Ready(Err(ManageError::NoRuntime))));
    let called = manager.with_session_within(Duration::from_secs(1), |_| async {});
    assert!(matches!(
        poll(called),
        Poll::Ready(Err(ManageError::NoRuntime))
    ));
    assert_eq!(manager.metrics().waiting, 0);
}

#[test]
fn a_task_goes_on_when_it_is_moved_to_another_runtime() {
    for first_lives in [true, false] {
        let (first, second) = (runtime(), runtime());
        let peer = Peer::new();
        peer.goes_away();
        let hour = Duration::from_secs(3600);
        let manager = builder(&peer)
            .first_pause(Duration::from_millis(5))
            .attempt_timeout(hour)
            .build()
            .unwrap();
        let mut running = manager.start().unwrap();
        first.block_on(async {
            while manager.metrics().failures < 2 {
                assert!((&mut running).now_or_never().is_none());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        peer.comes_back();
        let first = first_lives.then_some(first);
        second.block_on(async {
            tokio::spawn(running);
            let session = manager.session_within(hour).await.unwrap();
            session.ping().await.unwrap();
        });
        assert_eq!(manager.metrics().panics, 0);
        drop(first);
    }
}

#[test]
fn a_task_polled_on_a_runtime_that_has_been_shut_down_ends_with_an_error() {
    let runtime = runtime();
    let peer = Peer::new();
    peer.goes_away();
    let manager = builder(&peer).build().unwrap();
    let mut running = manager.start().unwrap();
    let handle = runtime.handle().clone();
    runtime.block_on(async {
        assert!((&mut running).now_or_never().is_none());
    });
    drop(runtime);
    let _entered = handle.enter();
    let mut ended = (&mut running).now_or_never();
    for _ in 0..3 {
        ended = ended.or_else(|| (&mut running).now_or_never());
    }
    assert!(
        matches!(ended, Some(Err(ManageError::NoRuntime))),
        "{ended:?}"
    );
    let told = poll(manager.session());
    assert!(matches!(told, Poll::Ready(Err(ManageError::NoRuntime))));
}
