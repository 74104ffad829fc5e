//! Unary calls over an in-memory pipe, both ends on one thread: no kernel. Beside them the same by hand over bare streams,
//! which tells what calls add. Named part/scenario/parameter; the allocations of a call are printed first.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use ringmux::rpc::{Channel, Context, Method, Raw, Server, Status};
use ringmux::{Config, RecvStream, SendStream, Session};
use ringmux_testing::allocator::{Counting, allocations};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PIPE_BYTES: usize = 256 * 1024;
/// Calls that are under way together.
const TOGETHER: usize = 64;
const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("bench.Bench/Echo");
const LATER: Method<Bytes, Bytes> = Method::unary::<Raw>("bench.Bench/Later");

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn sessions() -> (Session, Session) {
    let (a, b) = tokio::io::duplex(PIPE_BYTES);
    let (client, connection) = ringmux::client(a, &Config::default());
    tokio::spawn(connection);
    let (server, connection) = ringmux::server(b, &Config::default());
    tokio::spawn(connection);
    client.established().await.expect("the server answers");
    (client, server)
}

async fn serving() -> Channel {
    async fn echo(_: Context, request: Bytes) -> Result<Bytes, Status> {
        Ok(request)
    }
    async fn later(_: Context, request: Bytes) -> Result<Bytes, Status> {
        tokio::task::yield_now().await;
        Ok(request)
    }
    let (client, session) = sessions().await;
    let builder = Server::builder().unary(ECHO, echo).unary(LATER, later);
    let server = builder.build().expect("each method once");
    tokio::spawn(async move { server.serve_session(session).await });
    Channel::new(client)
}

/// The same over streams, each served where it was accepted.
async fn bare() -> Session {
    async fn answer((mut send, mut recv): (SendStream, RecvStream)) -> Result<(), ringmux::Error> {
        let request = recv.recv().await?.unwrap_or_default();
        send.send(request).await?;
        send.finish()?;
        Ok(())
    }
    let (client, session) = sessions().await;
    tokio::spawn(async move {
        while let Ok(Some(stream)) = session.accept().await {
            let _ = answer(stream).await;
        }
    });
    client
}

async fn bare_call(session: &Session, request: &Bytes) -> Bytes {
    let (mut send, mut recv) = session.open("bench.Bench/Echo").await.expect("open");
    send.send(request.clone()).await.expect("sent");
    send.finish().expect("open");
    let answer = recv.recv().await.expect("answered").expect("an answer");
    assert_eq!(recv.recv().await.expect("an end"), None);
    answer
}

fn print_allocations(name: &str, mut batch: impl FnMut()) {
    const BATCHES: u64 = 100;
    batch();
    let before = allocations();
    (0..BATCHES).for_each(|_| batch());
    let each = (allocations() - before) as f64 / (BATCHES * TOGETHER as u64) as f64;
    println!("{name}: {each:.1} allocations a call, both sides");
}

fn calls(c: &mut Criterion) {
    let runtime = runtime();
    let channel = runtime.block_on(serving());
    let session = runtime.block_on(bare());
    let request = Bytes::from_static(&[7; 64]);
    let mut group = c.benchmark_group("rpc");
    for (name, method) in [("call", &ECHO), ("call_that_yields", &LATER)] {
        let mut batch = || {
            runtime.block_on(async {
                let calls = (0..TOGETHER).map(|_| channel.call(method, &request).into_future());
                for answer in join_all(calls).await {
                    assert_eq!(answer.expect("answered").len(), 64);
                }
            });
        };
        print_allocations(name, &mut batch);
        group.throughput(Throughput::Elements(TOGETHER as u64));
        group.bench_function(format!("{name}/64"), |b| b.iter(&mut batch));
    }
    let mut batch = || {
        runtime.block_on(async {
            let calls = (0..TOGETHER).map(|_| bare_call(&session, &request));
            for answer in join_all(calls).await {
                assert_eq!(answer.len(), 64);
            }
        });
    };
    print_allocations("bare_streams", &mut batch);
    group.bench_function("bare_streams/64", |b| b.iter(&mut batch));
    group.throughput(Throughput::Elements(1));
    group.bench_function("call_alone/64", |b| {
        b.iter(|| {
            runtime.block_on(async { channel.call(&ECHO, &request).await.expect("answered") })
        });
    });
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
