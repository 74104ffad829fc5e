//! Copies between a socket and a stream, both ways, until both have ended.
//!
//! The two directions are independent: the end of one is passed on, and the other continues. A broken connection must never
//! look like one that ended in order: every failure is reported, and the caller passes it on as a failure.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use ringmux::{Chain, RecvStream, SendError, SendStream, StreamError};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

use super::code;
use super::socket::Socket;

/// Maximum bytes of one read from a socket: one message, one frame.
const READ_BYTES: usize = 16 * 1024;
/// Maximum bytes of one write to a socket, and of a relay's own backlog.
const WRITE_BYTES: usize = 64 * 1024;

thread_local! {
    /// Buffer between a stream and a socket, shared by all within one poll, so that idle connections hold none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; WRITE_BYTES].into());
}

/// The role of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The requesting side: once it has failed, the rest is pointless.
    Client,
    /// The answering side: bytes received before its failure are part of the answer.
    Target,
}

/// Why a connection did not end in order.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The socket failed; fail the stream.
    Socket(io::Error),
    /// The stream failed; reset the socket.
    Stream(StreamError),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => Chain(error).fmt(f),
            Self::Stream(StreamError::Failed(failure)) => f.write_str(&failure.message),
            Self::Stream(error) => Chain(error).fmt(f),
        }
    }
}

/// One connection through the tunnel.
#[derive(Debug)]
pub(crate) struct Relay<'a> {
    socket: &'a Socket,
    side: Side,
    /// Set when a write has failed with a reset: the read then returns an orderly end.
    reset: OnceLock<io::Error>,
    /// Set when the peer has failed the stream: earlier bytes are still delivered.
    failed: OnceLock<StreamError>,
    read_ended: Notify,
    sent: AtomicU64,
    received: AtomicU64,
}

impl<'a> Relay<'a> {
    pub(crate) fn new(socket: &'a Socket, side: Side) -> Self {
        Self {
            socket,
            side,
            reset: OnceLock::new(),
            failed: OnceLock::new(),
            read_ended: Notify::new(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Bytes from the socket to the stream so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes from the stream to the socket so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Copies until both directions have ended, or something breaks.
    pub(crate) async fn run(
        &self,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<(), Broken> {
        let both = async { tokio::try_join!(self.to_stream(send), self.to_socket(recv)) };
        let broken = tokio::select! {
            biased;
            result = both => result.err(),
            error = self.failure() => self.unwritable(error).err(),
        };
        match broken.or_else(|| self.failed.get().cloned().map(Broken::Stream)) {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    /// Waits for a failure of the socket that neither direction can detect now.
    async fn failure(&self) -> io::Error {
        if self.side == Side::Target {
            // Before that there may be bytes to read in front of the failure.
            self.read_ended.notified().await;
        }
        self.socket.failed().await
    }

    async fn to_stream(&self, send: &mut SendStream) -> Result<(), Broken> {
        let result = self.copy_to_stream(send).await;
        self.read_ended.notify_one();
        result
    }

    async fn copy_to_stream(&self, send: &mut SendStream) -> Result<(), Broken> {
        loop {
            // A socket that always has data must not starve other connections.
            consume_budget().await;
            let chunk = tokio::select! {
                biased;
                chunk = self.socket.read(READ_BYTES) => chunk.map_err(Broken::Socket)?,
                end = send.stopped() => return self.stopped(end),
            };
            let len = chunk.len() as u64;
            if len == 0 {
                break;
            }
            if let Err(error) = send.send(chunk).await {
                return self.stopped(error);
            }
            self.sent.fetch_add(len, Ordering::Relaxed);
        }
        if let Some(error) = self.reset.get() {
            return Err(Broken::Socket(error.kind().into()));
        }
        send.finish().or_else(|error| self.stopped(error))
    }

    async fn to_socket(&self, recv: &mut RecvStream) -> Result<(), Broken> {
        let mut rest = Vec::new();
        loop {
            let passed = poll_fn(|cx| self.poll_pass(cx, recv, &mut rest)).await;
            let written = match passed.map_err(broken_stream)? {
                Ok(0) => return self.finish_socket(),
                Ok(_) if rest.is_empty() => Ok(()),
                Ok(_) => self.socket.write_all(&rest).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                self.unwritable(error)?;
                recv.stop(code::RESET);
                return Ok(());
            }
            rest.clear();
        }
    }

    /// Passes received bytes to the socket; bytes without room there stay in `rest`.
    ///
    /// The outer error is the stream's, the inner one the socket's.
    fn poll_pass(
        &self,
        cx: &mut Context<'_>,
        recv: &mut RecvStream,
        rest: &mut Vec<u8>,
    ) -> Poll<io::Result<io::Result<usize>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(recv).poll_read(cx, &mut buf))?;
            let bytes = buf.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(Ok(0)));
            }
            let written = self.socket.write_now(bytes).map(|n| {
                rest.extend_from_slice(&bytes[n..]);
                self.received
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                bytes.len()
            });
            Poll::Ready(Ok(written))
        })
    }

    /// The peer has sent everything.
    fn finish_socket(&self) -> Result<(), Broken> {
        match self.socket.finish() {
            // The socket is disconnected already; the read side finds out whether in order.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Socket(error)),
            _ => Ok(()),
        }
    }

    /// The socket takes no more bytes.
    fn unwritable(&self, error: io::Error) -> Result<(), Broken> {
        if self.side == Side::Client {
            return Err(Broken::Socket(error));
        }
        // A broken pipe means that the target had ended in order before. After a reset, reading would
        // not report it: the kernel reports the error once only, and this call got it.
        if error.kind() != io::ErrorKind::BrokenPipe {
            let _ = self.reset.set(error);
        }
        Ok(())
    }

    /// The stream takes no more bytes.
    fn stopped(&self, end: SendError) -> Result<(), Broken> {
        match end {
            // The peer has only stopped this direction; its answer continues.
            SendError::Stopped { .. } => Ok(()),
            SendError::Stream(error @ StreamError::Failed(_)) => {
                let _ = self.failed.set(error);
                Ok(())
            }
            SendError::Stream(error) => Err(Broken::Stream(error)),
            // Possible only by a bug here.
            error => Err(Broken::Socket(io::Error::other(error))),
        }
    }
}

/// `RecvStream` reads as an `AsyncRead` whose errors wrap its own.
fn broken_stream(error: io::Error) -> Broken {
    match error.downcast::<StreamError>() {
        Ok(error) => Broken::Stream(error),
        Err(error) => Broken::Socket(error),
    }
}
