//! Which arrivals bypass the ring, and the fate of memory that the kernel may still use.

use std::future::poll_fn;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;

use super::{DIRECT_BYTES, Socket, UringIo};
use crate::driver::{Transport, leaked_buffers};

const CAPACITY: usize = 64 * 1024;
/// Limit for steps that should take no time.
const PATIENCE: Duration = Duration::from_secs(20);

/// To be called on a tokio-uring runtime.
fn pair() -> (UringIo, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let socket = Socket::Unix(tokio_uring::net::UnixStream::from_std(ours));
    (UringIo::new(socket), theirs)
}

async fn recv(io: &mut UringIo, buf: &mut BytesMut) -> usize {
    poll_fn(|cx| io.poll_recv(cx, buf, CAPACITY)).await.unwrap()
}

/// Polls once for a reception; nothing has arrived.
async fn recv_nothing(io: &mut UringIo, buf: &mut BytesMut) {
    poll_fn(|cx| {
        assert!(io.poll_recv(cx, buf, CAPACITY).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[test]
fn little_is_received_without_the_ring_and_much_puts_the_next_read_into_it() {
    tokio_uring::start(async {
        let (mut io, mut theirs) = pair();
        let mut buf = BytesMut::new();
        recv_nothing(&mut io, &mut buf).await;
        assert!(io.reading.is_none());

        theirs.write_all(b"little").unwrap();
        assert_eq!(recv(&mut io, &mut buf).await, 6);
        assert_eq!(buf, "little");
        recv_nothing(&mut io, &mut buf).await;
        assert!(io.reading.is_none());

        let much = [7; DIRECT_BYTES + 1];
        theirs.write_all(&much).unwrap();
        buf.clear();
        assert_eq!(recv(&mut io, &mut buf).await, much.len());
        recv_nothing(&mut io, &mut buf).await;
        assert!(io.reading.is_some());

        theirs.write_all(b"little").unwrap();
        buf = BytesMut::new();
        assert_eq!(recv(&mut io, &mut buf).await, 6);
        recv_nothing(&mut io, &mut buf).await;
        assert!(io.reading.is_none());

        drop(theirs);
        assert_eq!(recv(&mut io, &mut buf).await, 0, "the end");
        assert_eq!(recv(&mut io, &mut buf).await, 0, "which stays");
        poll_fn(|cx| io.poll_close(cx)).await;
    });
}

#[test]
fn a_read_that_is_under_way_when_its_runtime_ends_leaks_its_buffer_and_is_counted() {
    let before = leaked_buffers();
    let mut theirs = tokio_uring::start(async {
        let (mut io, mut theirs) = pair();
        let mut buf = BytesMut::new();
        theirs.write_all(&[7; DIRECT_BYTES + 1]).unwrap();
        recv(&mut io, &mut buf).await;
        recv_nothing(&mut io, &mut buf).await;
        theirs
    });
    assert!(leaked_buffers() > before);
    let error = theirs.write_all(b"not read").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

/// tokio-uring submits operations only when its runtime is idle.
#[test]
fn a_session_that_has_itself_polled_later_keeps_no_operation_from_the_kernel() {
    tokio_uring::start(async {
        let (mut io, _theirs) = pair();
        let mut polls = 0_u32;
        let busy = poll_fn(|cx| {
            polls += 1;
            io.poll_later(cx);
            Poll::<()>::Pending
        });
        let beside = async {
            for _ in 0..100 {
                tokio_uring::no_op().await.unwrap();
            }
        };
        tokio::select! {
            () = busy => {}
            done = tokio::time::timeout(PATIENCE, tokio_uring::spawn(beside)) => done.unwrap().unwrap(),
        }
        assert!(polls > 50, "{polls}: it goes on");
    });
}
