//! DRPC on every driver: the handles of streams over it, and listeners that tell it from ringmux's own wire.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use ringmux::drpc::{DrpcError, Profile};
use ringmux::wire::ProtocolError;
use ringmux::{Addr, Config, ConnectError, Listener, Session, SessionError, Wire};

use crate::burst;
use crate::host::{Net, Soon, echo, eventually, pattern, round_trip};

everywhere!(streams_go_over_drpc);
on_each_driver!(
    a_listener_tells_wires_apart_by_their_first_bytes,
    first_bytes_that_come_one_by_one_tell_as_well,
    a_connection_over_noise_is_refused_by_name,
    silent_connections_whose_wire_is_not_known_make_place_for_others,
    a_silent_connection_is_hung_up_on_at_the_limit_of_its_first_call,
    a_shutdown_drains_sessions_whose_wire_was_not_known_yet,
    a_given_socket_tells_its_wire_as_well,
    a_session_that_does_not_read_learns_that_its_connection_is_gone,
    answers_of_a_peer_that_has_closed_in_order_are_read_however_late,
    a_connection_that_is_held_back_leaves_the_others_of_its_engine_alone,
);

fn over(profile: Profile) -> Config {
    Config::builder().drpc(profile).build().unwrap()
}

fn detecting() -> Config {
    let detect = Config::builder().detect_drpc(Some(Profile::STORJ));
    detect.build().unwrap()
}

