//! Many streams of one session, used from many threads without a runtime.
//!
//! Handles need no particular executor: here each thread blocks on its own stream.
//!
//! ```text
//! cargo run --release --example threads
//! ```

use std::error::Error;
use std::thread;

use futures_util::future::join_all;
use ringmux::{Config, Driver, Engine, Session};
use tokio::runtime::Builder;

const THREADS: u64 = 8;
const MESSAGES: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    // Any way to poll a future will do; tokio is not needed for the handles.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let engine = Engine::thread(Driver::Tokio)?;
    let (client, server) = runtime.block_on(connect(&engine))?;

    let sums = runtime.spawn(async move {
        let mut tasks = Vec::new();
        for _ in 0..THREADS {
            let Ok(Some((send, mut recv))) = server.accept().await else {
                break;
            };
            tasks.push(tokio::spawn(async move {
                let _unused = send; // dropped before the end, it would cancel the stream
                let mut sum = 0;
                // A stream that fails ends alone.
                while let Ok(Some(message)) = recv.recv().await {
                    sum += u64::from_le_bytes(message[..].try_into().expect("8 bytes"));
                }
                sum
            }));
        }
        join_all(tasks)
            .await
            .into_iter()
            .map(Result::unwrap)
            .sum::<u64>()
    });

    thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = client.clone();
            scope.spawn(move || block_on(produce(client, thread)));
        }
    });
    let sum = runtime.block_on(sums)?;
    client.close();
    runtime.block_on(client.closed());
    let all = THREADS * MESSAGES;
    assert_eq!(sum, all * (all - 1) / 2, "every message arrived once");
    println!(
        "{all} messages from {THREADS} threads: {:?}",
        client.stats()
    );
    Ok(())
}

async fn connect(engine: &Engine) -> Result<(Session, Session), Box<dyn Error>> {
    let listener = engine
        .listen(&"127.0.0.1:0".parse()?, &Config::default())
        .await?;
    let client = engine
        .connect(listener.local_addr(), &Config::default())
        .await?;
    Ok((client, listener.accept().await?))
}

async fn produce(session: Session, thread: u64) {
    let (mut send, _recv) = session.open("numbers").await.expect("the session is alive");
    for n in 0..MESSAGES {
        let number = thread * MESSAGES + n;
        send.send_slice(&number.to_le_bytes())
            .await
            .expect("the server receives");
    }
    send.finish().expect("the stream is open");
}

/// Blocks this thread on a future.
fn block_on<F: Future>(future: F) -> F::Output {
    Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}
