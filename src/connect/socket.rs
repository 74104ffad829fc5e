//! Sockets before they carry a session: resolve, dial, bind, accept, options.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::Level;

use super::dial::{DialError, dial, look_up};
use super::errors::ConnectError;
use crate::addr::{Addr, Wire};
use crate::config::Config;
use crate::pace::paced;

/// Unsent bytes in the kernel from which on a socket counts as full: above it, urgency and
/// cancels would act behind the kernel's queue instead of in ours.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;
/// Connections that wait in the kernel for a listener, for each that may be in its handshake, at most. `net.core.somaxconn`
/// limits them as well.
const BACKLOG_PER_PLACE: u32 = 4;
/// The least backlog.
const BACKLOG_MIN: u32 = 128;
/// The largest backlog.
const BACKLOG_MAX: u32 = 4096;

/// First pause before a Unix socket whose listener's backlog was full is tried again; each is twice the last one.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// The longest of these pauses, as the first of TCP: many that wait are not to keep their own thread from its handshakes.
const FULL_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Probes of a silent peer by the system, unless that makes them more frequent than each second, their least interval.
const PROBES: u32 = 5;
/// The most seconds that the system takes for the time until the first probe.
const PROBE_IDLE_MAX: u64 = 32_767;

/// Time limit for the lookup of a name to listen on.
const LISTEN_LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected socket in non-blocking mode.
#[derive(Debug)]
pub(super) enum Connected {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connected {
    /// Connects within `limit`.
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
                let socket = dial_unix(path, limit).await;
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

    /// Over a wire without PING, has the system probe a silent peer, whose own answers for it: a session that only waits has no
    /// other sign of it. To be called once the wire is known.
    pub(super) fn probe_peer(&self, config: &Config) {
        let (Self::Tcp(socket), Wire::Drpc(_)) = (self, config.wire()) else {
            return;
        };
        let Some(idle) = config.keepalive_idle() else {
            return;
        };
        let probes = probes(idle, config.keepalive_timeout());
        if let Err(error) = SockRef::from(socket).set_tcp_keepalive(&probes) {
            paced!(Level::WARN, %error, "cannot have the system probe silent peers");
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
                let addr = |a: io::Result<tokio::net::unix::SocketAddr>| a.ok().and_then(unix_addr);
                (addr(socket.peer_addr()), addr(socket.local_addr()))
            }
        }
    }
}

/// Connects to a Unix socket as [`Engine::connect`](crate::Engine::connect) does, for a transport of the application's own, or
/// another protocol. A path that begins with `@` is an abstract name.
///
/// It connects or fails at once, or waits for a place in the backlog of a listener that accepts too slowly: it tries again after
/// 100 ms, then 200 ms, then up to every second, until `limit` is over. (The kernel lets a connection over TCP wait, and says of
/// one over a Unix socket that there is no place.)
///
/// # Errors
/// [`TimedOut`](io::ErrorKind::TimedOut) if the backlog was full until the limit; or what the system says, such as
/// [`NotFound`](io::ErrorKind::NotFound) where there is no such file and [`ConnectionRefused`](io::ErrorKind::ConnectionRefused)
/// where nothing listens on it.
///
/// # Cancel safety
/// Dropping the future closes its socket.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::ErrorKind;
/// use std::path::Path;
/// use std::time::Duration;
///
/// let listener = ringmux::listen("unix://@dial-unix-example").await?;
/// let limit = Duration::from_secs(5);
/// let socket = ringmux::dial_unix(Path::new("@dial-unix-example"), limit).await?;
/// let (client, connection) = ringmux::client(socket, &ringmux::Config::default());
/// tokio::spawn(connection);
/// client.established().await?;
///
/// let error = ringmux::dial_unix(Path::new("/no/such/socket"), limit).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
pub async fn dial_unix(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let path = kernel_path(path);
    let waiting = async {
        let mut pause = FULL_PAUSE;
        loop {
            match UnixStream::connect(&path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(pause).await;
                    pause = FULL_PAUSE_MAX.min(2 * pause);
                }
                ended => return ended,
            }
        }
    };
    timeout(limit, waiting).await.unwrap_or_else(|_| {
        let text = format!("the backlog of its listener was full for {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
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

/// Probes after `idle`, the last of which is unanswered after `timeout`; in whole seconds, rounded up.
fn probes(idle: Duration, timeout: Duration) -> TcpKeepalive {
    let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (idle, timeout) = (seconds(idle).min(PROBE_IDLE_MAX), seconds(timeout));
    let interval = timeout.div_ceil(PROBES.into()).max(1);
    let count = u32::try_from(timeout.div_ceil(interval)).unwrap_or(PROBES);
    TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(interval))
        .with_retries(count)
}

pub(super) fn set_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // Network stacks of sandboxes may not have it: then urgent messages wait behind more queued bytes.
    if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES) {
        paced!(Level::DEBUG, %error, "cannot bound the unsent bytes in the kernel");
    }
    Ok(())
}

