//! Serving calls.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::bound::{Bound, WhenFull};
use super::context::Context;
use super::held::{Common, Counters, Interceptor};
#[cfg(feature = "rpc-tower")]
use super::layer::{Handled, Handlers, Handling, Layered, Wrap, wrap};
use super::method::{Bidirectional, ClientStreaming, Method, ServerStreaming, Unary};
use super::metrics::{MethodMetrics, ServerRows};
use super::mode::{Free, Local, Mode, Shared};
use super::receiver::Receiver;
use super::router::{MethodOptions, Router, Service};
use super::sender::Sender;
use super::serve::{Core, check_runtime, serve_session};
use super::status::Status;
use crate::connect::{ListenError, Listener};
use crate::error::SessionError;
use crate::handle::Session;

/// Calls of a server that run at once, unless something else is said.
const MAX_CALLS: usize = 4096;
/// Calls of a session that run at once, unless something else is said.
const MAX_SESSION_CALLS: usize = 256;

/// Serves calls: over a listener's sessions, or over one session, of which either side may be a server.
///
/// A handler is polled where its call was taken, and becomes a task of its own only if it waits; so those that are ready at once
/// cost neither task nor timer. One that panics fails its own call with [`Code::INTERNAL`](super::Code::INTERNAL). A handler is dropped when its caller
/// cancels, when the deadline passes, and when the session ends: see [`Context::cancelled`] for those that clean up.
///
/// Handlers run inside of a tokio runtime with time enabled, also where the engine hosts futures itself
/// ([`EngineBuilder::block_on`](crate::EngineBuilder::block_on) of [`Driver::Uring`](crate::Driver::Uring)): enter one there. Those that are not `Send` are for [`Server::local`].
///
/// Cheap to clone; clones are the same server. See [`Channel`](super::Channel) for an example of both sides.
pub struct Server<M: Mode = Shared>(Arc<Core<M>>);

/// Makes a [`Server`].
#[must_use]
pub struct ServerBuilder<M: Mode = Shared> {
    router: Router<M>,
    options: Vec<(&'static str, MethodOptions)>,
    interceptors: Vec<Interceptor>,
    #[cfg(feature = "rpc-tower")]
    layers: Vec<Wrap>,
    max_calls: usize,
    max_session_calls: usize,
    when_full: WhenFull,
}

/// Why a [`Server`] cannot be made.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use ringmux::rpc::{BuildError, Method, Raw, Server};
///
/// const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Echo/Echo");
///
/// let twice = Server::builder()
///     .unary(ECHO, async |_, request| Ok(request))
///     .unary(ECHO, async |_, request| Ok(request));
/// assert_eq!(twice.build().unwrap_err(), BuildError::Twice("example.v1.Echo/Echo"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A method was added twice.
    #[error("the method {0} was added twice")]
    Twice(&'static str),
    /// Options for a method that was not added.
    #[error("there are options for the method {0}, which was not added")]
    Missing(&'static str),
    /// A bound that lets no call run.
    #[error("a bound of 0 calls lets none run")]
    NoPlaces,
}

/// What a server has done: from [`Server::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Calls that were taken.
    pub calls: u64,
    /// Calls that run.
    pub in_flight: u64,
    /// Calls that ended with a status, of a handler or of the library.
    pub failed: u64,
    /// Of these, those whose handler has not run: no place, no such method, too late.
    pub refused: u64,
    /// Of these, those whose time had run out by then.
    pub late: u64,
    /// Of the failed ones, those whose handler panicked.
    pub panicked: u64,
    /// Calls whose caller gave them up, also where the handler learned it from an error of its [`Sender`], or whose handler was ended by
    /// the deadline.
    pub cancelled: u64,
}

impl Server {
    /// A builder that starts from the defaults.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// A builder of a server whose handlers need not be `Send`; it is served inside of a [`LocalSet`](tokio::task::LocalSet). It takes
    /// closures by method; services of traits, whose futures are `Send`, are for [`builder`](Self::builder).
    ///
    /// # Examples
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    ///
    /// use bytes::Bytes;
    /// use ringmux::rpc::{Channel, Method, Raw, Server};
    ///
    /// const NEXT: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Counter/Next");
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(4096);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (session, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// let counter = Rc::new(Cell::new(0));
    /// let handler = move |_, _| {
    ///     counter.set(counter.get() + 1);
    ///     let answer = counter.get().to_string();
    ///     async move { Ok(answer.into()) }
    /// };
    /// let server = Server::local().unary(NEXT, handler).build()?;
    /// let channel = Channel::new(client);
    /// tokio::task::LocalSet::new()
    ///     .run_until(async move {
    ///         tokio::task::spawn_local(async move { server.serve_session(session).await });
    ///         assert_eq!(channel.call(&NEXT, &Bytes::new()).await?, "1");
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn local() -> ServerBuilder<Local> {
        ServerBuilder::new()
    }
}

impl<M: Mode> Server<M> {
    /// Serves the calls that the peer makes over a session, until the session ends.
    ///
    /// Returns when no call can come any more; those that run have been told, and are not waited for.
    ///
    /// # Errors
    /// Why the session ended, unless in order. [`SessionError::Io`] at once where no runtime of tokio is entered, and for a server that is
    /// [local](Server::local) outside of a [`LocalSet`](tokio::task::LocalSet).
    ///
    /// # Cancel safety
    /// Dropping the future takes no more calls; those that run as tasks go on.
    pub async fn serve_session(&self, session: Session) -> Result<(), SessionError> {
        serve_session(&self.0, session).await
    }

