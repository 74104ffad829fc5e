//! Threads that send on one session over a socket, both engines on threads of their own: time for each message, of all
//! producers together. Named part/scenario/parameter.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmux::{Config, Driver, Engine, RecvStream, SendStream, Session};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGE_BYTES: usize = 64;
/// The first byte of the message that is answered.
const LAST: u8 = 1;

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

/// A session whose other side answers the last message of each run.
fn counted() -> Session {
    let engine = || Engine::thread(Driver::Uring).expect("io_uring works here");
    let (here, config) = (
        "127.0.0.1:0".parse().expect("an address"),
        Config::default(),
    );
    runtime().block_on(async {
        let listener = engine().listen(&here, &config).await.expect("a free port");
        let client = engine().connect(listener.local_addr(), &config).await;
        let server = listener.accept().await.expect("the client");
        thread::spawn(move || serve(&server));
        client.expect("the server")
    })
}

fn serve(session: &Session) {
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime(), async {
        while let Ok(Some(stream)) = session.accept().await {
            tokio::task::spawn_local(answer(stream));
        }
    });
}

async fn answer((mut answers, mut messages): (SendStream, RecvStream)) {
    while let Ok(Some(message)) = messages.lease().await {
        let is_last = message.as_slice().is_some_and(|bytes| bytes[0] == LAST);
        drop(message);
        if is_last && answers.send_slice(&[LAST]).await.is_err() {
            return;
        }
    }
}

/// A thread that sends a requested number of messages, and reports when the other side has them.
struct Producer {
    run: Sender<u64>,
    done: Receiver<()>,
}

impl Producer {
    fn start(session: &Session) -> Self {
        let ((run, runs), (tell, done)) = (channel(), channel());
        let session = session.clone();
        thread::spawn(move || {
            let runtime = runtime();
            let opened = runtime.block_on(session.open(""));
            let (mut tx, mut rx) = opened.expect("the session is alive");
            for messages in runs {
                runtime.block_on(send(&mut tx, &mut rx, messages));
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Self { run, done }
    }
}

async fn send(tx: &mut SendStream, rx: &mut RecvStream, messages: u64) {
    let mut message = [0; MESSAGE_BYTES];
    for left in (0..messages).rev() {
        message[0] = if left == 0 { LAST } else { 0 };
        tx.send_slice(&message).await.expect("sent");
    }
    let answer = rx.recv().await.expect("the session is alive");
    assert_eq!(answer.expect("an answer"), &[LAST][..]);
}

fn producers(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    for count in [1_u64, 2, 4] {
        let session = counted();
        let producers: Vec<_> = (0..count).map(|_| Producer::start(&session)).collect();
        group.bench_function(format!("producers/{count}"), |b| {
            b.iter_custom(|messages| together(&producers, messages));
        });
        session.close();
    }
    group.finish();
}

/// How long it takes until all have sent their share.
fn together(producers: &[Producer], messages: u64) -> Duration {
    let share = messages.div_ceil(producers.len() as u64);
    let started = Instant::now();
    for producer in producers {
        producer.run.send(share).expect("the thread lives");
    }
    for producer in producers {
        producer.done.recv().expect("all of its messages arrived");
    }
    started.elapsed()
}

criterion_group!(benches, producers);
criterion_main!(benches);
