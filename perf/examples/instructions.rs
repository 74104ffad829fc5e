//! The parts of ringmux that make no system call, each a given number of times: for a tool that counts
//! instructions. `perf/scripts/instructions.sh` runs it twice and divides the difference, so that
//! neither start nor end counts.

use std::hint::black_box;
use std::process::ExitCode;

use bytes::Bytes;
use ringmux::rpc::{Channel, Context, Method, Raw, Sender, Server, ServerStreaming, Status};
use ringmux::{Config, RecvStream, SendStream, Session};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Small enough for the compiler and the machine to treat like any other message.
const MESSAGE: &[u8] = &[7; 64];
const PIPE_BYTES: usize = 256 * 1024;
/// Messages under way at once in `pipelined`, `concurrent` and `calls`.
const BATCH: u64 = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (part, times) = (arguments.next(), arguments.next());
    let times = times.and_then(|times| times.parse().ok());
    let (Some(part), Some(times)) = (part, times) else {
        eprintln!(
            "usage: instructions round-trip|pipelined|concurrent|open-close|calls|open-close-with|calls-with|rpc-call|rpc-calls|rpc-feed TIMES"
        );
        return ExitCode::from(2);
    };
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without I/O needs only memory");
    let known = runtime.block_on(async {
        let client = echoing().await;
        match part.as_str() {
            "round-trip" => round_trip(&client, times).await,
            "pipelined" => pipelined(&client, times).await,
            "concurrent" => concurrent(&client, times).await,
            "open-close" => open_close(&client, times, Open::First).await,
            "calls" => calls(&client, times, Open::First).await,
            "open-close-with" => open_close(&client, times, Open::With).await,
            "calls-with" => calls(&client, times, Open::With).await,
            "rpc-call" => rpc_call(times).await,
            "rpc-calls" => rpc_calls(times).await,
            "rpc-feed" => rpc_feed(times).await,
            _ => return false,
        }
        true
    });
    if !known {
        eprintln!("error: no part is called {part}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

/// Two sessions joined by a pipe in memory; the server echoes every message of every stream.
async fn echoing() -> Session {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (client, connection) = ringmux::client(near, &Config::default());
    tokio::spawn(connection);
    let (server, connection) = ringmux::server(far, &Config::default());
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
    // The client may have gone meanwhile.
    let _ = send.finish();
}

/// A message there and back.
async fn round_trip(client: &Session, times: u64) {
    let (mut send, mut recv) = client.open("").await.expect("the session is alive");
    for _ in 0..times {
        send.send_slice(black_box(MESSAGE)).await.expect("sent");
        black_box(recv.recv().await.expect("received"));
    }
}

/// The same with 64 of them under way, counted one by one.
async fn pipelined(client: &Session, times: u64) {
    let (mut send, mut recv) = client.open("").await.expect("the session is alive");
    let message = Bytes::from_static(MESSAGE);
    for _ in 0..times.div_ceil(BATCH) {
        for _ in 0..BATCH {
            send.send_slice(black_box(&message)).await.expect("sent");
        }
        for _ in 0..BATCH {
            black_box(recv.recv().await.expect("received"));
        }
    }
}

/// 64 streams, each with a task and one message under way, counted one by one.
async fn concurrent(client: &Session, times: u64) {
    let mut tasks = JoinSet::new();
    for _ in 0..BATCH {
        let (mut send, mut recv) = client.open("").await.expect("the session is alive");
        tasks.spawn(async move {
            for _ in 0..times.div_ceil(BATCH) {
                send.send_slice(black_box(MESSAGE)).await.expect("sent");
                black_box(recv.recv().await.expect("received"));
            }
        });
    }
    tasks.join_all().await;
}

/// The way to begin a call.
#[derive(Clone, Copy)]
enum Open {
    /// Open the stream, then send a message, then end the direction.
    First,
    /// All in one call of `open_with`.
    With,
}

/// A stream opened, a message there and back, and closed.
async fn open_close(client: &Session, times: u64, open: Open) {
    for _ in 0..times {
        call(client, open).await;
    }
}

/// The same, 64 at once, with a task for each.
async fn calls(client: &Session, times: u64, open: Open) {
    let mut tasks = JoinSet::new();
    for _ in 0..times {
        if tasks.len() as u64 == BATCH {
            let call = tasks.join_next().await.expect("there are some");
            call.expect("no call panics");
        }
        let client = client.clone();
        tasks.spawn(async move { call(&client, open).await });
    }
    tasks.join_all().await;
}

async fn call(client: &Session, open: Open) {
    let (_send, mut recv) = match open {
        Open::First => {
            let (mut send, recv) = client.open("").await.expect("the session is alive");
            send.send_slice(black_box(MESSAGE)).await.expect("sent");
            send.finish().expect("open");
            (send, recv)
        }
        Open::With => {
            let message = Bytes::from_static(black_box(MESSAGE));
            let opened = client.open_with("", message, true).await;
            opened.expect("the session is alive")
        }
    };
    black_box(recv.recv().await.expect("received"));
    assert_eq!(recv.recv().await.expect("received"), None);
}

const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("perf.Perf/Echo");
const FEED: Method<Bytes, Bytes, ServerStreaming> =
    Method::server_streaming::<Raw>("perf.Perf/Feed");

/// Answers with as many messages as the request is long.
async fn feed(_: Context, times: Bytes, mut out: Sender<Bytes>) -> Result<(), Status> {
    let message = Bytes::from_static(MESSAGE);
    for _ in 0..u64::from_le_bytes(times[..].try_into().expect("a number")) {
        out.send(black_box(&message)).await?;
    }
    Ok(())
}

/// A channel to a server of two methods over a pipe, after calls that have shown that the server takes calls.
async fn serving() -> Channel {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (client, connection) = ringmux::client(near, &Config::default());
    tokio::spawn(connection);
    let (session, connection) = ringmux::server(far, &Config::default());
    tokio::spawn(connection);
    let server = Server::builder().unary(ECHO, |_, request| async { Ok(request) });
    let server = server.server_streaming(FEED, feed).build();
    let server = server.expect("two methods");
    tokio::spawn(async move { server.serve_session(session).await });
    let channel = Channel::new(client);
    for _ in 0..BATCH {
        rpc(&channel).await;
    }
    channel
}

async fn rpc(channel: &Channel) {
    let request = Bytes::from_static(black_box(MESSAGE));
    black_box(channel.call(&ECHO, &request).await.expect("answered"));
}

/// A unary call of `rpc`, with a handler that is ready at once.
async fn rpc_call(times: u64) {
    let channel = serving().await;
    for _ in 0..times {
        rpc(&channel).await;
    }
}

/// The same, by 64 tasks, each with one call after another.
async fn rpc_calls(times: u64) {
    let channel = serving().await;
    let mut tasks = JoinSet::new();
    for _ in 0..BATCH {
        let channel = channel.clone();
        tasks.spawn(async move {
            for _ in 0..times.div_ceil(BATCH) {
                rpc(&channel).await;
            }
        });
    }
    tasks.join_all().await;
}

/// A message of one answer that is a stream of them.
async fn rpc_feed(times: u64) {
    let channel = serving().await;
    let times = Bytes::from(times.to_le_bytes().to_vec());
    let answers = channel.server_streaming(&FEED, &times).open().await;
    let mut answers = answers.expect("the session is alive");
    while let Some(message) = answers.recv().await.expect("received") {
        black_box(message);
    }
}
