//! Targets at Unix sockets whose listeners accept late, or never.

use std::io::ErrorKind;
use std::os::unix::net;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

use super::tunnel::{Tunnel, is_reset, soon, tcp};
use crate::process::Program;

/// A listener whose backlog has no place, and the connections that wait in it.
fn full(path: &Path) -> (Socket, Vec<Socket>) {
    let addr = SockAddr::unix(path).unwrap();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&addr).unwrap();
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        match socket.connect(&addr) {
            Ok(()) => waiting.push(socket),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (listener, waiting),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_unix_target_whose_backlog_is_full_is_connected_to_when_it_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target");
    let (listener, waiting) = full(&path);
    let tunnel = Tunnel::with(&format!("unix://{}", path.display()), &[]);
    let mut client = tunnel.connect().await;
    client.write_all(b"early").await.unwrap();
    let early = tokio::time::timeout(Duration::from_secs(2), client.read(&mut [0])).await;
    assert!(early.is_err(), "it does not wait: {early:?}");
    drop(waiting);
    listener.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(net::UnixListener::from(listener)).unwrap();
    loop {
        let (mut socket, _) = soon("the connection", listener.accept()).await.unwrap();
        let mut early = [0; 5];
        // Those that filled the backlog have gone.
        if soon("its bytes", socket.read_exact(&mut early))
            .await
            .is_ok()
        {
            return assert_eq!(&early, b"early");
        }
    }
}

#[tokio::test]
async fn a_unix_target_whose_backlog_stays_full_is_given_up_after_the_connect_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target");
    let _full = full(&path);
    let target = format!("unix://{}", path.display());
    let mut serve = Program::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--allow",
        &target,
        "--connect-timeout",
        "1s",
    ]);
    let via = serve.listening();
    let pair = format!("0={target}");
    let mut forward = Program::start(&["forward", &pair, "--via", &via]);
    let mut client = TcpStream::connect(tcp(&forward.listening())).await.unwrap();
    let read = soon("the end", client.read(&mut [0])).await;
    assert!(is_reset(&read), "{read:?}");
    let words = [
        "WARN",
        target.as_str(),
        "the backlog of its listener was full for 1s",
    ];
    serve.logged(&words);
    forward.logged(&words);
}
