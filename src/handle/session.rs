//! A connection with many streams, as an application sees it.

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::stream::Stream;
use super::wait::Wait;
use crate::addr::{Addr, Driver};
use crate::error::{OpenError, SessionError, StreamError};
use crate::frame::MAX_OPEN_BLOCK;
use crate::link::{
    Drained, EngineSide, HandleSide, Lane, OpenState, SendEnd, SessionLink, SessionStats, request,
};
use crate::sync::Arc;

/// One connection to a peer, over which either side opens streams.
///
/// Cheap to clone; all clones are the same session. When the last clone and the last stream are
/// dropped the session closes in order: when what was queued is sent and the peer has ended its directions, or when neither
/// has moved for [`drain_timeout`](crate::ConfigBuilder::drain_timeout). All methods may be called from any thread and executor.
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
/// let mut stream = client.open("greetings").await?;
/// stream.send("hello").await?;
/// let mut accepted = server.accept().await?;
/// assert_eq!(accepted.opening(), "greetings");
/// assert_eq!(accepted.recv().await?.unwrap(), "hello");
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
    /// Takes the first handle of a link.
    pub(crate) const fn new(link: Arc<SessionLink>) -> Self {
        Self { link }
    }

    pub(crate) const fn link(&self) -> &Arc<SessionLink> {
        &self.link
    }

    /// Opens a stream.
    ///
    /// `opening` travels with the stream and is what the peer sees first, at most 8 KiB; what it
    /// means is up to the applications. Returns at once while the peer has granted streams, which
    /// does not tell that the peer will serve this one; otherwise waits until it grants another.
    ///
    /// # Errors
    /// [`OpenError::BlockTooLong`], [`OpenError::TooManyPending`], or the reason why the session
    /// takes no streams. Nothing has reached the peer in any of them.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue back; nothing was sent, unless the peer has granted the stream
    /// meanwhile: then it may see the stream opened and cancelled.
    pub async fn open(&self, opening: impl Into<Bytes>) -> Result<Stream, OpenError> {
        let opening = self.check_opening(opening.into())?;
        if self.link.take_open_credit() {
            return Ok(self.open_granted(opening));
        }
        if !self.link.begin_pending_open() {
            return Err(OpenError::TooManyPending {
                limit: self.link.max_pending_opens,
            });
        }
        let (handles, side) = self.new_lane(opening);
        side.open(&self.link);
        PendingOpen {
            stream: Stream::new(handles),
            _place: PendingPlace(&self.link),
        }
        .wait()
        .await
    }

    /// Opens a stream if the peer has granted one, without waiting.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`OpenError::NoCredit`] where `open` would wait.
    pub fn try_open(&self, opening: impl Into<Bytes>) -> Result<Stream, OpenError> {
        let opening = self.check_opening(opening.into())?;
        if self.link.take_open_credit() {
            Ok(self.open_granted(opening))
        } else {
            Err(OpenError::NoCredit)
        }
    }

    fn check_opening(&self, opening: Bytes) -> Result<Bytes, OpenError> {
        let (len, limit) = (opening.len(), MAX_OPEN_BLOCK as usize);
        if len > limit {
            return Err(OpenError::BlockTooLong { len, limit });
        }
        match self.link.refusal() {
            Some(reason) => Err(OpenError::Session(reason.clone())),
            None => Ok(opening),
        }
    }

    fn new_lane(&self, opening: Bytes) -> (HandleSide, EngineSide) {
        Lane::pair(&self.link, opening, self.link.credit_mark)
    }

    fn open_granted(&self, opening: Bytes) -> Stream {
        let (handles, side) = self.new_lane(opening);
        side.lane().grant();
        side.open(&self.link);
        if let Some(error) = self.link.end() {
            // The engine may have ended without seeing the lane.
            let error = StreamError::NotProcessed(error.clone());
            handles.lane().end_both(&error);
        }
        Stream::new(handles)
    }

    /// Waits for the next stream that the peer opens.
    ///
    /// Several tasks may wait; each stream goes to one of them. Streams that arrived before the
    /// session ended are still handed out.
    ///
    /// # Errors
    /// Why the session ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses no stream.
    pub async fn accept(&self) -> Result<Stream, SessionError> {
        let mut wait = Wait::new(&self.link.accept_waiters);
        poll_fn(move |cx| wait.poll(cx, || self.next_accepted())).await
    }

    fn next_accepted(&self) -> Option<Result<Stream, SessionError>> {
        if self.link.is_inherited() {
            return self.link.end().map(|end| Err(end.clone()));
        }
        if let Some(lane) = self.link.pop_accept() {
            return Some(Ok(Stream::accepted(lane)));
        }
        let end = self.link.end_here()?;
        // What was queued before the end was set is visible now.
        let last = self.link.pop_accept().map(Stream::accepted);
        Some(last.ok_or_else(|| end.clone()))
    }

    /// Waits until the peer has completed the handshake.
    ///
    /// `connect` and the listener's `accept` have waited already. Streams may be opened before.
    ///
    /// # Errors
    /// Why the session ended before.
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
        Wait::new(&self.link.state_waiters).until(check).await
    }

    /// Measures the round trip to the peer's engine and back.
    ///
    /// One PING is under way at a time; callers that come meanwhile share its answer. A peer that
    /// falls silent ends the session, see [`keepalive_timeout`](crate::ConfigBuilder::keepalive_timeout); one that goes
    /// on sending and never answers keeps this waiting, so bound it with a timeout where that matters.
    ///
    /// # Errors
    /// Why the session ended.
    ///
    /// # Cancel safety
    /// Safe; the PING goes on.
    pub async fn ping(&self) -> Result<Duration, SessionError> {
        let before = self.link.pongs();
        self.link.request(request::PING);
        let check = || {
            if self.link.pongs() > before {
                return Some(Ok(Duration::from_nanos(self.link.rtt_ns())));
            }
            self.link.end().map(|error| Err(error.clone()))
        };
        Wait::new(&self.link.ping_waiters).until(check).await
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
    /// // Whatever was asked for woke the session, or found it awake.
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

    /// Begins to close the session in order and returns at once, before what was queued has left: a process, or a runtime
    /// that runs the session, waits for [`closed`](Self::closed) before it ends. Calling it again does nothing.
    ///
    /// No stream can be opened any more. What was queued before is sent while the peer takes it,
    /// for at most [`close_linger`](crate::ConfigBuilder::close_linger); then the peer is told and
    /// the connection closes, within 600 ms if the peer takes nothing. Streams that have not ended by then end with
    /// [`SessionError::Closed`] here and [`SessionError::PeerClosed`] there.
    pub fn close(&self) {
        self.link.refuse_opens(SessionError::Closed);
        self.link.request(request::CLOSE);
        // Whoever waits in `draining` learns it here: the engine wakes them only at the end.
        self.link.state_waiters.wake_all();
    }

    /// Why no stream can be opened any more; `None` while they can.
    ///
    /// Set by [`close`](Self::close), by the peer's leave, and by the end of the session, whichever
    /// comes first. Streams that exist may go on after the first two.
    #[must_use]
    pub fn refusal(&self) -> Option<SessionError> {
        self.link.refusal().cloned()
    }

    /// Ends the session when its streams have ended, within `grace`, and tells what came of them.
    ///
    /// No stream can be opened here any more, and the peer is told to open none. What it opened before
    /// it heard is still given to [`accept`](Self::accept) until it has said that it knows (one
    /// round trip, 5 s at most); what nobody has taken by then is refused, and the peer's streams end
    /// with [`StreamError::NotProcessed`], which is safe to try again elsewhere. Streams that were
    /// taken go on to their end. At the ceiling, `grace` after the call, those that are left end
    /// with [`SessionError::Closed`] here and [`SessionError::PeerClosed`] there. The connection is
    /// closed at the latest 1 s after the ceiling, whatever the peer does.
    ///
    /// A handshake that is under way gets 1 s. Calling this again, from any handle, waits for the
    /// same end; of several graces the one that ends first holds, and none is more than a day.
    /// After [`close`](Self::close) there is nothing left to do, and the report is empty.
    ///
    /// # Cancel safety
    /// The shutdown begins at the first poll and goes on if the future is dropped.
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
    /// let mut call = client.open("a call").await?;
    /// let mut taken = server.accept().await?;
    /// let handler = async {
    ///     server.draining().await; // as a handler that would go on for ever
    ///     taken.finish()
    /// };
    /// call.finish()?;
    /// let (report, finished) = tokio::join!(server.shutdown(Duration::from_secs(5)), handler);
    /// finished?;
    /// assert_eq!((report.finished, report.cancelled), (1, 0));
    /// assert_eq!(call.recv().await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self, grace: Duration) -> Drained {
        self.link.shut_down(grace);
        self.closed().await;
        self.link.drain.report()
    }

    /// Waits until no stream can be opened any more, and tells why: a side shuts down or closes, or the session has
    /// ended. See [`refusal`](Self::refusal).
    ///
    /// For handlers that go on for as long as nobody minds, and for those who open streams and
    /// would rather do so on another session.
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
    /// assert!(!client.is_draining());
    /// server.close();
    /// assert!(matches!(client.draining().await, ringmux::SessionError::PeerClosed { .. }));
    /// assert!(client.is_draining());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn draining(&self) -> SessionError {
        Wait::new(&self.link.state_waiters)
            .until(|| self.link.refusal().cloned())
            .await
    }

    /// Whether [`draining`](Self::draining) would return at once.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.link.refusal().is_some()
    }

    /// Waits until the session has ended and its connection is closed, and tells why.
    ///
    /// What [`close`](Self::close) had to send has left by then, so a process may exit; unless the peer was too slow to take
    /// it within [`close_linger`](crate::ConfigBuilder::close_linger), which the error does not tell. To wait for one stream alone, see
    /// [`SendStream::written`](crate::SendStream::written). Streams and
    /// `accept` learn of the end earlier. After `close` it takes
    /// [`close_linger`](crate::ConfigBuilder::close_linger) and 600 ms at most, also with a peer that takes neither what
    /// was queued nor the last word, and does not close its side.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) -> SessionError {
        Wait::new(&self.link.state_waiters)
            .until(|| self.link.finished().cloned())
            .await
    }

    /// Why the session has ended; `None` while it has not.
    #[must_use]
    pub fn end(&self) -> Option<SessionError> {
        self.link.end().cloned()
    }

    /// Where the peer is, as the socket says; `None` for transports without an address.
    #[must_use]
    pub fn peer_addr(&self) -> Option<&Addr> {
        self.link.info().peer.as_ref()
    }

    /// Where this side is, as the socket says; `None` for transports without an address.
    #[must_use]
    pub fn local_addr(&self) -> Option<&Addr> {
        self.link.info().local.as_ref()
    }

    /// Counts the sessions of this process, from 1: the field `id` of its [span](Self::span).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.link.id
    }

    /// The session's [`tracing`] span, with its `id`, `peer`, `role` and `driver`: for what an application logs about
    /// it. Level info, target `ringmux::session`; its end is told in it, with the reason.
    ///
    /// Disabled, which costs nothing, if no subscriber wanted it when the session began.
    ///
    /// # Examples
    /// ```
    /// use ringmux::Session;
    /// use tracing::Instrument;
    ///
    /// fn serve(session: Session) {
    ///     let span = session.span().clone();
    ///     tokio::spawn(async move {
    ///         while let Ok(stream) = session.accept().await {
    ///             tracing::info!(opening = ?stream.opening(), "a call"); // names the session
    ///         }
    ///     }.instrument(span));
    /// }
    /// # let _ = serve;
    /// ```
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        &self.link.span
    }

    /// Which driver runs the session.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.link.info().driver
    }
}

