//! Connects to a name over TCP: resolves it, races its addresses, all within one time limit (RFC 8305).
//!
//! ```text
//!   name ─► lookup, on a thread ─► at most 16 addresses, families in turn
//!                                     │ one every 250 ms, the next at once when one fails
//!                                     ▼
//!                                  the first that connects; the others are closed
//! ```
//! The program's relay dials through here as well, so [`dial`] is public.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::error::{Processed, lacks_descriptors};
use crate::queue::PerProcess;

/// Between the starts of two attempts, unless one fails earlier.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried, the first of each family first. Also the most sockets open at once.
const ADDRESSES_MAX: usize = 16;
/// Lookups under way at once in the process, each on a thread; others wait, within their time limit. An abandoned lookup
/// keeps its thread until the system's resolver returns.
const LOOKUPS_MAX: usize = 64;

static LOOKUPS: PerProcess<Semaphore> = PerProcess::new();

fn lookups() -> &'static Semaphore {
    LOOKUPS.get_or_init(|| Semaphore::new(LOOKUPS_MAX))
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// A failed attempt to connect to one address of a name.
#[derive(Debug)]
#[non_exhaustive]
pub struct DialAttempt {
    /// The address.
    pub addr: SocketAddr,
    /// The reason; [`TimedOut`](io::ErrorKind::TimedOut) if the address did not answer within the limit.
    pub error: io::Error,
}

impl fmt::Display for DialAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the error number, which would stand in the middle of a list.
        let said = self.error.to_string();
        let words = said.split(" (os error ").next().unwrap_or(&said);
        write!(f, "{}: {words}", self.addr)
    }
}

/// Why [`dial`] failed.
///
/// As an [`io::Error`] it has the same [`kind`](Self::kind) and text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name could not be looked up, or has no address.
    #[error(transparent)]
    Lookup(io::Error),
    /// Every address that was tried has failed.
    #[error("{}", List(tried))]
    Failed {
        /// Each address with its error, in the order in which they failed.
        tried: Vec<DialAttempt>,
    },
    /// The time limit expired.
    #[error("no connection within {limit:?}: {}", Waiting(tried))]
    TimedOut {
        /// The time limit given to [`dial`].
        limit: Duration,
        /// The addresses tried until then; none if the lookup was still under way.
        tried: Vec<DialAttempt>,
    },
}

impl DialError {
    /// The kind of the system's error: of several addresses, that of the last failure.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Lookup(error) => error.kind(),
            Self::Failed { tried } => tried
                .last()
                .map_or(io::ErrorKind::NotFound, |last| last.error.kind()),
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
        }
    }

    /// Whether this process, or the system, was out of descriptors.
    pub(super) fn lacks_descriptors(&self) -> bool {
        match self {
            Self::Lookup(error) => lacks_descriptors(error),
            Self::Failed { tried } | Self::TimedOut { tried, .. } => tried
                .iter()
                .any(|attempt| lacks_descriptors(&attempt.error)),
        }
    }

    /// Whether the same call may succeed later: not if the text is no `HOST:PORT`.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind() != io::ErrorKind::InvalidInput
    }

    /// Whether the peer can have processed anything: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        self.kind()
    }

    /// True if it holds only the error of the one address given as `name`.
    fn is_plain(&self, name: &str) -> bool {
        match self {
            Self::Failed { tried } => matches!(&tried[..], [one] if name.parse() == Ok(one.addr)),
            Self::Lookup(_) | Self::TimedOut { .. } => false,
        }
    }

    /// The system's error if `name` is one address, else an error with the whole text.
    pub(super) fn into_io(self, name: &str) -> io::Error {
        if !self.is_plain(name) {
            return self.into();
        }
        match self {
            Self::Failed { mut tried } if tried.len() == 1 => tried.remove(0).error,
            other => other.into(),
        }
    }
}

struct List<'a>(&'a [DialAttempt]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, attempt) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{attempt}")?;
        }
        Ok(())
    }
}

struct Waiting<'a>(&'a [DialAttempt]);

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("the name is still being looked up"),
            tried => List(tried).fmt(f),
        }
    }
}

/// Connects to `HOST:PORT` over TCP as [`Engine::connect`](crate::Engine::connect) does, for a transport of the
/// application's own: TLS and then [`client`](crate::client), or another protocol.
///
/// A name is resolved and its addresses are raced: one every 250 ms, IPv6 and IPv4 in turn, the next at once when one
/// fails. The first that connects is taken, and the others are closed. At most 16 addresses are tried. `limit` covers all
/// of it.
///
/// A connection that leads back to its own socket counts as refused: the kernel makes such a one out of a port of its
/// ephemeral range where no server listens.
///
/// # Errors
/// [`DialError`] names each address that was tried.
///
/// # Cancel safety
/// Dropping the future closes the sockets of its attempts. A lookup under way continues on its thread until the system's
/// resolver returns.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use ringmux::{Config, DialError};
///
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let addr = listener.local_addr().to_string();
/// let socket = ringmux::dial(addr.trim_start_matches("tcp://"), Duration::from_secs(5)).await?;
/// let (client, connection) = ringmux::client(socket, &Config::default());
/// tokio::spawn(connection);
/// client.established().await?;
///
/// let error = ringmux::dial("127.0.0.1:1", Duration::from_secs(5)).await.unwrap_err();
/// assert!(matches!(&error, DialError::Failed { tried } if tried.len() == 1));
/// assert!(error.to_string().starts_with("127.0.0.1:1: "));
/// # Ok(())
/// # }
/// ```
pub async fn dial(host_port: &str, limit: Duration) -> Result<TcpStream, DialError> {
    let mut race = Race::default();
    let dialling = async {
        let found = lookup(host_port, lookups()).await?;
        Ok(race.run(in_turn(found)).await)
    };
    let ended = timeout(limit, dialling).await;
    race.end(ended, limit)
}

