//! Wakes of tokio-uring tasks from handles that are dropped when their thread ends.
//!
//! tokio-uring runs its tasks on a `LocalSet`, whose wakers use a thread-local variable of the waking thread. A handle that
//! is itself stored in a thread-local may be dropped after that variable; then the waker panics, which in a destructor ends
//! the process. So a wake from another thread is done by a task of the underlying tokio runtime, whose wakers work on any
//! thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use ::tokio::runtime::Handle;

use crate::queue::{Home, Teardown};

/// The waker of a task, and the task that wakes it on behalf of other threads.
struct Relay {
    waker: Waker,
    runtime: Handle,
    /// Process and thread of the task.
    home: Home,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !Teardown::is_under_way() || self.home.is_here() {
            return self.waker.wake_by_ref();
        }
        let waker = self.waker.clone();
        self.runtime.spawn(async move { waker.wake() });
    }
}

/// A task of a tokio-uring runtime that handles on other threads may wake. See the module.
pub(crate) struct Relayed<F> {
    task: Pin<Box<F>>,
    relay: Option<(Arc<Relay>, Waker)>,
}

impl<F: Future> Relayed<F> {
    pub(crate) fn new(task: F) -> Self {
        Self {
            task: Box::pin(task),
            relay: None,
        }
    }
}

fn relay(waker: &Waker) -> (Arc<Relay>, Waker) {
    let relay = Arc::new(Relay {
        waker: waker.clone(),
        runtime: Handle::current(),
        home: Home::new(),
    });
    relay.home.settle();
    (Arc::clone(&relay), Waker::from(relay))
}

impl<F: Future> Future for Relayed<F> {
    type Output = F::Output;

    /// To be polled on the runtime's thread.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let same = |(relay, _): &(Arc<Relay>, Waker)| relay.waker.will_wake(cx.waker());
        if !this.relay.as_ref().is_some_and(same) {
            this.relay = None;
        }
        let (_, waker) = this.relay.get_or_insert_with(|| relay(cx.waker()));
        this.task.as_mut().poll(&mut Context::from_waker(waker))
    }
}

impl<F> fmt::Debug for Relayed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relayed").finish_non_exhaustive()
    }
}
