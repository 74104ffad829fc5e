//! Sockets made by the application: listening ones, as a service manager passes them, and connected ones.

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use ringmux::{Addr, Config, ConnectError, ListenError, Session, SessionError, SocketError};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::host::{Net, Soon, echo, pattern, round_trip};

on_sockets!(
    a_listener_takes_over_a_tcp_socket_that_listens,
    a_listener_takes_over_a_unix_socket_and_leaves_its_file,
    a_listener_takes_over_an_abstract_unix_socket,
    engines_share_one_listening_socket,
    sessions_run_over_connected_sockets_of_every_kind,
    a_given_socket_gets_the_options_of_one_that_was_dialled,
    a_peer_that_says_nothing_over_a_given_socket_is_given_up,
    a_socket_of_another_kind_is_refused_by_what_is_wrong_with_it,
);

async fn serves(client: &Session, server: Session) {
    let serving = echo(server);
    for len in [0, 1, 5_000, 300_000] {
        round_trip(client, pattern(len, 1)).await;
    }
    client.close();
    serving.soon().await.unwrap();
}

async fn a_listener_takes_over_a_tcp_socket_that_listens(net: Net) {
    let config = Config::default();
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = Addr::Tcp(bound.local_addr().unwrap().to_string());
    let listening = net.engine().listen_on(bound, &config);
    let listener = listening.soon().await.unwrap();
    assert_eq!(*listener.local_addr(), addr);
    let client = net.engine().connect(&addr, &config).soon().await.unwrap();
    let server = listener.accept().soon().await.unwrap();
    serves(&client, server).await;
    listener.shutdown(Duration::from_secs(1)).soon().await;
    let refused = net.engine().connect(&addr, &config).soon().await;
    // A runtime that closes the socket a moment later resets a connection made until then.
    let no_session = matches!(
        refused,
        Err(ConnectError::Io { .. } | ConnectError::Handshake { .. })
    );
    assert!(no_session, "{refused:?}");
}

async fn a_listener_takes_over_a_unix_socket_and_leaves_its_file(net: Net) {
    let config = Config::default();
    let addr = net.free_unix_addr();
    let Addr::Unix(path) = &addr else { panic!() };
    for shut_down in [false, true] {
        let bound = UnixListener::bind(path).unwrap();
        let listening = net.engine().listen_on(bound, &config);
        let listener = listening.soon().await.unwrap();
        assert_eq!(*listener.local_addr(), addr);
        let client = net.engine().connect(&addr, &config).soon().await.unwrap();
        let server = listener.accept().soon().await.unwrap();
        serves(&client, server).await;
        if shut_down {
            listener.shutdown(Duration::from_secs(1)).soon().await;
        }
        drop(listener);
        assert!(path.exists(), "it is the service manager's");
        std::fs::remove_file(path).unwrap();
    }
}

async fn a_listener_takes_over_an_abstract_unix_socket(net: Net) {
    let config = Config::default();
    let host = format!("{:?}", net.host).replace(|c: char| !c.is_alphanumeric(), "");
    let name = format!("ringmux-{}-{host}", std::process::id());
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let bound = UnixListener::bind_addr(&addr).unwrap();
    let listening = net.engine().listen_on(bound, &config);
    let listener = listening.soon().await.unwrap();
    assert_eq!(listener.local_addr().to_string(), format!("unix://@{name}"));
    let socket = UnixStream::connect_addr(&addr).unwrap();
    let client = net.engine().client_over(socket, &config);
    let client = client.soon().await.unwrap();
    let server = listener.accept().soon().await.unwrap();
    serves(&client, server).await;
}

async fn engines_share_one_listening_socket(net: Net) {
    let config = Config::default();
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = Addr::Tcp(bound.local_addr().unwrap().to_string());
    let again = bound.try_clone().unwrap();
    let one = net.engine().listen_on(bound, &config).soon().await.unwrap();
    let other = net.engine().listen_on(again, &config).soon().await.unwrap();
    drop(one);
    // A connection accepted by the first listener meanwhile was closed.
    let client = loop {
        if let Ok(client) = net.engine().connect(&addr, &config).soon().await {
            break client;
        }
    };
    let server = other.accept().soon().await.unwrap();
    serves(&client, server).await;
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // From a chosen source address.
    let source: std::net::SocketAddr = "127.0.0.2:0".parse().unwrap();
    ours.bind(&source.into()).unwrap();
    ours.connect(&listener.local_addr().unwrap().into())
        .unwrap();
    (ours.into(), listener.accept().unwrap().0)
}

