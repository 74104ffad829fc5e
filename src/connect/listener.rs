//! Connections that come in.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::engine::Engine;
use super::errors::{EngineError, ListenError};
use super::socket::{Bound, Connected, SocketFile};
use crate::addr::Addr;
use crate::config::Config;
use crate::frame::Role;
use crate::handle::Session;
use crate::queue::WakerSet;

/// Connections that are in their handshake or wait for `accept`, at most.
const BACKLOG_CONNECTIONS: usize = 256;
/// How long to pause when the system is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts sessions. From [`listen`](crate::listen), [`Engine::listen`] or [`Engine::listen_shared`].
///
/// Handshakes go on beside each other, so a silent client delays nobody; at most 256 connections
/// are in their handshake or wait for [`accept`](Self::accept). Dropping it stops listening and
/// removes the file of a Unix socket; sessions go on.
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
    task: JoinHandle<()>,
    /// Here and not with the task: the process may end before the task is told to.
    _file: Option<SocketFile>,
}

struct Incoming {
    /// As large as the backlog, whose permits travel with the sessions.
    queue: ArrayQueue<(Session, OwnedSemaphorePermit)>,
    waiters: WakerSet,
    backlog: Arc<Semaphore>,
}

impl Listener {
    pub(super) fn start(engine: Engine, mut bound: Bound, local: Addr, config: Config) -> Self {
        let incoming = Arc::new(Incoming {
            queue: ArrayQueue::new(BACKLOG_CONNECTIONS),
            waiters: WakerSet::new(),
            backlog: Arc::new(Semaphore::new(BACKLOG_CONNECTIONS)),
        });
        let file = bound.take_file();
        let runtime = engine.runtime().clone();
        let accepting = accept_loop(engine, bound, config, Arc::clone(&incoming));
        let task = runtime.spawn(accepting);
        Self {
            local,
            incoming,
            task,
            _file: file,
        }
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub const fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// Waits for the next session whose handshake is done.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] if the engine's runtime has ended. A failed connection is no error
    /// of the listener: it is logged, and accepting goes on.
    ///
    /// # Cancel safety
    /// Dropping the future loses no session.
    pub async fn accept(&self) -> Result<Session, ListenError> {
        let incoming = &*self.incoming;
        let mut place = Place {
            waiters: &incoming.waiters,
            key: None,
        };
        poll_fn(|cx| {
            for registered in [false, true] {
                if let Some((session, _permit)) = incoming.queue.pop() {
                    return Poll::Ready(Ok(session));
                }
                if self.task.is_finished() {
                    return Poll::Ready(Err(EngineError::Stopped.into()));
                }
                if !registered {
                    let key = place.key.get_or_insert_with(|| incoming.waiters.insert());
                    incoming.waiters.set(key, cx.waker());
                }
            }
            Poll::Pending
        })
        .await
    }
}

struct Place<'a> {
    waiters: &'a WakerSet,
    key: Option<crate::queue::WaiterKey>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.waiters.remove(key);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
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

/// Wakes whoever waits when the loop ends, however it ends.
struct WakeAtEnd(Arc<Incoming>);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        self.0.waiters.wake_all();
    }
}

async fn accept_loop(engine: Engine, bound: Bound, config: Config, incoming: Arc<Incoming>) {
    let at_end = WakeAtEnd(incoming);
    let incoming = &at_end.0;
    loop {
        let Ok(permit) = Arc::clone(&incoming.backlog).acquire_owned().await else {
            return;
        };
        match bound.accept().await {
            Ok(socket) => receive(&engine, socket, &config, permit, incoming),
            Err(error) if is_exhausted(&error) => {
                tracing::warn!(%error, "cannot accept for now");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The connection is gone already; the next one may be fine.
            Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
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
) {
    let (peer, _) = socket.addrs();
    let session = match engine.start(socket, Role::Acceptor, config) {
        Ok(session) => session,
        Err(error) => return tracing::warn!(%error, "cannot run an accepted connection"),
    };
    let incoming = Arc::clone(incoming);
    engine.runtime().spawn(async move {
        if let Err(error) = session.established().await {
            return tracing::info!(?peer, %error, "no session came about");
        }
        // A permit is held for each place in the queue.
        let _ = incoming.queue.push((session, permit));
        incoming.waiters.wake_all();
    });
}

/// Out of descriptors or memory: the listener stays fine, and trying at once would spin.
fn is_exhausted(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOBUFS: i32 = 105;
    const ENOMEM: i32 = 12;
    matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
    )
}
