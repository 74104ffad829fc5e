//! The receiving half as one stream of bytes, which ignores the boundaries of messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::RecvStream;
use crate::bridge::{RecvEnd, rx_tag};

impl RecvStream {
    fn ask_for_chunks(&mut self) {
        if !std::mem::replace(&mut self.chunks, true) {
            self.lane().take_chunks(true);
        }
    }

    /// Copies available bytes; false if there are none.
    fn read_chunks(&mut self, buf: &mut tokio::io::ReadBuf<'_>) -> bool {
        if self.ended {
            self.discard();
            return false;
        }
        if self.reader.passed_weight() > 0 {
            // As for the next message: a forgotten lease would hold the peer's credit for ever.
            self.release();
        }
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            let Some(record) = self.reader.peek() else {
                break;
            };
            if record.tag & rx_tag::META != 0 {
                self.take_meta();
                continue;
            }
            let rest = &record.payload.as_slice()[self.read as usize..];
            let n = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..n]);
            if n == rest.len() {
                self.read = 0;
                self.reader.advance();
                self.release();
            } else {
                self.read += n as u32;
            }
        }
        buf.filled().len() > before
    }

    fn bytes_or_end(&mut self, buf: &mut tokio::io::ReadBuf<'_>) -> Option<io::Result<()>> {
        let ended = match self.lane().recv_end() {
            Some(RecvEnd::Discard(error)) => {
                let error = error.clone();
                self.discard();
                return Some(Err(error.into()));
            }
            end => end.is_some(),
        };
        if self.read_chunks(buf) {
            return Some(Ok(()));
        }
        let end = ended.then(|| self.end::<()>().map_err(io::Error::from));
        end.or_else(|| self.lane().inherited_end().map(|end| Err(end.into())))
    }
}

impl tokio::io::AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ask_for_chunks();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.fair.poll(cx));
        if let Some(ready) = self.bytes_or_end(buf) {
            return Poll::Ready(ready);
        }
        self.fair.waits();
        self.reader.register(cx.waker());
        self.bytes_or_end(buf).map_or(Poll::Pending, Poll::Ready)
    }
}