/// An `open` that waits for the peer's permission. Dropped before, it cancels the stream, as any stream that is dropped.
struct PendingOpen<'a> {
    stream: Stream,
    _place: PendingPlace<'a>,
}

impl PendingOpen<'_> {
    async fn wait(mut self) -> Result<Stream, OpenError> {
        poll_fn(|cx| {
            if let Some(result) = self.outcome() {
                return Poll::Ready(result);
            }
            self.stream.register_sender(cx);
            self.outcome().map_or(Poll::Pending, Poll::Ready)
        })
        .await?;
        Ok(self.stream)
    }

    fn outcome(&self) -> Option<Result<(), OpenError>> {
        let lane = self.stream.lane();
        // First: once permitted the peer may have seen the stream, and ended it by now. That is for
        // whoever holds the stream to find.
        if lane.open_state() == OpenState::Granted {
            return Some(Ok(()));
        }
        if let Some(SendEnd::Error(error)) = lane.send_end() {
            let reason = match error {
                StreamError::NotProcessed(reason) | StreamError::Session(reason) => reason.clone(),
                _ => SessionError::Closed,
            };
            return Some(Err(OpenError::Session(reason)));
        }
        let end = lane.session().end()?;
        Some(Err(OpenError::Session(end.clone())))
    }
}

/// One of the places for an `open` that waits.
struct PendingPlace<'a>(&'a SessionLink);

impl Drop for PendingPlace<'_> {
    fn drop(&mut self) {
        self.0.end_pending_open();
    }
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
