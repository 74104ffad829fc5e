//! The codecs that are built in.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use ringmux::Config;
use ringmux::rpc::{
    Bidirectional, Code, Codec, CodecError, Encoding, Method, Payload, Postcard, Prost, Raw,
    Receiver, Sender, Server, Status,
};
use serde::{Deserialize, Serialize};

use crate::host::*;

#[derive(Clone, PartialEq, Message)]
struct Account {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "bytes", tag = "3")]
    blob: Bytes,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Buy { amount: u32, symbol: String },
    Cancel(Vec<u64>),
}

#[tokio::test]
async fn messages_of_prost_and_types_of_serde_come_back() {
    const PROST: Method<Account, Account> = Method::unary::<Prost>("test.Test/Prost");
    const POSTCARD: Method<Order, Vec<Order>> = Method::unary::<Postcard>("test.Test/Postcard");
    let builder = Server::builder()
        .unary(PROST, |_, account: Account| async move { Ok(account) })
        .unary(
            POSTCARD,
            |_, order: Order| async move { Ok(vec![order; 3]) },
        );
    let host = Host::new(builder).await;
    for size in [0, 100, 100_000] {
        let account = Account {
            id: 7,
            name: "a".to_owned(),
            blob: vec![1; size].into(),
        };
        let call = host.channel.call(&PROST, &account).into_future();
        assert_eq!(soon(call).await.unwrap(), account);
        let order = Order::Cancel(vec![u64::MAX; size]);
        let call = host.channel.call(&POSTCARD, &order).into_future();
        assert_eq!(soon(call).await.unwrap(), vec![order; 3]);
    }
    let order = Order::Buy {
        amount: 3,
        symbol: "X".to_owned(),
    };
    let call = host.channel.call(&POSTCARD, &order).into_future();
    assert_eq!(soon(call).await.unwrap().len(), 3);
}

/// Most of a message in one frame; longer ones arrive in several pieces.
const FRAME_BYTES: usize = 16 * 1024;

#[tokio::test]
async fn bytes_of_a_large_message_are_slices_of_it() {
    #[derive(Clone, PartialEq, Message)]
    struct Parts {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        parts: Vec<Bytes>,
    }
    /// Tells whether the parts lie behind each other in one piece of memory, as they do in the message.
    async fn inspect(_: ringmux::rpc::Context, request: Parts) -> Result<Parts, Status> {
        let mut at = None;
        for part in &request.parts {
            let begin = part.as_ptr().addr();
            // A tag and a length of two or three bytes are between them.
            if at.is_some_and(|end| !(3..=5).contains(&begin.wrapping_sub(end))) {
                return Err(Status::failed_precondition("a part was copied"));
            }
            at = Some(begin + part.len());
        }
        // The whole message stays for as long as one part of it.
        Ok(Parts {
            parts: vec![request.parts[1].clone()],
        })
    }
    const INSPECT: Method<Parts, Parts> = Method::unary::<Prost>("test.Test/Inspect");
    let host = Host::new(Server::builder().unary(INSPECT, inspect)).await;
    for size in [FRAME_BYTES / 3 - 100, FRAME_BYTES, 1 << 20] {
        let parts = vec![
            Bytes::from(vec![1; size]),
            Bytes::from(vec![2; size]),
            Bytes::from(vec![3; size]),
        ];
        let request = Parts { parts };
        let call = host.channel.call(&INSPECT, &request).into_future();
        let answer = soon(call)
            .await
            .unwrap_or_else(|status| panic!("{size}: {status}"));
        assert_eq!(answer.parts, request.parts[1..2]);
    }
}

#[tokio::test]
async fn a_request_that_is_no_message_never_runs_the_handler() {
    const PROST: Method<Account, Account> = Method::unary::<Prost>("test.Test/Prost");
    async fn never(_: ringmux::rpc::Context, _: Account) -> Result<Account, Status> {
        panic!("it ran")
    }
    let host = Host::new(Server::builder().unary(PROST, never)).await;
    let (mut send, mut recv) = host
        .client
        .open(&b"\x01\0\x01\x0ftest.Test/Prost"[..])
        .await
        .unwrap();
    send.send(&b"\xff\xff"[..]).await.unwrap();
    send.finish().unwrap();
    let status = Status::from(soon(recv.recv()).await.unwrap_err());
    assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status:?}");
    assert_eq!(host.server.stats().panicked, 0);
}

