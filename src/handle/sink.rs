//! The sending half with the ecosystem's interfaces: a sink of messages, and a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_sink::Sink;
use tokio::io::AsyncWrite;

use super::send::SendStream;
use crate::error::SendError;

/// Maximum of bytes that one write of a byte stream takes: a frame.
const WRITE_MAX: usize = 16 * 1024;

impl Sink<Bytes> for SendStream {
    type Error = SendError;

    /// Ready means that one message of any legal size may be sent without waiting again, so the
    /// queue may exceed its bound by one message.
    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_room(cx, 0)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), SendError> {
        self.check(message.len())?;
        self.push(message);
        self.flush();
        Ok(())
    }

    /// Ready at once: a message is queued by then, as with [`send`](SendStream::send), and is sent with the next batch. To
    /// wait for that after each message would cost a batch for each.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    /// Finishes, then as [`written`](SendStream::written).
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        match self.finish() {
            Ok(()) | Err(SendError::Finished) => self.poll_written(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let len = buf.len().min(WRITE_MAX);
        match self.poll_room(cx, len) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) => {
                self.push_slice(&buf[..len]);
                self.flush();
                Poll::Ready(Ok(len))
            }
        }
    }

    /// As [`written`](SendStream::written).
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx).map_err(io::Error::from)
    }

    /// Finishes, then as [`written`](SendStream::written).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Sink::poll_close(self, cx).map_err(io::Error::from)
    }
}
