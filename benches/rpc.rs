//! Calls over an in-memory pipe, both ends on one thread: no kernel. Beside them the same by hand over bare streams,
//! which tells what calls add. Named part/scenario/parameter; allocations are printed first.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use ringmux::rpc::{
    Bidirectional, Channel, ClientStreaming, Context, Method, Prost, Raw, Receiver, Sender, Server,
    ServerStreaming, Status,
};
use ringmux::{Config, RecvStream, SendStream, Session};
use ringmux_testing::allocator::{Counting, allocations};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PIPE_BYTES: usize = 256 * 1024;
/// Calls that are under way together, and messages of a streaming call.
const TOGETHER: usize = 64;
const REQUEST: Bytes = Bytes::from_static(&[7; 64]);
const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("bench.Bench/Echo");
const LATER: Method<Bytes, Bytes> = Method::unary::<Raw>("bench.Bench/Later");
const ORDER: Method<Order, Order> = Method::unary::<Prost>("bench.Bench/Order");
const FEED: Method<Bytes, Bytes, ServerStreaming> =
    Method::server_streaming::<Raw>("bench.Bench/Feed");
const COLLECT: Method<Bytes, Bytes, ClientStreaming> =
    Method::client_streaming::<Raw>("bench.Bench/Collect");
const CHAT: Method<Bytes, Bytes, Bidirectional> = Method::bidirectional::<Raw>("bench.Bench/Chat");

/// A message of ten fields, of 60 bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(fixed64, tag = "1")]
    number: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    city: String,
    #[prost(bytes = "bytes", tag = "4")]
    token: Bytes,
    #[prost(uint32, tag = "5")]
    kind: u32,
    #[prost(sint32, tag = "6")]
    offset: i32,
    #[prost(bool, tag = "7")]
    active: bool,
    #[prost(double, tag = "8")]
    price: f64,
    #[prost(float, tag = "9")]
    weight: f32,
    #[prost(uint64, tag = "10")]
    time: u64,
}

fn order() -> Order {
    Order {
        number: 1,
        name: "customer".to_owned(),
        city: "Bergen".to_owned(),
        token: Bytes::from_static(b"01234567"),
        kind: 7,
        offset: -1000,
        active: true,
        price: 12.5,
        weight: 0.25,
        time: 1 << 30,
    }
}

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

mod handlers {
    use super::*;

    pub(super) async fn later(_: Context, request: Bytes) -> Result<Bytes, Status> {
        tokio::task::yield_now().await;
        Ok(request)
    }

    pub(super) async fn feed(
        _: Context,
        request: Bytes,
        mut out: Sender<Bytes>,
    ) -> Result<(), Status> {
        for _ in 0..TOGETHER {
            out.send(&request).await?;
        }
        Ok(())
    }

    pub(super) async fn collect(_: Context, mut from: Receiver<Bytes>) -> Result<Bytes, Status> {
        let mut last = Bytes::new();
        while let Some(message) = from.recv().await? {
            last = message;
        }
        Ok(last)
    }

    pub(super) async fn chat(
        _: Context,
        mut from: Receiver<Bytes>,
        mut out: Sender<Bytes>,
    ) -> Result<(), Status> {
        while let Some(message) = from.recv().await? {
            out.send(message).await?;
        }
        Ok(())
    }
}

