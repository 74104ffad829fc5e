//! The sending half of a stream.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_sink::Sink;

use crate::error::{SendError, TrySendError};
use crate::frame::{MAX_ERROR_DETAILS, MAX_META_BLOCK, codes};
use crate::link::{COPY_MAX, Lane, SEND_FLOOR, SendEnd, TxRing, failure, reason, tx_tag};
use crate::queue::{Teardown, Writer, record_weight};
use crate::sync::Arc;

/// Most bytes that one write of a byte stream takes: a frame.
const WRITE_MAX: usize = 16 * 1024;
/// Opaque blocks that a direction of a stream may carry.
const MAX_METAS: u8 = 2;

/// Sends messages on a stream, in order.
///
/// A message is accepted into the stream's queue, which is bounded by
/// [`send_buffer`](crate::ConfigBuilder::send_buffer), and together with those of the session's other streams by
/// [`session_send_buffer`](crate::ConfigBuilder::session_send_buffer), and leaves with the engine's next batch.
/// Accepted does not mean received: whoever needs to know must be answered by the peer.
///
/// Dropping it before [`finish`](Self::finish) cancels the stream, in both directions.
///
/// It is also a [`Sink`] of [`Bytes`], which until the peer has said what it accepts refuses what is above 64 KiB, and a
/// [`tokio::io::AsyncWrite`] for byte streams, of which each write is a message and `shutdown` finishes.
pub struct SendStream {
    writer: Writer<TxRing>,
    finished: bool,
    metas: u8,
    /// What had been queued in all when `try_send` last asked for a higher limit, in bytes. 0: it never did, as a queue
    /// that never held anything has room.
    asked_at: u64,
}

