//! The place that runs an engine's sessions: a runtime, a tokio-uring task, or a ring's host; and how sessions get there.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc as StdArc;
use std::thread;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};

use super::errors::EngineError;
use super::socket::{Blocking, Connected};
use super::{Connection, over};
use crate::addr::{Addr, Driver};
use crate::bridge::{Account, Info, SessionLink};
use crate::bridge::{AnyEngine, Pool};
use crate::config::{Config, Wait};
use crate::driver::uring::{Features, HostLink, Job, Prepared};
use crate::driver::{Beside, clock, runtime};
use crate::handle::Session;
use crate::queue::{Owned, PerProcess};
use crate::sync::Arc;
use crate::wire::Role;

#[cfg(feature = "tokio-uring")]
pub(super) mod on_tokio_uring;
/// Unreachable: [`EngineBuilder`] refuses the driver.
#[cfg(not(feature = "tokio-uring"))]
pub(super) mod on_tokio_uring {
    use super::{AnyEngine, Blocking, EngineError, KeepAlive, Report};
    use crate::addr::Driver;

    const LEFT_OUT: EngineError = EngineError::NotBuiltIn {
        driver: Driver::TokioUring,
    };

    pub(super) fn spawn(_: AnyEngine, _: Blocking, _: KeepAlive) {}

    pub(super) fn host(report: &Report) {
        drop(report.send(Err(LEFT_OUT)));
    }

    pub(super) const fn serve() -> Option<KeepAlive> {
        None
    }

    pub(in crate::connect) fn block_on<T>(
        _: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        Err(LEFT_OUT)
    }
}

/// Starts a session on a runtime's thread.
type Start = Box<dyn FnOnce() + Send>;

/// Keeps a runtime's thread running: held by engines and by their sessions.
type KeepAlive = mpsc::UnboundedSender<Start>;

/// Where sessions are polled.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// On a tokio runtime; with a channel if its thread is the engine's own.
    Tokio(Option<KeepAlive>),
    /// On a task of a tokio-uring runtime, the only place that can spawn there.
    TokioUring(KeepAlive),
    /// On a ring's host.
    Uring(StdArc<Released>),
}

/// Dropped with the last engine value: the host then ends with its last session.
#[derive(Debug)]
pub(super) struct Released {
    host: Arc<HostLink>,
    features: Features,
}

impl Drop for Released {
    fn drop(&mut self) {
        self.host.release();
    }
}

/// Role, settings and addresses of a session to be.
pub(super) struct Plan<'a> {
    pub(super) role: Role,
    pub(super) config: &'a Config,
    pub(super) peer: Option<Addr>,
    pub(super) local: Option<Addr>,
    pub(super) account: Arc<Account>,
}

impl<'a> Plan<'a> {
    /// For a transport without addresses.
    pub(super) fn local(role: Role, config: &'a Config) -> Self {
        Self {
            role,
            config,
            peer: None,
            local: None,
            account: Account::of_the_process(),
        }
    }

    /// Makes a session's protocol state, and the link that its handles share with it.
    pub(super) fn connection(self, driver: Driver) -> (AnyEngine, Arc<SessionLink>) {
        let info = Info {
            peer: self.peer,
            local: self.local,
            driver,
            wire: self.config.wire(),
            role: self.role,
            account: self.account,
            // `RandomState` has new keys at each call.
            seed: RandomState::new().build_hasher().finish(),
        };
        let pool = Pool::process();
        AnyEngine::new(self.role, self.config, info, pool, clock::now())
    }
}

impl Home {
    pub(super) fn of(prepared: &Prepared) -> Self {
        Self::Uring(StdArc::new(Released {
            host: Arc::clone(prepared.link()),
            features: prepared.features(),
        }))
    }

    /// The features of its ring, for [`Driver::Uring`].
    pub(super) fn features(&self) -> Option<Features> {
        match self {
            Self::Uring(released) => Some(released.features),
            Self::Tokio(_) | Self::TokioUring(_) => None,
        }
    }

    /// The ring's host, whose end is the engine's end although the runtime that dials and accepts outlives it.
    pub(super) fn host(&self) -> Option<&HostLink> {
        match self {
            Self::Uring(released) => Some(&released.host),
            Self::Tokio(_) | Self::TokioUring(_) => None,
        }
    }

