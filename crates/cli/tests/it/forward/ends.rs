//! Unix sockets, and how the two programs end.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::http::{Client, MIB, serve_connection};
use super::tunnel::{Tunnel, is_reset, soon, target};
use crate::process::Program;

// The client's connection ends while the test waits for the programs to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn unix_sockets_carry_everything_and_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let addr = |name: &str| format!("unix://{}", path(name).display());
    let files = UnixListener::bind(path("files")).unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = files.accept().await {
            serve_connection(socket);
        }
    });
    let below = addr("*");
    let mut serve = Program::start(&["serve", "--listen", &addr("via"), "--allow", &below]);
    assert_eq!(serve.listening(), addr("via"));
    let pair = format!("{}={}", addr("entry"), addr("files"));
    let mut forward = Program::start(&["forward", &pair, "--via", &addr("via")]);
    assert_eq!(forward.listening(), addr("entry"));

    let socket = UnixStream::connect(path("entry")).await.unwrap();
    let mut client = Client::over(socket).await;
    for len in [0, 1, MIB] {
        soon("a file", client.get(len)).await.unwrap();
    }
    drop(client);
    for program in [&mut forward, &mut serve] {
        program.signal(Signal::TERM);
        assert_eq!(program.ended().code(), Some(0));
    }
    assert!(!path("entry").exists() && !path("via").exists());
}

#[tokio::test]
async fn open_connections_may_end_after_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let (listener, addr) = target().await;
        let mut tunnel = Tunnel::to(&addr);
        let mut client = tunnel.connect().await;
        let (mut server, _) = soon("the connection", listener.accept()).await.unwrap();
        tunnel.forward.signal(signal);
        tunnel.serve.signal(signal);
        tunnel.forward.logged(&["shutting down"]);
        tunnel.serve.logged(&["shutting down"]);

        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        soon("the question", server.read_to_string(&mut question))
            .await
            .unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        soon("the answer", client.read_to_string(&mut answer))
            .await
            .unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        assert_eq!(tunnel.forward.ended().code(), Some(0));
        assert_eq!(tunnel.serve.ended().code(), Some(0));
    }
}

#[tokio::test]
async fn a_server_that_drains_leaves_new_connections_to_the_next_one() {
    let (listener, addr) = target().await;
    let mut tunnel = Tunnel::to(&addr);
    let mut open = tunnel.connect().await;
    let (mut accepted, _) = soon("the connection", listener.accept()).await.unwrap();
    tunnel.serve.signal(Signal::TERM);
    tunnel.serve.logged(&["shutting down"]);
    tunnel.forward.logged(&["session lost"]);
    let _late = tunnel.connect().await;

    let via = tunnel.via.clone();
    let next_args = ["serve", "--listen", &via, "--allow", &addr];
    let mut next = Program::start(&next_args);
    assert_eq!(next.listening(), via);
    soon("the late connection", listener.accept())
        .await
        .unwrap();

    // The first server carries its open connections to their end.
    open.write_all(b"question").await.unwrap();
    open.shutdown().await.unwrap();
    let mut question = String::new();
    let reading = accepted.read_to_string(&mut question);
    soon("the question", reading).await.unwrap();
    assert_eq!(question, "question");
    drop(accepted);
    assert_eq!(tunnel.serve.ended().code(), Some(0));
    tunnel
        .serve
        .logged(&["INFO", "shut down", "finished=1", "cut=0", "forced=0"]);
}

#[tokio::test]
async fn what_a_server_could_not_end_in_its_grace_is_cut_and_told() {
    let (listener, addr) = target().await;
    let mut tunnel = Tunnel::with(&addr, &["--grace", "50ms"]);
    let mut client = tunnel.connect().await;
    let (mut server, _) = soon("the connection", listener.accept()).await.unwrap();
    tunnel.serve.signal(Signal::TERM);
    for socket in [&mut client, &mut server] {
        let read = soon("the cut", socket.read(&mut [0])).await;
        assert!(is_reset(&read), "{read:?}");
    }
    assert_eq!(tunnel.serve.ended().code(), Some(0));
    tunnel
        .serve
        .logged(&["WARN", "shut down", "finished=0", "cut=1", "forced=1"]);
}

#[tokio::test]
async fn what_has_not_ended_in_the_grace_is_cut() {
    let (listener, addr) = target().await;
    let mut tunnel = Tunnel::with(&addr, &["--grace", "50ms"]);
    let mut client = tunnel.connect().await;
    let (mut server, _) = soon("the connection", listener.accept()).await.unwrap();
    tunnel.forward.signal(Signal::TERM);
    assert_eq!(tunnel.forward.ended().code(), Some(0));
    for socket in [&mut client, &mut server] {
        let read = soon("the cut", socket.read(&mut [0])).await;
        assert!(is_reset(&read), "{read:?}");
    }
    tunnel.serve.signal(Signal::TERM);
    assert_eq!(tunnel.serve.ended().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for ends_first in ["forward", "serve"] {
        let (listener, addr) = target().await;
        let mut tunnel = Tunnel::with(&addr, &["--grace", "600s"]);
        let _client = tunnel.connect().await;
        let _server = soon("the connection", listener.accept()).await.unwrap();
        let program = match ends_first {
            "forward" => &mut tunnel.forward,
            _ => &mut tunnel.serve,
        };
        program.signal(Signal::TERM);
        program.logged(&["shutting down"]);
        program.signal(Signal::TERM);
        assert_eq!(program.ended().code(), Some(1));
        program.logged(&["error: stopped at once by a second signal"]);
    }
}
