//! What goes round the ring: when it begins, and when it ends.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::super::host::Host;
use super::super::reactor::Reactor;
use super::super::ring::{Enter, Kind};
use super::super::socket::{UringSocket, Via};
use super::fake::FakeRing;
use super::faults::Faults;
use super::world::World;
use crate::config::Wait;
use crate::driver::clock;
use crate::proto::Batch;
use crate::sync::Arc;

/// More calls than ever find nothing in a row.
const CALLS: usize = 100_000;

#[test]
fn a_socket_at_which_nothing_arrives_goes_back_to_the_ring() {
    let _clock = clock::Stopped::new();
    let (ring, kernel) = FakeRing::new(0, Faults::NONE);
    let mut reactor = Reactor::new(ring);
    reactor.set_spins(true);
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.insert(near.into()).expect("there is room");
    let mut memory = BytesMut::with_capacity(100);

    assert!(reactor.start_recv_direct(slot, &mut memory));
    far.write_all(b"at once").expect("room for a few bytes");
    assert!(reactor.recv_direct() && !reactor.recv_direct());
    let received = reactor.take_recv(slot, &mut memory).expect("it has come");
    assert_eq!((received.ok(), &memory[..]), (Some(7), &b"at once"[..]));

    assert!(reactor.start_recv_direct(slot, &mut memory));
    let calls = (0..CALLS).take_while(|_| !reactor.recv_direct()).count();
    assert!((1000..CALLS).contains(&calls), "{calls} calls");
    assert_eq!(kernel.borrow().under_way(Kind::Recv), 1);
    far.write_all(b", later").expect("room for a few bytes");
    while reactor.take_recv(slot, &mut memory).is_none() {
        reactor.enter(Enter::Now);
        reactor.reap();
    }
    // The ring may have taken a part of it.
    assert!(memory.len() > 7 && b"at once, later".starts_with(&memory));
}

#[test]
fn a_host_that_has_ceased_to_spin_receives_nothing_round_the_ring() {
    let World { desk, ring, .. } = World::new(0, Faults::NONE);
    let mut host = Host::new(ring, Arc::clone(&desk.link), Wait::Adaptive);
    assert!(host.reactor().borrow().spins());
    for _ in 0..10 {
        host.parked(Duration::from_millis(50));
    }
    assert!(!host.reactor().borrow().spins());
    host.parked(Duration::from_micros(50));
    assert!(host.reactor().borrow().spins());
}

#[test]
fn what_arrives_decides_how_it_is_received() {
    let _clock = clock::Stopped::new();
    let (ring, _kernel) = FakeRing::new(0, Faults::NONE);
    let reactor = Rc::new(RefCell::new(Reactor::new(ring)));
    let (near, _far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.borrow_mut().insert(near.into());
    let mut socket = UringSocket::new(Rc::clone(&reactor), slot.expect("there is room"));
    let mut after = |times: usize, bytes: usize| {
        for _ in 0..times {
            socket.on_arrival(bytes, &mut reactor.borrow_mut());
        }
        socket.via()
    };
    assert_eq!(after(100, 64), Via::RingBuffers, "it does not spin");
    reactor.borrow_mut().set_spins(true);
    assert_eq!(after(15, 64), Via::RingBuffers);
    assert_eq!(after(1, 64), Via::Calls);
    assert_eq!(after(15, 2000), Via::Calls, "it may be by chance");
    assert_eq!(after(1, 64), Via::Calls);
    assert_eq!(after(16, 2000), Via::RingBuffers);
    assert_eq!(after(1, 100_000), Via::Operations);
    assert_eq!(after(100, 10_000), Via::Operations);
    assert_eq!(after(16, 2000), Via::RingBuffers);
    assert_eq!(after(16, 64), Via::Calls);
    reactor.borrow_mut().set_spins(false);
    assert_eq!(after(16, 64), Via::RingBuffers);
}

#[test]
fn a_host_that_always_has_something_to_do_looks_at_what_arrives_round_the_ring() {
    let _clock = clock::Stopped::new();
    let World { desk, ring, .. } = World::new(0, Faults::NONE);
    let mut host = Host::new(ring, Arc::clone(&desk.link), Wait::Spin);
    let reactor = Rc::clone(host.reactor());
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.borrow_mut().insert(near.into());
    let slot = slot.expect("there is room");
    let mut memory = BytesMut::with_capacity(100);
    for _ in 0..3 {
        assert!(reactor.borrow_mut().start_recv_direct(slot, &mut memory));
        far.write_all(b"now").expect("room for a few bytes");
        let turns = (1..100).find(|_| {
            host.turn();
            host.move_bytes(true);
            reactor.borrow_mut().take_recv(slot, &mut memory).is_some()
        });
        assert!(turns.is_some_and(|turns| turns <= 4), "{turns:?} turns");
    }
}

#[test]
fn what_answers_an_arrival_through_the_ring_goes_through_it_too_while_the_host_spins() {
    let _clock = clock::Stopped::new();
    let faults = Faults {
        direct: 1,
        ..Faults::NONE
    };
    let (ring, _kernel) = FakeRing::new(0, faults);
    let mut reactor = Reactor::new(ring);
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.insert(near.into()).expect("there is room");
    let (short, long) = (Batch::of(&[1; 100]), Batch::of(&[1; 2000]));
    let mut arrive = |reactor: &mut Reactor<_>| {
        far.write_all(b"a question").expect("room for a few bytes");
        reactor.start_recv_multi(slot);
        let mut question = BytesMut::new();
        while question.len() < 10 {
            reactor.enter(Enter::Now);
            reactor.reap();
            let _ = reactor.take_recv(slot, &mut question);
            reactor.start_recv_multi(slot);
        }
    };
    let at_once = |reactor: &mut Reactor<_>, batch| reactor.send_now(slot, batch).is_some();

    assert!(at_once(&mut reactor, &long), "the thread may sleep");
    arrive(&mut reactor);
    assert!(at_once(&mut reactor, &long), "the thread may sleep");
    reactor.set_spins(true);
    assert!(at_once(&mut reactor, &long), "it answers nothing");
    arrive(&mut reactor);
    assert!(!at_once(&mut reactor, &long));
    assert!(at_once(&mut reactor, &long), "it answers nothing");
    arrive(&mut reactor);
    assert!(at_once(&mut reactor, &short), "it is short");
}
