//! The loop of one place: get a session, watch it, repeat.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime;
use tokio::time::{sleep, timeout};
use tracing::Level;

use super::backoff::{Backoff, seed};
use super::errors::{ManageError, ProvideError};
use super::events::Event;
use super::panics::{caught, dispose};
use super::shared::Shared;
use super::state::{Doing, Down, Live, Over, Place, State};
use crate::error::{Chain, PingError, SessionError};
use crate::handle::Session;
use crate::pace::paced;
use crate::sync::Arc;
use crate::timer::{self, NoTimer};

/// The longest pause with a provider that waits for its peer. The peer backs off by itself then: a long pause here would
/// leave it without an answer.
pub const WAITING_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a session may take to close its socket when the manager closes. A session's own limit, its
/// `close_linger`, comes first unless it is set higher.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The task of a manager: spawn it on a tokio runtime with time enabled. From [`Manager::start`](super::Manager::start).
///
/// Completes when the manager has been closed and its sessions have closed their sockets, for which it
/// waits 5 s at most. Dropping it closes the manager and fails all waiting callers. Polled on another runtime than before it goes
/// on there: its sessions stay, and attempts and hooks under way begin anew.
///
/// # Errors
/// [`ManageError::NoRuntime`] where there is no tokio runtime with time enabled, or one that is being shut down. The manager is
/// closed then, and its callers get this error too.
#[must_use = "a manager does nothing unless this is spawned or awaited"]
pub struct Running {
    keepers: Vec<Pin<Box<Keeping>>>,
    shared: Arc<Shared>,
    /// The runtime that polled it last, which has time enabled.
    runtime: Option<runtime::Id>,
}

type Keeping = dyn Future<Output = Result<(), NoTimer>> + Send;

impl Running {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let keep = |place| -> Pin<Box<Keeping>> {
            Box::pin(Keeper::new(Arc::clone(shared), place).keep())
        };
        Self {
            keepers: (0..shared.places.len()).map(keep).collect(),
            shared: Arc::clone(shared),
            runtime: None,
        }
    }
}

impl Future for Running {
    type Output = Result<(), ManageError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let here = timer::runtime();
        let mut has_time = here.is_some() && (here == self.runtime || timer::has_time());
        self.runtime = here;
        if has_time {
            // At most 64 futures, woken rarely, so polling all is fine.
            self.keepers
                .retain_mut(|keeper| match keeper.as_mut().poll(cx) {
                    Poll::Pending => true,
                    Poll::Ready(kept) => {
                        has_time &= kept.is_ok();
                        false
                    }
                });
        }
        if !has_time {
            self.keepers.clear();
            self.shared.strand();
            return Poll::Ready(Err(ManageError::NoRuntime));
        }
        if !self.keepers.is_empty() {
            return Poll::Pending;
        }
        self.shared.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.finish();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("provider", &self.shared.provider)
            .finish_non_exhaustive()
    }
}

struct Keeper {
    shared: Arc<Shared>,
    place: usize,
    backoff: Backoff,
    /// Pauses while a caller waits.
    wanted: Backoff,
    /// Failures and losses since the last proven session.
    failures: u32,
    /// Why the last attempt failed; `None` after a session.
    last: Option<Arc<ProvideError>>,
    /// The `hurries` of `shared` already acted on.
    hurries: u64,
}

/// The hook of a newer session: the peer has connected again before the old session ended.
type Preparing = Pin<Box<dyn Future<Output = Result<Session, ProvideError>> + Send>>;

/// Events of a watched session.
enum Seen {
    /// It takes no more streams.
    Refused(SessionError),
    /// It was removed or replaced by another thread.
    Gone,
    /// It has lived for `proven_after` and answered a PING.
    Proven,
    /// The peer has connected again.
    Another(Result<Session, ProvideError>),
}

/// What the keeper does after an event of a watched session.
enum After {
    /// Goes on watching: the session is proven.
    Proven,
    /// Goes on watching: no other session takes over.
    StaysAlone,
    /// The place has lost the session, or has another.
    Done,
}

impl Keeper {
    fn new(shared: Arc<Shared>, place: usize) -> Self {
        let settings = &shared.settings;
        let longest = if shared.provider.waits_for_peer() {
            settings.longest_pause.min(WAITING_PAUSE_MAX)
        } else {
            settings.longest_pause
        };
        let seed = settings.seed.map_or_else(seed, |seed| seed + place as u64);
        Self {
            backoff: Backoff::new(settings.first_pause, longest, seed),
            wanted: Backoff::new(settings.wanted_pause, settings.wanted_pause, !seed),
            place,
            failures: 0,
            last: None,
            hurries: shared.hurries(),
            shared,
        }
    }

