//! Timing of attempts.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::peer::Peer;
use super::{builder, lost, millis, ready, secs, start};
use crate::manage::{Manager, WAITING_PAUSE_MAX};

/// The pauses between attempts.
fn pauses(peer: &Peer) -> Vec<Duration> {
    let attempts = peer.attempts();
    attempts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Whether the pauses are 100 ms × 1.6 ± 20 %, at most 30 s. Tokio's timers are good to a millisecond.
fn assert_backed_off(pauses: &[Duration]) {
    let mut base = 0.1_f64;
    for (n, pause) in pauses.iter().enumerate() {
        let pause = pause.as_secs_f64();
        let (least, most) = (base * 0.8 - 0.001, (base * 1.2).min(30.0) + 0.002);
        assert!(
            (least..=most).contains(&pause),
            "pause {n} is {pause}, base {base}"
        );
        base = (base * 1.6).min(25.0);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_at_a_peer_that_is_away_back_off_to_half_a_minute() {
    let peer = Peer::new();
    peer.goes_away();
    let manager = start(builder(&peer));
    sleep(secs(3600)).await;
    let pauses = pauses(&peer);
    assert_backed_off(&pauses);
    assert!(
        (120..180).contains(&pauses.len()),
        "{} in an hour",
        pauses.len()
    );
    let metrics = manager.metrics();
    assert_eq!((metrics.ready, metrics.failures), (0, metrics.attempts));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_a_session_and_drops_it_at_once_is_approached_no_faster() {
    let peer = Peer::new();
    peer.hangs_up_always();
    let _manager = start(builder(&peer));
    sleep(secs(600)).await;
    assert_backed_off(&pauses(&peer));
    assert!(peer.attempts().len() > 20);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_and_counts_as_failed() {
    let peer = Peer::new();
    peer.never_answers();
    let manager = start(builder(&peer).attempt_timeout(secs(3)));
    sleep(secs(4)).await;
    assert_eq!(manager.metrics().failures, 1);
    let said = manager.describe().to_string();
    assert!(said.contains("no connection within 3s"), "{said}");
}

/// The pause after a session of length `life` that followed many failures.
async fn pause_after(peer: &Peer, life: Duration) -> Duration {
    peer.goes_away();
    let manager = start(builder(peer));
    let mut events = manager.subscribe();
    sleep(secs(20)).await;
    peer.comes_back();
    ready(&mut events).await;
    sleep(life).await;
    let before = peer.attempts().len();
    peer.hangs_up_once();
    lost(&mut events).await;
    let at = Instant::now();
    ready(&mut events).await;
    assert_eq!(peer.attempts().len(), before + 1);
    at.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_session_of_less_than_ten_seconds_does_not_reset_the_pace() {
    let pause = pause_after(&Peer::new(), millis(9_900)).await;
    assert!(pause > secs(5), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_of_more_than_ten_seconds_that_answered_a_ping_resets_the_pace() {
    let pause = pause_after(&Peer::new(), millis(10_100)).await;
    assert!(pause < millis(123), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_answers_no_ping_does_not_reset_the_pace() {
    let peer = Peer::new();
    peer.is_silent();
    let pause = pause_after(&peer, secs(60)).await;
    assert!(pause > secs(5), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_this_side_closes_after_some_time_is_no_failure() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let mut events = manager.subscribe();
    ready(&mut events).await;
    // The last one after so short a time that a loop of them has to be slowed down.
    for (life, paused) in [(150, false), (150, false), (150, false), (5, true)] {
        sleep(millis(life)).await;
        let at = Instant::now();
        manager.try_session_or_else(|| ()).unwrap().close();
        lost(&mut events).await;
        ready(&mut events).await;
        let pause = at.elapsed();
        assert_eq!(pause >= millis(79), paused, "{pause:?} after {life} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_and_reconnecting_knows_no_pause_and_cuts_one_short() {
    let peer = Peer::new();
    let manager = start(builder(&peer));
    let mut events = manager.subscribe();
    let old = manager.session().await.unwrap();
    let at = Instant::now();
    manager.close_and_reconnect();
    assert!(old.state().reason().is_some());
    lost(&mut events).await;
    let new = manager.session().await.unwrap();
    assert!(new.state().reason().is_none());
    assert_eq!(at.elapsed(), Duration::ZERO);

    peer.goes_away();
    sleep(secs(300)).await;
    peer.comes_back();
    let at = Instant::now();
    manager.close_and_reconnect();
    manager.session().await.unwrap();
    assert_eq!(at.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_calls_us_is_never_kept_waiting_for_more_than_a_second() {
    let peer = Peer::new();
    peer.calls_us();
    peer.hangs_up_always();
    let manager = start(builder(&peer));
    let mut events = manager.subscribe();
    for _ in 0..20 {
        peer.calls();
        ready(&mut events).await;
        lost(&mut events).await;
        sleep(WAITING_PAUSE_MAX + millis(2)).await;
    }
    let pauses = pauses(&peer);
    assert!(
        pauses
            .iter()
            .all(|pause| *pause <= WAITING_PAUSE_MAX + millis(3)),
        "{pauses:?}"
    );
}

/// Attempts of 200 managers per slice of time, after an outage of length `away`.
async fn arrivals(away: Duration, slice: Duration) -> BTreeMap<u128, usize> {
    let peer = Peer::new();
    let managers: Vec<Manager> = (0..200_u64)
        .map(|seed| start(Manager::builder(peer.clone()).seed(seed * 1_000)))
        .collect();
    for manager in &managers {
        manager.session().await.unwrap();
    }
    // All sessions are proven.
    sleep(secs(60)).await;
    let mut events: Vec<_> = managers.iter().map(Manager::subscribe).collect();
    peer.goes_away();
    let back = Instant::now() + away;
    sleep_until(back).await;
    peer.comes_back();
    for events in &mut events {
        ready(events).await;
    }
    let mut slices = BTreeMap::new();
    for attempt in peer.attempts().iter().filter(|attempt| **attempt >= back) {
        *slices
            .entry((*attempt - back).as_nanos() / slice.as_nanos())
            .or_default() += 1;
    }
    slices
}

#[tokio::test(start_paused = true)]
async fn two_hundred_clients_do_not_come_back_in_one_burst() {
    for (away, slice, most) in [
        // No outage: the first pause of each, 80 to 120 ms, in slices of a millisecond.
        (Duration::ZERO, millis(1), 20),
        (secs(1), millis(10), 20),
        (secs(10), millis(100), 20),
        (secs(120), millis(1000), 30),
    ] {
        let slices = arrivals(away, slice).await;
        let all: usize = slices.values().sum();
        let busiest = slices.values().max().copied().unwrap_or_default();
        println!("away for {away:?}: {all} attempts, in slices of {slice:?} {slices:?}");
        assert!(all >= 200);
        assert!(
            busiest <= most,
            "{busiest} of {all} in {slice:?}, away for {away:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_few_seconds_is_over_two_seconds_after_it_ends() {
    for away in [0, 100, 500, 1_000, 2_000, 3_000] {
        let slices = arrivals(millis(away), millis(1)).await;
        let last = slices.keys().max().unwrap();
        assert!(*last <= 2_000, "{last} ms after an outage of {away} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_has_a_session_within_two_seconds_of_the_return_however_long_the_peer_was_away() {
    for away in [1, 10, 100, 1000, 10_000] {
        let peer = Peer::new();
        peer.goes_away();
        let manager = start(builder(&peer));
        let waiting = tokio::spawn({
            let manager = manager.clone();
            async move { manager.session().await.map(drop) }
        });
        sleep(secs(away)).await;
        peer.comes_back();
        let back = Instant::now();
        waiting.await.unwrap().unwrap();
        let took = back.elapsed();
        assert!(took <= millis(1501), "{took:?} after {away} s");
        // The first few follow faster, afterwards at least a second apart.
        let attempts = peer.attempts().len();
        assert!(
            attempts <= 8 + away as usize,
            "{attempts} attempts in {away} s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_comes_in_a_long_pause_ends_it_and_when_it_goes_the_next_one_is_long_again() {
    let peer = Peer::new();
    peer.goes_away();
    let manager = start(builder(&peer));
    sleep(secs(3600)).await;
    let attempts = || peer.attempts().len();
    let last = || *peer.attempts().last().unwrap();
    // At the beginning of a long pause.
    let before = attempts();
    while attempts() == before {
        sleep(millis(100)).await;
    }
    sleep_until(last() + secs(5)).await;
    let begun = attempts();
    assert!(manager.session_within(millis(10)).await.is_err());
    assert_eq!(attempts(), begun + 1, "the caller was reason enough");
    sleep(secs(15)).await;
    assert_eq!(attempts(), begun + 1, "no caller waits any more");

    peer.comes_back();
    let back = Instant::now();
    manager.session().await.unwrap();
    assert!(back.elapsed() <= millis(2), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clients_of_one_peer_come_back_spread_out() {
    const CLIENTS: usize = 1000;
    let peer = Peer::new();
    let waiting = (0..CLIENTS as u64).map(|n| {
        let manager = start(Manager::builder(peer.clone()).seed(n));
        tokio::spawn(async move {
            let lost = manager.session().await.unwrap();
            lost.draining().await;
            manager.session().await.unwrap();
            Instant::now()
        })
    });
    let waiting: Vec<_> = waiting.collect();
    sleep(secs(1)).await;
    peer.goes_away();
    sleep(secs(10)).await;
    peer.comes_back();
    let back = Instant::now();
    let mut histogram = BTreeMap::new();
    for time in waiting {
        let after = time.await.unwrap() - back;
        assert!(after <= millis(1501), "{after:?}");
        *histogram.entry(after.as_millis() / 100).or_insert(0) += 1;
    }
    let most = histogram.values().max().unwrap();
    assert!(
        most * 100 <= CLIENTS * 15,
        "in steps of 100 ms: {histogram:?}"
    );
}
