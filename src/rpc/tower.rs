//! A channel as a service of tower: feature `rpc-tower`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::Service;
use ::tower::load::Load;
use bytes::Bytes;
use tokio::time::Instant;

use super::bound::{Bound, Place, WhenFull};
use super::call::Prepared;
use super::channel::{Channel, Target};
use super::codec::{Coding, Raw};
use super::exchange::{Response, undecodable};
use super::metadata::{Metadata, MetadataError};
use super::method::{Method, Unary};
use super::metrics::Seen;
use super::span;
use super::status::Status;
use super::unary::attempts;
#[cfg(feature = "manage")]
use crate::timer;
use crate::timer::NoTimer;

/// Calls of an [`Endpoint`] at once, unless something else is said: as many as a peer grants streams by default.
const PLACES: usize = 256;

/// A unary call as a value, for tower's layers: encoded, and cheap to clone.
///
/// # Examples
/// See [`Endpoint`].
#[derive(Clone, Debug)]
pub struct Request {
    name: &'static str,
    codec: u8,
    message: Bytes,
    metadata: Metadata,
    wrong: Option<MetadataError>,
    timeout: Option<Duration>,
}

impl Request {
    /// A call of this method.
    ///
    /// # Errors
    /// The message cannot be encoded.
    pub fn new<Req, Resp>(
        method: &Method<Req, Resp, Unary>,
        message: &Req,
    ) -> Result<Self, Status> {
        Ok(Self {
            name: method.name,
            codec: method.codec,
            message: method.request.to_bytes(message)?,
            metadata: Metadata::new(),
            wrong: None,
            timeout: None,
        })
    }

    /// Adds metadata. What [`Metadata::insert`] refuses fails the call, before anything is sent.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.wrong = self.wrong.or(self.metadata.insert(key, value).err());
        self
    }

    /// How long the call may take; the channel's own limit if nothing is said.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// `service/method`.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        self.name
    }
}

impl Response<Bytes> {
    /// The answer, decoded.
    ///
    /// # Errors
    /// [`Code::INTERNAL`](super::Code::INTERNAL): it is no such message.
    pub fn decode<Req, Resp>(self, method: &Method<Req, Resp, Unary>) -> Result<Resp, Status> {
        let decoded = (method.response.decode)(self.message.into());
        decoded.map_err(|error| undecodable(&error))
    }
}

/// A [`Channel`] as a [`Service`] of [`Request`]s, with [`Load`]: the calls in flight.
///
/// `poll_ready` holds a place for one call: it is pending while as many calls are in flight as may, and while the session
/// connects, drains or has ended; it is never an error, as balancers drop what once was one for good. An endpoint whose
/// session has ended for good is for discovery to remove; over a [`Manager`](crate::manage::Manager) it waits for the next session. Clones
/// share places and load. As of tower's own limits, one that is ready or pending has its place, or its turn for the next one, until it is
/// called, polled or dropped: drop a clone that is not polled any more.
///
/// # Examples
/// ```
/// # use bytes::Bytes;
/// # use ringmux::rpc::{Channel, Method, Raw, Status};
/// # const GET: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Store/Get");
/// # async fn get(channel: Channel) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use std::time::Duration;
///
/// use ringmux::rpc::{Endpoint, Request};
/// use tower::{Service, ServiceBuilder, ServiceExt};
///
/// let mut service = ServiceBuilder::new()
///     .concurrency_limit(16)
///     .timeout(Duration::from_secs(1))
///     .service(Endpoint::new(channel));
/// let request = Request::new(&GET, &"key".into())?;
/// let answer = service.ready().await?.call(request).await?.decode(&GET)?;
/// # drop(answer);
/// # Ok(())
/// # }
/// # let _ = get;
/// ```
pub struct Endpoint {
    channel: Channel,
    bound: Arc<Bound>,
    place: Option<Place>,
    waiting: Option<Pin<Box<dyn Future<Output = Place> + Send>>>,
}

impl Endpoint {
    /// With 256 calls at once.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self::with_places(channel, PLACES)
    }

    /// With so many calls at once, at least one.
    #[must_use]
    pub fn with_places(channel: Channel, places: usize) -> Self {
        Self {
            channel,
            bound: Bound::new(places.max(1), WhenFull::Wait),
            place: None,
            waiting: None,
        }
    }

    /// The channel.
    #[must_use]
    pub const fn channel(&self) -> &Channel {
        &self.channel
    }
}

