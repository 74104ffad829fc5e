//! Providers of sessions.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::errors::ProvideError;
use super::panics::{catch, caught};
use crate::addr::Addr;
use crate::config::Config;
use crate::connect::Engine;
use crate::handle::Session;

/// Makes sessions with the peer: one attempt at a time for each place of the manager.
///
/// [`Dial`] and [`Accept`](super::Accept) are two; an application can write its own to connect through TLS, or to look up the
/// address in a registry first.
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
    /// One attempt: returns a session that has completed its handshake.
    ///
    /// # Errors
    /// The reason of the failure. After any failure the next attempt follows a pause. A panic is one too, as
    /// [`ProvideError::Panicked`].
    ///
    /// # Cancel safety
    /// The future is dropped when the attempt takes too long, the manager closes, or a session is installed by
    /// [`replace`](super::Manager::replace); its connection must end with it.
    fn provide(&self) -> impl Future<Output = Result<Session, ProvideError>> + Send;

    /// A description for logs.
    fn describe(&self) -> String;

    /// Whether [`provide`](Self::provide) waits for the peer to connect instead of connecting.
    ///
    /// Then an attempt has no time limit; pauses are at most [`WAITING_PAUSE_MAX`](super::WAITING_PAUSE_MAX), as the peer backs
    /// off; and in a manager of one session a new session replaces a live one, since the peer notices the loss of the old one
    /// first. Default false.
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
    /// Connects to `addr` on `engine`.
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

/// A type-erased provider, so that `Manager` has no type parameter. No method panics.
pub(super) trait Erased: Send + Sync {
    fn provide(&self) -> Pin<Box<Provided<'_>>>;
    fn describe(&self) -> String;
    fn waits_for_peer(&self) -> bool;
}

pub(super) type Provided<'a> = dyn Future<Output = Result<Session, ProvideError>> + Send + 'a;

pub(super) struct Boxed<P>(pub(super) P);

impl<P: Provider> Erased for Boxed<P> {
    fn provide(&self) -> Pin<Box<Provided<'_>>> {
        Box::pin(async {
            let provided = caught(|| self.0.provide()).await;
            provided.unwrap_or_else(|text| Err(ProvideError::Panicked(text)))
        })
    }

    fn describe(&self) -> String {
        catch(|| self.0.describe()).unwrap_or_else(|text| format!("describe panicked: {text}"))
    }

    fn waits_for_peer(&self) -> bool {
        catch(|| self.0.waits_for_peer()).unwrap_or(false)
    }
}

impl fmt::Debug for dyn Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}
