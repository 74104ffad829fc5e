//! A session, the host or the ring ends while the kernel uses memory.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::super::host::Host;
use super::super::ring::Kind;
use super::super::wait::Waiting;
use super::faults::Faults;
use super::random::few;
use super::workload::{self, End, Plan};
use super::world::{Desk, World, pause};
use crate::config::{Config, Wait};
use crate::driver::{clock, leaked_buffers};
use crate::error::SessionError;
use crate::handle::Session;
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::Role;

fn config() -> Config {
    workload::config(64 * 1024, 256 * 1024)
}

/// A session with a send and a receive into its own memory under way, neither of which will complete.
async fn stuck(desk: &Desk) -> ([Session; 2], [Stream; 2]) {
    let [near, far] = desk.connect(&config());
    let mut here = near.open(Bytes::new()).await.expect("open");
    let mut there = far.accept().await.unwrap().expect("accepted");
    let long = Bytes::from(vec![7; 90_000]);
    for _ in 0..3 {
        // The first messages make the receiver change to single operations.
        here.send(long.clone()).await.expect("sent");
        there.recv().await.expect("received");
    }
    desk.silence().await;
    desk.kernel.borrow_mut().mute = true;
    here.send(long.clone()).await.expect("queued");
    desk.silence().await;
    let kernel = desk.kernel.borrow();
    assert_eq!(
        (kernel.under_way(Kind::Send), kernel.under_way(Kind::Recv)),
        (1, 1)
    );
    drop(kernel);
    ([near, far], [here, there])
}

#[test]
fn memory_that_the_kernel_keeps_outlives_the_host() {
    for seed in few(5) {
        let world = World::new(seed, Faults::NONE);
        let kernel = Rc::clone(&world.desk.kernel);
        let leaked = leaked_buffers();
        let ended = world.run_unchecked(|desk| async move {
            stuck(&desk).await;
            clock::now()
        });
        let waited = ended.is_ok();
        assert!(waited, "RINGMUX_SEED={seed}");
        let kernel = &mut *kernel.borrow_mut();
        assert!(!kernel.settled, "RINGMUX_SEED={seed}: it does not know");
        assert!(leaked_buffers() >= leaked + 2);
        assert!(kernel.all_intact(), "RINGMUX_SEED={seed}");
        // The sent bytes go into the receive buffer: the kernel may still do both.
        kernel.complete_late();
        assert_eq!(kernel.failure, None, "RINGMUX_SEED={seed}");
    }
}

#[test]
fn a_host_waits_a_second_for_the_kernel_and_no_longer() {
    let world = World::new(0, Faults::NONE);
    let desk = Rc::clone(&world.desk);
    let mut since = None;
    let ended = world.run_unchecked(|desk| {
        let since = &mut since;
        async move {
            stuck(&desk).await;
            *since = Some(clock::now());
        }
    });
    assert!(ended.is_ok());
    let waited = desk.kernel.borrow().entered - since.expect("set");
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_millis(1200));
}

#[test]
fn a_session_keeps_its_slot_until_the_kernel_is_done_with_it() {
    for seed in few(5) {
        let world = World::new(seed, Faults::NONE);
        let ran = world.run(|desk| async move {
            let ([near, far], streams) = stuck(&desk).await;
            drop(streams);
            near.close();
            far.close();
            // Longer than the linger time of both.
            for _ in 0..20 {
                desk.later(Duration::from_millis(500)).await;
            }
            let sockets = desk.kernel.borrow().sockets();
            if sockets != 2 {
                return Err(format!("{sockets} sockets are left"));
            }
            desk.kernel.borrow_mut().mute = false;
            desk.at_rest().await
        });
        assert_eq!(ran, Ok(()), "RINGMUX_SEED={seed}");
    }
}

#[test]
fn the_handles_of_a_host_that_ended_are_told() {
    let world = World::new(0, Faults::NONE);
    let ran = world.run_unchecked(|desk| async move { stuck(&desk).await });
    let ([near, _], [mut here, _]) = ran.expect("ended in order");
    assert!(matches!(
        near.state().end(),
        Some(SessionError::EngineStopped)
    ));
    assert!(here.try_send(Bytes::new()).is_err());
}

#[test]
fn sessions_of_a_broken_ring_end_and_their_memory_stays() {
    let world = World::new(0, Faults::NONE);
    let kernel = Rc::clone(&world.desk.kernel);
    let mut handles = None;
    let ran = world.run_unchecked(|desk| {
        let handles = &mut handles;
        async move {
            *handles = Some(stuck(&desk).await);
            desk.kernel.borrow_mut().broken = true;
            std::future::pending::<()>().await;
        }
    });
    assert!(ran.is_err());
    let ([near, _], _) = handles.expect("connected");
    assert!(matches!(
        near.state().end(),
        Some(SessionError::EngineStopped)
    ));
    assert!(kernel.borrow().all_intact());
    assert!(!kernel.borrow().settled);
}

