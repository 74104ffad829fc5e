//! Begin and end of a manager's sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::time::{Instant, sleep};

use super::peer::{Peer, pair};
use super::{builder, lost, millis, ready, secs, start};
use crate::manage::{Event, ManageError, Phase};
use crate::{Session, SessionError};

#[tokio::test(start_paused = true)]
async fn the_hook_is_through_with_each_new_session_before_anybody_gets_it() {
    let peer = Peer::new();
    let runs = Arc::new(AtomicU32::new(0));
    let hook = {
        let runs = Arc::clone(&runs);
        move |session: Session| {
            let runs = Arc::clone(&runs);
            async move {
                session.open("subscribe").await?;
                sleep(secs(1)).await;
                runs.fetch_add(1, SeqCst);
                Ok(())
            }
        }
    };
    let manager = start(builder(&peer).on_session(hook));
    let mut events = manager.subscribe();
    manager.session().await.unwrap();
    assert_eq!(runs.load(SeqCst), 1);
    peer.hangs_up_once();
    lost(&mut events).await;
    manager.session().await.unwrap();
    assert_eq!(runs.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_or_takes_too_long_closes_its_session_and_counts_as_a_failure() {
    let peer = Peer::new();
    let runs = AtomicU32::new(0);
    let hook = move |_: Session| {
        let run = runs.fetch_add(1, SeqCst);
        async move {
            match run {
                0 => Err("the password is wrong".into()),
                1 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    };
    let manager = start(builder(&peer).on_session(hook).hook_timeout(secs(2)));
    let mut events = manager.subscribe();
    manager.session().await.unwrap();
    let said = |event| match event {
        Event::Reconnecting { error, .. } => crate::Chain(&*error.unwrap()).to_string(),
        other => panic!("{other:?}"),
    };
    let first = said(events.next().await.unwrap());
    assert_eq!(
        first,
        "the hook for new sessions failed: the password is wrong"
    );
    let second = said(events.next().await.unwrap());
    assert_eq!(second, "the hook for new sessions took more than 2s");
    let metrics = manager.metrics();
    assert_eq!(
        (metrics.attempts, metrics.failures, metrics.hook_failures),
        (3, 2, 2)
    );
    let ended = peer.sessions();
    assert!(
        ended[..2]
            .iter()
            .all(|session| session.state().reason().is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_lost_in_the_hook_is_not_ready() {
    let peer = Peer::new();
    let hook = |_: Session| async {
        std::future::pending::<()>().await;
        Ok(())
    };
    let manager = start(builder(&peer).on_session(hook));
    while peer.sessions().is_empty() {
        tokio::task::yield_now().await;
    }
    peer.goes_away();
    sleep(millis(1)).await;
    let metrics = manager.metrics();
    assert_eq!(
        (metrics.ready, metrics.failures, metrics.hook_failures),
        (0, 1, 0)
    );
}

/// A peer that reconnects before it closes its old session.
#[tokio::test(start_paused = true)]
async fn a_session_in_its_hook_survives_the_end_of_the_one_before() {
    let peer = Peer::new();
    peer.calls_us();
    let hook = |_: Session| async {
        sleep(secs(2)).await;
        Ok(())
    };
    let manager = start(builder(&peer).on_session(hook));
    peer.calls();
    manager.session().await.unwrap();
    peer.calls();
    while peer.sessions().len() < 2 {
        sleep(millis(100)).await;
    }
    let sessions = peer.sessions();
    sessions[0].close();
    sleep(secs(1)).await;
    assert_eq!(manager.metrics().ready, 1, "the first one");
    let session = manager.session_within(secs(10)).await.unwrap();
    session.ping().await.unwrap();
    assert!(sessions[0].state().end().is_some() && sessions[1].state().end().is_none());
    assert_eq!(manager.metrics().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn events_tell_of_ready_lost_and_reconnecting_in_order_and_of_the_end() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let mut events = manager.subscribe();
    manager.session().await.unwrap();
    peer.hangs_up_once();
    lost(&mut manager.subscribe()).await;
    manager.session().await.unwrap();
    manager.close();
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        told.push(event);
    }
    assert!(
        matches!(
            told[..],
            [
                Event::Ready {
                    place: 0,
                    number: 1
                },
                Event::Lost {
                    number: 1,
                    reason: SessionError::Disconnected,
                    ..
                },
                Event::Reconnecting {
                    failures: 1,
                    error: None,
                    ..
                },
                Event::Ready { number: 2, .. },
                Event::Lost {
                    number: 2,
                    reason: SessionError::Closed,
                    ..
                },
                Event::Closed,
            ]
        ),
        "{told:?}"
    );
    assert!(manager.subscribe().next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_is_behind_is_told_how_many_events_it_missed() {
    let peer = Peer::new();
    let manager = start(builder(&peer).events_kept(2));
    let mut events = manager.subscribe();
    for _ in 0..3 {
        manager.session().await.unwrap();
        let mut now = manager.subscribe();
        peer.hangs_up_once();
        ready(&mut now).await;
    }
    // Ready, and three times lost, reconnecting, ready.
    assert!(matches!(
        events.next().await,
        Some(Event::Missed { events: 8 })
    ));
    ready(&mut events).await;
}

#[tokio::test(start_paused = true)]
async fn replacing_closes_the_old_session_and_needs_no_pause() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let old = manager.session().await.unwrap();
    let (new, (_theirs, connection)) = pair();
    tokio::spawn(connection);
    manager.replace(new).unwrap();
    assert!(matches!(old.state().reason(), Some(SessionError::Closed)));
    manager.try_session_or_else(|| ()).unwrap();
    sleep(secs(1)).await;
    let metrics = manager.metrics();
    assert_eq!((metrics.attempts, metrics.ready, metrics.lost), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn replacing_ends_an_attempt_that_is_under_way() {
    let peer = Peer::new();
    peer.never_answers();
    let manager = start(builder(&peer));
    sleep(secs(1)).await;
    let (new, (_theirs, connection)) = pair();
    tokio::spawn(connection);
    manager.replace(new).unwrap();
    sleep(secs(120)).await;
    assert!(matches!(
        manager.describe().places[0].phase,
        Phase::Ready(_)
    ));
    assert_eq!(manager.metrics().attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_while_the_manager_closes_is_closed() {
    let peer = Peer::new();
    let manager = builder(&peer).build().unwrap();
    manager.close();
    let (late, _peer) = pair();
    let refused = manager.replace(late.clone());
    assert!(matches!(refused, Err(ManageError::ShuttingDown)));
    assert!(late.state().reason().is_some());
    manager.closed().await;
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_sockets_and_in_the_middle_of_an_attempt_it_ends_it() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let session = manager.session().await.unwrap();
    manager.close();
    manager.closed().await;
    assert!(session.state().end().is_some());

    peer.never_answers();
    let manager = start(builder(&peer));
    sleep(secs(1)).await;
    let at = Instant::now();
    manager.close();
    manager.closed().await;
    assert_eq!(at.elapsed(), secs(0));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_manager_and_so_does_its_task() {
    let peer = Peer::new();
    let manager = builder(&peer).build().unwrap();
    let running = tokio::spawn(manager.start().unwrap());
    manager.session().await.unwrap();
    drop(manager);
    running.await.unwrap().unwrap();

    let manager = builder(&peer).build().unwrap();
    let running = tokio::spawn(manager.start().unwrap());
    manager.session().await.unwrap();
    running.abort();
    let _ = running.await;
    assert!(matches!(
        manager.session().await,
        Err(ManageError::ShuttingDown)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_calls_again_takes_the_place_of_its_old_session() {
    let peer = Peer::new();
    peer.calls_us();
    let manager = start(builder(&peer));
    let mut events = manager.subscribe();
    peer.calls();
    let old = manager.session().await.unwrap();
    ready(&mut events).await;
    peer.calls();
    ready(&mut events).await;
    assert!(matches!(old.state().reason(), Some(SessionError::Closed)));
    manager.try_session_or_else(|| ()).unwrap();
}
