//! Events of a manager's sessions, for subscribers.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::errors::ProvideError;
use super::panics::catch;
use crate::error::SessionError;
use crate::sync::Arc;

/// An event of a manager.
///
/// Events of one place come in order, with one exception: if one thread closes or replaces a session that another has just
/// installed, their events may be swapped; `number` identifies the session. An event may be out of date when it is
/// received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A session is ready.
    Ready {
        /// The index of the place among the manager's sessions, from 0.
        place: usize,
        /// The serial number of the session in this manager, from 1.
        number: u64,
    },
    /// A ready session takes no more streams.
    Lost {
        /// The index of the place among the manager's sessions, from 0.
        place: usize,
        /// The serial number of the session in this manager, from 1.
        number: u64,
        /// The reason.
        reason: SessionError,
    },
    /// A pause before the next attempt begins.
    Reconnecting {
        /// The index of the place among the manager's sessions, from 0.
        place: usize,
        /// Consecutive failures and losses since the last proven session, this one included.
        failures: u32,
        /// The time until the next attempt; shorter if a caller waits, see
        /// [`wanted_pause`](super::ManagerBuilder::wanted_pause).
        pause: Duration,
        /// Why the last attempt failed; `None` if a session was lost.
        error: Option<Arc<ProvideError>>,
    },
    /// The subscriber was so far behind that the oldest events were dropped.
    Missed {
        /// The number of dropped events.
        events: u64,
    },
    /// The manager was closed. The last event.
    Closed,
}

/// A subscription. From [`Manager::subscribe`](super::Manager::subscribe).
///
/// A subscriber that is more than [`events_kept`](super::ManagerBuilder::events_kept) behind gets the number of missed
/// events, then the oldest one kept; it never blocks the manager.
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
    /// A subscription to a closed manager may get no more events, not even [`Event::Closed`].
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

/// Sends events to all subscribers. Sending takes tokio's lock for a moment, but never in a caller that asks for a session:
/// only keepers send, and callers that close or replace.
#[derive(Debug)]
pub(super) struct Teller(broadcast::Sender<Event>);

impl Teller {
    pub(super) fn new(kept: u32) -> Self {
        Self(broadcast::Sender::new(kept as usize))
    }

    pub(super) fn tell(&self, event: Event) {
        // Fails only without subscribers. It may drop the last event that has an error of the application's.
        let _ = catch(|| self.0.send(event));
    }

    pub(super) fn subscribe(&self) -> Events {
        Events {
            receiver: self.0.subscribe(),
            ended: false,
        }
    }
}
