//! A client of calls whose server breaks the rules of REPLY and CALL, on each driver. The server is written from
//! `src/rpc/WIRE.md`, without the library's codec.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Code, Status};
use ringmux::{Config, Driver, Engine, Processed, Rate, Session, SessionError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::host::*;

const DATA: u8 = 0;
const OPEN: u8 = 1;
const CANCEL: u8 = 3;
const WINDOW: u8 = 4;
const PING: u8 = 5;
const GOAWAY: u8 = 6;
const SETTINGS: u8 = 7;
const CALL: u8 = 9;
const REPLY: u8 = 10;

const PREFACE: &[u8; 8] = b"RINGMUX\x01";
/// The credit of a session before SETTINGS.
const SESSION_FLOOR: u64 = 256 * 1024;
/// What a frame costs besides its payload.
const FRAME_COST: u64 = 256;
/// Control frames that the peer may send without a cause.
const GLITCHES: Rate = Rate::new(1000, 33);

struct Got {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The server's side of a connection.
struct Raw {
    socket: TcpStream,
    out: Vec<u8>,
    got: VecDeque<Got>,
    received: Vec<u8>,
    /// Bytes that the client takes.
    credit: u64,
}

impl Raw {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut socket, _) = soon(listener.accept()).await.unwrap();
        let mut preface = [0; 8];
        soon(socket.read_exact(&mut preface)).await.unwrap();
        assert_eq!(&preface, PREFACE);
        let mut raw = Self {
            socket,
            out: PREFACE.to_vec(),
            got: VecDeque::new(),
            received: Vec::new(),
            credit: SESSION_FLOOR,
        };
        // 1000 streams, and calls.
        let grant = [&5_u16.to_le_bytes()[..], &1000_u32.to_le_bytes()].concat();
        raw.put(SETTINGS, 0, 0, &grant);
        raw.put(CALL, 0, 0, &[]);
        raw.flush().await;
        raw
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_le_bytes();
        self.out.extend_from_slice(&length[..3]);
        self.out.push(kind << 4 | flags);
        self.out.extend_from_slice(&stream.to_le_bytes());
        self.out.extend_from_slice(payload);
    }

    /// Answers a call, once there is credit for it; false if the client has ended the session.
    async fn reply(&mut self, call: u32, answer: &[u8]) -> bool {
        let cost = FRAME_COST + answer.len() as u64;
        while self.credit < cost {
            self.flush().await;
            let Some(got) = self.hear().await else {
                return false;
            };
            self.got.push_back(got);
        }
        self.credit -= cost;
        self.put(REPLY, 0, call, answer);
        true
    }

    /// Fails if the client has hung up, which reading tells.
    async fn flush(&mut self) {
        let out = std::mem::take(&mut self.out);
        let _ = soon(self.socket.write_all(&out)).await;
    }

    /// The next frame from the socket; `None` is the end.
    async fn hear(&mut self) -> Option<Got> {
        loop {
            if let Some((head, rest)) = self.received.split_first_chunk::<8>() {
                let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
                if rest.len() >= length {
                    let got = Got {
                        kind: head[3] >> 4,
                        flags: head[3] & 0xF,
                        stream: u32::from_le_bytes(head[4..].try_into().unwrap()),
                        payload: rest[..length].to_vec(),
                    };
                    self.received.drain(..8 + length);
                    self.note(&got);
                    return Some(got);
                }
            }
            match soon(self.socket.read_buf(&mut self.received)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn note(&mut self, got: &Got) {
        let number = |at: usize| u32::from_le_bytes(got.payload[at..at + 4].try_into().unwrap());
        match got.kind {
            PING if got.flags == 0 => self.put(PING, 1, 0, &got.payload),
            WINDOW if got.stream == 0 && got.flags == 0 => self.credit += u64::from(number(0)),
            SETTINGS => {
                for entry in got.payload.chunks_exact(6) {
                    if entry[..2] == 4_u16.to_le_bytes() {
                        let window = u32::from_le_bytes(entry[2..].try_into().unwrap());
                        self.credit += u64::from(window) - SESSION_FLOOR;
                    }
                }
            }
            _ => {}
        }
    }

    /// The next frame of these kinds.
    async fn next(&mut self, kinds: &[u8]) -> Option<Got> {
        self.flush().await;
        loop {
            let got = match self.got.pop_front() {
                Some(got) => got,
                None => self.hear().await?,
            };
            self.flush().await;
            if kinds.contains(&got.kind) {
                return Some(got);
            }
        }
    }

    /// The id of the next call in a frame.
    async fn call(&mut self) -> u32 {
        let got = self.next(&[CALL, OPEN]).await.expect("a call");
        assert_eq!(got.kind, CALL, "a call in a frame");
        got.stream
    }

    /// Why the client ended the session.
    async fn reason(&mut self) -> String {
        let goaway = self.next(&[GOAWAY]).await.expect("the client says why");
        String::from_utf8_lossy(&goaway.payload[8..]).into_owned()
    }
}

/// A client whose calls are frames, and its server.
struct Net {
    client: Session,
    channel: Channel,
    raw: Raw,
}

impl Net {
    async fn new(driver: Driver) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = format!("tcp://{}", listener.local_addr().unwrap());
        let config = Config::builder().glitch_rate(GLITCHES).build().unwrap();
        let engine = Engine::thread(driver).unwrap();
        let addr = addr.parse().unwrap();
        let (client, mut raw) =
            tokio::join!(engine.connect(&addr, &config), Raw::accept(&listener));
        let client = client.unwrap();
        let channel = Channel::new(client.clone());
        // Calls in frames begin when the client has heard that they are taken.
        loop {
            let call = tokio::spawn(channel.call(&ECHO, &Bytes::new()).timeout(LIMIT).detach());
            let got = raw.next(&[CALL, OPEN]).await.unwrap();
            if got.kind == CALL {
                assert!(raw.reply(got.stream, b"").await);
                raw.flush().await;
                soon(call).await.unwrap().unwrap();
                break;
            }
            raw.put(CANCEL, 0, got.stream, &[0; 4]);
            raw.flush().await;
            assert!(soon(call).await.unwrap().is_err());
        }
        Self {
            client,
            channel,
            raw,
        }
    }

    /// A call under way.
    fn begin(&self, timeout: Duration) -> JoinHandle<Result<Bytes, Status>> {
        let request = Bytes::new();
        let call = self.channel.call(&ECHO, &request).timeout(timeout);
        tokio::spawn(call.detach())
    }

    /// A call that is answered.
    async fn round_trip(&mut self, answer: &[u8]) -> u32 {
        let call = self.begin(LIMIT);
        let id = self.raw.call().await;
        assert!(self.raw.reply(id, answer).await);
        self.raw.flush().await;
        assert_eq!(soon(call).await.unwrap().unwrap(), answer);
        id
    }

    /// The session ends, and this is why.
    async fn ends_by(mut self, name: &str) {
        let reason = self.raw.reason().await;
        assert!(reason.contains(name), "{reason}, not {name}");
        soon(self.raw.socket.shutdown()).await.unwrap();
        let error = soon(self.client.closed()).await;
        let by_this_side = matches!(
            error,
            SessionError::Protocol(_) | SessionError::LimitExceeded(_)
        );
        assert!(by_this_side, "{error:?}");
        let status = soon(self.begin(LIMIT)).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
        assert_eq!(status.was_processed(), Processed::No, "{status:?}");
    }
}

macro_rules! on_each_driver {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            use ringmux::Driver;

            use super::Net;

            #[tokio::test]
            async fn tokio() {
                super::$case(Net::new(Driver::Tokio).await).await;
            }

            #[tokio::test]
            async fn tokio_uring() {
                super::$case(Net::new(Driver::TokioUring).await).await;
            }

            #[tokio::test]
            async fn uring() {
                super::$case(Net::new(Driver::Uring).await).await;
            }
        })+
    };
}

