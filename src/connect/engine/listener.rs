//! Listeners: accepting connections.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinHandle;
use tracing::Level;

use super::Engine;
use crate::addr::Addr;
use crate::bridge::{Drained, SessionLink};
use crate::config::Config;
use crate::connect::detect::{Detecting, Either, Known, Place, either};
use crate::connect::errors::{EngineError, ListenError};
use crate::connect::half_open::HalfOpen;
use crate::connect::live::Live;
use crate::connect::socket::{Bound, Connected, SocketFile};
use crate::driver::clock;
use crate::error::{Chain, DESCRIPTORS_REMEDY, SessionError, lacks_descriptors};
use crate::handle::Session;
use crate::pace::paced;
use crate::queue::{Owned, SetOnce, WakerSet};
use crate::wire::Role;

/// Connections in the kernel's backlog that a shutdown still accepts, at most.
const STRAGGLERS: usize = 256;
/// A session ends at most this long after its ceiling, unless its engine is stalled: then the shutdown does not wait.
const CEILING_SLACK: Duration = Duration::from_millis(900);
/// Longer graces are shortened to this.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long to pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts sessions. From [`listen`](crate::listen), [`Engine::listen`], [`Engine::listen_shared`] or
/// [`Engine::listen_on`].
///
/// Handshakes run concurrently, so a silent client delays no other; at most
/// [`max_half_open`](crate::ConfigBuilder::max_half_open) connections are in their handshake or wait for
/// [`accept`](Self::accept). Others wait in the kernel's backlog, so a burst of connects loses none; a handshake that keeps
/// them waiting for [`min_half_open_time`](crate::ConfigBuilder::min_half_open_time) is evicted. Dropping it removes the file of a Unix
/// socket and stops listening, which the engine's thread does a moment later; sessions continue.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let addr = listener.local_addr().to_string();
///
/// let error = ringmux::listen(&addr).await.unwrap_err();
/// assert!(error.to_string().contains(&addr), "{error}");
/// # Ok(())
/// # }
/// ```
pub struct Listener {
    local: Addr,
    incoming: Arc<Incoming>,
    task: Owned<JoinHandle<()>>,
}

struct Incoming {
    /// One slot per half-open place, whose permits travel with the sessions.
    queue: ArrayQueue<(Session, OwnedSemaphorePermit)>,
    waiters: WakerSet,
    /// Removed when the listener is dropped, as the process may end before the task reacts; or by the task.
    file: Option<Owned<SocketFile>>,
    /// The shortest requested grace, in milliseconds; `NONE` before a shutdown.
    grace_ms: AtomicU64,
    /// Wakes the accepting task for a shutdown.
    asked: Notify,
    /// The report of the shutdown.
    drained: SetOnce<Drained>,
    /// The accepting task has ended.
    ended: AtomicBool,
}

/// No shutdown was requested.
const NONE: u64 = u64::MAX;

impl Incoming {
    /// The grace of the requested shutdown.
    fn grace(&self) -> Option<Duration> {
        // ORDERING: no other memory is published with it.
        let ms = self.grace_ms.load(Ordering::Relaxed);
        (ms != NONE).then(|| Duration::from_millis(ms))
    }

    fn has_ended(&self) -> bool {
        // ORDERING: pairs with `End`; publishes the report of the shutdown.
        self.ended.load(Ordering::Acquire)
    }

    fn remove_file(&self) {
        if let Some(file) = self.file.as_ref().filter(|file| !file.is_inherited()) {
            file.remove();
        }
    }
}

impl Listener {
    pub(in crate::connect) fn start(
        engine: Engine,
        mut bound: Bound,
        local: Addr,
        config: Config,
    ) -> Self {
        let incoming = Arc::new(Incoming {
            queue: ArrayQueue::new(config.max_half_open() as usize),
            waiters: WakerSet::new(),
            file: bound.take_file().map(Owned::new),
            grace_ms: AtomicU64::new(NONE),
            asked: Notify::new(),
            drained: SetOnce::new(),
            ended: AtomicBool::new(false),
        });
        let runtime = engine.runtime().clone();
        // Made here: the runtime may end before the task has ever run.
        let end = End(Arc::clone(&incoming));
        let accepting = accept_loop(engine, Owned::new(bound), config, end);
        let task = Owned::new(runtime.spawn(accepting));
        Self {
            local,
            incoming,
            task,
        }
    }

