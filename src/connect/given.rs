//! Sockets made by the application: listening or connected.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::errors::SocketError;
use super::socket::{Bound, Connected, set_options};
use crate::addr::Addr;

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