async fn streams_go_over_drpc(net: Net) {
    for profile in [Profile::STORJ, Profile::COCKROACH] {
        let config = over(profile.header(profile == Profile::STORJ));
        let (client, server) = net.pair_with(&config, &config).await;
        assert_eq!(server.wire(), config.wire());
        let serving = echo(server);
        let calls = (0..8_u64).map(|n| {
            let (client, len) = (
                client.clone(),
                net.scaled([0, 1, 5_000, 200_000][n as usize % 4]),
            );
            tokio::spawn(async move { round_trip(&client, pattern(len, n)).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.soon().await.unwrap();
        }
        client.close();
        let end = serving.soon().await.unwrap();
        assert!(matches!(end, SessionError::Disconnected), "{end:?}");
    }
}

/// Connects a client with these settings, and serves it.
async fn serves(net: &Net, listener: &Listener, client: &Config) -> (Session, Wire) {
    let client = net.connect(listener, client).await;
    // Over DRPC nothing is sent before the first call.
    let opening = client.open("").soon().await.unwrap();
    let server = listener.accept().soon().await.unwrap();
    let wire = server.wire();
    echo(server);
    drop(opening);
    round_trip(&client, pattern(70_000, 1)).await;
    (client, wire)
}

/// The same of a listener that hangs up on a client that the machine keeps waiting for too long: then with another one.
async fn serves_in_time(net: &Net, listener: &Listener, config: &Config) {
    let serving = async {
        loop {
            let client = burst::in_time(net, listener, config).await;
            let Ok(_opening) = client.open("").await else {
                continue;
            };
            tokio::select! {
                server = listener.accept() => {
                    echo(server.unwrap());
                    return client;
                }
                _ = client.closed() => {}
            }
        }
    };
    round_trip(&serving.soon().await, pattern(70_000, 1)).await;
}

async fn a_listener_tells_wires_apart_by_their_first_bytes(net: Net) {
    let listener = net.listen(&detecting()).await;
    let drpc = Wire::Drpc(Profile::STORJ);
    for (client, wire) in [
        (Config::default(), Wire::Native),
        (over(Profile::STORJ), drpc),
        (over(Profile::STORJ.header(true)), drpc),
        (Config::default(), Wire::Native),
    ] {
        let (_client, seen) = serves(&net, &listener, &client).await;
        assert_eq!(seen, wire);
    }
}

fn raw(listener: &Listener) -> TcpStream {
    let Addr::Tcp(addr) = listener.local_addr() else {
        panic!("a host with TCP");
    };
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

async fn first_bytes_that_come_one_by_one_tell_as_well(net: Net) {
    let listener = net.listen(&detecting()).await;
    let mut socket = raw(&listener);
    // The header, Invoke of "/a/B" on stream 1.
    for byte in b"DRPC!!!1\x03\x01\x01\x04/a/B" {
        socket.write_all(&[*byte]).unwrap();
        tokio::task::yield_now().await;
    }
    let server = listener.accept().soon().await.unwrap();
    assert_eq!(server.wire(), Wire::Drpc(Profile::STORJ));
    let (send, _recv) = server.accept().soon().await.unwrap().unwrap();
    assert_eq!(send.opening(), "/a/B");

    let mut socket = raw(&listener);
    for byte in b"\x0f\x01\x01\x00\x03\x01\x02\x01x" {
        socket.write_all(&[*byte]).unwrap();
        tokio::task::yield_now().await;
    }
    let server = listener.accept().soon().await.unwrap();
    let (send, _recv) = server.accept().soon().await.unwrap().unwrap();
    assert_eq!(send.opening(), "x");
}

async fn a_connection_over_noise_is_refused_by_name(net: Net) {
    for config in [detecting(), over(Profile::STORJ)] {
        let listener = net.listen(&config).await;
        let mut socket = raw(&listener);
        socket.write_all(b"DRPC!N!1 and more").unwrap();
        let server = listener.accept().soon().await.unwrap();
        let end = server.closed().soon().await;
        let noise = ProtocolError::Drpc(DrpcError::NoisePrefix);
        assert!(
            matches!(end, SessionError::Protocol(error) if error == noise),
            "{end:?}"
        );
    }
}

async fn silent_connections_whose_wire_is_not_known_make_place_for_others(net: Net) {
    let config = Config::builder()
        .detect_drpc(Some(Profile::STORJ))
        .max_half_open(2)
        .min_half_open_time(Duration::from_millis(100));
    let listener = net.listen(&config.build().unwrap()).await;
    let silent: Vec<TcpStream> = (0..6).map(|_| raw(&listener)).collect();
    let _ = (&silent[0]).write_all(b"DRPC");
    for client in [Config::default(), over(Profile::STORJ)] {
        serves_in_time(&net, &listener, &client).await;
    }
    // The oldest were hung up on.
    let mut first = &silent[0];
    first.set_nonblocking(true).unwrap();
    eventually("it is hung up on", || {
        let read = first.read(&mut [0]);
        !matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    })
    .await;
}

async fn a_silent_connection_is_hung_up_on_at_the_limit_of_its_first_call(net: Net) {
    let limit = Duration::from_millis(200);
    let config = over(Profile::STORJ.first_call(Some(limit)));
    let listener = net.listen(&config).await;
    for bytes in [&b""[..], b"DRPC!!!1", b"\x03\x01\x01\x10/never"] {
        let mut silent = raw(&listener);
        silent.write_all(bytes).unwrap();
        let server = listener.accept().soon().await.unwrap();
        let end = server.closed().soon().await;
        assert!(
            matches!(end, SessionError::HandshakeTimeout(after) if after == limit),
            "{end:?}"
        );
        silent
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let read = silent.read(&mut [0]);
        assert!(
            matches!(read, Ok(0))
                || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
}

async fn a_shutdown_drains_sessions_whose_wire_was_not_known_yet(net: Net) {
    let listener = net.listen(&detecting()).await;
    let mut undecided = raw(&listener);
    undecided.write_all(b"DRP").unwrap();
    // Accepted, as it came before this one.
    let (client, _) = serves(&net, &listener, &over(Profile::STORJ)).await;
    let begun = std::time::Instant::now();
    let report = listener.shutdown(Duration::from_secs(20)).soon().await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(report.cancelled, 0, "{report:?}");
    client.closed().soon().await;
    undecided
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut rest = Vec::new();
    // Hung up on, with or without the words of ringmux's own wire.
    let _ = undecided.read_to_end(&mut rest);
}

async fn a_given_socket_tells_its_wire_as_well(net: Net) {
    for client in [Config::default(), over(Profile::STORJ)] {
        let (here, there) = UnixStream::pair().unwrap();
        let wire = client.wire();
        let session = async {
            let session = net.engine().client_over(here, &client).await.unwrap();
            // Over DRPC nothing is sent before the first call.
            let opening = session.open("").await.unwrap();
            (session, opening)
        };
        let detecting = detecting();
        let serving = net.engine().server_over(there, &detecting);
        let ((session, opening), server) = tokio::join!(session.soon(), serving.soon());
        let server = server.unwrap();
        assert_eq!(server.wire(), wire);
        echo(server);
        drop(opening);
        round_trip(&session, pattern(70_000, 1)).await;
    }
    // The time of a handshake is the limit of the wait.
    let brief = Config::builder()
        .detect_drpc(Some(Profile::STORJ))
        .handshake_timeout(Duration::from_millis(50));
    let brief = brief.build().unwrap();
    let (_silent, there) = UnixStream::pair().unwrap();
    let refused = net.engine().server_over(there, &brief);
    let refused = refused.soon().await.unwrap_err();
    let late = matches!(
        &refused,
        ConnectError::NoSession {
            error: SessionError::HandshakeTimeout(_)
        }
    );
    assert!(late, "{refused:?}");
}

/// A message of the call 1, in one frame.
fn message(number: usize, data: &[u8]) -> Vec<u8> {
    let varint = |n: usize| [n as u8 | 0x80, (n >> 7) as u8];
    let header = [[0x05, 0x01], varint(number), varint(data.len())];
    [header.as_flattened(), data].concat()
}

/// Nothing is read from a peer without credit while its messages wait for the application.
async fn a_connection_that_is_held_back_leaves_the_others_of_its_engine_alone(net: Net) {
    const WINDOW: u32 = 256 << 10;
    const LONG: usize = 8 << 10;
    /// More than a ring has buffers.
    const PIECES: usize = 64;
    let config = Config::builder()
        .detect_drpc(Some(Profile::STORJ))
        .session_window(WINDOW)
        .session_window_max(WINDOW)
        .build()
        .unwrap();
    let listener = net.listen(&config).await;
    let neighbour = net.connect(&listener, &Config::default()).await;
    echo(listener.accept().soon().await.unwrap());
    let mut socket = raw(&listener);
    socket.write_all(b"\x03\x01\x01\x04/a/B").unwrap();
    let server = listener.accept().soon().await.unwrap();
    let (_send, mut recv) = server.accept().soon().await.unwrap().unwrap();

    let mut sent = Vec::new();
    while server.stats().bytes_held < WINDOW.into() {
        sent.push(pattern(LONG, sent.len() as u64));
        let number = sent.len() + 1;
        (socket.write_all(&message(number, &sent[number - 2]))).unwrap();
        // Its engine has looked at the socket meanwhile: each message arrives by itself.
        round_trip(&neighbour, pattern(100, number as u64)).await;
        assert!(number < 100, "{:?}", server.stats());
    }
    for _ in 0..PIECES {
        sent.push(pattern(1, sent.len() as u64));
        let number = sent.len() + 1;
        (socket.write_all(&message(number, &sent[number - 2]))).unwrap();
        round_trip(&neighbour, pattern(100, number as u64)).await;
    }
    let newcomer = net.connect(&listener, &Config::default()).await;
    echo(listener.accept().soon().await.unwrap());
    round_trip(&newcomer, pattern(70_000, 1)).await;

    for (n, sent) in sent.iter().enumerate() {
        let received = recv.recv().soon().await.unwrap().expect("a message");
        assert!(received == *sent, "message {n}");
    }
}

/// Unread messages hold the session back from reading, and so from the end behind them.
async fn a_session_that_does_not_read_learns_that_its_connection_is_gone(net: Net) {
    const WINDOW: u32 = 256 << 10;
    const LONG: usize = 8 << 10;
    let config = Config::builder()
        .drpc(Profile::STORJ)
        .session_window(WINDOW)
        .session_window_max(WINDOW)
        .keepalive_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let listener = net.listen(&config).await;
    let mut socket = raw(&listener);
    socket.write_all(b"\x03\x01\x01\x04/a/B").unwrap();
    let server = listener.accept().soon().await.unwrap();
    let (_send, mut recv) = server.accept().soon().await.unwrap().unwrap();
    // More than the window, and than the buffers of both systems.
    let sending: Vec<u8> = (2..4000).flat_map(|n| message(n, &[7; LONG])).collect();
    let mut sent = 0;
    socket.set_nonblocking(true).unwrap();
    eventually("the session is full", || {
        while sent < sending.len()
            && let Ok(n) = socket.write(&sending[sent..])
        {
            sent += n;
        }
        server.stats().bytes_held >= WINDOW.into()
    })
    .await;
    assert!(sent < sending.len(), "nothing is left unread");
    assert!(server.state().end().is_none());
    socket2::SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(socket);
    let end = server.closed().soon().await;
    let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(
        matches!(&end, SessionError::Disconnected)
            || matches!(&end, SessionError::Io(error) if is_reset(error)),
        "{end:?}"
    );
    // What had arrived is still there, and then the reason.
    let mut messages = 0;
    while let Ok(Some(_)) = recv.recv().soon().await {
        messages += 1;
    }
    assert!(messages >= WINDOW as usize / (2 * LONG), "{messages}");
}

/// A socket that is written to as it takes bytes.
trait Socket: Read + Write {
    fn unblock(&self);
}

impl Socket for TcpStream {
    fn unblock(&self) {
        self.set_nonblocking(true).unwrap();
    }
}

impl Socket for UnixStream {
    fn unblock(&self) {
        self.set_nonblocking(true).unwrap();
    }
}

/// A client over a socket of this kind, and its peer.
async fn dialled(net: &Net, unix: bool, config: &Config) -> (Session, Box<dyn Socket>) {
    let dialled = async |addr: &Addr| net.engine().connect(addr, config).soon().await.unwrap();
    if unix {
        let addr = net.free_unix_addr();
        let Addr::Unix(path) = &addr else {
            unreachable!("it is one");
        };
        let listener = UnixListener::bind(path).unwrap();
        let client = dialled(&addr).await;
        (client, Box::new(listener.accept().unwrap().0))
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = Addr::Tcp(listener.local_addr().unwrap().to_string());
        let client = dialled(&addr).await;
        (client, Box::new(listener.accept().unwrap().0))
    }
}

/// The client holds as much as it may, and the end is behind bytes that it has not read: also where it looks for it, and where
/// credit that it returns finds no reader any more.
async fn answers_of_a_peer_that_has_closed_in_order_are_read_however_late(net: Net) {
    const WINDOW: u32 = 256 << 10;
    const LONG: usize = 8 << 10;
    const LOOK: Duration = Duration::from_millis(50);
    let returning = Profile::COCKROACH.window(64 << 10);
    for (unix, profile) in [
        (true, Profile::STORJ),
        (true, returning),
        (false, Profile::STORJ),
        (false, returning),
    ] {
        let config = Config::builder()
            .drpc(profile)
            .session_window(WINDOW)
            .session_window_max(WINDOW)
            .keepalive_timeout(4 * LOOK)
            .build()
            .unwrap();
        let (client, mut peer) = dialled(&net, unix, &config).await;
        let (mut send, mut recv) = client.open("/a/B").soon().await.unwrap();
        send.send("?").soon().await.unwrap();
        let mut asked = Vec::new();
        peer.unblock();
        eventually("the call is invoked", || {
            let _ = peer.read_to_end(&mut asked);
            asked.ends_with(b"?")
        })
        .await;
        // Answers that stay in the client's socket. Those in a peer's socket over TCP are lost to a reset.
        let mut rest = if unix { 12 } else { 3 };
        let (mut count, mut answers) = (0, Vec::new());
        eventually("the session is full, and all is sent", || {
            loop {
                match peer.write(&answers) {
                    Ok(n) => answers.drain(..n),
                    Err(_) => return false,
                };
                let stats = client.stats();
                match stats.bytes_held >= WINDOW.into() {
                    true if rest == 0 => return answers.is_empty(),
                    true => rest -= 1,
                    false if stats.messages_received < count => return false,
                    false => {}
                }
                count += 1;
                answers.extend(message(1 + count as usize, &pattern(LONG, count)));
                if rest == 0 {
                    answers.extend(b"\x0d\x01\xff\x7f\x00");
                }
            }
        })
        .await;
        drop(peer);
        // It looks meanwhile.
        tokio::time::sleep(10 * LOOK).await;
        for n in 1..=count {
            let received = recv.recv().soon().await;
            let received =
                received.unwrap_or_else(|end| panic!("{profile:?}, unix {unix}, {n}: {end}"));
            assert!(received.unwrap() == pattern(LONG, n), "message {n}");
        }
        let end = recv.recv().soon().await.unwrap();
        assert!(end.is_none(), "the end of the answers");
        drop((send, recv));
        client.closed().soon().await;
    }
}
