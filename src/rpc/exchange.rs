//! One unary call over the transport, from the caller's side: the one place that knows how a request leaves and how its
//! answer arrives. If the peer takes calls and the request fits into a frame, it is a call of the transport; else, and with an
//! urgency, a stream. The answer to a call may be a stream as well.

use std::borrow::Cow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::code::Code;
use super::codec::{CodecError, Decoding, Payload};
use super::dialect;
use super::metadata::Metadata;
use super::status::Status;
use super::timer::Timer;
use super::wire::{block, find_meta};
use crate::addr::Wire;
use crate::error::codes;
use crate::error::{Processed, SendError, Side, StreamError};
use crate::handle::call::{self, Answer, PendingCall};
use crate::handle::{Open, RecvStream, SendStream, Session};

/// Messages that are copied when they are queued, so that no reference is kept.
pub(super) const COPIED_MAX: usize = 4096;

/// A call that is about to begin.
pub(super) trait Begins {
    /// Whether it fits into one frame with its request, as far as is known here; urgency is one of streams.
    fn is_plain(&self) -> bool;
    /// Appends the opening block of a [plain](Self::is_plain) call.
    fn put_opening(&self, timeout: Option<Duration>, block: &mut Vec<u8>);
    /// The same as a stream over this wire; or what that cannot carry.
    fn request(
        &self,
        wire: Wire,
        timeout: Option<Duration>,
        message: Bytes,
    ) -> Result<Request, Status>;
}

/// What a call is about, encoded.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) opening: Bytes,
    /// Metadata that did not fit into it.
    pub(super) meta: Option<Bytes>,
    pub(super) message: Bytes,
    pub(super) urgency: Option<u8>,
}

/// The answer to a unary call, with its metadata.
///
/// # Examples
/// See [`Call::detailed`](super::Call::detailed).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Response<T> {
    /// The answer.
    pub message: T,
    /// Metadata that came before it.
    pub headers: Metadata,
    /// Metadata that came after it.
    pub trailers: Metadata,
}

/// A call that is under way, once it has begun. Dropped before its end, it is cancelled.
///
/// In this order, as padding in front of a field that is set at first would be copied with it, by a load that waits for the field's store.
#[repr(C)]
pub(super) struct Exchange<'s, T> {
    /// In one frame.
    call: Option<PendingCall<'s>>,
    stream: Option<Box<Streaming<T>>>,
    coding: Decoding<T>,
    deadline: Option<Instant>,
    /// When the answer was received, where that is known.
    pub(super) answered: Option<Instant>,
}

/// A unary call over a stream.
pub(super) struct Streaming<T> {
    state: State,
    coding: Decoding<T>,
    answer: Option<T>,
    deadline: Timer,
    urgency: Option<u8>,
    /// It began behind the handshake, before which no peer grants anything.
    established: bool,
}

enum State {
    /// With the message, and metadata that goes before it; without, the message goes with the opening.
    Opening(Open, Option<(Bytes, Bytes)>),
    Sending(SendStream, RecvStream, (Bytes, Bytes)),
    Receiving(SendStream, RecvStream),
    Done,
}

/// What a call came to.
pub(super) enum Outcome<T> {
    /// An answer without metadata.
    Message(T),
    Response(Box<Response<T>>),
    Failed(Status),
}

impl<T> Outcome<T> {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Message(_) | Self::Response(_) => Code::OK,
            Self::Failed(status) => status.code(),
        }
    }

    pub(super) fn message(self) -> Result<T, Status> {
        match self {
            Self::Message(message) => Ok(message),
            Self::Response(response) => Ok(response.message),
            Self::Failed(status) => Err(status),
        }
    }

    pub(super) fn response(self) -> Result<Response<T>, Status> {
        match self {
            Self::Message(message) => Ok(Response {
                message,
                headers: Metadata::new(),
                trailers: Metadata::new(),
            }),
            Self::Response(response) => Ok(*response),
            Self::Failed(status) => Err(status),
        }
    }
}

impl<T> From<Result<Response<T>, Status>> for Outcome<T> {
    fn from(result: Result<Response<T>, Status>) -> Self {
        match result {
            Ok(response) => Self::Response(Box::new(response)),
            Err(status) => Self::Failed(status),
        }
    }
}

impl<'s, T> Exchange<'s, T> {
    #[inline]
    pub(super) const fn new(coding: Decoding<T>) -> Self {
        Self {
            call: None,
            stream: None,
            coding,
            deadline: None,
            answered: None,
        }
    }

    /// Begins the call, and takes its message; or says what the session's wire cannot carry. To be called once.
    #[inline(always)]
    #[expect(clippy::ptr_arg, reason = "a borrowed session is kept as that")]
    pub(super) fn start(
        &mut self,
        session: &Cow<'s, Session>,
        prepared: &impl Begins,
        (deadline, timeout): (Option<Instant>, Option<Duration>),
        request: &mut call::Request,
    ) -> Result<(), Status> {
        self.deadline = deadline;
        self.call = begin(session, prepared, (deadline, timeout), request);
        match self.call {
            Some(_) => Ok(()),
            None => self.start_stream(session, prepared, timeout, request.take_message(session)),
        }
    }

