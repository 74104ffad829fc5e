//! Methods and their handlers.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::bound::{Bound, WhenFull};
use super::context::Context;
use super::method::{Bidirectional, ClientStreaming, Method, ServerStreaming, Unary};
use super::mode::{Free, Local, Mode, Shared};
use super::receiver::Receiver;
use super::run;
use super::sender::Sender;
use super::status::Status;

/// A set of methods with their handlers, for a [`Server`](super::Server).
pub struct Router<M: Mode = Shared> {
    pub(super) methods: FxHashMap<&'static str, Entry<M>>,
    /// The first method that was added twice.
    pub(super) twice: Option<&'static str>,
}

/// A method with its handler.
pub(super) struct Entry<M: Mode> {
    pub(super) name: &'static str,
    pub(super) handler: M::Handler,
    pub(super) codec: u8,
    /// Who streams.
    pub(super) flags: u8,
    pub(super) bound: Option<Arc<Bound>>,
    /// For calls that are ready at once.
    pub(super) in_place: Option<M::NewInPlace>,
    /// The number of its counters.
    pub(super) row: usize,
    pub(super) options: MethodOptions,
}

/// How calls of one method are run.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use ringmux::rpc::{Method, MethodOptions, Raw, Server, WhenFull};
///
/// const HASH: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Hashes/Hash");
///
/// // Two at once, each on a task of its own; a third is refused, and its caller may try elsewhere.
/// let options = MethodOptions::default()
///     .max_calls(2)
///     .when_full(WhenFull::Refuse)
///     .spawn(true);
/// let server = Server::builder()
///     .unary(HASH, async |_, request| Ok(request))
///     .options(HASH, options)
///     .build()?;
/// # drop(server);
/// # Ok::<(), ringmux::rpc::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MethodOptions {
    /// Most calls of it at once, of all sessions; `None` (the default): as many as the server has.
    pub max_calls: Option<usize>,
    /// Whether more wait or are refused.
    pub when_full: WhenFull,
    /// Each call is a task from the start, for handlers that work for long without waiting. Default: false, a handler is polled where
    /// the call was taken, and becomes a task if it waits.
    pub spawn: bool,
}

impl Default for MethodOptions {
    fn default() -> Self {
        Self {
            max_calls: None,
            when_full: WhenFull::Wait,
            spawn: false,
        }
    }
}

impl MethodOptions {
    /// Sets [`max_calls`](Self::max_calls).
    #[must_use]
    pub const fn max_calls(mut self, max_calls: usize) -> Self {
        self.max_calls = Some(max_calls);
        self
    }

    /// Sets [`when_full`](Self::when_full).
    #[must_use]
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets [`spawn`](Self::spawn).
    #[must_use]
    pub const fn spawn(mut self, spawn: bool) -> Self {
        self.spawn = spawn;
        self
    }
}

/// A service: methods that belong together, and their shared state.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use bytes::Bytes;
/// use ringmux::rpc::{Context, Method, Raw, Router, Server, Service, Status};
///
/// const NEXT: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Counter/Next");
///
/// #[derive(Default)]
/// struct Counter(AtomicU64);
///
/// impl Counter {
///     async fn next(&self, _: &Context, _: Bytes) -> Result<Bytes, Status> {
///         let next = self.0.fetch_add(1, Ordering::Relaxed);
///         Ok(next.to_string().into())
///     }
/// }
///
/// impl Service for Counter {
///     const NAME: &'static str = "example.v1.Counter";
///
///     fn register(self: Arc<Self>, router: &mut Router) {
///         router.unary(NEXT, move |cx, request| {
///             let service = Arc::clone(&self);
///             async move { service.next(&cx, request).await }
///         });
///     }
/// }
///
/// let server = Server::builder().add(Counter::default()).build()?;
/// # drop(server);
/// # Ok::<(), ringmux::rpc::BuildError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no service",
    note = "for an implementation of a trait with `#[ringmux::service]`, such as `trait Bank`, write `add(BankServer::new(…))`"
)]
pub trait Service: Send + Sync + 'static {
    /// The name, such as `bank.v1.Bank`: what is before the `/` in the names of its methods.
    const NAME: &'static str;

    /// Adds its methods.
    fn register(self: Arc<Self>, router: &mut Router);
}

impl<M: Mode> Router<M> {
    /// Without a method.
    #[must_use]
    pub fn new() -> Self {
        Self {
            methods: FxHashMap::default(),
            twice: None,
        }
    }

    fn insert(
        &mut self,
        (name, codec, flags): (&'static str, u8, u8),
        handler: M::Handler,
        in_place: Option<M::NewInPlace>,
    ) {
        let entry = Entry {
            name,
            handler,
            codec,
            flags,
            bound: None,
            in_place,
            row: 0,
            options: MethodOptions::default(),
        };
        if self.methods.insert(name, entry).is_some() {
            self.twice.get_or_insert(name);
        }
    }

    /// Sets how calls of a method are run that was added before; one that was not is passed over.
    /// [`build`](super::ServerBuilder::build) refuses a bound of 0 calls.
    pub fn options(&mut self, method: &str, options: MethodOptions) {
        if let Some(entry) = self.methods.get_mut(method) {
            entry.bound = options
                .max_calls
                .map(|limit| Bound::new(limit, options.when_full));
            entry.options = options;
        }
    }

    /// The names of the methods, in no order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.methods.keys().copied()
    }
}

macro_rules! handlers {
    ($mode:ident, $pointer:ident, $send:ident, $sync:ident) => {
        impl Router<$mode> {
            handlers! {
                $mode, $pointer, $send, $sync;
                /// Serves a method with one request and one answer.
                unary: Unary => Resp, (request: Req);
                /// Serves a method with one request and a stream of answers.
                server_streaming: ServerStreaming => (), (request: Req, sender: Sender<Resp>);
                /// Serves a method with a stream of requests and one answer.
                client_streaming: ClientStreaming => Resp, (receiver: Receiver<Req>);
                /// Serves a method with a stream of requests and a stream of answers.
                bidirectional: Bidirectional => (), (receiver: Receiver<Req>, sender: Sender<Resp>);
            }
        }
    };
    (
        $mode:ident, $pointer:ident, $send:ident, $sync:ident;
        $($(#[$doc:meta])* $name:ident: $kind:ident => $output:ty, ($($arg:ident: $type:ty),+);)+
    ) => {
        $($(#[$doc])*
        pub fn $name<Req, Resp, H, F>(
            &mut self,
            method: Method<Req, Resp, $kind>,
            handler: H,
        ) -> &mut Self
        where
            Req: 'static + $send,
            Resp: 'static + $send,
            H: Fn(Context, $($type),+) -> F + 'static + $send + $sync,
            F: Future<Output = Result<$output, Status>> + 'static + $send,
        {
            let handler = $pointer::new(handler);
            let in_place = $mode::$name(&handler, method);
            let start = move |call: super::mode::Taken| -> <$mode as Mode>::Call {
                let handler = $pointer::clone(&handler);
                let handler = move |cx, $($arg: $type),+| handler(cx, $($arg),+);
                Box::pin(run::$name(call.0, method, handler))
            };
            let named = (method.name, method.codec, method.flags());
            self.insert(named, $pointer::new(start), in_place);
            self
        })+
    };
}

handlers!(Shared, Arc, Send, Sync);
handlers!(Local, Rc, Free, Free);

impl<M: Mode> Default for Router<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Mode> fmt::Debug for Router<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
