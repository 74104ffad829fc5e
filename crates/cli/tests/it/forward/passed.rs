//! `serve --listen systemd:N`: on a socket that was opened before, as systemd passes it.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;

use crate::process::Program;

fn serve<'a>(listen: &'a str, driver: &'a str) -> [&'a str; 7] {
    [
        "serve",
        "--listen",
        listen,
        "--allow",
        "127.0.0.1:1",
        "--driver",
        driver,
    ]
}

#[test]
fn serve_takes_a_socket_that_was_passed_and_leaves_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    for driver in ["tokio", "uring", "tokio-uring"] {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let addrs = [
            format!("tcp://{}", tcp.local_addr().unwrap()),
            format!("unix://{}", path.display()),
        ];
        for (socket, addr) in [OwnedFd::from(tcp), OwnedFd::from(unix)]
            .into_iter()
            .zip(addrs)
        {
            let ours = socket.try_clone().unwrap();
            let mut serve = Program::passed(socket, &serve("systemd:0", driver));
            assert_eq!(serve.listening(), addr);
            let mut ping = Program::start(&["ping", "-c", "1", &addr]);
            assert_eq!(ping.ended().code(), Some(0), "{driver} {addr}");
            serve.signal(Signal::TERM);
            assert_eq!(serve.ended().code(), Some(0));
            // The service manager keeps its own descriptor for a restart.
            drop(ours);
        }
        assert!(path.exists(), "the file is the service manager's");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_socket_that_is_not_there_or_wrong_is_one_clear_line() {
    let mut none = Program::start(&serve("systemd:", "tokio"));
    assert_eq!(none.ended().code(), Some(1));
    none.logged(&["error: cannot listen on systemd:0: no socket was passed in LISTEN_FDS"]);
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut wrong = Program::passed(udp(), &serve("systemd:0", "tokio"));
    assert_eq!(wrong.ended().code(), Some(1));
    wrong.logged(&["error: cannot listen on systemd:0: it is not a TCP or Unix stream socket"]);
    let mut few = Program::passed(udp(), &serve("systemd:1", "tokio"));
    assert_eq!(few.ended().code(), Some(1));
    few.logged(&["error: cannot listen on systemd:1: 1 was passed in LISTEN_FDS, counted from 0"]);
}
