//! Messages of every size, with windows far smaller than the messages.

use std::thread;

use bytes::Bytes;
use ringmux::{Config, SendError, SendStream, TrySendError};
use tokio::io::AsyncReadExt;

use crate::host::{Net, Soon, eventually, pattern, pause, tokio_runtime};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SIZES: [usize; 9] = [
    0,
    1,
    255,
    4 * KIB,
    16 * KIB,
    16 * KIB + 1,
    64 * KIB,
    64 * KIB + 1,
    4 * MIB,
];

everywhere!(
    every_size_is_received_whole_on_small_windows,
    every_size_is_leased_whole_on_small_windows,
    every_size_is_read_as_bytes_on_small_windows,
);
on_sockets!(
    what_is_sent_from_one_thread_and_then_another_all_arrives,
    one_byte_too_many_is_refused_before_memory_is_spent,
    the_peers_smaller_limit_holds,
    a_message_is_complete_before_anybody_asks_for_it,
    a_full_queue_gives_the_message_back,
    one_message_of_any_size_enters_an_empty_queue,
    mixed_sizes_keep_their_order,
);

/// Windows at their floors, which do not grow.
pub(crate) fn small_windows() -> Config {
    Config::builder()
        .stream_window(32 * 1024)
        .stream_window_max(32 * 1024)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap()
}

/// The sizes that a host can carry in reasonable time.
fn sizes(net: &Net) -> impl Iterator<Item = usize> + use<> {
    let most = net.scaled(4 * MIB);
    SIZES.into_iter().filter(move |size| *size <= most)
}

async fn every_size_is_received_whole_on_small_windows(net: Net) {
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut ours_send, _ours_recv), (theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    for size in sizes(&net) {
        let message = pattern(size, size as u64);
        ours_send.send(message.clone()).soon().await.unwrap();
        let received = theirs_recv.recv().soon().await.unwrap().unwrap();
        assert!(received == message, "{size} bytes");
    }
    ours_send.finish().unwrap();
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    drop((theirs_send, theirs_recv));
    eventually("nothing is held", || server.stats().bytes_held == 0).await;
}

async fn every_size_is_leased_whole_on_small_windows(net: Net) {
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut ours_send, _ours_recv), (theirs_send, mut theirs_recv)) =
        net.stream(&server, &client).await;
    for size in sizes(&net) {
        let message = pattern(size, size as u64);
        ours_send.send_slice(&message).soon().await.unwrap();
        let lease = theirs_recv.lease().soon().await.unwrap().unwrap();
        assert_eq!((lease.len(), lease.is_empty()), (size, size == 0));
        assert!(*lease.to_contiguous() == *message, "{size} bytes");
        let pieces: Vec<u8> = lease.chunks().flatten().copied().collect();
        assert!(pieces == message, "{size} bytes in pieces");
    }
    ours_send.finish().unwrap();
    assert!(theirs_recv.lease().soon().await.unwrap().is_none());
    drop((theirs_send, theirs_recv));
    eventually("nothing is held", || client.stats().bytes_held == 0).await;
}

async fn every_size_is_read_as_bytes_on_small_windows(net: Net) {
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut ours_send, ours_recv), (theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let messages: Vec<Bytes> = sizes(&net).map(|size| pattern(size, size as u64)).collect();
    let expected = messages.concat();
    let sender = tokio::spawn(async move {
        ours_send.send_all(messages).soon().await.unwrap();
        ours_send.finish().unwrap();
        (ours_send, ours_recv)
    });
    let mut received = Vec::new();
    theirs_recv.read_to_end(&mut received).soon().await.unwrap();
    assert_eq!(received.len(), expected.len());
    assert!(received == expected);
    drop(sender.soon().await.unwrap());
    drop((theirs_send, theirs_recv));
    eventually("nothing is held", || server.stats().bytes_held == 0).await;
}

async fn one_byte_too_many_is_refused_before_memory_is_spent(net: Net) {
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    client.ping().soon().await.unwrap();
    let (sent, held) = (client.stats().bytes_sent, server.stats().bytes_held);
    let message = pattern(4 * MIB + 1, 0);

    let error = ours_send.send(message.clone()).soon().await.unwrap_err();
    let limit_is_named = matches!(error, SendError::TooLong { len, limit } if (len, limit) == (4 * MIB + 1, 4 * MIB));
    assert!(limit_is_named, "{error}");
    let error = ours_send.send_slice(&message).soon().await.unwrap_err();
    assert!(matches!(error, SendError::TooLong { .. }), "{error}");
    let error = ours_send
        .send_all([message.clone()])
        .soon()
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::TooLong { .. }), "{error}");
    let refused = ours_send.try_send(message.clone()).unwrap_err();
    assert!(matches!(
        &refused,
        TrySendError::Refused {
            error: SendError::TooLong { .. },
            ..
        }
    ));
    assert_eq!(refused.into_message(), message);

    client.ping().soon().await.unwrap();
    let control_frames = 64;
    assert!(client.stats().bytes_sent - sent <= control_frames);
    assert!(server.stats().bytes_held <= held);
    ours_send.send("the stream goes on").soon().await.unwrap();
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap().unwrap(),
        "the stream goes on"
    );
}

