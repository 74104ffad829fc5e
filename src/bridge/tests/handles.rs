//! What handles promise, whatever is done with them.

use bytes::Buf;

use super::solo::{Solo, data, open};
use super::*;
use crate::{SendError, TrySendError};

#[test]
fn a_lease_that_is_forgotten_is_no_part_of_the_next_message() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    for len in [3, 20_000, 5, 7] {
        now(sender.send(message(len))).unwrap();
        pair.drive();
    }
    for len in [3, 20_000] {
        let lease = now(receiver.lease()).unwrap().unwrap();
        assert_eq!(lease.len(), len);
        std::mem::forget(lease);
    }
    assert_eq!(now(receiver.recv()).unwrap().unwrap(), message(5));
    std::mem::forget(now(receiver.lease()).unwrap());
    assert_eq!(receiver.try_recv(), None);
    drop((sender, receiver));
    pair.is_clean();
}

#[test]
fn trying_to_send_before_the_handshake_refuses_nothing_that_the_peer_accepts() {
    let mut pair = Pair::new(&small_config(), &small_config());
    let mut stream = pair.ends[D].session().try_open("").unwrap();
    // More than any peer must accept.
    let long = message(100_000);
    let tried = stream.try_send(long.clone());
    assert!(matches!(tried, Err(TrySendError::Full(_))), "{tried:?}");
    pair.drive();
    stream.try_send(long).unwrap();
    let limit = small_config().max_message() as usize;
    let tried = stream.try_send(message(limit + 1));
    assert!(matches!(tried, Err(TrySendError::Refused { .. })));
}

/// A waker whose last reference does not go quietly.
struct Loud;

impl Wake for Loud {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Loud {
    fn drop(&mut self) {
        panic!("by design");
    }
}

#[test]
fn a_half_whose_waker_panics_when_it_is_dropped_leaves_nothing_of_its_stream() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let mut pair = Pair::established(&small_config(), &small_config());
    let (opened, accepted) = pair.stream(D);
    let (mut send, mut recv) = opened.split();
    {
        let waker = Waker::from(Arc::new(Loud));
        let mut stopped = Box::pin(send.stopped());
        assert!(
            stopped
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    {
        let waker = Waker::from(Arc::new(Loud));
        assert!(recv.poll_recv(&Context::from_waker(&waker)).is_pending());
    }
    assert!(catch_unwind(AssertUnwindSafe(|| drop(send))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(recv))).is_err());
    drop(accepted);
    pair.is_clean();
}

#[test]
fn sending_after_a_cancel_says_the_same_before_and_after_the_engine_has_heard_of_it() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut stream, other) = pair.stream(D);
    stream.cancel(5);
    for _ in 0..2 {
        let error = now(stream.send("late")).unwrap_err();
        assert!(matches!(error, SendError::Finished), "{error}");
        assert!(matches!(stream.finish(), Err(SendError::Finished)));
        pair.drive();
    }
    drop((stream, other));
    pair.is_clean();
}

/// Leases are used across an `await`, and their pieces by other threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<crate::Lease<'_>>();
};

/// A stream with one message that came in so many pieces.
fn in_pieces(whole: &Bytes, pieces: usize) -> (Solo, Stream) {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let stream = now(session.accept()).unwrap().unwrap();
    let total = (whole.len() as u32).to_le_bytes();
    for n in 0..pieces {
        let prefix = if n == 0 && pieces > 1 {
            &total[..]
        } else {
            &[]
        };
        let piece = &whole[whole.len() * n / pieces..whole.len() * (n + 1) / pieces];
        solo.hear(&data(1, &[prefix, piece].concat(), n + 1 == pieces, false));
        solo.said();
    }
    (solo, stream)
}

#[test]
fn a_lease_is_read_in_steps_of_any_size_and_seen_whole_all_the_same() {
    let whole = message(200);
    for (pieces, step) in [(1, 7), (2, 1), (7, 3), (200, 1), (200, 9), (7, 200)] {
        let (_solo, mut stream) = in_pieces(&whole, pieces);
        let mut lease = now(stream.lease()).unwrap().unwrap();
        let mut read = Vec::new();
        while lease.has_remaining() {
            assert_eq!(lease.remaining(), whole.len() - read.len());
            let here = lease.chunk();
            assert!(whole[read.len()..].starts_with(here) && !here.is_empty());
            read.extend_from_slice(&lease.copy_to_bytes(step.min(lease.remaining())));
            assert_eq!((lease.len(), lease.chunks().count()), (200, pieces));
        }
        assert_eq!(read, whole);
        assert!(lease.chunk().is_empty());
        assert_eq!(*lease.to_contiguous(), whole);
        drop(lease);
        assert_eq!(stream.try_recv(), None);
    }
}
