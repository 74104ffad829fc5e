//! Layers of tower around the handlers of a server: feature `rpc-tower`.
//!
//! A handler keeps its types and its place: it is polled beside the layers, not inside of them. The innermost service gives a future
//! that lets the handler begin when it is first polled, and is ready when the handler is; to drop it drops the handler.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use ::tower::load_shed::error::Overloaded;
use ::tower::timeout::error::Elapsed;
use ::tower::{BoxError, Layer, Service};
use atomic_waker::AtomicWaker;

use super::context::Context;
use super::status::Status;

/// A call whose handler is about to run, for the layers of [`ServerBuilder::layer`](super::ServerBuilder::layer).
///
/// It runs once: there is no second one of it for a layer that tries again.
///
/// # Examples
/// A layer that counts the calls of each tenant, and refuses those of none.
/// ```
/// use std::pin::Pin;
/// use std::task::{Context, Poll};
///
/// use ringmux::rpc::{Handled, Handling, Server, Status};
/// use tower::{Layer, Service};
///
/// #[derive(Clone)]
/// struct Tenants<S>(S);
///
/// impl<S> Service<Handling> for Tenants<S>
/// where
///     S: Service<Handling, Response = Handled, Error = Status, Future: Send + 'static>,
/// {
///     type Response = Handled;
///     type Error = Status;
///     type Future = Pin<Box<dyn Future<Output = Result<Handled, Status>> + Send>>;
///
///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
///         self.0.poll_ready(cx)
///     }
///
///     fn call(&mut self, call: Handling) -> Self::Future {
///         let Some(tenant) = call.context().metadata().get_str("tenant") else {
///             return Box::pin(async { Err(Status::unauthenticated("no tenant")) });
///         };
///         println!("{tenant} calls {}", call.context().method());
///         Box::pin(self.0.call(call))
///     }
/// }
///
/// let builder = Server::builder().layer(tower::layer::layer_fn(Tenants));
/// # drop(builder);
/// ```
pub struct Handling {
    cx: Context,
    turn: Arc<Turn>,
}

impl Handling {
    /// The call: its method, metadata, deadline and caller.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.cx
    }

    /// Gives the handler another context, one that was made from the call's own.
    #[must_use]
    pub fn with_context(mut self, cx: Context) -> Self {
        self.cx = cx;
        self
    }
}

/// A handler has run, and succeeded. Its answer is on its own way.
#[derive(Debug)]
pub struct Handled(());

/// The service inside of the layers: it runs handlers.
#[derive(Clone)]
pub struct Handlers(Option<Arc<Wrapped>>);

/// A layer's service, each call of which is a clone's.
type Wrapped = dyn Fn(Handling) -> Running + Send + Sync;
/// A call in its layers.
type Running = Pin<Box<dyn Future<Output = Result<Handled, Status>> + Send>>;
/// A layer.
pub(super) type Wrap = Box<dyn FnOnce(Handlers) -> Handlers + Send>;

pub(super) fn wrap<L>(layer: L) -> Wrap
where
    L: Layer<Handlers> + Send + 'static,
    L::Service: Service<Handling, Response = Handled> + Clone + Send + Sync + 'static,
    <L::Service as Service<Handling>>::Error: Into<BoxError>,
    <L::Service as Service<Handling>>::Future: Send + 'static,
{
    Box::new(move |inner| {
        let service = layer.layer(inner);
        Handlers(Some(Arc::new(move |call: Handling| -> Running {
            let mut service = service.clone();
            Box::pin(async move {
                let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                ready.map_err(|error| status(error.into()))?;
                let handled = service.call(call).await;
                handled.map_err(|error| status(error.into()))
            })
        })))
    })
}

/// The status that an error of a layer is.
fn status(error: BoxError) -> Status {
    let error = match error.downcast::<Status>() {
        Ok(status) => return *status,
        Err(error) => error,
    };
    let text = error.to_string();
    if error.is::<Elapsed>() {
        return Status::deadline_exceeded(text);
    }
    if error.is::<Overloaded>() {
        return Status::resource_exhausted(text).refused();
    }
    Status::unknown(text)
}

impl Service<Handling> for Handlers {
    type Response = Handled;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Handled, Status>> + Send>>;

    /// Always ready: calls have their places before.
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Handling) -> Self::Future {
        match &self.0 {
            Some(wrapped) => wrapped(call),
            None => Box::pin(Inner {
                turn: call.turn,
                cx: Some(call.cx),
            }),
        }
    }
}

impl fmt::Debug for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handling")
            .field("context", &self.cx)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

