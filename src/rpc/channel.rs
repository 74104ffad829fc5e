//! Where calls go.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::metadata::Metadata;
use super::metrics::{ChannelRows, MethodMetrics};
use super::retry::Retry;
use super::status::Status;
use crate::handle::Session;
#[cfg(feature = "manage")]
use crate::manage::Manager;

/// How long a unary call may take, unless something else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Where calls go: a [`Session`], or with the feature `manage` a `Manager`, whose session with the least to do
/// takes each call.
///
/// Cheap to clone, and all clones are the same channel; calls need `&self` only. Either side of a session can have one:
/// see [`Context::channel`](super::Context::channel).
///
/// Calls that wait for a session, for a stream, or for a retry use tokio's clock. Where no runtime of tokio with time enabled is entered, as
/// under [`EngineBuilder::block_on`](crate::EngineBuilder::block_on) of [`Driver::Uring`](crate::Driver::Uring), they fail with
/// [`Code::FAILED_PRECONDITION`](super::Code::FAILED_PRECONDITION) if they have a deadline.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use ringmux::rpc::{Channel, Code, Context, Method, Raw, Server, Status};
///
/// const DOUBLE: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Numbers/Double");
///
/// async fn double(_: Context, text: Bytes) -> Result<Bytes, Status> {
///     let number: i64 = std::str::from_utf8(&text)
///         .ok()
///         .and_then(|text| text.parse().ok())
///         .ok_or_else(|| Status::invalid_argument("not a number"))?;
///     Ok((number * 2).to_string().into())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringmux::Error> {
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let addr = listener.local_addr().to_string();
/// let server = Server::builder().unary(DOUBLE, double).build().expect("each method once");
/// tokio::spawn(async move { server.serve(listener).await });
///
/// let channel = Channel::new(ringmux::connect(addr).await?);
/// assert_eq!(channel.call(&DOUBLE, &"21".into()).await?, "42");
///
/// let status = channel.call(&DOUBLE, &"x".into()).await.unwrap_err();
/// assert_eq!((status.code(), status.message()), (Code::INVALID_ARGUMENT, "not a number"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

/// A call that is about to be made, as interceptors see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outgoing {
    /// `service/method`.
    pub method: &'static str,
    /// What goes along.
    pub metadata: Metadata,
    /// How long the call may take from here on, on both sides; `None`: no other limit than it has. A longer one does not prolong it.
    pub timeout: Option<Duration>,
}

pub(super) struct Inner {
    pub(super) target: Target,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<Retry>,
    pub(super) interceptors: Vec<Interceptor>,
    pub(super) rows: ChannelRows,
}

pub(super) type Interceptor = Arc<
    dyn Fn(Outgoing) -> std::pin::Pin<Box<dyn Future<Output = Result<Outgoing, Status>> + Send>>
        + Send
        + Sync,
>;

#[derive(Clone)]
pub(super) enum Target {
    Session(Session),
    #[cfg(feature = "manage")]
    Manager(Manager),
}

impl Channel {
    /// A channel with the defaults: 30 s for a unary call, no retries.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self::builder(session).build()
    }

    /// Sets what is not the default.
    pub fn builder(target: impl Into<ChannelTarget>) -> ChannelBuilder {
        ChannelBuilder(Inner {
            target: target.into().0,
            timeout: Some(TIMEOUT_DEFAULT),
            retry: None,
            interceptors: Vec::new(),
            rows: ChannelRows::default(),
        })
    }

    /// Counts and times of the calls over this channel, by method: of those that had a call, in the order of their names.
    ///
    /// A call begins when it is awaited or opened, and is counted once, however often it is tried.
    #[must_use]
    pub fn metrics(&self) -> Vec<MethodMetrics> {
        self.0.rows.snapshot()
    }

    /// The same for as long as the channel is there, without keeping it.
    #[cfg(feature = "metrics")]
    pub(crate) fn weak_metrics(
        &self,
    ) -> impl Fn() -> Option<Vec<MethodMetrics>> + Send + Sync + use<> {
        let inner = Arc::downgrade(&self.0);
        move || Some(inner.upgrade()?.rows.snapshot())
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }
}

/// What a channel can be made of; see [`Channel::builder`].
#[derive(Debug)]
pub struct ChannelTarget(Target);

impl From<Session> for ChannelTarget {
    fn from(session: Session) -> Self {
        Self(Target::Session(session))
    }
}

#[cfg(feature = "manage")]
impl From<Manager> for ChannelTarget {
    fn from(manager: Manager) -> Self {
        Self(Target::Manager(manager))
    }
}

impl<T: Into<ChannelTarget>> From<T> for Channel {
    fn from(target: T) -> Self {
        Self::builder(target).build()
    }
}

/// Makes a [`Channel`].
#[must_use]
pub struct ChannelBuilder(Inner);

impl ChannelBuilder {
    /// How long a unary call may take that says nothing else; `None`: no limit. Default 30 s. Streaming calls have none.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.timeout = timeout.into();
        self
    }

    /// Tries unary calls again that were not processed, within their time. Default: not at all.
    ///
    /// It is of use over a `Manager`, which has another session after one that has ended.
    ///
    /// # Examples
    #[cfg_attr(feature = "manage", doc = "```")]
    #[cfg_attr(not(feature = "manage"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmux::manage::{Dial, Manager};
    /// use ringmux::rpc::{Channel, Retry};
    /// use ringmux::{Config, Engine};
    ///
    /// let dial = Dial::new(Engine::current()?, "tcp://127.0.0.1:4500".parse()?, Config::default());
    /// let manager = Manager::builder(dial).build()?;
    /// let running = tokio::spawn(manager.start()?); // without this each call fails with NotStarted
    /// let channel = Channel::builder(manager.clone()).retry(Retry::new(5)).build();
    /// # manager.close();
    /// # running.await?;
    /// # drop(channel);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = Some(retry);
        self
    }

    /// Runs before each call, in the order in which they were added: adds metadata, changes the timeout, or fails the call.
    /// It runs once, however often a call is tried, within the time of the call.
    ///
    /// # Examples
    /// ```
    /// # fn make(session: ringmux::Session) -> ringmux::rpc::Channel {
    /// use ringmux::rpc::Channel;
    ///
    /// Channel::builder(session)
    ///     .intercept(|mut call| async move {
    ///         call.metadata.insert("authorization", "secret")?;
    ///         Ok(call)
    ///     })
    ///     .build()
    /// # }
    /// ```
    pub fn intercept<F, Fut>(mut self, interceptor: F) -> Self
    where
        F: Fn(Outgoing) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outgoing, Status>> + Send + 'static,
    {
        let interceptor: Interceptor = Arc::new(move |call| Box::pin(interceptor(call)));
        self.0.interceptors.push(interceptor);
        self
    }

    /// The channel.
    #[must_use]
    pub fn build(self) -> Channel {
        Channel(Arc::new(self.0))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session) => session.fmt(f),
            #[cfg(feature = "manage")]
            Self::Manager(manager) => manager.fmt(f),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("target", &self.0.target)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("target", &self.0.target)
            .finish_non_exhaustive()
    }
}
