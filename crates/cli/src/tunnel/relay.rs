//! Copies between a socket and a stream, both ways, until both have ended.
//!
//! The two directions are independent: the end of one is passed on, and the other goes on. What
//! must never happen is that a connection which broke looks like one that ended: every failure is
//! reported, and the caller passes it on as a failure.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use ringmux::{RecvStream, SendError, SendStream, StreamError};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

use super::code;
use super::socket::Socket;

/// Most that is read from a socket at once: one message, one frame.
const READ_BYTES: usize = 16 * 1024;
/// Most that is written to a socket at once, and the most that a relay holds back itself.
const WRITE_BYTES: usize = 64 * 1024;

thread_local! {
    /// Between a stream and a socket within one poll, so that idle connections hold no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; WRITE_BYTES].into());
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Of whoever wants something: once it has failed, nothing matters any more.
    Client,
    /// Of whoever answers: what it said before it failed is part of the answer.
    Target,
}

/// Why a connection did not end in order.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The socket failed; the stream is to be told.
    Socket(io::Error),
    /// The stream failed; the socket is to be told.
    Stream(StreamError),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Stream(StreamError::Failed(failure)) => f.write_str(&failure.message),
            Self::Stream(error) => error.fmt(f),
        }
    }
}

/// One connection through the tunnel.
#[derive(Debug)]
pub(crate) struct Relay<'a> {
    socket: &'a Socket,
    side: Side,
    /// Set when writing has met a reset: reading then ends as if in order.
    reset: OnceLock<io::Error>,
    /// Set when the peer has failed the stream: what it sent before is still delivered.
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

    /// Waits for a failure of the socket that neither direction would notice now.
    async fn failure(&self) -> io::Error {
        if self.side == Side::Target {
            // Until then there may be something to read in front of the failure.
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
            // A socket that always has something must not keep other connections from theirs.
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

    /// Passes what has arrived to the socket; what finds no room there is left in `rest`.
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
            // Nobody is left to be told; whether it ended in order is for reading to find out.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Socket(error)),
            _ => Ok(()),
        }
    }

    /// The socket takes nothing more.
    fn unwritable(&self, error: io::Error) -> Result<(), Broken> {
        if self.side == Side::Client {
            return Err(Broken::Socket(error));
        }
        // A broken pipe is a target that had ended in order before. After a reset, reading would
        // say so too: the error is reported once only, and this call has had it.
        if error.kind() != io::ErrorKind::BrokenPipe {
            let _ = self.reset.set(error);
        }
        Ok(())
    }

    /// The stream takes nothing more.
    fn stopped(&self, end: SendError) -> Result<(), Broken> {
        match end {
            // The peer only wants nothing more; its answer goes on.
            SendError::Stopped { .. } => Ok(()),
            SendError::Stream(error @ StreamError::Failed(_)) => {
                let _ = self.failed.set(error);
                Ok(())
            }
            SendError::Stream(error) => Err(Broken::Stream(error)),
            // Only a bug here could bring these about.
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
