//! Unary calls in one frame each way: what `rpc` makes of them is the public part.
//!
//! A caller tries [`PendingCall::begin`], and opens a stream where that is not possible: the peer takes no calls, or has
//! granted no more streams, or the request is longer than a frame. An [`Acceptor`] takes the streams and the calls of the peer; the peer
//! is told that there is one. Of a session there is one at most.

use std::borrow::Cow;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::recv::RecvStream;
use super::send::SendStream;
use super::session::{Session, accept, halves};
use crate::bridge::{
    Back, CallLink, CallSide, CallSpare, Ended, Lane, SHORT_MAX, SessionLink, failure,
};
use crate::error::{SessionError, StreamError, codes};
use crate::queue::Teardown;
use crate::sync::Arc;

/// A call that is under way. Dropped before its end, it is cancelled.
#[derive(Debug)]
pub(crate) struct PendingCall<'s> {
    /// Until it has ended.
    side: Option<CallSide>,
    link: Cow<'s, Arc<SessionLink>>,
}

/// The request of a call that has not begun. A short one is in the memory of the call's cell: neither an allocation nor a
/// reference.
#[derive(Debug)]
pub(crate) struct Request {
    spare: Option<CallSpare>,
    /// One that is not in the cell.
    message: Bytes,
}

impl From<Bytes> for Request {
    fn from(message: Bytes) -> Self {
        Self {
            spare: None,
            message,
        }
    }
}

impl Request {
    /// For a session: `put` appends the message to a buffer, unless it is longer than the `usize` it is given and bytes already,
    /// which it returns.
    ///
    /// # Errors
    /// That of `put`.
    #[inline]
    pub(crate) fn encode<E>(
        session: &Session,
        put: impl FnOnce(&mut BytesMut, usize) -> Result<Option<Bytes>, E>,
    ) -> Result<Self, E> {
        let calls = &session.link().calls;
        if !calls.peer_takes() {
            let mut buffer = BytesMut::new();
            let whole = put(&mut buffer, 0)?;
            return Ok(whole.unwrap_or_else(|| buffer.freeze()).into());
        }
        let mut spare = calls.spare();
        let short = &mut spare.out().short;
        let mut message = match put(short, SHORT_MAX)? {
            Some(whole) => whole,
            None => Bytes::new(),
        };
        if short.len() > SHORT_MAX {
            message = std::mem::take(short).freeze();
        }
        Ok(Self {
            spare: Some(spare),
            message,
        })
    }

    /// As a codec encodes a message that is bytes already.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn raw(session: &Session, message: &Bytes) -> Self {
        let put = |buffer: &mut BytesMut, most| {
            let short = message.len() <= most;
            let shorts: &[u8] = if short { message } else { &[] };
            buffer.extend_from_slice(shorts);
            Ok::<_, std::convert::Infallible>((!short).then(|| message.clone()))
        };
        let Ok(request) = Self::encode(session, put);
        request
    }

    fn len(&mut self) -> usize {
        let spare = self.spare.as_mut();
        self.message.len() + spare.map_or(0, |spare| spare.out().short.len())
    }

    /// The message, of a call that has to be a stream.
    pub(crate) fn take_message(&mut self, session: &Session) -> Bytes {
        let message = std::mem::take(&mut self.message);
        let Some(mut spare) = self.spare.take() else {
            return message;
        };
        let short = spare.out().take_message();
        session.link().calls.put_spare(spare);
        if message.is_empty() { short } else { message }
    }
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Answer {
    /// With the time when it was received.
    Message(Bytes, Instant),
    /// The server answers with a stream; the sending half has finished.
    Stream(Box<(SendStream, RecvStream)>),
    Failed(StreamError),
}

impl<'s> PendingCall<'s> {
    /// Begins a call, and takes its request: `opening` appends the opening block. `None` if it has to be a stream, or the session has
    /// ended, which `open` tells; nothing was done then.
    #[inline]
    pub(crate) fn begin(
        session: &Cow<'s, Session>,
        opening: impl FnOnce(&mut Vec<u8>),
        request: &mut Request,
        deadline: Option<Instant>,
    ) -> Option<Self> {
        let side = ask(session.link(), opening, request, deadline)?;
        Some(Self {
            side: Some(side),
            link: match session {
                Cow::Borrowed(session) => Cow::Borrowed(session.link()),
                Cow::Owned(session) => Cow::Owned(Arc::clone(session.link())),
            },
        })
    }

