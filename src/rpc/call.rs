//! A call, from the caller's side.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::channel::{Channel, Outgoing, Target};
use super::code::Code;
use super::codec::Coding;
use super::context::Context;
use super::dialect;
use super::exchange::{Begins, Exchange, Outcome, Request, Response};
use super::metadata::{Metadata, MetadataError};
use super::method::{Bidirectional, ClientStreaming, Kind, Method, ServerStreaming, Unary};
use super::metrics::Seen;
use super::parent::{Parent, cancel_code, within};
use super::session::session;
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
    metadata: Option<Metadata>,
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
        if let Some(error) = self.options.wrong {
            return Err(error.into());
        }
        let mut timeout = self.options.timeout.unwrap_or(default);
        let parent = self.options.parent;
        if let Some(cx) = parent {
            if let Some(code) = cx.cancellation() {
                return Err(Status::given_up(code, Processed::No));
            }
            let left = cx.time_left();
            timeout = timeout.map_or(left, |own| Some(left.map_or(own, |left| left.min(own))));
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Status::given_up(Code::DEADLINE_EXCEEDED, Processed::No));
        }
        let mut metadata = self.options.metadata.take();
        let span = span::call(
            self.method.name,
            &mut metadata,
            parent.and_then(Context::trace_parent),
            parent.map(Context::metadata),
        )?;
        let prepared = Prepared {
            name: self.method.name,
            flags: self.method.flags(),
            codec: self.method.codec,
            timeout,
            metadata,
            urgency: self.options.urgency,
            parent: parent.cloned(),
        };
        Ok((prepared, span))
    }
}

/// A call without its types.
pub(super) struct Prepared {
    pub(super) name: &'static str,
    pub(super) flags: u8,
    pub(super) codec: u8,
    pub(super) timeout: Option<Duration>,
    pub(super) metadata: Option<Metadata>,
    pub(super) urgency: Option<u8>,
    pub(super) parent: Option<Context>,
}

impl Prepared {
    /// Lets the interceptors see it. When it has to be over: not later than it had to before, `at`.
    pub(super) async fn intercept(
        &mut self,
        channel: &Channel,
        at: Option<Instant>,
    ) -> Result<Option<Instant>, Status> {
        if channel.inner().interceptors.is_empty() {
            return Ok(at);
        }
        let parent = self.parent.clone();
        within(at, &parent, self.run_interceptors(channel)).await??;
        let Some(timeout) = self.timeout else {
            return Ok(at);
        };
        if timeout.is_zero() {
            return Err(Status::given_up(Code::DEADLINE_EXCEEDED, Processed::No));
        }
        let own = Instant::now().checked_add(timeout);
        Ok(own.map_or(at, |own| Some(at.map_or(own, |at| at.min(own)))))
    }

    async fn run_interceptors(&mut self, channel: &Channel) -> Result<(), Status> {
        let mut outgoing = Outgoing {
            method: self.name,
            metadata: self.metadata.take().unwrap_or_default(),
            timeout: self.timeout,
        };
        for interceptor in &channel.inner().interceptors {
            outgoing = interceptor(outgoing).await.map_err(Status::of_call)?;
        }
        self.metadata = Some(outgoing.metadata);
        self.timeout = outgoing.timeout;
        Ok(())
    }

    /// When the call has to be over that begins now, and how long that is; or the reason why it cannot begin.
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
        let metadata = self.metadata.as_ref().map_or(0, Metadata::encoded_len);
        self.urgency.is_none() && Opening::fits(self.name, metadata)
    }

    fn put_opening(&self, timeout: Option<Duration>, block: &mut Vec<u8>) {
        let metadata = self.metadata.as_ref();
        Opening::encode_into(block, self.flags, self.codec, timeout, self.name, metadata);
    }

    fn request(
        &self,
        wire: Wire,
        timeout: Option<Duration>,
        message: Bytes,
    ) -> Result<Request, Status> {
        let (kind, metadata) = ((self.flags, self.codec), self.metadata.as_ref());
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
    fn into_future(mut self) -> UnaryCall<'a, Resp> {
        let (state, span) = self.begin(Cow::Borrowed);
        let row = self.channel.inner().rows.row(self.method.name);
        UnaryCall {
            state,
            seen: Seen::borrowed(row, span),
        }
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
    pub fn detach(mut self) -> UnaryCall<'static, Resp> {
        let (state, span) = self.begin(|session| Cow::Owned(session.clone()));
        let row = self.channel.inner().rows.row(self.method.name);
        UnaryCall {
            state,
            seen: Seen::owned(row, span),
        }
    }

    fn begin<'s>(
        &mut self,
        hold: impl FnOnce(&'a Session) -> Cow<'s, Session>,
    ) -> (State<'s, Resp>, CallSpan) {
        let inner = self.channel.inner();
        let (prepared, span) = match self.prepare(inner.timeout) {
            Ok(prepared) => prepared,
            Err(status) => return (State::Failed(status), CallSpan::none()),
        };
        let message = match self
            .request
            .map(|request| self.method.request.to_bytes(request))
        {
            Some(Ok(message)) => message,
            Some(Err(status)) => return (State::Failed(status), span),
            None => Bytes::new(),
        };
        let coding = self.method.response;
        if let Target::Session(session) = &inner.target
            && inner.retry.is_none()
            && inner.interceptors.is_empty()
        {
            let ready = State::Ready(hold(session), prepared, message, coding);
            return (ready, span);
        }
        let whole = attempts(self.channel.clone(), prepared, message, coding);
        (State::Boxed(Box::pin(whole)), span)
    }
}

