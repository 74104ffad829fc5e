//! Applications that talk over one session: one calls, the other echoes. Every message is a function
//! of its stream and its place, so both sides know the expected message.

use std::fmt::Display;
use std::rc::Rc;
use std::sync::OnceLock;

use bytes::Bytes;
use futures_util::future::{join, join_all};

use super::world::{Desk, pause};
use crate::bridge::tests::net::Rng;
use crate::config::Config;
use crate::error::SessionError;
use crate::error::codes;
use crate::handle::whole::{Stream, Whole as _};
use crate::handle::{RecvStream, SendStream, Session};

const LONGEST: usize = 100_000;
const LENGTHS: [usize; 10] = [
    0, 1, 257, 4095, 5000, 16_384, 16_385, 17_000, 40_000, LONGEST,
];

/// The plan of a session, and how it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) number: u64,
    pub(super) streams: u64,
    pub(super) messages: u64,
    /// One message in `long` is long.
    pub(super) long: usize,
    pub(super) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Close,
    /// All handles of one side are dropped.
    Leave,
    /// In the middle, after this many pauses.
    Early(usize),
}

/// Windows so small that both sides wait for each other.
pub(super) fn config(stream_window: u32, send_buffer: u32) -> Config {
    let config = Config::builder()
        .max_message(LONGEST as u32)
        .stream_window(stream_window)
        .stream_window_max(stream_window * 2)
        .send_buffer(send_buffer);
    config.build().expect("valid")
}

/// Runs a session from its sockets to its end.
pub(super) async fn session(desk: Rc<Desk>, config: Config, plan: Plan) -> Result<(), String> {
    let [near, far] = desk.connect(&config);
    let talk = join(call_all(&desk, plan, &near), echo_all(&desk, plan, &far));
    match plan.end {
        End::Early(pauses) => {
            let close = async {
                pause(pauses).await;
                near.close();
            };
            let ((called, echoed), ()) = join(talk, close).await;
            called.and(echoed)?;
            ended(&desk, &near.closed().await)?;
            ended(&desk, &far.closed().await)
        }
        End::Close => {
            let (called, echoed) = talk.await;
            called.and(echoed)?;
            near.close();
            let (near, far) = join(near.closed(), far.closed()).await;
            ended(&desk, &near).and(ended(&desk, &far))
        }
        End::Leave => {
            let (called, echoed) = talk.await;
            called.and(echoed)?;
            drop(near);
            ended(&desk, &far.closed().await)
        }
    }
}

async fn call_all(desk: &Desk, plan: Plan, session: &Session) -> Result<(), String> {
    let calls = (0..plan.streams).map(|n| call(desk, plan, plan.number << 16 | n, session));
    join_all(calls).await.into_iter().collect()
}

async fn echo_all(desk: &Desk, plan: Plan, session: &Session) -> Result<(), String> {
    // Each accepts one of the streams, in any order.
    let echoes = (0..plan.streams).map(|_| echo(desk, plan, session));
    join_all(echoes).await.into_iter().collect()
}

async fn call(desk: &Desk, plan: Plan, tag: u64, session: &Session) -> Result<(), String> {
    let opening = Bytes::copy_from_slice(&tag.to_le_bytes());
    match session.open(opening).await {
        Ok(stream) => {
            let (sender, receiver) = stream.split();
            let (said, heard) = join(
                say(desk, plan, tag, sender),
                hear(desk, plan, tag, receiver),
            )
            .await;
            said.and(heard)
        }
        Err(error) => failed(desk, tag, error),
    }
}

async fn say(desk: &Desk, plan: Plan, tag: u64, mut sender: SendStream) -> Result<(), String> {
    for index in 0..plan.messages {
        if let Err(error) = sender.send(content(plan, tag, index)).await {
            return failed(desk, tag, error);
        }
    }
    sender.finish().or_else(|error| failed(desk, tag, error))
}

async fn hear(desk: &Desk, plan: Plan, tag: u64, mut receiver: RecvStream) -> Result<(), String> {
    for index in 0.. {
        match receiver.recv().await {
            Ok(Some(message)) => arrived(desk, plan, tag, index, &message)?,
            Ok(None) if index == plan.messages => break,
            Ok(None) => return Err(format!("{tag:#x} was echoed up to {index} only")),
            Err(error) => return failed(desk, tag, error),
        }
    }
    Ok(())
}

async fn echo(desk: &Desk, plan: Plan, session: &Session) -> Result<(), String> {
    let mut stream: Stream = match session.accept().await {
        Ok(Some(stream)) => stream,
        Ok(None) => return ended(desk, &SessionError::Closed),
        Err(end) => return ended(desk, &end),
    };
    let tag = stream.opening().first_chunk().copied();
    let tag = u64::from_le_bytes(tag.unwrap_or_default());
    for index in 0.. {
        match stream.recv().await {
            Ok(Some(message)) => {
                arrived(desk, plan, tag, index, &message)?;
                if let Err(error) = stream.send(message).await {
                    return failed(desk, tag, error);
                }
            }
            Ok(None) if index == plan.messages => break,
            Ok(None) => return Err(format!("{tag:#x} came up to {index} only")),
            Err(error) => return failed(desk, tag, error),
        }
    }
    stream.finish().or_else(|error| failed(desk, tag, error))
}

fn content(plan: Plan, tag: u64, index: u64) -> Bytes {
    static NOISE: OnceLock<Bytes> = OnceLock::new();
    let noise = NOISE.get_or_init(|| {
        let mut rng = Rng::new(7);
        let words = (0..(LONGEST + 4096) / 8 + 1).map(|_| rng.next());
        words.flat_map(u64::to_le_bytes).collect()
    });
    let mut rng = Rng::of(tag, index);
    let len = if rng.one_in(plan.long) {
        rng.pick(&LENGTHS)
    } else {
        rng.below(300)
    };
    let from = rng.below(4096);
    noise.slice(from..from + len)
}

fn arrived(desk: &Desk, plan: Plan, tag: u64, index: u64, message: &[u8]) -> Result<(), String> {
    if index >= plan.messages || message != content(plan, tag, index) {
        let len = message.len();
        return Err(format!("{len} wrong bytes for message {index} of {tag:#x}"));
    }
    desk.delivered.set(desk.delivered.get() + 1);
    Ok(())
}

fn failed(desk: &Desk, tag: u64, error: impl Display) -> Result<(), String> {
    if desk.may_end.get() {
        Ok(())
    } else {
        Err(format!("{tag:#x}: {error}"))
    }
}

/// A handle has reported the end of its session.
fn ended(desk: &Desk, end: &SessionError) -> Result<(), String> {
    let right = match end {
        SessionError::Closed => true,
        SessionError::PeerClosed { code, .. } => *code == codes::NO_ERROR,
        SessionError::Disconnected | SessionError::Io(_) => desk.may_end.get(),
        _ => false,
    };
    if right {
        Ok(())
    } else {
        Err(format!("a session ended: {end}"))
    }
}