    async fn keep(mut self) -> Result<(), NoTimer> {
        let mut begun = None;
        loop {
            let this = &mut self;
            match unmoved(caught(move || this.round(begun))).await {
                None => begun = None,
                Some(Ok(ControlFlow::Continue(preparing))) => begun = preparing,
                Some(Ok(ControlFlow::Break(()))) => return Ok(()),
                Some(Err(text)) => {
                    begun = None;
                    self.panicked(text);
                    // Rate limit: the place may have a session, and no pause before its next round.
                    let shared = &self.shared;
                    let closing = shared.until(|| shared.is_closing().then_some(()));
                    let paused = unless(closing, timer::pause(shared.settings.first_pause));
                    paused.await.unwrap_or(Ok(()))?;
                }
            }
        }
    }

    /// What the state of the place asks for; the hook of a newer session, if one has begun.
    async fn round(&mut self, begun: Option<Preparing>) -> ControlFlow<(), Option<Preparing>> {
        let state = self.cell().state();
        match &*state {
            State::Down(_) => {
                drop(state);
                self.bring(begun).await;
                ControlFlow::Continue(None)
            }
            State::Live(live) => {
                let live = live.clone();
                drop(state);
                ControlFlow::Continue(self.watch(live, begun).await)
            }
            State::Closed(session) => {
                if let Some(session) = session {
                    // A peer that does not close in time is not waited for.
                    let _ = timeout(LEAVE_TIMEOUT, session.closed()).await;
                }
                ControlFlow::Break(())
            }
        }
    }

    fn cell(&self) -> &Place {
        &self.shared.places[self.place]
    }

    fn note(&self, doing: Doing) {
        self.cell().note(&Down {
            doing,
            failures: self.failures,
            last: self.last.clone(),
        });
    }

    // ---- without a session --------------------------------------------------------------------

    /// One attempt: the one begun, or another after the pause that is due. Ends early if a session is installed by another
    /// thread.
    async fn bring(&mut self, begun: Option<Preparing>) {
        let hurried = self.hurry();
        if self.failures > 0 && !hurried && begun.is_none() {
            self.pause().await;
            if !self.cell().is_down() {
                return;
            }
        }
        self.note(Doing::Connecting);
        let attempt = async {
            match begun {
                Some(preparing) => preparing.await,
                None => attempt(&self.shared).await,
            }
        };
        let disturbed = self.shared.until(|| (!self.cell().is_down()).then_some(()));
        let Some(outcome) = unless(disturbed, attempt).await else {
            return;
        };
        match outcome {
            Ok(session) => {
                dispose(self.last.take());
                // Fails if the manager is closing, or another thread has installed one: the loop looks next.
                let _ = self.shared.install(self.place, session, Over::None);
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: ProvideError) {
        self.count(&error);
        self.failures = self.failures.saturating_add(1);
        paced!(Level::DEBUG, provider = ?self.shared.provider, error = %Chain(&error), "an attempt to get a session failed");
        dispose(self.last.replace(Arc::new(error)));
    }

    fn count(&self, error: &ProvideError) {
        let counters = &self.shared.counters;
        counters.failures.add();
        if error.is_of_the_hook() {
            counters.hook_failures.add();
        }
        if error.is_panic() {
            counters.panics.add();
        }
    }

    /// Code of the application's panicked that is neither its provider nor its hook, such as the text of an error.
    fn panicked(&mut self, text: String) {
        self.shared.counters.panics.add();
        self.failures = self.failures.saturating_add(1);
        let error = ProvideError::Panicked(text);
        dispose(self.last.replace(Arc::new(error)));
    }

    /// Whether an attempt without a pause was requested; true once per request.
    fn hurry(&mut self) -> bool {
        let now = self.shared.hurries();
        std::mem::replace(&mut self.hurries, now) != now
    }

    async fn pause(&mut self) {
        let pause = self.backoff.next();
        let wanted = self.wanted.next();
        self.note(Doing::Pausing(pause));
        self.shared.events.tell(Event::Reconnecting {
            place: self.place,
            failures: self.failures,
            pause,
            error: self.last.clone(),
        });
        let seen = self.hurries;
        let disturbed = self
            .shared
            .until(|| (!self.cell().is_down() || self.shared.hurries() != seen).then_some(()));
        let wanted = async {
            sleep(wanted).await;
            self.shared.until_wanted().await;
        };
        let _ = unless(disturbed, unless(wanted, sleep(pause))).await;
        self.hurry();
    }

    // ---- with a session -----------------------------------------------------------------------

    /// Watches a session until the place loses it; returns the newer session's hook, if one has begun.
    async fn watch(&mut self, live: Live, mut begun: Option<Preparing>) -> Option<Preparing> {
        // With one place only: with several, a new session goes to an empty place.
        let mut takes_over = self.shared.provider.waits_for_peer() && self.shared.places.len() == 1;
        let shared = Arc::clone(&self.shared);
        let cell = &shared.places[self.place];
        let proven_after = shared.settings.proven_after;
        let mut proof = pin!(async {
            sleep(proven_after).await;
            match live.session.ping().await {
                // A wire without a PING: that the session is still there is all that can be known.
                Ok(_) | Err(PingError::NotCarried(_)) => {}
                // `draining` reports it.
                Err(_) => pending().await,
            }
        });
        let mut proven = false;
        let mut gone = pin!(shared.until(|| (!cell.is_live(live.number)).then_some(())));
        let mut refused = pin!(live.session.draining());
        let mut another = pin!(async {
            // Rate limit, independent of the peer.
            sleep(shared.settings.first_pause).await;
            provide(&shared).await
        });
        loop {
            let seen = poll_fn(|cx| {
                if gone.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Seen::Gone);
                }
                if let Poll::Ready(reason) = refused.as_mut().poll(cx) {
                    return Poll::Ready(Seen::Refused(reason));
                }
                if !proven && proof.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Seen::Proven);
                }
                if !takes_over {
                    return Poll::Pending;
                }
                if begun.is_none() {
                    match ready!(another.as_mut().poll(cx)) {
                        Ok(session) => {
                            begun = Some(Box::pin(prepare(Arc::clone(&shared), session)));
                        }
                        Err(error) => return Poll::Ready(Seen::Another(Err(error))),
                    }
                }
                let Some(preparing) = &mut begun else {
                    return Poll::Pending;
                };
                let prepared = ready!(preparing.as_mut().poll(cx));
                begun = None;
                Poll::Ready(Seen::Another(prepared))
            })
            .await;
            match self.act_on(seen, &live) {
                After::Proven => proven = true,
                After::StaysAlone => takes_over = false,
                After::Done => return begun,
            }
        }
    }

    fn act_on(&mut self, seen: Seen, live: &Live) -> After {
        let shared = &self.shared;
        match seen {
            Seen::Proven => {
                self.backoff.reset();
                self.failures = 0;
                shared.counters.proven.add();
                return After::Proven;
            }
            Seen::Refused(reason) => {
                let pause = shared.settings.first_pause;
                // Closed by this side, such as by a hard cancel of DRPC: no failure, and no more often than first attempts are.
                if matches!(reason, SessionError::Closed) && live.since.elapsed() >= pause {
                    self.backoff.reset();
                    self.failures = 0;
                } else {
                    self.failures = self.failures.saturating_add(1);
                }
                paced!(Level::DEBUG, provider = ?shared.provider, reason = %Chain(&reason), "session lost");
                shared.retire(self.place, live.number, reason);
            }
            Seen::Gone => self.failures = self.failures.saturating_add(1),
            Seen::Another(Ok(session)) => {
                let _ = shared.install(self.place, session, Over::Number(live.number));
            }
            Seen::Another(Err(error)) => {
                self.count(&error);
                paced!(Level::DEBUG, provider = ?shared.provider, error = %Chain(&error), "cannot take over");
                // The live session is unaffected; the error recurs when it is lost.
                return After::StaysAlone;
            }
        }
        After::Done
    }
}

