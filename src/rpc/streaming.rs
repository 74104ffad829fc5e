//! Opening the calls that stream.

use bytes::Bytes;
use tokio::time::Instant;

use super::call::{Call, Prepared};
use super::codec::Coding;
use super::context::Context;
use super::exchange::{Begins, poll_send};
use super::method::{Bidirectional, ClientStreaming, Kind, ServerStreaming};
use super::metrics::Seen;
use super::parent::{Parent, within};
use super::receiver::{Caller, Receiver, Reply};
use super::sender::Sender;
use super::session::session;
use super::shared_send::SharedSend;
use super::span::CallSpan;
use super::status::Status;
use super::wire::flag;
use crate::error::{Processed, SendError};
use crate::handle::{RecvStream, SendStream};

/// A stream that was opened for a call, with what ends it.
struct Opened {
    send: SendStream,
    recv: RecvStream,
    at: Option<Instant>,
    parent: Option<Context>,
    seen: Seen<'static>,
}

impl<'a, Req, Resp, K: Kind> Call<'a, Req, Resp, K> {
    async fn open_stream(&mut self) -> Result<Opened, Status> {
        let (row, now) = (
            self.channel.inner().rows.row(self.method.name),
            Instant::now(),
        );
        let prepared = self.prepare(None);
        let (prepared, span) = match prepared {
            Ok((prepared, span)) => (Ok(prepared), span),
            Err(status) => (Err(status), CallSpan::none()),
        };
        let mut seen = Seen::owned(row, span);
        seen.begin(now);
        let opened = match prepared {
            Ok(prepared) => self.open_prepared(prepared, now).await,
            Err(status) => Err(status),
        };
        match opened {
            Ok((send, recv, at, prepared)) => Ok(Opened {
                send,
                recv,
                at,
                parent: prepared.parent,
                seen,
            }),
            Err(status) => {
                seen.end(status.code());
                Err(status)
            }
        }
    }

    async fn open_prepared(
        &self,
        mut prepared: Prepared,
        now: Instant,
    ) -> Result<(SendStream, RecvStream, Option<Instant>, Prepared), Status> {
        let ((at, _), channel) = (prepared.start(now)?, self.channel);
        let at = prepared.intercept(channel, at).await?;
        let parent = prepared.parent.clone();
        let target = &channel.inner().target;
        let (session, _counted) = session(target, at, &parent).await?;
        let left = at.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.or(prepared.timeout);
        let request = prepared.request(session.wire(), left, Bytes::new())?;
        let begins_at_once =
            request.meta.is_none() && self.method.flags() & flag::REQUEST_STREAM != 0;
        let mut open = session.open(request.opening);
        let opened = within(at, &parent, &mut open).await;
        let opened = opened.map_err(|status| match open.give_up() {
            // The peer may have it, though that was not seen here.
            false if begins_at_once => Status::given_up(status.code(), Processed::Maybe),
            true if session.state().is_open() => status.waited_for_place(),
            _ => status,
        });
        let (mut send, recv) = opened??;
        let describing = async {
            if let Some(urgency) = request.urgency {
                send.set_urgency(urgency);
            }
            if let Some(meta) = request.meta {
                send.send_meta(meta).await?;
            }
            Ok::<_, Status>((send, recv))
        };
        let (send, recv) = within(at, &parent, describing).await??;
        Ok((send, recv, at, prepared))
    }
}

impl Opened {
    fn shared<Req, Resp>(
        self,
        request: Coding<Req>,
        response: Coding<Resp>,
    ) -> (Sender<Req>, Receiver<Resp>) {
        // From here on it ends whatever is awaited, also if nothing is.
        if let Some(at) = self.at {
            self.send.set_deadline(at.into_std());
        }
        let shared = SharedSend::new(self.send);
        let parent = self.parent.clone().map(Parent::new);
        let caller = Caller {
            shared: shared.clone(),
            parent: self.parent.map(Parent::new),
            seen: self.seen,
        };
        (
            Sender::of_caller(shared, request, parent),
            Receiver::new(self.recv, response, Some(caller)),
        )
    }
}

impl<'a, Req, Resp> Call<'a, Req, Resp, ServerStreaming> {
    /// Begins the call: sends the request, and gives the stream of answers.
    ///
    /// # Errors
    /// What can be known before an answer: see [`Status::origin`]. Everything else the receiver tells.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn open(mut self) -> Result<Receiver<Resp>, Status> {
        let message = match self.request {
            Some(request) => self.method.request.to_bytes(request)?,
            None => Bytes::new(),
        };
        let mut opened = self.open_stream().await?;
        let send = &mut opened.send;
        let sending = std::future::poll_fn(|cx| poll_send(send, &message, cx));
        let sent = match within(opened.at, &opened.parent, sending).await {
            // Why the call has ended the receiving side says.
            Ok(Err(SendError::Stopped { .. } | SendError::Stream(_))) => Ok(()),
            Ok(Ok(())) => {
                let _ = opened.send.finish();
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(status) => Err(status),
        };
        if let Err(status) = sent {
            opened.seen.end(status.code());
            return Err(status);
        }
        let (mut sender, receiver) = opened.shared(self.method.request, self.method.response);
        sender.finish().unwrap_or_default();
        Ok(receiver)
    }
}

impl<'a, Req, Resp> Call<'a, Req, Resp, ClientStreaming> {
    /// Begins the call: gives the stream of requests, and the future of the answer.
    ///
    /// # Errors
    /// What can be known before an answer: see [`Status::origin`]. Everything else the reply tells.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn open(mut self) -> Result<(Sender<Req>, Reply<Resp>), Status> {
        let opened = self.open_stream().await?;
        let (sender, receiver) = opened.shared(self.method.request, self.method.response);
        Ok((sender, Reply::new(receiver)))
    }
}

impl<'a, Req, Resp> Call<'a, Req, Resp, Bidirectional> {
    /// Begins the call: gives both streams.
    ///
    /// # Errors
    /// What can be known before an answer: see [`Status::origin`]. Everything else the receiver tells.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn open(mut self) -> Result<(Sender<Req>, Receiver<Resp>), Status> {
        let opened = self.open_stream().await?;
        Ok(opened.shared(self.method.request, self.method.response))
    }
}
