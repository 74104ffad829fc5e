//! The settings of a manager: numbers with units, defaults and ranges.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::errors::{BoxError, ProvideError};
use super::panics::caught;
use super::provider::{Boxed, Erased, Provider};
use crate::config::ConfigError;
use crate::handle::Session;
use crate::sync::Arc;

/// Sessions that one manager keeps, at most.
const MAX_SESSIONS: u32 = 64;

/// The hook that runs with each new session. Does not panic.
pub(super) type Hook = Arc<dyn Fn(Session) -> Pin<Box<HookFuture>> + Send + Sync>;
type HookFuture = dyn Future<Output = Result<(), ProvideError>> + Send;

/// The numeric settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) sessions: u32,
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
    pub(super) wanted_pause: Duration,
    pub(super) proven_after: Duration,
    pub(super) attempt_timeout: Duration,
    pub(super) hook_timeout: Duration,
    pub(super) max_waiting: u32,
    pub(super) events_kept: u32,
    /// Fixes the jitter, for tests.
    pub(super) seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sessions: 1,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            wanted_pause: Duration::from_millis(1500),
            proven_after: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(20),
            hook_timeout: Duration::from_secs(10),
            max_waiting: 65_536,
            events_kept: 256,
            seed: None,
        }
    }
}

/// Builds a [`Manager`](super::Manager); [`build`](Self::build) checks the settings.
///
/// # Examples
/// ```
/// use ringmux::manage::{Dial, Manager};
/// use ringmux::{Config, Engine};
///
/// let dial = Dial::new(Engine::auto()?, "tcp://127.0.0.1:1".parse()?, Config::default());
/// let error = Manager::builder(dial).sessions(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "sessions is 0, must be from 1 to 64");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct ManagerBuilder {
    pub(super) provider: Box<dyn Erased>,
    pub(super) hook: Option<Hook>,
    pub(super) settings: Settings,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty),+ $(,)?) => {
        $($(#[$doc])* pub const fn $name(mut self, value: $type) -> Self {
            self.settings.$name = value;
            self
        })+
    };
}

impl ManagerBuilder {
    pub(super) fn new(provider: impl Provider) -> Self {
        Self {
            provider: Box::new(Boxed(provider)),
            hook: None,
            settings: Settings::default(),
        }
    }

    settings! {
        /// Sessions kept to the peer at once; callers get the least loaded. Default 1, at most 64.
        sessions: u32,
        /// The pause after the first failure; each further one is 1.6 times longer, with 20 % jitter
        /// either way. Default 100 ms, at least 1 ms.
        first_pause: Duration,
        /// The longest pause, jitter included. Default 30 s, at least `first_pause`.
        longest_pause: Duration,
        /// The longest pause while a caller waits for a session, jitter included: a caller that arrives during a longer pause ends it
        /// as soon as this much of it has passed. Default 1.5 s, at least 1 ms; above `longest_pause` it has no effect.
        ///
        /// So a caller has a session 2 s after a peer that refused connections accepts them again, after any length of outage; and
        /// an unreachable peer gets at most one attempt per second from each place with waiting callers.
        wanted_pause: Duration,
        /// How long a session has to live, and then to answer one PING, before the pauses restart with
        /// the first one. Default 10 s.
        proven_after: Duration,
        /// How long one attempt may take, without the hook. Default 20 s. Not used by a provider that
        /// waits for its peer.
        attempt_timeout: Duration,
        /// How long the hook may take. Default 10 s.
        hook_timeout: Duration,
        /// Callers that may wait for a session at once. Default 65 536.
        max_waiting: u32,
        /// Events kept for a slow subscriber; older ones are dropped and counted, see
        /// [`Event::Missed`](super::Event::Missed). Default 256, at most 65 536.
        events_kept: u32,
    }

    /// A hook that runs with each new session before callers get it: to sign in, or to subscribe again.
    ///
    /// If it fails, panics, or takes longer than [`hook_timeout`](Self::hook_timeout), the session is closed
    /// and counts as a failed attempt.
    pub fn on_session<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Session) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let hook = Arc::new(hook);
        self.hook = Some(Arc::new(move |session| {
            let hook = Arc::clone(&hook);
            Box::pin(async move {
                match caught(|| hook(session)).await {
                    Ok(done) => done.map_err(ProvideError::Hook),
                    Err(text) => Err(ProvideError::HookPanicked(text)),
                }
            })
        }));
        self
    }

    #[cfg(test)]
    pub(super) const fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// # Errors
    /// [`ConfigError`] names the first setting that is out of range, and the range.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let s = &self.settings;
        let ranges = [
            ("sessions", s.sessions, 1, MAX_SESSIONS),
            ("max_waiting", s.max_waiting, 1, 1 << 24),
            ("events_kept", s.events_kept, 1, 1 << 16),
        ];
        for (setting, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::OutOfRange {
                    setting,
                    value: value.into(),
                    min: min.into(),
                    max: max.into(),
                });
            }
        }
        let waits = [
            ("first_pause", s.first_pause, Duration::from_millis(1)),
            ("longest_pause", s.longest_pause, s.first_pause),
            ("wanted_pause", s.wanted_pause, Duration::from_millis(1)),
            ("proven_after", s.proven_after, Duration::from_nanos(1)),
            (
                "attempt_timeout",
                s.attempt_timeout,
                Duration::from_nanos(1),
            ),
            ("hook_timeout", s.hook_timeout, Duration::from_nanos(1)),
        ];
        for (setting, value, least) in waits {
            if value < least || value > Duration::from_secs(3600) {
                return Err(ConfigError::WaitOutOfRange { setting, value });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerBuilder")
            .field("provider", &self.provider.describe())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
