//! Every future may be dropped while it is pending, without loss.

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures_util::poll;
use ringmux::Config;

use crate::host::{Net, Soon, eventually, pattern, pause};
use crate::messages::small_windows;
use crate::streams::all_streams_end;

everywhere!(
    a_dropped_recv_loses_no_message,
    a_dropped_lease_loses_no_message,
    a_dropped_accept_loses_no_stream,
    a_dropped_send_has_queued_nothing,
    a_dropped_open_reaches_nobody,
    a_dropped_ping_leaves_the_next_one_working,
);
on_sockets!(
    a_dropped_send_all_has_queued_a_prefix,
    a_dropped_connect_leaves_no_session,
    a_dropped_listeners_accept_loses_no_session,
    a_lease_dropped_unread_releases_its_message,
    a_receiver_that_moves_between_tasks_is_woken_in_the_last_one,
);

/// Polls once with the waker of this task, and drops the future if it is pending.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match poll!(future.as_mut()) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

async fn a_dropped_recv_loses_no_message(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let mut dropped = 0;
    for n in 0..50 {
        if n % 2 == 0 {
            assert!(
                once(theirs_recv.recv()).await.is_none(),
                "nothing was sent yet"
            );
            dropped += 1;
        }
        ours_send.send(pattern(20, n)).soon().await.unwrap();
        let received = loop {
            match once(theirs_recv.recv()).await {
                Some(received) => break received.unwrap(),
                None => dropped += 1,
            }
            pause().await;
        };
        assert_eq!(received, Some(pattern(20, n)));
    }
    assert!(dropped >= 25);
}

async fn a_dropped_lease_loses_no_message(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    for n in 0..20 {
        assert!(once(theirs_recv.lease()).await.is_none());
        ours_send.send(pattern(20, n)).soon().await.unwrap();
        let lease = theirs_recv.lease().soon().await.unwrap().unwrap();
        assert_eq!(*lease.to_contiguous(), pattern(20, n));
    }
}

async fn a_lease_dropped_unread_releases_its_message(net: Net) {
    let (client, server) = net.pair_with(&small_windows(), &small_windows()).await;
    let ((mut ours_send, ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    // Far more than the window: progress requires that leases are released.
    let sender = tokio::spawn(async move {
        for n in 0..200 {
            ours_send.send(pattern(1000, n)).soon().await.unwrap();
        }
        (ours_send, ours_recv)
    });
    for _ in 0..200 {
        drop(theirs_recv.lease().soon().await.unwrap().unwrap());
    }
    drop(sender.soon().await.unwrap());
}

async fn a_dropped_accept_loses_no_stream(net: Net) {
    let (client, server) = net.pair().await;
    for n in 0..20 {
        assert!(once(server.accept()).await.is_none());
        let _opened = client.open(pattern(20, n)).soon().await.unwrap();
        let (accepted_send, _accepted_recv) = server.accept().soon().await.unwrap().unwrap();
        assert_eq!(accepted_send.opening(), &pattern(20, n));
    }
    // A dropped future consumes no wake of one that still waits.
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.accept().soon().await.unwrap().unwrap() }
    });
    tokio::task::yield_now().await;
    assert!(once(server.accept()).await.is_none());
    let _opened = client.open("woken").soon().await.unwrap();
    assert_eq!(waiting.soon().await.unwrap().0.opening(), "woken");
}

