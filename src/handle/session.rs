//! A connection with many streams, as the application's handle.

pub(super) mod accept;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use self::accept::{Accept, Incoming};
use super::open::Open;
use super::recv::RecvStream;
use super::send::{First, SendStream};
use super::state::SessionState;
use super::wait::Waiter;
use crate::addr::{Addr, Driver, Wire};
use crate::bridge::{Drained, EngineSide, HandleSide, Lane, SessionLink, SessionStats, request};
use crate::error::{NotCarried, OpenError, PingError, SessionError, StreamError};
use crate::sync::Arc;

/// One connection to a peer, over which either side opens streams.
///
/// Cheap to clone; all clones are the same session. When the last clone and the last stream are dropped the session
/// closes in order: when queued messages are sent and the peer has ended its directions, or when there was no progress
/// for [`drain_timeout`](crate::ConfigBuilder::drain_timeout). All methods may be called from any thread and executor.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::{Config, OpenError};
///
/// let (a, b) = tokio::io::duplex(64 * 1024);
/// let (client, connection) = ringmux::client(a, &Config::default());
/// tokio::spawn(connection);
/// let (server, connection) = ringmux::server(b, &Config::default());
/// tokio::spawn(connection);
///
/// let (mut send, _recv) = client.open("greetings").await?;
/// send.send("hello").await?;
/// let (_send, mut recv) = server.accept().await?.expect("the session is open");
/// assert_eq!(recv.opening(), "greetings");
/// assert_eq!(recv.recv().await?.unwrap(), "hello");
///
/// client.close();
/// client.closed().await;
/// assert!(matches!(client.open("late").await, Err(OpenError::Session(_))));
/// # Ok(())
/// # }
/// ```
pub struct Session {
    link: Arc<SessionLink>,
}

impl Session {
    /// Creates the first handle of a link.
    pub(crate) const fn new(link: Arc<SessionLink>) -> Self {
        Self { link }
    }

    pub(crate) const fn link(&self) -> &Arc<SessionLink> {
        &self.link
    }

    /// Opens a stream, and returns its two halves.
    ///
    /// `opening` is sent with the stream and is the first thing that the peer receives, at most 8 KiB; its meaning is up
    /// to the applications. The request is made at once; while the peer has granted streams the future is ready at once
    /// as well, which does not prove that the peer will serve this stream; otherwise it waits until the peer grants
    /// another one.
    ///
    /// Each half acts when it is dropped: see [`SendStream`] and [`RecvStream`].
    ///
    /// # Errors
    /// [`OpenError::BlockTooLong`], [`OpenError::TooManyPending`], or the reason why the session
    /// takes no streams. Nothing has reached the peer in any of them.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the stream and its place in the queue; nothing was sent, unless the peer has granted the
    /// stream meanwhile: then it may see the stream opened and cancelled.
    pub fn open(&self, opening: impl Into<Bytes>) -> Open {
        let opening = opening.into();
        if let Err(error) = self.check_opening(&opening) {
            return Open::known(Err(error));
        }
        if self.link.opens.take() {
            return Open::known(Ok(self.open_granted(opening)));
        }
        if let Err(error) = self.begin_pending_open() {
            return Open::known(Err(error));
        }
        let (handles, side) = self.new_lane(opening);
        side.lane().asked.begin_waiting();
        side.open(&self.link);
        Open::waiting(halves(handles), None)
    }

