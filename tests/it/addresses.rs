//! Addresses without a server, or with a server of another kind.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringmux::{
    Addr, Chain, Config, ConnectError, DialError, Driver, Engine, ListenError, Listener, Role,
    SessionError,
    wire::{FrameError, ProtocolError},
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::burst;
use crate::host::{Net, Place, Soon, echo, pattern, pause, round_trip};
use crate::raw::{PREFACE, Raw, SETTINGS, settings};

on_each_driver!(silent_clients_delay_nobody,);
on_sockets!(
    a_port_that_nobody_listens_on_is_named,
    a_host_that_does_not_exist_is_named,
    a_socket_file_that_does_not_exist_is_named,
    a_port_in_use_is_named,
    a_socket_file_in_use_is_named_and_a_stale_one_is_replaced,
    a_file_that_is_no_socket_is_not_replaced,
    a_listener_that_accepts_no_more_is_still_in_use,
    a_listener_that_shuts_down_leaves_its_path_to_its_successor,
    a_directory_without_permission_is_named,
    a_server_of_another_protocol_is_told_apart_at_its_first_byte,
    an_echo_server_is_told_apart_from_a_peer,
    a_peer_says_who_it_is_and_one_that_does_not_is_accepted,
    a_host_that_answers_nothing_is_given_up_after_the_connect_timeout,
    a_silent_server_is_given_up_after_the_handshake_timeout,
    a_server_that_hangs_up_is_no_session,
    silent_clients_beyond_the_places_make_place_for_others,
    a_dropped_listener_frees_its_address,
    engines_that_share_a_port_each_accept_some_connections,
    a_shared_port_is_shared_with_those_only_who_ask_for_it,
    a_socket_file_cannot_be_shared,
);

fn brief() -> Config {
    Config::builder()
        .handshake_timeout(Duration::from_millis(200))
        .build()
        .unwrap()
}

/// An error in one line that names the address.
fn one_line(error: &dyn std::error::Error, addr: &Addr) {
    let line = error.to_string();
    assert!(line.contains(&addr.to_string()), "{line}");
    assert!(!line.contains('\n') && line.len() < 250, "{line}");
}

async fn refused(net: &Net, addr: &Addr) -> std::io::Error {
    let error = net
        .engine()
        .connect(addr, &brief())
        .soon()
        .await
        .unwrap_err();
    one_line(&error, addr);
    match error {
        ConnectError::Io { error, .. } => error,
        other => panic!("{other}"),
    }
}