impl SendStream {
    pub(super) const fn new(writer: Writer<TxRing>) -> Self {
        Self {
            writer,
            finished: false,
            metas: 0,
            asked_at: 0,
        }
    }

    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.writer.owner().0
    }

    pub(super) fn register(&mut self, cx: &Context<'_>) {
        self.writer.register(cx.waker());
    }

    /// Queues a message, waiting for room.
    ///
    /// Messages up to 4 KiB are copied; of larger ones a reference is kept until they are sent.
    ///
    /// # Errors
    /// [`SendError::TooLong`] for a message that the peer does not accept, before anything is
    /// queued; [`SendError::Stopped`] or [`SendError::Stream`] if the stream has ended;
    /// [`SendError::Finished`] after [`finish`](Self::finish) or [`cancel`](Self::cancel).
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready means that the message was not queued.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ringmux::{Config, SendError};
    /// # let (a, b) = tokio::io::duplex(64 * 1024);
    /// # let (client, connection) = ringmux::client(a, &Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &Config::default());
    /// # tokio::spawn(connection);
    /// let mut stream = client.open("").await?;
    /// stream.send("a message").await?;
    /// stream.finish()?;
    /// assert!(matches!(stream.send("one more").await, Err(SendError::Finished)));
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn send(
        &mut self,
        message: impl Into<Bytes>,
    ) -> impl Future<Output = Result<(), SendError>> {
        let mut message = message.into();
        poll_fn(move |cx| {
            ready!(self.poll_room(cx, message.len()))?;
            self.push(std::mem::take(&mut message));
            self.flush();
            Poll::Ready(Ok(()))
        })
    }

    /// Queues a message by copying it, waiting for room.
    ///
    /// Allocates nothing for messages up to 4 KiB once the stream's queue has grown to its size.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_slice(&mut self, message: &[u8]) -> impl Future<Output = Result<(), SendError>> {
        poll_fn(move |cx| {
            ready!(self.poll_room(cx, message.len()))?;
            self.push_slice(message);
            self.flush();
            Poll::Ready(Ok(()))
        })
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] if there is no room, or if the message is above 64 KiB and the peer has not yet said what it
    /// accepts; [`TrySendError::Refused`] where [`send`](Self::send) fails. Both give the message back.
    pub fn try_send(&mut self, message: Bytes) -> Result<(), TrySendError> {
        match self.room(message.len()) {
            Some(Ok(())) => {
                self.push(message);
                self.flush();
                Ok(())
            }
            Some(Err(error)) => Err(TrySendError::Refused { message, error }),
            None => match self.inherited_end() {
                Some(error) => Err(TrySendError::Refused { message, error }),
                None => {
                    self.ask_for_more(message.len());
                    Err(TrySendError::Full(message))
                }
            },
        }
    }

    /// Queues several messages, telling the engine once for each 4 KiB of them, and when there is no room.
    ///
    /// # Errors
    /// As [`send`](Self::send), at the first message that is not accepted; those before it were.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready keeps what was queued so far; the rest is not sent.
    pub async fn send_all(
        &mut self,
        messages: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), SendError> {
        let batch = Unflushed(self);
        let mut unflushed = 0;
        for message in messages {
            let len = message.len();
            if batch.0.check(len).is_err() || !batch.0.has_room(len) {
                batch.0.flush();
                poll_fn(|cx| batch.0.poll_room(cx, len)).await?;
            }
            batch.0.push(message);
            unflushed += record_weight(len, false);
            // What the engine has not heard of is within the floor, which is not taken back.
            if unflushed >= u64::from(SEND_FLOOR) {
                batch.0.flush();
                unflushed = 0;
            }
        }
        Ok(())
    }

    /// Queues an opaque block in order with the messages, such as headers or trailers; at most two
    /// a stream and direction, at most 8 KiB each.
    ///
    /// # Errors
    /// [`SendError::TooLong`] above 8 KiB, [`SendError::TooManyMetas`] for the third; else as
    /// [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_meta(&mut self, block: impl Into<Bytes>) -> Result<(), SendError> {
        let (block, limit) = (block.into(), MAX_META_BLOCK as usize);
        if block.len() > limit {
            return Err(SendError::TooLong {
                len: block.len(),
                limit,
            });
        }
        if self.metas == MAX_METAS {
            return Err(SendError::TooManyMetas);
        }
        poll_fn(|cx| self.poll_room(cx, block.len())).await?;
        self.metas += 1;
        self.writer.push_slice(tx_tag::META, false, &block);
        self.flush();
        Ok(())
    }

    /// Ends this direction after everything queued before; the other direction goes on.
    ///
    /// Never waits. The peer's receiver sees a clean end of stream.
    ///
    /// # Errors
    /// [`SendError::Finished`] the second time, or after [`cancel`](Self::cancel); [`SendError::Stopped`] or [`SendError::Stream`] if
    /// the stream has ended already.
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.check_open()?;
        self.finished = true;
        self.writer.push_slice(tx_tag::FIN, true, &[]);
        self.flush();
        Ok(())
    }

    /// Ends the stream with an error of the application, after everything queued before.
    ///
    /// The peer's receiver gets [`StreamError::Failed`](crate::StreamError::Failed), and so does its
    /// sender, also if the receiving half here is dropped or stopped afterwards. What the peer still
    /// sends is discarded, and receiving here ends with [`StreamError::Cancelled`](crate::StreamError::Cancelled) with the same code.
    /// Text above 1 KiB is cut.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_with_error(&mut self, code: u32, message: &str) -> Result<(), SendError> {
        self.finish_with_details(code, message, &[])
    }

    /// The same, with opaque details of at most 8 KiB.
    ///
    /// # Errors
    /// As [`finish`](Self::finish), and [`SendError::TooLong`] for the details.
    pub fn finish_with_details(
        &mut self,
        code: u32,
        message: &str,
        details: &[u8],
    ) -> Result<(), SendError> {
        let limit = MAX_ERROR_DETAILS as usize;
        if details.len() > limit {
            return Err(SendError::TooLong {
                len: details.len(),
                limit,
            });
        }
        self.check_open()?;
        self.fail(code, message, details);
        Ok(())
    }

    /// The rest of [`Self::finish_with_details`]: the stream may have ended since the check.
    pub(crate) fn fail(&mut self, code: u32, message: &str, details: &[u8]) {
        self.finished = true;
        let record = failure::encode(code, message, details);
        self.lane().mark_failing();
        self.writer.push_slice(tx_tag::ERROR, true, &record);
        self.flush();
    }

    /// Ends the stream now, in both directions; what is queued and not yet sent is dropped.
    ///
    /// The peer gets [`StreamError::Cancelled`](crate::StreamError::Cancelled) with this code. A
    /// cancel that comes after the stream has ended does nothing.
    pub fn cancel(&mut self, code: u32) {
        self.finished = true;
        self.lane().cancel(code);
    }

    /// Waits until nothing can be sent any more because the peer has stopped or cancelled the
    /// stream, or the session has ended; tells which.
    ///
    /// For a sender that has nothing to send for the moment, or has finished, and wants to give up
    /// when nobody listens. Never ready after both sides have finished in order.
    ///
    /// # Cancel safety
    /// Safe.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ringmux::{Config, SendError};
    /// # let (a, b) = tokio::io::duplex(64 * 1024);
    /// # let (client, connection) = ringmux::client(a, &Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &Config::default());
    /// # tokio::spawn(connection);
    /// let mut stream = client.open("").await?;
    /// let mut accepted = server.accept().await?;
    /// accepted.stop(7);
    /// assert!(matches!(stream.stopped().await, SendError::Stopped { code: 7 }));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stopped(&mut self) -> SendError {
        poll_fn(|cx| {
            if let Some(end) = self.end_error() {
                return Poll::Ready(end);
            }
            self.register(cx);
            let end = self.end_error().or_else(|| self.inherited_end());
            end.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Sets how urgently the engine sends what this stream has queued: 0 (most) to 7 (least),
    /// default 3. Levels are strict; streams of a level take turns. Values above 7 count as 7.
    pub fn set_urgency(&self, urgency: u8) {
        self.lane()
            .set_urgency(urgency.min(Lane::URGENCIES as u8 - 1));
    }

    // ---- room -------------------------------------------------------------------------------

    #[inline]
    fn poll_room(&mut self, cx: &Context<'_>, len: usize) -> Poll<Result<(), SendError>> {
        let open = !self.finished && self.lane().send_end().is_none();
        if open && len <= self.lane().session().peer_max_message() && self.has_room(len) {
            return Poll::Ready(Ok(()));
        }
        self.wait_for_room(cx, len)
    }

    #[cold]
    fn wait_for_room(&mut self, cx: &Context<'_>, len: usize) -> Poll<Result<(), SendError>> {
        if let Some(ready) = self.room(len) {
            return Poll::Ready(ready);
        }
        self.register(cx);
        let more = match self.is_held_back(record_weight(len, false)) {
            true => reason::MORE,
            false => 0,
        };
        self.lane().raise(reason::ROOM | more);
        let ready = self.room(len).or_else(|| self.inherited_end().map(Err));
        ready.map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether a message of this length may be queued; `None`: not now.
    fn room(&mut self, len: usize) -> Option<Result<(), SendError>> {
        let known = self.lane().session().is_established();
        match self.check(len) {
            // Before the handshake the peer's limit is not known yet.
            Err(SendError::TooLong { .. }) if !known => None,
            Err(error) => Some(Err(error)),
            Ok(()) => self.has_room(len).then_some(Ok(())),
        }
    }

    #[inline]
    fn has_room(&mut self, len: usize) -> bool {
        let weight = record_weight(len, false);
        let limit = u64::from(self.lane().send_limit());
        self.writer.has_room(weight, limit) || self.has_room_by_growing(weight)
    }

    #[cold]
    fn has_room_by_growing(&mut self, weight: u64) -> bool {
        while self.is_held_back(weight) && self.lane().grow_send_limit() {
            let limit = u64::from(self.lane().send_limit());
            if self.writer.has_room(weight, limit) {
                return true;
            }
        }
        false
    }

    /// Whether there would be room if the session's other streams left more of the budget.
    fn is_held_back(&self, weight: u64) -> bool {
        let most = self.lane().session().send_buffer;
        self.lane().send_limit() < most && self.writer.pending_weight() + weight <= u64::from(most)
    }

    /// Asks the engine for a higher limit, once between two messages: whoever tries may do so all the time.
    fn ask_for_more(&mut self, len: usize) {
        let queued = self.writer.pushed_weight();
        if self.asked_at != queued && self.is_held_back(record_weight(len, false)) {
            self.asked_at = queued;
            self.lane().raise(reason::MORE);
        }
    }

    fn check(&self, len: usize) -> Result<(), SendError> {
        self.check_open()?;
        let limit = self.lane().session().peer_max_message();
        if len > limit {
            Err(SendError::TooLong { len, limit })
        } else {
            Ok(())
        }
    }

    fn check_open(&self) -> Result<(), SendError> {
        // First: what it says must not depend on how far the engine is.
        if self.finished {
            return Err(SendError::Finished);
        }
        self.end_error().map_or(Ok(()), Err)
    }

    fn end_error(&self) -> Option<SendError> {
        self.lane().send_end().map(|end| match end {
            SendEnd::Stopped { code } => SendError::Stopped { code: *code },
            SendEnd::Error(error) => SendError::Stream(error.clone()),
        })
    }

    /// See [`Lane::inherited_end`].
    fn inherited_end(&self) -> Option<SendError> {
        self.lane().inherited_end().map(SendError::Stream)
    }

    // ---- queue ------------------------------------------------------------------------------

    fn push(&mut self, message: Bytes) {
        if message.len() <= COPY_MAX {
            self.writer.push_slice(tx_tag::MESSAGE, false, &message);
        } else {
            self.writer.push_bytes(tx_tag::MESSAGE, false, message);
        }
    }

    fn push_slice(&mut self, message: &[u8]) {
        if message.len() <= COPY_MAX {
            self.writer.push_slice(tx_tag::MESSAGE, false, message);
        } else {
            self.writer
                .push_bytes(tx_tag::MESSAGE, false, Bytes::copy_from_slice(message));
        }
    }

    fn flush(&mut self) {
        self.writer.publish();
        self.lane().raise(reason::SEND);
    }
}

/// Flushes what a batch has queued, however it ends.
struct Unflushed<'a>(&'a mut SendStream);

impl Drop for Unflushed<'_> {
    fn drop(&mut self) {
        self.0.flush();
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let _teardown = Teardown::begin();
        if !self.finished && self.lane().send_end().is_none() {
            self.lane().cancel(codes::CANCELLED);
        }
        self.lane().release_half();
        // Last: it drops a waker, which is somebody else's code and may panic.
        self.writer.unregister();
    }
}

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

    /// What was sent is with the engine already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(match self.finish() {
            Err(SendError::Finished) => Ok(()),
            result => result,
        })
    }
}

impl tokio::io::AsyncWrite for SendStream {
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
            Poll::Ready(Err(error)) => Poll::Ready(Err(to_io(error))),
            Poll::Ready(Ok(())) => {
                self.push_slice(&buf[..len]);
                self.flush();
                Poll::Ready(Ok(len))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.finish() {
            Ok(()) | Err(SendError::Finished) => Ok(()),
            Err(error) => Err(to_io(error)),
        })
    }
}

fn to_io(error: SendError) -> io::Error {
    let kind = match &error {
        SendError::TooLong { .. } | SendError::TooManyMetas => io::ErrorKind::InvalidInput,
        SendError::Stopped { .. } | SendError::Finished => io::ErrorKind::BrokenPipe,
        SendError::Stream(_) => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream")
            .field("lane", self.lane())
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
