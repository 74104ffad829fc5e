//! A call, from the caller's side.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

#[cfg(feature = "manage")]
use super::channel::no_clock;
use super::channel::{Channel, Outgoing, Target};
use super::code::Code;
use super::codec::Decoding;
use super::context::Context;
use super::dialect;
use super::exchange::{Begins, Exchange, Outcome, Request, Response};
use super::metadata::{Metadata, MetadataError};
use super::method::{Bidirectional, ClientStreaming, Kind, Method, ServerStreaming, Unary};
use super::metrics::Seen;
use super::receiver::{Parent, cancel_code, within};
use super::span::{self, CallSpan};
use super::status::Status;
use super::timer::Timer;
use super::wire::Opening;
use crate::addr::Wire;
use crate::error::Processed;
use crate::handle::Session;

/// The beginnings of calls.
impl Channel {
    /// A call with one request and one answer. It begins when it is awaited.
    pub fn call<'a, Req, Resp>(
        &'a self,
        method: &Method<Req, Resp, Unary>,
        request: &'a Req,
    ) -> Call<'a, Req, Resp, Unary> {
        Call::new(self, *method, Some(request))
    }

    /// A call with one request and a stream of answers; [`open`](Call::open) begins it.
    pub fn server_streaming<'a, Req, Resp>(
        &'a self,
        method: &Method<Req, Resp, ServerStreaming>,
        request: &'a Req,
    ) -> Call<'a, Req, Resp, ServerStreaming> {
        Call::new(self, *method, Some(request))
    }

    /// A call with a stream of requests and one answer; [`open`](Call::open) begins it.
    pub fn client_streaming<Req, Resp>(
        &self,
        method: &Method<Req, Resp, ClientStreaming>,
    ) -> Call<'_, Req, Resp, ClientStreaming> {
        Call::new(self, *method, None)
    }

    /// A call with streams in both directions; [`open`](Call::open) begins it.
    pub fn bidirectional<Req, Resp>(
        &self,
        method: &Method<Req, Resp, Bidirectional>,
    ) -> Call<'_, Req, Resp, Bidirectional> {
        Call::new(self, *method, None)
    }
}

/// A call that is being made: from [`Channel::call`] and its relatives. A unary one is awaited, the others are
/// [opened](Self::open).
///
/// A unary one is [`IntoFuture`], not a future: `join_all` or `FuturesUnordered` take it as `call.into_future()`, or as
/// [`call.detach()`](Self::detach), which borrows nothing. A streaming one has no deadline unless [`timeout`](Self::timeout) gives it one:
/// over a `Manager` whose server is not there, `open` waits without end.
///
/// # Examples
/// ```
/// # use bytes::Bytes;
/// # use ringmux::rpc::{Channel, Context, Method, Raw, Status};
/// # const GET: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Store/Get");
/// # async fn handler(channel: Channel, cx: Context) -> Result<(), Status> {
/// use std::time::Duration;
///
/// let answer = channel
///     .call(&GET, &"key".into())
///     .timeout(Duration::from_millis(20))
///     .metadata("tenant", "a")
///     .parent(&cx) // no later than that call has to be over, and cancelled with it
///     .await?;
/// # drop(answer);
/// # Ok(())
/// # }
/// # let _ = handler;
/// ```
#[must_use = "a call does nothing until it is awaited or opened"]
pub struct Call<'a, Req, Resp, K> {
    pub(super) channel: &'a Channel,
    pub(super) method: Method<Req, Resp, K>,
    pub(super) request: Option<&'a Req>,
    options: Options<'a>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Default)]
struct Options<'a> {
    /// `Some(None)`: no limit.
    timeout: Option<Option<Duration>>,
    metadata: Option<Box<Metadata>>,
    wrong: Option<MetadataError>,
    parent: Option<&'a Context>,
    urgency: Option<u8>,
}

impl<'a, Req, Resp, K: Kind> Call<'a, Req, Resp, K> {
    pub(super) fn new(
        channel: &'a Channel,
        method: Method<Req, Resp, K>,
        request: Option<&'a Req>,
    ) -> Self {
        Self {
            channel,
            method,
            request,
            options: Options::default(),
            kind: PhantomData,
        }
    }