#[tokio::test]
async fn raw_messages_may_be_vectors() {
    const VECTORS: Method<Vec<u8>, Vec<u8>> = Method::unary::<Raw>("test.Test/Vectors");
    let reversed = |_, mut bytes: Vec<u8>| async move {
        bytes.reverse();
        Ok(bytes)
    };
    let host = Host::new(Server::builder().unary(VECTORS, reversed)).await;
    let request = vec![1, 2, 3];
    let answer = soon(host.channel.call(&VECTORS, &request).into_future()).await;
    assert_eq!(answer.unwrap(), [3, 2, 1]);
}

/// As many bytes as the number says, not given as bytes before they are encoded.
#[derive(Clone, Debug, PartialEq)]
struct Zeros(usize);

struct Counted;

impl Encoding for Counted {
    const ID: u8 = 201;
}

impl Codec<Zeros> for Counted {
    const IN_PLACE: bool = false;

    fn encode(message: &Zeros, buffer: &mut BytesMut) -> Result<(), CodecError> {
        buffer.put_bytes(0, message.0);
        Ok(())
    }

    fn whole(message: &Zeros) -> Option<Bytes> {
        (!message.0.is_multiple_of(2)).then(|| vec![0; message.0].into())
    }

    fn decode(payload: Payload<'_>) -> Result<Zeros, CodecError> {
        let len = payload.len();
        assert_eq!(payload.into_bytes(), vec![0; len]);
        Ok(Zeros(len))
    }
}

/// Sends messages of these lengths there and back over a stream.
async fn there_and_back<C, T>(make: fn(usize) -> T)
where
    C: Codec<T>,
    T: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static,
{
    let chat: Method<T, T, Bidirectional> = Method::bidirectional::<C>("test.Test/Chat");
    let echo = |_, mut from: Receiver<T>, mut to: Sender<T>| async move {
        while let Some(message) = from.recv().await? {
            to.send(&message).await?;
        }
        Ok(())
    };
    let host = Host::new(Server::builder().bidirectional(chat, echo)).await;
    let chat: Method<T, T, Bidirectional> = Method::bidirectional::<C>("test.Test/Chat");
    let opened = soon(host.channel.bidirectional(&chat).open()).await;
    let (mut to, mut from) = opened.unwrap();
    let lens = [0, 1, 64, 4095, 4096, 4097, 5, 20_000, 70_000, 3, 0];
    let lens = lens.into_iter().cycle().take(500);
    let sending = async {
        for len in lens.clone() {
            to.send(make(len)).await.unwrap();
        }
        to.finish().unwrap();
    };
    let receiving = async {
        for len in lens.clone() {
            assert!(from.recv().await.unwrap().unwrap() == make(len), "{len}");
        }
        assert!(from.recv().await.unwrap().is_none());
    };
    soon(async { tokio::join!(sending, receiving) }).await;
}

#[tokio::test]
async fn short_and_long_messages_of_a_stream_arrive_in_order_in_every_codec() {
    there_and_back::<Raw, Bytes>(|len| vec![7; len].into()).await;
    there_and_back::<Raw, Vec<u8>>(|len| vec![7; len]).await;
    there_and_back::<Postcard, Vec<u8>>(|len| vec![7; len]).await;
    there_and_back::<Counted, Zeros>(Zeros).await;
    there_and_back::<Prost, Account>(|len| Account {
        id: len as u64,
        name: "n".repeat(len / 2),
        blob: vec![7; len / 2].into(),
    })
    .await;
}

/// A request of one byte and an answer of one; some panic in the server, and one in its caller.
struct Traps;

#[derive(Debug)]
struct Question(u8);

#[derive(Debug)]
struct Reply(u8);

/// Decoding this question panics, encoding this answer, and decoding that one.
const DECODED: u8 = 13;
const ENCODED: u8 = 14;
const ANSWERED: u8 = 15;

impl Encoding for Traps {
    const ID: u8 = 200;
}

impl Codec<Question> for Traps {
    fn encode(message: &Question, buffer: &mut BytesMut) -> Result<(), CodecError> {
        buffer.put_u8(message.0);
        Ok(())
    }

