//! The receiving half of a stream.

pub(super) mod futures;
pub(super) mod lease;
mod meta;
mod read;

use std::fmt;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_core::Stream;

use self::futures::{Recv, RecvLease};
use self::lease::Lease;
use self::meta::{Metas, drop_metas};
use super::fair::Fair;
use super::id::StreamId;
use crate::addr::Wire;
use crate::bridge::{Lane, RecvEnd, RxRing, reason, rx_tag};
use crate::error::codes;
use crate::error::{SessionError, StreamError};
use crate::queue::{Reader, Teardown};
use crate::sync::Arc;

/// Receives messages from a stream, in the order in which the peer sent them.
///
/// Dropping it before the end asks the peer to stop sending; the other direction stays open.
///
/// It is also a [`Stream`] of messages, and a [`tokio::io::AsyncRead`] for byte streams, which
/// ignores the boundaries of messages and takes their pieces as they arrive.
///
/// The ways of receiving may be mixed, in any order, and no byte is lost or delivered twice: bytes read of a message are
/// removed from it, so the next method that receives gets the rest. A [`Lease`] takes the whole message, however
/// much of it is read.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use ringmux::Config;
/// # let (a, b) = tokio::io::duplex(64 * 1024);
/// # let (client, connection) = ringmux::client(a, &Config::default());
/// # tokio::spawn(connection);
/// # let (server, connection) = ringmux::server(b, &Config::default());
/// # tokio::spawn(connection);
/// use tokio::io::AsyncReadExt;
///
/// let (mut send, _answers) = client.open("").await?;
/// send.send("header and body").await?;
/// send.send("second").await?;
///
/// let (_send, mut recv) = server.accept().await?.expect("the session is open");
/// let mut header = [0; 6];
/// recv.read_exact(&mut header).await?;
/// assert_eq!(recv.recv().await?.unwrap(), " and body");
/// assert_eq!(recv.recv().await?.unwrap(), "second");
/// # Ok(())
/// # }
/// ```
pub struct RecvStream {
    reader: Reader<RxRing>,
    /// Consumed weight reported to the engine, modulo 4 GiB: less than that is ever unreported, as a window is.
    reported: u32,
    /// Opaque blocks received with the messages so far; none in almost all streams.
    metas: ManuallyDrop<Metas>,
    /// How many of them `meta` has returned.
    given_metas: u8,
    /// Bytes read of the record in front, fewer than its length; a record is shorter than 4 GiB.
    read: u32,
    /// The engine publishes pieces.
    chunks: bool,
    /// The end was seen, or requested.
    ended: bool,
    /// The end was seen: nothing is left in the queue, and nothing more will arrive.
    drained: bool,
    fair: Fair,
}

/// The next in a receiver's queue.
enum Found {
    /// A message, which was passed.
    Message,
    End,
    /// Messages are not delivered any more, for a reason that [`RecvStream::lose`] returns.
    Lost,
}

