//! What happens to a manager's sessions, told to whoever asks.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::errors::ProvideError;
use crate::error::SessionError;
use crate::sync::Arc;

/// Something that happened.
///
/// Events of one place come in the order in which things happened, except that of two threads, one of which
/// closes or replaces what the other has just made, either may tell first: `number` says which session is meant. An
/// event may tell of something that is over when it is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A session can be had.
    Ready {
        /// Which of the manager's sessions, from 0.
        place: usize,
        /// Counts the manager's sessions, from 1.
        number: u64,
    },
    /// A session that was ready takes no more streams.
    Lost {
        /// Which of the manager's sessions, from 0.
        place: usize,
        /// Counts the manager's sessions, from 1.
        number: u64,
        /// Why.
        reason: SessionError,
    },
    /// The next attempt comes after a pause.
    Reconnecting {
        /// Which of the manager's sessions, from 0.
        place: usize,
        /// Failures since a session proved itself, this one included.
        failures: u32,
        /// How long until the next attempt; less if a caller waits, see
        /// [`wanted_pause`](super::ManagerBuilder::wanted_pause).
        pause: Duration,
        /// Why the last attempt failed; `None` if a session was lost.
        error: Option<Arc<ProvideError>>,
    },
    /// The subscriber was so far behind that the oldest events were dropped.
    Missed {
        /// How many.
        events: u64,
    },
    /// The manager has been closed. Nothing follows.
    Closed,
}

/// A subscription. From [`Manager::subscribe`](super::Manager::subscribe).
///
/// A subscriber that is more than [`events_kept`](super::ManagerBuilder::events_kept) behind is told how many it
/// missed, and goes on with the oldest that is kept; it delays nobody.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::manage::{Dial, Event, Manager};
/// use ringmux::{Config, Engine};
///
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let dial = Dial::new(Engine::auto()?, listener.local_addr().clone(), Config::default());
/// let manager = Manager::builder(dial).build()?;
/// let mut events = manager.subscribe();
/// tokio::spawn(manager.start()?);
/// assert!(matches!(events.next().await, Some(Event::Ready { number: 1, .. })));
///
/// listener.accept().await?.close();
/// assert!(matches!(events.next().await, Some(Event::Lost { number: 1, .. })));
/// assert!(matches!(events.next().await, Some(Event::Reconnecting { failures: 1, .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    ended: bool,
}

impl Events {
    /// Of a manager that has been closed nothing may come any more, not even that.
    pub(super) fn unless_ended(mut self, ended: bool) -> Self {
        self.ended = ended;
        self
    }

    /// Waits for the next event; `None` after [`Event::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = match self.receiver.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(events)) => Event::Missed { events },
            Err(RecvError::Closed) => Event::Closed,
        };
        self.ended = matches!(event, Event::Closed);
        Some(event)
    }
}

/// Tells every subscriber. Sending takes tokio's lock for a moment, which no caller of a session does:
/// only the keepers tell, and whoever closes or replaces.
#[derive(Debug)]
pub(super) struct Teller(broadcast::Sender<Event>);

impl Teller {
    pub(super) fn new(kept: u32) -> Self {
        Self(broadcast::Sender::new(kept as usize))
    }

    pub(super) fn tell(&self, event: Event) {
        // Nobody needs to listen.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> Events {
        Events {
            receiver: self.0.subscribe(),
            ended: false,
        }
    }
}
