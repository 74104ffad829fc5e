//! The ring's buffers: no session keeps them from the others, and none waits for one.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use socket2::SockRef;

use super::super::reactor::Reactor;
use super::super::ring::Enter;
use super::fake::FakeRing;
use super::faults::{Faults, Happened};
use super::random::few;
use super::workload::{self, End, Plan};
use super::world::{Desk, World, pause};
use crate::config::{Config, Wait};
use crate::driver::clock;
use crate::drpc::Profile;
use crate::handle::Session;
use crate::wire::Role;

const WINDOW: u32 = 256 * 1024;
const MESSAGE: usize = 8 * 1024;
/// Enters that a session needs for [`PLAN`], by far.
const ENTERS_MAX: u32 = 5000;

const PLAN: Plan = Plan {
    number: 1,
    streams: 3,
    messages: 6,
    long: 3,
    end: End::Close,
};

/// A session over DRPC, which holds a peer back by not reading.
pub(super) fn held_back(desk: &Desk) -> (Session, UnixStream) {
    let config = Config::builder()
        .drpc(Profile::STORJ)
        .session_window(WINDOW)
        .session_window_max(WINDOW)
        .build();
    let (ours, peer) = UnixStream::pair().expect("descriptors are left");
    peer.set_nonblocking(true).expect("a socket has a mode");
    // Less than a batch.
    let small = SockRef::from(&ours).set_send_buffer_size(16 * 1024);
    small.expect("a socket has a buffer");
    let session = desk.start(Role::Acceptor, ours, &config.expect("valid"));
    (session, peer)
}

/// The nth message of a call, behind its Invoke.
fn message(n: u16, len: usize) -> Vec<u8> {
    let mut bytes = if n == 0 {
        b"\x03\x01\x01\x02/m".to_vec()
    } else {
        Vec::new()
    };
    let varint = |n: usize| [n as u8 | 0x80, (n >> 7) as u8];
    bytes.extend_from_slice(b"\x05\x01");
    bytes.extend_from_slice(&varint(usize::from(n) + 2));
    bytes.extend_from_slice(&varint(len));
    bytes.resize(bytes.len() + len, 7);
    bytes
}

/// Writes one message after another, in time for each to arrive by itself, until the socket takes no more; then it looks for
/// room now and then.
async fn drip(mut peer: UnixStream, full: &Cell<bool>) {
    let mut bytes = Vec::new();
    for n in 0.. {
        // The last ones fill a buffer each, however short.
        let len = if n < 40 { MESSAGE } else { 100 };
        bytes.extend_from_slice(&message(n % 0x3000, len));
        while !bytes.is_empty() {
            match peer.write(&bytes) {
                Ok(written) => drop(bytes.drain(..written)),
                Err(_) => full.set(true),
            }
            pause(20).await;
        }
        full.set(full.get() || n > 500);
    }
}

#[test]
fn a_session_that_takes_no_bytes_keeps_no_buffers_from_others() {
    for seed in few(10) {
        for wait in [Wait::Park, Wait::Adaptive] {
            let mut world = World::new(seed, Faults::NONE);
            world.wait = wait;
            let ran = world.run(|desk| async move {
                let (session, peer) = held_back(&desk);
                let full = Cell::new(false);
                let talk = async {
                    let call = session.accept().await.expect("a session");
                    let call = call.expect("a call");
                    while !full.get() {
                        pause(20).await;
                    }
                    assert!(session.stats().bytes_held >= WINDOW.into(), "it is paused");
                    let before = desk.kernel.borrow().patience;
                    let config = workload::config(64 * 1024, 256 * 1024);
                    workload::session(Rc::clone(&desk), config, PLAN).await?;
                    let enters = before - desk.kernel.borrow().patience;
                    let out = desk.kernel.borrow().buffers_out();
                    drop(call);
                    if enters > ENTERS_MAX || out > 0 {
                        return Err(format!("{enters} enters, {out} buffers out"));
                    }
                    Ok(())
                };
                match select(pin!(talk), pin!(drip(peer, &full))).await {
                    Either::Left((talked, _)) => talked,
                    Either::Right(((), _)) => Err("nothing ends it".to_owned()),
                }
            });
            assert_eq!(ran, Ok(()), "RINGMUX_SEED={seed}, {wait:?}");
        }
    }
}

#[test]
fn a_socket_that_is_closed_keeps_no_buffers_while_its_operations_end() {
    let _clock = clock::Stopped::new();
    for seed in few(20) {
        let (ring, kernel) = FakeRing::new(seed, Faults::NONE);
        let mut reactor = Reactor::new(ring);
        let (near, mut far) = UnixStream::pair().expect("descriptors are left");
        let slot = reactor.insert(near.into()).expect("there is room");
        assert!(reactor.start_recv_multi(slot));
        far.write_all(&[7; 100]).expect("room for a few bytes");
        while kernel.borrow().buffers_out() == 0 {
            reactor.enter(Enter::Now);
            reactor.reap();
        }
        // Perhaps received before its operation is cancelled.
        far.write_all(&[7; 100]).expect("room for a few bytes");
        while !reactor.close(slot) {
            assert_eq!(kernel.borrow().buffers_out(), 0, "RINGMUX_SEED={seed}");
            reactor.enter(Enter::Now);
            reactor.reap();
        }
        reactor.abandon(slot);
        assert_eq!(kernel.borrow().failure, None, "RINGMUX_SEED={seed}");
    }
}

#[test]
fn sessions_that_find_no_buffer_wait_without_entering_the_ring() {
    let faults = Faults {
        buffers: 0,
        ..Faults::NONE
    };
    let world = World::new(0, faults);
    let ran = world.run(|desk| async move {
        let [near, far] = desk.connect(&workload::config(64 * 1024, 64 * 1024));
        let call = near.open(Bytes::new()).await.expect("open");
        let called = far.accept().await.expect("a session");
        let before = desk.kernel.borrow().patience;
        for _ in 0..10 {
            desk.silence().await;
        }
        let enters = before - desk.kernel.borrow().patience;
        let met = desk.kernel.borrow().tally.of(Happened::NoBuffers);
        drop((call, called));
        if enters > 100 || met == 0 {
            return Err(format!("{enters} enters, {met} without a buffer"));
        }
        Ok(())
    });
    assert_eq!(ran, Ok(()));
}
