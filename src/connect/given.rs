//! Sockets made by the application: listening or connected.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::socket::{Bound, Connected, set_options};
use crate::addr::Addr;
use crate::error::Processed;

/// Why an engine cannot use a given socket.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::{Config, Engine, ListenError, SocketError};
///
/// let file = std::fs::File::open("/dev/null")?;
/// let refused = Engine::auto()?.listen_on(file, &Config::default()).await.unwrap_err();
/// assert!(matches!(refused, ListenError::Socket { error: SocketError::NotASocket, .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The descriptor is no socket, but for example a file.
    #[error("it is not a socket")]
    NotASocket,
    /// The socket carries datagrams or packets.
    #[error("it is a socket for datagrams, and a stream socket is needed")]
    NotAStream,
    /// The listening socket is neither TCP nor Unix.
    #[error("its address family is {family}, and TCP (IPv4 or IPv6) or a Unix socket is needed")]
    Family {
        /// Linux's number, as in `AF_VSOCK`.
        family: i32,
    },
    /// It is not in listening state: it is connected, or `listen` was not called.
    #[error("it does not listen")]
    NotListening,
    /// It listens, where a connection is needed.
    #[error("it listens, and a connected socket is needed")]
    Listening,
    /// It is not connected, or not yet.
    #[error("it is not connected")]
    NotConnected,
    /// Any other error of the system.
    #[error(transparent)]
    Io(io::Error),
}

impl SocketError {
    /// Whether the same call may succeed later: not with the same socket.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }

    /// Whether a peer can have processed anything: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::NotConnected => io::ErrorKind::NotConnected,
            Self::Io(error) => error.kind(),
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOTSOCK) => Self::NotASocket,
            Some(libc::ENOTCONN) => Self::NotConnected,
            _ => Self::Io(error),
        }
    }
}

/// A stream socket and its family.
fn stream(socket: &OwnedFd) -> Result<(SockRef<'_>, Domain), SocketError> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM {
        return Err(SocketError::NotAStream);
    }
    let domain = socket.domain()?;
    Ok((socket, domain))
}

/// Checks a listening socket; returns its address too. To be called on the runtime that will accept.
pub(super) fn listening(socket: OwnedFd) -> Result<(Bound, Addr), SocketError> {
    let (of, domain) = stream(&socket)?;
    if !of.is_listener()? {
        return Err(SocketError::NotListening);
    }
    if !matches!(domain, Domain::IPV4 | Domain::IPV6 | Domain::UNIX) {
        let family = domain.into();
        return Err(SocketError::Family { family });
    }
    of.set_nonblocking(true)?;
    let addr = of.local_addr()?;
    if let Some(addr) = addr.as_socket() {
        let listener = TcpListener::from_std(socket.into())?;
        return Ok((Bound::Tcp(listener), Addr::Tcp(addr.to_string())));
    }
    // Its file belongs to the process that bound it.
    let listener = UnixListener::from_std(socket.into())?;
    Ok((Bound::Unix(listener, None), Addr::Unix(name(&addr))))
}

/// The path of a Unix socket, or its abstract name behind an `@`.
fn name(addr: &SockAddr) -> PathBuf {
    let abstract_name = |name| format!("@{}", String::from_utf8_lossy(name)).into();
    let path = addr.as_pathname().map(PathBuf::from);
    path.or_else(|| addr.as_abstract_namespace().map(abstract_name))
        .unwrap_or_default()
}

/// Checks a connected socket. To be called on the runtime that will own it.
pub(super) fn connected(socket: OwnedFd) -> Result<Connected, SocketError> {
    let (of, domain) = stream(&socket)?;
    if of.is_listener()? {
        return Err(SocketError::Listening);
    }
    of.peer_addr()?;
    of.set_nonblocking(true)?;
    if matches!(domain, Domain::IPV4 | Domain::IPV6) {
        let socket = TcpStream::from_std(socket.into())?;
        set_options(&socket)?;
        return Ok(Connected::Tcp(socket));
    }
    // `UnixStream` only reads, writes and shuts down, which any stream socket can; of another family it reports no
    // address.
    Ok(Connected::Unix(UnixStream::from_std(socket.into())?))
}
