//! Streams through the traits of the ecosystem: `AsyncRead`, `AsyncWrite`, `Stream` and `Sink`.

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt, stream};
use ringmux::{SendError, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, join};

use crate::host::{Net, Soon, pattern};
use crate::messages::small_windows;

everywhere!(
    bytes_go_through_a_bidirectional_copy_unchanged,
    messages_go_through_a_sink_and_come_out_of_a_stream,
);
on_sockets!(
    shutdown_is_the_end_of_file_and_leaves_the_other_direction_open,
    the_rest_of_a_message_of_which_bytes_were_read_comes_next,
    a_failed_stream_is_an_io_error,
    a_closed_sink_refuses_messages,
);

/// Two streams of two sessions, joined in the middle by `copy_bidirectional`.
async fn bytes_go_through_a_bidirectional_copy_unchanged(net: Net) {
    let config = small_windows();
    let (left, left_middle) = net.pair_with(&config, &config).await;
    let (right, right_middle) = net.pair_with(&config, &config).await;
    let ((mut near_send, mut near_recv), (send, recv)) = net.stream(&left, &left_middle).await;
    let mut middle_in = join(recv, send);
    let ((send, recv), (mut far_send, mut far_recv)) = net.stream(&right_middle, &right).await;
    let mut middle_out = join(recv, send);
    let copy = tokio::spawn(async move {
        copy_bidirectional(&mut middle_in, &mut middle_out)
            .soon()
            .await
    });

    let there = pattern(net.scaled(1 << 20), 1);
    let back = pattern(net.scaled(1 << 20) / 2 + 1, 2);
    let (mut there_got, mut back_got) = (Vec::new(), Vec::new());
    let (a, b, c, d) = tokio::join!(
        async {
            near_send.write_all(&there).soon().await?;
            near_send.shutdown().soon().await
        },
        async {
            far_send.write_all(&back).soon().await?;
            far_send.shutdown().soon().await
        },
        far_recv.read_to_end(&mut there_got).soon(),
        near_recv.read_to_end(&mut back_got).soon(),
    );
    a.and(b).unwrap();
    assert_eq!((c.unwrap(), d.unwrap()), (there.len(), back.len()));
    assert!(there_got == there && back_got == back);
    let copied = copy.soon().await.unwrap().unwrap();
    assert_eq!(copied, (there.len() as u64, back.len() as u64));
}

async fn messages_go_through_a_sink_and_come_out_of_a_stream(net: Net) {
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut send, _), (_answers, recv)) = net.stream(&client, &server).await;
    let messages: Vec<Bytes> = (0..60).map(|n| pattern(n * 40, n as u64)).collect();
    let mut source = stream::iter(messages.clone()).map(Ok);
    let sending = async {
        SinkExt::send_all(&mut send, &mut source)
            .soon()
            .await
            .unwrap();
        SinkExt::close(&mut send).soon().await.unwrap();
    };
    let ((), received) = tokio::join!(sending, recv.collect::<Vec<_>>().soon());
    let received: Vec<Bytes> = received.into_iter().map(Result::unwrap).collect();
    assert_eq!(received, messages);
}

async fn shutdown_is_the_end_of_file_and_leaves_the_other_direction_open(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    ours_send.write_all(b"request").soon().await.unwrap();
    ours_send.shutdown().soon().await.unwrap();
    ours_send
        .shutdown()
        .soon()
        .await
        .expect("shutting down again does nothing");
    let mut request = String::new();
    theirs_recv
        .read_to_string(&mut request)
        .soon()
        .await
        .unwrap();
    assert_eq!(request, "request");
    assert_eq!(
        theirs_recv.read(&mut [0]).soon().await.unwrap(),
        0,
        "the end stays"
    );
    theirs_send.write_all(b"response").soon().await.unwrap();
    theirs_send.shutdown().soon().await.unwrap();
    let mut response = String::new();
    ours_recv
        .read_to_string(&mut response)
        .soon()
        .await
        .unwrap();
    assert_eq!(response, "response");
}

async fn the_rest_of_a_message_of_which_bytes_were_read_comes_next(net: Net) {
    for way in 0..5 {
        let (client, server) = net.pair().await;
        let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
            net.stream(&client, &server).await;
        for message in ["0123456789", "second"] {
            ours_send.send(message).soon().await.unwrap();
        }
        ours_send.finish().unwrap();
        let mut four = [0; 4];
        theirs_recv.read_exact(&mut four).soon().await.unwrap();
        assert_eq!(&four, b"0123");
        let rest = match way {
            0 => theirs_recv.recv().soon().await.unwrap().unwrap(),
            1 => theirs_recv.try_recv().unwrap(),
            2 => {
                let lease = theirs_recv.lease().soon().await.unwrap().unwrap();
                assert_eq!((lease.len(), lease.remaining()), (6, 6));
                assert_eq!(lease.chunk(), b"456789");
                assert_eq!(lease.as_slice(), Some(&b"456789"[..]));
                assert_eq!(lease.chunks().collect::<Vec<_>>(), [b"456789"]);
                lease.to_contiguous().into_owned().into()
            }
            3 => theirs_recv.next().soon().await.unwrap().unwrap(),
            _ => {
                let mut rest = vec![0; 6];
                theirs_recv.read_exact(&mut rest).soon().await.unwrap();
                rest.into()
            }
        };
        assert_eq!(rest, "456789", "way {way}");
        assert_eq!(theirs_recv.recv().soon().await.unwrap().unwrap(), "second");
        let mut rest = Vec::new();
        theirs_recv.read_to_end(&mut rest).soon().await.unwrap();
        assert_eq!(rest, b"");
    }
}

async fn a_failed_stream_is_an_io_error(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    ours_send.write_all(b"before").soon().await.unwrap();
    ours_send.finish_with_error(9, "broken").unwrap();
    let mut before = [0; 6];
    theirs_recv.read_exact(&mut before).soon().await.unwrap();
    assert_eq!(&before, b"before");
    let error = theirs_recv.read(&mut [0]).soon().await.unwrap_err();
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<StreamError>());
    assert!(
        matches!(inner, Some(StreamError::Failed(failure)) if failure.code == 9),
        "{error}"
    );
    let error = theirs_send.write_all(b"late").soon().await.unwrap_err();
    assert!(error.downcast::<SendError>().is_ok(), "an error of ours");
}

async fn a_closed_sink_refuses_messages(net: Net) {
    let (client, server) = net.pair().await;
    let ((ours_send, ours_recv), (theirs_send, theirs_recv)) = net.stream(&client, &server).await;
    let (mut send, _recv) = (ours_send, ours_recv);
    SinkExt::close(&mut send).soon().await.unwrap();
    SinkExt::close(&mut send)
        .soon()
        .await
        .expect("closing again does nothing");
    let error = SinkExt::send(&mut send, Bytes::new())
        .soon()
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::Finished), "{error}");
    let (_answers, mut recv) = (theirs_send, theirs_recv);
    assert!(recv.next().soon().await.is_none());
}