    /// What the server has done.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let common = &self.0.common;
        let counters = &common.counters;
        ServerStats {
            calls: common.rows.started(),
            in_flight: common.bound.used() as u64,
            failed: counters.failed.get(),
            refused: counters.refused.get(),
            late: counters.late.get(),
            panicked: counters.panicked.get(),
            cancelled: counters.cancelled.get(),
        }
    }
}

impl<M: Mode> Server<M> {
    /// Counts and times of the calls of each method that had one, in the order of their names: of methods that the server does not have,
    /// in one row without a name. See [`MethodMetrics`] for an example.
    #[must_use]
    pub fn metrics(&self) -> Vec<MethodMetrics> {
        self.0.common.rows.snapshot()
    }

    /// The same for as long as the server is there, without keeping it.
    #[cfg(feature = "metrics")]
    pub(crate) fn weak_metrics(
        &self,
    ) -> impl Fn() -> Option<Vec<MethodMetrics>> + Send + Sync + use<M> {
        let common = Arc::downgrade(&self.0.common);
        move || Some(common.upgrade()?.rows.snapshot())
    }
}

impl<M: Mode> ServerBuilder<M> {
    fn new() -> Self {
        Self {
            router: Router::new(),
            options: Vec::new(),
            interceptors: Vec::new(),
            #[cfg(feature = "rpc-tower")]
            layers: Vec::new(),
            max_calls: MAX_CALLS,
            max_session_calls: MAX_SESSION_CALLS,
            when_full: WhenFull::Wait,
        }
    }

    /// Adds a whole router.
    pub fn merge(mut self, router: Router<M>) -> Self {
        self.router.twice = self.router.twice.or(router.twice);
        for (name, entry) in router.methods {
            if self.router.methods.insert(name, entry).is_some() {
                self.router.twice.get_or_insert(name);
            }
        }
        self
    }

    /// How calls of a method are run.
    pub fn options<Req, Resp, K: super::Kind>(
        mut self,
        method: Method<Req, Resp, K>,
        options: MethodOptions,
    ) -> Self {
        self.options.push((method.name(), options));
        self
    }

    /// Most calls at once, of all sessions. Default 4096.
    pub fn max_calls(mut self, max_calls: usize) -> Self {
        self.max_calls = max_calls;
        self
    }

    /// Most calls of one session at once. Default 256.
    pub fn max_session_calls(mut self, max_calls: usize) -> Self {
        self.max_session_calls = max_calls;
        self
    }

