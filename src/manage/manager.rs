//! The application's handle.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::describe::Description;
use super::errors::ManageError;
use super::events::Events;
use super::keeper::Running;
use super::metrics::Metrics;
use super::provider::{Erased, Provider};
use super::settings::{Hook, ManagerBuilder, Settings};
use super::shared::Shared;
use super::state::Over;
use crate::config::ConfigError;
use crate::handle::Session;
use crate::sync::Arc;
use crate::timer::{self, NoTimer};

/// Keeps sessions to a peer; see [the module](super).
///
/// Cheap to clone; clones share one manager. When the last one is dropped the manager closes.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use ringmux::manage::{Dial, ManageError, Manager};
/// use ringmux::{Config, Engine};
///
/// // No listener there.
/// let dial = Dial::new(Engine::auto()?, "tcp://127.0.0.1:1".parse()?, Config::default());
/// let manager = Manager::builder(dial).build()?;
/// tokio::spawn(manager.start()?);
///
/// let call = manager.with_session_within(Duration::from_millis(50), |session| async move {
///     session.open("hello").await
/// });
/// assert!(matches!(call.await, Err(ManageError::NotReady { .. })));
/// let busy = manager.try_session_or_else(|| "come back later");
/// assert_eq!(busy.unwrap_err(), "come back later");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Manager(Arc<Owner>);

/// Shared by the handles; its drop closes the manager.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Manager {
    /// A builder that starts from the defaults.
    pub fn builder(provider: impl Provider) -> ManagerBuilder {
        ManagerBuilder::new(provider)
    }

    pub(super) fn new(provider: Box<dyn Erased>, hook: Option<Hook>, settings: Settings) -> Self {
        let shared = Shared::new(provider, hook, settings);
        Self(Arc::new(Owner(Arc::new(shared))))
    }

    /// The manager's task: spawn it on a tokio runtime with time enabled. Can be taken once.
    ///
    /// # Errors
    /// [`ManageError::AlreadyStarted`].
    pub fn start(&self) -> Result<Running, ManageError> {
        if self.shared().begin() {
            Ok(Running::new(self.shared()))
        } else {
            Err(ManageError::AlreadyStarted)
        }
    }

    // ---- for callers --------------------------------------------------------------------------

    /// Waits until a session is live, and runs `call` with it.
    ///
    /// Of several sessions it uses the least loaded one. A new session releases all waiting callers together. Returns the result
    /// of `call`, which is not run again if the session is lost meanwhile, since only the application knows whether that is
    /// safe.
    ///
    /// # Errors
    /// [`ManageError::ShuttingDown`] or [`ManageError::NoRuntime`], also while waiting; [`ManageError::TooManyWaiting`];
    /// [`ManageError::NotStarted`] if there is no session and no task to make one. `call` has not run then.
    ///
    /// # Cancel safety
    /// Dropping the future while it waits does nothing; afterwards it drops `call`'s future.
    pub async fn with_session<F, Fut>(&self, call: F) -> Result<Fut::Output, ManageError>
    where
        F: FnOnce(Session) -> Fut,
        Fut: Future,
    {
        let (session, _counted) = self.session_for_call(None).await?;
        Ok(call(session).await)
    }

    /// As [`with_session`](Self::with_session), waiting for a session no longer than `limit`, which does
    /// not include the time of `call`.
    ///
    /// # Errors
    /// As [`with_session`](Self::with_session), and [`ManageError::NotReady`], with the error of the last attempt;
    /// [`ManageError::NoRuntime`] outside of a tokio runtime with time enabled, if it has to wait.
    ///
    /// # Cancel safety
    /// As [`with_session`](Self::with_session).
    pub async fn with_session_within<F, Fut>(
        &self,
        limit: Duration,
        call: F,
    ) -> Result<Fut::Output, ManageError>
    where
        F: FnOnce(Session) -> Fut,
        Fut: Future,
    {
        let (session, _counted) = self.session_for_call(Some(limit)).await?;
        Ok(call(session).await)
    }

    /// Waits until a session is live.
    ///
    /// # Errors
    /// As [`with_session`](Self::with_session).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn session(&self) -> Result<Session, ManageError> {
        Ok(self.wait().await?.1)
    }

    /// Waits until a session is live, no longer than `limit`.
    ///
    /// # Errors
    /// As [`with_session_within`](Self::with_session_within).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn session_within(&self, limit: Duration) -> Result<Session, ManageError> {
        Ok(self.wait_within(limit).await?.1)
    }

    /// A live session, or else the error made by `otherwise`; never waits.
    ///
    /// # Errors
    /// The value of `otherwise`.
    pub fn try_session_or_else<E>(&self, otherwise: impl FnOnce() -> E) -> Result<Session, E> {
        match self.shared().look() {
            Some(Ok((_, session))) => {
                self.shared().counters.served.add();
                Ok(session)
            }
            Some(Err(_)) | None => Err(otherwise()),
        }
    }

    async fn wait(&self) -> Result<(usize, Session), ManageError> {
        match self.shared().look() {
            Some(found) => self.count(found),
            None => self.wait_for_one().await,
        }
    }

    async fn wait_within(&self, limit: Duration) -> Result<(usize, Session), ManageError> {
        // Check before making a timer, which costs and needs a runtime.
        if let Some(found) = self.shared().look() {
            return self.count(found);
        }
        let found = timer::within(limit, self.wait_for_one()).await;
        match found.map_err(|NoTimer| ManageError::NoRuntime)? {
            Some(found) => found,
            None => {
                self.shared().counters.refused_late.add();
                Err(ManageError::NotReady {
                    waited: limit,
                    last: self.shared().last_error(),
                })
            }
        }
    }

    async fn wait_for_one(&self) -> Result<(usize, Session), ManageError> {
        let shared = self.shared();
        let _waiting = Waiting::new(shared)?;
        let found = shared.until(|| shared.look()).await;
        self.count(found)
    }

    /// Counts a caller's result.
    fn count<T>(&self, found: Result<T, ManageError>) -> Result<T, ManageError> {
        match found {
            Ok(_) => self.shared().counters.served.add(),
            Err(ManageError::NotStarted) => self.shared().counters.refused_unstarted.add(),
            Err(_) => self.shared().counters.refused_closing.add(),
        }
        found
    }

    /// A session for a call that runs on it until the second is dropped: the first part of [`with_session`](Self::with_session),
    /// and of [`with_session_within`](Self::with_session_within).
    pub(crate) async fn session_for_call(
        &self,
        limit: Option<Duration>,
    ) -> Result<(Session, Call<'_>), ManageError> {
        let (place, session) = match limit {
            Some(limit) => self.wait_within(limit).await?,
            None => self.wait().await?,
        };
        Ok((session, Call::new(self.shared(), place)))
    }

    // ---- for the operator ------------------------------------------------------------------

    /// Installs a session made by the application, in place of the manager's current one if any, and closes that. The hook does
    /// not run for it, and it counts as a successful attempt. Of several places it takes the first one without a session, else
    /// the first.
    ///
    /// # Errors
    /// [`ManageError::ShuttingDown`]; the session has been closed.
    pub fn replace(&self, session: Session) -> Result<(), ManageError> {
        let shared = self.shared();
        shared.counters.attempts.add();
        let place = shared
            .places
            .iter()
            .position(|place| place.ready().is_none());
        let installed = shared.install(place.unwrap_or(0), session, Over::Any);
        installed.map_err(|_| {
            shared.counters.failures.add();
            ManageError::ShuttingDown
        })
    }

    /// Closes the sessions in order, and connects anew without a pause: after the credentials or the
    /// address behind a name have changed.
    ///
    /// Callers wait for the new ones. An attempt under way continues; a pause ends. Repeated calls are not rate-limited.
    pub fn close_and_reconnect(&self) {
        self.shared().close_and_hurry();
    }

    /// Closes the manager and its sessions in order, and returns at once. Idempotent.
    ///
    /// All callers waiting for a session get [`ManageError::ShuttingDown`].
    pub fn close(&self) {
        self.shared().close();
    }

    /// Waits until the manager has been closed and its sessions have closed their sockets, for which [`Running`]
    /// waits 5 s at most.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) {
        let shared = self.shared();
        shared.until(|| shared.is_finished().then_some(())).await;
    }

    /// Waits until the manager has been closed.
    pub(super) async fn closing(&self) {
        let shared = self.shared();
        shared.until(|| shared.is_closing().then_some(())).await;
    }

    /// Whether the manager has been closed. This is final.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shared().is_closing()
    }

    /// Subscribes to events from now on.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        // Subscribe before the check, so that a close in between is reported.
        let events = self.shared().events.subscribe();
        events.unless_ended(self.is_shutting_down())
    }

    /// The manager's counters.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared().counters.snapshot()
    }

    /// The state of the manager and its sessions.
    #[must_use]
    pub fn describe(&self) -> Description {
        Description::of(self.shared())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Manager").field(&self.describe()).finish()
    }
}

