//! The driver on a ring of its own, entered directly.
//!
//! ```text
//!   handles ──► session ──► host ──► reactor ──► ring       one thread owns all of it
//!      (lane, doorbell)  (link, doorbell)
//! ```
//! * `ring`: the interface to a ring; `kernel` and `buffers`: its implementation over the kernel's.
//! * `probe`: the trial that a ring passes before sessions run on it; `refusal`: the reasons for a failure.
//! * `reactor`: the sockets on it; `slot`: one of them, with the memory that the kernel holds.
//! * `outgoing`: a batch as the kernel's send operation needs it; `enters`: counts of system calls.
//! * `socket`: a slot as the [`Transport`](super::Transport) of a session.
//! * `host`, `inline`: the loop, on its own thread or on the application's; `wait`: its idle strategy;
//!   `pressure`: whether other threads need its processor; `link`: access from other threads.
//!
//! # Ending
//! A session that ends shuts its socket down, cancels its operations, and frees its slot after the last completion. A host
//! that ends does so for all of its sessions, waits at most a second, and leaks memory that the kernel still uses.

mod buffers;
mod enters;
mod host;
mod inline;
mod kernel;
mod link;
mod outgoing;
mod pressure;
mod probe;
mod reactor;
mod refusal;
mod ring;
mod slot;
mod socket;
mod wait;

#[cfg(all(test, not(ringmux_loom)))]
mod tests;

pub(crate) use enters::enters;
pub(crate) use link::{HostLink, Job};
pub use probe::Features;
pub use refusal::{ProbeStep, Refusal};

use std::future::Future;
use std::io;

use crate::config::Wait;
use crate::queue::Owned;
use crate::sync::Arc;
use kernel::KernelRing;
use link::BellFd;
use wait::Waiting;

/// A ring that has been tried, on the thread that will run it.
pub(crate) struct Prepared {
    ring: KernelRing,
    features: Features,
    link: Arc<HostLink>,
    wait: Wait,
    /// Wakes a thread that is parked in the ring.
    bell: Option<BellFd>,
}

impl Prepared {
    /// # Errors
    /// The kernel, a policy or a limit refuses it, or the ring fails its trial.
    pub(crate) fn new(wait: Wait) -> Result<Self, Refusal> {
        let (ring, features) = probe::probe()?;
        Ok(Self {
            ring,
            features,
            link: HostLink::new(),
            wait,
            bell: None,
        })
    }

    /// For [`run`](Self::run) and [`block_on`](Self::block_on).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn for_a_thread(wait: Wait) -> Result<Self, Refusal> {
        let bell = probe::bell()?;
        let prepared = Self::new(wait)?;
        Ok(Self {
            bell: Some(bell),
            ..prepared
        })
    }

    pub(crate) const fn link(&self) -> &Arc<HostLink> {
        &self.link
    }

    pub(crate) const fn features(&self) -> Features {
        self.features
    }

    /// Runs sessions on this thread until no engine and no session is left.
    pub(crate) fn run(self) -> io::Result<()> {
        let root: Option<std::future::Pending<()>> = None;
        let bell = bell(self.bell);
        let waiting = Waiting::of_this_thread(self.wait);
        host::run(self.ring, self.link, waiting, bell, || root).map(drop)
    }

    /// Runs sessions on this thread, and the future that `root` makes beside them until it is done. The link reports the end
    /// also if `root` panics.
    pub(crate) fn block_on<F: Future>(self, root: impl FnOnce() -> F) -> io::Result<F::Output> {
        let bell = bell(self.bell);
        let waiting = Waiting::of_this_thread(self.wait);
        let output = host::run(self.ring, self.link, waiting, bell, || Some(root()))?;
        output.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// The same as a future for the runtime that this is called on.
    pub(crate) fn inline(self) -> io::Result<impl Future<Output = ()> + Send> {
        let inline = inline::Inline::new(self.ring, self.link, Waiting::new(self.wait))?;
        Ok(async move {
            let mut inline = Owned::new(inline);
            (&mut *inline).await;
        })
    }
}

/// The bell made at preparation, else a new one.
fn bell(made: Option<BellFd>) -> io::Result<BellFd> {
    made.map_or_else(BellFd::new, Ok)
}
