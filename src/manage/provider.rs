//! Where sessions come from.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::errors::ProvideError;
use crate::addr::Addr;
use crate::config::Config;
use crate::connect::Engine;
use crate::handle::Session;

/// How to have a session with the peer: one attempt at a time for each place of the manager.
///
/// [`Dial`] and [`Accept`](super::Accept) are two; an application writes its own to connect through
/// TLS, or to ask a registry for the address first.
///
/// # Examples
/// ```
/// use ringmux::manage::{ProvideError, Provider};
/// use ringmux::{Config, Session};
///
/// struct InMemory;
///
/// impl Provider for InMemory {
///     async fn provide(&self) -> Result<Session, ProvideError> {
///         let (a, b) = tokio::io::duplex(4096);
///         let (client, connection) = ringmux::client(a, &Config::default());
///         tokio::spawn(connection);
///         let (server, connection) = ringmux::server(b, &Config::default());
///         tokio::spawn(connection);
///         tokio::spawn(async move { while let Ok(Some(_)) = server.accept().await {} });
///         client.established().await.map_err(ProvideError::Ended)?;
///         Ok(client)
///     }
///
///     fn describe(&self) -> String {
///         "a pipe".to_owned()
///     }
/// }
/// # let _ = InMemory.describe();
/// ```
pub trait Provider: Send + Sync + 'static {
    /// One attempt: a session whose handshake is done.
    ///
    /// # Errors
    /// Why the attempt failed. The next one comes after a pause, whatever the reason.
    ///
    /// # Cancel safety
    /// The future is dropped when the attempt takes too long, the manager closes, or a session comes
    /// from elsewhere; what it had begun must end with it.
    fn provide(&self) -> impl Future<Output = Result<Session, ProvideError>> + Send;

    /// What it is, for people.
    fn describe(&self) -> String;

    /// Whether [`provide`](Self::provide) waits for the peer rather than calls it.
    ///
    /// Then there is no limit to how long it may take; the manager never pauses for more than
    /// [`WAITING_PAUSE_MAX`](super::WAITING_PAUSE_MAX), as it is the peer that backs off; and, of a
    /// manager of one session, a session that comes while another lives takes its place, since the
    /// peer knows before we do that the old one is lost. Default false.
    fn waits_for_peer(&self) -> bool {
        false
    }
}

/// Connects to an address.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::manage::{Dial, Manager};
/// use ringmux::{Config, Engine};
///
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let dial = Dial::new(Engine::auto()?, listener.local_addr().clone(), Config::default());
/// let manager = Manager::builder(dial).build()?;
/// tokio::spawn(manager.start()?);
/// let session = manager.session().await?;
/// assert!(session.state().reason().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dial {
    engine: Engine,
    addr: Addr,
    config: Config,
}

impl Dial {
    /// Sessions to `addr`, run by `engine`.
    #[must_use]
    pub const fn new(engine: Engine, addr: Addr, config: Config) -> Self {
        Self {
            engine,
            addr,
            config,
        }
    }
}

impl Provider for Dial {
    async fn provide(&self) -> Result<Session, ProvideError> {
        Ok(self.engine.connect(&self.addr, &self.config).await?)
    }

    fn describe(&self) -> String {
        format!("dial {}", self.addr)
    }
}

/// A provider whose type is forgotten, so that a manager has none.
pub(super) trait Erased: Send + Sync {
    fn provide(&self) -> Pin<Box<Provided<'_>>>;
    fn describe(&self) -> String;
    fn waits_for_peer(&self) -> bool;
}

pub(super) type Provided<'a> = dyn Future<Output = Result<Session, ProvideError>> + Send + 'a;

pub(super) struct Boxed<P>(pub(super) P);

impl<P: Provider> Erased for Boxed<P> {
    fn provide(&self) -> Pin<Box<Provided<'_>>> {
        Box::pin(self.0.provide())
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn waits_for_peer(&self) -> bool {
        self.0.waits_for_peer()
    }
}

impl fmt::Debug for dyn Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}
