//! Messages and metadata at the edges of what is carried.

use bytes::Bytes;
use ringmux::Processed;
use ringmux::rpc::{Code, Context, Metadata, Origin, Server, Status};

use crate::host::*;

#[tokio::test]
async fn messages_of_every_size_come_back() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let frame = 16 * 1024;
    let sizes = [
        0,
        1,
        511,
        512,
        4096,
        4097,
        frame - 1,
        frame,
        frame + 1,
        256 * 1024,
        4 << 20,
    ];
    for size in sizes {
        let request = Bytes::from((0..size).map(|n| n as u8).collect::<Vec<_>>());
        let call = host.channel.call(&ECHO, &request).into_future();
        assert!(soon(call).await.unwrap() == request, "{size} bytes");
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_before_it_is_sent() {
    let host = Host::new(Server::builder().unary(ECHO, echo)).await;
    let request = Bytes::from(vec![0; (4 << 20) + 1]);
    let status = soon(host.channel.call(&ECHO, &request).into_future())
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.origin()),
        (Code::RESOURCE_EXHAUSTED, Origin::Transport)
    );
    assert_eq!(status.was_processed(), Processed::No);
    assert!(!status.is_retryable());
    assert!(host.client.stats().bytes_sent < 64 * 1024);
    soon(host.channel.call(&ECHO, &Bytes::new()).into_future())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_status_and_the_session_goes_on() {
    async fn large(_: Context, _: Bytes) -> Result<Bytes, Status> {
        Ok(Bytes::from(vec![0; (64 << 10) + 1]))
    }
    let config = settings().max_message(64 << 10).build().unwrap();
    let builder = Server::builder().unary(ECHO, large).unary(OTHER, echo);
    let host = Host::with(builder, &config).await;
    let request = Bytes::new();
    let status = soon(host.channel.call(&ECHO, &request).into_future())
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.origin()),
        (Code::RESOURCE_EXHAUSTED, Origin::PeerLibrary)
    );
    assert_eq!(status.was_processed(), Processed::Yes);
    soon(host.channel.call(&OTHER, &request).into_future())
        .await
        .unwrap();
}

#[tokio::test]
async fn metadata_has_eight_kib_and_not_one_byte_more() {
    async fn handler(cx: Context, _: Bytes) -> Result<Bytes, Status> {
        let long = cx.metadata().get("k").map_or(0, <[u8]>::len);
        cx.add_header("k", vec![1; long])?;
        cx.add_trailer("k", vec![2; long])?;
        assert!(cx.add_trailer("k", "").is_err());
        Ok(long.to_string().into())
    }
    let host = Host::new(Server::builder().unary(ECHO, handler)).await;
    let request = Bytes::new();
    // An entry costs 3 bytes and its key; one byte says what the block is.
    let most = 8 * 1024 - 1 - 3 - 1;
    assert_eq!(Metadata::MAX_BYTES, most + 4);
    for len in [most - 1, most, most + 1] {
        let opened = host.client.stats().opened;
        let call = host
            .channel
            .call(&ECHO, &request)
            .metadata("k", vec![0; len]);
        let result = soon(call.detailed()).await;
        if len > most {
            let status = result.unwrap_err();
            assert_eq!(
                (status.code(), status.origin()),
                (Code::RESOURCE_EXHAUSTED, Origin::Library)
            );
            assert_eq!(status.was_processed(), Processed::No);
            assert_eq!(host.client.stats().opened, opened);
        } else {
            let response = result.unwrap();
            assert_eq!(response.message, len.to_string());
            assert_eq!(response.headers.get("k").map(<[u8]>::len), Some(len));
            assert_eq!(response.trailers.get("k").map(<[u8]>::len), Some(len));
        }
    }
}