    /// How long the call may take; `None`: no limit. The server is told, and both sides end the call then.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.timeout = Some(timeout.into());
        self
    }

    /// Adds metadata. What [`Metadata::insert`] refuses fails the call, before anything is sent.
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let metadata = self.options.metadata.get_or_insert_default();
        let inserted = metadata.insert(key, value);
        self.options.wrong = self.options.wrong.or(inserted.err());
        self
    }

    /// Adds metadata that was made before.
    pub fn with_metadata(mut self, metadata: &Metadata) -> Self {
        let own = self.options.metadata.get_or_insert_default();
        let added = own.extend(metadata);
        self.options.wrong = self.options.wrong.or(added.err());
        self
    }

    /// The call that this one is made for: it ends no later than that one, is cancelled with it, and carries its trace context (the
    /// keys `traceparent` and `tracestate`).
    pub fn parent(mut self, cx: &'a Context) -> Self {
        self.options.parent = Some(cx);
        self
    }

    /// How urgently the request is sent: 0 (most) to 7 (least), default 3.
    pub fn urgency(mut self, urgency: u8) -> Self {
        self.options.urgency = Some(urgency);
        self
    }

    /// The call without its types, and its span; or the reason why it cannot begin.
    pub(super) fn prepare(
        &mut self,
        default: Option<Duration>,
    ) -> Result<(Prepared, CallSpan), Status> {
        let options = std::mem::take(&mut self.options);
        options.prepare(&self.method, default)
    }
}

impl Options<'_> {
    #[inline]
    fn prepare<Req, Resp, K: Kind>(
        self,
        method: &Method<Req, Resp, K>,
        default: Option<Duration>,
    ) -> Result<(Prepared, CallSpan), Status> {
        let mut prepared = Prepared {
            name: method.name,
            flags: method.flags(),
            codec: method.codec,
            timeout: self.timeout.unwrap_or(default),
            metadata: self.metadata,
            urgency: self.urgency,
            parent: None,
        };
        let plain = self.wrong.is_none() && self.parent.is_none() && prepared.metadata.is_none();
        let mut span = CallSpan::none();
        if !plain || CallSpan::ENABLED {
            span = prepared.complete(self.wrong, self.parent)?;
        }
        match prepared.timeout {
            Some(Duration::ZERO) => Err(Status::given_up(Code::DEADLINE_EXCEEDED, Processed::No)),
            _ => Ok((prepared, span)),
        }
    }
}

/// A call without its types.
pub(super) struct Prepared {
    pub(super) name: &'static str,
    pub(super) flags: u8,
    pub(super) codec: u8,
    pub(super) timeout: Option<Duration>,
    pub(super) metadata: Option<Box<Metadata>>,
    pub(super) urgency: Option<u8>,
    pub(super) parent: Option<Context>,
}

impl Prepared {
    /// Adds what comes from the parent, and the trace context.
    fn complete(
        &mut self,
        wrong: Option<MetadataError>,
        parent: Option<&Context>,
    ) -> Result<CallSpan, Status> {
        if let Some(error) = wrong {
            return Err(error.into());
        }
        if let Some(cx) = parent {
            if let Some(code) = cx.cancellation() {
                return Err(Status::given_up(code, Processed::No));
            }
            let (own, left) = (self.timeout, cx.time_left());
            self.timeout = own.map_or(left, |own| Some(left.map_or(own, |left| left.min(own))));
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Status::given_up(Code::DEADLINE_EXCEEDED, Processed::No));
        }
        self.parent = parent.cloned();
        Ok(span::call(
            self.name,
            &mut self.metadata,
            parent.and_then(Context::trace_parent),
            parent.map(Context::metadata),
        )?)
    }

    /// Lets the interceptors see it.
    pub(super) async fn intercept(&mut self, channel: &Channel) -> Result<(), Status> {
        if channel.inner().interceptors.is_empty() {
            return Ok(());
        }
        let mut outgoing = Outgoing {
            method: self.name,
            metadata: self.metadata.take().map_or_else(Metadata::new, |own| *own),
            timeout: self.timeout,
        };
        for interceptor in &channel.inner().interceptors {
            outgoing = interceptor(outgoing).await.map_err(Status::of_call)?;
        }
        let some = !outgoing.metadata.is_empty();
        self.metadata = some.then(|| Box::new(outgoing.metadata));
        self.timeout = outgoing.timeout;
        Ok(())
    }

    /// When the call has to be over that begins now, and how long that is; or the reason why it cannot begin.
    #[inline]
    pub(super) fn start(
        &self,
        now: Instant,
    ) -> Result<(Option<Instant>, Option<Duration>), Status> {
        let parent = self.parent.as_ref();
        if let Some(code) = parent.and_then(Context::cancellation) {
            return Err(Status::given_up(code, Processed::No));
        }
        let Some(timeout) = self.timeout else {
            return Ok((None, None));
        };
        let until = parent.and_then(Context::deadline);
        let left = until.map_or(timeout, |until| {
            timeout.min(until.saturating_duration_since(now))
        });
        if left.is_zero() {
            return Err(Status::given_up(Code::DEADLINE_EXCEEDED, Processed::No));
        }
        Ok((now.checked_add(left), Some(left)))
    }

    pub(super) fn parent(&self) -> Option<Parent> {
        self.parent.clone().map(Parent::new)
    }
}