/// A waiting caller, counted until dropped.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Result<Self, ManageError> {
        let limit = shared.settings.max_waiting;
        if shared.counters.waiting.add_within(1, limit.into()) {
            // At most one keeper per place, and only during a long pause.
            shared.wanted.wake_all();
            Ok(Self(shared))
        } else {
            shared.counters.refused_waiting.add();
            Err(ManageError::TooManyWaiting { limit })
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.counters.waiting.take(1);
    }
}

/// A call running on the session of a place, counted until dropped.
pub(crate) struct Call<'a>(&'a Shared, usize);

impl<'a> Call<'a> {
    fn new(shared: &'a Shared, place: usize) -> Self {
        shared.places[place].begin_call();
        Self(shared, place)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.places[self.1].end_call();
    }
}

impl ManagerBuilder {
    /// Checks the settings. The manager does nothing until it is [started](Manager::start).
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is out of range, and the range.
    pub fn build(self) -> Result<Manager, ConfigError> {
        self.check()?;
        Ok(Manager::new(self.provider, self.hook, self.settings))
    }
}

/// A weak reference to a manager for metrics: does not keep it alive.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub(crate) struct WeakManager(std::sync::Weak<Shared>);

#[cfg(feature = "metrics")]
impl Manager {
    pub(crate) fn downgrade(&self) -> WeakManager {
        WeakManager(Arc::downgrade(self.shared()))
    }
}

#[cfg(feature = "metrics")]
impl WeakManager {
    /// The manager's description; `None` if it was dropped.
    pub(crate) fn describe(&self) -> Option<Description> {
        let shared = self.0.upgrade()?;
        Some(Description::of(&shared))
    }
}