    /// The listening address, with the actual port.
    #[must_use]
    pub const fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// Waits for the next session that has completed its handshake.
    ///
    /// # Errors
    /// [`ListenError::ShutDown`] after [`shutdown`](Self::shutdown), [`EngineError::Stopped`] if the
    /// engine's runtime has ended, or belongs to another process. A failed connection is no error
    /// of the listener: it is logged, and accepting continues.
    ///
    /// # Cancel safety
    /// Dropping the future loses no session.
    pub async fn accept(&self) -> Result<Session, ListenError> {
        let incoming = &*self.incoming;
        self.until(|| {
            if self.task.is_inherited() {
                return Some(Err(EngineError::Stopped.into()));
            }
            if incoming.grace().is_some() {
                return Some(Err(ListenError::ShutDown));
            }
            if let Some((session, _permit)) = incoming.queue.pop() {
                return Some(Ok(session));
            }
            incoming
                .has_ended()
                .then(|| Err(EngineError::Stopped.into()))
        })
        .await
    }

    /// Stops listening, removes the file of a Unix socket, and shuts down every session accepted by this
    /// listener, within `grace` for all of them together; returns a report.
    ///
    /// Each session shuts down as with [`Session::shutdown`]; handshakes under way get 1 s
    /// of it, unaccepted sessions end with their streams refused. Connections that the
    /// kernel had accepted and this process had not are drained as well. Returns at the latest
    /// 1 s after the ceiling, independent of the peers. Calling this again waits for the same end; of
    /// several graces the earliest end applies, and none is longer than a day.
    ///
    /// If the engine's runtime has ended there is nothing to shut down, and the report is empty.
    ///
    /// # Cancel safety
    /// The shutdown begins at the first poll and continues if the future is dropped, but not if the
    /// listener is: then the draining sessions still end within the grace, without a report.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
    /// let client = ringmux::connect(listener.local_addr().to_string()).await?;
    /// let server = listener.accept().await?;
    /// let (mut call_send, mut call_recv) = client.open("call").await?;
    /// let handler = server.accept().await?;
    ///
    /// // The handler never ends, so the ceiling ends its stream.
    /// let report = listener.shutdown(Duration::from_millis(100)).await;
    /// assert_eq!((report.finished, report.cancelled, report.forced), (0, 1, 1));
    /// assert!(call_recv.recv().await.is_err());
    /// assert!(listener.accept().await.is_err());
    /// # drop(handler);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self, grace: Duration) -> Drained {
        if self.task.is_inherited() {
            return Drained::default();
        }
        let incoming = &*self.incoming;
        let ms = u64::try_from(grace.min(GRACE_MAX).as_millis()).unwrap_or(NONE - 1);
        // ORDERING: no other memory is published with it.
        incoming.grace_ms.fetch_min(ms, Ordering::Relaxed);
        incoming.asked.notify_one();
        incoming.waiters.wake_all();
        self.until(|| {
            let drained = || incoming.drained.get().copied().unwrap_or_default();
            incoming.has_ended().then(drained)
        })
        .await
    }

    async fn until<T>(&self, check: impl FnMut() -> Option<T>) -> T {
        until(&self.incoming.waiters, check).await
    }
}