    /// What `read` makes of the answer, with the time when that was received, if it is here and came in one frame;
    /// [`poll`](Self::poll) has the rest.
    #[inline(always)] // It is moved once, out of the cell.
    pub(crate) fn take_answer<T>(
        &mut self,
        read: impl FnOnce(&mut Bytes) -> T,
    ) -> Option<(T, Instant)> {
        let back = self.side.as_mut()?.given()?;
        if !matches!(back, Some(Back::Answer(..))) || self.link.is_inherited() {
            return None;
        }
        // Should `read` panic, the call is over.
        let mut side = self.side.take()?;
        let Some(Back::Answer(message, at)) = side.given()? else {
            return None;
        };
        let (calls, at) = (&self.link.calls, *at);
        calls.answer_read(&self.link, message);
        let answer = read(message);
        calls.reclaim(side);
        Some((answer, at))
    }

    /// The end of the call.
    ///
    /// # Panics
    /// After it was ready, or cancelled.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Answer> {
        let side = self.side.as_mut().expect("not polled after its end");
        if self.link.is_inherited() {
            return Poll::Ready(Answer::Failed(stopped()));
        }
        let Poll::Ready(back) = side.poll(cx) else {
            return Poll::Pending;
        };
        if let Some(side) = self.side.take() {
            self.link.calls.reclaim(side);
        }
        Poll::Ready(match back {
            Back::Answer(message, at) => {
                self.link.calls.answer_read(&self.link, &message);
                Answer::Message(message, at)
            }
            Back::Stream(side) => Answer::Stream(Box::new(halves(side))),
            Back::End(error) => Answer::Failed(error),
        })
    }

    /// Ends the call; its future is not polled any more.
    pub(crate) fn cancel(&mut self, code: u32) {
        let Some(mut side) = self.side.take() else {
            return;
        };
        match side.take() {
            Some(Back::Stream(stream)) => {
                let (mut send, _recv) = halves(stream);
                return send.cancel(code);
            }
            Some(Back::Answer(answer, _)) => {
                self.link.calls.answer_read(&self.link, &answer);
                return self.link.calls.reclaim(side);
            }
            Some(Back::End(_)) => return self.link.calls.reclaim(side),
            None => {}
        }
        let link = &*self.link;
        let _teardown = Teardown::begin();
        if !link.is_inherited()
            && let Some(node) = side.cancel(code)
            && let Err(node) = link.calls.push(link, node)
        {
            // The session has ended, perhaps behind an answer.
            link.calls.forget_answer(link, node);
        }
    }
}

/// See [`PendingCall::begin`].
#[inline(never)] // With a result that fits into registers.
fn ask(
    link: &SessionLink,
    opening: impl FnOnce(&mut Vec<u8>),
    request: &mut Request,
    deadline: Option<Instant>,
) -> Option<CallSide> {
    let (calls, len) = (&link.calls, request.len());
    let may = calls.peer_takes() && len <= calls.longest && !link.is_inherited();
    if !may || link.refusal().is_some() {
        return None;
    }
    let spare = request.spare.take();
    let mut spare = spare.unwrap_or_else(|| calls.spare());
    let out = spare.out();
    opening(&mut out.opening);
    let block = out.opening.len();
    let fits = block <= link.max_opening && block + len <= calls.longest;
    if !fits || !link.opens.take() {
        out.opening.clear();
        request.spare = Some(spare);
        return None;
    }
    if !request.message.is_empty() {
        out.message = std::mem::take(&mut request.message);
    }
    out.deadline = deadline;
    let (side, node) = spare.ask();
    match calls.push(link, node) {
        Ok(()) => Some(side),
        Err(node) => {
            request.message = CallLink::take_back(node);
            None
        }
    }
}

impl Drop for PendingCall<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.side.is_some() {
            self.cancel(codes::CANCELLED);
        }
    }
}

fn link_of(side: &CallSide) -> Option<&Arc<SessionLink>> {
    side.common().link()
}

const fn stopped() -> StreamError {
    StreamError::Session(SessionError::EngineStopped)
}

/// Calls that are taken one behind the other before streams are looked at.
const CALLS_IN_TURN: u32 = 16;

/// What a peer asks for.
#[derive(Debug)]
pub(crate) enum Arrival {
    Stream(SendStream, RecvStream),
    Call(IncomingCall),
}

