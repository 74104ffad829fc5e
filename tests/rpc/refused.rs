//! Calls that no handler can take.

use bytes::Bytes;
use ringmux::Processed;
use ringmux::rpc::{
    Bidirectional, Code, Codec, CodecError, Encoding, Method, Origin, Payload, Server, Status,
};

use crate::host::*;

/// Bytes by another name.
struct Strange;

impl Encoding for Strange {
    const ID: u8 = 200;
}

impl Codec<Bytes> for Strange {
    fn encode(message: &Bytes, buffer: &mut bytes::BytesMut) -> Result<(), CodecError> {
        match &message[..] {
            b"unspeakable" => Err(CodecError("that cannot be said".into())),
            _ => {
                buffer.extend_from_slice(message);
                Ok(())
            }
        }
    }

    fn decode(payload: Payload<'_>) -> Result<Bytes, CodecError> {
        match &*payload.to_contiguous() {
            b"nonsense" => Err(CodecError("that makes no sense".into())),
            bytes => Ok(Bytes::copy_from_slice(bytes)),
        }
    }
}

#[track_caller]
fn check(status: &Status, code: Code, words: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(status.origin(), Origin::PeerLibrary, "{status:?}");
    assert_eq!(status.was_processed(), Processed::No, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
    assert!(!status.is_retryable());
}

#[tokio::test]
async fn an_unknown_method_service_kind_or_codec_is_unimplemented_and_not_processed() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let request = Bytes::new();
    let call = |method: Method<Bytes, Bytes>| {
        let (channel, request) = (host.channel.clone(), request.clone());
        async move {
            soon(channel.call(&method, &request).into_future())
                .await
                .unwrap_err()
        }
    };
    let status = call(OTHER).await;
    check(
        &status,
        Code::UNIMPLEMENTED,
        "the service has no method test.Test/Other",
    );
    let status = call(Method::unary::<ringmux::rpc::Raw>("else.Else/Echo")).await;
    check(
        &status,
        Code::UNIMPLEMENTED,
        "there is no service \"else.Else\"",
    );
    let status = call(Method::unary::<Strange>("test.Test/Echo")).await;
    check(
        &status,
        Code::UNIMPLEMENTED,
        "served with codec 0, and was called with 200",
    );
    const KIND: Method<Bytes, Bytes, Bidirectional> =
        Method::bidirectional::<ringmux::rpc::Raw>("test.Test/Echo");
    let (to, mut from) = soon(host.channel.bidirectional(&KIND).open())
        .await
        .unwrap();
    let status = soon(from.recv()).await.unwrap_err();
    check(&status, Code::UNIMPLEMENTED, "another kind of method");
    drop(to);
    assert_eq!(host.server.stats().refused, 4);
    soon(host.channel.call(&ECHO, &request).into_future())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stream_that_is_no_call_is_told_so() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let cases: [(&[u8], Code, &str); 6] = [
        (b"", Code::INVALID_ARGUMENT, "no call"),
        (b"greetings", Code::UNIMPLEMENTED, "version 103"),
        (
            b"\x02\0\0\x0etest.Test/Echo",
            Code::UNIMPLEMENTED,
            "version 2",
        ),
        (
            b"\x01\x80\0\x0etest.Test/Echo",
            Code::UNIMPLEMENTED,
            "flags 0x80",
        ),
        (
            b"\x01\x10\0\x0etest.Test/Echo",
            Code::UNIMPLEMENTED,
            "prefix of gRPC",
        ),
        (
            b"\x01\0\0\x0etest.Test/Echo\x01",
            Code::INVALID_ARGUMENT,
            "cut off",
        ),
    ];
    for (opening, code, words) in cases {
        let (mut send, mut recv) = host.client.open(opening).await.unwrap();
        let _ = send.send("request").await;
        let _ = send.finish();
        check(
            &Status::from(soon(recv.recv()).await.unwrap_err()),
            code,
            words,
        );
    }
    // No request at all, and two answers' worth of requests.
    let (mut send, mut recv) = host
        .client
        .open(&b"\x01\0\0\x0etest.Test/Echo"[..])
        .await
        .unwrap();
    send.finish().unwrap();
    let status = Status::from(soon(recv.recv()).await.unwrap_err());
    check(&status, Code::INVALID_ARGUMENT, "without a request");
    soon(host.channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_fault_of_whoever_sent_them() {
    const METHOD: Method<Bytes, Bytes> = Method::unary::<Strange>("test.Test/Strange");
    let host = Host::new(
        Server::builder().unary(METHOD, |_, request: Bytes| async move {
            Ok(match &request[..] {
                b"answer" => Bytes::from_static(b"nonsense"),
                b"say" => Bytes::from_static(b"unspeakable"),
                _ => request,
            })
        }),
    )
    .await;
    let call = |request: &'static str| {
        let channel = host.channel.clone();
        async move {
            soon(channel.call(&METHOD, &request.into()).into_future())
                .await
                .unwrap_err()
        }
    };
    check(
        &call("nonsense").await,
        Code::INVALID_ARGUMENT,
        "that makes no sense",
    );
    let status = call("answer").await;
    assert_eq!(
        (status.code(), status.origin()),
        (Code::INTERNAL, Origin::Library)
    );
    assert_eq!(status.was_processed(), Processed::Maybe);
    let opened = host.client.stats().opened;
    let status = call("unspeakable").await;
    assert_eq!(
        (status.code(), status.was_processed()),
        (Code::INTERNAL, Processed::No)
    );
    assert_eq!(host.client.stats().opened, opened);
    let status = call("say").await;
    assert_eq!(
        (status.code(), status.origin()),
        (Code::INTERNAL, Origin::PeerLibrary)
    );
    assert_eq!(status.was_processed(), Processed::Yes);
}

#[tokio::test]
async fn an_end_without_an_answer_is_internal_and_never_an_answer() {
    let (client, session) = pipe(&settings().build().unwrap()).await;
    tokio::spawn(async move {
        while let Ok(Some((mut send, mut recv))) = session.accept().await {
            let request = recv.recv().await.unwrap().unwrap_or_default();
            if request == "twice" {
                send.send("one").await.unwrap();
                send.send("two").await.unwrap();
            }
            if request != "drop" {
                send.finish().unwrap();
            }
        }
    });
    let channel = ringmux::rpc::Channel::new(client);
    for (request, code) in [
        ("nothing", Code::INTERNAL),
        ("twice", Code::INTERNAL),
        ("drop", Code::CANCELLED),
    ] {
        let status = soon(channel.call(&ECHO, &request.into()).into_future())
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{request}: {status:?}");
        assert_eq!(status.was_processed(), Processed::Maybe);
    }
}