/// Waits until `check` returns a value; every change that matters wakes `waiters`.
async fn until<T>(waiters: &WakerSet, mut check: impl FnMut() -> Option<T>) -> T {
    let mut place = Waiting { waiters, key: None };
    poll_fn(|cx| {
        if let Some(found) = check() {
            return Poll::Ready(found);
        }
        let key = place.key.get_or_insert_with(|| waiters.insert());
        waiters.set(key, cx.waker());
        check().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

struct Waiting<'a> {
    waiters: &'a WakerSet,
    key: Option<crate::queue::WaiterKey>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.waiters.remove(key);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.task.is_inherited() {
            return;
        }
        // Before the socket is closed.
        self.incoming.remove_file();
        self.task.abort();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// Wakes all waiters when the loop ends, also by a panic or an abort.
struct End(Arc<Incoming>);

impl Drop for End {
    fn drop(&mut self) {
        // ORDERING: pairs with `has_ended`.
        self.0.ended.store(true, Ordering::Release);
        self.0.waiters.wake_all();
    }
}

async fn accept_loop(engine: Engine, bound: Owned<Bound>, config: Config, end: End) {
    let incoming = &end.0;
    let mut live = Live::new();
    let mut in_hand = None;
    let mut detecting = Detecting::new(&config);
    {
        let mut accepting = pin!(accept_all(
            &engine,
            &bound,
            &config,
            incoming,
            &mut live,
            &mut in_hand,
            &mut detecting,
        ));
        let mut asked = pin!(incoming.asked.notified());
        let mut ended = pin!(host_ended(&engine));
        // The first event of those that concern this task.
        poll_fn(|cx| {
            let done = accepting.as_mut().poll(cx).is_ready()
                || asked.as_mut().poll(cx).is_ready()
                || ended.as_mut().poll(cx).is_ready();
            if done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    let Some(grace) = incoming.grace() else {
        return;
    };
    live.shut_down(grace, clock::now());
    incoming.remove_file();
    // These are never accepted: their streams are refused as not processed.
    while incoming.queue.pop().is_some() {}
    // Held, so that each session is shut down in order and not just dropped.
    let in_hand = in_hand.and_then(|socket| start(&engine, socket, &config, &mut live));
    let mut stragglers = Vec::from_iter(in_hand);
    for known in detecting.hurry().await {
        let config = detecting.config(known.drpc, &config);
        stragglers.extend(start(&engine, known.socket, config, &mut live));
    }
    for _ in 0..STRAGGLERS {
        let mut accepting = pin!(bound.accept());
        let accepted = poll_fn(|cx| match accepting.as_mut().poll(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        });
        match accepted.await {
            Some(Ok(socket)) => stragglers.extend(start(&engine, socket, &config, &mut live)),
            Some(Err(error)) if is_lost(&error) => {}
            Some(Err(_)) | None => break,
        }
    }
    drop(bound);
    let drained = drain(&mut live, incoming).await;
    drop(stragglers);
    let _ = incoming.drained.set(drained);
}

/// Waits until the engine's host has ended; for ever if that end also drops this task.
async fn host_ended(engine: &Engine) {
    match engine.host() {
        Some(host) => until(host.ended(), || host.is_closed().then_some(())).await,
        None => std::future::pending().await,
    }
}

/// Accepts while it is polled. A connection that waits for its place is stored in `in_hand`.
async fn accept_all(
    engine: &Engine,
    bound: &Bound,
    config: &Config,
    incoming: &Arc<Incoming>,
    live: &mut Live,
    in_hand: &mut Option<Connected>,
    detecting: &mut Detecting,
) {
    let mut half_open = HalfOpen::new(config);
    loop {
        let placed = next_place(bound, &mut half_open, in_hand);
        let known = match either(detecting.next(), placed).await {
            Either::One(known) => known,
            Either::Other(permit) => {
                let (Some(permit), Some(socket)) = (permit, in_hand.take()) else {
                    return;
                };
                let since = half_open.now();
                let place = Place { permit, since };
                if detecting.is_on() {
                    half_open.begin_detecting(detecting.begin(socket, place), since);
                    continue;
                }
                let drpc = false;
                Known {
                    socket,
                    drpc,
                    place,
                }
            }
        };
        let config = detecting.config(known.drpc, config);
        let Place { permit, since } = known.place;
        if let Some(link) = receive(engine, known.socket, config, permit, incoming, live) {
            half_open.begin(&link, since);
        }
    }
}

/// Waits for a connection, unless one is in hand already, and then for its place. Dropped before, it loses neither.
async fn next_place(
    bound: &Bound,
    half_open: &mut HalfOpen,
    in_hand: &mut Option<Connected>,
) -> Option<OwnedSemaphorePermit> {
    // First the connection, then its place: no handshake is evicted for a connection that never arrives.
    while in_hand.is_none() {
        match bound.accept().await {
            Ok(socket) => *in_hand = Some(socket),
            Err(error) if is_lost(&error) => {
                paced!(Level::DEBUG, %error, "a connection was lost before it was accepted");
            }
            Err(error) => {
                let remedy = lacks_descriptors(&error).then_some(DESCRIPTORS_REMEDY);
                paced!(Level::WARN, %error, remedy, "cannot accept for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    half_open.place().await
}

/// Waits for the draining sessions, until their ceiling plus `CEILING_SLACK`.
async fn drain(live: &mut Live, incoming: &Incoming) -> Drained {
    let mut asked = pin!(incoming.asked.notified());
    let mut total = Drained::default();
    let mut index = 0;
    while index < live.leaving().len() {
        let Some(until) = live.until() else { break };
        let session = Arc::clone(&live.leaving()[index]);
        let mut closed = pin!(closed(&session));
        let mut late = pin!(tokio::time::sleep_until((until + CEILING_SLACK).into()));
        let again = poll_fn(|cx| {
            if closed.as_mut().poll(cx).is_ready() || late.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            asked.as_mut().poll(cx).map(|()| true)
        });
        if again.await {
            // The ceiling may be earlier now.
            asked.set(incoming.asked.notified());
            if let Some(grace) = incoming.grace() {
                live.shut_down(grace, clock::now());
            }
            continue;
        }
        total.add(session.drain_report());
        index += 1;
    }
    total
}

/// Waits until a session has ended and its socket is closed.
async fn closed(session: &SessionLink) {
    until(&session.state_waiters, || session.finished().map(drop)).await;
}

/// Starts a session and registers it.
fn start(engine: &Engine, socket: Connected, config: &Config, live: &mut Live) -> Option<Session> {
    match engine.start(socket, Role::Acceptor, config) {
        Ok(session) => {
            live.register(session.link(), clock::now());
            Some(session)
        }
        Err(error) => {
            paced!(Level::WARN, error = %Chain(&error), "cannot run an accepted connection");
            None
        }
    }
}

/// Starts a session and queues it when its handshake is done.
fn receive(
    engine: &Engine,
    socket: Connected,
    config: &Config,
    permit: OwnedSemaphorePermit,
    incoming: &Arc<Incoming>,
    live: &mut Live,
) -> Option<Arc<SessionLink>> {
    let (peer, _) = socket.addrs();
    let session = start(engine, socket, config, live)?;
    let link = Arc::clone(session.link());
    let incoming = Arc::clone(incoming);
    engine.runtime().spawn(async move {
        if let Err(error) = session.established().await {
            return no_session(peer.as_ref(), &error);
        }
        // Every queue slot has a permit, so this cannot fail. Also during a shutdown: if the session were dropped before its
        // drain, its streams would be refused without a reason for the peer.
        let _ = incoming.queue.push((session, permit));
        incoming.waiters.wake_all();
    });
    Some(link)
}

/// Logs a connection that failed its handshake, in one line.
fn no_session(peer: Option<&Addr>, error: &SessionError) {
    let peer = peer.map_or_else(|| "unix".to_owned(), Addr::to_string);
    match error {
        SessionError::Protocol(_) | SessionError::LimitExceeded(_) => {
            paced!(Level::WARN, %peer, reason = %Chain(error), "handshake failed");
        }
        _ => paced!(Level::INFO, %peer, reason = %Chain(error), "handshake failed"),
    }
}

/// Whether an `accept` failed because its one connection was lost; the next one may be fine. Other errors, such as a lack of
/// descriptors or permission, recur with the next one: the listening socket stays usable, and trying again at once would spin.
/// For programs that accept sockets themselves; [`Listener`] uses it as well.
///
/// # Examples
/// ```
/// use std::io::{Error, ErrorKind};
///
/// assert!(ringmux::is_lost(&ErrorKind::ConnectionAborted.into()));
/// // No descriptors are left.
/// assert!(!ringmux::is_lost(&Error::from_raw_os_error(24)));
/// ```
#[must_use]
pub fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_the_system_is_waited_for_and_a_lost_connection_is_not() {
        let lost = |errno| is_lost(&io::Error::from_raw_os_error(errno));
        // ECONNABORTED, ENETDOWN, EHOSTUNREACH.
        assert!([103, 100, 113].into_iter().all(lost));
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM.
        assert!(![24, 23, 105, 12, 1].into_iter().any(lost));
    }
}