async fn serving() -> Channel {
    let (client, session) = sessions().await;
    let server = Server::builder()
        .unary(ECHO, async |_, request: Bytes| Ok(request))
        .unary(LATER, handlers::later)
        .unary(ORDER, async |_, request: Order| Ok(request))
        .server_streaming(FEED, handlers::feed)
        .client_streaming(COLLECT, handlers::collect)
        .bidirectional(CHAT, handlers::chat)
        .build()
        .expect("each method once");
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

async fn bare_call(session: &Session) -> Bytes {
    let (mut send, mut recv) = session.open("bench.Bench/Echo").await.expect("open");
    send.send(REQUEST).await.expect("sent");
    send.finish().expect("open");
    let answer = recv.recv().await.expect("answered").expect("an answer");
    assert_eq!(recv.recv().await.expect("an end"), None);
    answer
}

async fn call(channel: &Channel, method: &Method<Bytes, Bytes>) {
    let answer = channel.call(method, &REQUEST).await.expect("answered");
    assert_eq!(answer.len(), 64);
}

async fn feed(channel: &Channel) {
    let answers = channel.server_streaming(&FEED, &REQUEST).open().await;
    let mut answers = answers.expect("begun");
    let mut messages = 0;
    while answers.recv().await.expect("a message").is_some() {
        messages += 1;
    }
    assert_eq!(messages, TOGETHER);
}

async fn collect(channel: &Channel) {
    let begun = channel.client_streaming(&COLLECT).open().await;
    let (mut requests, answer) = begun.expect("begun");
    for _ in 0..TOGETHER {
        requests.send(REQUEST).await.expect("sent");
    }
    requests.finish().expect("open");
    assert_eq!(answer.await.expect("answered").len(), 64);
}

/// One message at a time, there and back.
async fn chat(channel: &Channel) {
    let begun = channel.bidirectional(&CHAT).open().await;
    let (mut requests, mut answers) = begun.expect("begun");
    for _ in 0..TOGETHER {
        requests.send(REQUEST).await.expect("sent");
        answers.recv().await.expect("answered").expect("an answer");
    }
    requests.finish().expect("open");
    assert!(answers.recv().await.expect("an end").is_none());
}

/// Prints the allocations of one of `each`, of which 64 are under way, in tasks that live as long as all of them.
fn print_allocations<F, Fut>(runtime: &Runtime, what: &str, messages: usize, each: F)
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    const TIMES: usize = 200;
    let run = || {
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..TOGETHER {
                let each = each.clone();
                tasks.spawn(async move {
                    for _ in 0..TIMES {
                        each().await;
                    }
                });
            }
            tasks.join_all().await;
        });
    };
    run();
    let before = allocations();
    run();
    let each = (allocations() - before) as f64 / (TIMES * TOGETHER * messages) as f64;
    println!("{what}: {each:.2} allocations, both sides");
}

fn unary(c: &mut Criterion) {
    let runtime = runtime();
    let channel = runtime.block_on(serving());
    let session = runtime.block_on(bare());
    let mut group = c.benchmark_group("rpc");
    group.throughput(Throughput::Elements(TOGETHER as u64));
    for (name, method) in [("call", ECHO), ("call_that_yields", LATER)] {
        let caller = channel.clone();
        print_allocations(&runtime, &format!("rpc/{name}"), 1, move || {
            let channel = caller.clone();
            async move { call(&channel, &method).await }
        });
        group.bench_function(format!("{name}/64"), |b| {
            b.iter(|| {
                let calls = (0..TOGETHER).map(|_| call(&channel, &method));
                runtime.block_on(join_all(calls))
            });
        });
    }
    let (caller, same) = (channel.clone(), Arc::new(order()));
    print_allocations(&runtime, "rpc/call_prost", 1, move || {
        let (channel, request) = (caller.clone(), Arc::clone(&same));
        async move { drop(channel.call(&ORDER, &request).await.expect("answered")) }
    });
    let request = order();
    group.bench_function("call_prost/64", |b| {
        b.iter(|| {
            let calls = (0..TOGETHER).map(|_| channel.call(&ORDER, &request).into_future());
            for answer in runtime.block_on(join_all(calls)) {
                assert_eq!(answer.expect("answered"), request);
            }
        });
    });
    let caller = session.clone();
    print_allocations(&runtime, "rpc/bare_streams", 1, move || {
        let session = caller.clone();
        async move { drop(bare_call(&session).await) }
    });
    group.bench_function("bare_streams/64", |b| {
        b.iter(|| {
            let calls = (0..TOGETHER).map(|_| bare_call(&session));
            runtime.block_on(join_all(calls))
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("call_alone/64", |b| {
        b.iter(|| runtime.block_on(call(&channel, &ECHO)));
    });
    group.finish();
}

/// A message of a call that has 64 of them, its beginning and its end included.
fn streaming(c: &mut Criterion) {
    let runtime = runtime();
    let channel = runtime.block_on(serving());
    let mut group = c.benchmark_group("rpc");
    group.throughput(Throughput::Elements(TOGETHER as u64));
    macro_rules! kinds {
        ($($name:literal: $each:ident;)+) => {
            $({
                let caller = channel.clone();
                print_allocations(&runtime, concat!("rpc/", $name), TOGETHER, move || {
                    let channel = caller.clone();
                    async move { $each(&channel).await }
                });
                group.bench_function(concat!($name, "/64"), |b| {
                    b.iter(|| runtime.block_on($each(&channel)));
                });
            })+
        };
    }
    kinds! {
        "server_streaming": feed;
        "client_streaming": collect;
        "bidirectional": chat;
    }
    group.finish();
}

criterion_group!(benches, unary, streaming);
criterion_main!(benches);
