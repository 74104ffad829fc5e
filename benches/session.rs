//! Whole sessions over an in-memory pipe, both ends on one thread: no kernel, so it measures
//! handles, protocol and turn loop. Named part/scenario/parameter.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmux::{Config, RecvStream, SendStream, Session};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PIPE_BYTES: usize = 256 * 1024;

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Two sessions joined by a pipe; the server echoes every message of every stream.
async fn echoing() -> Session {
    let (a, b) = tokio::io::duplex(PIPE_BYTES);
    let (client, connection) = ringmux::client(a, &Config::default());
    tokio::spawn(connection);
    let (server, connection) = ringmux::server(b, &Config::default());
    tokio::spawn(connection);
    tokio::spawn(async move {
        while let Ok(Some(stream)) = server.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    client.established().await.expect("the server answers");
    client
}

async fn echo((mut send, mut recv): (SendStream, RecvStream)) {
    while let Ok(Some(message)) = recv.recv().await {
        if send.send(message).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}

fn round_trip(c: &mut Criterion) {
    let runtime = runtime();
    let (mut send, mut recv) = runtime.block_on(async {
        let client = echoing().await;
        client.open("").await.expect("the session is alive")
    });
    for size in [64_usize, 1024, 16 * 1024] {
        let message = vec![7; size];
        c.bench_function(&format!("session/round_trip/{size}"), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    send.send_slice(&message).await.expect("sent");
                    let lease = recv.lease().await.expect("received").expect("a message");
                    assert_eq!(black_box(&lease).len(), size);
                });
            });
        });
    }
}

fn pipelined(c: &mut Criterion) {
    const MESSAGES: u64 = 1000;
    let runtime = runtime();
    let (mut send, mut recv) = runtime.block_on(async {
        let client = echoing().await;
        client.open("").await.expect("the session is alive")
    });
    let message = Bytes::from_static(&[7; 64]);
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("pipelined_echo/64", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let sending = async {
                    for _ in 0..MESSAGES {
                        send.send_slice(&message).await.expect("sent");
                    }
                };
                let receiving = async {
                    for _ in 0..MESSAGES {
                        let lease = recv.lease().await.expect("received");
                        assert_eq!(lease.expect("a message").len(), 64);
                    }
                };
                tokio::join!(sending, receiving);
            });
        });
    });
    group.finish();
}

fn open_close(c: &mut Criterion) {
    let runtime = runtime();
    let client = runtime.block_on(echoing());
    c.bench_function("session/open_call_close/64", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let (mut send, mut recv) = client.open("").await.expect("the session is alive");
                send.send_slice(&[7; 64]).await.expect("sent");
                send.finish().expect("open");
                assert_eq!(
                    recv.recv()
                        .await
                        .expect("received")
                        .expect("a message")
                        .len(),
                    64
                );
                assert_eq!(recv.recv().await.expect("received"), None);
            });
        });
    });
}

criterion_group!(benches, round_trip, pipelined, open_close);
criterion_main!(benches);