impl Begins for Prepared {
    fn is_plain(&self) -> bool {
        let metadata = self.metadata.as_deref().map_or(0, Metadata::encoded_len);
        self.urgency.is_none() && Opening::fits(self.name, metadata)
    }

    fn put_opening(&self, timeout: Option<Duration>, block: &mut Vec<u8>) {
        let metadata = self.metadata.as_deref();
        Opening::encode_into(block, self.flags, self.codec, timeout, self.name, metadata);
    }

    fn request(
        &self,
        wire: Wire,
        timeout: Option<Duration>,
        message: Bytes,
    ) -> Result<Request, Status> {
        let (kind, metadata) = ((self.flags, self.codec), self.metadata.as_deref());
        let (opening, meta) = dialect::opening(wire, kind, timeout, self.name, metadata)?;
        Ok(Request {
            opening,
            meta,
            message,
            urgency: self.urgency,
        })
    }
}

// ---- unary --------------------------------------------------------------------------------------

impl<'a, Req, Resp: Send + 'static> Call<'a, Req, Resp, Unary> {
    /// As awaiting it, with the metadata of the answer.
    ///
    /// # Examples
    /// ```
    /// # use bytes::Bytes;
    /// # use ringmux::rpc::{Channel, Method, Raw, Status};
    /// # const GET: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Store/Get");
    /// # async fn get(channel: Channel) -> Result<(), Status> {
    /// let response = channel.call(&GET, &"key".into()).detailed().await?;
    /// println!("{:?}, age {:?}", response.message, response.headers.get("age"));
    /// # Ok(())
    /// # }
    /// # let _ = get;
    /// ```
    ///
    /// # Errors
    /// As awaiting it.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn detailed(self) -> Result<Response<Resp>, Status> {
        self.into_future().detailed().await
    }
}

impl<'a, Req, Resp: Send + 'static> IntoFuture for Call<'a, Req, Resp, Unary> {
    type Output = Result<Resp, Status>;
    type IntoFuture = UnaryCall<'a, Resp>;

    /// The future of the call; dropping it cancels the call.
    ///
    /// Its error is the status that the handler returned, or says with [`Status::origin`] what else ended the call.
    #[inline]
    fn into_future(self) -> UnaryCall<'a, Resp> {
        let row = self.channel.inner().rows.row(self.method.name);
        self.begin(Cow::Borrowed, |span| Seen::borrowed(row, span))
    }
}

