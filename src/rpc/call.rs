//! A call, from the caller's side.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::channel::{Channel, Outgoing};
use super::code::Code;
use super::context::Context;
use super::dialect;
use super::exchange::{Begins, Request};
use super::metadata::{Metadata, MetadataError};
use super::method::{Bidirectional, ClientStreaming, Kind, Method, ServerStreaming, Unary};
use super::parent::{Parent, within};
use super::span::{self, CallSpan};
use super::status::Status;
use super::wire::Opening;
use crate::addr::Wire;
use crate::error::Processed;

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
    pub(super) options: Options<'a>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Default)]
pub(super) struct Options<'a> {
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

    /// How long the call may take; `None`: no limit. The server is told, and both sides end the call then: up to 4 us early if it is a millisecond
    /// or more.
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
        let (mut prepared, unchecked) = options.prepare(&self.method, default);
        let span = prepared.check(unchecked)?;
        Ok((prepared, span))
    }
}

impl<'a> Options<'a> {
    /// The call without its types, and what is to be [checked](Prepared::complete).
    #[inline(always)] // It is large, and moved otherwise.
    pub(super) fn prepare<Req, Resp, K: Kind>(
        self,
        method: &Method<Req, Resp, K>,
        default: Option<Duration>,
    ) -> (Prepared, Unchecked<'a>) {
        let prepared = Prepared {
            name: method.name,
            flags: method.flags(),
            codec: method.codec,
            timeout: self.timeout.unwrap_or(default),
            metadata: self.metadata,
            urgency: self.urgency,
            parent: None,
        };
        (prepared, (self.wrong, self.parent))
    }
}

/// An error in the metadata, and the parent.
pub(super) type Unchecked<'a> = (Option<MetadataError>, Option<&'a Context>);

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
    /// The span of the call; or the reason why it cannot begin.
    #[inline(always)]
    pub(super) fn check(&mut self, unchecked: Unchecked<'_>) -> Result<CallSpan, Status> {
        let plain = matches!(unchecked, (None, None)) && self.metadata.is_none();
        if plain && !CallSpan::ENABLED && self.timeout != Some(Duration::ZERO) {
            return Ok(CallSpan::none());
        }
        self.complete(unchecked)
    }

    /// Adds the limits of the parent, and the trace context.
    fn complete(&mut self, (wrong, parent): Unchecked<'_>) -> Result<CallSpan, Status> {
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
    #[inline(always)]
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

impl<Req, Resp, K> fmt::Debug for Call<'_, Req, Resp, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("timeout", &self.options.timeout)
            .finish_non_exhaustive()
    }
}