/// Whether a call could leave now.
fn is_open(channel: &Channel) -> bool {
    match &channel.inner().target {
        Target::Session(session) => session.state().is_open(),
        #[cfg(feature = "manage")]
        Target::Manager(manager) => manager.try_session_or_else(|| ()).is_ok(),
    }
}

/// Waits until a call could leave, and for a place.
async fn place(channel: Channel, bound: Arc<Bound>) -> Place {
    loop {
        let waited = until_open(&channel).await;
        let place = bound.acquire().await;
        // All places are free as soon as the session has ended.
        if waited.is_err() || is_open(&channel) {
            return place;
        }
    }
}

/// Waits until a call could leave; or says that no one can wait here, for which a call has an error of its own.
async fn until_open(channel: &Channel) -> Result<(), NoTimer> {
    match &channel.inner().target {
        Target::Session(session) => {
            let gone = |state: &crate::handle::SessionState| state.reason().is_some();
            let state = session
                .wait_for(|state| state.is_open() || gone(state))
                .await;
            if gone(&state) {
                // For good; see above.
                std::future::pending::<()>().await;
            }
        }
        #[cfg(feature = "manage")]
        Target::Manager(manager) => {
            let mut pause = READY_PAUSE;
            while manager.session().await.is_err() {
                // Too many wait, or it is closed or not started: nothing that a balancer should take for final.
                timer::pause(pause).await?;
                pause = (pause * 2).min(READY_PAUSE_MAX);
            }
        }
    }
    Ok(())
}

/// After a manager has given no session.
#[cfg(feature = "manage")]
const READY_PAUSE: Duration = Duration::from_millis(10);
#[cfg(feature = "manage")]
const READY_PAUSE_MAX: Duration = Duration::from_secs(1);

impl Service<Request> for Endpoint {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.place.is_some() && !is_open(&self.channel) {
            // Others may have it: this one waits again.
            self.place = None;
        }
        if self.place.is_none() {
            let wait = || -> Pin<Box<dyn Future<Output = Place> + Send>> {
                Box::pin(place(self.channel.clone(), Arc::clone(&self.bound)))
            };
            let waiting = self.waiting.get_or_insert_with(wait);
            self.place = Some(ready!(waiting.as_mut().poll(cx)));
            self.waiting = None;
        }
        Poll::Ready(Ok(()))
    }

    /// # Panics
    /// If it was not ready, as every service may.
    fn call(&mut self, request: Request) -> Self::Future {
        let place = self.place.take().expect("`poll_ready` was ready");
        let channel = self.channel.clone();
        Box::pin(async move {
            let _place = place;
            run(channel, request).await
        })
    }
}

/// Runs a call whose message is encoded already.
async fn run(channel: Channel, request: Request) -> Result<Response<Bytes>, Status> {
    if let Some(error) = request.wrong {
        return Err(error.into());
    }
    let name = request.name;
    let some = !request.metadata.is_empty();
    let mut metadata = some.then(|| Box::new(request.metadata));
    let span = span::call(name, &mut metadata, None, None)?;
    let mut seen = Seen::borrowed(channel.inner().rows.row(name), span);
    let prepared = Prepared {
        name,
        flags: 0,
        codec: request.codec,
        timeout: request.timeout.or(channel.inner().timeout),
        metadata,
        urgency: None,
        parent: None,
    };
    seen.begin(Instant::now());
    let response = attempts(
        channel.clone(),
        prepared,
        request.message,
        Coding::of::<Raw>().decoding(),
    )
    .await;
    seen.end_of(&response);
    response
}

impl Load for Endpoint {
    type Metric = usize;

    fn load(&self) -> usize {
        self.bound.used()
    }
}

/// Has a place only if it asks for one.
impl Clone for Endpoint {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            bound: Arc::clone(&self.bound),
            place: None,
            waiting: None,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("channel", &self.channel)
            .field("in_flight", &self.bound.used())
            .finish_non_exhaustive()
    }
}
