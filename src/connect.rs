//! Wiring: engines, connecting, listening.
//!
//! An [`Engine`] is a runtime that owns sockets: a thread of its own, or the application's runtime. This module decides
//! nothing about the protocol.

mod detect;
mod dial;
mod engine;
mod errors;
mod given;
mod half_open;
mod home;
mod live;
#[cfg(test)]
mod progress_tests;
mod socket;
mod stats;
#[cfg(test)]
mod transport_tests;

pub use crate::driver::uring::{Features, ProbeStep, Refusal};
pub use dial::{DialAttempt, DialError, dial};
pub use engine::Engine;
pub use engine::backend::{Backend, ChosenBackend};
pub use engine::builder::EngineBuilder;
pub use engine::listener::{Listener, is_lost};
pub use errors::{ConnectError, EngineError, ListenError, SocketError};
pub use socket::dial_unix;
pub use stats::{ProcessStats, process_stats};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use self::home::Plan;
use crate::addr::Driver;
use crate::config::Config;
use crate::driver::tokio::{Descriptor, TokioIo};
use crate::driver::{AnyTurns, Beside};
use crate::error::SessionError;
use crate::handle::Session;
use crate::timer::has_time;
use crate::wire::Role;

/// Connects to `tcp://HOST:PORT` or `unix:///PATH` with the defaults: [`Engine::current`] and
/// [`Config::default`]. Where panics abort, a runtime without time or I/O ends the process: see [`Engine::current`].
///
/// # Errors
/// [`ConnectError`] with the address and the reason.
///
/// # Cancel safety
/// Dropping the future closes the connection in progress.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let client = ringmux::connect(listener.local_addr().to_string()).await?;
/// let server = listener.accept().await?;
/// assert!(server.ping().await?.as_nanos() > 0);
/// # drop(client);
///
/// let error = ringmux::connect("tcp://127.0.0.1:1").await.unwrap_err();
/// assert!(error.to_string().contains("tcp://127.0.0.1:1"));
/// # Ok(())
/// # }
/// ```
pub async fn connect(addr: impl AsRef<str>) -> Result<Session, ConnectError> {
    Engine::current()?
        .connect(&addr.as_ref().parse()?, &Config::default())
        .await
}

/// Listens on `tcp://HOST:PORT` or `unix:///PATH` with the defaults: [`Engine::current`] and
/// [`Config::default`]. Port 0 picks a free one, see [`Listener::local_addr`]. Where panics abort, a runtime without time or I/O ends
/// the process: see [`Engine::current`].
///
/// # Errors
/// [`ListenError`] with the address and the reason.
///
/// # Cancel safety
/// Safe.
pub async fn listen(addr: impl AsRef<str>) -> Result<Listener, ListenError> {
    Engine::current()?
        .listen(&addr.as_ref().parse()?, &Config::default())
        .await
}

/// Runs a session as the dialling side over any transport: a TLS stream, a pipe, a vsock.
///
/// Returns the handle, and the future that runs the session: spawn it on a tokio runtime. One side
/// must be the client, the other the server.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (a, b) = tokio::io::duplex(4096);
/// let (client, connection) = ringmux::client(a, &ringmux::Config::default());
/// tokio::spawn(connection);
/// drop(b);
/// assert!(matches!(client.closed().await, ringmux::SessionError::Disconnected));
/// # Ok(())
/// # }
/// ```
///
/// Poll the future on a tokio runtime with time enabled. Elsewhere the session ends at its first poll, with
/// [`SessionError::Io`]; on a runtime without time, after a panic that is caught but printed by the panic hook. A future that
/// was polled on one runtime may be polled on another from then on. On one that is being shut down, the session ends with
/// [`SessionError::Io`] as well.
///
/// # Errors of the transport
/// An error that the transport returns ends the session with [`SessionError::Io`], whose source it is, with these exceptions:
/// * [`Interrupted`](std::io::ErrorKind::Interrupted): the operation is tried again, at once up to 16 times, then after other
///   tasks of the runtime.
/// * 0 bytes read are the end of the stream: [`SessionError::Disconnected`].
///
/// A transport that has to wait returns `Poll::Pending`, and calls the waker when it is to be polled again: it may not be read
/// before that. [`WouldBlock`](std::io::ErrorKind::WouldBlock) is its fault, and ends
/// the session like any other error. So do 0 bytes written, as [`WriteZero`](std::io::ErrorKind::WriteZero), and more bytes
/// written than it was given, as [`InvalidData`](std::io::ErrorKind::InvalidData). A transport that panics, as one does that fills its `ReadBuf` beyond
/// the end, ends the future, and the session with [`SessionError::EngineStopped`].
pub fn client<T>(io: T, config: &Config) -> (Session, Connection<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    over(
        io,
        Plan::local(Role::Dialer, config),
        |_| None,
        Beside::Runtime,
    )
}

/// Runs a session as the accepting side over any transport; see [`client`], also for the transport's errors.
pub fn server<T>(io: T, config: &Config) -> (Session, Connection<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    over(
        io,
        Plan::local(Role::Acceptor, config),
        |_| None,
        Beside::Runtime,
    )
}

/// `socket` lends the system's socket of `io`, if it has one.
fn over<T>(io: T, plan: Plan<'_>, socket: Descriptor<T>, beside: Beside) -> (Session, Connection<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (connection, link) = plan.connection(Driver::Tokio);
    let mut turns = AnyTurns::new(connection, TokioIo::new(io, socket));
    turns.set_beside(beside);
    let connection = Connection {
        turns,
        has_time: false,
    };
    (Session::new(link), connection)
}

/// The future that runs one session over the application's transport. From [`client`] and [`server`].
///
/// Completes when the session has ended, with the reason. Dropping it ends the session with
/// [`SessionError::EngineStopped`].
#[must_use = "a session makes no progress unless its connection is spawned or awaited"]
pub struct Connection<T> {
    turns: AnyTurns<TokioIo<T>>,
    /// The polling runtime was checked for timers.
    has_time: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Ends the session where the runtime has no timers.
    #[cold]
    #[inline(never)]
    fn look_for_time(&mut self) {
        self.has_time = has_time();
        if !self.has_time {
            let missing =
                "the runtime has no timers: poll it on one that was built with enable_all()";
            self.turns.give_up(std::io::Error::other(missing));
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Connection<T> {
    type Output = SessionError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionError> {
        if !self.has_time {
            self.look_for_time();
        }
        Pin::new(&mut self.turns).poll(cx)
    }
}

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.turns).finish()
    }
}
