//! Where handlers run: on any thread, or on the one that serves.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::catch_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::incoming::Incoming;
use super::places::Waited;
use super::warm::Warm;
use crate::handle::call::IncomingCall;

mod sealed {
    pub trait Sealed {}
}

/// Where the handlers of a server run: [`Shared`] or [`Local`].
pub trait Mode: sealed::Sealed + Sized + 'static {
    /// A call that runs.
    #[doc(hidden)]
    type Call: Future<Output = ()> + Unpin + 'static;
    /// What makes one of a stream.
    #[doc(hidden)]
    type Handler: Clone + 'static;

    /// What runs unary calls of a method that are ready at once, and what makes one.
    #[doc(hidden)]
    type InPlace: DerefMut<Target: InPlace<Self>> + 'static;
    #[doc(hidden)]
    type NewInPlace: Deref<Target: Fn() -> Self::InPlace> + 'static;

    #[doc(hidden)]
    fn start(handler: &Self::Handler, call: Taken) -> Self::Call;

    /// A call that first waits for a place.
    #[doc(hidden)]
    fn start_later(handler: &Self::Handler, call: Taken, wait: Waited) -> Self::Call;

    /// Whether [`spawn`](Self::spawn) can be called here, inside of a runtime.
    #[doc(hidden)]
    fn can_spawn() -> bool;

    #[doc(hidden)]
    fn spawn(call: Self::Call);
}

/// A method's handler, with memory for one future of it.
#[doc(hidden)]
pub trait InPlace<M: Mode> {
    /// Runs a call as far as it goes; a handler that waits goes on as a task. An answer that is still to be sent comes back.
    #[doc(hidden)]
    fn run(&mut self, warm: &mut Warm, call: Here) -> Option<M::Call>;

    /// Bytes that it keeps from one call to the next.
    #[doc(hidden)]
    fn keeps(&self) -> usize;
}

/// A call in one frame that is served where it was taken.
#[doc(hidden)]
pub struct Here(pub(super) IncomingCall);

/// A stream that is a call.
#[doc(hidden)]
pub struct Taken(pub(super) Incoming);

/// Handlers are `Send`: they are tasks of the runtime, on any of its threads.
#[derive(Clone, Copy, Debug)]
pub enum Shared {}

/// Handlers need not be `Send`: they run on the thread that serves, in a [`LocalSet`](tokio::task::LocalSet).
#[derive(Clone, Copy, Debug)]
pub enum Local {}

impl sealed::Sealed for Shared {}
impl sealed::Sealed for Local {}

/// Everything: where [`Shared`] asks for `Send`, [`Local`] asks for this.
#[doc(hidden)]
pub trait Free {}

impl<T: ?Sized> Free for T {}

macro_rules! modes {
    ($($mode:ident: $pointer:ident, $spawn:ident, $can:expr, { $($bounds:tt)* }, { $($handler:tt)* };)+) => {
        $(impl Mode for $mode {
            type Call = Pin<Box<dyn Future<Output = ()> $($bounds)* + 'static>>;
            type InPlace = Box<dyn InPlace<Self> $($bounds)* + 'static>;
            type NewInPlace = $pointer<dyn Fn() -> Self::InPlace $($handler)* + 'static>;
            type Handler = $pointer<dyn Fn(Taken) -> Self::Call $($handler)* + 'static>;

            fn start(handler: &Self::Handler, call: Taken) -> Self::Call {
                handler(call)
            }

            fn start_later(handler: &Self::Handler, call: Taken, wait: Waited) -> Self::Call {
                let handler = handler.clone();
                Box::pin(async move {
                    let mut call = call.0;
                    if wait.wait(&mut call).await.is_ok() {
                        handler(Taken(call)).await;
                    }
                })
            }

            fn can_spawn() -> bool {
                $can
            }

            fn spawn(call: Self::Call) {
                drop(tokio::task::$spawn(call));
            }
        })+
    };
}

modes! {
    Shared: Arc, spawn, true, { + Send }, { + Send + Sync };
    Local: Rc, spawn_local, has_local_set(), {}, {};
}

/// tokio offers no way to ask but to try; its panic is caught after the panic hook has printed it.
fn has_local_set() -> bool {
    catch_unwind(|| drop(tokio::task::spawn_local(async {}))).is_ok()
}

impl fmt::Debug for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Here").finish_non_exhaustive()
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}
