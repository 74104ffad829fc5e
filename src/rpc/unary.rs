//! The future of a unary call, from its caller's side; and calls that are tried more than once.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::{Call, Prepared};
use super::channel::{Channel, Target};
use super::code::Code;
use super::codec::Decoding;
use super::exchange::{Exchange, Outcome, Response};
use super::method::Unary;
use super::metrics::Seen;
use super::parent::{Parent, cancel_code, within};
use super::session::session;
use super::span::CallSpan;
use super::status::Status;
use super::timer::Timer;
use crate::error::Processed;
use crate::handle::{self, Session};
use crate::timer::recent;

/// The time of a call that has at least this long, or no limit, may run from a look at the clock that is some microseconds old.
const LONG: Duration = Duration::from_millis(1);

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
        let (mut prepared, unchecked) = options.prepare(&method, inner.timeout);
        let span = match prepared.check(unchecked) {
            Ok(span) => span,
            Err(status) => {
                return UnaryCall::not_ready(State::Failed(status), seen(CallSpan::none()), coding);
            }
        };
        if let Target::Session(session) = &inner.target
            && inner.retry.is_none()
            && inner.interceptors.is_empty()
        {
            let session = hold(session);
            let encoded = handle::call::Request::encode(&session, |buffer, most| match request {
                Some(request) => method.request.put(request, buffer, most),
                None => Ok(None),
            });
            let request = match encoded {
                Ok(request) => request,
                Err(status) => {
                    return UnaryCall::not_ready(State::Failed(status), seen(span), coding);
                }
            };
            return UnaryCall {
                seen: seen(span),
                state: State::Ready,
                running: Running::new(coding),
                ready: Some(Ready {
                    session,
                    prepared,
                    request,
                }),
            };
        }
        let message = match request.map(|request| method.request.to_bytes(request)) {
            Some(Ok(message)) => message,
            Some(Err(status)) => {
                return UnaryCall::not_ready(State::Failed(status), seen(span), coding);
            }
            None => Bytes::new(),
        };
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
    request: handle::call::Request,
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
            self.begin(self.time());
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

    /// The time from which its limit and its latency run.
    #[inline]
    fn time(&self) -> Instant {
        let limit = self.ready.as_ref().and_then(|ready| ready.prepared.timeout);
        match limit {
            Some(limit) if limit < LONG => Instant::now(),
            _ => recent(),
        }
    }

    #[inline]
    fn begin(&mut self, now: Instant) {
        self.seen.begin(now);
        if let State::Ready = self.state
            && let Some(ready) = &mut self.ready
        {
            let (prepared, request) = (&ready.prepared, &mut ready.request);
            let started = match prepared.start(now) {
                Ok(times) => (self.running).start(&ready.session, prepared, times, request),
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
        let this = self.get_mut();
        if let Some((answer, at)) = this.running.exchange.take_answer() {
            this.state = State::Done;
            let code = answer.as_ref().map_or_else(Status::code, |_| Code::OK);
            this.seen.end_at(code, at);
            return Poll::Ready(answer);
        }
        let outcome = ready!(this.poll_outcome(cx));
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
    #[inline(always)]
    #[expect(clippy::ptr_arg, reason = "a borrowed session is kept as that")]
    fn start(
        &mut self,
        session: &Cow<'s, Session>,
        prepared: &Prepared,
        times: (Option<Instant>, Option<Duration>),
        request: &mut handle::call::Request,
    ) -> Result<(), Status> {
        self.exchange.start(session, prepared, times, request)?;
        if prepared.parent.is_some() {
            self.parent = prepared.parent();
        }
        Ok(())
    }

    #[inline]
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Outcome<T>> {
        match self.exchange.poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending if !self.exchange.is_calling() || self.parent.is_some() => {
                self.poll_end(cx)
            }
            Poll::Pending => Poll::Pending,
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
    coding: Decoding<T>,
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
    let (session, mut running) = (Cow::Borrowed(&session), Running::new(coding));
    running.start(&session, prepared, (at, timeout), &mut message.into())?;
    let outcome = std::future::poll_fn(|cx| running.poll(cx)).await;
    outcome.response()
}

impl<T> fmt::Debug for UnaryCall<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnaryCall").finish_non_exhaustive()
    }
}
