//! Every way of receiving, in any order, on one stream: no byte is lost, none is received twice.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use proptest::prelude::*;
use ringmux::{RecvStream, SendStream, StreamError};
use tokio::io::AsyncReadExt;

use crate::host::{Soon, pattern, tokio_runtime};
use crate::messages::small_windows;

/// Consecutive empty `try_recv` calls before the receiver waits instead.
const LOOKS: usize = 20;
/// The code of a stream that ends with an error.
const BROKEN: u32 = 9;

/// One step of a receiver.
#[derive(Clone, Copy, Debug)]
enum Step {
    Recv,
    TryRecv,
    /// `recv`, polled once and dropped.
    RecvDropped,
    /// Reads this many bytes of the lease through `Buf` first, and checks all of it afterwards.
    Lease(usize),
    /// A lease that is forgotten.
    LeaseForgotten,
    /// The `Stream` of messages.
    Next,
    /// `read`, with room for so many bytes.
    Read(usize),
    /// The same, polled once and dropped.
    ReadDropped(usize),
    ReadExact(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Recv),
        2 => Just(Step::TryRecv),
        1 => Just(Step::RecvDropped),
        2 => (0_usize..5000).prop_map(Step::Lease),
        1 => Just(Step::LeaseForgotten),
        2 => Just(Step::Next),
        3 => (0_usize..40).prop_map(Step::Read),
        3 => (0_usize..20_000).prop_map(Step::Read),
        1 => (1_usize..9000).prop_map(Step::ReadDropped),
        2 => (1_usize..300).prop_map(Step::ReadExact),
        1 => (1_usize..60_000).prop_map(Step::ReadExact),
    ]
}

/// Sizes of messages: most are a record, some are several frames, some do not fit into the stream's window.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => Just(0),
        6 => 1_usize..50,
        3 => 50_usize..5000,
        2 => 5000_usize..40_000,
        1 => 40_000_usize..100_000,
    ]
}

/// The received bytes, and the expected ones.
struct Received {
    sent: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
    at: usize,
    ended: Option<Result<(), StreamError>>,
}

impl Received {
    fn bytes(&mut self, bytes: &[u8], step: Step) {
        assert!(self.ended.is_none(), "{step:?}: bytes after the end");
        let end = self.at + bytes.len();
        let expected = self.sent.get(self.at..end);
        assert!(expected == Some(bytes), "{step:?} at byte {}", self.at);
        self.at = end;
    }

    /// A message, or the rest of one.
    fn message(&mut self, message: &[u8], step: Step) {
        let from = self.at;
        self.bytes(message, step);
        assert!(self.ends.contains(&self.at), "{step:?}: less than the rest");
        let inside = |end: &usize| *end > from && *end < self.at;
        assert!(!self.ends.iter().any(inside), "{step:?}: two messages");
    }

    fn end(&mut self, end: Result<(), StreamError>) {
        assert_eq!(self.at, self.sent.len(), "the end came early: {end:?}");
        self.ended = Some(end);
    }
}

fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The error of a byte stream, as the stream's error.
fn of_stream(error: &std::io::Error) -> StreamError {
    let inner = error.get_ref().and_then(|e| e.downcast_ref());
    StreamError::clone(inner.expect("an error of the stream"))
}

