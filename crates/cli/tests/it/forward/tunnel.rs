//! A tunnel to one target: `serve` and `forward`, wired together.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::process::Program;

/// Both ends.
pub(crate) struct Tunnel {
    pub(crate) serve: Program,
    pub(crate) forward: Program,
    /// The address of `serve`.
    pub(crate) via: String,
    /// The address for clients, as `127.0.0.1:PORT`.
    pub(crate) entry: String,
}

impl Tunnel {
    /// A tunnel to this (allowed) address.
    pub(crate) fn to(target: &str) -> Self {
        Self::with(target, &[])
    }

    /// The same, with more options for both ends.
    pub(crate) fn with(target: &str, options: &[&str]) -> Self {
        Self::allowing(target, target, options)
    }

    pub(crate) fn allowing(allow: &str, target: &str, options: &[&str]) -> Self {
        let serve_args = ["serve", "--listen", "127.0.0.1:0", "--allow", allow];
        let mut serve = Program::start(&[&serve_args, options].concat());
        let via = serve.listening();
        let forward_args = [
            "forward",
            "--listen",
            "127.0.0.1:0",
            "--to",
            target,
            "--via",
            &via,
        ];
        let mut forward = Program::start(&[&forward_args, options].concat());
        let entry = tcp(&forward.listening());
        Self {
            serve,
            forward,
            via,
            entry,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.entry)
            .await
            .expect("forward listens")
    }
}

/// `tcp://HOST:PORT` without the scheme.
pub(crate) fn tcp(addr: &str) -> String {
    addr.strip_prefix("tcp://")
        .expect("a TCP address")
        .to_owned()
}

/// A target played by the test.
pub(crate) async fn target() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener
        .local_addr()
        .expect("a bound socket has an address");
    (listener, addr.to_string())
}

/// A port that refuses connections, and that no other test gets meanwhile: it is bound, and not listened on.
pub(crate) fn refusing() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("descriptors are left");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let addr = socket.local_addr().expect("it is bound");
    let addr = addr.as_socket().expect("of IPv4").to_string();
    (socket, addr)
}

/// Closes a connection with a reset instead of an end.
pub(crate) fn reset(socket: TcpStream) {
    socket.set_zero_linger().expect("an option of TCP");
    drop(socket);
}

/// A connection that was closed from the other side without an orderly end.
pub(crate) fn is_reset(result: &io::Result<usize>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Fails a test that hangs.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(90), future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}