impl RecvStream {
    pub(super) const fn new(reader: Reader<RxRing>) -> Self {
        Self {
            reader,
            reported: 0,
            metas: ManuallyDrop::new(None),
            given_metas: 0,
            read: 0,
            chunks: false,
            ended: false,
            drained: false,
            fair: Fair::new(),
        }
    }

    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.reader.owner().0
    }

    /// The block that the opener of the stream sent with it.
    #[must_use]
    pub fn opening(&self) -> &Bytes {
        self.lane().particulars.opening()
    }

    /// When the engine received the stream's opening block; `None` without one, and for a stream that this side opened.
    #[must_use]
    pub fn received_at(&self) -> Option<std::time::Instant> {
        self.lane().particulars.received()
    }

    /// What the stream's session speaks on its connection.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.lane().session().info().wire
    }

    /// The stream's number; `None` before its opening is sent.
    #[must_use]
    pub fn id(&self) -> Option<StreamId> {
        self.lane().id().map(StreamId::new)
    }

    /// The stream's [`tracing`] span, with its `id` and `urgency`, inside of the session's. Level debug, target
    /// `ringmux::stream`; an error that ends the stream is an event in it. Disabled, which costs nothing, if no subscriber was
    /// interested when the stream began.
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        self.lane().particulars.span()
    }

    /// Waits for the next message; `None` is the clean end of the stream.
    ///
    /// A message in several pieces, or a small one, is copied once; a large one in a single
    /// piece is not. [`lease`](Self::lease) copies nothing.
    ///
    /// # Errors
    /// The reason for the end of the stream, after every message received before; at once if it was cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ringmux::{Config, StreamError};
    /// # let (a, b) = tokio::io::duplex(64 * 1024);
    /// # let (client, connection) = ringmux::client(a, &Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &Config::default());
    /// # tokio::spawn(connection);
    /// let (mut call, mut answer) = client.open("").await?;
    /// call.send("a message").await?;
    /// call.finish()?;
    ///
    /// let (mut send, mut recv) = server.accept().await?.expect("the session is open");
    /// assert_eq!(recv.recv().await?.unwrap(), "a message");
    /// assert_eq!(recv.recv().await?, None);
    ///
    /// send.finish_with_error(7, "no such thing")?;
    /// let error = answer.recv().await.unwrap_err();
    /// assert!(matches!(error, StreamError::Failed(failure) if failure.code == 7));
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn recv(&mut self) -> Recv<'_> {
        Recv(self)
    }

    /// The same, as a poll function.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn poll_recv(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        ready!(self.fair.poll(cx));
        let found = match self.is_plain_and_ended() {
            None => self.find(cx),
            Some(ended) => {
                if let Some(message) = self.read_plain(Bytes::copy_from_slice) {
                    return Poll::Ready(Ok(Some(message)));
                }
                match self.reader.has_found_the_end() {
                    false => self.find(cx),
                    true if ended => return Poll::Ready(self.end()),
                    true => self.wait(cx),
                }
            }
        };
        match found {
            None => Poll::Pending,
            Some(found) => self.take_found(found),
        }
    }

    /// As [`poll_recv`](Self::poll_recv), of a message that was not found at the reader's place, in one piece, with the first look.
    #[inline(never)]
    fn take_found(&mut self, found: Found) -> Poll<Result<Option<Bytes>, StreamError>> {
        Poll::Ready(match found {
            Found::Message => Ok(Some(self.take_message())),
            Found::End => self.end(),
            Found::Lost => Err(self.lose()),
        })
    }

    /// Reads the next message where it lies, if it has arrived, in one piece that the ring stores. `None`: [`poll_recv`](Self::poll_recv)
    /// tells, and nothing has changed.
    #[cfg_attr(not(feature = "rpc"), allow(dead_code, reason = "of `rpc` alone"))]
    #[inline(always)]
    pub(crate) fn read_at_once<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.is_plain_and_ended().is_none() || !self.fair.has_turn() {
            return None;
        }
        self.read_plain(read)
    }

    /// Whether the end is known, which comes behind all messages that the ring holds. `None` if messages are not read one by one from
    /// the front of the queue on: one was read in part, or left passed by a lease that was forgotten, or none is delivered any more.
    #[inline(always)]
    fn is_plain_and_ended(&self) -> Option<bool> {
        if self.ended || self.read != 0 || self.reader.passed_weight() != 0 {
            return None;
        }
        match self.lane().recv_end() {
            Some(RecvEnd::Discard(_)) => None,
            end => Some(end.is_some()),
        }
    }

    /// Reads the message in front, and releases it, if it is one piece that the ring stores; else nothing changes.
    #[inline(always)]
    fn read_plain<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let result = read(self.reader.advance_slice(rx_tag::END)?);
        self.release();
        Some(result)
    }

    /// Takes a message that has arrived already; `None` if there is none now, for any reason.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        if self.pass_message() {
            return Some(self.take_message());
        }
        self.ask_for_messages();
        None
    }

    /// Waits for the next message and borrows it in place; `None` is the clean end.
    ///
    /// Its memory, and the peer's credit for it, are released when the [`Lease`] is dropped.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use ringmux::Config;
    /// # let (a, b) = tokio::io::duplex(64 * 1024);
    /// # let (client, connection) = ringmux::client(a, &Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &Config::default());
    /// # tokio::spawn(connection);
    /// let (mut send, _answers) = client.open("").await?;
    /// send.send_slice(b"in place").await?;
    ///
    /// let (_send, mut recv) = server.accept().await?.expect("the session is open");
    /// let lease = recv.lease().await?.unwrap();
    /// assert_eq!(&*lease.to_contiguous(), b"in place");
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn lease(&mut self) -> RecvLease<'_> {
        RecvLease::new(self)
    }

    /// Asks the peer to stop sending and discards all messages that have arrived, or arrive until the peer has received
    /// the request; the other direction stays open.
    ///
    /// The peer's sender gets [`SendError::Stopped`](crate::SendError::Stopped) with this code.
    pub fn stop(&mut self, code: u32) {
        if !std::mem::replace(&mut self.ended, true) && self.lane().recv_end().is_none() {
            self.lane().stop(code);
        }
        self.discard();
    }

    // ---- messages ---------------------------------------------------------------------------

    /// True: a message, or the rest of one that was partly read, was passed and is held until `release`. False: the
    /// clean end.
    #[inline]
    pub(super) fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Result<bool, StreamError>> {
        ready!(self.fair.poll(cx));
        match self.find(cx) {
            None => Poll::Pending,
            Some(Found::Message) => Poll::Ready(Ok(true)),
            Some(Found::End) => Poll::Ready(self.end()),
            Some(Found::Lost) => Poll::Ready(Err(self.lose())),
        }
    }

    /// Passes over the next message, or finds the end; `None`: waits.
    fn find(&mut self, cx: &Context<'_>) -> Option<Found> {
        match self.look() {
            None => self.wait(cx),
            found => found,
        }
    }

    /// The same after a look that has found nothing.
    #[inline(never)]
    fn wait(&mut self, cx: &Context<'_>) -> Option<Found> {
        self.ask_for_messages();
        self.reader.register(cx.waker());
        let found = self.look();
        if found.is_none() {
            self.fair.waits();
        }
        found
    }

    fn look(&mut self) -> Option<Found> {
        // Loaded before the ring is read: records published before the end are visible then.
        let ended = match self.lane().recv_end() {
            Some(RecvEnd::Discard(_)) => return Some(Found::Lost),
            end => end.is_some(),
        };
        if self.pass_message() {
            Some(Found::Message)
        } else if ended {
            Some(Found::End)
        } else {
            let inherited = self.lane().session().is_inherited();
            inherited.then_some(Found::Lost)
        }
    }

    /// The error of a stream whose messages are not delivered any more.
    #[cold]
    fn lose(&mut self) -> StreamError {
        if let Some(RecvEnd::Discard(error)) = self.lane().recv_end() {
            let error = error.clone();
            self.discard();
            return error;
        }
        StreamError::Session(SessionError::EngineStopped)
    }

    /// The end, after everything in the ring; the default, unless it is an error.
    #[inline(never)]
    fn end<T: Default>(&mut self) -> Result<T, StreamError> {
        self.ended = true;
        // Pieces of a message without its end may be left.
        self.drained = self.reader.has_seen_all();
        self.lane().let_go();
        let end = self.lane().recv_end().map_or(Ok(()), RecvEnd::result);
        end.map(|()| T::default())
    }

    /// Passes over the pieces of the message in front, if it is complete. A lease that was forgotten instead of dropped
    /// has left its message passed, which is not part of the next one.
    fn pass_message(&mut self) -> bool {
        if self.ended || self.reader.passed_weight() > 0 {
            return self.pass_if_open();
        }
        self.pass_next()
    }

    #[inline]
    fn pass_next(&mut self) -> bool {
        match self.reader.advance_unless(rx_tag::META) {
            None => false,
            Some(rx_tag::END) => true,
            Some(tag) => self.pass_pieces(tag),
        }
    }

    /// As [`pass_message`](Self::pass_message), after the end, or a lease that was forgotten.
    #[cold]
    #[inline(never)]
    fn pass_if_open(&mut self) -> bool {
        if self.ended {
            // After `stop` later messages follow a gap.
            self.discard();
            return false;
        }
        self.release();
        self.pass_next()
    }

    /// The same, where the record in front, with this tag, is a block or a piece; a piece was passed.
    #[cold]
    #[inline(never)]
    fn pass_pieces(&mut self, mut tag: u16) -> bool {
        loop {
            if tag & rx_tag::META != 0 {
                self.take_meta();
            } else if tag & rx_tag::END != 0 {
                return true;
            }
            match self.reader.advance_unless(rx_tag::META) {
                Some(next) => tag = next,
                None => {
                    self.reader.rewind();
                    return false;
                }
            }
        }
    }

    /// The passed message as one piece; its memory is released.
    #[inline(never)]
    fn take_message(&mut self) -> Bytes {
        let mut message = match self.reader.only_passed() {
            Some(only) => only.payload.to_bytes(),
            None => put_together(&self.reader),
        };
        self.release();
        if self.read > 0 {
            message.advance(std::mem::take(&mut self.read) as usize);
        }
        message
    }

    /// Lends the passed message, or its rest.
    pub(super) fn lend(&mut self) -> Lease<'_> {
        let read = std::mem::take(&mut self.read);
        Lease::new(&mut self.reader, &mut self.reported, read as usize)
    }

    /// See [`release`].
    fn release(&mut self) {
        release(&mut self.reader, &mut self.reported);
    }

    /// Frees everything that has arrived.
    fn discard(&mut self) {
        while self.reader.advance() {}
        let freed = self.reader.commit();
        self.read = 0;
        self.lane().let_go();
        if freed > 0 {
            self.lane().raise(reason::CREDIT);
        }
    }

    /// A whole message may be longer than the window, which the engine widens for receivers of whole messages.
    fn ask_for_messages(&mut self) {
        if std::mem::take(&mut self.chunks) {
            self.lane().take_chunks(false);
        }
    }
}

