//! What a call waits for before its handler runs: places of its session, the server and its method.
//!
//! A call that has some of its places waits for another in one order: session, method, server. So no two calls wait for each other, and no
//! place that other sessions need waits for one of a session, which its peer frees when it likes.
//!
//! A call that waits for its method alone has none of the others, which are for calls of other methods: see [`Waited`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;

use super::bound::{Bound, Place, Seat, full};
use super::incoming::{Gone, Incoming, REQUEST_MAX};
use super::timer::Timer;

/// A call waits for a place of this method, then for those of its session and of the server.
#[doc(hidden)]
pub struct Waited {
    method: Arc<Bound>,
    _seat: Seat,
}

impl Waited {
    /// `None` if no more may wait.
    pub(super) fn new(method: &Arc<Bound>) -> Option<Self> {
        let seat = method.seat().filter(|_| !method.refuses())?;
        Some(Self {
            method: Arc::clone(method),
            _seat: seat,
        })
    }

    pub(super) async fn wait(self, call: &mut Incoming) -> Result<(), Gone> {
        let of_method = call.wait_for(self.method.acquire()).await?;
        if call.held.take_places() {
            call.held.of_method = Some(of_method);
            return Ok(());
        }
        // In the one order, from here on.
        match call.held.of_session {
            true => call.held.of_method = Some(of_method),
            false => drop(of_method),
        }
        call.places(Some(&self.method), Waits::Seated).await
    }
}

/// How many calls may wait as one does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Up to the number of seats at the place that it waits for.
    Counted,
    /// It has a seat, or is the one of its session that waits to be taken.
    Seated,
}

impl Incoming {
    /// Has the places that the call lacks. For each it waits, or is refused, as that place's owner says.
    pub(super) async fn places(
        &mut self,
        method: Option<&Arc<Bound>>,
        waits: Waits,
    ) -> Result<(), Gone> {
        if !self.held.of_session {
            let bound = Arc::clone(&self.held.peer.bound);
            self.place(&bound, waits).await?.keep();
            self.held.of_session = true;
        }
        if let Some(bound) = method
            && self.held.of_method.is_none()
        {
            self.held.of_method = Some(self.place(bound, waits).await?);
        }
        if !self.held.of_server {
            let bound = Arc::clone(&self.held.server.bound);
            self.place(&bound, waits).await?.keep();
            self.held.of_server = true;
        }
        Ok(())
    }

    /// Has the places again that it has [lent](super::held::Held::lend), one of this method among them.
    pub(super) async fn regain(&mut self, method: Option<Arc<Bound>>) -> Result<(), Gone> {
        self.places(method.as_ref(), Waits::Counted).await
    }

    async fn place(&mut self, bound: &Arc<Bound>, waits: Waits) -> Result<Place, Gone> {
        if let Some(place) = bound.try_acquire() {
            return Ok(place);
        }
        let seat = (waits == Waits::Counted).then(|| bound.seat());
        if bound.refuses() || matches!(seat, Some(None)) {
            self.refuse(&full());
            return Err(Gone);
        }
        self.wait_for(bound.acquire()).await
    }

    /// Waits for the metadata in front of the first request of a stream.
    pub(super) async fn wait_for_metadata<F: Future>(
        &mut self,
        future: F,
    ) -> Result<F::Output, Gone> {
        let method = self.held.lend();
        let at = self
            .deadline
            .unwrap_or_else(|| Instant::now() + REQUEST_MAX);
        let output = self.wait_until(Some(at), future).await?;
        self.regain(method).await?;
        Ok(output)
    }

    /// Waits for something that comes before the handler, as long as the caller does.
    pub(super) async fn wait_for<F: Future>(&mut self, future: F) -> Result<F::Output, Gone> {
        self.wait_until(self.deadline, future).await
    }

    async fn wait_until<F: Future>(
        &mut self,
        at: Option<Instant>,
        future: F,
    ) -> Result<F::Output, Gone> {
        let mut timer = Timer::new(at);
        let mut future = pin!(future);
        let output = poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if timer.poll(cx).is_ready() {
                return Poll::Ready(Err(true));
            }
            self.send.poll_gone(cx).map(|_| Err(false))
        })
        .await;
        output.map_err(|late| {
            if late {
                let status = self.late();
                self.refuse(&status);
            } else {
                self.held.server.counters.cancelled.add();
            }
            Gone
        })
    }
}

impl std::fmt::Debug for Waited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waited").finish_non_exhaustive()
    }
}