    /// Whether more calls wait or are refused, of the server or of a session. Default: they [wait](WhenFull::Wait), for which the server
    /// stops accepting, so that credit stays away and callers wait.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Runs before each handler, in the order in which they were added: fails the call, which then was not processed, or gives the handler's
    /// context, perhaps with a value ([`Context::with_value`]).
    ///
    /// # Examples
    /// ```
    /// use ringmux::rpc::{Context, Server, Status};
    ///
    /// struct Caller(String);
    ///
    /// let builder = Server::builder().intercept(|cx: Context| async move {
    ///     match cx.metadata().get_str("authorization") {
    ///         Some("secret") => Ok(cx.with_value(Caller("a".to_owned()))),
    ///         _ => Err(Status::unauthenticated("who are you?")),
    ///     }
    /// });
    /// # drop(builder);
    /// ```
    pub fn intercept<F, Fut>(mut self, interceptor: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Context, Status>> + Send + 'static,
    {
        let interceptor: Interceptor = Arc::new(move |cx| Box::pin(interceptor(cx)));
        self.interceptors.push(interceptor);
        self
    }

    /// Runs all handlers inside of a layer of tower, behind the interceptors; the first that is added is the outermost. Feature
    /// `rpc-tower`.
    ///
    /// The layer is made once, and its service is cloned for each call: all clones have to share its state, as those of
    /// tower do. A layer decides by the call's [context](Handling::context), of which the messages are no part: when a handler begins,
    /// with which context, how long it may take, and the fate of its status. An error of it that is a [`Status`] ends the call with that;
    /// `Elapsed` of tower's `timeout` is [`Code::DEADLINE_EXCEEDED`](super::Code::DEADLINE_EXCEEDED), `Overloaded` of its `load_shed`
    /// [`Code::RESOURCE_EXHAUSTED`](super::Code::RESOURCE_EXHAUSTED), every other one [`Code::UNKNOWN`](super::Code::UNKNOWN) with its text.
    /// An error before the handler has begun says that the call was not processed.
    ///
    /// A call costs some allocations more for each layer; without a layer it costs nothing more.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringmux::rpc::Server;
    /// use tower::ServiceBuilder;
    ///
    /// let layers = ServiceBuilder::new()
    ///     .load_shed()
    ///     .concurrency_limit(64)
    ///     .timeout(Duration::from_secs(1))
    ///     .into_inner();
    /// let builder = Server::builder().layer(layers);
    /// # drop(builder);
    /// ```
    #[cfg(feature = "rpc-tower")]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: tower::Layer<Handlers> + Send + 'static,
        L::Service: tower::Service<Handling, Response = Handled> + Clone + Send + Sync + 'static,
        <L::Service as tower::Service<Handling>>::Error: Into<tower::BoxError>,
        <L::Service as tower::Service<Handling>>::Future: Send + 'static,
    {
        self.layers.push(wrap(layer));
        self
    }

    /// The server.
    ///
    /// # Errors
    /// [`BuildError`]: a method twice, options for a method that is not there, a bound of 0.
    pub fn build(mut self) -> Result<Server<M>, BuildError> {
        if let Some(name) = self.router.twice {
            return Err(BuildError::Twice(name));
        }
        for (name, options) in self.options {
            if !self.router.methods.contains_key(name) {
                return Err(BuildError::Missing(name));
            }
            self.router.options(name, options);
        }
        // Also of options that a router or a service has set.
        let mut methods = self.router.methods.values();
        let none = methods.any(|entry| entry.options.max_calls == Some(0));
        if none || self.max_calls == 0 || self.max_session_calls == 0 {
            return Err(BuildError::NoPlaces);
        }
        let rows = ServerRows::new(self.router.names());
        for (index, entry) in self.router.methods.values_mut().enumerate() {
            entry.row = index + 1;
        }
        Ok(Server(Arc::new(Core {
            methods: self.router.methods,
            max_session_calls: self.max_session_calls,
            common: Arc::new(Common {
                bound: Bound::new(self.max_calls, self.when_full),
                counters: Counters::default(),
                rows,
                interceptors: self.interceptors,
                #[cfg(feature = "rpc-tower")]
                layers: Layered::of(self.layers),
            }),
        })))
    }
}

impl ServerBuilder {
    /// Adds a service.
    #[expect(clippy::should_implement_trait, reason = "what is added is no builder")]
    pub fn add<S: Service>(self, service: S) -> Self {
        self.add_shared(Arc::new(service))
    }