/// An application's waker that panics inside the session that calls it.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn a_panic_in_one_session_ends_it_and_no_other() {
    let world = World::new(0, Faults::NONE);
    let ran = world.run(|desk| async move {
        let [near, far] = desk.connect(&config());
        let [beside, beside_far] = desk.connect(&config());
        let mut here = near.open(Bytes::new()).await.expect("open");
        let mut there = far.accept().await.unwrap().expect("accepted");
        let mut receiving = Box::pin(there.recv());
        let bomb = Waker::from(Arc::new(Bomb));
        let waiting = receiving.as_mut().poll(&mut Context::from_waker(&bomb));
        assert!(waiting.is_pending());
        here.send(Bytes::from_static(b"wakes it"))
            .await
            .expect("queued");
        desk.silence().await;
        drop(receiving);
        assert!(matches!(
            far.state().end(),
            Some(SessionError::EngineStopped)
        ));
        // Its peer loses the connection; the neighbouring session notices nothing.
        near.closed().await;
        let mut call = beside.open(Bytes::new()).await.expect("open");
        call.send(Bytes::from_static(b"still here"))
            .await
            .expect("sent");
        let mut called = beside_far.accept().await.unwrap().expect("accepted");
        let message = called.recv().await.expect("received");
        assert_eq!(message.as_deref(), Some(&b"still here"[..]));
        drop((call, called));
        beside.close();
        beside_far.close();
        drop((near, far, here, there));
        desk.at_rest().await
    });
    assert_eq!(ran, Ok(()));
}

/// A peer that reads nothing and writes small pieces for ever.
async fn drip(mut peer: UnixStream) {
    peer.set_nonblocking(true).expect("a socket has a mode");
    loop {
        // No room is fine too.
        let _ = peer.write(&[0xFF; 100]);
        pause(1).await;
    }
}

#[test]
fn a_session_that_has_ended_takes_no_buffers_from_others() {
    let world = World::new(0, Faults::NONE);
    let ran = world.run(|desk| async move {
        let (mut ours, peer) = UnixStream::pair().expect("descriptors are left");
        ours.set_nonblocking(true).expect("a socket has a mode");
        while ours.write(&[0; 4096]).is_ok() {}
        ours.set_nonblocking(false).expect("a socket has a mode");
        let broken = desk.start(Role::Dialer, ours, &config());
        let talk = async {
            // It gives up on sending its reason, but its socket still holds its first bytes.
            while broken.state().end().is_none() {
                pause(20).await;
                clock::Stopped::pass(Duration::from_millis(100));
            }
            // Time enough to use up all buffers.
            pause(200).await;
            let since = clock::now();
            let plan = Plan {
                number: 1,
                streams: 3,
                messages: 6,
                long: 3,
                end: End::Close,
            };
            workload::session(Rc::clone(&desk), config(), plan).await?;
            assert_eq!(desk.kernel.borrow().under_way(Kind::Send), 1);
            let took = clock::now() - since;
            if took > Duration::from_millis(100) {
                return Err(format!("it took {took:?}"));
            }
            Ok(())
        };
        match select(pin!(talk), pin!(drip(peer))).await {
            Either::Left((talked, _)) => talked,
            Either::Right(((), _)) => Err("nothing ends it".to_owned()),
        }
    });
    assert_eq!(ran, Ok(()));
}

#[test]
fn a_session_that_was_started_before_the_last_engine_went_keeps_the_host() {
    let World { desk, ring, .. } = World::new(0, Faults::NONE);
    let mut host = Host::new(ring, Arc::clone(&desk.link), Waiting::blind(Wait::Park));
    assert!(!host.turn() && !host.is_unused());
    // Between two checks of the host.
    let (near, _far) = UnixStream::pair().expect("descriptors are left");
    let session = desk.start(Role::Dialer, near, &config());
    desk.link.release();
    assert!(!host.is_unused());
    assert!(host.turn() && session.state().end().is_none());
}

#[test]
fn a_deadline_that_has_passed_is_acted_upon_before_the_host_parks_again() {
    const ENTERS_MAX: u32 = 10;
    let mut world = World::new(0, Faults::NONE);
    world.wait = Wait::Park;
    let kernel = Rc::clone(&world.desk.kernel);
    let enters = world.run(|desk| async move {
        let (near, _silent) = UnixStream::pair().expect("descriptors are left");
        let session = desk.start(Role::Dialer, near, &config());
        desk.silence().await;
        let before = kernel.borrow().patience;
        session.closed().await;
        Ok(before - kernel.borrow().patience)
    });
    assert!(
        enters.as_ref().is_ok_and(|enters| *enters <= ENTERS_MAX),
        "{enters:?}"
    );
}
