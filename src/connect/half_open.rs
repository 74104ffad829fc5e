//! The connections of a listener that have no session yet: in their handshake, or waiting for `accept`.
//!
//! Each holds a permit. When none is left accepting pauses, and new connections wait in the kernel's backlog; a handshake
//! that ends makes room at once. One that has not ended within `min_half_open_time` of such pauses is evicted, the oldest
//! first, one for each new connection. So an honest peer has that time at least, in a burst of any size. A newcomer behind
//! silent peers, all of which may return at once, waits that time once for those that have the places, and once more for
//! each `max_half_open` of those before it in the backlog. Connections that have completed their handshake and wait for
//! the application are never evicted.

use std::collections::VecDeque;
use std::sync::{Arc as StdArc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::Level;

use crate::bridge::{SessionLink, request};
use crate::config::Config;
use crate::driver::clock;
use crate::pace::paced;
use crate::sync::Arc;

/// Longest wait of a pause between two looks. A look that is later than twice this counts as twice this: a thread that did
/// not run has served no handshake either.
const LOOK: Duration = Duration::from_millis(10);

/// Entries listed beyond twice the handshakes under way: each keeps the memory of a session's link, of some 3 KiB.
const PRUNE_SLACK: usize = 16;

/// See the module. Owned by the task that accepts.
#[derive(Debug)]
pub(super) struct HalfOpen {
    permits: StdArc<Semaphore>,
    /// How long accepting is paused before a handshake that began before is evicted.
    min_time: Duration,
    /// Begun handshakes, oldest first; some may be complete.
    begun: VecDeque<(Begun, Since)>,
    /// How long accepting was paused, since the listener began.
    paused: Duration,
    /// The last look of a pause that has not ended.
    looked: Option<Instant>,
    /// List length at which complete ones are removed.
    prune_at: usize,
}

/// The total of pauses when a connection was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since(Duration);

/// A connection in its handshake.
#[derive(Debug)]
enum Begun {
    Session(Weak<SessionLink>),
    /// Its wire is not known yet.
    Detecting(AbortHandle),
}

impl Begun {
    fn is_half_open(&self) -> bool {
        match self {
            Self::Session(link) => link.upgrade().is_some_and(|link| is_half_open(&link)),
            Self::Detecting(task) => !task.is_finished(),
        }
    }

    fn evict(&self) {
        match self {
            Self::Session(link) => {
                if let Some(link) = link.upgrade() {
                    link.request(request::EVICT);
                }
            }
            Self::Detecting(task) => {
                paced!(
                    Level::INFO,
                    "a connection was evicted before its wire was known: max_half_open have no session yet"
                );
                task.abort();
            }
        }
    }
}

impl HalfOpen {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            permits: StdArc::new(Semaphore::new(config.max_half_open() as usize)),
            min_time: config.min_half_open_time(),
            begun: VecDeque::new(),
            paused: Duration::ZERO,
            looked: None,
            prune_at: PRUNE_SLACK,
        }
    }

    /// Waits for a place, in the end by evicting the oldest handshake. Never `None`: the semaphore is not closed. Dropped
    /// before, it loses nothing.
    pub(super) async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = StdArc::clone(&self.permits).try_acquire_owned() {
                self.end_pause();
                return Some(permit);
            }
            let Some(since) = self.oldest() else {
                // All connections wait for the application.
                self.looked = None;
                return StdArc::clone(&self.permits).acquire_owned().await.ok();
            };
            self.look();
            let mut left = self.min_time.saturating_sub(self.paused - since.0);
            if left.is_zero() {
                if let Some((oldest, _)) = self.begun.pop_front() {
                    oldest.evict();
                }
                left = LOOK;
            }
            // Until the evicted one's place is free, or that of another which has ended meanwhile.
            let free = StdArc::clone(&self.permits).acquire_owned();
            if let Ok(permit) = timeout(left.min(LOOK), free).await {
                self.end_pause();
                return permit.ok();
            }
        }
    }

    /// Counts the time since the last look of this pause.
    fn look(&mut self) {
        let now = clock::now();
        if let Some(last) = self.looked.replace(now) {
            self.paused += now.saturating_duration_since(last).min(2 * LOOK);
        }
    }

    fn end_pause(&mut self) {
        if self.looked.is_some() {
            self.look();
            self.looked = None;
        }
    }

    /// What a connection that is accepted now has before it.
    pub(super) const fn now(&self) -> Since {
        Since(self.paused)
    }

    /// Registers a connection that begins its handshake.
    pub(super) fn begin(&mut self, link: &Arc<SessionLink>, since: Since) {
        self.register(Begun::Session(Arc::downgrade(link)), since);
    }

    /// The same of one whose wire is not known yet.
    pub(super) fn begin_detecting(&mut self, task: AbortHandle, since: Since) {
        self.register(Begun::Detecting(task), since);
    }

    fn register(&mut self, begun: Begun, since: Since) {
        if self.begun.len() >= self.prune_at {
            self.begun.retain(|(begun, _)| begun.is_half_open());
            self.prune_at = 2 * self.begun.len() + PRUNE_SLACK;
        }
        // Later ones may be listed already if its wire was not known at once.
        let at = self.begun.partition_point(|(_, other)| *other <= since);
        self.begun.insert(at, (begun, since));
    }

    /// When the oldest handshake under way has begun: the first of the list.
    fn oldest(&mut self) -> Option<Since> {
        while let Some((begun, since)) = self.begun.front() {
            if begun.is_half_open() {
                return Some(*since);
            }
            self.begun.pop_front();
        }
        None
    }
}