    fn start_stream(
        &mut self,
        session: &Session,
        prepared: &impl Begins,
        timeout: Option<Duration>,
        message: Bytes,
    ) -> Result<(), Status> {
        let Request {
            opening,
            meta,
            message,
            urgency,
        } = prepared.request(session.wire(), timeout, message)?;
        let state = match meta {
            None => State::Opening(session.open_with(opening, message, true), None),
            Some(meta) => State::Opening(session.open(opening), Some((meta, message))),
        };
        let established = session.state().is_open();
        self.stream = Some(self.new_stream(state, urgency, established));
        Ok(())
    }

    fn new_stream(
        &self,
        state: State,
        urgency: Option<u8>,
        established: bool,
    ) -> Box<Streaming<T>> {
        Box::new(Streaming {
            state,
            coding: self.coding,
            answer: None,
            deadline: Timer::new(self.deadline),
            urgency,
            established,
        })
    }

    /// Ready when the deadline has passed and no stream keeps it yet.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        match &mut self.stream {
            Some(stream) if matches!(stream.state, State::Opening(..)) => {
                ready!(stream.deadline.poll(cx));
                Poll::Ready(stream.deadline.reason())
            }
            _ => Poll::Pending,
        }
    }

    /// Whether it waits for the peer to grant a stream.
    pub(super) fn waits_for_place(&self) -> bool {
        let waits = |stream: &Streaming<T>| {
            stream.established && matches!(stream.state, State::Opening(..))
        };
        self.stream.as_deref().is_some_and(waits)
    }

    /// Ends the call, and tells whether its handler can have run.
    pub(super) fn cancel(&mut self, code: u32) -> Processed {
        if let Some(mut call) = self.call.take() {
            call.cancel(code);
        }
        let stream = self.stream.take();
        stream.map_or(Processed::Maybe, |mut stream| stream.cancel(code))
    }

    /// Whether it is a call in one frame.
    #[inline]
    pub(super) const fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    /// The answer to a call in one frame, if it is here, with the time when it was received.
    #[inline(always)] // As `PendingCall::take_answer`.
    pub(super) fn take_answer(&mut self) -> Option<(Result<T, Status>, Instant)> {
        let decode = self.coding.decode;
        let read = |message: &mut Bytes| decode(Payload::kept(message));
        let (answer, at) = self.call.as_mut()?.take_answer(read)?;
        self.call = None;
        Some((
            answer.map_err(|error| undecodable(&error)),
            Instant::from_std(at),
        ))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let Some(call) = &mut self.call else {
            return self.poll_stream(cx);
        };
        let answer = ready!(call.poll(cx));
        self.call = None;
        match answer {
            Answer::Message(message, at) => {
                self.answered = Some(Instant::from_std(at));
                Poll::Ready(match (self.coding.decode)(message.into()) {
                    Ok(message) => Outcome::Message(message),
                    Err(error) => Outcome::Failed(undecodable(&error)),
                })
            }
            Answer::Failed(error) => Poll::Ready(Outcome::Failed(ended(Wire::Native, error))),
            Answer::Stream(halves) => {
                let mut stream = self.new_stream(State::Done, None, true);
                stream.opened(*halves);
                self.stream = Some(stream);
                self.poll_stream(cx)
            }
        }
    }

    #[inline(never)]
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        match &mut self.stream {
            Some(stream) => stream.poll(cx).map(Outcome::from),
            None => Poll::Ready(Outcome::Failed(over())),
        }
    }
}

