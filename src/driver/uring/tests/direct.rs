//! Direct transfers (plain calls beside the ring): when they begin and when they end.

use std::cell::RefCell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;

use super::super::host::Host;
use super::super::reactor::Reactor;
use super::super::ring::{Enter, Kind};
use super::super::socket::{UringSocket, Via};
use super::super::wait::Waiting;
use super::fake::FakeRing;
use super::faults::{Faults, Happened};
use super::workload;
use super::world::World;
use crate::config::Wait;
use crate::driver::{Transport, clock};
use crate::handle::whole::Whole as _;
use crate::sync::Arc;
use crate::wire::Batch;

/// More than the empty calls in a row before the socket goes back to the ring.
const CALLS: usize = 100_000;

#[test]
fn a_socket_at_which_nothing_arrives_goes_back_to_the_ring() {
    let _clock = clock::Stopped::new();
    let (ring, kernel) = FakeRing::new(0, Faults::NONE);
    let mut reactor = Reactor::new(ring);
    reactor.spins = true;
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.insert(near.into()).expect("there is room");
    let mut memory = BytesMut::with_capacity(100);

    assert!(reactor.start_recv_direct(slot, &mut memory));
    far.write_all(b"at once").expect("room for a few bytes");
    reactor.recv_direct();
    assert!(!reactor.has_direct());
    let received = reactor
        .take_recv(slot, &mut memory, 1000)
        .expect("it has come");
    assert_eq!((received.ok(), &memory[..]), (Some(7), &b"at once"[..]));

    assert!(reactor.start_recv_direct(slot, &mut memory));
    let looks = (0..CALLS).take_while(|_| {
        reactor.recv_direct();
        reactor.has_direct()
    });
    let calls = looks.count();
    assert!((1000..CALLS).contains(&calls), "{calls} calls");
    assert_eq!(kernel.borrow().under_way(Kind::Recv), 1);
    far.write_all(b", later").expect("room for a few bytes");
    while reactor.take_recv(slot, &mut memory, 1000).is_none() {
        reactor.enter(Enter::Now);
        reactor.reap();
    }
    // The ring may have received a part of it.
    assert!(memory.len() > 7 && b"at once, later".starts_with(&memory));
}

#[test]
fn a_host_that_has_ceased_to_spin_receives_nothing_round_the_ring() {
    let World { desk, ring, .. } = World::new(0, Faults::NONE);
    let mut host = Host::new(ring, Arc::clone(&desk.link), Waiting::blind(Wait::Adaptive));
    assert!(host.reactor().borrow().spins);
    for _ in 0..10 {
        host.parked(Duration::from_millis(50));
    }
    assert!(!host.reactor().borrow().spins);
    host.parked(Duration::from_micros(50));
    assert!(host.reactor().borrow().spins);
}

#[test]
fn what_a_call_finds_has_come_when_the_host_looked_and_that_is_told_once() {
    let _clock = clock::Stopped::new();
    let (ring, _kernel) = FakeRing::new(0, Faults::NONE);
    let reactor = Rc::new(RefCell::new(Reactor::new(ring)));
    reactor.borrow_mut().spins = true;
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.borrow_mut().insert(near.into());
    let slot = slot.expect("there is room");
    let mut socket = UringSocket::new(Rc::clone(&reactor), slot);
    let mut memory = BytesMut::with_capacity(100);
    assert!(reactor.borrow_mut().start_recv_direct(slot, &mut memory));

    reactor.borrow_mut().recv_direct();
    assert_eq!(socket.arrived_at(), None, "a look that finds nothing");
    far.write_all(b"now").expect("room for a few bytes");
    clock::Stopped::pass(Duration::from_secs(1));
    let looked = clock::now();
    reactor.borrow_mut().recv_direct();
    assert!(!reactor.borrow().has_direct());
    clock::Stopped::pass(Duration::from_secs(1));
    assert_eq!(socket.arrived_at(), Some(looked));
    assert_eq!(socket.arrived_at(), None);
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
    reactor.borrow_mut().spins = true;
    assert_eq!(after(15, 64), Via::RingBuffers);
    assert_eq!(after(1, 8000), Via::Calls);
    assert_eq!(after(100, 10_000), Via::Calls, "neither short nor large");
    assert_eq!(after(1, 100_000), Via::Operations);
    assert_eq!(after(100, 10_000), Via::Operations);
    assert_eq!(after(15, 2000), Via::Operations, "it may be by chance");
    assert_eq!(after(1, 100_000), Via::Operations);
    assert_eq!(after(16, 2000), Via::Calls);
    reactor.borrow_mut().spins = false;
    assert_eq!(after(16, 10_000), Via::Calls);
    assert_eq!(after(16, 2000), Via::RingBuffers);
    assert_eq!(after(1, 100_000), Via::Operations);
    assert_eq!(after(16, 2000), Via::RingBuffers);
}

