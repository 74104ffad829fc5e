//! The application's own transports: all behaviours that `AsyncRead + AsyncWrite` allows.

use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use ringmux::{Config, SessionError};
use tokio::io::{AsyncRead, AsyncWrite, BufStream, ReadBuf};

use crate::host::{Soon, echo, pattern, round_trip, run_with, tokio_runtime};

#[test]
fn what_a_transport_holds_back_is_flushed() {
    run_with(|| {
        tokio_runtime().block_on(async {
            // The flushed bytes do not fit into the pipe, so that flushing has to wait.
            let (a, b) = tokio::io::duplex(100);
            let (client, connection) = ringmux::client(BufStream::new(a), &Config::default());
            tokio::spawn(connection);
            let (server, connection) = ringmux::server(BufStream::new(b), &Config::default());
            tokio::spawn(connection);
            client.established().soon().await.unwrap();
            echo(server.clone());
            for len in [0, 1, 5_000, 300_000] {
                round_trip(&client, pattern(len, 0)).await;
            }
            client.close();
            let end = server.closed().soon().await;
            assert!(matches!(end, SessionError::PeerClosed { .. }), "{end}");
        });
    });
}

/// Takes all writes, and always has more invalid bytes to read. It never yields to other tasks.
struct Flood;

impl AsyncRead for Flood {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buf.put_slice(&vec![0; buf.remaining()]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_flood_behind_the_end_of_a_session_does_not_hold_its_thread() {
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        tokio_runtime().block_on(async {
            let (_session, connection) = ringmux::client(Flood, &Config::default());
            ended.send(connection.await).unwrap();
        });
    });
    // Not on the runtime's clock, whose thread would be blocked.
    let end = end.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(matches!(end, SessionError::Protocol(_)), "{end}");
}