impl<'a, Req, Resp: Send + 'static> Call<'a, Req, Resp, Unary> {
    /// The future of the call, which borrows neither the channel nor the request: for a task of its own.
    ///
    /// # Examples
    /// ```
    /// # use bytes::Bytes;
    /// # use ringmux::rpc::{Channel, Method, Raw, Status};
    /// # const GET: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Store/Get");
    /// # async fn get_all(channel: Channel, keys: Vec<Bytes>) -> Result<(), Box<dyn std::error::Error>> {
    /// let calls: Vec<_> = keys
    ///     .iter()
    ///     .map(|key| tokio::spawn(channel.call(&GET, key).detach()))
    ///     .collect();
    /// for call in calls {
    ///     println!("{:?}", call.await??);
    /// }
    /// # Ok(())
    /// # }
    /// # let _ = get_all;
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub fn detach(self) -> UnaryCall<'static, Resp> {
        let row = self.channel.inner().rows.row(self.method.name);
        let hold = |session: &Session| Cow::Owned(session.clone());
        self.begin(hold, |span| Seen::owned(row, span))
    }

    /// In parts, so that none is moved more often than it has to be.
    #[inline]
    fn begin<'s>(
        self,
        hold: impl FnOnce(&'a Session) -> Cow<'s, Session>,
        seen: impl FnOnce(CallSpan) -> Seen<'s>,
    ) -> UnaryCall<'s, Resp> {
        let Self {
            channel,
            method,
            request,
            options,
            ..
        } = self;
        let (inner, coding) = (channel.inner(), method.response.decoding());
        let (prepared, span) = match options.prepare(&method, inner.timeout) {
            Ok(prepared) => prepared,
            Err(status) => {
                return UnaryCall::not_ready(State::Failed(status), seen(CallSpan::none()), coding);
            }
        };
        let message = match request.map(|request| method.request.to_bytes(request)) {
            Some(Ok(message)) => message,
            Some(Err(status)) => {
                return UnaryCall::not_ready(State::Failed(status), seen(span), coding);
            }
            None => Bytes::new(),
        };
        if let Target::Session(session) = &inner.target
            && inner.retry.is_none()
            && inner.interceptors.is_empty()
        {
            return UnaryCall {
                seen: seen(span),
                state: State::Ready,
                running: Running::new(coding),
                ready: Some(Ready {
                    session: hold(session),
                    prepared,
                    message,
                }),
            };
        }
        let whole = Box::pin(attempts(channel.clone(), prepared, message, coding));
        UnaryCall::not_ready(State::Boxed(whole), seen(span), coding)
    }
}

/// The future of a unary call.
#[must_use = "futures do nothing unless polled"]
pub struct UnaryCall<'a, T> {
    seen: Seen<'a>,
    state: State<T>,
    running: Running<'a, T>,
    /// What it begins with; kept where it was made until the future is dropped.
    ready: Option<Ready<'a>>,
}

enum State<T> {
    Failed(Status),
    /// Begins when it is polled.
    Ready,
    Running,
    /// The same with interceptors, retries or a manager.
    Boxed(Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>),
    Done,
}

/// A call over one session that is to begin.
struct Ready<'a> {
    session: Cow<'a, Session>,
    prepared: Prepared,
    message: Bytes,
}

impl<'a, T> UnaryCall<'a, T> {
    #[cold]
    const fn not_ready(state: State<T>, seen: Seen<'a>, coding: Decoding<T>) -> Self {
        Self {
            seen,
            state,
            running: Running::new(coding),
            ready: None,
        }
    }

    async fn detailed(mut self) -> Result<Response<T>, Status> {
        let outcome = std::future::poll_fn(|cx| self.poll_outcome(cx)).await;
        outcome.response()
    }

    #[inline]
    fn poll_outcome(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Outcome<T>> {
        if !self.seen.has_begun() {
            self.begin(Instant::now());
        }
        let outcome = match &mut self.state {
            State::Running => {
                let outcome = ready!(self.running.poll(cx));
                if let Some(at) = self.running.exchange.answered {
                    self.seen.end_at(outcome.code(), at);
                }
                outcome
            }
            state => ready!(state.poll_rare(cx)),
        };
        self.seen.end(outcome.code());
        self.state = State::Done;
        Poll::Ready(outcome)
    }

    #[inline]
    fn begin(&mut self, now: Instant) {
        self.seen.begin(now);
        if let State::Ready = self.state
            && let Some(ready) = &mut self.ready
        {
            let (prepared, message) = (&ready.prepared, &mut ready.message);
            let started = match prepared.start(now) {
                Ok(times) => (self.running).start(&ready.session, prepared, times, message),
                Err(status) => Err(status),
            };
            self.state = match started {
                Ok(()) => State::Running,
                Err(status) => State::Failed(status),
            };
        }
    }
}

impl<T> State<T> {
    #[inline(never)]
    fn poll_rare(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Outcome<T>> {
        if let Self::Boxed(whole) = self {
            return whole.as_mut().poll(cx).map(Outcome::from);
        }
        match std::mem::replace(self, Self::Done) {
            Self::Failed(status) => Poll::Ready(Outcome::Failed(status)),
            _ => panic!("polled after it was ready"),
        }
    }
}

impl<T> Future for UnaryCall<'_, T> {
    type Output = Result<T, Status>;

    /// # Panics
    /// After it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.get_mut().poll_outcome(cx));
        Poll::Ready(outcome.message())
    }
}

