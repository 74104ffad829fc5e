//! The handles over a pipe in memory: states, ends, and stored futures.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::DuplexStream;

use super::{Incoming, Open, RecvStream, SendStream, Session, SessionState};
use crate::error::{OpenError, SendError, SessionError};
use crate::{Config, codes};

const BUFFER: usize = 64 * 1024;

/// A session whose two sides have completed the handshake.
async fn pair() -> (Session, Session) {
    pair_with(&Config::default()).await
}

async fn pair_with(config: &Config) -> (Session, Session) {
    let (a, b) = tokio::io::duplex(BUFFER);
    let (client, connection) = crate::client(a, config);
    tokio::spawn(connection);
    let (server, connection) = crate::server(b, config);
    tokio::spawn(connection);
    client.established().await.unwrap();
    server.established().await.unwrap();
    (client, server)
}

async fn stream(from: &Session, to: &Session) -> [(SendStream, RecvStream); 2] {
    let ours = from.open("").await.unwrap();
    [ours, to.accept().await.unwrap().expect("it is open")]
}

/// The value of a future that is ready at once.
fn now<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// One side of a session whose other side is the test.
async fn beside_a_raw_peer() -> (Session, DuplexStream) {
    let (a, b) = tokio::io::duplex(BUFFER);
    let (session, connection) = crate::server(a, &Config::default());
    tokio::spawn(connection);
    (session, b)
}

