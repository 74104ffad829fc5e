//! A client that behaves like a browser, or like a slow one.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::http::{Client, LARGEST, MIB, file, serve_files};
use super::tunnel::{Tunnel, soon};

const CONNECTIONS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once_get_their_files_over_tokio() {
    a_thousand_connections_get_their_files("tokio").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once_get_their_files_over_tokio_uring() {
    a_thousand_connections_get_their_files("tokio-uring").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once_get_their_files_over_uring() {
    a_thousand_connections_get_their_files("uring").await;
}

async fn a_thousand_connections_get_their_files(driver: &str) {
    let tunnel = Tunnel::with(&serve_files().await, &["--driver", driver]);
    let all_open = Arc::new(Barrier::new(CONNECTIONS));
    let mut clients = JoinSet::new();
    for n in 0..CONNECTIONS {
        let (entry, all_open) = (tunnel.entry.clone(), Arc::clone(&all_open));
        clients.spawn(async move {
            let mut client = Client::connect(&entry).await;
            client.get(1).await?;
            // Every connection has been answered by the target, and none has ended.
            all_open.wait().await;
            let more = match n {
                0 => LARGEST,
                1..=10 => MIB,
                _ => 100 * 1024,
            };
            for len in [0, 1024, more] {
                client.get(len).await?;
            }
            Ok::<(), String>(())
        });
    }
    let failed = soon("getting all files", async {
        let results = clients.join_all().await;
        results
            .into_iter()
            .filter_map(Result::err)
            .collect::<Vec<_>>()
    });
    assert_eq!(failed.await, Vec::<String>::new());
}

#[tokio::test]
async fn a_request_whose_client_has_finished_is_answered() {
    let tunnel = Tunnel::to(&serve_files().await);
    for len in [0, 1, 100 * 1024, MIB] {
        let mut socket = request(&tunnel, len).await;
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon("the answer", socket.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{len}");
        assert!(answer.ends_with(&file(len)), "{len}");
    }
}

#[tokio::test]
async fn a_slow_reader_stops_nobody_and_loses_nothing() {
    let tunnel = Tunnel::to(&serve_files().await);
    let mut slow = request(&tunnel, LARGEST).await;
    let mut head = [0];
    slow.read_exact(&mut head).await.unwrap();
    // Its file fills every buffer on the path.
    let mut others = JoinSet::new();
    for _ in 0..20 {
        let entry = tunnel.entry.clone();
        others.spawn(async move { Client::connect(&entry).await.get(MIB).await });
    }
    let results = soon("the others' files", others.join_all()).await;
    assert_eq!(results, vec![Ok(()); 20]);

    let mut answer = Vec::with_capacity(LARGEST);
    soon("the slow reader's file", slow.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(answer.ends_with(&file(LARGEST)));
}

/// Sends a request and reads nothing of the answer.
async fn request(tunnel: &Tunnel, len: usize) -> TcpStream {
    let mut socket = tunnel.connect().await;
    let request = format!("GET /{len} HTTP/1.1\r\nhost: files\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}