async fn a_port_that_nobody_listens_on_is_named(net: Net) {
    // Bound, so that no other test gets the port meanwhile.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    silent.bind(&any.into()).unwrap();
    let addr = silent.local_addr().unwrap().as_socket().unwrap();
    let addr = Addr::Tcp(addr.to_string());
    let error = refused(&net, &addr).await;
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

async fn a_host_that_does_not_exist_is_named(net: Net) {
    let addr = Addr::Tcp("no-such-host.invalid:80".to_owned());
    let error = net.engine().connect(&addr, &brief()).soon().await;
    let error = error.unwrap_err();
    one_line(&error, &addr);
    // A name server may be silent for longer than `connect_timeout`.
    let known = matches!(
        error,
        ConnectError::Io { .. } | ConnectError::TimedOut { .. }
    );
    assert!(known, "{error}");
}

async fn a_socket_file_that_does_not_exist_is_named(net: Net) {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(&net, &Addr::Unix(dir.path().join("missing.sock"))).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Listens where a socket was just closed. A process that another test has started has a copy of it until it runs its program.
async fn listens_at_last(net: &Net, addr: &Addr) -> Listener {
    loop {
        match net.engine().listen(addr, &Config::default()).await {
            Ok(listener) => return listener,
            Err(ListenError::Io { error, .. }) if error.kind() == ErrorKind::AddrInUse => {
                pause().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn a_port_in_use_is_named(net: Net) {
    let listener = net.listen(&Config::default()).await;
    let addr = listener.local_addr().clone();
    let error = net
        .engine()
        .listen(&addr, &Config::default())
        .soon()
        .await
        .unwrap_err();
    one_line(&error, &addr);
    let in_use = matches!(
        &error,
        ListenError::Io { error, .. } if error.kind() == ErrorKind::AddrInUse
    );
    assert!(in_use, "{error}");
    // The listener that has the port continues.
    let client = net.connect(&listener, &Config::default()).await;
    echo(listener.accept().soon().await.unwrap());
    round_trip(&client, "still here".into()).await;
}

async fn a_socket_file_in_use_is_named_and_a_stale_one_is_replaced(net: Net) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    // Closing a listening socket leaves its file.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let addr = Addr::Unix(path.clone());
    let listener = listens_at_last(&net, &addr).soon().await;
    let error = net
        .engine()
        .listen(&addr, &Config::default())
        .soon()
        .await
        .unwrap_err();
    one_line(&error, &addr);
    let config = Config::default();
    let connecting = net.engine().connect(&addr, &config).soon();
    let client = connecting.await.expect("the first listener goes on");
    echo(listener.accept().soon().await.unwrap());
    round_trip(&client, "still here".into()).await;
}

async fn in_use(net: &Net, addr: &Addr) {
    let config = Config::default();
    let listening = net.engine().listen(addr, &config).soon();
    let error = listening.await.unwrap_err();
    let in_use = matches!(
        &error,
        ListenError::Io { error, .. } if error.kind() == ErrorKind::AddrInUse
    );
    assert!(in_use, "{error}");
}

async fn a_file_that_is_no_socket_is_not_replaced(net: Net) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("letter.txt");
    std::fs::write(&path, "precious").unwrap();
    in_use(&net, &Addr::Unix(path.clone())).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

async fn a_listener_that_accepts_no_more_is_still_in_use(net: Net) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let connect = |kind| {
        let socket = Socket::new(Domain::UNIX, kind, None).unwrap();
        (socket.connect(&SockAddr::unix(&path).unwrap()), socket)
    };
    let deaf = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    deaf.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    deaf.listen(0).unwrap();
    let mut waiting = Vec::new();
    while let (Ok(()), socket) = connect(Type::STREAM.nonblocking()) {
        waiting.push(socket);
    }
    in_use(&net, &Addr::Unix(path.clone())).await;
}

async fn a_listener_that_shuts_down_leaves_its_path_to_its_successor(net: Net) {
    let dir = tempfile::tempdir().unwrap();
    let addr = Addr::Unix(dir.path().join("s.sock"));
    let config = Config::default();
    let first = net.engine().listen(&addr, &config).soon().await.unwrap();
    let old = net.engine().connect(&addr, &config).soon().await.unwrap();
    let served = first.accept().soon().await.unwrap();
    let stream = old.open("a long call").soon().await.unwrap();
    let taken = served.accept().soon().await.unwrap();

    let draining = first.shutdown(Duration::from_secs(30));
    let restart = async {
        old.draining().soon().await;
        // The first listener may not have closed its socket yet.
        let second = listens_at_last(&net, &addr).soon().await;
        drop((stream, taken));
        second
    };
    let (_, second) = tokio::join!(draining, restart);
    drop(first);
    let new = net.engine().connect(&addr, &config).soon().await;
    echo(second.accept().soon().await.unwrap());
    round_trip(&new.unwrap(), "to the second".into()).await;
}

async fn a_directory_without_permission_is_named(net: Net) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o500)).unwrap();
    // Root may write everywhere except on read-only file systems.
    let all_powerful = std::fs::write(dir.path().join("probe"), "").is_ok();
    let addr = if all_powerful {
        Addr::Unix("/proc/ringmux.sock".into())
    } else {
        Addr::Unix(dir.path().join("s.sock"))
    };
    let listening = async { net.engine().listen(&addr, &Config::default()).await };
    let error = listening.soon().await.unwrap_err();
    one_line(&error, &addr);
    assert!(matches!(error, ListenError::Io { .. }), "{error}");
}

async fn a_server_of_another_protocol_is_told_apart_at_its_first_byte(net: Net) {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Addr::Tcp(http.local_addr().unwrap().to_string());
    let serving = tokio::spawn(async move {
        let (mut socket, _) = http.accept().soon().await.unwrap();
        socket.read_u8().soon().await.unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        socket
    });
    let error = net
        .engine()
        .connect(&addr, &Config::default())
        .soon()
        .await
        .unwrap_err();
    one_line(&error, &addr);
    let ConnectError::Handshake { error: end, .. } = error else {
        panic!("{error}");
    };
    let bad = ProtocolError::Frame(FrameError::BadPreface { at: 0, found: b'H' });
    assert!(
        matches!(end, SessionError::Protocol(e) if e == bad),
        "{end}"
    );
    drop(serving.soon().await.unwrap());
}

async fn an_echo_server_is_told_apart_from_a_peer(net: Net) {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Addr::Tcp(echo.local_addr().unwrap().to_string());
    let serving = tokio::spawn(async move {
        let (mut socket, _) = echo.accept().soon().await.unwrap();
        let (mut read, mut write) = socket.split();
        let _ = tokio::io::copy(&mut read, &mut write).soon().await;
    });
    let config = Config::default();
    let connecting = net.engine().connect(&addr, &config).soon();
    let error = connecting.await.unwrap_err();
    one_line(&error, &addr);
    let said = Chain(&error).to_string();
    assert!(said.contains("echo server"), "{said}");
    let ConnectError::Handshake { error: end, .. } = error else {
        panic!("{error}");
    };
    let same = ProtocolError::SameRole { role: Role::Dialer };
    assert!(
        matches!(end, SessionError::Protocol(e) if e == same),
        "{end}"
    );
    serving.soon().await.unwrap();
}

async fn a_peer_says_who_it_is_and_one_that_does_not_is_accepted(net: Net) {
    let listener = net.listen(&Config::default()).await;
    for (entries, end) in [
        (&[][..], None),
        (&[(6, 1)], None),
        (
            &[(6, 2)],
            Some("same-role: the peer has the same role, acceptor"),
        ),
    ] {
        let mut raw = Raw::dial(&listener).await;
        raw.say(&[PREFACE, &settings(entries)[..]].concat()).await;
        assert!(raw.preface().await);
        let theirs = raw.until(SETTINGS).await.unwrap().payload;
        assert!(theirs.ends_with(&[6, 0, 2, 0, 0, 0]), "{theirs:?}");
        match end {
            None => drop(listener.accept().soon().await.unwrap()),
            Some(end) => {
                let (code, text) = raw.goaway().await;
                assert_eq!(code, ringmux::codes::PROTOCOL);
                assert!(text.starts_with(end), "{text}");
            }
        }
    }
}

async fn a_host_that_answers_nothing_is_given_up_after_the_connect_timeout(net: Net) {
    // Its listen backlog is full: further connection attempts are dropped.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    deaf.bind(&any.into()).unwrap();
    deaf.listen(0).unwrap();
    let addr = deaf.local_addr().unwrap();
    let mut queued = Vec::new();
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if socket
            .connect_timeout(&addr, Duration::from_millis(500))
            .is_err()
        {
            break;
        }
        queued.push(socket);
    }
    let limit = Duration::from_millis(200);
    let config = Config::builder().connect_timeout(limit).build().unwrap();
    let addr = Addr::Tcp(addr.as_socket().unwrap().to_string());
    let connecting = net.engine().connect(&addr, &config).soon();
    let error = connecting.await.unwrap_err();
    one_line(&error, &addr);
    let ConnectError::TimedOut {
        error: DialError::TimedOut {
            limit: told, tried, ..
        },
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*told, tried.len()), (limit, 1));
    assert_eq!(tried[0].error.kind(), ErrorKind::TimedOut);
}