#[test]
fn a_socket_keeps_its_place_between_two_receptions_until_it_closes() {
    let _clock = clock::Stopped::new();
    let (ring, _kernel) = FakeRing::new(0, Faults::NONE);
    let reactor = Rc::new(RefCell::new(Reactor::new(ring)));
    reactor.borrow_mut().spins = true;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (near, far) = UnixStream::pair().expect("descriptors are left");
        let slot = reactor.borrow_mut().insert(near.into());
        let slot = slot.expect("there is room");
        sockets.push((UringSocket::new(Rc::clone(&reactor), slot), slot, far));
    }
    let after_short = |socket: &mut UringSocket<FakeRing>| {
        for _ in 0..16 {
            socket.on_arrival(64, &mut reactor.borrow_mut());
        }
        socket.via()
    };
    for (socket, slot, far) in &mut sockets[..2] {
        assert_eq!(after_short(socket), Via::Calls);
        let mut memory = BytesMut::with_capacity(100);
        assert!(reactor.borrow_mut().start_recv_direct(*slot, &mut memory));
        far.write_all(b"now").expect("room for a few bytes");
    }
    reactor.borrow_mut().recv_direct();
    assert!(!reactor.borrow().has_direct(), "both have bytes");
    assert_eq!(after_short(&mut sockets[2].0), Via::RingBuffers);
    reactor.borrow_mut().close(sockets[0].1);
    assert_eq!(after_short(&mut sockets[2].0), Via::Calls);
}

#[test]
fn a_host_that_always_has_something_to_do_looks_at_what_arrives_round_the_ring() {
    let _clock = clock::Stopped::new();
    let World { desk, ring, .. } = World::new(0, Faults::NONE);
    let mut host = Host::new(ring, Arc::clone(&desk.link), Waiting::blind(Wait::Spin));
    let reactor = Rc::clone(host.reactor());
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.borrow_mut().insert(near.into());
    let slot = slot.expect("there is room");
    let mut memory = BytesMut::with_capacity(100);
    for before in 0..8 {
        for _ in 0..before {
            host.turn();
            host.enter(true);
        }
        assert!(reactor.borrow_mut().start_recv_direct(slot, &mut memory));
        far.write_all(b"now").expect("room for a few bytes");
        let turns = (1..100).find(|_| {
            host.turn();
            host.enter(true);
            reactor
                .borrow_mut()
                .take_recv(slot, &mut memory, 1000)
                .is_some()
        });
        assert!(turns.is_some_and(|turns| turns <= 4), "{turns:?} turns");
    }
}

/// Turns within which the message must arrive.
const TURNS_MAX: u32 = 10_000;