async fn over(net: &Net, near: OwnedFd, far: OwnedFd) -> (Session, Session) {
    let config = Config::default();
    let (client, server) = tokio::join!(
        net.engine().client_over(near, &config).soon(),
        net.engine().server_over(far, &config).soon(),
    );
    (client.unwrap(), server.unwrap())
}

async fn sessions_run_over_connected_sockets_of_every_kind(net: Net) {
    let (near, far) = tcp_pair();
    let (client, server) = over(&net, near.into(), far.into()).await;
    let from = client.local_addr().unwrap().to_string();
    assert!(from.starts_with("tcp://127.0.0.2:"), "{from}");
    assert_eq!(server.peer_addr(), client.local_addr());
    assert_eq!(client.driver(), net.driver());
    serves(&client, server).await;

    let (near, far) = UnixStream::pair().unwrap();
    // As a socket of other origin may be.
    near.set_nonblocking(true).unwrap();
    let (client, server) = over(&net, near.into(), far.into()).await;
    assert!(client.peer_addr().is_none());
    serves(&client, server).await;
}

async fn a_given_socket_gets_the_options_of_one_that_was_dialled(net: Net) {
    let (near, far) = tcp_pair();
    let watched = [near.try_clone().unwrap(), far.try_clone().unwrap()];
    let sessions = over(&net, near.into(), far.into()).await;
    for socket in &watched {
        assert!(socket.nodelay().unwrap());
        let bound = SockRef::from(socket).tcp_notsent_lowat().unwrap();
        assert_eq!(bound, 128 * 1024);
    }
    drop(sessions);
}

async fn a_peer_that_says_nothing_over_a_given_socket_is_given_up(net: Net) {
    let config = Config::builder().handshake_timeout(Duration::from_millis(100));
    let config = config.build().unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    let error = net.engine().client_over(near, &config);
    let error = error.soon().await.unwrap_err();
    let ConnectError::NoSession { error } = error else {
        panic!("{error}");
    };
    assert!(
        matches!(error, SessionError::HandshakeTimeout(_)),
        "{error}"
    );
    // And its connection is closed.
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    far.read_to_end(&mut Vec::new()).unwrap();
}

async fn a_socket_of_another_kind_is_refused_by_what_is_wrong_with_it(net: Net) {
    let (engine, config) = (net.engine(), Config::default());
    let refused = async |socket: OwnedFd| {
        let wrong = engine.listen_on(socket, &config).soon().await.unwrap_err();
        let text = wrong.to_string();
        assert!(text.starts_with("cannot listen on descriptor "), "{text}");
        match wrong {
            ListenError::Socket { error, .. } => error,
            other => panic!("{other}"),
        }
    };
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let fresh = || OwnedFd::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    let connected = UnixStream::pair().unwrap().0;
    assert!(matches!(refused(file()).await, SocketError::NotASocket));
    assert!(matches!(refused(udp()).await, SocketError::NotAStream));
    assert!(matches!(refused(fresh()).await, SocketError::NotListening));
    assert!(matches!(
        refused(connected.into()).await,
        SocketError::NotListening
    ));
    if let Some(vsock) = listening_vsock() {
        let error = refused(vsock).await;
        let named = matches!(error, SocketError::Family { family } if family == libc::AF_VSOCK);
        assert!(named, "{error}");
    }

    let refused = async |socket: OwnedFd| {
        let wrong = engine.client_over(socket, &config);
        match wrong.soon().await.unwrap_err() {
            ConnectError::Socket { error, .. } => error,
            other => panic!("{other}"),
        }
    };
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(matches!(refused(file()).await, SocketError::NotASocket));
    assert!(matches!(refused(udp()).await, SocketError::NotAStream));
    assert!(matches!(refused(fresh()).await, SocketError::NotConnected));
    assert!(matches!(
        refused(listening.into()).await,
        SocketError::Listening
    ));
}

/// `None` if this kernel does not support the family.
fn listening_vsock() -> Option<OwnedFd> {
    let socket = Socket::new(Domain::VSOCK, Type::STREAM, None).ok()?;
    socket
        .bind(&SockAddr::vsock(
            libc::VMADDR_CID_ANY,
            libc::VMADDR_PORT_ANY,
        ))
        .ok()?;
    socket.listen(1).ok()?;
    Some(socket.into())
}