async fn a_silent_server_is_given_up_after_the_handshake_timeout(net: Net) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Addr::Tcp(silent.local_addr().unwrap().to_string());
    let error = net
        .engine()
        .connect(&addr, &brief())
        .soon()
        .await
        .unwrap_err();
    one_line(&error, &addr);
    let ConnectError::Handshake { error: end, .. } = error else {
        panic!("{error}");
    };
    assert!(
        matches!(end, SessionError::HandshakeTimeout(t) if t == Duration::from_millis(200)),
        "{end}"
    );
    // The connection is closed as well.
    let (mut socket, _) = silent.accept().soon().await.unwrap();
    let mut said = Vec::new();
    socket.read_to_end(&mut said).soon().await.unwrap();
    assert!(said.starts_with(b"RINGMUX\x01"));
}

async fn a_server_that_hangs_up_is_no_session(net: Net) {
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Addr::Tcp(rude.local_addr().unwrap().to_string());
    let serving = tokio::spawn(async move {
        let (mut socket, _) = rude.accept().soon().await.unwrap();
        let mut hello = [0; 8];
        socket.read_exact(&mut hello).soon().await.unwrap();
    });
    let error = net
        .engine()
        .connect(&addr, &Config::default())
        .soon()
        .await
        .unwrap_err();
    let ConnectError::Handshake { error: end, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(end, SessionError::Disconnected | SessionError::Io(_)),
        "{end}"
    );
    assert!(end.is_retryable());
    // So does a listener that needs the place.
    assert!(error.to_string().contains("max_half_open"), "{error}");
    serving.soon().await.unwrap();
}

