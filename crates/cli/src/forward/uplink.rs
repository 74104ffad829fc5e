//! The session to `serve`: connected at the start, and again whenever it is lost.

use std::time::Duration;

use ringmux::manage::{Dial, Event, Events, ManageError, Manager, ProvideError};
use ringmux::{Addr, Chain, Config, Engine, OpenError, RecvStream, SendStream, SessionError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connect;
use crate::tunnel::Endpoint;
use crate::waiting::Waiting;
use ringmux_measure::failure::{Failure, reworded};

/// How long the end of the session may take.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Keeps a session to one address.
#[derive(Debug)]
pub(super) struct Uplink {
    manager: Manager,
    keeper: JoinHandle<Result<(), ManageError>>,
}

/// Opens streams on the current session.
#[derive(Clone, Debug)]
pub(super) struct UplinkHandle(Manager);

const PERMITS: &str = "`ringmux serve` permits no further connection, and none has ended";

/// Why there is no stream for a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoStream {
    #[error("no session within {0:?}")]
    NoSession(Duration),
    #[error("{permits} within {0:?}: see its --max-connections", permits = PERMITS)]
    NoPlace(Duration),
    #[error("{}", Chain(.0))]
    Unmanaged(ManageError),
    #[error("{}", Chain(.0))]
    Refused(OpenError),
}

impl Uplink {
    /// Connects. Without `retry`, a failure of the first attempt is returned, as the address may be wrong; with `retry` it
    /// returns before the first attempt, and retries for ever.
    pub(super) async fn start(
        engine: Engine,
        via: Addr,
        config: Config,
        retry: bool,
    ) -> Result<Self, Failure> {
        let first = if retry {
            None
        } else {
            let first = connect::connect(&engine, &via, &config, "`ringmux serve`").await?;
            tracing::info!(%via, driver = %first.driver(), "connected");
            Some(first)
        };
        let built = Manager::builder(Dial::new(engine, via.clone(), config)).build();
        let unmanaged = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(format!("cannot keep a session to {via}")).because(error)
        };
        let manager = built.map_err(|error| unmanaged(&error))?;
        let waiting = first.is_none().then(|| Waiting::on(&via));
        if let Some(first) = first {
            manager.replace(first).map_err(|error| unmanaged(&error))?;
        }
        tokio::spawn(tell(manager.subscribe(), via.clone(), waiting));
        let keeper = manager.start().map_err(|error| unmanaged(&error))?;
        Ok(Self {
            keeper: tokio::spawn(keeper),
            manager,
        })
    }

    pub(super) fn handle(&self) -> UplinkHandle {
        UplinkHandle(self.manager.clone())
    }

    /// Publishes the session's metrics.
    pub(super) fn watch_in(&self, endpoint: &Endpoint) {
        endpoint.watch("uplink", &self.manager);
    }

    /// Ends the session in order.
    pub(super) async fn close(self) {
        self.manager.close();
        // A server that does not close in time is not waited for.
        let _ = timeout(CLOSE_TIME, self.keeper).await;
    }
}

impl UplinkHandle {
    /// Opens a stream, waiting for a session and for the server's permission at most for `wait`.
    pub(super) async fn open(
        &self,
        target: &str,
        wait: Duration,
    ) -> Result<(SendStream, RecvStream), NoStream> {
        // There is a session, but the server grants no further stream.
        let mut full = false;
        let opening = async {
            loop {
                let session = self.0.session().await.map_err(NoStream::Unmanaged)?;
                full = true;
                match session.open(target.to_owned()).await {
                    // The server has seen nothing: the next session may succeed.
                    Err(OpenError::Session(_)) => full = false,
                    result => return result.map_err(NoStream::Refused),
                }
            }
        };
        let opened = timeout(wait, opening).await;
        opened.unwrap_or_else(|_| {
            Err(if full {
                NoStream::NoPlace(wait)
            } else {
                NoStream::NoSession(wait)
            })
        })
    }
}

/// Logs the session's events, until the end. `waiting`: for the first session.
async fn tell(mut events: Events, via: Addr, mut waiting: Option<Waiting>) {
    loop {
        let event = match &mut waiting {
            Some(waiting) => waiting.during(events.next()).await,
            None => events.next().await,
        };
        let Some(event) = event else { return };
        match event {
            Event::Ready { .. } if waiting.take().is_some() => tracing::info!(%via, "connected"),
            Event::Ready { .. } => tracing::warn!(%via, "connected again"),
            // Closed by this program.
            Event::Lost {
                reason: SessionError::Closed,
                ..
            } => {}
            Event::Lost { reason, .. } => {
                tracing::warn!(%via, reason = %Chain(&reason), "session lost, connecting again");
            }
            Event::Reconnecting {
                error: Some(error), ..
            } => match &mut waiting {
                Some(waiting) => waiting.failed(reason(&error)),
                None => tracing::info!(error = %Chain(&*error), "no session yet, trying again"),
            },
            _ => {}
        }
    }
}

/// Why an attempt failed, without the address.
fn reason(error: &ProvideError) -> String {
    match error {
        ProvideError::Connect(error) => connect::reason(error),
        error => reworded(error),
    }
}