    /// Whether nothing runs its sessions any more. The end of a runtime of the application is seen at the next start only.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Uring(released) => released.host.is_closed(),
            Self::Tokio(jobs) => jobs.as_ref().is_some_and(KeepAlive::is_closed),
            Self::TokioUring(jobs) => jobs.is_closed(),
        }
    }

    /// Runs a session over a connected socket.
    pub(super) fn start(
        &self,
        runtime: &Handle,
        socket: Connected,
        plan: Plan<'_>,
    ) -> Result<Session, EngineError> {
        // The session uses this runtime's clock on every thread.
        let _entered = runtime.enter();
        let driver = match self {
            Self::Tokio(jobs) => return Ok(spawn_tokio(runtime, socket, plan, jobs.clone())),
            Self::TokioUring(_) => Driver::TokioUring,
            Self::Uring(_) => Driver::Uring,
        };
        let socket = socket
            .into_blocking()
            .map_err(EngineError::unavailable(driver))?;
        let (connection, link) = plan.connection(driver);
        let started = match self {
            Self::Tokio(_) => false,
            Self::TokioUring(jobs) => {
                let keep_alive = jobs.clone();
                let start: Start =
                    Box::new(move || on_tokio_uring::spawn(connection, socket, keep_alive));
                jobs.send(start).is_ok()
            }
            Self::Uring(released) => released.host.start(Job {
                connection,
                socket: socket.into(),
            }),
        };
        if started {
            Ok(Session::new(link))
        } else {
            Err(EngineError::Stopped)
        }
    }
}

fn spawn_tokio(
    runtime: &Handle,
    socket: Connected,
    plan: Plan<'_>,
    keep_alive: Option<KeepAlive>,
) -> Session {
    // A thread of the engine's own runs no tasks of the application.
    let beside = match &keep_alive {
        Some(_) => Beside::Nothing,
        None => Beside::Runtime,
    };
    match socket {
        Connected::Tcp(io) => {
            let made = over(io, plan, |io| Some(io.as_fd()), beside);
            spawn_connection(runtime, made, keep_alive)
        }
        Connected::Unix(io) => {
            let made = over(io, plan, |io| Some(io.as_fd()), beside);
            spawn_connection(runtime, made, keep_alive)
        }
    }
}

fn spawn_connection<T>(
    runtime: &Handle,
    (session, connection): (Session, Connection<T>),
    keep_alive: Option<KeepAlive>,
) -> Session
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    runtime.spawn(async move {
        let _keep_alive = keep_alive;
        let mut connection = Owned::new(connection);
        (&mut *connection).await
    });
    session
}

// ---- threads of our own ---------------------------------------------------------------------

/// Starts a thread of this name, on this CPU, that runs sessions; returns also the runtime that dials and accepts.
///
/// # Errors
/// [`EngineError::Unavailable`], [`EngineError::Refused`].
pub(super) fn on_thread(
    driver: Driver,
    wait: Wait,
    cpu: Option<usize>,
    name: &str,
) -> Result<(Handle, Home), EngineError> {
    let (report, started) = std::sync::mpsc::sync_channel(1);
    let unavailable = EngineError::unavailable(driver);
    if name.contains('\0') {
        return Err(unavailable(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name of a thread has no NUL",
        )));
    }
    // On this thread, not the new one: it would inherit the pinning of the first engine.
    let dialler = match driver {
        Driver::Uring => Some(dialler().map_err(unavailable)?),
        Driver::Tokio | Driver::TokioUring => None,
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = cpu.map_or(Ok(()), |cpu| pin_to(cpu, driver)) {
                let _ = report.send(Err(error));
                return;
            }
            match (driver, dialler) {
                (Driver::Uring, Some(dialler)) => host_uring(&report, dialler, wait),
                (Driver::TokioUring, _) => on_tokio_uring::host(&report),
                _ => host_tokio(&report),
            }
        })
        .map_err(unavailable)?;
    started
        .recv()
        .unwrap_or_else(|_| Err(unavailable(io::ErrorKind::BrokenPipe.into())))
}

/// A new thread's report of its start. Sending fails if the caller has given up.
type Report = std::sync::mpsc::SyncSender<Result<(Handle, Home), EngineError>>;

fn host_tokio(report: &Report) {
    match tokio_runtime() {
        Ok(runtime) => {
            let (jobs, queue) = mpsc::unbounded_channel();
            let _ = report.send(Ok((runtime.handle().clone(), Home::Tokio(Some(jobs)))));
            runtime.block_on(run_jobs(queue));
        }
        Err(error) => drop(report.send(Err(EngineError::unavailable(Driver::Tokio)(error)))),
    }
}