async fn the_peers_smaller_limit_holds(net: Net) {
    let modest = Config::builder().max_message(64 * 1024).build().unwrap();
    let (client, server) = net.pair_with(&Config::default(), &modest).await;
    let ((mut ours_send, mut ours_recv), (mut theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let message = pattern(64 * KIB, 1);
    ours_send.send(message.clone()).soon().await.unwrap();
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), Some(message));
    let error = ours_send
        .send(pattern(64 * KIB + 1, 1))
        .soon()
        .await
        .unwrap_err();
    assert!(
        matches!(error, SendError::TooLong { limit: 65536, .. }),
        "{error}"
    );
    // The other direction has the other side's limit.
    let message = pattern(64 * KIB + 1, 2);
    theirs_send.send(message.clone()).soon().await.unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap(), Some(message));
}

async fn a_message_is_complete_before_anybody_asks_for_it(net: Net) {
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let message = pattern(4 * MIB, 4);
    ours_send.send(message.clone()).soon().await.unwrap();
    eventually("the message is there", || {
        server.stats().messages_received == 1
    })
    .await;
    assert_eq!(theirs_recv.try_recv(), Some(message));
    assert_eq!(theirs_recv.try_recv(), None);
}

async fn a_full_queue_gives_the_message_back(net: Net) {
    let config = Config::builder().send_buffer(4096).build().unwrap();
    let (client, server) = net.pair_with(&config, &small_windows()).await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let mut sent = 0_u64;
    // No receiver: the peer's window and then our queue fill up.
    let back = loop {
        match ours_send.try_send(pattern(1000, sent)) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full(message)) if sent * 1256 > 33 * 1024 => break message,
            Err(TrySendError::Full(_)) => pause().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(back, pattern(1000, sent));
    for n in 0..sent {
        assert_eq!(
            theirs_recv.recv().soon().await.unwrap(),
            Some(pattern(1000, n))
        );
    }
    ours_send.send(back).soon().await.unwrap();
    assert_eq!(
        theirs_recv.recv().soon().await.unwrap(),
        Some(pattern(1000, sent))
    );
}

async fn one_message_of_any_size_enters_an_empty_queue(net: Net) {
    let config = Config::builder().send_buffer(4096).build().unwrap();
    let (client, server) = net.pair_with(&config, &Config::default()).await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let message = pattern(4 * MIB, 7);
    ours_send.try_send(message.clone()).unwrap();
    assert!(theirs_recv.recv().soon().await.unwrap().unwrap() == message);
}

async fn mixed_sizes_keep_their_order(net: Net) {
    const MESSAGES: u64 = 300;
    let size = |n: u64| [3, 0, 700, 5_000, 40_000, 1, 17_000][n as usize % 7];
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut ours_send, ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let sender = tokio::spawn(async move {
        for n in 0..MESSAGES {
            ours_send.send(pattern(size(n), n)).soon().await.unwrap();
        }
        ours_send.finish().unwrap();
        (ours_send, ours_recv)
    });
    for n in 0..MESSAGES {
        let expected = pattern(size(n), n);
        if n % 2 == 0 {
            let received = theirs_recv.recv().soon().await.unwrap().unwrap();
            assert!(received == expected, "message {n}");
        } else {
            let lease = theirs_recv.lease().soon().await.unwrap().unwrap();
            assert!(*lease.to_contiguous() == *expected, "message {n}");
        }
    }
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    drop(sender.soon().await.unwrap());
}

/// With an inline engine one of the two is the engine's own thread, where notifying it takes another path.
async fn what_is_sent_from_one_thread_and_then_another_all_arrives(net: Net) {
    let (client, server) = net.pair().await;
    let (mut send, _recv) = client.open("").soon().await.unwrap();
    let (lend, lent) = std::sync::mpsc::channel::<(SendStream, u64)>();
    let (give_back, mut given_back) = tokio::sync::mpsc::unbounded_channel();
    let elsewhere = thread::spawn(move || {
        for (mut send, n) in lent {
            tokio_runtime().block_on(send_three(&mut send, n));
            assert!(give_back.send(send).is_ok(), "the case has ended");
        }
    });
    send_three(&mut send, 0).await;
    let (_theirs_send, mut theirs_recv) = server.accept().soon().await.unwrap().unwrap();
    for round in 0..200 {
        let n = 6 * round;
        lend.send((send, n + 3)).unwrap();
        send = given_back.recv().soon().await.unwrap();
        send_three(&mut send, n + 6).await;
        for n in n..n + 6 {
            let message = theirs_recv.recv().soon().await.unwrap();
            assert_eq!(message.unwrap(), n.to_le_bytes()[..]);
        }
    }
    drop(lend);
    elsewhere.join().unwrap();
}

async fn send_three(send: &mut SendStream, from: u64) {
    for n in from..from + 3 {
        send.send_slice(&n.to_le_bytes()).soon().await.unwrap();
    }
}
