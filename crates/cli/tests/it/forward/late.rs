//! Programs that start before their server, and those that end while they wait.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tunnel::{soon, target, tcp};
use crate::process::Program;

/// A port that is free for the moment.
fn port() -> String {
    // An address of its own: the others listen on 127.0.0.1, so that no other test gets the port meanwhile.
    static ADDRESS: AtomicU8 = AtomicU8::new(2);
    let own = Ipv4Addr::new(127, 0, 0, ADDRESS.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((own, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn forward_with_retry_says_what_it_waits_for_and_carries_what_came_meanwhile() {
    let (listener, addr) = target().await;
    let via = port();
    let pair = format!("0={addr}");
    let args = ["forward", "--retry", &pair, "--via", &via, "--wait", "60s"];
    let mut forward = Program::start(&args);
    let entry = tcp(&forward.listening());
    let mut client = tokio::net::TcpStream::connect(&entry).await.unwrap();
    client.write_all(b"early").await.unwrap();
    let waiting = format!("waiting for tcp://{via}: connection refused, attempt ");
    forward.logged(&[&waiting]);
    let mut serve = Program::start(&["serve", "--listen", &via, "--allow", &addr]);
    serve.listening();
    let (mut server, _) = soon("the connection", listener.accept()).await.unwrap();
    let mut early = [0; 5];
    server.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    forward.logged(&["INFO", "connected"]);
}

#[test]
fn ping_with_retry_says_what_it_waits_for_and_then_pings() {
    let addr = port();
    let mut ping = Program::start(&["ping", "--retry", "-c", "1", &addr]);
    let waiting = format!("waiting for tcp://{addr}: connection refused, attempt ");
    ping.logged(&[&waiting]);
    let mut serve = Program::start(&["serve", "--listen", &addr, "--allow", "127.0.0.1:1"]);
    serve.listening();
    assert_eq!(ping.ended().code(), Some(0));
}

#[test]
fn a_server_of_another_protocol_ends_a_ping_that_tries_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let mut ping = Program::start(&["ping", "--retry", &addr]);
    // Ends with the test, with or without a connection.
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept()?;
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        socket.read_to_end(&mut Vec::new())
    });
    assert_eq!(ping.ended().code(), Some(1));
    ping.logged(&["error: cannot connect to", "the peer broke the protocol"]);
}

/// A server that accepts and never sends a byte.
#[test]
fn a_first_attempt_that_takes_long_is_told_after_a_second() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    for command in [
        &["ping", &addr][..],
        &["forward", "0=127.0.0.1:1", "--via", &addr],
        &["attack", "--attack", "metadata", &addr],
    ] {
        let begun = Instant::now();
        let mut program = Program::start(command);
        let line = program.logged(&["waiting for"]);
        assert_eq!(line, format!("waiting for tcp://{addr}: nothing yet"));
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
}

/// A network namespace whose name server never answers: packets to it are lost.
const SILENT_NAMES: &str = "\
ip link set lo up && ip addr add 198.51.100.1/32 dev lo && ip route add 192.0.2.1/32 dev lo && \
mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

struct SilentNames(tempfile::TempDir);

impl SilentNames {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conf = "nameserver 192.0.2.1\noptions timeout:30 attempts:5\n";
        std::fs::write(dir.path().join("resolv.conf"), conf).unwrap();
        Self(dir)
    }

    fn start(&self, args: &[&str]) -> Program {
        let conf = self.0.path().join("resolv.conf");
        let conf = conf.to_str().expect("a path of ours");
        let root = rustix::process::geteuid().is_root();
        let map = if root { &[][..] } else { &["--map-root-user"] };
        let unshare = ["unshare", "--net", "--mount"];
        let wrapper = [&unshare[..], map, &["sh", "-c", SILENT_NAMES, conf]].concat();
        Program::under(&wrapper, args, Stdio::piped())
    }
}

/// More than the shutdown takes, and less than the resolver's timeout.
const END_MAX: Duration = Duration::from_secs(8);

#[test]
fn a_signal_ends_a_command_that_waits_for_a_name() {
    let silent = SilentNames::new();
    let commands: [(&[&str], i32); 6] = [
        (
            &["serve", "--listen", "host.example:7000", "--allow", "*:*"],
            0,
        ),
        (
            &["forward", "0=127.0.0.1:1", "--via", "host.example:7000"],
            0,
        ),
        (
            &[
                "forward",
                "--retry",
                "0=127.0.0.1:1",
                "--via",
                "host.example:7000",
            ],
            0,
        ),
        (
            &[
                "forward",
                "host.example:1=127.0.0.1:1",
                "--via",
                "127.0.0.1:1",
            ],
            0,
        ),
        (&["ping", "host.example:7000"], 1),
        (&["ping", "--retry", "host.example:7000"], 1),
    ];
    let mut programs = commands.map(|(args, code)| (silent.start(args), args, code));
    for (program, args, code) in &mut programs {
        program.logged(&["waiting for", "host.example"]);
        let begun = Instant::now();
        program.signal(Signal::TERM);
        assert_eq!(program.ended().code(), Some(*code), "{args:?}");
        let took = begun.elapsed();
        assert!(took < END_MAX, "{args:?}: {took:?}");
    }
}

#[test]
fn a_server_ends_within_its_grace_while_a_target_is_looked_up() {
    for driver in ["tokio", "uring", "tokio-uring"] {
        let silent = SilentNames::new();
        let dir = tempfile::tempdir().unwrap();
        let via = format!("unix://{}", dir.path().join("s").display());
        let entry = dir.path().join("f");
        let pair = format!("{}=host.example:1", entry.display());
        let args = [
            "serve",
            "--listen",
            &via,
            "--allow",
            "*:*",
            "--connect-timeout",
            "100s",
        ];
        let mut serve = silent.start(
            &[
                &args[..],
                &["--grace", "1s", "--driver", driver, "--log=debug"],
            ]
            .concat(),
        );
        serve.listening();
        let mut forward = Program::start(&["forward", &pair, "--via", &via, "--wait", "100s"]);
        forward.listening();
        let _client = std::os::unix::net::UnixStream::connect(&entry).unwrap();
        serve.logged(&["connecting", "host.example"]);
        let begun = Instant::now();
        serve.signal(Signal::TERM);
        assert_eq!(serve.ended().code(), Some(0));
        let took = begun.elapsed();
        assert!(took < END_MAX, "{driver}: {took:?}");
    }
}