async fn a_dropped_send_has_queued_nothing(net: Net) {
    let config = Config::builder().send_buffer(4096).build().unwrap();
    let (client, server) = net.pair_with(&config, &small_windows()).await;
    let ((mut ours_send, ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let mut sent = 0;
    let mut dropped = 0;
    // No receiver, so sends wait sooner or later; those are dropped.
    while dropped < 20 {
        match once(ours_send.send(pattern(1000, sent))).await {
            Some(result) => {
                result.unwrap();
                sent += 1;
            }
            None => {
                dropped += 1;
                client.ping().soon().await.unwrap();
            }
        }
    }
    let waiting = tokio::spawn(async move {
        ours_send.send("at last").soon().await.unwrap();
        ours_send.finish().unwrap();
        (ours_send, ours_recv)
    });
    for n in 0..sent {
        assert_eq!(
            theirs_recv.recv().soon().await.unwrap(),
            Some(pattern(1000, n))
        );
    }
    assert_eq!(theirs_recv.recv().soon().await.unwrap().unwrap(), "at last");
    assert_eq!(theirs_recv.recv().soon().await.unwrap(), None);
    drop(waiting.soon().await.unwrap());
}

async fn a_dropped_send_all_has_queued_a_prefix(net: Net) {
    let config = Config::builder().send_buffer(4096).build().unwrap();
    let (client, server) = net.pair_with(&config, &small_windows()).await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let messages: Vec<Bytes> = (0..500).map(|n| pattern(1000, n)).collect();
    assert!(once(ours_send.send_all(messages.clone())).await.is_none());
    ours_send.finish().unwrap();
    let mut received = Vec::new();
    while let Some(message) = theirs_recv.recv().soon().await.unwrap() {
        received.push(message);
    }
    assert!(!received.is_empty() && received.len() < messages.len());
    assert!(received == messages[..received.len()]);
}

async fn a_dropped_open_reaches_nobody(net: Net) {
    let few = Config::builder().max_streams(16).build().unwrap();
    let (client, server) = net.pair_with(&few, &few).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(net.stream(&client, &server).await);
    }
    for _ in 0..50 {
        assert!(once(client.open("dropped")).await.is_none());
    }
    drop(streams);
    all_streams_end(&client, &server).await;
    // All sixteen places are free again, with any number of waiters.
    let mut streams = Vec::new();
    for _ in 0..16 {
        let opened = client.open("kept").soon().await.unwrap();
        let (accepted_send, accepted_recv) = server.accept().soon().await.unwrap().unwrap();
        assert_eq!(accepted_send.opening(), "kept");
        streams.push((opened, (accepted_send, accepted_recv)));
    }
    assert!(once(client.open("one too many")).await.is_none());
}

async fn a_dropped_ping_leaves_the_next_one_working(net: Net) {
    let (client, server) = net.pair().await;
    for session in [&client, &server] {
        for _ in 0..10 {
            once(session.ping()).await;
            session.ping().soon().await.unwrap();
        }
    }
}

async fn a_dropped_connect_leaves_no_session(net: Net) {
    // Accepted by the kernel, never answered.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = ringmux::Addr::Tcp(silent.local_addr().unwrap().to_string());
    let config = Config::default();
    let mut connecting = Box::pin(net.engine().connect(&addr, &config));
    assert!(poll!(connecting.as_mut()).is_pending());
    let (mut socket, _) = tokio::select! {
        accepted = silent.accept().soon() => accepted.unwrap(),
        _ = connecting.as_mut() => panic!("there was no answer"),
    };
    let mut preface = [0; 8];
    tokio::select! {
        read = tokio::io::AsyncReadExt::read_exact(&mut socket, &mut preface).soon() => {
            read.unwrap();
        }
        _ = connecting.as_mut() => panic!("there was no answer"),
    }
    assert_eq!(&preface, b"RINGMUX\x01");
    drop(connecting);
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest);
    read.soon().await.expect("the connection is closed");
}

async fn a_dropped_listeners_accept_loses_no_session(net: Net) {
    let listener = net.listen(&Config::default()).await;
    for _ in 0..5 {
        assert!(once(listener.accept()).await.is_none());
        let client = net.connect(&listener, &Config::default()).await;
        let server = listener.accept().soon().await.unwrap();
        assert_eq!(server.peer_addr(), client.local_addr());
    }
}

async fn a_receiver_that_moves_between_tasks_is_woken_in_the_last_one(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, ours_recv), (theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    for n in 0..20 {
        // A task polls and ends before the message arrives.
        theirs_recv = tokio::spawn(async move {
            assert!(once(theirs_recv.recv()).await.is_none());
            theirs_recv
        })
        .soon()
        .await
        .unwrap();
        let waiting = tokio::spawn(async move {
            let received = theirs_recv.recv().soon().await.unwrap();
            (theirs_recv, received)
        });
        ours_send.send(pattern(10, n)).soon().await.unwrap();
        let received;
        (theirs_recv, received) = waiting.soon().await.unwrap();
        assert_eq!(received, Some(pattern(10, n)));
    }
    drop(((ours_send, ours_recv), (theirs_send, theirs_recv)));
    eventually("the stream has ended", || client.stats().streams == 0).await;
}