/// Whether other sockets may listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Alone,
    /// All sockets of this user that also set it (`SO_REUSEPORT`).
    Shared,
}

/// A bound socket.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    /// With its file, until `take_file`.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket; removed when it is dropped, if it was not before.
///
/// Remove it before its socket is closed: once connections are refused, another listener may take the path.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: two listeners that find a stale file may both bind, and then the path belongs to the later one.
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

    /// Acts once only: a later file at this path belongs to another listener.
    pub(super) fn remove(&self) {
        let first = !self.removed.swap(true, Ordering::Relaxed);
        if first && self.identity.is_some() && identity(&self.path) == self.identity {
            // It may be removed already; there is no caller to report an error to.
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
    /// With a backlog for `max_half_open` handshakes. A Unix socket has one listener, regardless of `sharing`.
    pub(super) async fn bind(
        addr: &Addr,
        sharing: Sharing,
        max_half_open: u32,
    ) -> io::Result<Self> {
        let backlog = backlog(max_half_open);
        match addr {
            Addr::Tcp(host_port) => {
                let bound = bind_tcp(host_port, sharing, backlog).await;
                bound.map(Self::Tcp)
            }
            Addr::Unix(path) => {
                let named = kernel_path(path);
                if matches!(named, Cow::Owned(_)) {
                    // An abstract name vanishes with its socket.
                    let listener = bind_unix(&named, backlog)?;
                    return Ok(Self::Unix(listener, None));
                }
                let bound = match bind_unix(path, backlog) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
                        std::fs::remove_file(path)?;
                        bind_unix(path, backlog)
                    }
                    bound => bound,
                };
                bound.map(|listener| Self::Unix(listener, Some(SocketFile::new(path))))
            }
        }
    }

    /// The address with the actual port.
    pub(super) fn local_addr(&self) -> io::Result<Addr> {
        match self {
            Self::Tcp(listener) => Ok(Addr::Tcp(listener.local_addr()?.to_string())),
            Self::Unix(listener, _) => {
                let addr = unix_addr(listener.local_addr()?);
                addr.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    /// The file to be removed when listening ends.
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

/// A path in the kernel's form: a NUL in front of an abstract name, where [`Addr::Unix`] has an `@`.
fn kernel_path(path: &Path) -> Cow<'_, Path> {
    let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") else {
        return Cow::Borrowed(path);
    };
    let named = [b"\0", name].concat();
    Cow::Owned(PathBuf::from(OsString::from_vec(named)))
}

/// The inverse; `None` for a socket without a name.
fn unix_addr(addr: tokio::net::unix::SocketAddr) -> Option<Addr> {
    if let Some(name) = addr.as_abstract_name() {
        let shown = [b"@", name].concat();
        return Some(Addr::Unix(PathBuf::from(OsString::from_vec(shown))));
    }
    // A file whose name begins with `@` has its directory in front, so it is not mistaken for an abstract name.
    addr.as_pathname()
        .map(|path| match path.as_os_str().as_bytes() {
            [b'@', ..] => Addr::Unix(Path::new(".").join(path)),
            _ => Addr::Unix(path.to_path_buf()),
        })
}

/// Binds the first address of the name on which listening succeeds.
async fn bind_tcp(host_port: &str, sharing: Sharing, backlog: u32) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    let found = timeout(LISTEN_LOOKUP_TIMEOUT, look_up(host_port)).await??;
    for address in found {
        match bind_address(address, sharing, backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_address(address: SocketAddr, sharing: Sharing, backlog: u32) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of an earlier run in TIME_WAIT do not block the port.
    socket.set_reuseaddr(true)?;
    if sharing == Sharing::Shared {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Tokio chooses the backlog itself, but listening again changes it.
fn bind_unix(path: &Path, backlog: u32) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    rustix::net::listen(&listener, backlog.cast_signed())?;
    Ok(listener)
}

/// Connections of a listener that wait in the kernel. Not more than its places clear away in the time that it has for a
/// newcomer, however silent they are.
fn backlog(max_half_open: u32) -> u32 {
    max_half_open
        .saturating_mul(BACKLOG_PER_PLACE)
        .clamp(BACKLOG_MIN, BACKLOG_MAX)
}

/// Device and inode of the current file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// True for a socket file without a listener. Connecting to any other kind of file is refused as well.
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

    #[tokio::test(start_paused = true)]
    async fn a_unix_socket_waits_for_a_place_in_the_backlog_for_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let listener = bind_unix(&path, 1).unwrap();
        let limit = Duration::from_secs(10);
        // The kernel lets one more in than it is told.
        let _first = dial_unix(&path, limit).await.unwrap();
        let _second = dial_unix(&path, limit).await.unwrap();
        let begun = tokio::time::Instant::now();
        let error = dial_unix(&path, limit).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert_eq!(begun.elapsed(), limit);

        let dialling = tokio::spawn(async move { dial_unix(&path, limit).await });
        tokio::time::sleep(limit / 2).await;
        listener.accept().await.unwrap();
        dialling.await.unwrap().unwrap();
    }

    #[test]
    fn the_last_probe_is_unanswered_at_the_timeout_in_whole_seconds() {
        let second = Duration::from_secs;
        for (idle, timeout, expected) in [
            (second(15), second(10), [15, 2, 5]),
            (Duration::from_millis(1500), second(3), [2, 1, 3]),
            (
                Duration::from_millis(10),
                Duration::from_millis(10),
                [1, 1, 1],
            ),
            (second(86_400), second(86_400), [32_767, 17_280, 5]),
        ] {
            let [idle_secs, interval, count] = expected;
            let wanted = TcpKeepalive::new()
                .with_time(second(idle_secs))
                .with_interval(second(interval))
                .with_retries(count as u32);
            let derived = probes(idle, timeout);
            assert_eq!(format!("{derived:?}"), format!("{wanted:?}"));
        }
    }

    #[tokio::test]
    async fn a_socket_is_probed_where_its_wire_has_no_ping() {
        let drpc = |idle| {
            let config = Config::builder().drpc(crate::drpc::Profile::STORJ);
            config.keepalive_idle(idle).build().unwrap()
        };
        let idle = Some(Duration::from_secs(7));
        for (config, probed) in [
            (drpc(idle), true),
            (drpc(None), false),
            (Config::default(), false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let connected = Connected::Tcp(TcpStream::connect(addr).await.unwrap());
            connected.probe_peer(&config);
            let Connected::Tcp(socket) = &connected else {
                unreachable!("it is one of TCP");
            };
            let socket = SockRef::from(socket);
            assert_eq!(socket.keepalive().unwrap(), probed);
            assert!(!probed || socket.tcp_keepalive_time().unwrap() == Duration::from_secs(7));
        }
    }

    #[test]
    fn a_socket_file_that_another_has_replaced_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let listen = || std::os::unix::net::UnixListener::bind(&path).unwrap();
        let _first = listen();
        let ours = SocketFile::new(&path);
        let aside = dir.path().join("aside.sock");
        // Renamed, not removed: otherwise the next file could get its inode.
        std::fs::rename(&path, &aside).unwrap();
        let _second = listen();
        let theirs = SocketFile::new(&path);
        drop(ours);
        assert!(path.exists());
        drop(theirs);
        assert!(!path.exists());
    }
}
