//! `--max-connections` and `--max-sessions`: both ends name the limit that was met.

use std::time::Duration;

use ringmux::{Config, Driver, Engine, SessionError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::tunnel::{Tunnel, is_reset, soon, target, tcp};
use crate::process::Program;

/// Opens this many connections to the target, and holds them.
async fn fill(listener: &TcpListener, entry: &str, connections: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut client = TcpStream::connect(entry).await.unwrap();
        client.write_all(b"x").await.unwrap();
        held.push(soon("the connection", listener.accept()).await.unwrap().0);
        held.push(client);
    }
    held
}

#[tokio::test]
async fn one_connection_more_than_serve_may_have_is_refused_by_name_at_both_ends() {
    let (listener, addr) = target().await;
    let mut serve = Program::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--allow",
        &addr,
        "--max-connections",
        "16",
    ]);
    let via = serve.listening();
    let mut forward = Program::start(&["forward", &format!("0={addr}"), "--via", &via]);
    let entry = tcp(&forward.listening());
    let _held = fill(&listener, &entry, 16).await;
    let mut client = TcpStream::connect(&entry).await.unwrap();
    let read = soon("the reset", client.read(&mut [0])).await;
    assert!(is_reset(&read), "{read:?}");
    let limit = "16 connections are open already, which is --max-connections of `ringmux serve`";
    serve.logged(&["connection refused", limit]);
    forward.logged(&["connection closed", limit]);
}

#[tokio::test]
async fn one_connection_more_than_forward_may_have_waits_and_the_log_says_why() {
    let (listener, addr) = target().await;
    let mut tunnel = Tunnel::with(&addr, &[]);
    let pair = format!("0={addr}");
    let args = [
        "forward",
        &pair,
        "--via",
        &tunnel.via,
        "--max-connections",
        "16",
    ];
    tunnel.forward = Program::start(&args);
    tunnel.entry = tcp(&tunnel.forward.listening());
    let mut held = fill(&listener, &tunnel.entry, 16).await;
    let _waiting = tunnel.connect().await;
    tunnel.forward.logged(&[
        "as many connections are open as --max-connections",
        "open=16",
    ]);
    held.truncate(30);
    soon("its turn", listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_permits_no_more_streams_is_not_called_one_without_a_session() {
    let config = Config::builder().max_streams(16).build().unwrap();
    let engine = Engine::inline(Driver::Tokio).unwrap();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let listener = engine.listen(&anywhere, &config).await.unwrap();
    let via = listener.local_addr().to_string();
    let serving = tokio::spawn(async move {
        let session = listener.accept().await.unwrap();
        let mut streams = Vec::new();
        while let Ok(Some(stream)) = session.accept().await {
            streams.push(stream);
        }
    });
    let args = ["forward", "0=127.0.0.1:1", "--via", &via, "--wait", "1s"];
    let (mut forward, entry) = tokio::task::spawn_blocking({
        let args = args.map(str::to_owned);
        move || {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let mut forward = Program::start(&args);
            let entry = tcp(&forward.listening());
            (forward, entry)
        }
    })
    .await
    .unwrap();
    let mut clients = Vec::new();
    for _ in 0..17 {
        clients.push(TcpStream::connect(&entry).await.unwrap());
    }
    let told = tokio::task::spawn_blocking(move || {
        forward.logged(&[
            "connection closed",
            "permits no further connection, and none has ended within 1s",
            "--max-connections",
        ])
    });
    soon("the line", told).await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn one_session_more_than_serve_may_have_is_closed_and_logged() {
    let args = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--allow",
        "*:*",
        "--max-sessions",
        "2",
    ];
    let mut serve = Program::start(&args);
    let via = serve.listening().parse().unwrap();
    let engine = Engine::inline(Driver::Tokio).unwrap();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(engine.connect(&via, &Config::default()).await.unwrap());
    }
    let mut ended = 0;
    let begun = std::time::Instant::now();
    while ended == 0 && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        ended = sessions
            .iter()
            .filter(|session| session.state().end().is_some())
            .count();
    }
    assert_eq!(ended, 1);
    let end = sessions
        .iter()
        .find_map(|session| session.state().end())
        .unwrap();
    assert!(matches!(end, SessionError::PeerClosed { .. }), "{end}");
    serve.logged(&["session closed", "--max-sessions", "open=2"]);
}

#[test]
fn the_least_of_a_limit_is_in_the_help() {
    for command in ["serve", "forward"] {
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_ringmux"))
            .args([command, "--help"])
            .output()
            .unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("16 at least"), "{help}");
    }
}
