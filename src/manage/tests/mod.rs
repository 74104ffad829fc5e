//! Managers over an in-memory peer, on a paused clock that advances when all tasks are idle. Independent of the machine's
//! speed; the pauses come from a seed.

mod callers;
mod life;
mod outbox;
mod pace;
mod panics;
mod peer;
mod race;
mod runtimes;

use std::time::Duration;

use self::peer::Peer;
use super::{Event, Events, Manager, ManagerBuilder};

fn builder(peer: &Peer) -> ManagerBuilder {
    Manager::builder(peer.clone()).seed(1)
}

/// Builds and starts a manager.
fn start(builder: ManagerBuilder) -> Manager {
    let manager = builder.build().unwrap();
    tokio::spawn(manager.start().unwrap());
    manager
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The next event that matches `wanted`.
async fn next_of(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.next().await.expect("the manager lives");
        if wanted(&event) {
            return event;
        }
    }
}

async fn lost(events: &mut Events) {
    next_of(events, |event| matches!(event, Event::Lost { .. })).await;
}

async fn ready(events: &mut Events) {
    next_of(events, |event| matches!(event, Event::Ready { .. })).await;
}