/// Nothing in it is pinned.
impl<T> Unpin for UnaryCall<'_, T> {}

/// A call with its end by time, or by its parent, once it has begun.
struct Running<'s, T> {
    exchange: Exchange<'s, T>,
    parent: Option<Parent>,
}

impl<'s, T> Running<'s, T> {
    #[inline]
    const fn new(coding: Decoding<T>) -> Self {
        Self {
            exchange: Exchange::new(coding),
            parent: None,
        }
    }

    /// Begins it; once.
    #[inline]
    fn start(
        &mut self,
        session: &Cow<'s, Session>,
        prepared: &Prepared,
        times: (Option<Instant>, Option<Duration>),
        message: &mut Bytes,
    ) -> Result<(), Status> {
        self.exchange.start(session, prepared, times, message)?;
        if prepared.parent.is_some() {
            self.parent = prepared.parent();
        }
        Ok(())
    }

    #[inline]
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Outcome<T>> {
        match self.exchange.poll(cx) {
            Poll::Pending if !self.exchange.is_calling() || self.parent.is_some() => {
                self.poll_end(cx)
            }
            polled => polled,
        }
    }

    /// Of a call that is not over: whether something else ends it.
    fn poll_end(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Outcome<T>> {
        let code = match self.exchange.poll_late(cx) {
            Poll::Ready(code) => code,
            Poll::Pending => match &mut self.parent {
                Some(parent) => ready!(parent.poll(cx)),
                None => return Poll::Pending,
            },
        };
        let waited = self.exchange.waits_for_place();
        let processed = self.exchange.cancel(cancel_code(code));
        let mut status = Status::given_up(code, processed);
        if waited {
            status = status.waited_for_place();
        }
        Poll::Ready(Outcome::Failed(status))
    }
}

/// A call with interceptors, over a manager, or that is tried more than once.
pub(super) async fn attempts<T: Send>(
    channel: Channel,
    mut prepared: Prepared,
    message: Bytes,
    coding: Decoding<T>,
) -> Result<Response<T>, Status> {
    let (at, _) = prepared.start(Instant::now())?;
    within(at, &prepared.parent.clone(), prepared.intercept(&channel)).await??;
    let mut tried = 0;
    loop {
        let result = attempt(&channel, &prepared, message.clone(), at, coding).await;
        tried += 1;
        let retry = channel.inner().retry;
        match result {
            Err(status) if status.is_retryable() => {
                let Some(pause) = retry.and_then(|retry| retry.pause_after(tried)) else {
                    return Err(status);
                };
                let next = Instant::now() + pause;
                if at.is_some_and(|at| at <= next) {
                    return Err(status);
                }
                let mut pause = Timer::new(Some(next));
                let paused = std::future::poll_fn(|cx| pause.poll(cx));
                within(at, &prepared.parent, paused).await?;
                if pause.reason() == Code::FAILED_PRECONDITION {
                    return Err(status);
                }
            }
            result => return result,
        }
    }
}

async fn attempt<T>(
    channel: &Channel,
    prepared: &Prepared,
    mut message: Bytes,
    at: Option<Instant>,
    coding: Decoding<T>,
) -> Result<Response<T>, Status> {
    let left = at.map(|at| at.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(Status::given_up(Code::DEADLINE_EXCEEDED, Processed::No));
    }
    let run = |session: Session| async move {
        // The wait for the session has cost time.
        let left = at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = match (left, prepared.timeout) {
            (Some(left), Some(timeout)) => Some(left.min(timeout)),
            (left, timeout) => left.or(timeout),
        };
        let (session, mut running) = (Cow::Borrowed(&session), Running::new(coding));
        running.start(&session, prepared, (at, timeout), &mut message)?;
        let outcome = std::future::poll_fn(|cx| running.poll(cx)).await;
        outcome.response()
    };
    match &channel.inner().target {
        Target::Session(session) => run(session.clone()).await,
        #[cfg(feature = "manage")]
        Target::Manager(manager) => match left {
            Some(_) if !crate::timer::has_time() => {
                run(manager.try_session_or_else(no_clock)?).await
            }
            Some(left) => manager.with_session_within(left, run).await?,
            None => manager.with_session(run).await?,
        },
    }
}

impl<Req, Resp, K> fmt::Debug for Call<'_, Req, Resp, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("timeout", &self.options.timeout)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for UnaryCall<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnaryCall").finish_non_exhaustive()
    }
}