fn host_uring(report: &Report, dialler: Handle, wait: Wait) {
    match Prepared::for_a_thread(wait) {
        Ok(prepared) => {
            let _ = report.send(Ok((dialler, Home::of(&prepared))));
            if let Err(error) = prepared.run() {
                tracing::error!(%error, "an engine has failed");
            }
        }
        Err(error) => drop(report.send(Err(error.into()))),
    }
}

/// Runs jobs until the engine and all its sessions are dropped: each of them holds a sender.
async fn run_jobs(mut queue: mpsc::UnboundedReceiver<Start>) {
    while let Some(start) = queue.recv().await {
        start();
    }
}

pub(super) fn tokio_runtime() -> io::Result<tokio::runtime::Runtime> {
    // Session polls per poll of the sockets: a busy session keeps itself ready all the time, and a quiet one beside it waits
    // for the next poll of the sockets.
    const EVENT_INTERVAL: u32 = 4;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
}

/// Resolves, dials and accepts for engines without a tokio runtime: one thread per process.
pub(super) fn dialler() -> io::Result<Handle> {
    /// With the sender that keeps its thread running; never dropped.
    static DIALLER: PerProcess<(Handle, oneshot::Sender<()>)> = PerProcess::new();
    let dialler = DIALLER.cell();
    if let Some((handle, _)) = dialler.get() {
        return Ok(handle.clone());
    }
    let (keep, kept) = oneshot::channel::<()>();
    let (report, started) = std::sync::mpsc::sync_channel(1);
    // Built on its own thread: a runtime cannot be dropped inside of another runtime, where the caller may be.
    thread::Builder::new()
        .name("ringmux-dial".to_owned())
        .spawn(move || match tokio_runtime() {
            Ok(runtime) => {
                let _ = report.send(Ok(runtime.handle().clone()));
                let _ = runtime.block_on(kept);
            }
            Err(error) => drop(report.send(Err(error))),
        })?;
    let died = |_| Err(io::ErrorKind::BrokenPipe.into());
    let handle = started.recv().unwrap_or_else(died)?;
    // Of several made in a race one is kept; the threads of the others end. Stored only once it runs, as it is permanent.
    let (handle, _) = dialler.get_or_init(|| (handle, keep));
    Ok(handle.clone())
}

/// Any allowed processor of the process, even if the calling thread itself is pinned elsewhere.
fn pin_to(cpu: usize, driver: Driver) -> Result<(), EngineError> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let mut only = CpuSet::new();
    if cpu < CpuSet::MAX_CPU {
        only.set(cpu);
        if sched_setaffinity(None, &only).is_ok() {
            return Ok(());
        }
    }
    // From the full set the system keeps the existing and allowed processors.
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    let allowed = sched_setaffinity(None, &all).and_then(|()| sched_getaffinity(None));
    let allowed = allowed.map_err(|error| EngineError::unavailable(driver)(error.into()))?;
    let allowed = ranges((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)));
    Err(EngineError::Processor { cpu, allowed })
}

/// As Linux writes lists of processors: `0-3,8`.
fn ranges(numbers: impl Iterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => ranges.push((n, n)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

// ---- the application's thread ---------------------------------------------------------------

/// Runs sessions on the current runtime.
///
/// # Errors
/// [`EngineError::NoRuntime`] if there is none, [`EngineError::ManyThreads`] and [`EngineError::RuntimeLacks`] if it is of
/// another kind; as [`on_thread`].
pub(super) fn inline(driver: Driver, wait: Wait) -> Result<(Handle, Home), EngineError> {
    let none = EngineError::NoRuntime { driver };
    let Ok(runtime) = Handle::try_current() else {
        return Err(none);
    };
    // A ring is bound to its thread.
    let one_thread = runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
    if driver != Driver::Tokio && !one_thread {
        return Err(EngineError::ManyThreads { driver });
    }
    let lack = runtime::lack().map_err(EngineError::unavailable(driver))?;
    if let Some(what) = lack {
        return Err(EngineError::RuntimeLacks { what });
    }
    let home = match driver {
        Driver::Tokio => Home::Tokio(None),
        Driver::TokioUring => match on_tokio_uring::serve() {
            Some(jobs) => Home::TokioUring(jobs),
            None => return Err(none),
        },
        Driver::Uring => {
            let prepared = Prepared::new(wait)?;
            let home = Home::of(&prepared);
            let hosting = prepared.inline();
            runtime.spawn(hosting.map_err(EngineError::unavailable(driver))?);
            home
        }
    };
    Ok((runtime, home))
}
