//! A peer that takes little at a time, while one send waits for it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::time::Duration;

use bytes::Buf;
use futures_util::future::{Either, select};

use super::buffers::held_back;
use super::faults::{Faults, Happened};
use super::random::few;
use super::world::{Desk, World};
use crate::handle::{SendStream, Session};

/// Bytes of a message; several make a batch, which the socket does not take at once.
const LONG: usize = 60_000;
/// Messages of the first batch.
const FIRST: u8 = 4;
/// The peer takes 12 KiB a second, so that a batch lasts longer than `write_timeout`.
const TICK: Duration = Duration::from_millis(500);
const PER_TICK: usize = 6 * 1024;
const TICKS: usize = 200;

async fn send_all(mut send: SendStream) -> Result<(), String> {
    // Without a pause between them, so that they leave in one batch.
    for n in 0..FIRST {
        send.try_send(vec![n; LONG].into()).expect("there is room");
    }
    for n in FIRST.. {
        let sent = send.send(vec![n; LONG]).await;
        sent.map_err(|error| format!("message {n}: {error}"))?;
    }
    Ok(())
}

async fn read_slowly(desk: &Desk, session: &Session, peer: &mut UnixStream) -> Vec<u8> {
    let mut got = Vec::new();
    let mut piece = [0; PER_TICK];
    for _ in 0..TICKS {
        desk.later(TICK).await;
        if let Ok(n) = peer.read(&mut piece) {
            got.extend_from_slice(&piece[..n]);
        }
        if session.state().end().is_some() {
            break;
        }
    }
    got
}

/// The payloads of all whole frames of DRPC, behind each other.
fn payload(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let Some((_, mut rest)) = bytes.split_first() else {
            return all;
        };
        let mut last = 0;
        for _ in 0..3 {
            last = 0;
            for place in 0.. {
                if rest.is_empty() {
                    return all;
                }
                let byte = rest.get_u8();
                last |= usize::from(byte & 0x7F) << (7 * place);
                if byte < 0x80 {
                    break;
                }
            }
        }
        if rest.len() < last {
            return all;
        }
        all.extend_from_slice(&rest[..last]);
        bytes = &rest[last..];
    }
}

#[test]
fn a_peer_that_takes_less_than_a_batch_within_the_write_timeout_is_not_given_up() {
    for seed in few(5) {
        let world = World::new(seed, Faults::NONE);
        let ran = world.run(|desk| async move {
            let (session, mut peer) = held_back(&desk);
            std::io::Write::write_all(&mut peer, b"\x03\x01\x01\x02/m").expect("room for it");
            let call = session.accept().await.expect("a session");
            let (send, _recv) = call.expect("a call");
            let reading = pin!(read_slowly(&desk, &session, &mut peer));
            let got = match select(pin!(send_all(send)), reading).await {
                Either::Left((sent, _)) => return Err(format!("{sent:?}")),
                Either::Right((got, _)) => got,
            };
            if let Some(end) = session.state().end() {
                return Err(format!("{end:?} after {} bytes", got.len()));
            }
            let waited = desk.kernel.borrow().tally.of(Happened::Waited);
            assert!(waited > 0 && got.len() > 1 << 20, "{waited}, {}", got.len());
            let wrong = |(at, byte): (usize, &u8)| usize::from(*byte) != at / LONG;
            match payload(&got).iter().enumerate().find(|it| wrong(*it)) {
                Some((at, _)) => Err(format!("the byte {at} is another one")),
                None => Ok(()),
            }
        });
        assert_eq!(ran, Ok(()), "RINGMUX_SEED={seed}");
    }
}
