//! Plain TCP and Unix sockets, as the tunnel uses them.

use std::ffi::OsString;
use std::io;
use std::net::Shutdown;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use ringmux::Addr;
use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::sleep;

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connected socket. Both directions may use it at once.
///
/// A dropped TCP connection is reset, and so it is when this process dies: a truncated transfer is never mistaken for a
/// complete one. [`close`](Self::close) ends it in order. Unix sockets have a reset only while bytes are unread, so there a
/// break may look like an end.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects within `limit`.
    pub(crate) async fn connect(addr: &Addr, limit: Duration) -> io::Result<Self> {
        match addr {
            Addr::Tcp(host_port) => Self::tcp(ringmux::dial(host_port, limit).await?),
            Addr::Unix(path) => ringmux::dial_unix(path, limit).await.map(Self::Unix),
            _ => Err(unknown_kind()),
        }
    }

    fn tcp(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_zero_linger()?;
        // Connections may be idle for long; keepalive detects a dead peer.
        SockRef::from(&socket).set_keepalive(true)?;
        Ok(Self::Tcp(socket))
    }

    /// The peer's address, for logs.
    pub(crate) fn peer(&self) -> String {
        match self {
            Self::Tcp(socket) => socket
                .peer_addr()
                .map_or_else(|_| "unknown".to_owned(), |addr| addr.to_string()),
            Self::Unix(_) => "unix".to_owned(),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(socket) => socket.ready(interest).await,
            Self::Unix(socket) => socket.ready(interest).await,
        }
    }

    /// Waits for bytes and reads them; an empty result is the end. Cancel-safe.
    ///
    /// Allocates only when there are bytes to read.
    pub(crate) async fn read(&self, at_most: usize) -> io::Result<BytesMut> {
        loop {
            self.ready(Interest::READABLE).await?;
            let mut chunk = BytesMut::with_capacity(at_most);
            let read = match self {
                Self::Tcp(socket) => socket.try_read_buf(&mut chunk),
                Self::Unix(socket) => socket.try_read_buf(&mut chunk),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(|_| chunk),
            }
        }
    }

    /// Writes as many bytes as there is room for; 0 if there is none.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Unix(socket) => socket.try_write(bytes),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Writes everything, waiting for room.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.ready(Interest::WRITABLE).await?;
            bytes = &bytes[self.write_now(bytes)?..];
        }
        Ok(())
    }

    /// Ends the sending direction; reading continues.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.as_ref().shutdown(Shutdown::Write)
    }

    /// Waits until the socket fails, also without reads or writes meanwhile.
    pub(crate) async fn failed(&self) -> io::Error {
        loop {
            match self.ready(Interest::ERROR).await {
                // Readiness may have been cleared meanwhile.
                Ok(ready) if !ready.is_error() => {}
                Ok(_) => {
                    return match self.as_ref().take_error() {
                        Ok(Some(error)) | Err(error) => error,
                        // Another call got the error.
                        Ok(None) => io::ErrorKind::ConnectionReset.into(),
                    };
                }
                Err(error) => return error,
            }
        }
    }

    /// Closes a connection that has ended both ways.
    pub(crate) fn close(self) {
        if let Self::Tcp(socket) = &self {
            // If it fails, the connection is lost already.
            let _ = SockRef::from(socket).set_linger(None);
        }
    }

    fn as_ref(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket),
            Self::Unix(socket) => SockRef::from(socket),
        }
    }
}

/// A listening socket. A Unix socket's file is removed when it is dropped, unless it belongs to a later process by then.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf, Option<FileId>),
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Listener {
    pub(crate) async fn bind(addr: &Addr) -> io::Result<Self> {
        match addr {
            Addr::Tcp(host_port) => TcpListener::bind(host_port).await.map(Self::Tcp),
            Addr::Unix(path) if is_abstract(path) => {
                let listener = UnixListener::bind(kernel_path(path));
                listener.map(|listener| Self::Unix(listener, path.clone(), None))
            }
            Addr::Unix(path) => {
                let listener = match UnixListener::bind(path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)
                    }
                    bound => bound,
                };
                listener.map(|listener| Self::Unix(listener, path.clone(), file_id(path)))
            }
            _ => Err(unknown_kind()),
        }
    }

    /// The address, with the actual port.
    pub(crate) fn addr(&self) -> io::Result<Addr> {
        match self {
            Self::Tcp(listener) => Ok(Addr::Tcp(listener.local_addr()?.to_string())),
            Self::Unix(_, path, _) => Ok(Addr::Unix(path.clone())),
        }
    }

    /// Waits for the next connection. One that fails before it is accepted is only logged.
    pub(crate) async fn accept(&self) -> Socket {
        loop {
            match self.try_accept().await {
                Ok(socket) => return socket,
                Err(error) if ringmux::is_lost(&error) => {
                    tracing::debug!(%error, "a connection was lost before it was accepted");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for now");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept().await?.0),
            Self::Unix(listener, ..) => listener.accept().await.map(|(s, _)| Socket::Unix(s)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path, id @ Some(_)) = self
            && file_id(path) == *id
        {
            // It may be removed already; there is no caller to report an error to.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether the name is abstract, without a file.
fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

/// A path in the kernel's form: a NUL in front of an abstract name, where [`Addr::Unix`] has an `@`.
fn kernel_path(path: &Path) -> PathBuf {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if is_abstract(path) {
        bytes[0] = 0;
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// True for a socket file without a listener. Connecting to any other kind of file is refused as well.
fn is_stale(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && knock(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Connects without waiting for a place in the listener's backlog.
fn knock(path: &Path) -> io::Result<()> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn unknown_kind() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this kind of address is not supported",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_of_a_later_process_stays_when_the_earlier_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let addr = Addr::Unix(path.clone());
        let earlier = Listener::bind(&addr).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let later = Listener::bind(&addr).await.unwrap();
        drop(earlier);
        assert!(path.exists());
        drop(later);
        assert!(!path.exists());
    }
}
