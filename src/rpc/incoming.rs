//! The server's side of one call: receives the request, watches deadline and cancel while the handler runs, and sends the answer.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::Level;

use super::answering::Answering;
use super::bound::Bound;
use super::code::Code;
use super::codec::{CodecError, Coding};
use super::context::{Context, Part};
use super::dialect;
use super::exchange::{poll_message, poll_send};
use super::held::Held;
use super::metadata::Metadata;
use super::polling::polled_in_place;
use super::shared_send::SharedSend;
use super::span::CallSpan;
use super::status::{Origin, Status};
use super::timer::Timer;
use super::wire::{block, find_meta, flag, meta};
use crate::error::Processed;
use crate::error::codes;
use crate::handle::call::IncomingCall;
use crate::handle::{RecvStream, SendStream, Session};
use crate::pace::paced;

/// How long a handler that waits for [`Context::cancelled`] may go on after the end of its call.
pub const CLEANUP_MAX: Duration = Duration::from_secs(5);
/// How long a call that has no deadline may take to send its request.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(30);

/// A call that was taken.
pub(super) struct Incoming {
    /// Until a handler has it that receives.
    pub(super) recv: Option<RecvStream>,
    pub(super) send: Answering,
    /// The request of a call in one frame.
    pub(super) message: Option<Bytes>,
    pub(super) head: Head,
    pub(super) deadline: Option<Instant>,
    /// The deadline had passed when the call was taken and had its places.
    pub(super) was_late: bool,
    pub(super) held: Held,
}

/// What is known of a call from its opening.
#[derive(Clone, Default)]
pub(super) struct Head {
    /// Empty if it is none that is served.
    pub(super) method: &'static str,
    pub(super) flags: u8,
    pub(super) timeout: Option<Duration>,
    pub(super) metadata: Metadata,
}

/// The caller has gone, or was answered.
pub(super) struct Gone;

impl Incoming {
    /// The half for a handler that sends.
    pub(super) fn share(mut self) -> Result<(Self, Arc<SharedSend>), Gone> {
        self.send.become_stream();
        let shared = match std::mem::replace(&mut self.send, Answering::Over) {
            Answering::Own(stream) => SharedSend::new(stream),
            Answering::Shared(shared) => shared,
            Answering::Call(_) | Answering::Over => return Err(Gone),
        };
        self.send = Answering::Shared(Arc::clone(&shared));
        Ok((self, shared))
    }

    /// The call's context, once its metadata is known.
    pub(super) fn context(&mut self, metadata: Metadata) -> Context {
        let call = Some((self.head.method, Arc::clone(&self.held.peer)));
        Context::of(self.deadline, metadata, call)
    }

    /// Metadata of the request, of which all messages that come before it were received.
    pub(super) fn metadata(&mut self) -> Result<Metadata, Status> {
        if self.head.flags & flag::METADATA_FOLLOWS == 0 {
            return Ok(std::mem::take(&mut self.head.metadata));
        }
        let metas = self.recv.as_ref().map_or(&[][..], RecvStream::metas);
        Ok(find_meta(metas, block::REQUEST)?)
    }

    /// The request of a call in one frame; without one the call is over.
    pub(super) fn request_here<T>(&mut self, coding: Coding<T>, late: bool) -> Option<T> {
        let message = self.message.take()?;
        if let Answering::Call(call) = &self.send {
            call.note_read();
        }
        let refusal = match (coding.decode)(message.into()) {
            Ok(request) if !late => return Some(request),
            Ok(_) => self.late(),
            Err(error) => undecodable(&error),
        };
        self.refuse(&refusal);
        None
    }

    /// Receives the one request; without one the call is over. A codec that panics ends the call as a handler that does.
    pub(super) async fn request<T>(&mut self, coding: Coding<T>) -> Result<T, Gone> {
        let received = {
            let mut receiving = pin!(self.receive(coding));
            poll_fn(|cx| {
                let polled = catch_unwind(AssertUnwindSafe(|| receiving.as_mut().poll(cx)));
                polled.map_or_else(|panic| Poll::Ready(Err(panic)), |polled| polled.map(Ok))
            })
            .await
        };
        received.unwrap_or_else(|panic| {
            self.end_panicked(&*panic);
            Err(Gone)
        })
    }

