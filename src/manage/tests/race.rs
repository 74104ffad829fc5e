//! Races between threads: each session ends once, and each message has one outcome.

use std::sync::{Barrier, Mutex};
use std::thread;

use tokio::sync::oneshot;

use super::peer::{Peer, pair};
use super::{builder, millis, secs};
use crate::handle::Session;
use crate::manage::{
    Event, ManageError, Manager, ManagerBuilder, Outbox, Outcome, ProvideError, Provider, PushError,
};

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
}

/// Real time passes here: the pauses are short.
fn quick(peer: &Peer) -> ManagerBuilder {
    builder(peer)
        .first_pause(millis(1))
        .longest_pause(millis(3))
}

#[test]
fn of_sessions_that_come_while_others_close_none_is_forgotten() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for _ in 0..200 {
        let manager = builder(&Peer::new()).build().unwrap();
        let made: Vec<_> = (0..3).map(|_| pair()).collect();
        let at_once = Barrier::new(made.len() + 2);
        thread::scope(|scope| {
            for (session, _) in &made {
                scope.spawn(|| {
                    at_once.wait();
                    let refused = manager.replace(session.clone());
                    assert!(matches!(refused, Ok(()) | Err(ManageError::ShuttingDown)));
                });
            }
            scope.spawn(|| {
                at_once.wait();
                manager.close_and_reconnect();
            });
            scope.spawn(|| {
                at_once.wait();
                manager.close();
            });
        });
        for (session, _) in &made {
            assert!(session.state().reason().is_some());
        }
        assert!(manager.try_session_or_else(|| ()).is_err());
        let metrics = manager.metrics();
        assert_eq!(metrics.ready, metrics.lost);
    }
}

/// Gives the session that it gets, once.
struct Given(Mutex<Option<oneshot::Receiver<Session>>>);

impl Provider for Given {
    async fn provide(&self) -> Result<Session, ProvideError> {
        let given = self.0.lock().unwrap().take();
        match given {
            Some(given) => given.await.map_err(|_| ProvideError::Other("none".into())),
            None => std::future::pending().await,
        }
    }

    fn describe(&self) -> String {
        "given".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_installed_by_hand_stays_though_an_attempt_succeeds_at_that_moment() {
    let (give, given) = oneshot::channel();
    let manager = Manager::builder(Given(Mutex::new(Some(given)))).build();
    let manager = manager.unwrap();
    tokio::spawn(manager.start().unwrap());
    let ((by_hand, _peer), (attempted, _other_peer)) = (pair(), pair());
    // The attempt is under way.
    tokio::time::sleep(millis(10)).await;
    manager.replace(by_hand.clone()).unwrap();
    give.send(attempted.clone()).unwrap();
    tokio::time::sleep(millis(10)).await;
    assert!(by_hand.state().reason().is_none());
    assert!(attempted.state().reason().is_some());
    assert!(manager.try_session_or_else(|| ()).is_ok());
    let metrics = manager.metrics();
    assert_eq!((metrics.ready, metrics.lost, metrics.failures), (1, 0, 0));
    assert_eq!(metrics.attempts, 2);
}

#[test]
fn each_caller_on_any_thread_gets_a_live_session_or_is_released() {
    let runtime = runtime();
    let peer = Peer::new();
    runtime.block_on(async {
        let manager = quick(&peer).sessions(3);
        let manager: Manager = manager.build().unwrap();
        tokio::spawn(manager.start().unwrap());
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let manager = manager.clone();
                tokio::spawn(async move {
                    let mut served = 0_u64;
                    while manager.session().await.is_ok() {
                        served += 1;
                        tokio::task::yield_now().await;
                    }
                    served
                })
            })
            .collect();
        let mut events = manager.subscribe();
        for _ in 0..100 {
            super::ready(&mut events).await;
            peer.hangs_up_once();
        }
        manager.close();
        let mut all = 0;
        for caller in callers {
            let served = tokio::time::timeout(secs(20), caller).await;
            all += served.expect("all callers are released").unwrap();
        }
        assert_eq!(manager.metrics().served, all);
        while !matches!(events.next().await, Some(Event::Closed) | None) {}
    });
}

#[test]
fn each_message_has_one_outcome_while_the_peer_hangs_up_again_and_again() {
    let runtime = runtime();
    let peer = Peer::new();
    runtime.block_on(async {
        let manager = quick(&peer).build().unwrap();
        tokio::spawn(manager.start().unwrap());
        let outbox = Outbox::builder(manager.clone()).build().unwrap();
        tokio::spawn(outbox.start().unwrap());
        let pushing = thread::spawn({
            let outbox = outbox.clone();
            move || {
                let mut receipts = Vec::new();
                while receipts.len() < 5_000 {
                    match outbox.push("", "message") {
                        Ok(receipt) => receipts.push(receipt),
                        Err(PushError::Full { .. }) => thread::yield_now(),
                        Err(PushError::Closed { .. }) => panic!("it was not closed"),
                    }
                }
                receipts
            }
        });
        let mut events = manager.subscribe();
        for _ in 0..20 {
            peer.hangs_up_once();
            super::ready(&mut events).await;
        }
        let receipts = pushing.join().unwrap();
        let (mut finished, mut in_doubt) = (0, 0);
        for receipt in receipts {
            match tokio::time::timeout(secs(20), receipt).await.unwrap() {
                Outcome::Finished => finished += 1,
                Outcome::MayHaveSeen(_) => in_doubt += 1,
                other => panic!("{other:?}"),
            }
        }
        let stats = outbox.stats();
        assert_eq!((finished, in_doubt), (stats.finished, stats.in_doubt));
        assert_eq!((finished + in_doubt, stats.held), (5_000, 0));
    });
}