    /// Opens a stream with its first message, and with `finish` ends the direction behind it: a whole request, for example.
    ///
    /// As [`open`](Self::open) and [`SendStream::send`], and [`SendStream::finish`] if `finish` is set, but at less cost,
    /// and the message waits for no room: the engine is notified of all at once. It is ready at once where `open` is,
    /// except that a message above 64 KiB waits until the peer's limit is known.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`OpenError::MessageTooLong`] for a message that the peer does not accept. The message
    /// has not reached the peer in any of them.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open): dropping the future before it is ready gives the stream up, with the message.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(4096);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// let (_send, mut answer) = client.open_with("double", "21", true).await?;
    ///
    /// let (mut send, mut request) = server.accept().await?.expect("the session is open");
    /// assert_eq!(request.recv().await?.unwrap(), "21");
    /// assert_eq!(request.recv().await?, None);
    /// send.send("42").await?;
    /// send.finish()?;
    /// assert_eq!(answer.recv().await?.unwrap(), "42");
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_with(
        &self,
        opening: impl Into<Bytes>,
        first: impl Into<Bytes>,
        finish: bool,
    ) -> Open {
        let first = First {
            message: first.into(),
            finish,
        };
        let opening = opening.into();
        if let Err(error) = self.check_opening(&opening) {
            return Open::known(Err(error));
        }
        let (len, limit) = (first.message.len(), self.link.peer_max_message());
        let later = len > limit;
        if later && self.link.is_established() {
            return Open::known(Err(OpenError::MessageTooLong { len, limit }));
        }
        let granted = self.link.opens.take();
        let waits = later || !granted;
        if waits && let Err(error) = self.begin_pending_open() {
            if granted {
                self.link.opens.add(1);
            }
            return Open::known(Err(error));
        }
        let (handles, side) = self.new_lane(opening);
        let (mut send, recv) = halves(handles);
        let first = if later {
            Some(first)
        } else {
            // No other thread knows of the lane yet, and an empty queue takes one message of any size.
            send.queue(first);
            None
        };
        if granted {
            side.lane().grant();
        }
        if waits {
            side.lane().asked.begin_waiting();
        }
        side.open_with_queued(&self.link);
        if waits {
            return Open::waiting((send, recv), first);
        }
        self.end_if_too_late(send.lane());
        Open::known(Ok((send, recv)))
    }

    /// Opens a stream if the peer has granted one, without waiting.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`OpenError::NoCredit`] where `open` would wait.
    pub fn try_open(
        &self,
        opening: impl Into<Bytes>,
    ) -> Result<(SendStream, RecvStream), OpenError> {
        let opening = opening.into();
        self.check_opening(&opening)?;
        if self.link.opens.take() {
            Ok(self.open_granted(opening))
        } else if self.link.may_open {
            Err(OpenError::NoCredit)
        } else {
            Err(OpenError::NotThisSide)
        }
    }

    /// Counts one more waiting `open`.
    fn begin_pending_open(&self) -> Result<(), OpenError> {
        if !self.link.may_open {
            return Err(OpenError::NotThisSide);
        }
        if !self.link.opens.begin_pending() {
            let limit = self.link.opens.max_pending;
            return Err(OpenError::TooManyPending { limit });
        }
        Ok(())
    }

    #[inline]
    fn check_opening(&self, opening: &Bytes) -> Result<(), OpenError> {
        if opening.len() <= self.link.max_opening && self.link.refusal().is_none() {
            return Ok(());
        }
        self.refuse_opening(opening)
    }

    #[cold]
    #[inline(never)]
    fn refuse_opening(&self, opening: &Bytes) -> Result<(), OpenError> {
        let (len, limit) = (opening.len(), self.link.max_opening);
        if len > limit {
            return Err(OpenError::BlockTooLong { len, limit });
        }
        match self.link.refusal() {
            Some(reason) => Err(OpenError::Session(reason.clone())),
            None => Ok(()),
        }
    }

    fn new_lane(&self, opening: Bytes) -> (HandleSide, EngineSide) {
        Lane::pair(&self.link, opening, self.link.credit_mark)
    }

    fn open_granted(&self, opening: Bytes) -> (SendStream, RecvStream) {
        let (handles, side) = self.new_lane(opening);
        side.lane().grant();
        side.open(&self.link);
        self.end_if_too_late(handles.lane());
        halves(handles)
    }

    /// The engine may have ended without seeing the lane.
    #[inline]
    fn end_if_too_late(&self, lane: &Lane) {
        if let Some(error) = self.link.end() {
            end_unprocessed(lane, error);
        }
    }