    async fn receive<T>(&mut self, coding: Coding<T>) -> Result<T, Gone> {
        if self.message.is_some() {
            let late = self.is_late();
            return self.request_here(coding, late).ok_or(Gone);
        }
        let Some(recv) = &mut self.recv else {
            return Err(Gone);
        };
        let held = &mut self.held;
        let mut lent: Option<Option<Arc<Bound>>> = None;
        let mut timer: Option<Timer> = None;
        let received = poll_fn(|cx| {
            if let Poll::Ready(message) = poll_message(recv, coding.decoding(), cx) {
                return Poll::Ready(Some(message));
            }
            if polled_in_place() {
                return Poll::Pending;
            }
            // A caller that is slow, or stops here, takes no place from the others.
            lent.get_or_insert_with(|| held.lend());
            let timer = timer.get_or_insert_with(|| {
                let at = self
                    .deadline
                    .unwrap_or_else(|| Instant::now() + REQUEST_MAX);
                Timer::new(Some(at))
            });
            timer.poll(cx).map(|()| None)
        })
        .await;
        let refusal = match received {
            Some(Ok(Some(Ok(request)))) if !self.is_late() => {
                if let Some(method) = lent {
                    // In memory of its own: most calls have no need of it.
                    Box::pin(self.regain(method)).await?;
                }
                return Ok(request);
            }
            // Cancelled before it began, or the session is over.
            Some(Err(_)) => {
                self.held.server.counters.cancelled.add();
                return Err(Gone);
            }
            Some(Ok(Some(Ok(_)))) | None => self.late(),
            Some(Ok(Some(Err(error)))) => undecodable(&error),
            Some(Ok(None)) => {
                let text = "the call ended without a request";
                Status::library(Code::INVALID_ARGUMENT, Processed::No, text)
            }
        };
        self.refuse(&refusal);
        Err(Gone)
    }

