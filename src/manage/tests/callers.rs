//! Results of callers.

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::peer::{Peer, pair};
use super::{builder, lost, millis, secs, start};
use crate::Processed;
use crate::handle::whole::Whole as _;
use crate::manage::{ManageError, Manager};

#[tokio::test(start_paused = true)]
async fn all_who_wait_go_on_together_when_a_session_comes() {
    let peer = Peer::new();
    peer.goes_away();
    let manager = start(builder(&peer));
    let waiting = (0..500).map(|_| {
        let manager = manager.clone();
        tokio::spawn(async move {
            manager.session().await.unwrap();
            Instant::now()
        })
    });
    let waiting: Vec<_> = waiting.collect();
    sleep(secs(3)).await;
    assert_eq!(manager.metrics().waiting, 500);
    peer.comes_back();
    let times: Vec<Instant> = join_all(waiting)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(times.iter().all(|time| *time == times[0]));
    let metrics = manager.metrics();
    assert_eq!((metrics.waiting, metrics.served), (0, 500));
}

#[tokio::test(start_paused = true)]
async fn shutting_down_releases_everybody_with_an_error_at_once() {
    let peer = Peer::new();
    peer.goes_away();
    let manager = start(builder(&peer));
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move { manager.with_session(|_| async {}).await })
        })
        .collect();
    sleep(secs(3)).await;
    let at = Instant::now();
    assert!(!manager.is_shutting_down());
    manager.close();
    assert!(manager.is_shutting_down());
    for result in join_all(waiting).await {
        assert!(matches!(result.unwrap(), Err(ManageError::ShuttingDown)));
    }
    manager.closed().await;
    assert_eq!(at.elapsed(), secs(0));
    assert_eq!(manager.metrics().refused_closing, 100);
    assert!(matches!(
        manager.session().await,
        Err(ManageError::ShuttingDown)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_and_tells_why_the_last_attempt_failed() {
    let peer = Peer::new();
    peer.goes_away();
    let manager = start(builder(&peer));
    let at = Instant::now();
    let error = manager.session_within(millis(700)).await.unwrap_err();
    assert!((millis(700)..millis(702)).contains(&at.elapsed()));
    assert!(error.is_retryable());
    let said = crate::Chain(&error).to_string();
    assert_eq!(said, "no session within 700ms: peer unreachable");
    assert_eq!(manager.metrics().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn one_more_than_may_wait_is_refused_by_name() {
    let peer = Peer::new();
    peer.goes_away();
    let manager = start(builder(&peer).max_waiting(1));
    let first = tokio::spawn({
        let manager = manager.clone();
        async move { manager.session().await }
    });
    sleep(millis(1)).await;
    let second = manager.session().await;
    assert!(matches!(
        second,
        Err(ManageError::TooManyWaiting { limit: 1 })
    ));
    first.abort();
    let _ = first.await;
    peer.comes_back();
    manager.session().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_with_an_error_is_never_handed_out_even_before_anybody_noticed() {
    // The manager has no task, so the lost session stays installed.
    let manager = builder(&Peer::new()).build().unwrap();
    let (session, _peer) = pair();
    manager.replace(session.clone()).unwrap();
    manager.try_session_or_else(|| ()).unwrap();
    session.close();
    manager.try_session_or_else(|| ()).unwrap_err();
    let none = manager.session_within(secs(1)).await;
    assert!(matches!(none, Err(ManageError::NotStarted)));
    assert!(manager.describe().to_string().contains("ended"));
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_was_not_started_says_so_at_once_and_serves_what_it_was_given() {
    let manager = builder(&Peer::new()).build().unwrap();
    let at = Instant::now();
    let errors = [
        // The call itself has no timeout.
        timeout(secs(3600), manager.session()).await.unwrap().err(),
        manager.session_within(secs(60)).await.err(),
        manager.with_session(|_| async {}).await.err(),
    ];
    for error in errors.map(Option::unwrap) {
        assert!(matches!(error, ManageError::NotStarted), "{error}");
        assert!(error.to_string().contains("`start`"), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(error.was_processed(), Processed::No);
    }
    assert_eq!(at.elapsed(), secs(0));
    assert_eq!(manager.metrics().refused_unstarted, 3);
    let (session, _peer) = pair();
    manager.replace(session).unwrap();
    manager.session().await.unwrap();
    let metrics = manager.metrics();
    assert_eq!((metrics.attempts, metrics.ready), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_its_leave_is_left_for_a_new_session_while_old_streams_go_on() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let mut events = manager.subscribe();
    let old = manager.session().await.unwrap();
    let mut stream = old.open("").await.unwrap();
    stream.send("before").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), "before");
    peer.takes_its_leave();
    lost(&mut events).await;
    let new = manager.session().await.unwrap();
    assert!(old.state().reason().is_some() && new.state().reason().is_none());
}

#[tokio::test(start_paused = true)]
async fn of_several_sessions_callers_get_the_least_loaded() {
    let peer = Peer::new();
    let manager = start(builder(&peer).sessions(4));
    while manager.metrics().ready < 4 {
        tokio::task::yield_now().await;
    }
    let (done, _) = tokio::sync::broadcast::channel::<()>(1);
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (manager, mut done) = (manager.clone(), done.subscribe());
            tokio::spawn(async move {
                let call = manager.with_session(|session| async move {
                    let _stream = session.open("").await.unwrap();
                    let _ = done.recv().await;
                });
                call.await.unwrap();
            })
        })
        .collect();
    sleep(millis(10)).await;
    let mut streams: Vec<u64> = peer.sessions().iter().map(|s| s.stats().streams).collect();
    streams.sort_unstable();
    assert_eq!(streams, [10, 10, 10, 10]);
    drop(done);
    join_all(calls).await;

    // One of them is lost: the others serve, and it is replaced.
    let mut events = manager.subscribe();
    peer.sessions()[0].close();
    lost(&mut events).await;
    for _ in 0..8 {
        manager.try_session_or_else(|| ()).unwrap();
    }
    super::ready(&mut events).await;
    assert_eq!(manager.metrics().ready, 5);
}

#[tokio::test(start_paused = true)]
async fn a_manager_is_started_once() {
    let manager: Manager = builder(&Peer::new()).build().unwrap();
    let running = manager.start().unwrap();
    assert!(matches!(manager.start(), Err(ManageError::AlreadyStarted)));
    drop(running);
    assert!(manager.is_shutting_down());
}