/// Takes the streams and the calls of the peer.
#[derive(Debug)]
pub(crate) struct Acceptor {
    session: Session,
    /// Takes calls too.
    claimed: bool,
    /// Which of the two are looked at first: in turn, so that neither waits for the end of the other.
    calls_first: bool,
    /// Calls that are taken before streams are looked at.
    calls_left: u32,
    streams: accept::Incoming,
}

impl Acceptor {
    /// The one of a session; a second one takes streams alone.
    pub(crate) fn new(session: Session) -> Self {
        let link = session.link();
        Self {
            claimed: link.calls.claim(link),
            calls_first: true,
            calls_left: CALLS_IN_TURN,
            streams: session.incoming(),
            session,
        }
    }

    /// A call that is here already; none if it is the turn of streams, which [`poll`](Self::poll) looks at.
    #[inline]
    pub(crate) fn next_call(&mut self) -> Option<IncomingCall> {
        let link = self.session.link();
        if self.calls_left == 0 || !self.claimed || link.is_inherited() {
            self.calls_left = CALLS_IN_TURN;
            self.calls_first = false;
            return None;
        }
        self.calls_left -= 1;
        link.calls.pop().map(IncomingCall::new)
    }

    /// Calls that are here for this one and not taken, possibly outdated.
    pub(crate) fn waiting_calls(&self) -> u32 {
        match self.claimed {
            true => self.session.link().calls.waiting(),
            false => 0,
        }
    }

    /// Waits for what the peer asks for; `None` is the orderly end of the session.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Arrival>, SessionError>> {
        let of_stream = |(send, recv)| Arrival::Stream(send, recv);
        if !self.claimed {
            let next = self.streams.poll_accept(cx);
            return next.map(|next| next.map(|next| next.map(of_stream)));
        }
        for registered in [false, true] {
            if let Some(next) = self.next() {
                self.calls_first = !self.calls_first;
                return Poll::Ready(next);
            }
            if !registered {
                self.session.link().calls.register(cx.waker());
            }
        }
        Poll::Pending
    }

    /// The next stream or call, or the end of them; `None`: not known yet.
    fn next(&self) -> Option<Result<Option<Arrival>, SessionError>> {
        let link = self.session.link();
        let call = || {
            let offer = (!link.is_inherited()).then(|| link.calls.pop()).flatten()?;
            Some(Arrival::Call(IncomingCall::new(offer)))
        };
        if self.calls_first
            && let Some(call) = call()
        {
            return Some(Ok(Some(call)));
        }
        match accept::next(link) {
            Some(Ok(Some(side))) => {
                let (send, recv) = accept::accepted(side);
                Some(Ok(Some(Arrival::Stream(send, recv))))
            }
            // Calls queued before the end was set are visible now.
            Some(end) => Some(match call() {
                Some(call) => Ok(Some(call)),
                None => end.map(|_| None).map_err(SessionError::clone),
            }),
            None if self.calls_first => None,
            None => call().map(|call| Ok(Some(call))),
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if self.claimed {
            let link = self.session.link();
            link.calls.leave(link);
        }
    }
}

/// A call of the peer. Dropped before its end, it is cancelled.
#[derive(Debug, Default)]
pub(crate) struct IncomingCall {
    /// Until it has ended.
    side: Option<CallSide>,
}

impl IncomingCall {
    fn new(side: CallSide) -> Self {
        side.mark_taken();
        Self { side: Some(side) }
    }

    /// When it was received; `None` once the request is taken.
    #[inline]
    pub(crate) fn received_at(&self) -> Option<Instant> {
        let (_, received) = self.side.as_ref()?.out_ref()?.received?;
        Some(received)
    }

    /// The opening block, until the request is taken.
    #[inline]
    pub(crate) fn opening(&self) -> &[u8] {
        let out = self.side.as_ref().and_then(CallSide::out_ref);
        let block = out.and_then(|out| out.message.get(..out.received?.0));
        block.unwrap_or_default()
    }

    /// A part of the opening block, with its memory.
    pub(crate) fn slice_of_opening(&self, part: &[u8]) -> Bytes {
        let out = self.side.as_ref().and_then(CallSide::out_ref);
        out.map_or_else(Bytes::new, |out| out.message.slice_ref(part))
    }