/// Whether it arrives while the future that waits for it never sleeps.
async fn comes<T, E>(received: impl Future<Output = Result<T, E>>) -> bool {
    let mut left = TURNS_MAX;
    let mut received = pin!(received);
    poll_fn(|cx| match received.as_mut().poll(cx) {
        Poll::Ready(received) => Poll::Ready(received.is_ok()),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

#[test]
fn a_future_that_never_sleeps_keeps_no_socket_waiting() {
    for seed in 0..5 {
        let faults = Faults {
            hold: 3,
            ..Faults::NONE
        };
        let mut world = World::new(seed, faults);
        world.wait = Wait::Spin;
        let kernel = Rc::clone(&world.desk.kernel);
        let ran = world.run(|desk| async move {
            let [near, far] = desk.connect(&workload::config(64 * 1024, 64 * 1024));
            let lost = |error: &dyn Error| error.to_string();
            let mut here = near.open("").await.map_err(|error| lost(&error))?;
            let there = far.accept().await.map_err(|error| lost(&error))?;
            let mut there = there.expect("it is open");
            for round in 0..60 {
                here.send("ping").await.map_err(|error| lost(&error))?;
                there.recv().await.map_err(|error| lost(&error))?;
                there.send("pong").await.map_err(|error| lost(&error))?;
                if !comes(here.recv()).await {
                    return Err(format!("round {round}: no answer in {TURNS_MAX} turns"));
                }
            }
            Ok(())
        });
        assert_eq!(ran, Ok(()), "seed {seed}");
        assert!(kernel.borrow().tally.of(Happened::ReceivedNow) > 0);
    }
}

#[test]
fn what_a_turn_leaves_of_a_reception_is_for_the_next() {
    /// More streams than one turn wakes from one reception.
    const STREAMS: usize = 100;
    let mut world = World::new(0, Faults::NONE);
    world.wait = Wait::Spin;
    let ran = world.run(|desk| async move {
        let [near, far] = desk.connect(&workload::config(64 * 1024, 64 * 1024));
        let lost = |error: &dyn Error| error.to_string();
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let here = near.open("").await.map_err(|error| lost(&error))?;
            let there = far.accept().await.map_err(|error| lost(&error))?;
            streams.push((here, there.expect("it is open")));
        }
        for (here, _) in &mut streams {
            here.send("at once").await.map_err(|error| lost(&error))?;
        }
        for (number, (_, there)) in streams.iter_mut().enumerate() {
            if !comes(there.recv()).await {
                return Err(format!("message {number} does not come"));
            }
        }
        Ok(())
    });
    assert_eq!(ran, Ok(()));
}

#[test]
fn sockets_for_which_there_is_no_place_stay_with_the_buffers_of_the_ring() {
    let _clock = clock::Stopped::new();
    let (ring, kernel) = FakeRing::new(0, Faults::NONE);
    let reactor = Rc::new(RefCell::new(Reactor::new(ring)));
    reactor.borrow_mut().spins = true;
    let mut cx = Context::from_waker(Waker::noop());
    let mut sockets: Vec<_> = (0..20)
        .map(|_| {
            let (near, far) = UnixStream::pair().expect("descriptors are left");
            let slot = reactor.borrow_mut().insert(near.into());
            let socket = UringSocket::new(Rc::clone(&reactor), slot.expect("there is room"));
            (socket, far, BytesMut::new())
        })
        .collect();
    for _ in 0..60 {
        for (socket, far, memory) in &mut sockets {
            far.write_all(b"tiny").expect("room for a few bytes");
            while socket.poll_recv(&mut cx, memory, 32 * 1024).is_pending() {
                let mut reactor = reactor.borrow_mut();
                reactor.enter(Enter::Now);
                reactor.reap();
                reactor.recv_direct();
            }
            memory.clear();
            assert!(socket.poll_recv(&mut cx, memory, 32 * 1024).is_pending());
        }
    }
    let by_calls = sockets
        .iter()
        .filter(|(socket, ..)| socket.via() == Via::Calls);
    assert_eq!(by_calls.count(), 2);
    reactor.borrow_mut().enter(Enter::Now);
    let kernel = kernel.borrow();
    assert_eq!(kernel.under_way(Kind::RecvMulti), 18);
    assert_eq!(
        kernel.tally.of(Happened::Single),
        0,
        "an operation for each arrival"
    );
}

#[test]
fn a_session_takes_no_more_of_the_rings_buffers_at_once_than_it_has_memory_for() {
    const CAPACITY: usize = 40_000;
    let _clock = clock::Stopped::new();
    let (ring, kernel) = FakeRing::new(0, Faults::NONE);
    let reactor = Rc::new(RefCell::new(Reactor::new(ring)));
    let mut cx = Context::from_waker(Waker::noop());
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let slot = reactor.borrow_mut().insert(near.into());
    let mut socket = UringSocket::new(Rc::clone(&reactor), slot.expect("there is room"));
    let mut memory = BytesMut::new();
    assert!(
        socket
            .poll_recv(&mut cx, &mut memory, CAPACITY)
            .is_pending()
    );
    far.set_nonblocking(true).expect("it is open");
    let mut sent = 0;
    while sent < 4 * CAPACITY
        && let Ok(bytes) = far.write(&[7; 8 * 1024])
    {
        sent += bytes;
        reactor.borrow_mut().enter(Enter::Now);
        reactor.borrow_mut().reap();
    }
    assert!(sent > 2 * CAPACITY, "{sent} bytes");
    let mut taken = 0;
    for _ in 0..1000 {
        match socket.poll_recv(&mut cx, &mut memory, CAPACITY) {
            Poll::Ready(bytes) => taken += bytes.expect("the peer is there"),
            Poll::Pending => {
                reactor.borrow_mut().enter(Enter::Now);
                reactor.borrow_mut().reap();
            }
        }
        let held = memory.capacity();
        assert!(held <= CAPACITY, "{held} bytes, after {taken} of {sent}");
        memory.clear();
    }
    assert_eq!(taken, sent);
    assert_eq!(kernel.borrow().buffers_out(), 0);
}

#[test]
fn a_way_to_receive_that_could_not_be_left_for_lack_of_room_is_left_later() {
    let _clock = clock::Stopped::new();
    let faults = Faults {
        queue: 1,
        ..Faults::NONE
    };
    let (ring, kernel) = FakeRing::new(0, faults);
    let reactor = Rc::new(RefCell::new(Reactor::new(ring)));
    let mut cx = Context::from_waker(Waker::noop());
    let (near, mut far) = UnixStream::pair().expect("descriptors are left");
    let (beside, _beside_far) = UnixStream::pair().expect("descriptors are left");
    let insert = |socket: UnixStream| reactor.borrow_mut().insert(socket.into());
    let slot = insert(near).expect("there is room");
    let other = insert(beside).expect("there is room");
    let mut socket = UringSocket::new(Rc::clone(&reactor), slot);
    let mut memory = BytesMut::new();
    assert!(socket.poll_recv(&mut cx, &mut memory, 1000).is_pending());
    reactor.borrow_mut().enter(Enter::Now);
    // The submission queue is full when the cancel is pushed.
    reactor.borrow_mut().start_recv_multi(other);
    socket.on_arrival(100_000, &mut reactor.borrow_mut());
    for _ in 0..100 {
        far.write_all(&[0; 2000]).expect("room for some bytes");
        for _ in 0..10 {
            let polled = socket.poll_recv(&mut cx, &mut memory, 1000);
            assert!(!matches!(polled, Poll::Ready(Err(_))));
            let mut reactor = reactor.borrow_mut();
            reactor.enter(Enter::Now);
            reactor.reap();
        }
        memory.clear();
    }
    assert_eq!(kernel.borrow().tally.of(Happened::Cancel), 1);
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
            let _ = reactor.take_recv(slot, &mut question, 1000);
            reactor.start_recv_multi(slot);
        }
    };
    let at_once = |reactor: &mut Reactor<_>, batch| reactor.send_now(slot, batch).is_some();

    assert!(at_once(&mut reactor, &long), "the thread may sleep");
    arrive(&mut reactor);
    assert!(at_once(&mut reactor, &long), "the thread may sleep");
    reactor.spins = true;
    assert!(at_once(&mut reactor, &long), "it answers nothing");
    arrive(&mut reactor);
    assert!(!at_once(&mut reactor, &long));
    assert!(at_once(&mut reactor, &long), "it answers nothing");
    arrive(&mut reactor);
    assert!(at_once(&mut reactor, &short), "it is short");
}