    fn decode(payload: Payload<'_>) -> Result<Question, CodecError> {
        let byte = payload.to_contiguous()[0];
        assert_ne!(byte, DECODED, "as told");
        Ok(Question(byte))
    }
}

impl Codec<Reply> for Traps {
    fn encode(message: &Reply, buffer: &mut BytesMut) -> Result<(), CodecError> {
        assert_ne!(message.0, ENCODED, "as told");
        buffer.put_u8(message.0);
        Ok(())
    }

    fn decode(payload: Payload<'_>) -> Result<Reply, CodecError> {
        let byte = payload.to_contiguous()[0];
        assert_ne!(byte, ANSWERED, "as told");
        Ok(Reply(byte))
    }
}

/// In frames and over streams, where handlers are ready at once, and where they wait.
#[tokio::test]
async fn a_codec_that_panics_ends_its_own_call_and_its_neighbours_go_on() {
    const TRAPS: Method<Question, Reply> = Method::unary::<Traps>("test.Test/Traps");
    const WAITS: Method<Question, Reply> = Method::unary::<Traps>("test.Test/Waits");
    for calls in [true, false] {
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let passes = std::sync::Arc::clone(&gate);
        let builder = Server::builder()
            .unary(TRAPS, |_, question: Question| async move {
                Ok(Reply(question.0))
            })
            .unary(WAITS, |_, question: Question| async move {
                tokio::task::yield_now().await;
                Ok(Reply(question.0))
            })
            .unary(OTHER, move |_, request| {
                let passes = std::sync::Arc::clone(&passes);
                async move {
                    drop(passes.acquire().await);
                    Ok(request)
                }
            });
        let config = Config::builder().calls(calls).build().unwrap();
        let host = Host::with(builder, &config).await;
        let neighbour = tokio::spawn(host.channel.call(&OTHER, &"neighbour".into()).detach());
        until("it runs", || host.server.stats().in_flight == 1).await;
        for method in [TRAPS, WAITS] {
            for byte in [1, DECODED, 2, ENCODED, DECODED, 3] {
                let question = Question(byte);
                let answer = soon(host.channel.call(&method, &question).into_future()).await;
                match byte {
                    DECODED | ENCODED => assert_eq!(answer.unwrap_err().code(), Code::INTERNAL),
                    _ => assert_eq!(answer.unwrap().0, byte, "calls {calls}"),
                }
            }
        }
        assert_eq!(host.server.stats().panicked, 6, "calls {calls}");
        gate.add_permits(1);
        assert_eq!(soon(neighbour).await.unwrap().unwrap(), "neighbour");
        until("all are over", || host.server.stats().in_flight == 0).await;
    }
}

#[tokio::test]
async fn a_codec_that_panics_on_an_answer_ends_its_call_and_nothing_else() {
    const TRAPS: Method<Question, Reply> = Method::unary::<Traps>("test.Test/Traps");
    for calls in [true, false] {
        let builder = Server::builder().unary(TRAPS, |_, question: Question| async move {
            Ok(Reply(question.0))
        });
        let config = Config::builder().calls(calls).build().unwrap();
        let host = Host::with(builder, &config).await;
        for byte in [1, ANSWERED, 2, ANSWERED, 3] {
            let call = host.channel.call(&TRAPS, &Question(byte)).detach();
            let ended = soon(tokio::spawn(call)).await;
            match byte {
                ANSWERED => assert!(ended.unwrap_err().is_panic(), "calls {calls}"),
                _ => assert_eq!(ended.unwrap().unwrap().0, byte, "calls {calls}"),
            }
        }
        // The last answer is not read, and alone is left on the account of the session.
        let mut unread = host.channel.call(&TRAPS, &Question(4)).detach();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::Pin::new(&mut unread).poll(&mut cx).is_pending());
        let received = || host.client.stats().messages_received;
        until("it is answered", || received() == 6).await;
        host.client.close();
        soon(host.client.closed()).await;
        assert!(host.client.stats().bytes_held > 0, "calls {calls}");
        drop(unread);
        assert_eq!(host.client.stats().bytes_held, 0, "calls {calls}");
        until("all are over", || host.server.stats().in_flight == 0).await;
    }
}