/// Gets a session that is ready for callers: connected, and its hook done.
async fn attempt(shared: &Arc<Shared>) -> Result<Session, ProvideError> {
    let session = provide(shared).await?;
    prepare(Arc::clone(shared), session).await
}

async fn provide(shared: &Shared) -> Result<Session, ProvideError> {
    shared.counters.attempts.add();
    let provided = shared.provider.provide();
    if shared.provider.waits_for_peer() {
        return provided.await;
    }
    let limit = shared.settings.attempt_timeout;
    let provided = timeout(limit, provided).await;
    provided.map_err(|_| ProvideError::TimedOut(limit))?
}

/// Runs the hook.
async fn prepare(shared: Arc<Shared>, session: Session) -> Result<Session, ProvideError> {
    if let Some(hook) = &shared.hook {
        let unready = Unready(Some(session.clone()));
        let limit = shared.settings.hook_timeout;
        match unless(session.draining(), timeout(limit, hook(session.clone()))).await {
            None => {} // Reported below, with the reason.
            Some(Err(_)) => return Err(ProvideError::HookTimedOut(limit)),
            Some(Ok(done)) => done?,
        }
        unready.release();
    }
    match session.state().reason() {
        None => Ok(session),
        Some(reason) => Err(ProvideError::Ended(reason)),
    }
}

/// Closes a session whose hook fails or is dropped: tasks spawned by the hook may still hold it.
struct Unready(Option<Session>);

impl Unready {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.close();
        }
    }
}

/// The result of `work`, or `None` if it is polled on another runtime: its timers are those of the first.
async fn unmoved<T>(work: impl Future<Output = T>) -> Option<T> {
    let home = timer::runtime();
    let mut work = pin!(work);
    poll_fn(|cx| {
        if timer::runtime() == home {
            work.as_mut().poll(cx).map(Some)
        } else {
            Poll::Ready(None)
        }
    })
    .await
}

/// The result of `work`, or `None` if `disturbance` completes first.
pub(super) async fn unless<T>(
    disturbance: impl Future<Output = impl Sized>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut disturbance = pin!(disturbance);
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        disturbance.as_mut().poll(cx).map(|_| None)
    })
    .await
}