async fn silent_clients_delay_nobody(net: Net) {
    // Long enough for the real client, also on a busy machine.
    let config = Config::builder()
        .handshake_timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    let listener = net.listen(&config).await;
    let Addr::Tcp(addr) = listener.local_addr() else {
        panic!("a TCP host");
    };
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(addr).soon().await.unwrap());
    }
    let client = net.connect(&listener, &Config::default()).await;
    echo(listener.accept().soon().await.unwrap());
    round_trip(&client, "past the silent ones".into()).await;
    // They are closed in time, without a GOAWAY: their protocol is unknown.
    for mut socket in silent {
        let mut said = Vec::new();
        socket.read_to_end(&mut said).soon().await.unwrap();
        assert_eq!(said, b"");
    }
    round_trip(&client, "and after".into()).await;
}

async fn silent_clients_beyond_the_places_make_place_for_others(net: Net) {
    // No other limit closes a connection within this time.
    let patient = Config::builder()
        .max_half_open(8)
        .min_half_open_time(Duration::from_millis(100))
        .handshake_timeout(Duration::from_secs(3600))
        .build()
        .unwrap();
    let listener = net.listen(&patient).await;
    let Addr::Tcp(addr) = listener.local_addr() else {
        panic!("a TCP host");
    };
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(addr).soon().await.unwrap());
    }
    let client = burst::in_time(&net, &listener, &Config::default()).await;
    echo(listener.accept().soon().await.unwrap());
    round_trip(&client, "past the silent ones".into()).await;
    // The oldest were hung up on: all but as many as have a place beside it.
    for socket in &mut silent[..43] {
        let mut said = Vec::new();
        socket.read_to_end(&mut said).soon().await.unwrap();
        assert_eq!(said, b"", "its protocol is unknown");
    }
}

async fn a_dropped_listener_frees_its_address(net: Net) {
    let listener = net.listen(&Config::default()).await;
    let addr = listener.local_addr().clone();
    drop(listener);
    drop(listens_at_last(&net, &addr).soon().await);
}

async fn engines_that_share_a_port_each_accept_some_connections(net: Net) {
    const CONNECTIONS: u64 = 64;
    // The shared engine may run where rings are denied, or where the memory limit allows only one.
    let driver = if net.host.place == Place::Shared {
        Driver::Tokio
    } else {
        net.host.driver
    };
    let config = Config::default();
    let mut addr = Addr::Tcp("127.0.0.1:0".to_owned());
    let mut listeners = Vec::new();
    for _ in 0..2 {
        let engine = Engine::thread(driver).unwrap();
        let listener = engine.listen_shared(&addr, &config).soon().await.unwrap();
        addr = listener.local_addr().clone();
        listeners.push(listener);
    }
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let accepted = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&accepted);
            let task = tokio::spawn(async move {
                while let Ok(session) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    echo(session);
                }
            });
            (accepted, task)
        })
        .collect();
    for n in 0..CONNECTIONS {
        let client = net.engine().connect(&addr, &config).soon().await.unwrap();
        round_trip(&client, pattern(100, n)).await;
    }
    let shares: Vec<_> = serving
        .iter()
        .map(|(accepted, _)| accepted.load(Ordering::Relaxed))
        .collect();
    // The chance that one gets all of them is 1 in 2^63.
    assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
    assert_eq!(shares.iter().sum::<u64>(), CONNECTIONS, "{shares:?}");
    for (_, task) in serving {
        task.abort();
    }
}

async fn a_shared_port_is_shared_with_those_only_who_ask_for_it(net: Net) {
    let config = Config::default();
    let in_use = |error: ListenError| match error {
        ListenError::Io { error, .. } => error.kind() == ErrorKind::AddrInUse,
        other => panic!("{other}"),
    };
    let engine = net.engine();
    let shared = engine
        .listen_shared(&Addr::Tcp("127.0.0.1:0".to_owned()), &config)
        .soon()
        .await
        .unwrap();
    let second = engine.listen(shared.local_addr(), &config).soon().await;
    assert!(in_use(second.unwrap_err()));
    let alone = net.listen(&config).await;
    let second = engine
        .listen_shared(alone.local_addr(), &config)
        .soon()
        .await;
    assert!(in_use(second.unwrap_err()));
}

async fn a_socket_file_cannot_be_shared(net: Net) {
    let dir = tempfile::tempdir().unwrap();
    let addr = Addr::Unix(dir.path().join("shared.sock"));
    let error = net
        .engine()
        .listen_shared(&addr, &Config::default())
        .soon()
        .await
        .unwrap_err();
    one_line(&error, &addr);
    assert!(matches!(error, ListenError::NotShareable { .. }), "{error}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}