    /// The request, which is read with that; once.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn take_request(&mut self) -> Bytes {
        self.note_read();
        self.hold_request()
    }

    /// The request is read, and no longer kept for its handler.
    #[inline]
    pub(crate) fn note_read(&self) {
        if let Some(side) = &self.side {
            side.mark_read();
            side.common().let_go();
        }
    }

    /// The request, which the caller keeps until it [notes](Self::note_read) that it has read it; once.
    #[inline]
    pub(crate) fn hold_request(&mut self) -> Bytes {
        let Some(out) = self.side.as_mut().and_then(CallSide::out) else {
            return Bytes::new();
        };
        let mut payload = std::mem::take(&mut out.message);
        if let Some((opening, _)) = out.received.take() {
            payload.advance(opening);
        }
        payload
    }

    /// Whether an answer of this length fits into a frame; a longer one needs [`become_stream`](Self::become_stream).
    pub(crate) fn fits(&self, len: usize) -> bool {
        let link = self.side.as_ref().and_then(link_of);
        link.is_none_or(|link| len <= link.calls.longest)
    }

    /// Ends the call with an answer that [fits](Self::fits).
    pub(crate) fn reply(&mut self, answer: Bytes) {
        self.end(Ended::Answered, answer);
    }

    /// The same where the call's own session is at hand, which saves two counts of references.
    #[inline]
    pub(crate) fn reply_on(&mut self, session: &Session, answer: Bytes) {
        if let Some(side) = self.ended(Ended::Answered, answer) {
            debug_assert!(link_of(&side).is_some_and(|link| Arc::ptr_eq(link, session.link())));
            Self::give_back(session.link(), side);
        }
    }

    /// Ends the call with an error.
    pub(crate) fn fail(&mut self, code: u32, message: &str, details: &[u8]) {
        self.end(
            Ended::Failed,
            failure::encode(code, message, details).freeze(),
        );
    }

    /// Goes on with the call as a stream; `None` after its end.
    pub(crate) fn become_stream(&mut self) -> Option<SendStream> {
        let link = self.side.as_ref().and_then(link_of)?;
        let (handles, engine) = Lane::pair(link, Bytes::new(), link.credit_mark);
        let lane = handles.lane();
        lane.grant();
        lane.asked.mark_accepted();
        if let Some(end) = link.end() {
            lane.end_both(&StreamError::Session(end.clone()));
        }
        self.end(Ended::Stream(engine), Bytes::new());
        let (send, _recv) = halves(handles);
        Some(send)
    }

    /// Whether the caller has gone, or the session, as far as is known here.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.side.as_ref().is_some_and(CallSide::is_given)
    }

    /// Waits until the caller has gone, or the session; tells why.
    pub(crate) fn poll_gone(&mut self, cx: &Context<'_>) -> Poll<StreamError> {
        let Some(side) = &mut self.side else {
            return Poll::Pending;
        };
        if link_of(side).is_some_and(|link| link.is_inherited()) {
            return Poll::Ready(stopped());
        }
        side.poll(cx).map(|back| match back {
            Back::End(error) => error,
            Back::Answer(..) | Back::Stream(_) => stopped(),
        })
    }

    fn end(&mut self, end: Ended, message: Bytes) {
        if let Some(side) = self.ended(end, message)
            && let Some(link) = link_of(&side).cloned()
        {
            Self::give_back(&link, side);
        }
    }

    /// What goes to the engine; once.
    #[inline]
    fn ended(&mut self, end: Ended, message: Bytes) -> Option<CallSide> {
        let mut side = self.side.take()?;
        if let Some(out) = side.out() {
            out.end = end;
            out.message = message;
        }
        Some(side)
    }

    /// `link` is held by the caller: the engine may drop that of the cell at once.
    fn give_back(link: &SessionLink, side: CallSide) {
        if !link.is_inherited()
            && let Some(node) = side.send()
            && let Err(node) = link.calls.push(link, node)
        {
            // The session has ended, since `become_stream` looked at the latest.
            let reason = link.end().unwrap_or(&SessionError::EngineStopped);
            CallLink::refuse_stream(node, reason);
        }
    }
}

impl Drop for IncomingCall {
    #[inline]
    fn drop(&mut self) {
        if self.side.is_some() {
            let _teardown = Teardown::begin();
            self.end(Ended::Dropped, Bytes::new());
        }
    }
}
