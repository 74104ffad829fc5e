//! SIGSTOP of the peer's process for 5 s, and SIGCONT: as by a debugger, a snapshot, a host that is out of memory.

use std::time::Duration;

use bytes::Bytes;
use ringmux::{Addr, Config, Engine, RecvStream, SendStream};
use rustix::process::Signal;

use crate::child::{Child, Manner};
use crate::host::{Soon, pattern};
use crate::{DRIVERS, case};

const STOPPED: Duration = Duration::from_secs(5);
const MESSAGES: u64 = 400;
const MESSAGE_BYTES: usize = 20_000;
const STREAMS: u64 = 4;

/// All drivers at once: the test mostly waits.
#[test]
fn a_peer_that_is_stopped_for_five_seconds_loses_nothing() {
    std::thread::scope(|scope| {
        for driver in DRIVERS {
            scope.spawn(move || case(driver, loses_nothing));
        }
    });
}

async fn loses_nothing(engine: Engine) {
    let anywhere: Addr = "127.0.0.1:0".parse().unwrap();
    let (server, addr) = Child::server(engine.driver(), Manner::Echo, &anywhere);
    let config = Config::default();
    let session = engine.connect(&addr, &config);
    let session = session.soon().await.unwrap();
    let mut receiving = Vec::new();
    let mut sending = Vec::new();
    for n in 0..STREAMS {
        let (sender, mut receiver) = session.open("echo").soon().await.unwrap();
        sending.push(tokio::spawn(send(sender, n)));
        // It is under load once an answer has arrived.
        let first = receiver.recv().soon().await.unwrap();
        assert!(first == Some(message(n, 0)), "stream {n}");
        receiving.push((n, receiver));
    }
    server.signal(Signal::STOP);
    let receiving = receiving.into_iter();
    let receiving: Vec<_> = receiving
        .map(|(n, receiver)| tokio::spawn(receive(receiver, n)))
        .collect();
    // The time for which the server is stopped.
    tokio::time::sleep(STOPPED).await;
    assert!(
        session.state().end().is_none(),
        "{:?}",
        session.state().end()
    );
    let received = session.stats().messages_received;
    assert!(received < STREAMS * MESSAGES, "nothing was left to do");
    server.signal(Signal::CONT);
    for stream in receiving {
        stream.soon().await.unwrap();
    }
    for stream in sending {
        drop(stream.soon().await.unwrap());
    }
}

fn message(stream: u64, n: u64) -> Bytes {
    pattern(MESSAGE_BYTES, stream << 32 | n)
}

async fn send(mut sender: SendStream, stream: u64) -> SendStream {
    for n in 0..MESSAGES {
        sender.send(message(stream, n)).soon().await.unwrap();
    }
    sender.finish().unwrap();
    sender
}

/// Receives all but the first message.
async fn receive(mut receiver: RecvStream, stream: u64) {
    for n in 1..MESSAGES {
        let got = receiver.recv().soon().await.unwrap();
        assert!(
            got == Some(message(stream, n)),
            "message {n} of stream {stream}"
        );
    }
    assert_eq!(receiver.recv().soon().await.unwrap(), None);
}