#[cold]
#[inline(never)]
fn put_together(reader: &Reader<RxRing>) -> Bytes {
    let pieces = reader.passed();
    let mut message = BytesMut::with_capacity(pieces.payload_len());
    pieces.for_each(|piece| message.put_slice(piece.payload.as_slice()));
    message.freeze()
}

/// Frees the memory of passed records, and notifies the engine when enough is free.
pub(super) fn release(reader: &mut Reader<RxRing>, reported: &mut u32) {
    reader.commit();
    let lane = &reader.owner().0;
    let released = reader.released() as u32;
    let unreported = released.wrapping_sub(*reported);
    if unreported > 0 && (unreported >= lane.credit_mark() || lane.session().is_hungry()) {
        *reported = released;
        lane.raise(reason::CREDIT);
    }
}

impl Stream for RecvStream {
    type Item = Result<Bytes, StreamError>;

    /// Returns an error once, then ends.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let result = self.poll_recv(cx).map(Result::transpose);
        if let Poll::Ready(Some(Err(_))) = &result {
            self.ended = true;
        }
        result
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let _teardown = Teardown::begin();
        if self.drained {
            // The session may have ended since, and charged the empty ring.
            self.lane().let_go();
        } else {
            self.stop(codes::CANCELLED);
        }
        self.lane().release_half();
        drop_metas(&mut self.metas);
        // Last: it drops a waker, which is foreign code and may panic.
        self.reader.unregister();
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream")
            .field("lane", self.lane())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