    /// Whether its time is over; where it was taken, as it was when it was taken.
    fn is_late(&self) -> bool {
        if polled_in_place() {
            return self.was_late;
        }
        self.deadline.is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn late(&self) -> Status {
        self.held.server.counters.late.add();
        let text = "the time for the call ran out before it began";
        Status::library(Code::DEADLINE_EXCEEDED, Processed::No, text)
    }

    /// Runs the interceptors, and then the handler, as long as the caller waits for the answer.
    pub(super) async fn run<T, F>(
        &mut self,
        cx: Context,
        handler: impl FnOnce(Context) -> F,
    ) -> Result<(Context, Result<T, Status>), Gone>
    where
        F: Future<Output = Result<T, Status>>,
    {
        if self.is_late() {
            let status = self.late();
            self.refuse(&status);
            return Err(Gone);
        }
        if self.send.is_gone() {
            self.held.server.counters.cancelled.add();
            return Err(Gone);
        }
        self.begin_span(&cx);
        let server = Arc::clone(&self.held.server);
        let mut given = cx.clone();
        for interceptor in &server.interceptors {
            let settle = Status::of_handler;
            let before = self.guard(&given, settle, || interceptor(given.clone()));
            match before.await? {
                Ok(next) => given = next,
                Err(status) => {
                    let (origin, retry) = (status.origin(), status.is_retryable());
                    let status = status.said_by(origin, Processed::No, retry);
                    return Ok((cx, Err(status)));
                }
            }
        }
        let passed = |at| at <= Instant::now();
        if !server.interceptors.is_empty() && self.deadline.is_some_and(passed) {
            let status = self.late();
            self.refuse(&status);
            return Err(Gone);
        }
        #[cfg(feature = "rpc-tower")]
        if let Some(layers) = &server.layers {
            let run = || layers.run(given, handler);
            let outcome = self.guard(&cx, |status| status, run).await?;
            return Ok((cx, outcome));
        }
        let run = || handler(given);
        let outcome = self.guard(&cx, Status::of_handler, run).await?;
        Ok((cx, outcome))
    }

    /// Begins the span of a call, whose context this is.
    pub(super) fn begin_span(&mut self, cx: &Context) {
        if CallSpan::ENABLED {
            let (session, before) = (cx.session().map(Session::span), cx.trace_parent());
            let (span, trace) = CallSpan::of_server(self.head.method, session, before);
            self.held.seen.set_span(span);
            trace.into_iter().for_each(|trace| cx.set_trace(trace));
        }
    }

    /// Polls what the application does: catches its panics, ends it when the caller has gone or the time is over. A status that the
    /// application returns is `settle`d; one of the library is not.
    pub(super) async fn guard<T, F>(
        &mut self,
        cx: &Context,
        settle: fn(Status) -> Status,
        make: impl FnOnce() -> F,
    ) -> Result<Result<T, Status>, Gone>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let made = catch_unwind(AssertUnwindSafe(|| self.held.seen.in_span(make)));
        let future = match made {
            Ok(future) => future,
            Err(panic) => return Ok(Err(self.panicked(&*panic))),
        };
        let mut future = pin!(future);
        let mut timer = Timer::new(self.deadline);
        let mut ended: Option<(Code, Timer)> = None;
        poll_fn(|task| {
            let polled = catch_unwind(AssertUnwindSafe(|| {
                self.held.seen.in_span(|| future.as_mut().poll(task))
            }));
            match polled {
                Ok(Poll::Ready(outcome)) if ended.is_none() => {
                    return Poll::Ready(Ok(outcome.map_err(settle)));
                }
                Ok(Poll::Ready(_)) => return Poll::Ready(self.end(&mut ended)),
                Err(panic) => return Poll::Ready(Ok(Err(self.panicked(&*panic)))),
                Ok(Poll::Pending) => {}
            }
            if polled_in_place() {
                // Polled again as a task of its own, at once.
                return Poll::Pending;
            }
            if ended.is_none() {
                let code = match timer.poll(task) {
                    Poll::Ready(()) => Code::DEADLINE_EXCEEDED,
                    Poll::Pending => ready!(self.send.poll_gone(task)),
                };
                cx.cancel_with(code);
                self.held.seen.ends_with(code);
                let until = Instant::now() + CLEANUP_MAX;
                ended = Some((code, Timer::new(Some(until))));
                if cx.is_watched() {
                    // It was told, and is to be polled.
                    task.waker().wake_by_ref();
                }
            }
            let over = match &mut ended {
                Some((_, cleanup)) if cx.is_watched() => cleanup.poll(task).is_ready(),
                _ => true,
            };
            match over {
                true => Poll::Ready(self.end(&mut ended)),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// The outcome of a call whose handler was ended.
    fn end<T>(&self, ended: &mut Option<(Code, Timer)>) -> Result<Result<T, Status>, Gone> {
        self.held.server.counters.cancelled.add();
        match ended.take() {
            Some((Code::DEADLINE_EXCEEDED, _)) => {
                let text = "the time for the call ran out";
                let late = Status::library(Code::DEADLINE_EXCEEDED, Processed::Yes, text);
                Ok(Err(late))
            }
            _ => Err(Gone),
        }
    }

    #[cold]
    pub(super) fn panicked(&self, panic: &(dyn Any + Send)) -> Status {
        self.held.server.counters.panicked.add();
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no text");
        let method = self.head.method;
        // In the call's span: the log line says which call it was, and of which peer.
        self.held.in_span(|| {
            paced!(Level::ERROR, method, panic = text, "a handler panicked");
        });
        // What it said stays here: it may be about other callers.
        Status::library(Code::INTERNAL, Processed::Yes, "the handler panicked")
    }

    /// Ends a call of which something panicked, unless it has an answer.
    #[cold]
    pub(super) fn end_panicked(&mut self, panic: &(dyn Any + Send)) {
        let status = self.panicked(panic);
        self.fail(&status);
    }

    // ---- the answer -----------------------------------------------------------------------------

    /// Ends the call in one frame that is served here, if its answer is one frame as well; else the answer comes back, encoded.
    pub(super) fn answer_here<T>(
        &mut self,
        call: &mut IncomingCall,
        cx: &Context,
        outcome: Result<T, Status>,
        coding: Coding<T>,
    ) -> Option<Bytes> {
        let encoded = match outcome {
            Ok(message) => coding.into_bytes(message).map_err(Status::has_run),
            Err(status) => Err(status.of_handler()),
        };
        match encoded {
            Ok(answer) if call.fits(answer.len()) && !cx.has_answer() => {
                call.reply_on(&self.held.peer.session, answer);
                self.held.seen.ends_with(Code::OK);
                None
            }
            Ok(answer) => Some(answer),
            Err(status) => {
                self.send = Answering::Call(std::mem::take(call));
                self.fail(&status);
                None
            }
        }
    }

    /// Ends a call with one answer.
    pub(super) async fn answer<T>(
        &mut self,
        cx: &Context,
        outcome: Result<T, Status>,
        coding: Coding<T>,
    ) {
        let answer = match outcome {
            Ok(message) => {
                let encode = AssertUnwindSafe(move || coding.into_bytes(message));
                let encoded = catch_unwind(encode);
                let encoded = encoded.unwrap_or_else(|panic| Err(self.panicked(&*panic)));
                encoded.map_err(Status::has_run)
            }
            Err(status) => return self.fail_handled(&status),
        };
        match answer {
            Ok(answer) => self.send_answer(cx, answer).await,
            Err(status) => self.fail(&status),
        }
    }

    /// The same with an answer that is encoded.
    pub(super) async fn send_answer(&mut self, cx: &Context, answer: Bytes) {
        if let Answering::Call(call) = &mut self.send
            && !cx.has_answer()
            && call.fits(answer.len())
        {
            call.reply(answer);
            self.held.seen.ends_with(Code::OK);
            self.send = Answering::Over;
            return;
        }
        if let Some(headers) = cx.take_answer(Part::Headers)
            && self.send_meta(block::HEADERS, &headers).await.is_err()
        {
            return;
        }
        let deadline = self.deadline;
        let mut timer = Timer::new(deadline);
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = self
                .send
                .poll(cx, |stream, cx| poll_send(stream, &answer, cx))
            {
                return Poll::Ready(sent.map_err(Status::from));
            }
            timer.poll(cx).map(|()| {
                let text = "the time for the call ran out before its answer was sent";
                Err(Status::library(
                    Code::DEADLINE_EXCEEDED,
                    Processed::Yes,
                    text,
                ))
            })
        })
        .await;
        match sent {
            Ok(()) => self.finish(cx).await,
            // For a message that is too long the caller still waits.
            Err(status) => self.fail(&status.has_run()),
        }
    }

    /// Ends a call whose handler has sent its answers, or has handed its sender on to what sends them.
    pub(super) async fn end_answers(&mut self, cx: &Context, outcome: Result<(), Status>) {
        let outcome = match (outcome, &self.send) {
            (Ok(()), Answering::Shared(shared)) if shared.released() != Some(Ok(())) => {
                let shared = Arc::clone(shared);
                let waiting = async move { Ok(poll_fn(|cx| shared.poll_released(cx)).await) };
                // In memory of its own: few handlers do that.
                let waited = Box::pin(self.guard(cx, |status| status, || waiting)).await;
                let Ok(waited) = waited else { return };
                waited.and_then(|released| {
                    released.map_err(|()| self.panicked(&"what had its sender"))
                })
            }
            (outcome, _) => outcome,
        };
        match outcome {
            Ok(()) => self.finish(cx).await,
            Err(status) => self.fail_handled(&status),
        }
    }

    /// Ends the call of a handler that has failed. One whose caller has gone, as a handler that sends learns, was cancelled.
    fn fail_handled(&mut self, status: &Status) {
        let mut task = std::task::Context::from_waker(Waker::noop());
        if status.origin() == Origin::Handler
            && let Poll::Ready(code) = self.send.poll_gone(&mut task)
        {
            self.held.server.counters.cancelled.add();
            self.held.seen.ends_with(code);
            return;
        }
        self.fail(status);
    }

    async fn finish(&mut self, cx: &Context) {
        if let Some(trailers) = cx.take_answer(Part::Trailers)
            && self.send_meta(block::TRAILERS, &trailers).await.is_err()
        {
            return;
        }
        self.held.seen.ends_with(Code::OK);
        let _ = self.send.with(SendStream::finish);
    }

    async fn send_meta(&mut self, kind: u8, metadata: &Bytes) -> Result<(), Gone> {
        let block = meta(kind, metadata);
        let mut timer = Timer::new(self.deadline);
        poll_fn(|cx| {
            let send = |stream: &mut SendStream, cx: &mut std::task::Context<'_>| {
                pin!(stream.send_meta(block.clone())).poll(cx)
            };
            if let Poll::Ready(sent) = self.send.poll(cx, send) {
                return Poll::Ready(sent.map_err(|_| Gone));
            }
            timer.poll(cx).map(|()| Err(Gone))
        })
        .await
    }

    /// Ends the call with a status that says that its handler has not run.
    pub(super) fn refuse(&mut self, status: &Status) {
        self.held.server.counters.refused.add();
        self.fail(status);
    }

    fn fail(&mut self, status: &Status) {
        self.held.server.counters.failed.add();
        self.held.seen.ends_with(status.code());
        let code = status.code().number();
        // The last codes are the transport's own.
        let code = if codes::is_reserved(code) {
            Code::UNKNOWN.number()
        } else {
            code
        };
        let details = dialect::encode_status(self.held.peer.session.wire(), status);
        if let Answering::Call(call) = &mut self.send {
            call.fail(code, status.message(), &details);
            self.send = Answering::Over;
            return;
        }
        let end =
            |stream: &mut SendStream| stream.finish_with_details(code, status.message(), &details);
        // Fails if the caller has gone.
        let _ = self.send.with(end);
    }
}

pub(super) fn undecodable(error: &CodecError) -> Status {
    let text = format!("the request cannot be decoded: {error}");
    Status::library(Code::INVALID_ARGUMENT, Processed::No, text)
}