/// The addresses of a name, in the order of the system's resolver.
///
/// Not on the runtime's pool of threads: a runtime that shuts down waits for these, as long as the resolver takes.
///
/// # Errors
/// The resolver's errors, and the lack of a thread.
pub(super) async fn look_up(host_port: &str) -> io::Result<Vec<SocketAddr>> {
    lookup(host_port, lookups()).await.map_err(io::Error::from)
}

async fn lookup(host_port: &str, places: &'static Semaphore) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(addr) = host_port.parse() {
        return Ok(vec![addr]);
    }
    let find = async {
        let place = places.acquire().await.map_err(io::Error::other)?;
        let name = host_port.to_owned();
        let (tell, told) = oneshot::channel();
        thread::Builder::new()
            .name("ringmux-lookup".to_owned())
            .spawn(move || {
                let found = name.to_socket_addrs().map(Iterator::collect);
                drop(place);
                // The caller may have given up.
                let _ = tell.send(found);
            })?;
        told.await.map_err(io::Error::other)?
    };
    let found: Vec<SocketAddr> = find.await.map_err(DialError::Lookup)?;
    if found.is_empty() {
        let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(DialError::Lookup(none));
    }
    Ok(found)
}

/// Interleaves the families, beginning with the first address's, without duplicates, at most [`ADDRESSES_MAX`].
fn in_turn(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let leads = found.first().is_some_and(SocketAddr::is_ipv6);
    let (leading, other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|addr| addr.is_ipv6() == leads);
    let (mut leading, mut other) = (leading.into_iter(), other.into_iter());
    let mut order = Vec::new();
    while order.len() < ADDRESSES_MAX && leading.len() + other.len() > 0 {
        for addr in [leading.next(), other.next()].into_iter().flatten() {
            if !order.contains(&addr) {
                order.push(addr);
            }
        }
    }
    order.truncate(ADDRESSES_MAX);
    order
}

/// Attempts under way, and failed ones. Dropping it closes their sockets.
#[derive(Default)]
struct Race {
    running: Vec<(SocketAddr, Connecting)>,
    failed: Vec<DialAttempt>,
}

impl Race {
    /// `None` when all have failed.
    async fn run(&mut self, addrs: Vec<SocketAddr>) -> Option<TcpStream> {
        let mut rest = addrs.into_iter();
        loop {
            match rest.next() {
                Some(addr) => self.running.push((addr, Box::pin(connect(addr)))),
                None if self.running.is_empty() => return None,
                None => {}
            }
            let next_end = poll_fn(|cx| self.poll_end(cx));
            let end = if rest.len() == 0 {
                next_end.await
            } else {
                timeout(ATTEMPT_DELAY, next_end).await.unwrap_or(None)
            };
            if end.is_some() {
                return end;
            }
        }
    }

    /// When an attempt has ended: its connection, or `None` if it has failed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<TcpStream>> {
        for at in 0..self.running.len() {
            let (addr, connecting) = &mut self.running[at];
            let addr = *addr;
            if let Poll::Ready(ended) = connecting.as_mut().poll(cx) {
                drop(self.running.remove(at));
                let failed = |error| self.failed.push(DialAttempt { addr, error });
                return Poll::Ready(ended.map_err(failed).ok());
            }
        }
        Poll::Pending
    }

    /// Stores the result of an attempt; an `Err` of the outer timeout means that the time limit expired.
    fn end<E>(
        self,
        ended: Result<Result<Option<TcpStream>, DialError>, E>,
        limit: Duration,
    ) -> Result<TcpStream, DialError> {
        let mut tried = self.failed;
        match ended {
            Ok(Ok(Some(socket))) => Ok(socket),
            Ok(Ok(None)) => Err(DialError::Failed { tried }),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let silent = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
                tried.extend(self.running.iter().map(|&(addr, _)| DialAttempt {
                    addr,
                    error: silent(),
                }));
                Err(DialError::TimedOut { limit, tried })
            }
        }
    }
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(addr).await?;
    // TCP opens a connection with itself where the kernel picks the dialled port as source port (RFC 9293, simultaneous open).
    if matches!((socket.local_addr(), socket.peer_addr()), (Ok(own), Ok(peer)) if own == peer) {
        // Otherwise TIME_WAIT would hold the port for a minute and keep the server from binding it.
        let _ = socket.set_zero_linger();
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "connection refused (it led back to itself)",
        ));
    }
    Ok(socket)
}

#[cfg(test)]
mod tests;
