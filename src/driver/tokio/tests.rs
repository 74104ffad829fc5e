//! When a transport is read, over one that does as it is told.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::runtime::Builder;

use super::*;
use crate::config::Config;
use crate::error::SessionError;
use crate::wire::native::frame::{Settings, preface};
/// The result of one read.
enum Read {
    Bytes(&'static [u8]),
    /// Keeps the waker.
    Nothing,
    /// Calls the waker before it returns without bytes.
    Calls,
    Interrupted,
    End,
}

/// A transport with a list of results, and room for one waker.
#[derive(Default)]
struct Script {
    results: VecDeque<Read>,
    reads: usize,
    waker: Option<Waker>,
    /// Writes are pending, and keep the waker.
    full: bool,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        match self.results.pop_front().unwrap_or(Read::Nothing) {
            Read::Bytes(bytes) => buf.put_slice(bytes),
            Read::End => {}
            Read::Interrupted => {
                return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
            }
            Read::Calls => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Read::Nothing => {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.full {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A task, which counts how often it was woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Task {
    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A session's transport, and the task that polls it.
struct Reader {
    io: TokioIo<Script>,
    task: Arc<Task>,
    buf: BytesMut,
}

impl Reader {
    fn new(results: impl IntoIterator<Item = Read>) -> Self {
        let script = Script {
            results: results.into_iter().collect(),
            ..Script::default()
        };
        Self {
            io: TokioIo::new(script, |_| None),
            task: Arc::default(),
            buf: BytesMut::new(),
        }
    }

    fn poll(&mut self) -> Poll<Option<usize>> {
        let waker = Waker::from(Arc::clone(&self.task));
        let mut cx = Context::from_waker(&waker);
        self.io
            .poll_recv(&mut cx, &mut self.buf, 100)
            .map(Result::ok)
    }

    fn poll_send(&mut self) -> Poll<Option<usize>> {
        let waker = Waker::from(Arc::clone(&self.task));
        let mut cx = Context::from_waker(&waker);
        let mut batch = Batch::of(b"bytes");
        self.io.poll_send(&mut cx, &mut batch).map(Result::ok)
    }

    fn reads(&self) -> usize {
        self.io.io.reads
    }

    /// Calls the waker that the transport has kept.
    fn call(&mut self) {
        self.io.io.waker.take().expect("it has one").wake();
    }
}

#[test]
fn a_pending_read_is_repeated_only_when_the_transport_has_called() {
    let mut reader = Reader::new([Read::Nothing, Read::Bytes(b"abc"), Read::Nothing]);
    for _ in 0..5 {
        assert_eq!(reader.poll(), Poll::Pending);
    }
    assert_eq!((reader.reads(), reader.task.woken()), (1, 0));
    reader.call();
    assert_eq!(reader.task.woken(), 1);
    assert_eq!(reader.poll(), Poll::Ready(Some(3)));
    for _ in 0..5 {
        assert_eq!(reader.poll(), Poll::Pending);
    }
    assert_eq!(reader.reads(), 3, "behind bytes there may be more");
    reader.call();
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(reader.reads(), 4, "a call without bytes is read too");
}

#[test]
fn a_call_during_a_read_counts() {
    let mut reader = Reader::new([Read::Calls, Read::Calls, Read::Bytes(b"abc")]);
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(reader.task.woken(), 2);
    assert_eq!(reader.poll(), Poll::Ready(Some(3)));
}

#[test]
fn an_end_or_an_error_is_read_again() {
    let mut reader = Reader::new([Read::End, Read::End, Read::Bytes(b"abc")]);
    assert_eq!(reader.poll(), Poll::Ready(Some(0)));
    assert_eq!(reader.poll(), Poll::Ready(Some(0)));
    assert_eq!(reader.poll(), Poll::Ready(Some(3)));
}

#[test]
fn a_read_that_is_interrupted_again_and_again_goes_on_in_the_next_poll() {
    let interrupted = std::iter::repeat_with(|| Read::Interrupted).take(INTERRUPTED_TRIES + 1);
    let mut reader = Reader::new(interrupted.chain([Read::Bytes(b"abc")]));
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(
        (reader.reads(), reader.task.woken()),
        (INTERRUPTED_TRIES, 1)
    );
    assert_eq!(reader.poll(), Poll::Ready(Some(3)));
}

#[test]
fn another_task_reads_at_once_and_is_the_one_that_is_called() {
    let mut reader = Reader::new([]);
    assert_eq!(reader.poll(), Poll::Pending);
    let former = std::mem::take(&mut reader.task);
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(reader.reads(), 2);
    reader.call();
    assert_eq!((former.woken(), reader.task.woken()), (0, 1));
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(reader.reads(), 3);
}

#[test]
fn a_transport_that_calls_for_a_write_or_a_shutdown_is_read() {
    let mut reader = Reader::new([Read::Nothing, Read::Nothing, Read::Bytes(b"abc")]);
    assert_eq!(reader.poll(), Poll::Pending);
    reader.io.io.full = true;
    // As TLS does that reads for a write: it keeps this waker in the place of the first.
    assert_eq!(reader.poll_send(), Poll::Pending);
    reader.call();
    assert_eq!(reader.poll(), Poll::Pending);
    assert_eq!(reader.reads(), 2);
    let waker = Waker::from(Arc::clone(&reader.task));
    let shutdown = reader.io.poll_shutdown(&mut Context::from_waker(&waker));
    assert!(shutdown.is_pending());
    reader.call();
    assert_eq!(reader.poll(), Poll::Ready(Some(3)));
}

/// A read that the budget of its task refuses is pending although bytes are there.
#[tokio::test]
async fn a_read_without_budget_goes_on_in_the_next_poll() {
    const BYTES: usize = 4096;
    let (near, mut far) = tokio::io::duplex(BYTES);
    far.write_all(&[7; BYTES]).await.unwrap();
    let mut io = TokioIo::new(near, |_| None);
    let (mut received, mut refusals) = (0, 0);
    poll_fn(|cx| {
        while received < BYTES {
            let mut buf = BytesMut::with_capacity(8);
            match io.poll_recv(cx, &mut buf, 8) {
                Poll::Ready(n) => received += n.unwrap(),
                Poll::Pending => {
                    refusals += 1;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    })
    .await;
    assert!(refusals > 0, "the budget is smaller than {BYTES} bytes");
}

/// Wakes a thread that polls.
struct Unpark {
    thread: thread::Thread,
    called: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.called.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Unpark {
    fn wait(&self) {
        let begun = Instant::now();
        while !self.called.swap(false, Ordering::SeqCst) {
            thread::park_timeout(Duration::from_secs(1));
            assert!(begun.elapsed() < Duration::from_secs(60), "a lost call");
        }
    }
}

/// Each poll is on a thread of its own, between polls for no reason, while a third thread writes.
#[test]
fn no_call_is_lost_between_threads() {
    const BYTES: usize = 500;
    let (near, mut far) = tokio::io::duplex(1);
    let mut io = TokioIo::new(near, |_| None);
    let writer = thread::spawn(move || {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(far.write_all(&[7; BYTES])).unwrap();
        far
    });
    let task = Arc::new(Unpark {
        thread: thread::current(),
        called: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&task));
    let mut buf = BytesMut::new();
    while buf.len() < BYTES {
        let poll = || io.poll_recv(&mut Context::from_waker(&waker), &mut buf, BYTES);
        let polled = thread::scope(|scope| scope.spawn(poll).join());
        match polled.unwrap() {
            Poll::Ready(n) => assert_eq!(n.unwrap(), 1),
            Poll::Pending => task.wait(),
        }
    }
    drop(writer.join().unwrap());
}

/// With a clock that advances only while nothing can be done: the time to linger would show.
#[tokio::test(start_paused = true)]
async fn a_session_that_has_ended_reads_until_its_peer_has_closed() {
    let (near, mut far) = tokio::io::duplex(1024);
    let (session, connection) = crate::client(near, &Config::default());
    let connection = tokio::spawn(connection);
    let mut hello = BytesMut::new();
    hello.extend_from_slice(&preface::encode(preface::VERSION));
    Settings::FLOORS.put(&mut hello);
    far.write_all(&hello).await.unwrap();
    session.established().await.unwrap();
    session.close();
    // It has written its last bytes, and waits for the peer.
    let mut last = Vec::new();
    far.read_to_end(&mut last).await.unwrap();
    assert!(!last.is_empty());
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        far.write_all(&[7; 4096]).await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(far);
    assert!(matches!(connection.await.unwrap(), SessionError::Closed));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