on_each_driver! {
    an_answer_to_a_call_that_was_never_made_ends_the_session,
    an_answer_to_a_call_of_the_server_ends_the_session,
    second_answers_and_those_to_cancelled_calls_are_ignored_and_cost_the_client_no_credit,
    answers_to_a_call_that_is_over_without_end_end_the_session,
    announcements_without_end_end_the_session,
    an_answer_that_never_ends_is_given_up_at_the_deadline,
}

async fn an_answer_to_a_call_that_was_never_made_ends_the_session(mut net: Net) {
    let last = net.round_trip(b"").await;
    assert!(net.raw.reply(last + 2, b"never asked for").await);
    net.raw.flush().await;
    net.ends_by("never-opened").await;
}

/// The client serves none: there is no call of the server.
async fn an_answer_to_a_call_of_the_server_ends_the_session(mut net: Net) {
    assert!(net.raw.reply(2, b"never asked for").await);
    net.raw.flush().await;
    net.ends_by("never-opened").await;
}

async fn second_answers_and_those_to_cancelled_calls_are_ignored_and_cost_the_client_no_credit(
    mut net: Net,
) {
    let answer = vec![7; 16 * 1024];
    // Several times the credit of the session.
    for _ in 0..100 {
        let id = net.round_trip(&answer).await;
        assert!(net.raw.reply(id, &answer).await);

        let call = net.begin(LIMIT);
        let id = net.raw.call().await;
        call.abort();
        let cancel = net.raw.next(&[CANCEL]).await.expect("it is cancelled");
        assert_eq!(cancel.stream, id);
        assert!(net.raw.reply(id, &answer).await);
    }
    net.round_trip(b"still here").await;
    assert!(net.client.state().end().is_none());
}

async fn answers_to_a_call_that_is_over_without_end_end_the_session(mut net: Net) {
    let id = net.round_trip(b"").await;
    while net.raw.reply(id, b"").await {
        if net.raw.out.len() > 4096 {
            net.raw.flush().await;
        }
    }
    net.ends_by("glitch-rate").await;
}

async fn announcements_without_end_end_the_session(mut net: Net) {
    let most = 4 * GLITCHES.burst;
    for n in 0..most {
        net.raw.put(CALL, u8::from(n % 2 == 0), 0, &[]);
    }
    net.raw.flush().await;
    net.ends_by("glitch-rate").await;
}

async fn an_answer_that_never_ends_is_given_up_at_the_deadline(mut net: Net) {
    // Long enough for the call to leave first, also where the machine keeps this thread waiting.
    let late = Duration::from_secs(2);
    let call = net.begin(late);
    let id = net.raw.call().await;
    // The first piece of a long message.
    let piece = [&100_000_u32.to_le_bytes()[..], &[7; 1000]].concat();
    net.raw.put(DATA, 0, id, &piece);
    net.raw.flush().await;
    let status = soon(call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
    let cancel = net.raw.next(&[CANCEL]).await.expect("it is cancelled");
    assert_eq!(cancel.stream, id);
    net.round_trip(b"still here").await;
}