    /// Adds a service that others hold as well.
    pub fn add_shared<S: Service>(mut self, service: Arc<S>) -> Self {
        service.register(&mut self.router);
        self
    }
}

macro_rules! modes {
    ($mode:ident, $spawn:ident, $send:ident, $sync:ident) => {
        impl Server<$mode> {
            /// Serves the sessions of a listener, each in a task of its own, until the listener is
            /// [shut down](Listener::shutdown) and its sessions have ended.
            ///
            /// It takes no more sessions from the beginning of the shutdown on, and returns at its end: when the calls in flight
            /// have been answered, or 1 s after the grace at the latest. So a program whose `main` awaits `serve` may return then. A
            /// handler that the end of the grace has ended may still [clean up](Context::cancelled).
            ///
            /// # Examples
            /// ```no_run
            /// use std::sync::Arc;
            /// use std::time::Duration;
            ///
            /// use ringmux::rpc::Server;
            ///
            /// # async fn stop_signal() {}
            /// # #[tokio::main]
            /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let listener = Arc::new(ringmux::listen("tcp://127.0.0.1:4500").await?);
            /// let stopping = Arc::clone(&listener);
            /// tokio::spawn(async move {
            ///     stop_signal().await; // such as `tokio::signal::ctrl_c()`
            ///     stopping.shutdown(Duration::from_secs(10)).await;
            /// });
            /// let server = Server::builder().build()?;
            /// server.serve(listener).await?; // calls in flight have ended when it returns
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            /// As [`Listener::accept`], but for the shutdown. [`ListenError::Io`] at once where no runtime of tokio is entered, and for a
            /// server that is [local](Server::local) outside of a [`LocalSet`](tokio::task::LocalSet).
            ///
            /// # Cancel safety
            /// Dropping the future takes no more sessions; those that were taken are served on.
            pub async fn serve(&self, listener: impl Borrow<Listener>) -> Result<(), ListenError> {
                if let Err(error) = check_runtime::<$mode>() {
                    let addr = listener.borrow().local_addr().clone();
                    return Err(ListenError::Io { addr, error });
                }
                loop {
                    let session = match listener.borrow().accept().await {
                        Ok(session) => session,
                        Err(ListenError::ShutDown) => break,
                        Err(error) => return Err(error),
                    };
                    let server = self.clone();
                    tokio::task::$spawn(async move {
                        // How it ended is in the session's own log.
                        let _ = server.serve_session(session).await;
                    });
                }
                // The same end as that of the call that began it: of several graces the smallest is kept.
                listener.borrow().shutdown(Duration::MAX).await;
                Ok(())
            }
        }

        impl ServerBuilder<$mode> {
            modes! {
                $send, $sync;
                /// Serves a method with one request and one answer.
                unary: Unary => Resp, (Req);
                /// Serves a method with one request and a stream of answers.
                server_streaming: ServerStreaming => (), (Req, Sender<Resp>);
                /// Serves a method with a stream of requests and one answer.
                client_streaming: ClientStreaming => Resp, (Receiver<Req>);
                /// Serves a method with a stream of requests and a stream of answers.
                bidirectional: Bidirectional => (), (Receiver<Req>, Sender<Resp>);
            }
        }
    };
    (
        $send:ident, $sync:ident;
        $($(#[$doc:meta])* $name:ident: $kind:ident => $output:ty, ($($type:ty),+);)+
    ) => {
        $($(#[$doc])*
        pub fn $name<Req, Resp, H, F>(
            mut self,
            method: Method<Req, Resp, $kind>,
            handler: H,
        ) -> Self
        where
            Req: 'static + $send,
            Resp: 'static + $send,
            H: Fn(Context, $($type),+) -> F + 'static + $send + $sync,
            F: Future<Output = Result<$output, Status>> + 'static + $send,
        {
            self.router.$name(method, handler);
            self
        })+
    };
}

modes!(Shared, spawn, Send, Sync);
modes!(Local, spawn_local, Free, Free);

impl<M: Mode> Clone for Server<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Mode> fmt::Debug for Server<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("methods", &self.0.methods.len())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<M: Mode> fmt::Debug for ServerBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("router", &self.router)
            .finish_non_exhaustive()
    }
}
