//! The sending half of a stream.

pub(super) mod futures;
mod room;
#[cfg(feature = "rpc")]
pub(super) mod shared;

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use self::futures::{Reserve, SendMessage, SendSlice, Written};
use self::room::{end_error, end_or_inherited};
use super::fair::Fair;
use super::id::StreamId;
use super::reserved::Reserved;
use crate::bridge::{COPY_MAX, Lane, RECORD_CHARGE, SEND_FLOOR, TxRing, failure, reason, tx_tag};
use crate::error::codes;
use crate::error::{NotCarried, SendError, TrySendError};
use crate::queue::{Teardown, Writer, record_weight};
use crate::sync::Arc;

/// Opaque blocks that a direction of a stream may carry.
const MAX_METAS: u8 = 2;

/// The first message of a stream, and whether its direction ends with it.
pub(super) struct First {
    pub(super) message: Bytes,
    pub(super) finish: bool,
}

/// Requests to the engine, made once until more is queued.
mod asked {
    /// A higher limit.
    pub(super) const MORE: u8 = 1 << 0;
    /// A receipt for everything queued.
    pub(super) const WRITTEN: u8 = 1 << 1;
}

/// Sends messages on a stream, in order.
///
/// A message is accepted into the stream's queue, which is bounded by
/// [`send_buffer`](crate::ConfigBuilder::send_buffer), and together with those of the session's other streams by
/// [`session_send_buffer`](crate::ConfigBuilder::session_send_buffer), and is sent with the engine's next batch.
/// Accepted means neither sent, which [`written`](Self::written) waits for, nor received, which only an answer of the peer
/// proves.
///
/// Dropping it before [`finish`](Self::finish) cancels the stream, in both directions.
///
/// It is also a [`Sink`](futures_sink::Sink) of [`Bytes`], which refuses messages above 64 KiB until the peer's limit is
/// known, and a [`tokio::io::AsyncWrite`] for byte streams, of which each write is a message. `flush` and `shutdown` of a
/// byte stream, and `close` of a sink, wait as [`written`](Self::written) does, for as long as the peer takes: bound them
/// with a timeout where that matters. `flush` of a sink does not wait.
pub struct SendStream {
    writer: Writer<TxRing>,
    finished: bool,
    metas: u8,
    /// The total weight queued at the last request to the engine, in bytes.
    asked_at: u64,
    /// The requests made since then, as bits of `asked`.
    asked: u8,
    pub(super) fair: Fair,
}

