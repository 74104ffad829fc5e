//! Sessions over transports of the application's that break the rules, or move from one runtime to another.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::{Config, Connection, Session, SessionError, client, server};

/// A pipe that answers some calls by itself.
struct Odd {
    pipe: DuplexStream,
    calls: u32,
    answer: fn(u32, Call) -> Option<io::Result<usize>>,
}

#[derive(Clone, Copy)]
enum Call {
    Read,
    Write(usize),
    Flush,
    Shutdown,
}

impl Odd {
    fn answers(&mut self, call: Call) -> Option<io::Result<usize>> {
        self.calls += 1;
        (self.answer)(self.calls, call)
    }
}

impl AsyncRead for Odd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.answers(Call::Read) {
            Some(answer) => Poll::Ready(answer.map(drop)),
            None => Pin::new(&mut self.pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Odd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.answers(Call::Write(bytes.len())) {
            Some(answer) => Poll::Ready(answer),
            None => Pin::new(&mut self.pipe).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.answers(Call::Flush) {
            Some(answer) => Poll::Ready(answer.map(drop)),
            None => Pin::new(&mut self.pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.answers(Call::Shutdown) {
            Some(answer) => Poll::Ready(answer.map(drop)),
            None => Pin::new(&mut self.pipe).poll_shutdown(cx),
        }
    }
}

fn over(
    config: &Config,
    answer: fn(u32, Call) -> Option<io::Result<usize>>,
) -> (Session, Connection<Odd>, Session) {
    let (pipe, theirs) = duplex(4096);
    let (session, connection) = server(theirs, config);
    tokio::spawn(connection);
    let odd = Odd {
        pipe,
        calls: 0,
        answer,
    };
    let (odd, connection) = client(odd, config);
    (odd, connection, session)
}

async fn end_of(answer: fn(u32, Call) -> Option<io::Result<usize>>) -> SessionError {
    let (session, connection, _theirs) = over(&Config::default(), answer);
    let end = tokio::spawn(connection).await.expect("no panic");
    assert_eq!(session.closed().await.to_string(), end.to_string());
    end
}

fn io_error(end: &SessionError) -> &io::Error {
    match end {
        SessionError::Io(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn more_bytes_written_than_were_given_are_an_error_that_names_the_transport() {
    let end = end_of(|calls, call| match call {
        Call::Write(given) if calls > 2 => Some(Ok(given + 1000)),
        Call::Write(given) => Some(Ok(given + 1)),
        _ => None,
    })
    .await;
    let error = io_error(&end);
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let text = error.to_string();
    assert!(
        text.starts_with("the transport reported ") && text.contains(" bytes written of "),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_operation_is_tried_again() {
    let (session, connection, theirs) = over(&Config::default(), |calls, _| {
        (!calls.is_multiple_of(3)).then(|| Err(io::ErrorKind::Interrupted.into()))
    });
    let connection = tokio::spawn(connection);
    for n in 0..20_u8 {
        let (mut send, mut recv) = session.open("echo").await.unwrap();
        send.send(vec![n; 3000]).await.unwrap();
        send.finish().unwrap();
        let (mut reply, mut asked) = theirs.accept().await.unwrap().unwrap();
        let message = asked.recv().await.unwrap().unwrap();
        assert_eq!(message, vec![n; 3000]);
        reply.send(message).await.unwrap();
        reply.finish().unwrap();
        assert_eq!(recv.recv().await.unwrap().unwrap(), vec![n; 3000]);
    }
    session.close();
    assert!(matches!(connection.await.unwrap(), SessionError::Closed));
    assert!(matches!(
        theirs.closed().await,
        SessionError::PeerClosed { .. }
    ));
}

/// Not paused: a paused clock does not advance while a task is ready.
#[tokio::test]
async fn an_operation_that_is_always_interrupted_lets_other_tasks_run_and_times_out() {
    let config = Config::builder()
        .handshake_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let (session, connection, _theirs) = over(&config, |_, call| match call {
        Call::Read => Some(Err(io::ErrorKind::Interrupted.into())),
        _ => None,
    });
    tokio::spawn(connection);
    let end = session.closed().await;
    assert!(matches!(end, SessionError::HandshakeTimeout(_)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn other_errors_of_a_transport_end_the_session_with_their_kind() {
    let end = end_of(|_, call| match call {
        Call::Read => Some(Err(io::ErrorKind::WouldBlock.into())),
        _ => None,
    })
    .await;
    assert_eq!(io_error(&end).kind(), io::ErrorKind::WouldBlock);
    let end = end_of(|_, call| match call {
        Call::Write(_) => Some(Ok(0)),
        _ => None,
    })
    .await;
    assert_eq!(io_error(&end).kind(), io::ErrorKind::WriteZero);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A limit that no test reaches, also where the machine keeps its thread waiting.
const AMPLE: Duration = Duration::from_secs(60);

/// A session that a first runtime has polled, with a timer set, and its peer, which is not polled yet.
fn begun(
    first: &Runtime,
    handshake_timeout: Duration,
) -> (
    Session,
    Connection<DuplexStream>,
    (Session, Connection<DuplexStream>),
) {
    let config = Config::builder()
        .handshake_timeout(handshake_timeout)
        .build()
        .unwrap();
    let (ours, theirs) = duplex(4096);
    let (session, mut connection) = client(ours, &config);
    first.block_on(async {
        let polled = poll_fn(|cx| Poll::Ready(connection.poll_unpin(cx).is_pending()));
        assert!(polled.await);
    });
    (session, connection, server(theirs, &Config::default()))
}

#[test]
fn a_session_goes_on_when_it_is_moved_to_another_runtime() {
    for first_lives in [true, false] {
        let (first, second) = (runtime(), runtime());
        let (session, connection, (_theirs, peer)) = begun(&first, AMPLE);
        let first = first_lives.then_some(first);
        second.block_on(async {
            let moved = tokio::spawn(connection);
            tokio::spawn(peer);
            let pinged = timeout(Duration::from_secs(60), session.ping()).await;
            pinged.expect("in time").unwrap();
            session.close();
            assert!(matches!(moved.await.unwrap(), SessionError::Closed));
        });
        drop(first);
    }
}

#[test]
fn a_timer_set_on_another_runtime_fires_on_the_one_that_polls() {
    for first_lives in [true, false] {
        let (first, second) = (runtime(), runtime());
        let (_session, connection, _silent) = begun(&first, Duration::from_millis(100));
        let first = first_lives.then_some(first);
        second.block_on(async {
            let end = timeout(Duration::from_secs(60), tokio::spawn(connection)).await;
            let end = end.expect("in time").unwrap();
            assert!(matches!(end, SessionError::HandshakeTimeout(_)), "{end:?}");
        });
        drop(first);
    }
}

#[test]
fn a_session_polled_after_its_runtime_ends_with_the_cause() {
    let first = runtime();
    let (session, mut connection, _peer) = begun(&first, AMPLE);
    let handle = first.handle().clone();
    drop(first);
    let _entered = handle.enter();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut end = connection.poll_unpin(&mut cx);
    if end.is_pending() {
        end = connection.poll_unpin(&mut cx);
    }
    let Poll::Ready(end) = end else {
        panic!("pending");
    };
    let text = crate::Chain(&end).to_string();
    assert!(
        matches!(end, SessionError::Io(_)) && text.contains("no timers"),
        "{text}"
    );
    assert!(session.state().end().is_some());
}