// ---- accept -----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn accept_ends_with_none_on_both_sides_however_a_session_ended_in_order() {
    const GRACE: Duration = Duration::from_secs(1);
    for (way, client_ends) in [
        (0, true),
        (0, false),
        (1, true),
        (1, false),
        (2, true),
        (2, false),
    ] {
        let (client, server) = pair().await;
        let (ends, stays) = if client_ends {
            (client, server)
        } else {
            (server, client)
        };
        let (mut send, recv) = ends.open("last").await.unwrap();
        send.finish().unwrap();
        send.written().await.unwrap();
        drop((send, recv));
        let accepting = tokio::spawn(async move {
            let first = stays.accept().await.unwrap();
            let (send, _recv) = first.expect("earlier streams are handed out");
            assert_eq!(send.opening(), "last");
            drop((send, _recv));
            (stays.accept().await, stays.state())
        });
        if way == 2 {
            drop(ends); // the last handle
        } else {
            match way {
                0 => ends.close(),
                _ => drop(ends.shutdown(GRACE).await),
            }
            assert!(ends.accept().await.unwrap().is_none(), "{way}");
        }
        let (accepted, state) = accepting.await.unwrap();
        assert!(accepted.unwrap().is_none(), "{way}");
        assert!(state.reason().unwrap().is_orderly(), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn accept_tells_why_a_session_was_lost() {
    let (session, raw) = beside_a_raw_peer().await;
    drop(raw);
    let lost = session.accept().await.unwrap_err();
    assert!(matches!(lost, SessionError::Disconnected), "{lost}");

    let (session, _raw) = beside_a_raw_peer().await;
    let lost = session.accept().await.unwrap_err();
    assert!(matches!(lost, SessionError::HandshakeTimeout(_)), "{lost}");

    for code in [codes::PROTOCOL, codes::INTERNAL, codes::KEEPALIVE] {
        let reason = "".into();
        assert!(!SessionError::PeerClosed { code, reason }.is_orderly());
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_wakes_one_of_the_tasks_that_accept_and_the_next_one_if_that_gives_up() {
    let (client, server) = pair().await;
    let wakes: Vec<Arc<Count>> = (0..8).map(|_| Arc::default()).collect();
    let mut accepting: Vec<_> = wakes.iter().map(|_| Some(server.accept())).collect();
    for (accept, count) in accepting.iter_mut().zip(&wakes) {
        let waker = Waker::from(Arc::clone(count));
        let accept = Pin::new(accept.as_mut().unwrap());
        assert!(accept.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // Those woken since the last call.
    let woken = || -> Vec<usize> {
        let woken = |n: &usize| wakes[*n].0.swap(0, Ordering::Relaxed) > 0;
        (0..wakes.len()).filter(woken).collect()
    };
    let _first = client.open("").await.unwrap();
    let _second = client.open("").await.unwrap();
    client.ping().await.unwrap();
    let [gives_up] = woken()[..] else {
        panic!("one for all streams that arrived together");
    };
    accepting[gives_up] = None;
    let [takes_first] = woken()[..] else {
        panic!("one instead of it");
    };
    let accepted = now(accepting[takes_first].as_mut().unwrap()).unwrap();
    assert!(accepted.unwrap().is_some());
    let [takes_second] = woken()[..] else {
        panic!("one for the stream that is left");
    };
    let accepted = now(accepting[takes_second].as_mut().unwrap()).unwrap();
    assert!(accepted.unwrap().is_some());
    assert!(woken().is_empty(), "no stream is left");
}

#[tokio::test(start_paused = true)]
async fn incoming_streams_can_be_stored_and_polled_and_lose_nothing() {
    let (client, server) = pair().await;
    let mut incoming: Incoming = server.incoming();
    assert!(now(poll_fn(|cx| incoming.poll_accept(cx))).is_none());
    let waiting = tokio::spawn(async move {
        // The waker of the previous task is replaced.
        let first = poll_fn(|cx| incoming.poll_accept(cx)).await;
        (incoming, first.unwrap().expect("it is open"))
    });
    let _first = client.open("first").await.unwrap();
    let (mut incoming, (send, _recv)) = waiting.await.unwrap();
    assert_eq!(send.opening(), "first");

    let _second = client.open("second").await.unwrap();
    let (send, _recv) = incoming.next().await.unwrap().unwrap();
    assert_eq!(send.opening(), "second");
    drop(server);
    client.close();
    assert!(incoming.next().await.is_none());
    assert!(incoming.next().await.is_none());
    assert!(incoming.session().state().end().is_some());
}

// ---- open -------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_open_that_waits_can_be_stored_and_gives_its_place_back_when_it_is_dropped() {
    let config = Config::builder()
        .max_streams(16)
        .max_pending_opens(1)
        .build()
        .unwrap();
    let (client, server) = pair_with(&config).await;
    let mut kept = Vec::new();
    let mut stored: Open = loop {
        let mut open = client.open("");
        match now(&mut open) {
            Some(opened) => kept.push(opened.unwrap()),
            None => break open,
        }
    };
    let full = now(client.open("")).expect("it does not wait");
    assert!(matches!(full, Err(OpenError::TooManyPending { limit: 1 })));
    drop(stored);
    // It is counted until the engine has seen that it was given up.
    client.ping().await.unwrap();
    stored = client.open("stored");
    assert!(now(&mut stored).is_none());

    // In another task, which is woken there.
    let opening = tokio::spawn(stored);
    drop(kept);
    while let Some((send, recv)) = server.accept().await.unwrap() {
        if send.opening() == "stored" {
            break;
        }
        drop((send, recv));
    }
    let (send, _recv) = opening.await.unwrap().unwrap();
    assert_eq!(send.opening(), "stored");
    assert!(client.open("").await.is_ok());
}

#[test]
fn what_is_stored_goes_to_any_thread_and_borrows_nothing() {
    fn is_stored_anywhere<T: Send + Sync + Unpin + 'static>() {}
    is_stored_anywhere::<Open>();
    is_stored_anywhere::<Incoming>();
    is_stored_anywhere::<(SendStream, RecvStream)>();
}

// ---- states -----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_session_goes_through_its_states_in_order_and_each_can_be_waited_for() {
    let place = |state: &SessionState| match state {
        SessionState::Connecting => 0,
        SessionState::Open => 1,
        SessionState::Draining(_) => 2,
        SessionState::Closing(_) => 3,
        SessionState::Closed(_) => 4,
    };
    let (a, b) = tokio::io::duplex(BUFFER);
    let (client, connection) = crate::client(a, &Config::default());
    tokio::spawn(connection);
    assert_eq!(client.state().to_string(), "connecting");
    let (server, connection) = crate::server(b, &Config::default());
    tokio::spawn(connection);

    let watching = tokio::spawn({
        let client = client.clone();
        async move {
            let mut seen = vec![0];
            while seen.last() != Some(&4) {
                let after = seen[seen.len() - 1];
                let state = client.wait_for(|state| place(state) > after).await;
                seen.push(place(&state));
            }
            seen
        }
    });
    client.wait_for(SessionState::is_open).await;
    let [(mut send, recv), theirs] = stream(&client, &server).await;
    let closing = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown(Duration::from_secs(60)).await }
    });
    let draining = client.wait_for(|state| state.reason().is_some()).await;
    assert!(matches!(draining, SessionState::Draining(_)), "{draining}");
    assert!(draining.end().is_none(), "the stream goes on");
    send.send("goes on").await.unwrap();
    send.finish().unwrap();
    drop((send, recv, theirs));
    closing.await.unwrap();
    let closed = client
        .wait_for(|state| matches!(state, SessionState::Closed(_)))
        .await;
    assert!(closed.end().unwrap().is_orderly());
    let seen = watching.await.unwrap();
    assert!(seen.is_sorted() && seen.starts_with(&[0, 1, 2]), "{seen:?}");
}

// ---- blocks -----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn blocks_can_be_awaited_before_the_first_message_and_after_the_last() {
    let (client, server) = pair().await;
    let [(mut call, mut answer), (mut send, _recv)] = stream(&client, &server).await;
    call.finish().unwrap();
    assert!(now(answer.meta()).is_none(), "nothing has arrived");
    let waiting = tokio::spawn(async move {
        let headers = answer.meta().await;
        (answer, headers)
    });
    tokio::task::yield_now().await;
    send.send_meta("headers").await.unwrap();
    let (mut answer, headers) = waiting.await.unwrap();
    assert_eq!(headers.unwrap().unwrap(), "headers");
    assert_eq!(answer.metas(), ["headers"]);
    assert!(now(answer.meta()).is_none(), "neither block nor message");

    send.send("body").await.unwrap();
    assert_eq!(answer.meta().await.unwrap(), None, "a message is next");
    assert_eq!(answer.meta().await.unwrap(), None, "and it still is");
    assert_eq!(answer.recv().await.unwrap().unwrap(), "body");
    send.send_meta("trailers").await.unwrap();
    send.finish().unwrap();
    // Passed by receiving, and returned all the same.
    assert_eq!(answer.recv().await.unwrap(), None);
    assert_eq!(answer.meta().await.unwrap().unwrap(), "trailers");
    assert_eq!(answer.meta().await.unwrap(), None, "the end");
    assert_eq!(answer.metas(), ["headers", "trailers"]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_block_ends_with_the_stream() {
    let (client, server) = pair().await;
    let [(_call, mut answer), (mut send, _recv)] = stream(&client, &server).await;
    send.finish_with_error(7, "no").unwrap();
    assert!(answer.meta().await.is_err());

    let [(_call, mut answer), (mut send, _recv)] = stream(&client, &server).await;
    send.finish().unwrap();
    assert_eq!(answer.meta().await.unwrap(), None);

    let [(_call, mut answer), _theirs] = stream(&client, &server).await;
    let mut waiting = pin!(answer.meta());
    assert!(now(waiting.as_mut()).is_none());
    server.close();
    assert!(waiting.await.is_err());
}

// ---- in place ---------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_message_encoded_in_place_arrives_and_a_place_given_up_sends_nothing() {
    let (client, server) = pair().await;
    let [(mut send, _answers), (_send, mut recv)] = stream(&client, &server).await;
    for len in [0, 1, 9, 4096, 4097, 30_000] {
        let mut given_up = send.reserve(len).await.unwrap();
        given_up.fill(0xff);
        drop(given_up);
        let mut place = send.reserve(len).await.unwrap();
        assert_eq!(place.len(), len);
        assert!(place.iter().all(|byte| *byte == 0));
        for (byte, n) in place.iter_mut().zip(0_usize..) {
            *byte = n as u8;
        }
        place.send();
        send.send("behind it").await.unwrap();
        let message = recv.recv().await.unwrap().unwrap();
        assert!(
            message
                .iter()
                .zip(0_usize..)
                .all(|(byte, n)| *byte == n as u8)
        );
        assert_eq!(message.len(), len);
        assert_eq!(recv.recv().await.unwrap().unwrap(), "behind it");
    }
    let most = Config::default().max_message() as usize;
    let refused = send.reserve(most + 1).await.unwrap_err();
    assert!(matches!(refused, SendError::TooLong { .. }), "{refused}");
    send.finish().unwrap();
    let refused = send.reserve(1).await.unwrap_err();
    assert!(matches!(refused, SendError::Finished), "{refused}");
    assert_eq!(recv.recv().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_was_told_of_room_can_send_without_waiting() {
    let (client, server) = pair().await;
    let [(mut send, _answers), (_send, mut recv)] = stream(&client, &server).await;
    let message = bytes::Bytes::from(vec![7; 10_000]);
    let receiving = tokio::spawn(async move {
        for _ in 0..200 {
            assert_eq!(recv.recv().await.unwrap().unwrap().len(), 10_000);
        }
    });
    for _ in 0..200 {
        poll_fn(|cx| send.poll_ready(cx, message.len()))
            .await
            .unwrap();
        send.try_send(message.clone()).unwrap();
    }
    receiving.await.unwrap();
}

// ---- turns of other tasks -----------------------------------------------------------------------

/// How often a task that is always ready runs beside `busy`, which never has to wait.
async fn turns_beside(busy: impl Future<Output = ()>) -> u32 {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let beside = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    busy.await;
    beside.abort();
    turns.load(Ordering::Relaxed) as u32
}

/// Fits into a stream's queue with room to spare.
const MANY: usize = 800;

#[tokio::test]
async fn each_way_of_sending_and_receiving_leaves_other_tasks_their_turn_while_it_is_always_ready()
{
    let config = Config::builder().send_buffer(256 * 1024).build().unwrap();
    let (client, server) = pair_with(&config).await;
    for way in 0..6 {
        let [(mut send, _answers), (_replies, mut recv)] = stream(&client, &server).await;
        let sent = turns_beside(async {
            let message = bytes::Bytes::from_static(b"m");
            if way == 5 {
                let messages = std::iter::repeat_n(message.clone(), MANY);
                send.send_all(messages).await.unwrap();
            }
            for _ in 0..MANY * usize::from(way < 5) {
                match way {
                    0 => send.send(message.clone()).await.unwrap(),
                    1 => send.send_slice(&message).await.unwrap(),
                    2 => futures_util::SinkExt::feed(&mut send, message.clone())
                        .await
                        .unwrap(),
                    3 => tokio::io::AsyncWriteExt::write_all(&mut send, &message)
                        .await
                        .unwrap(),
                    _ => {
                        let mut place = send.reserve(1).await.unwrap();
                        place[0] = b'm';
                        place.send();
                    }
                }
            }
        });
        assert!(sent.await >= 5, "sending, way {way}");
        let received = turns_beside(async {
            for _ in 0..MANY {
                match way {
                    0 => drop(recv.recv().await.unwrap().unwrap()),
                    1 => drop(recv.lease().await.unwrap().unwrap()),
                    2 => drop(StreamExt::next(&mut recv).await.unwrap().unwrap()),
                    _ => {
                        let byte = tokio::io::AsyncReadExt::read_u8(&mut recv).await;
                        assert_eq!(byte.unwrap(), b'm');
                    }
                }
            }
        });
        assert!(received.await >= 5, "receiving, way {way}");
    }
}

#[tokio::test]
async fn opening_and_accepting_leave_other_tasks_their_turn_while_they_are_always_ready() {
    let config = Config::builder().max_streams(1024).build().unwrap();
    let (client, server) = pair_with(&config).await;
    let mut streams = Vec::new();
    let opened = turns_beside(async {
        for _ in 0..MANY {
            streams.push(client.open("").await.unwrap());
        }
    });
    assert!(opened.await >= 5);
    let accepted = turns_beside(async {
        for _ in 0..MANY {
            streams.push(server.accept().await.unwrap().unwrap());
        }
    });
    assert!(accepted.await >= 5);
}
