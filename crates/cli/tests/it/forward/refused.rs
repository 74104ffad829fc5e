//! Unreachable targets, and wrong addresses.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::tunnel::{Tunnel, is_reset, refusing, soon, target};
use crate::process::Program;

/// Far below any timeout of the program.
const AT_ONCE: Duration = Duration::from_secs(8);

async fn is_closed_at_once(tunnel: &Tunnel) {
    let begin = Instant::now();
    let mut client = tunnel.connect().await;
    let read = soon("the end", client.read(&mut [0])).await;
    assert!(is_reset(&read), "{read:?}");
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_target_that_refuses_closes_the_connection_and_both_ends_say_why() {
    let (_refusing, addr) = refusing();
    let mut tunnel = Tunnel::to(&addr);
    is_closed_at_once(&tunnel).await;
    let words = ["WARN", addr.as_str(), "Connection refused"];
    tunnel.serve.logged(&words);
    tunnel.forward.logged(&words);
}

#[tokio::test]
async fn a_target_that_is_not_allowed_is_not_connected_to() {
    let (listener, addr) = target().await;
    let mut tunnel = Tunnel::allowing("127.0.0.1:1", &addr, &[]);
    is_closed_at_once(&tunnel).await;
    let words = ["WARN", addr.as_str(), "is not allowed"];
    tunnel.serve.logged(&words);
    tunnel.forward.logged(&words);
    let accepted = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(accepted.is_err(), "the target was connected to");
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_one_to_end() {
    let (listener, addr) = target().await;
    let tunnel = Tunnel::with(&addr, &["--max-connections", "16"]);
    let mut open = Vec::new();
    for _ in 0..16 {
        let client = tunnel.connect().await;
        open.push((client, soon("a place", listener.accept()).await.unwrap()));
    }
    let _waiting = tunnel.connect().await;
    let early = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(early.is_err(), "the 17th did not wait");
    open.pop();
    soon("the place that has become free", listener.accept())
        .await
        .unwrap();
}

fn fails(args: &[&str]) -> String {
    let mut program = Program::start(args);
    let status = program.ended();
    assert_eq!(status.code(), Some(1), "{:?}", program.stderr());
    program.only_line().to_owned()
}

#[test]
fn a_wrong_server_is_told_in_one_line() {
    let (_refusing, via) = refusing();
    let line = fails(&["forward", "0=127.0.0.1:1", "--via", &via]);
    assert_eq!(
        line,
        format!(
            "error: cannot connect to tcp://{via}: connection refused: is `ringmux serve` listening there?"
        )
    );
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let expected = format!("error: cannot listen on tcp://{addr}: address already in use");
    let serve = ["serve", "--listen", &addr, "--allow", "127.0.0.1:1"];
    assert_eq!(fails(&serve), expected);
    let pair = format!("{addr}=127.0.0.1:1");
    assert_eq!(fails(&["forward", &pair, "--via", "127.0.0.1:1"]), expected);
}

#[test]
fn a_socket_file_in_a_directory_that_does_not_exist_is_told_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let addr = format!("unix://{}/none/socket", directory.path().display());
    let expected = format!("error: cannot listen on {addr}: no such file or directory");
    let serve = ["serve", "--listen", &addr, "--allow", "127.0.0.1:1"];
    assert_eq!(fails(&serve), expected);
    let pair = format!("{addr}=127.0.0.1:1");
    assert_eq!(fails(&["forward", &pair, "--via", "127.0.0.1:1"]), expected);
}
