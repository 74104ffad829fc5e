//! A run: one host on a fake ring, with an application beside it, and the checks at its end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::super::host;
use super::super::link::{BellFd, HostLink, Job};
use super::super::wait::Waiting;
use super::fake::{FakeRing, Kernel};
use super::faults::Faults;
use crate::addr::Driver;
use crate::bridge::Info;
use crate::bridge::{AnyEngine, Pool};
use crate::config::{Config, Wait};
use crate::driver::clock;
use crate::handle::Session;
use crate::sync::Arc;
use crate::wire::Role;

/// The application's access to the run.
pub(super) struct Desk {
    pub(super) link: Arc<HostLink>,
    pub(super) kernel: Rc<RefCell<Kernel>>,
    pool: Arc<Pool>,
    /// Sessions may end before their applications are done.
    pub(super) may_end: Cell<bool>,
    /// Messages that arrived complete and in order.
    pub(super) delivered: Cell<u64>,
}

impl Desk {
    /// A session on one end of a socket.
    pub(super) fn start(&self, role: Role, socket: UnixStream, config: &Config) -> Session {
        let info = Info {
            driver: Driver::Uring,
            ..Info::of_a_test(role)
        };
        let pool = Arc::clone(&self.pool);
        let (connection, link) = AnyEngine::new(role, config, info, pool, clock::now());
        let socket = socket.into();
        self.link.start(Job { connection, socket });
        Session::new(link)
    }

    /// Both ends of a session: the one that dialled first.
    pub(super) fn connect(&self, config: &Config) -> [Session; 2] {
        let (near, far) = UnixStream::pair().expect("descriptors are left");
        let near = self.start(Role::Dialer, near, config);
        [near, self.start(Role::Acceptor, far, config)]
    }

    /// Completes when no other event of the run is possible, as if woken by another thread.
    pub(super) async fn silence(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            self.kernel.borrow_mut().outside.push_back(waker);
            Poll::Pending
        })
        .await;
    }

    /// The same, after `time`.
    pub(super) async fn later(&self, time: Duration) {
        clock::Stopped::pass(time);
        self.silence().await;
    }

    /// Completes when no socket is left.
    pub(super) async fn no_sockets(&self) {
        poll_fn(|cx| {
            let kernel = &mut *self.kernel.borrow_mut();
            if kernel.sockets() == 0 {
                return Poll::Ready(());
            }
            kernel.watcher = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Checks that all resources of ended sessions were released while the host runs on.
    pub(super) async fn at_rest(&self) -> Result<(), String> {
        self.no_sockets().await;
        let kernel = self.kernel.borrow();
        if !kernel.is_idle() || kernel.buffers_out() > 0 {
            return Err(format!("not given back: {}", kernel.dump()));
        }
        Ok(())
    }
}

/// Yields to all other work `times` times.
pub(super) async fn pause(times: usize) {
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(super) struct World {
    pub(super) desk: Rc<Desk>,
    pub(super) ring: FakeRing,
    /// [`Wait::Spin`] never yields to other threads.
    pub(super) wait: Wait,
    _clock: clock::Stopped,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let clock = clock::Stopped::new();
        let (ring, kernel) = FakeRing::new(seed, faults);
        let desk = Desk {
            link: HostLink::new(),
            kernel,
            pool: Pool::new(1 << 30),
            may_end: Cell::new(false),
            delivered: Cell::new(0),
        };
        Self {
            desk: Rc::new(desk),
            ring,
            wait: Wait::Park,
            _clock: clock,
        }
    }

    /// Runs the host until `root` is done and ends it, without checks: for runs that end badly.
    pub(super) fn run_unchecked<F: Future>(
        self,
        root: impl FnOnce(Rc<Desk>) -> F,
    ) -> std::io::Result<F::Output> {
        let Self {
            desk,
            ring,
            wait,
            _clock,
        } = self;
        let link = Arc::clone(&desk.link);
        let waiting = Waiting::blind(wait);
        let output = host::run(ring, link, waiting, BellFd::new(), || Some(root(desk)));
        output.map(|output| output.expect("the root is done"))
    }

    /// Runs the host until `root` is done, and ends it. Checks that all resources are released, including those of
    /// operations under way at the end.
    pub(super) fn run<T, F>(self, root: impl FnOnce(Rc<Desk>) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, String>>,
    {
        let kernel = Rc::clone(&self.desk.kernel);
        let pool = Arc::clone(&self.desk.pool);
        let output = self.run_unchecked(root);
        let kernel = kernel.borrow();
        if let Some(failure) = kernel.failure.clone() {
            return Err(failure);
        }
        let output = output.map_err(|error| format!("the host has failed: {error}"))??;
        let quiet = kernel.settled && kernel.is_idle();
        if !quiet || kernel.buffers_out() > 0 || kernel.sockets() > 0 {
            return Err(format!("not given back with the host: {}", kernel.dump()));
        }
        if pool.used() > 0 {
            return Err(format!("{} bytes are missing in the pool", pool.used()));
        }
        Ok(output)
    }
}
