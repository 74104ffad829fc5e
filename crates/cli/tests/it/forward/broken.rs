//! Connections that break must not look like connections that ended in order.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{Client, LARGEST, MIB, serve_files};
use super::tunnel::{Tunnel, is_reset, reset, soon, target, tcp};
use crate::process::Program;

/// A connection through the tunnel, from both of its ends.
async fn pair() -> (Tunnel, TcpStream, TcpStream) {
    let (listener, addr) = target().await;
    let tunnel = Tunnel::to(&addr);
    let client = tunnel.connect().await;
    let (server, _) = soon("the connection", listener.accept()).await.unwrap();
    (tunnel, client, server)
}

#[tokio::test]
async fn a_target_that_breaks_off_is_not_an_end_for_the_client() {
    let (mut tunnel, mut client, mut server) = pair().await;
    server.write_all(&[7; 1000]).await.unwrap();
    client.read_exact(&mut [0; 1000]).await.unwrap();
    reset(server);
    let read = soon("the reset", client.read(&mut [0])).await;
    assert!(is_reset(&read), "{read:?}");
    tunnel.serve.logged(&["WARN", "broke"]);
    tunnel.forward.logged(&["WARN", "broke"]);
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_an_end_for_the_target() {
    let (_tunnel, mut client, mut server) = pair().await;
    client.write_all(&[7; 1000]).await.unwrap();
    server.read_exact(&mut [0; 1000]).await.unwrap();
    reset(client);
    let read = soon("the reset", server.read(&mut [0])).await;
    assert!(is_reset(&read), "{read:?}");
}

#[tokio::test]
async fn a_client_that_breaks_off_while_it_waits_for_an_answer_is_noticed() {
    let (_tunnel, mut client, mut server) = pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    soon("the end", server.read_to_end(&mut question))
        .await
        .unwrap();
    assert_eq!(question, b"question");
    reset(client);
    // The target sends nothing, and gets the reset nevertheless.
    let failed = soon("the reset", server.ready(tokio::io::Interest::ERROR)).await;
    assert!(failed.unwrap().is_error());
}

#[tokio::test]
async fn a_client_that_breaks_off_while_the_target_takes_nothing_is_noticed() {
    let (_tunnel, client, server) = pair().await;
    // Until every buffer on the way is full.
    let mut sent = 0;
    let chunk = vec![7; MIB];
    while let Ok(wrote) = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        client
            .writable()
            .await
            .and_then(|()| client.try_write(&chunk))
    })
    .await
    {
        match wrote {
            Ok(n) => sent += n,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(sent < 64 * MIB, "nothing stops the client");
    }
    reset(client);
    let failed = soon("the reset", server.ready(tokio::io::Interest::ERROR)).await;
    assert!(failed.unwrap().is_error());
}

#[tokio::test]
async fn an_answer_in_front_of_a_reset_is_delivered() {
    let (_tunnel, mut client, mut server) = pair().await;
    client.write_all(&[7; 4 * 1024]).await.unwrap();
    server.peek(&mut [0]).await.unwrap();
    server.write_all(&[8; 1000]).await.unwrap();
    // With unread bytes, closing sends a reset right behind the answer.
    drop(server);
    let mut answer = Vec::new();
    let end = soon("the reset", client.read_to_end(&mut answer)).await;
    assert!(is_reset(&end), "{end:?}");
    assert_eq!(answer, [8; 1000]);
}

#[tokio::test]
async fn a_target_may_finish_first() {
    let (_tunnel, mut client, mut server) = pair().await;
    server.write_all(&[8; 1000]).await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon("the end", client.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, [8; 1000]);
    // The other direction still works.
    client.write_all(&[7; 1000]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    soon("the question", server.read_to_end(&mut question))
        .await
        .unwrap();
    assert_eq!(question, [7; 1000]);
}

#[tokio::test]
async fn a_target_that_has_answered_in_full_need_not_hear_the_rest() {
    let (_tunnel, mut client, mut server) = pair().await;
    server.write_all(&[8; 1000]).await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    let end = soon("the end", client.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(answer, [8; 1000]);
    // The target is closed: sooner or later the client gets an error.
    let refused = async {
        while client.write_all(&[7; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("the refusal", refused).await;
}

#[tokio::test]
async fn a_lost_session_cuts_transfers_and_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let via = format!("unix://{}/via", directory.path().display());
    let files = serve_files().await;
    let serve_args = ["serve", "--listen", &via, "--allow", &files];
    let mut serve = Program::start(&serve_args);
    serve.listening();
    let pair = format!("0={files}");
    let mut forward = Program::start(&["forward", &pair, "--via", &via]);
    let entry = tcp(&forward.listening());

    let mut client = TcpStream::connect(&entry).await.unwrap();
    let request = format!("GET /{LARGEST} HTTP/1.0\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client.read_exact(&mut [0; 1000]).await.unwrap();
    serve.kill();
    let mut rest = Vec::new();
    let end = soon("the cut", client.read_to_end(&mut rest)).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(rest.len() < LARGEST);
    forward.logged(&["WARN", "session lost"]);

    // Connections made meanwhile wait for the new session.
    let mut waiting = Client::connect(&entry).await;
    let mut serve = Program::start(&serve_args);
    serve.listening();
    soon("the new session", waiting.get(MIB)).await.unwrap();
    forward.logged(&["connected again"]);
}