    /// Waits for the next stream that the peer opens, and returns its two halves; `None` is the orderly end of the session.
    ///
    /// Several tasks may wait; each stream goes to one of them. Streams that arrived before the
    /// session ended are still returned. The end is orderly if either side closed the session, shut it down, or dropped its
    /// last handle: see [`SessionError::is_orderly`].
    ///
    /// # Errors
    /// Every other reason for the end of the session.
    ///
    /// # Cancel safety
    /// Dropping the future loses no stream.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(4096);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// let (mut send, _recv) = client.open("log").await?;
    /// send.finish()?;
    /// send.written().await?;
    /// client.close();
    ///
    /// let mut served = 0;
    /// while let Some((send, recv)) = server.accept().await? {
    ///     served += 1;
    /// #   drop((send, recv));
    /// }
    /// assert_eq!(served, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept(&self) -> Accept<'_> {
        Accept::new(&self.link)
    }

    /// The streams that the peer opens, as a [`Stream`](futures_core::Stream) that can be stored and polled.
    #[must_use]
    pub fn incoming(&self) -> Incoming {
        Incoming::new(self.clone())
    }

    /// Waits until the peer has completed the handshake.
    ///
    /// Sessions from `connect` and the listener's `accept` have completed it. Streams may be opened before.
    ///
    /// # Errors
    /// The reason for the session's earlier end.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn established(&self) -> Result<(), SessionError> {
        let check = || {
            if self.link.is_established() && !self.link.is_inherited() {
                return Some(Ok(()));
            }
            self.link.end().map(|error| Err(error.clone()))
        };
        Waiter::new(&self.link.state_waiters).until(check).await
    }

    /// Measures the round trip to the peer's engine and back.
    ///
    /// One PING is under way at a time; concurrent callers share its answer. A peer that is silent
    /// ends the session, see [`keepalive_timeout`](crate::ConfigBuilder::keepalive_timeout); one that keeps
    /// sending and never answers keeps this waiting, so bound it with a timeout where that matters.
    ///
    /// # Errors
    /// The reason for the session's end; [`PingError::NotCarried`], at once, if the session's wire has no PING.
    ///
    /// # Cancel safety
    /// Safe; the PING stays under way.
    pub async fn ping(&self) -> Result<Duration, PingError> {
        if !self.link.has_ping {
            return Err(NotCarried::Ping.into());
        }
        let before = self.link.pings.answered();
        self.link.request(request::PING);
        let check = || {
            if self.link.pings.answered() > before {
                return Some(Ok(Duration::from_nanos(self.link.pings.rtt_ns())));
            }
            self.link.end().map(|error| Err(error.clone().into()))
        };
        Waiter::new(&self.link.pings.waiters).until(check).await
    }

    /// The session's counters now.
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
    /// client.ping().await?;
    /// let stats = client.stats();
    /// assert_eq!((stats.requests, stats.opened), (1, 0));
    /// // Each request woke the session, or found it awake.
    /// let asked = stats.activations + stats.requests;
    /// assert_eq!(stats.wakes_issued + stats.wakes_suppressed, asked);
    /// # drop(server);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.link.stats()
    }

    /// Begins to close the session in order and returns at once, before queued messages are sent: a process, or a runtime
    /// that runs the session, waits for [`closed`](Self::closed) before it ends. Calling it again does nothing.
    ///
    /// No stream can be opened any more. Messages queued before are sent while the peer takes them,
    /// for at most [`close_linger`](crate::ConfigBuilder::close_linger); then a GOAWAY is sent and
    /// the connection closes, within 600 ms if the peer takes nothing. Streams that have not ended by then end with
    /// [`SessionError::Closed`] here and [`SessionError::PeerClosed`] there.
    pub fn close(&self) {
        self.link.refuse_opens(SessionError::Closed);
        self.link.request(request::CLOSE);
        // Tasks in `draining` are woken here: the engine wakes them only at the end.
        self.link.state_waiters.wake_all();
    }

    /// The session's state, and the reason if it is not open any more.
    #[must_use]
    pub fn state(&self) -> SessionState {
        SessionState::of(&self.link)
    }

    /// Waits until the session's state is one that `reached` accepts. States only advance, and some may be skipped, so ask
    /// for "this one or a later one": see [`SessionState`].
    ///
    /// [`established`](Self::established), [`draining`](Self::draining) and [`closed`](Self::closed) are short forms of
    /// the waits that most applications need.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for(&self, mut reached: impl FnMut(&SessionState) -> bool) -> SessionState {
        Waiter::new(&self.link.state_waiters)
            .until(|| Some(self.state()).filter(|state| reached(state)))
            .await
    }

    /// Ends the session when its streams have ended, within `grace`, and returns a report on the streams.
    ///
    /// No stream can be opened here any more, and a GOAWAY asks the peer to open none. Streams that it opened before
    /// it received the GOAWAY are still returned by [`accept`](Self::accept) until it has acknowledged it (one
    /// round trip, 5 s at most); streams not accepted by then are refused, and the peer's halves end
    /// with [`StreamError::NotProcessed`], which is safe to try again elsewhere. Accepted streams
    /// run to their end. At the ceiling, `grace` after the call, the remaining ones end
    /// with [`SessionError::Closed`] here and [`SessionError::PeerClosed`] there. The connection is
    /// closed at the latest 1 s after the ceiling, whatever the peer does.
    ///
    /// A handshake under way gets 1 s. Calling this again, from any handle, waits for the
    /// same end; of several graces the one that ends first holds, and none is more than a day.
    /// After [`close`](Self::close) there is nothing left to do, and the report is empty.
    ///
    /// # Cancel safety
    /// The shutdown begins at the first poll and continues if the future is dropped.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(4096);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// use std::time::Duration;
    ///
    /// let (mut call, mut answer) = client.open("a call").await?;
    /// let (mut send, _recv) = server.accept().await?.expect("the session is open");
    /// let handler = async {
    ///     server.draining().await; // a handler that would run for ever otherwise
    ///     send.finish()
    /// };
    /// call.finish()?;
    /// let (report, finished) = tokio::join!(server.shutdown(Duration::from_secs(5)), handler);
    /// finished?;
    /// assert_eq!((report.finished, report.cancelled), (1, 0));
    /// assert_eq!(answer.recv().await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self, grace: Duration) -> Drained {
        self.link.shut_down(grace);
        self.closed().await;
        self.link.drain.report()
    }

    /// Waits until no stream can be opened any more, and returns the reason: a side shuts down or closes, or the session has
    /// ended. The short form of [`wait_for`](Self::wait_for).
    ///
    /// For handlers without an end of their own, and for callers that open streams and
    /// can switch to another session.
    ///
    /// # Cancel safety
    /// Safe.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(4096);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # client.established().await?;
    /// assert!(client.state().is_open());
    /// server.close();
    /// assert!(matches!(client.draining().await, ringmux::SessionError::PeerClosed { .. }));
    /// assert!(client.state().reason().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn draining(&self) -> SessionError {
        Waiter::new(&self.link.state_waiters)
            .until(|| self.link.refusal().cloned())
            .await
    }

    /// Waits until the session has ended and its connection is closed, and returns the reason.
    ///
    /// All that [`close`](Self::close) had to send is sent by then, so a process may exit; unless the peer was too slow
    /// to take it within [`close_linger`](crate::ConfigBuilder::close_linger), which the error does not show. To wait for
    /// one stream alone, see [`SendStream::written`](crate::SendStream::written). Streams and `accept` end earlier. After
    /// `close` it takes [`close_linger`](crate::ConfigBuilder::close_linger) and 600 ms at most, also with a peer that
    /// takes neither queued messages nor the final GOAWAY, and does not close its side.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) -> SessionError {
        Waiter::new(&self.link.state_waiters)
            .until(|| self.link.finished().cloned())
            .await
    }

    /// The peer's address, from the socket; `None` for transports without an address.
    #[must_use]
    pub fn peer_addr(&self) -> Option<&Addr> {
        self.link.info().peer.as_ref()
    }

    /// The local address, from the socket; `None` for transports without an address.
    #[must_use]
    pub fn local_addr(&self) -> Option<&Addr> {
        self.link.info().local.as_ref()
    }

    /// The number of the session in this process, from 1: the field `id` of its [span](Self::span).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.link.id
    }

    /// The session's [`tracing`] span, with its `id`, `peer`, `role` and `driver`: for an application's log lines about
    /// it. Level info, target `ringmux::session`; its end is an event in it, with the reason.
    ///
    /// Disabled, which costs nothing, if no subscriber was interested when the session began.
    ///
    /// # Examples
    /// ```
    /// use ringmux::Session;
    /// use tracing::Instrument;
    ///
    /// fn serve(session: Session) {
    ///     let span = session.span().clone();
    ///     tokio::spawn(async move {
    ///         while let Ok(Some((send, _recv))) = session.accept().await {
    ///             tracing::info!(opening = ?send.opening(), "a call"); // names the session
    ///         }
    ///     }.instrument(span));
    /// }
    /// # let _ = serve;
    /// ```
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        &self.link.span
    }

    /// The driver that runs the session.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.link.info().driver
    }

    /// What the session speaks on its connection.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.link.info().wire
    }
}

#[cold]
#[inline(never)]
fn end_unprocessed(lane: &Lane, error: &SessionError) {
    lane.end_both(&StreamError::NotProcessed(error.clone()));
}

/// The application's two halves of a stream.
pub(super) fn halves(side: HandleSide) -> (SendStream, RecvStream) {
    let (writer, reader) = side.split();
    (SendStream::new(writer), RecvStream::new(reader))
}

impl Clone for Session {
    fn clone(&self) -> Self {
        self.link.add_handle();
        Self {
            link: Arc::clone(&self.link),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.release_handle();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer_addr())
            .field("end", &self.link.end())
            .finish_non_exhaustive()
    }
}