/// The future of a unary call.
#[must_use = "futures do nothing unless polled"]
pub struct UnaryCall<'a, T> {
    state: State<'a, T>,
    seen: Seen<'a>,
}

enum State<'a, T> {
    Failed(Status),
    /// Begins when it is polled.
    Ready(Cow<'a, Session>, Prepared, Bytes, Coding<T>),
    Running(Running<'a, T>),
    /// The same with interceptors, retries or a manager.
    Boxed(Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>),
    Done,
}

impl<T> UnaryCall<'_, T> {
    async fn detailed(mut self) -> Result<Response<T>, Status> {
        let outcome = std::future::poll_fn(|cx| self.poll_outcome(cx)).await;
        outcome.response()
    }

    fn poll_outcome(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Outcome<T>> {
        if !self.seen.has_begun() {
            self.begin(Instant::now());
        }
        let outcome = match &mut self.state {
            State::Running(running) => ready!(running.poll(cx)),
            State::Boxed(whole) => Outcome::from(ready!(whole.as_mut().poll(cx))),
            state => match std::mem::replace(state, State::Done) {
                State::Failed(status) => Outcome::Failed(status),
                _ => panic!("polled after it was ready"),
            },
        };
        self.seen.end(outcome.code());
        self.state = State::Done;
        Poll::Ready(outcome)
    }

    fn begin(&mut self, now: Instant) {
        self.seen.begin(now);
        let State::Ready(..) = &self.state else {
            return;
        };
        let ready = std::mem::replace(&mut self.state, State::Done);
        let State::Ready(session, prepared, message, coding) = ready else {
            return;
        };
        self.state = match prepared.start(now) {
            Ok((at, timeout)) => {
                match Exchange::start(&session, &prepared, (at, timeout), message, coding) {
                    Ok(exchange) => State::Running(Running {
                        exchange,
                        parent: prepared.parent(),
                    }),
                    Err(status) => State::Failed(status),
                }
            }
            Err(status) => State::Failed(status),
        };
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

/// A call with its end by time, or by its parent.
struct Running<'s, T> {
    exchange: Exchange<'s, T>,
    parent: Option<Parent>,
}

impl<T> Running<'_, T> {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Outcome<T>> {
        if let Poll::Ready(outcome) = self.exchange.poll(cx) {
            return Poll::Ready(outcome);
        }
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
    coding: Coding<T>,
) -> Result<Response<T>, Status> {
    let (at, _) = prepared.start(Instant::now())?;
    let at = prepared.intercept(&channel, at).await?;
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
    message: Bytes,
    at: Option<Instant>,
    coding: Coding<T>,
) -> Result<Response<T>, Status> {
    let left = at.map(|at| at.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(Status::given_up(Code::DEADLINE_EXCEEDED, Processed::No));
    }
    let target = &channel.inner().target;
    let (session, _counted) = session(target, at, &prepared.parent).await?;
    // The wait for the session has cost time.
    let left = at.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = left.or(prepared.timeout);
    let mut running = Running {
        exchange: Exchange::start(
            &Cow::Borrowed(&session),
            prepared,
            (at, timeout),
            message,
            coding,
        )?,
        parent: prepared.parent(),
    };
    let outcome = std::future::poll_fn(|cx| running.poll(cx)).await;
    outcome.response()
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
