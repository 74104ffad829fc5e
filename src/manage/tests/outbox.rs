//! Outcomes of messages.

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::peer::Peer;
use super::{builder, millis, secs, start};
use crate::manage::{Doubt, Dropped, Manager, Outbox, OutboxBuilder, Outcome, PushError, Receipt};
use crate::{OpenError, StreamError, codes};

/// Builds and starts an outbox.
fn post(builder: OutboxBuilder) -> Outbox {
    let outbox = builder.build().unwrap();
    tokio::spawn(outbox.start().unwrap());
    outbox
}

fn push(outbox: &Outbox, opening: &'static str) -> Receipt {
    outbox.push(opening, "message").unwrap()
}

fn away(peer: &Peer) -> Manager {
    peer.goes_away();
    start(builder(peer))
}

#[tokio::test(start_paused = true)]
async fn messages_pushed_while_the_peer_is_away_are_sent_when_it_is_back() {
    let peer = Peer::new();
    let manager = away(&peer);
    let outbox = post(Outbox::builder(manager.clone()));
    let receipts: Vec<Receipt> = (0..100).map(|_| push(&outbox, "")).collect();
    sleep(secs(10)).await;
    assert_eq!((outbox.stats().held, outbox.stats().held_bytes), (100, 700));
    peer.comes_back();
    for outcome in join_all(receipts).await {
        assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    }
    let stats = outbox.stats();
    assert_eq!((stats.held, stats.held_bytes, stats.finished), (0, 0, 100));
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_refuses_is_told_from_what_it_may_have_seen() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let outbox = post(Outbox::builder(manager.clone()));
    let failed = push(&outbox, "refuse").await;
    let Outcome::Refused(StreamError::Failed(failure)) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(failure.code, 7);
    let unwanted = push(&outbox, "unwanted").await;
    assert!(
        matches!(
            unwanted,
            Outcome::Refused(StreamError::Cancelled {
                code: codes::REFUSED,
                ..
            })
        ),
        "{unwanted:?}"
    );

    let kept = push(&outbox, "keep");
    sleep(secs(1)).await;
    peer.hangs_up_once();
    let outcome = kept.await;
    assert!(
        matches!(
            outcome,
            Outcome::MayHaveSeen(Doubt::Ended(StreamError::Session(_)))
        ),
        "{outcome:?}"
    );
    // It is not sent again; others are.
    assert!(matches!(push(&outbox, "").await, Outcome::Finished));
    let stats = outbox.stats();
    assert_eq!((stats.refused, stats.in_doubt, stats.finished), (2, 1, 1));
    assert_eq!((stats.held, stats.sent_again), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_peers_library_turns_away_is_sent_again_with_pauses_that_grow_until_it_is_too_old()
{
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let outbox = post(Outbox::builder(manager).keep_for(secs(60)));
    let at = Instant::now();
    let outcome = push(&outbox, "turned away").await;
    assert!(
        matches!(outcome, Outcome::Dropped(Dropped::TooOld(_))),
        "{outcome:?}"
    );
    assert!((secs(60)..secs(62)).contains(&at.elapsed()));
    let stats = outbox.stats();
    // 11 attempts until the pause reaches 1 s, then about one per second.
    assert!((60..90).contains(&stats.sent_again), "{stats:?}");
    assert_eq!((stats.refused, stats.dropped), (0, 1));
    // Other messages are not delayed.
    let turned_away = push(&outbox, "turned away");
    let at = Instant::now();
    assert!(matches!(push(&outbox, "").await, Outcome::Finished));
    assert_eq!(at.elapsed(), secs(0));
    drop(turned_away);
}

#[tokio::test(start_paused = true)]
async fn an_outbox_may_be_started_before_its_manager() {
    let manager = builder(&Peer::new()).build().unwrap();
    let outbox = post(Outbox::builder(manager.clone()));
    let receipt = push(&outbox, "");
    sleep(secs(5)).await;
    assert_eq!(outbox.stats().held, 1);
    tokio::spawn(manager.start().unwrap());
    assert!(matches!(receipt.await, Outcome::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_finish_in_time_leaves_doubt() {
    let manager = start(builder(&Peer::new()));
    let outbox = post(Outbox::builder(manager).finish_timeout(secs(5)));
    let at = Instant::now();
    let outcome = push(&outbox, "keep").await;
    assert!(
        matches!(outcome, Outcome::MayHaveSeen(Doubt::Late(_))),
        "{outcome:?}"
    );
    assert!((secs(5)..millis(5_010)).contains(&at.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn messages_that_get_too_old_are_dropped_also_those_behind_others() {
    let peer = Peer::new();
    let outbox = post(Outbox::builder(away(&peer)).at_once(1).keep_for(secs(20)));
    let at = Instant::now();
    let first: Vec<Receipt> = (0..3).map(|_| push(&outbox, "")).collect();
    sleep(secs(15)).await;
    let last = push(&outbox, "");
    for outcome in join_all(first).await {
        assert!(
            matches!(outcome, Outcome::Dropped(Dropped::TooOld(_))),
            "{outcome:?}"
        );
    }
    assert!((secs(20)..millis(20_010)).contains(&at.elapsed()));
    peer.comes_back();
    assert!(matches!(last.await, Outcome::Finished));
}

#[tokio::test(start_paused = true)]
async fn one_message_or_byte_too_many_comes_back_and_room_returns() {
    let peer = Peer::new();
    let manager = away(&peer);
    let outbox = post(
        Outbox::builder(manager.clone())
            .max_messages(2)
            .max_bytes(20),
    );
    let first = push(&outbox, "");
    let Err(PushError::Full {
        message,
        messages: 1,
        bytes: 7,
    }) = outbox.push("", "fourteen bytes")
    else {
        panic!("it took 21 bytes");
    };
    assert_eq!(message, "fourteen bytes");
    let second = push(&outbox, "");
    assert!(matches!(
        outbox.push("", ""),
        Err(PushError::Full { messages: 2, .. })
    ));
    peer.comes_back();
    assert!(matches!(first.await, Outcome::Finished));
    assert!(matches!(second.await, Outcome::Finished));
    assert!(matches!(
        outbox.push("", "fourteen bytes").unwrap().await,
        Outcome::Finished
    ));
}

#[tokio::test(start_paused = true)]
async fn closing_the_manager_ends_every_message_with_what_is_known() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let outbox = post(Outbox::builder(manager.clone()).at_once(1));
    let under_way = push(&outbox, "keep");
    let held = push(&outbox, "");
    sleep(millis(10)).await;
    manager.close();
    assert!(matches!(held.await, Outcome::Dropped(Dropped::Closed)));
    assert!(matches!(
        under_way.await,
        Outcome::MayHaveSeen(Doubt::Ended(_))
    ));
    assert!(matches!(outbox.push("", ""), Err(PushError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_task_and_of_the_handles_is_told_as_well() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let outbox = Outbox::builder(manager.clone()).at_once(1).build().unwrap();
    let running = tokio::spawn(outbox.start().unwrap());
    let under_way = push(&outbox, "keep");
    let held = push(&outbox, "");
    sleep(millis(10)).await;
    running.abort();
    assert!(matches!(
        under_way.await,
        Outcome::MayHaveSeen(Doubt::Stopped)
    ));
    assert!(matches!(held.await, Outcome::Dropped(Dropped::Closed)));
    assert!(matches!(outbox.push("", ""), Err(PushError::Closed { .. })));

    // Never started.
    let outbox = Outbox::builder(manager.clone()).build().unwrap();
    let held = push(&outbox, "");
    drop(outbox);
    assert!(matches!(held.await, Outcome::Dropped(Dropped::Closed)));

    // After the last handle is dropped, held messages are sent, and the task ends.
    let outbox = Outbox::builder(manager).build().unwrap();
    let held = push(&outbox, "");
    let running = tokio::spawn(outbox.start().unwrap());
    drop(outbox);
    assert!(matches!(held.await, Outcome::Finished));
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_sent_is_dropped_with_the_reason() {
    let manager = start(builder(&Peer::new()));
    let outbox = post(Outbox::builder(manager).max_bytes(16 << 20));
    let opening = outbox.push(vec![0; 9000], "").unwrap().await;
    assert!(
        matches!(
            opening,
            Outcome::Dropped(Dropped::Opening(OpenError::BlockTooLong { .. }))
        ),
        "{opening:?}"
    );
    let message = outbox.push("", vec![0; 5 << 20]).unwrap().await;
    assert!(
        matches!(message, Outcome::Dropped(Dropped::TooLong { .. })),
        "{message:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_keeps_the_order_over_a_lost_session() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let outbox = post(Outbox::builder(manager).at_once(1));
    let (told, mut order) = tokio::sync::mpsc::channel(100);
    for n in 0..50 {
        let (receipt, told) = (push(&outbox, ""), told.clone());
        tokio::spawn(async move {
            receipt.await;
            told.send(n).await.unwrap();
        });
        if n == 25 {
            peer.hangs_up_once();
        }
    }
    for n in 0..50 {
        assert_eq!(order.recv().await, Some(n));
    }
}