impl<T> Streaming<T> {
    fn cancel(&mut self, code: u32) -> Processed {
        match std::mem::replace(&mut self.state, State::Done) {
            // The request was not queued.
            State::Opening(_, Some(_)) => Processed::No,
            State::Sending(mut send, ..) => {
                send.cancel(code);
                Processed::No
            }
            State::Opening(open, None) => match open.give_up() {
                true => Processed::No,
                // It was granted this moment.
                false => Processed::Maybe,
            },
            State::Done => Processed::Maybe,
            State::Receiving(mut send, _) => {
                send.cancel(code);
                Processed::Maybe
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<T>, Status>> {
        loop {
            match &mut self.state {
                State::Opening(open, _) => {
                    let (send, recv) = match ready!(Pin::new(open).poll(cx)) {
                        Ok(halves) => halves,
                        Err(error) => {
                            self.state = State::Done;
                            return Poll::Ready(Err(error.into()));
                        }
                    };
                    self.opened((send, recv));
                }
                State::Sending(send, _, rest) => {
                    match ready!(poll_request(send, rest, cx)) {
                        // Why the stream has ended is for the receiving half to say.
                        Ok(()) | Err(SendError::Stopped { .. } | SendError::Stream(_)) => {}
                        Err(error) => {
                            self.cancel(codes::CANCELLED);
                            return Poll::Ready(Err(error.into()));
                        }
                    }
                    if let State::Sending(send, recv, _) =
                        std::mem::replace(&mut self.state, State::Done)
                    {
                        self.state = State::Receiving(send, recv);
                    }
                }
                State::Receiving(_, recv) => {
                    let answer = ready!(poll_answer(recv, self.coding, &mut self.answer, cx));
                    if answer.is_err() {
                        self.cancel(codes::CANCELLED);
                    } else {
                        self.state = State::Done;
                    }
                    return Poll::Ready(answer);
                }
                State::Done => return Poll::Ready(Err(over())),
            }
        }
    }

    fn opened(&mut self, (send, recv): (SendStream, RecvStream)) {
        if let Some(urgency) = self.urgency {
            send.set_urgency(urgency);
        }
        if let Some(at) = self.deadline.at() {
            send.set_deadline(at.into_std());
        }
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Opening(_, Some(rest)) => State::Sending(send, recv, rest),
            _ => State::Receiving(send, recv),
        };
    }
}

#[cold]
fn over() -> Status {
    Status::library(Code::INTERNAL, Processed::Maybe, "polled after its end")
}

/// Begins a call of the transport, and takes its message; `None` if it has to be a stream.
#[inline]
fn begin<'s>(
    session: &Cow<'s, Session>,
    prepared: &impl Begins,
    (deadline, timeout): (Option<Instant>, Option<Duration>),
    request: &mut call::Request,
) -> Option<PendingCall<'s>> {
    if !prepared.is_plain() {
        return None;
    }
    let opening = |block: &mut Vec<u8>| prepared.put_opening(timeout, block);
    PendingCall::begin(session, opening, request, deadline.map(Instant::into_std))
}

/// Queues metadata, if that was not done yet, the request, and its end.
fn poll_request(
    send: &mut SendStream,
    (meta, message): &mut (Bytes, Bytes),
    cx: &mut Context<'_>,
) -> Poll<Result<(), SendError>> {
    if !meta.is_empty() {
        ready!(pin!(send.send_meta(meta.clone())).poll(cx))?;
        meta.clear();
    }
    ready!(poll_send(send, message, cx))?;
    Poll::Ready(send.finish())
}

/// Queues a message.
pub(super) fn poll_send(
    send: &mut SendStream,
    message: &Bytes,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SendError>> {
    if message.len() <= COPIED_MAX {
        pin!(send.send_slice(message)).poll(cx)
    } else {
        pin!(send.send(message.clone())).poll(cx)
    }
}

/// Waits for the one message, and then for the end behind it.
pub(super) fn poll_answer<T>(
    recv: &mut RecvStream,
    coding: Decoding<T>,
    answer: &mut Option<T>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<T>, Status>> {
    let broken = |text: &'static str| {
        Poll::Ready(Err(Status::library(Code::INTERNAL, Processed::Maybe, text)))
    };
    if answer.is_none() {
        match ready!(poll_message(recv, coding, cx)).map_err(|error| ended(recv.wire(), error))? {
            Some(Ok(message)) => *answer = Some(message),
            Some(Err(error)) => return Poll::Ready(Err(undecodable(&error))),
            None => return broken("the server ended the call without an answer"),
        }
    }
    if ready!(recv.poll_recv(cx))
        .map_err(|error| ended(recv.wire(), error))?
        .is_some()
    {
        return broken("the server answered twice");
    }
    let Some(message) = answer.take() else {
        return broken("the server ended the call without an answer");
    };
    let metas = recv.metas();
    let headers = find_meta(metas, block::HEADERS)?;
    let trailers = find_meta(metas, block::TRAILERS)?;
    Poll::Ready(Ok(Response {
        message,
        headers,
        trailers,
    }))
}

/// Why a call has ended: by its own deadline, which the transport keeps, or as the stream says.
pub(super) fn ended(wire: Wire, error: StreamError) -> Status {
    match error {
        StreamError::Cancelled {
            by: Side::This,
            code: codes::DEADLINE,
        } => Status::given_up(Code::DEADLINE_EXCEEDED, Processed::Maybe),
        error => dialect::status(wire, error),
    }
}

/// An answer that makes no sense.
pub(super) fn undecodable(error: &CodecError) -> Status {
    let text = format!("the answer cannot be decoded: {error}");
    Status::library(Code::INTERNAL, Processed::Maybe, text)
}

/// The next message, decoded; `None` is the clean end.
pub(super) fn poll_message<T>(
    recv: &mut RecvStream,
    coding: Decoding<T>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Result<T, CodecError>>, StreamError>> {
    if coding.in_place {
        let lease = ready!(pin!(recv.lease()).poll(cx))?;
        return Poll::Ready(Ok(lease.map(|lease| (coding.decode)(lease.into()))));
    }
    let message = ready!(recv.poll_recv(cx))?;
    Poll::Ready(Ok(message.map(|bytes| (coding.decode)(bytes.into()))))
}