async fn take(stream: &mut RecvStream, step: Step, received: &mut Received) {
    match step {
        Step::Recv => match stream.recv().soon().await {
            Ok(Some(message)) => received.message(&message, step),
            end => received.end(end.map(drop)),
        },
        Step::TryRecv => {
            if let Some(message) = stream.try_recv() {
                received.message(&message, step);
            }
        }
        Step::RecvDropped => match poll_once(stream.recv()) {
            Some(Ok(Some(message))) => received.message(&message, step),
            Some(end) => received.end(end.map(drop)),
            None => {}
        },
        Step::Lease(first) => match stream.lease().soon().await {
            Ok(Some(mut lease)) => {
                let (all, pieces) = (lease.to_contiguous().into_owned(), lease.chunks());
                assert_eq!(pieces.collect::<Vec<_>>().concat(), all);
                assert_eq!((lease.len(), lease.remaining()), (all.len(), all.len()));
                let first = first.min(all.len());
                assert_eq!(lease.copy_to_bytes(first), all[..first]);
                assert_eq!(lease.copy_to_bytes(all.len() - first), all[first..]);
                assert_eq!(*lease.to_contiguous(), all);
                received.message(&all, step);
            }
            end => received.end(end.map(drop)),
        },
        Step::LeaseForgotten => match stream.lease().soon().await {
            Ok(Some(lease)) => {
                received.message(&lease.to_contiguous(), step);
                std::mem::forget(lease);
            }
            end => received.end(end.map(drop)),
        },
        Step::Next => match stream.next().soon().await {
            Some(Ok(message)) => received.message(&message, step),
            Some(Err(error)) => received.end(Err(error)),
            None => received.end(Ok(())),
        },
        Step::Read(room) => {
            let mut buf = vec![0; room];
            match stream.read(&mut buf).soon().await {
                Ok(0) if room > 0 => received.end(Ok(())),
                Ok(n) => received.bytes(&buf[..n], step),
                Err(error) => received.end(Err(of_stream(&error))),
            }
        }
        Step::ReadDropped(room) => {
            let mut buf = vec![0; room];
            match poll_once(stream.read(&mut buf)) {
                Some(Ok(0)) => received.end(Ok(())),
                Some(Ok(n)) => received.bytes(&buf[..n], step),
                Some(Err(error)) => received.end(Err(of_stream(&error))),
                None => {}
            }
        }
        Step::ReadExact(len) => {
            let mut buf = vec![0; len.min(received.sent.len() - received.at)];
            let read = stream.read_exact(&mut buf).soon().await;
            read.expect("so much was sent");
            received.bytes(&buf, step);
        }
    }
}

async fn send(mut stream: SendStream, messages: Vec<Bytes>, fails: bool) {
    for message in messages {
        stream.send(message).soon().await.unwrap();
    }
    match fails {
        true => stream.finish_with_error(BROKEN, "broken").unwrap(),
        false => stream.finish().unwrap(),
    }
    // An end that was queued is not lost with the handle.
}

async fn mixed(capacity: usize, sizes: Vec<usize>, steps: Vec<Step>, fails: bool) {
    let messages: Vec<Bytes> = sizes
        .iter()
        .enumerate()
        .map(|(n, size)| pattern(*size, n as u64))
        .collect();
    let ends = messages.iter().scan(0, |end, message| {
        *end += message.len();
        Some(*end)
    });
    let mut received = Received {
        ends: ends.collect(),
        sent: messages.concat(),
        at: 0,
        ended: None,
    };
    let (a, b) = tokio::io::duplex(capacity);
    let (client, connection) = ringmux::client(a, &small_windows());
    tokio::spawn(connection);
    let (server, connection) = ringmux::server(b, &small_windows());
    tokio::spawn(connection);
    let (sender, _answers) = client.open("").soon().await.unwrap();
    let sending = tokio::spawn(send(sender, messages, fails));
    let (_sender, mut stream) = server.accept().soon().await.unwrap().unwrap();

    let mut looks = 0;
    for step in steps.into_iter().cycle() {
        let before = received.at;
        take(&mut stream, step, &mut received).await;
        if received.ended.is_some() {
            break;
        }
        looks = if received.at == before { looks + 1 } else { 0 };
        if looks > LOOKS {
            // Steps that never wait starve the connection; those of empty messages never end.
            take(&mut stream, Step::Recv, &mut received).await;
        }
        if received.ended.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    match received.ended.take().unwrap() {
        Err(StreamError::Failed(failure)) if fails => assert_eq!(failure.code, BROKEN),
        Ok(()) if !fails => {}
        end => panic!("not how the peer ended it: {end:?}"),
    }
    // And no message follows.
    assert_eq!(stream.try_recv(), None);
    let rest = stream.read(&mut [0; 8]).soon().await;
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
    sending.soon().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_way_of_receiving_in_any_order_gives_each_byte_once(
        capacity in prop_oneof![Just(64_usize), Just(4096), Just(256 * 1024)],
        sizes in proptest::collection::vec(size(), 0..12),
        steps in proptest::collection::vec(step(), 1..16),
        fails in any::<bool>(),
    ) {
        tokio_runtime().block_on(mixed(capacity, sizes, steps, fails));
    }
}