fn is_half_open(link: &SessionLink) -> bool {
    !link.is_established() && link.end().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Limit, SessionError};
    use crate::handle::Session;

    const TIME: Duration = Duration::from_millis(250);

    fn places(max: u32) -> HalfOpen {
        let config = Config::builder()
            .max_half_open(max)
            .min_half_open_time(TIME);
        HalfOpen::new(&config.build().unwrap())
    }

    /// A session that holds its place until it has ended, and its peer.
    async fn enter(places: &mut HalfOpen) -> (Session, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let permit = places.place().await.unwrap();
        let (session, connection) = crate::server(ours, &Config::default());
        tokio::spawn(connection);
        let held = session.clone();
        tokio::spawn(async move {
            if held.established().await.is_ok() {
                held.closed().await;
            }
            drop(permit);
        });
        places.begin(session.link(), places.now());
        (session, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_silent_longest_makes_place_for_who_comes() {
        let mut places = places(3);
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(enter(&mut places).await);
        }
        for (n, (session, _peer)) in all.iter().enumerate() {
            match session.state().end() {
                Some(SessionError::LimitExceeded(error)) => {
                    assert!(n < 97 && error.limit == Limit::HalfOpen, "{n}: {error}");
                }
                None => assert!(n >= 97, "{n} was not given up"),
                Some(other) => panic!("{n}: {other}"),
            }
        }
    }

    /// How long it takes to get a place.
    async fn waited(places: &mut HalfOpen) -> Duration {
        let begun = clock::now();
        assert!(places.place().await.is_some());
        clock::now() - begun
    }

    fn is_over(session: &Session) -> bool {
        session.state().end().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_its_time_before_it_is_evicted_and_one_for_each_newcomer() {
        let mut places = places(2);
        let old = [enter(&mut places).await, enter(&mut places).await];
        // Until now no newcomer needed their places.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(timeout(TIME - LOOK, places.place()).await.is_err());
        assert!(!old.iter().any(|(session, _)| is_over(session)));
        let rest = waited(&mut places).await;
        assert!(rest <= 2 * LOOK, "{rest:?}");
        assert_eq!(
            old.each_ref().map(|(session, _)| is_over(session)),
            [true, false]
        );
    }

    /// By the defaults of both profiles: all places are taken by handshakes, and one more connection waits.
    #[tokio::test(start_paused = true)]
    async fn by_default_a_handshake_has_a_second_of_a_pause_and_at_the_edge_a_quarter() {
        for (config, time) in [
            (Config::default(), Duration::from_secs(1)),
            (Config::edge().build().unwrap(), TIME),
        ] {
            let mut places = HalfOpen::new(&config);
            let mut all = Vec::new();
            for _ in 0..config.max_half_open() {
                all.push(enter(&mut places).await);
            }
            let young = timeout(time - LOOK, places.place()).await;
            assert!(young.is_err(), "after less than {time:?}");
            assert!(!all.iter().any(|(session, _)| is_over(session)), "{time:?}");
            let rest = waited(&mut places).await;
            assert!(rest <= 2 * LOOK, "{time:?} and {rest:?}");
            let over = all.iter().filter(|(session, _)| is_over(session));
            assert_eq!((over.count(), is_over(&all[0].0)), (1, true), "{time:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_behind_a_full_backlog_of_silent_ones_waits_five_times_that() {
        let mut places = places(256);
        let begun = clock::now();
        let mut silent = Vec::new();
        for _ in 0..256 + 1024 {
            silent.push(enter(&mut places).await);
        }
        assert!(places.place().await.is_some());
        let waited = clock::now() - begun;
        assert!((5 * TIME..6 * TIME).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_ends_makes_room_at_once() {
        let mut places = places(3);
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(enter(&mut places).await);
        }
        let (gone, peer) = all.pop().unwrap();
        drop(peer);
        gone.closed().await;
        let waited = waited(&mut places).await;
        assert!(waited < LOOK, "{waited:?}");
        assert!(!all.iter().any(|(session, _)| is_over(session)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_thread_did_not_run_does_not_count() {
        let mut places = places(1);
        let old = enter(&mut places).await;
        for _ in 0..10 {
            // The clock moves on by more than that time between two polls.
            let mut waiting = std::pin::pin!(places.place());
            let polled =
                std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx)));
            assert!(polled.await.is_pending());
            tokio::time::advance(Duration::from_millis(300)).await;
        }
        assert!(!is_over(&old.0));
        assert!(waited(&mut places).await <= TIME);
        assert!(is_over(&old.0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_done_with_the_handshake_keeps_its_place() {
        let mut places = places(2);
        let mut all = Vec::new();
        for _ in 0..2 {
            let (session, peer) = enter(&mut places).await;
            let (client, connection) = crate::client(peer, &Config::default());
            tokio::spawn(connection);
            session.established().await.unwrap();
            all.push((session, client));
        }
        let minute = Duration::from_secs(60);
        assert!(timeout(minute, places.place()).await.is_err());
        assert!(
            all.iter()
                .all(|(session, _)| session.state().end().is_none())
        );
        // Until one of them is dropped.
        all.pop();
        assert!(timeout(minute, places.place()).await.is_ok());
    }

    #[tokio::test]
    async fn those_that_have_gone_are_forgotten_however_many_places_there_are() {
        for max in [4, 256] {
            let mut places = places(max);
            for _ in 0..200 {
                let (session, peer) = enter(&mut places).await;
                drop(peer);
                session.closed().await;
                let listed = places.begun.len();
                assert!(listed <= PRUNE_SLACK + 1, "{listed} of {max}");
            }
        }
    }
}