impl SendStream {
    pub(super) const fn new(writer: Writer<TxRing>) -> Self {
        Self {
            writer,
            finished: false,
            metas: 0,
            asked_at: 0,
            asked: 0,
            fair: Fair::new(),
        }
    }

    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.writer.owner().0
    }

    pub(super) fn register(&mut self, cx: &Context<'_>) {
        self.writer.register(cx.waker());
    }

    /// The block that the opener of the stream sent with it.
    #[must_use]
    pub fn opening(&self) -> &Bytes {
        self.lane().particulars.opening()
    }

    /// The stream's number; `None` before its opening is sent.
    #[must_use]
    pub fn id(&self) -> Option<StreamId> {
        self.lane().id().map(StreamId::new)
    }

    /// The stream's [`tracing`] span, with its `id` and `urgency`, inside of the session's. Level debug, target
    /// `ringmux::stream`; an error that ends the stream is an event in it.
    ///
    /// Disabled, which costs nothing, if no subscriber was interested when the stream began.
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        self.lane().particulars.span()
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
    /// let (mut send, _recv) = client.open("").await?;
    /// send.send("a message").await?;
    /// send.finish()?;
    /// assert!(matches!(send.send("one more").await, Err(SendError::Finished)));
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn send(&mut self, message: impl Into<Bytes>) -> SendMessage<'_> {
        let message = message.into();
        SendMessage {
            stream: self,
            message,
        }
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
    pub fn send_slice<'a>(&'a mut self, message: &'a [u8]) -> SendSlice<'a> {
        SendSlice {
            stream: self,
            message,
        }
    }

    /// Waits for room for a message of `len` bytes and returns its place in the queue, to encode it there: it is sent by
    /// [`Reserved::send`], and not at all if the place is dropped.
    ///
    /// A message up to 4 KiB is written into the stream's ring, which saves a copy; of a larger one a reference is
    /// kept until it is sent. All `len` bytes are sent: encode once to know the length, or bound it and use
    /// [`send_slice`](Self::send_slice).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// Dropping the future queues nothing.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(64 * 1024);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// let (mut send, _recv) = client.open("").await?;
    /// let mut place = send.reserve(12).await?;
    /// place[..4].copy_from_slice(&7_u32.to_be_bytes());
    /// place[4..].copy_from_slice(&9_u64.to_be_bytes());
    /// place.send();
    ///
    /// let (_send, mut recv) = server.accept().await?.expect("the session is open");
    /// assert_eq!(recv.recv().await?.unwrap(), &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9][..]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve(&mut self, len: usize) -> Reserve<'_> {
        Reserve::new(self, len)
    }

    pub(super) fn lend(&mut self, len: usize) -> Reserved<'_> {
        Reserved::new(&mut self.writer, len)
    }

    /// Waits for room for a message of `len` bytes, so that [`try_send`](Self::try_send) of one is not [`Full`](TrySendError::Full):
    /// only sending uses up the room.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn poll_ready(&mut self, cx: &Context<'_>, len: usize) -> Poll<Result<(), SendError>> {
        self.poll_room(cx, len)
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] if there is no room, or if the message is above 64 KiB and the peer's limit is not known
    /// yet; [`TrySendError::Refused`] where [`send`](Self::send) fails. Both return the message.
    pub fn try_send(&mut self, message: Bytes) -> Result<(), TrySendError> {
        match self.room(message.len()) {
            Some(Ok(())) => {
                self.push(message);
                self.flush();
                Ok(())
            }
            Some(Err(error)) => Err(TrySendError::Refused { message, error }),
            None => {
                self.ask_for_more(message.len());
                Err(TrySendError::Full(message))
            }
        }
    }

    /// Queues several messages, notifying the engine once for each 4 KiB of them, and when there is no room.
    ///
    /// # Errors
    /// As [`send`](Self::send), at the first message that is not accepted; those before it were.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready keeps the messages queued so far; the rest is not sent.
    pub async fn send_all(
        &mut self,
        messages: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), SendError> {
        let batch = Unflushed(self);
        let mut unflushed = 0;
        for message in messages {
            poll_fn(|cx| {
                let turn = batch.0.fair.poll(cx);
                if turn.is_pending() {
                    batch.0.flush();
                }
                turn
            })
            .await;
            let len = message.len();
            if batch.0.check(len).is_err() || !batch.0.has_room(len) {
                batch.0.flush();
                poll_fn(|cx| batch.0.poll_room(cx, len)).await?;
            }
            batch.0.push(message);
            unflushed += record_weight(RECORD_CHARGE, len, false);
            // Weight that the engine does not know of is within the floor, which is never taken back.
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
    /// [`SendError::TooLong`] above 8 KiB, [`SendError::TooManyMetas`] for the third, [`SendError::NotCarried`] on a wire without
    /// them; else as
    /// [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_meta(&mut self, block: impl Into<Bytes>) -> Result<(), SendError> {
        let (block, limit) = (block.into(), self.lane().session().max_block);
        if limit == 0 {
            return Err(NotCarried::Meta.into());
        }
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

    /// Ends this direction after everything queued before; the other direction stays open.
    ///
    /// Never waits. The peer's receiver sees a clean end of stream.
    ///
    /// # Errors
    /// [`SendError::Finished`] the second time, or after [`cancel`](Self::cancel); [`SendError::Stopped`] or [`SendError::Stream`] if
    /// the stream has ended already.
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.check_open()?;
        self.finished = true;
        self.asked = 0;
        self.writer.push_slice(tx_tag::FIN, true, &[]);
        self.flush();
        Ok(())
    }

    /// Ends the stream with an error of the application, after everything queued before.
    ///
    /// The peer's receiver gets [`StreamError::Failed`](crate::StreamError::Failed), and so does its sender, also if the
    /// receiving half here is dropped or stopped afterwards. Messages that the peer still sends are discarded, and
    /// receiving here ends with [`StreamError::Cancelled`](crate::StreamError::Cancelled) with the same code. Text above
    /// 1 KiB is cut.
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
        let limit = self.lane().session().max_details;
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
        self.asked = 0;
        let record = failure::encode(code, message, details);
        self.lane().asked.mark_failing();
        self.writer.push_slice(tx_tag::ERROR, true, &record);
        self.flush();
    }

    /// Ends the stream now, in both directions; messages queued and not yet sent are dropped.
    ///
    /// The peer gets [`StreamError::Cancelled`](crate::StreamError::Cancelled) with this code. A
    /// cancel after the end of the stream does nothing.
    pub fn cancel(&mut self, code: u32) {
        self.finished = true;
        self.asked = 0;
        self.lane().cancel(code);
    }

    /// Waits until everything queued so far, with the end of the stream if it was [finished](Self::finish), has been written to
    /// the socket: the kernel has it, or the transport under the session.
    ///
    /// From then on neither dropping the session nor the end of the process loses it here. Only the peer's answer proves
    /// that the peer has received it. Waits as long as the peer grants no credit for queued messages, and at most until
    /// the stream or the session ends. Costs nothing unless it is called.
    ///
    /// # Errors
    /// [`SendError::Stopped`] or [`SendError::Stream`] if the stream or its session ended before it was known: a part of
    /// the queued messages may have been written.
    ///
    /// # Cancel safety
    /// Safe: queued messages stay queued.
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
    /// let (mut send, _recv) = client.open("").await?;
    /// send.send("the last message").await?;
    /// send.finish()?;
    /// send.written().await?;
    ///
    /// let (mut other, _recv) = client.open("").await?;
    /// other.cancel(7);
    /// assert!(matches!(other.written().await, Err(SendError::Stream(_))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn written(&mut self) -> Written<'_> {
        Written(self)
    }

    /// The same, as a poll function.
    ///
    /// # Errors
    /// As [`written`](Self::written).
    pub fn poll_written(&mut self, cx: &Context<'_>) -> Poll<Result<(), SendError>> {
        if self.asks(asked::WRITTEN) {
            self.register(cx);
            self.lane().ask_written();
        }
        if let Some(ready) = self.written_or_end() {
            return Poll::Ready(ready);
        }
        self.register(cx);
        self.written_or_end().map_or(Poll::Pending, Poll::Ready)
    }

    fn written_or_end(&self) -> Option<Result<(), SendError>> {
        if self.lane().receipt.is_done() {
            return Some(Ok(()));
        }
        end_or_inherited(self.lane()).map(Err)
    }

    /// Waits until nothing can be sent any more because the peer has stopped or cancelled the
    /// stream, or the session has ended; returns the reason.
    ///
    /// For a sender that has nothing to send at the moment, or has finished, and wants to give up
    /// when the peer is gone. Never ready after both sides have finished in order.
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
    /// let (mut send, _recv) = client.open("").await?;
    /// let (_send, mut recv) = server.accept().await?.expect("the session is open");
    /// recv.stop(7);
    /// assert!(matches!(send.stopped().await, SendError::Stopped { code: 7 }));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stopped(&mut self) -> SendError {
        poll_fn(|cx| {
            if let Some(end) = end_error(self.lane()) {
                return Poll::Ready(end);
            }
            self.register(cx);
            end_or_inherited(self.lane()).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Sets the time at which the engine cancels the stream, if it has not ended by then; `None`: never, the default. The
    /// last call holds.
    ///
    /// Both halves then end with [`StreamError::Cancelled`](crate::StreamError::Cancelled) by
    /// [`Side::This`](crate::Side::This) and the code [`DEADLINE`](crate::codes::DEADLINE), and the peer's with the same
    /// code by [`Side::Peer`](crate::Side::Peer). Messages queued and not sent are dropped. It costs no timer of the
    /// application and nothing per message, applies also when this half has finished and was dropped, and has the
    /// resolution of the engine's timer: a millisecond.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(4096);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (_server, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// use ringmux::{StreamError, codes};
    /// use std::time::{Duration, Instant};
    ///
    /// let (mut call, mut answer) = client.open("a slow call").await?;
    /// call.set_deadline(Instant::now() + Duration::from_millis(20));
    /// call.finish()?;
    /// let error = answer.recv().await.unwrap_err();
    /// assert!(matches!(error, StreamError::Cancelled { code: codes::DEADLINE, .. }));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_deadline(&self, at: impl Into<Option<Instant>>) {
        self.lane().set_deadline(at.into());
    }

    /// Sets the urgency of the messages that this stream has queued: 0 (most) to 7 (least),
    /// default 3. Levels are strict; streams of a level take turns. Values above 7 count as 7.
    pub fn set_urgency(&self, urgency: u8) {
        self.lane()
            .set_urgency(urgency.min(Lane::URGENCIES as u8 - 1));
    }

    // ---- queue ------------------------------------------------------------------------------

    pub(super) fn push(&mut self, message: Bytes) {
        if message.len() <= COPY_MAX {
            self.writer.push_slice(tx_tag::MESSAGE, false, &message);
        } else {
            self.writer.push_bytes(tx_tag::MESSAGE, false, message);
        }
    }

    pub(super) fn push_slice(&mut self, message: &[u8]) {
        if message.len() <= COPY_MAX {
            self.writer.push_slice(tx_tag::MESSAGE, false, message);
        } else {
            self.writer
                .push_bytes(tx_tag::MESSAGE, false, Bytes::copy_from_slice(message));
        }
    }

    /// Queues the first message of a stream without notifying the engine.
    pub(super) fn queue(&mut self, first: First) {
        self.push(first.message);
        if first.finish {
            self.finished = true;
            self.writer.push_slice(tx_tag::FIN, true, &[]);
        }
        self.writer.publish();
    }

    pub(super) fn queue_and_flush(&mut self, first: First) {
        self.queue(first);
        self.lane().raise(reason::SEND);
    }

    pub(super) fn flush(&mut self) {
        self.writer.publish();
        self.lane().raise(reason::SEND);
    }
}

/// Flushes the messages that a batch has queued, however it ends.
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
        // Last: it drops a waker, which is foreign code and may panic.
        self.writer.unregister();
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream")
            .field("lane", self.lane())
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
