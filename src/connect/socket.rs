//! Sockets before they carry a session: resolve, dial, bind, accept, options.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use super::dial::{DialError, dial, look_up};
use super::errors::ConnectError;
use crate::addr::Addr;

/// What the kernel may hold unsent before a socket counts as full, in bytes: above it, urgency and
/// cancels would act behind the kernel's queue instead of in ours.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;
/// Connections that the kernel has accepted for a socket and that wait for us, at most; the rest is up to
/// `net.core.somaxconn`.
const KERNEL_BACKLOG_CONNECTIONS: u32 = 1024;

/// How long the name of an address to listen on may be looked up.
const LISTEN_LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected socket in non-blocking mode.
#[derive(Debug)]
pub(super) enum Connected {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connected {
    /// Within `limit`; a Unix socket is connected or refused at once.
    pub(super) async fn dial(addr: &Addr, limit: Duration) -> Result<Self, ConnectError> {
        let io_error = |error| ConnectError::Io {
            addr: addr.clone(),
            error,
        };
        match addr {
            Addr::Tcp(host_port) => match dial(host_port, limit).await {
                Ok(socket) => {
                    set_options(&socket).map_err(io_error)?;
                    Ok(Self::Tcp(socket))
                }
                Err(error @ DialError::TimedOut { .. }) => Err(ConnectError::TimedOut {
                    addr: addr.clone(),
                    error,
                }),
                Err(error) => Err(io_error(error.into_io(host_port))),
            },
            Addr::Unix(path) => {
                let socket = UnixStream::connect(path).await;
                socket.map(Self::Unix).map_err(io_error)
            }
        }
    }

    /// Without tokio's reactor, and in blocking mode: a ring ends operations on a non-blocking
    /// socket with `EAGAIN` where it should wait.
    pub(super) fn into_blocking(self) -> io::Result<Blocking> {
        match self {
            Self::Tcp(socket) => {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                Ok(Blocking::Tcp(socket))
            }
            Self::Unix(socket) => {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                Ok(Blocking::Unix(socket))
            }
        }
    }

    /// Peer and own address.
    pub(super) fn addrs(&self) -> (Option<Addr>, Option<Addr>) {
        match self {
            Self::Tcp(socket) => {
                let addr = |a: SocketAddr| Addr::Tcp(a.to_string());
                (
                    socket.peer_addr().ok().map(addr),
                    socket.local_addr().ok().map(addr),
                )
            }
            Self::Unix(socket) => {
                let addr = |a: tokio::net::unix::SocketAddr| {
                    a.as_pathname().map(Path::to_path_buf).map(Addr::Unix)
                };
                (
                    socket.peer_addr().ok().and_then(addr),
                    socket.local_addr().ok().and_then(addr),
                )
            }
        }
    }
}

/// A connected socket for a ring.
#[derive(Debug)]
pub(super) enum Blocking {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

impl From<Blocking> for OwnedFd {
    fn from(socket: Blocking) -> Self {
        match socket {
            Blocking::Tcp(socket) => socket.into(),
            Blocking::Unix(socket) => socket.into(),
        }
    }
}

fn set_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // Network stacks of sandboxes may not have it: what is urgent then waits behind more.
    if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES) {
        tracing::debug!(%error, "cannot bound what the kernel holds unsent");
    }
    Ok(())
}

/// Who may listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Alone,
    /// Everybody of this user who asks for the same.
    Shared,
}

/// A bound socket.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    /// With its file, until that is taken.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket; removed when it is dropped, if it was not before.
///
/// To be removed before its socket is closed: once that refuses connections, whoever comes next may take the path.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Which file it is: two who find a stale one may both bind, and the path is then the later one's.
    identity: Option<(u64, u64)>,
    removed: AtomicBool,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
            removed: AtomicBool::new(false),
        }
    }

    /// Once only: what is there afterwards is somebody else's.
    pub(super) fn remove(&self) {
        let first = !self.removed.swap(true, Ordering::Relaxed);
        if first && self.identity.is_some() && identity(&self.path) == self.identity {
            // Somebody else may have removed it; there is nobody to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Bound {
    /// A Unix socket has one listener, whatever `sharing` says.
    pub(super) async fn bind(addr: &Addr, sharing: Sharing) -> io::Result<Self> {
        match addr {
            Addr::Tcp(host_port) => bind_tcp(host_port, sharing).await.map(Self::Tcp),
            Addr::Unix(path) => {
                let bound = match UnixListener::bind(path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)
                    }
                    bound => bound,
                };
                bound.map(|listener| Self::Unix(listener, Some(SocketFile::new(path))))
            }
        }
    }

    /// The address with the port that was taken.
    pub(super) fn local_addr(&self) -> io::Result<Addr> {
        match self {
            Self::Tcp(listener) => Ok(Addr::Tcp(listener.local_addr()?.to_string())),
            Self::Unix(listener, _) => {
                let addr = listener.local_addr()?;
                let path = addr.as_pathname().ok_or(io::ErrorKind::NotFound)?;
                Ok(Addr::Unix(path.to_path_buf()))
            }
        }
    }

    /// The file to be removed when nobody listens any more.
    pub(super) fn take_file(&mut self) -> Option<SocketFile> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => file.take(),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Connected> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                set_options(&socket)?;
                Ok(Connected::Tcp(socket))
            }
            Self::Unix(listener, _) => listener
                .accept()
                .await
                .map(|(socket, _)| Connected::Unix(socket)),
        }
    }
}

/// The first address of the name that can be listened on.
async fn bind_tcp(host_port: &str, sharing: Sharing) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    let found = timeout(LISTEN_LOOKUP_TIMEOUT, look_up(host_port)).await??;
    for address in found {
        match bind_address(address, sharing) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_address(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Old connections of a listener that was restarted do not keep it from its port.
    socket.set_reuseaddr(true)?;
    if sharing == Sharing::Shared {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(KERNEL_BACKLOG_CONNECTIONS)
}

/// Device and inode of what is there now.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// A socket file that nobody listens on any more. Connecting to a file of any other kind is refused as well.
fn is_stale(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && knock(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Connects without waiting for a place in the listener's backlog.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_that_another_has_replaced_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let listen = || std::os::unix::net::UnixListener::bind(&path).unwrap();
        let _first = listen();
        let ours = SocketFile::new(&path);
        let aside = dir.path().join("aside.sock");
        // Aside, and not removed: its inode would be free for the next one.
        std::fs::rename(&path, &aside).unwrap();
        let _second = listen();
        let theirs = SocketFile::new(&path);
        drop(ours);
        assert!(path.exists());
        drop(theirs);
        assert!(!path.exists());
    }
}
