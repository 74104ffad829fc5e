//! A session manager: reconnects lost sessions, and hands live ones to callers.
//!
//! A [`Manager`] keeps one session to a peer, or [several](ManagerBuilder::sessions), from a
//! [`Provider`]: [`Dial`] connects, [`Accept`] waits for connections, an application may bring its own. Callers ask it for a
//! session that is live *now*, wait for one with [`with_session`](Manager::with_session), or take an alternative with
//! [`try_session_or_else`](Manager::try_session_or_else).
//!
//! ```text
//!            ┌───────── keeper: one loop for each place ─────────┐
//!            │ pause ─► provide ─► hook ─► Live ─► lost ─► pause │
//!            └────────────────────┬──────────────────────────────┘
//!                        one atomic swap of the place's cell
//!                                 ▼
//!   callers ──────────────► Down │ Live(session) │ Closed
//! ```
//! # Guarantees for callers
//! * A session that is handed out took streams a moment ago: a session with an error is never "ready". All waiting callers
//!   get the next one together, and all fail with an error when the manager closes.
//! * Getting a session takes no lock, and no lock is held over I/O.
//! * Every state of a place is one value in one atomic cell. Closing swaps it, so a session made at the same time is closed
//!   either by the closing thread, or, refused, by the thread that made it.
//! * Attempts are paced: pauses of 100 ms, growing by 1.6 to at most 30 s, with 20 % jitter; at most 1.5 s while a caller
//!   waits. Only a session that has lived for 10 s and answered a PING resets the pace, so a peer that accepts and drops
//!   at once is treated like an unreachable one.
//!
//! Loss is detected by the session: a peer that vanishes without closing its socket is detected after
//! [`keepalive_idle`](crate::ConfigBuilder::keepalive_idle) and its timeout. A call that fails with its session is not run
//! again: its error says whether that is safe ([`was_processed`](crate::StreamError::was_processed)).
//!
//! A panic of the application's code, in a [`Provider`] or in a [hook](ManagerBuilder::on_session), is a failed attempt:
//! [`ProvideError::Panicked`] or [`ProvideError::HookPanicked`]. The next one follows a pause, and other sessions are not
//! affected.
//!
//! An [`Outbox`] holds messages while there is no session, and reports the outcome of each.
//!
//! # Where it runs
//! [`Manager::start`] returns the manager's task; it needs a tokio runtime with time enabled,
//! the one of the engine or any other; elsewhere it fails with [`ManageError::NoRuntime`]. Dropping it closes the manager. Callers may be on any thread and
//! executor; only those with a deadline need tokio's timers.
//!
//! # Examples
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ringmux::manage::{Dial, ManageError, Manager};
//! use ringmux::{Config, Engine};
//!
//! let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
//! let dial = Dial::new(Engine::auto()?, listener.local_addr().clone(), Config::default());
//! let manager = Manager::builder(dial).build()?;
//! let running = tokio::spawn(manager.start()?);
//!
//! let stream = manager.with_session(|session| async move { session.open("hello").await }).await??;
//! # drop(stream);
//! manager.close();
//! assert!(matches!(manager.session().await, Err(ManageError::ShuttingDown)));
//! running.await??;
//! # Ok(())
//! # }
//! ```

mod accept;
mod backoff;
mod describe;
mod errors;
mod events;
mod keeper;
mod manager;
mod metrics;
mod outbox;
mod panics;
mod provider;
mod settings;
mod shared;
mod state;

pub use accept::Accept;
pub use describe::{Description, Phase, PlaceDescription};
pub use errors::{BoxError, ManageError, ProvideError};
pub use events::{Event, Events};
pub use keeper::{Running, WAITING_PAUSE_MAX};
#[cfg(feature = "rpc")]
pub(crate) use manager::Call;
pub use manager::Manager;
#[cfg(feature = "metrics")]
pub(crate) use manager::WeakManager;
pub use metrics::Metrics;
pub use outbox::deliver::Delivering;
pub use outbox::{Doubt, Dropped, Outbox, OutboxBuilder, OutboxStats, Outcome, PushError, Receipt};
pub use provider::{Dial, Provider};
pub use settings::ManagerBuilder;

#[cfg(test)]
mod tests;
