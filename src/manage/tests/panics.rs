//! Panics of the application's code: each fails one attempt, and nothing else ends.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use bytes::Bytes;
use tokio::time::sleep;

use super::peer::Peer;
use super::{builder, millis, next_of, ready, secs, start};
use crate::manage::{Event, Manager, Outbox, Outcome, ProvideError, Provider};
use crate::{Chain, Session};

/// The error of the next pause.
async fn failure(events: &mut super::Events) -> Arc<ProvideError> {
    let failed = |event: &Event| matches!(event, Event::Reconnecting { error: Some(_), .. });
    match next_of(events, failed).await {
        Event::Reconnecting {
            error: Some(error), ..
        } => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_fails_its_attempt_and_ends_no_other_session_and_no_outbox() {
    let peer = Peer::new();
    let runs = AtomicU32::new(0);
    let hook = move |_: Session| {
        let run = runs.fetch_add(1, SeqCst);
        assert_ne!(run, 4, "the fifth, when it is called");
        async move {
            assert_ne!(run, 5, "the sixth, in its future");
            Ok(())
        }
    };
    let manager = builder(&peer).sessions(4).on_session(hook).build().unwrap();
    let task = tokio::spawn(manager.start().unwrap());
    let outbox = Outbox::builder(manager.clone()).build().unwrap();
    tokio::spawn(outbox.start().unwrap());
    let mut events = manager.subscribe();
    for _ in 0..4 {
        ready(&mut events).await;
    }
    let theirs = peer.sessions();
    theirs[0].close();

    for text in ["the fifth, when it is called", "the sixth, in its future"] {
        let error = failure(&mut events).await;
        assert!(
            matches!(&*error, ProvideError::HookPanicked(said) if said.contains(text)),
            "{error:?}"
        );
    }
    ready(&mut events).await;
    let alive = |session: &Session| session.state().reason().is_none();
    assert!(theirs[1..].iter().all(alive) && !task.is_finished());
    let metrics = manager.metrics();
    assert_eq!(
        (metrics.attempts, metrics.failures, metrics.hook_failures),
        (7, 2, 2)
    );
    assert_eq!((metrics.panics, metrics.ready, metrics.lost), (2, 5, 1));
    let outcome = outbox.push("", "message").unwrap().await;
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
}

/// Panics in each of its methods in turn, before it provides sessions.
struct Rough(Peer, AtomicU32);

impl Provider for Rough {
    fn provide(&self) -> impl Future<Output = Result<Session, ProvideError>> + Send {
        let run = self.1.fetch_add(1, SeqCst);
        assert_ne!(run, 0, "making");
        async move {
            assert_ne!(run, 1, "polling");
            if run == 2 {
                let _rough = PanicsAtDrop;
                pending::<()>().await;
            }
            if run == 3 {
                return Err(ProvideError::Other(Box::new(PanicsAtDrop)));
            }
            self.0.provide().await
        }
    }

    fn describe(&self) -> String {
        panic!("describing");
    }

    fn waits_for_peer(&self) -> bool {
        panic!("asked whether it waits");
    }
}

#[derive(Debug)]
struct PanicsAtDrop;

impl Drop for PanicsAtDrop {
    fn drop(&mut self) {
        panic!("dropping");
    }
}

impl fmt::Display for PanicsAtDrop {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("showing");
    }
}

impl std::error::Error for PanicsAtDrop {}

#[tokio::test(start_paused = true)]
async fn a_provider_may_panic_anywhere() {
    let rough = Rough(Peer::new(), AtomicU32::new(0));
    let manager = start(Manager::builder(rough).seed(1));
    let mut events = manager.subscribe();
    let mut said = Vec::new();
    for _ in 0..3 {
        said.push(Chain(&*failure(&mut events).await).to_string());
    }
    assert!(
        said[0].contains("provider of sessions panicked: assertion") && said[0].contains("making")
    );
    assert!(said[1].contains("polling"), "{said:?}");
    assert_eq!(said[2], "no connection within 20s");
    drop(events);
    let session = manager.session().await.unwrap();
    session.ping().await.unwrap();
    let metrics = manager.metrics();
    assert_eq!((metrics.attempts, metrics.failures), (5, 4));
    assert_eq!(metrics.panics, 2, "the drop of an error is no attempt");
    let description = manager.describe().to_string();
    assert!(
        description.starts_with("describe panicked: describing: ready"),
        "{description}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_for_a_peer_that_calls_again_leaves_the_old_session() {
    let peer = Peer::new();
    peer.calls_us();
    let runs = AtomicU32::new(0);
    let hook = move |_: Session| {
        let run = runs.fetch_add(1, SeqCst);
        async move {
            assert_ne!(run, 1, "the second");
            Ok(())
        }
    };
    let manager = start(builder(&peer).on_session(hook));
    peer.calls();
    let session = manager.session().await.unwrap();
    peer.calls();
    while peer.sessions().len() < 2 {
        sleep(millis(100)).await;
    }
    sleep(secs(1)).await;
    session.ping().await.unwrap();
    let metrics = manager.metrics();
    assert_eq!(
        (metrics.failures, metrics.hook_failures, metrics.panics),
        (1, 1, 1)
    );
    // As after any other error, once the old one is lost the next one is taken.
    session.close();
    peer.calls();
    let another = manager.session_within(secs(5)).await.unwrap();
    another.ping().await.unwrap();
}

/// The memory of a message.
struct Rented;

impl AsRef<[u8]> for Rented {
    fn as_ref(&self) -> &[u8] {
        b"message"
    }
}

impl Drop for Rented {
    fn drop(&mut self) {
        panic!("giving back");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_whose_memory_panics_when_it_is_dropped_leave_the_outbox_running() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let outbox = Outbox::builder(manager.clone()).at_once(2).build().unwrap();
    tokio::spawn(outbox.start().unwrap());
    let rented = || outbox.push("", Bytes::from_owner(Rented)).unwrap();
    let receipts: Vec<_> = (0..5).map(|_| rented()).collect();
    for receipt in receipts {
        let outcome = receipt.await;
        assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    }
    let outcome = outbox.push("", "message").unwrap().await;
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");

    manager.close();
    manager.closed().await;
    assert!(outbox.push("", "late").is_err());
    assert_eq!((outbox.stats().held, outbox.stats().finished), (0, 6));
}