// ---- beside the handler ---------------------------------------------------------------------------

/// Shared by a call's place in the layers, which may be polled by a task of theirs, and its handler.
#[derive(Default)]
struct Turn {
    state: AtomicU8,
    /// With which the handler begins.
    cx: OnceLock<Context>,
    /// How it ended: its status, if it failed.
    end: OnceLock<Option<Status>>,
    /// Of the call.
    handler: AtomicWaker,
    /// Of its place in the layers.
    layers: AtomicWaker,
}

/// The handler is to begin.
const BEGUN: u8 = 1;
/// It is to end, if it has not: its place in the layers was dropped.
const DROPPED: u8 = 2;

/// The place of a handler in the layers.
struct Inner {
    turn: Arc<Turn>,
    cx: Option<Context>,
}

impl Future for Inner {
    type Output = Result<Handled, Status>;

    fn poll(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        self.turn.layers.register(task.waker());
        if let Some(cx) = self.cx.take() {
            let _ = self.turn.cx.set(cx);
            self.turn.raise(BEGUN);
        }
        match self.turn.end.get() {
            Some(None) => Poll::Ready(Ok(Handled(()))),
            Some(Some(status)) => Poll::Ready(Err(status.clone())),
            None => Poll::Pending,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.turn.raise(DROPPED);
    }
}

impl Turn {
    fn raise(&self, state: u8) {
        // ORDERING: pairs with the load of `run`: the context was set before.
        self.state.store(state, Ordering::Release);
        self.handler.wake();
    }

    fn end(&self, status: Option<Status>) {
        let _ = self.end.set(status);
        self.layers.wake();
    }
}

/// All layers of a server.
pub(super) struct Layered(Arc<Wrapped>);

impl Layered {
    /// `None` without a layer.
    pub(super) fn of(layers: Vec<Wrap>) -> Option<Self> {
        // The last one is the innermost.
        let whole = layers.into_iter().rev();
        let whole = whole.fold(Handlers(None), |inner, wrap| wrap(inner));
        whole.0.map(Self)
    }

    /// Runs a handler as the layers let it.
    pub(super) async fn run<T, F>(
        &self,
        cx: Context,
        handler: impl FnOnce(Context) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let turn = Arc::<Turn>::default();
        let mut layers = (self.0)(Handling {
            cx,
            turn: Arc::clone(&turn),
        });
        let mut handler = Some(handler);
        let mut running = pin!(None::<F>);
        let mut answer = None;
        let ended = poll_fn(|task| {
            turn.handler.register(task.waker());
            loop {
                if let Poll::Ready(ended) = layers.as_mut().poll(task) {
                    return Poll::Ready(ended);
                }
                // ORDERING: pairs with `raise`.
                let state = turn.state.load(Ordering::Acquire);
                if state == DROPPED {
                    running.set(None);
                    return Poll::Pending;
                }
                if state == BEGUN
                    && let Some(cx) = turn.cx.get()
                    && let Some(handler) = handler.take()
                {
                    running.set(Some(handler(cx.clone())));
                }
                let Some(future) = running.as_mut().as_pin_mut() else {
                    return Poll::Pending;
                };
                let Poll::Ready(outcome) = future.poll(task) else {
                    return Poll::Pending;
                };
                running.set(None);
                let outcome = outcome.map(|message| answer = Some(message));
                let outcome = outcome.map_err(Status::of_handler);
                // Its place in the layers is ready by now.
                turn.end(outcome.err());
            }
        })
        .await;
        let has_begun = handler.is_none();
        match (ended, answer) {
            (Ok(_), Some(answer)) => Ok(answer),
            (Err(status), _) if !has_begun => Err(status.before_handler()),
            (Err(status), _) => Err(status.of_handler()),
            // `Handled` of another call.
            (Ok(_), None) => Err(Status::internal(
                "a layer of the server answered for another call",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Code;

    #[test]
    fn an_error_of_a_layer_becomes_the_status_that_it_means() {
        let given = Status::not_found("it");
        assert_eq!(status(given.into()).code(), Code::NOT_FOUND);
        assert_eq!(
            status(Elapsed::new().into()).code(),
            Code::DEADLINE_EXCEEDED
        );
        let shed = status(Overloaded::new().into());
        assert_eq!(shed.code(), Code::RESOURCE_EXHAUSTED);
        assert!(shed.is_retryable());
        let other = status("broken".into());
        assert_eq!((other.code(), other.message()), (Code::UNKNOWN, "broken"));
    }
}
