//! The loop of one session: takes calls, polls their handlers where they are, and makes tasks of those that wait.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tracing::Level;

use super::answering::Answering;
use super::bound::{Bound, full};
use super::code::Code;
use super::context::Peer;
use super::dialect;
use super::held::{Common, Held};
use super::incoming::{Head, Incoming};
use super::mode::{Here, InPlace as _, Mode, Taken};
use super::places::{Waited, Waits};
use super::polling::while_in_place;
use super::router::Entry;
use super::status::Status;
use super::warm::Warm;
use super::wire::{Opening, OpeningError, Parts, flag};
use crate::error::{Processed, SessionError};
use crate::handle::call::{Acceptor, Arrival, IncomingCall};
use crate::handle::{RecvStream, SendStream, Session};
use crate::pace::paced;
use crate::timer::has_time;

/// The fewest and the most calls that are taken before other tasks of the thread run. Between them half of the calls that wait are
/// taken: their answers are sent while the handlers of the other half run.
const READY_CALLS: u32 = 32;
const READY_CALLS_MAX: u32 = 256;
/// The longest time for that. It and the number of calls that wait are read once in [`LOOK_CALLS`].
const READY_TIME: Duration = Duration::from_micros(50);
const LOOK_CALLS: u32 = 4;
/// A call that had less time left when the clock was read last is judged by the time as it is now. Handlers that ran in place since,
/// fewer than [`LOOK_CALLS`], are taken to have worked for less than that together.
const NEAR: Duration = Duration::from_secs(1);
/// Bytes that a session keeps for handlers of calls that are ready at once, whether it is idle or not.
const RUNNERS_MAX: usize = 8 * 1024;

pub(super) struct Core<M: Mode> {
    pub(super) methods: FxHashMap<&'static str, Entry<M>>,
    pub(super) max_session_calls: usize,
    pub(super) common: Arc<Common>,
}

pub(super) async fn serve_session<M: Mode>(
    core: &Arc<Core<M>>,
    session: Session,
) -> Result<(), SessionError> {
    check_runtime::<M>().map_err(|error| SessionError::Io(Arc::new(error)))?;
    let bound = core.common.bound.with_limit(core.max_session_calls);
    let peer = Arc::new(Peer::new(session, bound));
    let warm = Warm::new(&peer, &core.common);
    let mut serving = Serving {
        core: Arc::clone(core),
        peer,
        arrived: 0,
        since: None,
        near: None,
        runners: Runners::new(),
        warm,
    };
    let mut acceptor = Acceptor::new(serving.peer.session.clone());
    loop {
        let arrived = match acceptor.next_call() {
            Some(call) => Some(Arrival::Call(call)),
            None => serving.wait(&mut acceptor).await?,
        };
        match arrived {
            Some(Arrival::Call(call)) => {
                if let Some(call) = serving.take_in_place(call) {
                    serving.pause();
                    serving.take_call(call).await;
                }
            }
            Some(Arrival::Stream(send, recv)) => {
                serving.pause();
                serving.take(send, recv).await;
            }
            None => return Ok(()),
        }
        if serving.has_had_its_turn(&acceptor) {
            serving.rest();
            tokio::task::yield_now().await;
        }
    }
}

struct Serving<M: Mode> {
    core: Arc<Core<M>>,
    peer: Arc<Peer>,
    /// Streams and calls since others had their turn, whatever became of them, and since when.
    arrived: u32,
    since: Option<Instant>,
    /// [`NEAR`] after the time as it was at most [`LOOK_CALLS`] arrivals ago; none if anything but calls in place was done since.
    near: Option<Instant>,
    runners: Runners<M>,
    warm: Warm,
}

impl<M: Mode> Serving<M> {
    /// Waits for what the peer asks for; `None` is the orderly end of the session.
    async fn wait(&mut self, acceptor: &mut Acceptor) -> Result<Option<Arrival>, SessionError> {
        std::future::poll_fn(|cx| {
            let arrived = acceptor.poll(cx);
            if arrived.is_pending() {
                self.rest();
            }
            arrived
        })
        .await
    }

    /// Before anything else is done than to run calls in place, above all before it waits: the time, and places, are kept for those.
    fn pause(&mut self) {
        self.near = None;
        self.warm.pause();
    }

    /// Before others on the thread have their turn.
    fn rest(&mut self) {
        self.pause();
        self.arrived = 0;
        self.since = None;
    }

    /// Takes a stream that the peer has opened.
    async fn take(&mut self, send: SendStream, recv: RecvStream) {
        let core = Arc::clone(&self.core);
        let (entry, head) = match parse(&core, &recv) {
            Ok(known) => known,
            Err(status) => {
                let mut call = self.incoming(send, recv, Head::default(), 0);
                return call.refuse(&status);
            }
        };
        let call = self.incoming(send, recv, head, entry.row);
        self.serve(entry, call).await;
    }

    /// Runs a call in one frame where it is, if nothing stands in the way; else it comes back.
    fn take_in_place(&mut self, call: IncomingCall) -> Option<IncomingCall> {
        let (Some(received), Some(parts)) = (call.received_at(), Parts::of(call.opening())) else {
            return Some(call);
        };
        let Some((method, runner)) = self.runners.find(&self.core, parts.method) else {
            return Some(call);
        };
        let plain = parts.flags & !flag::TIMEOUT == 0 && parts.metadata.is_empty();
        let since = Instant::from_std(received);
        let deadline = parts.timeout.and_then(|timeout| since.checked_add(timeout));
        let late = deadline.is_some_and(|at| is_late(at, &mut self.near));
        if !plain || late || method.codec != parts.codec {
            return Some(call);
        }
        if !self.warm.begin(method.row, since) {
            return Some(call);
        }
        let timeout = parts.timeout;
        let warm = &mut self.warm;
        warm.call.deadline = deadline;
        warm.call.head.method = method.name;
        warm.call.head.timeout = timeout;
        if let Some(answer) = runner.run(warm, Here(call))
            && let Some(pending) = poll_in_place(answer)
        {
            M::spawn(pending);
        }
        None
    }

    /// Takes a call of the peer in one frame.
    async fn take_call(&mut self, mut call: IncomingCall) {
        let core = Arc::clone(&self.core);
        let parsed = parse_call(&core, &call);
        let now = Instant::now();
        let since = call.received_at().map_or(now, Instant::from_std);
        let message = call.hold_request();
        let (row, head) = match &parsed {
            Ok((entry, _)) => (
                entry.row,
                parsed.as_ref().ok().map(|(_, head)| head.clone()),
            ),
            Err(_) => (0, None),
        };
        let head = head.unwrap_or_default();
        let deadline = head.timeout.and_then(|timeout| since.checked_add(timeout));
        let mut held = Held::new(&self.peer, &core.common);
        held.begin(row, since);
        let mut call = Incoming {
            recv: None,
            send: Answering::Call(call),
            message: Some(message),
            head,
            deadline,
            was_late: deadline.is_some_and(|at| at <= now),
            held,
        };
        match parsed {
            Ok((entry, _)) => self.serve(entry, call).await,
            Err(status) => call.refuse(&status),
        }
    }

    /// Runs a call of a method, if there is a place for it. While it waits for one of the session or of the server, so do the calls behind
    /// it; the end of the session is the acceptor's to tell.
    async fn serve(&mut self, entry: &Entry<M>, mut call: Incoming) {
        if !call.held.take_places() {
            if call.places(None, Waits::Seated).await.is_err() {
                return;
            }
            call.was_late = call.deadline.is_some_and(|at| at <= Instant::now());
        }
        if let Some(bound) = &entry.bound {
            call.held.of_method = bound.try_acquire();
            if call.held.of_method.is_none() {
                return wait_or_refuse(entry, bound, call);
            }
        }
        run(entry, call);
    }

    fn incoming(&self, send: SendStream, recv: RecvStream, head: Head, row: usize) -> Incoming {
        let now = Instant::now();
        // Its time runs from when it was received, however long it waited to be taken.
        let since = recv.received_at().map_or(now, Instant::from_std);
        let deadline = head.timeout.and_then(|timeout| since.checked_add(timeout));
        let mut held = Held::new(&self.peer, &self.core.common);
        held.begin(row, since);
        Incoming {
            recv: Some(recv),
            send: Answering::Own(send),
            message: None,
            head,
            deadline,
            was_late: deadline.is_some_and(|at| at <= now),
            held,
        }
    }

    /// Whether so much has arrived, one behind the other, that others on the thread have to have their turn.
    fn has_had_its_turn(&mut self, acceptor: &Acceptor) -> bool {
        self.arrived += 1;
        if !self.arrived.is_multiple_of(LOOK_CALLS) {
            return false;
        }
        let now = Instant::now();
        self.near = Some(now + NEAR);
        self.warm.settle(now);
        let since = *self.since.get_or_insert(now);
        let enough = acceptor.waiting_calls().clamp(READY_CALLS, READY_CALLS_MAX);
        self.arrived >= enough || now.duration_since(since) >= READY_TIME
    }
}

// ---- what runs calls in place -----------------------------------------------------------------------

/// What runs calls that are ready at once, with the memory of their handlers.
struct Runners<M: Mode> {
    /// By the numbers of their methods.
    by_row: Vec<Option<M::InPlace>>,
    /// Bytes of them all: [`RUNNERS_MAX`] at most.
    kept: usize,
    last: Option<Called>,
}

/// The method that was called last.
#[derive(Clone, Copy)]
struct Called {
    name: &'static str,
    codec: u8,
    row: usize,
}

impl<M: Mode> Runners<M> {
    const fn new() -> Self {
        Self {
            by_row: Vec::new(),
            kept: 0,
            last: None,
        }
    }

    /// What runs calls of a method in place, if they may be.
    #[inline]
    fn find(&mut self, core: &Core<M>, method: &[u8]) -> Option<(Called, &mut M::InPlace)> {
        let is_other = |last: Called| last.name.as_bytes() != method;
        if self.last.is_none_or(is_other) {
            self.turn_to(core, method)?;
        }
        let last = self.last?;
        let runner = self.by_row.get_mut(last.row)?.as_mut()?;
        Some((last, runner))
    }

    #[inline(never)]
    fn turn_to(&mut self, core: &Core<M>, method: &[u8]) -> Option<()> {
        if !core.common.interceptors.is_empty() {
            return None;
        }
        #[cfg(feature = "rpc-tower")]
        if core.common.layers.is_some() {
            return None;
        }
        let entry = core.methods.get(std::str::from_utf8(method).ok()?)?;
        if entry.bound.is_some() || entry.options.spawn {
            return None;
        }
        let new = entry.in_place.as_ref()?;
        if self.by_row.get(entry.row).is_none_or(Option::is_none) {
            self.add(entry.row, new());
        }
        self.last = Some(Called {
            name: entry.name,
            codec: entry.codec,
            row: entry.row,
        });
        Some(())
    }

    /// If they would keep too much, those of the other methods are dropped, and made again as they are called.
    fn add(&mut self, row: usize, runner: M::InPlace) {
        let keeps = runner.keeps();
        if self.kept + keeps > RUNNERS_MAX {
            *self = Self::new();
        }
        if self.by_row.len() <= row {
            self.by_row.resize_with(row + 1, || None);
        }
        if let Some(place) = self.by_row.get_mut(row) {
            *place = Some(runner);
            self.kept += keeps;
        }
    }
}

// ---- deadlines and places ---------------------------------------------------------------------------

/// Whether a deadline has passed. `near`: see [`Serving`].
#[inline]
fn is_late(deadline: Instant, near: &mut Option<Instant>) -> bool {
    if near.is_some_and(|near| near < deadline) {
        return false;
    }
    let now = Instant::now();
    *near = Some(now + NEAR);
    deadline <= now
}

/// Of a call whose method has no place: others go on.
fn wait_or_refuse<M: Mode>(entry: &Entry<M>, bound: &Arc<Bound>, mut call: Incoming) {
    let Some(wait) = Waited::new(bound) else {
        return call.refuse(&full());
    };
    // What waits here takes no place of the calls of other methods.
    call.held.give_back();
    M::spawn(M::start_later(&entry.handler, Taken(call), wait));
}

fn run<M: Mode>(entry: &Entry<M>, call: Incoming) {
    let call = M::start(&entry.handler, Taken(call));
    if entry.options.spawn {
        M::spawn(call);
    } else if let Some(pending) = poll_in_place(call) {
        M::spawn(pending);
    }
}

/// The method that a stream calls, and what else its opening says.
fn parse<'a, M: Mode>(
    core: &'a Core<M>,
    recv: &RecvStream,
) -> Result<(&'a Entry<M>, Head), Status> {
    let opening = dialect::read_opening(recv.wire(), recv.opening()).map_err(refusal)?;
    let entry = find(core, &opening)?;
    let head = Head {
        method: entry.name,
        flags: entry.flags | opening.flags,
        timeout: opening.timeout,
        metadata: opening.metadata,
    };
    Ok((entry, head))
}

/// The method that a call in one frame calls, and the rest of its opening.
fn parse_call<'a, M: Mode>(
    core: &'a Core<M>,
    call: &IncomingCall,
) -> Result<(&'a Entry<M>, Head), Status> {
    let share = |part: &[u8]| call.slice_of_opening(part);
    let opening = Opening::decode_in_place(call.opening(), share).map_err(refusal)?;
    let entry = find(core, &opening)?;
    let more = flag::REQUEST_STREAM | flag::RESPONSE_STREAM | flag::METADATA_FOLLOWS;
    if opening.flags & more != 0 {
        let text = "a call in one frame has one message, and nothing before or behind it";
        return Err(Status::library(Code::INVALID_ARGUMENT, Processed::No, text));
    }
    let head = Head {
        method: entry.name,
        flags: opening.flags,
        timeout: opening.timeout,
        metadata: opening.metadata,
    };
    Ok((entry, head))
}

/// The method, if it is called as it is served.
fn find<'a, M: Mode>(core: &'a Core<M>, opening: &Opening<'_>) -> Result<&'a Entry<M>, Status> {
    let unimplemented = |text| Status::library(Code::UNIMPLEMENTED, Processed::No, text);
    let name = opening.method;
    let Some(entry) = core.methods.get(name) else {
        let service = name.rsplit_once('/').map_or("", |(service, _)| service);
        let of_it = |method: &&str| method.rsplit_once('/').is_some_and(|(s, _)| s == service);
        return Err(unimplemented(match core.methods.keys().any(of_it) {
            true => format!("the service has no method {name}"),
            false => format!("there is no service {service:?}, of the method {name}"),
        }));
    };
    if !opening.says_kind {
        return Ok(entry);
    }
    if entry.codec != opening.codec {
        let (asked, served) = (opening.codec, entry.codec);
        let text = format!("{name} is served with codec {served}, and was called with {asked}");
        return Err(unimplemented(text));
    }
    let kind = flag::REQUEST_STREAM | flag::RESPONSE_STREAM;
    if opening.flags & kind != entry.flags {
        return Err(unimplemented(format!(
            "{name} is called as another kind of method"
        )));
    }
    if opening.flags & flag::GRPC != 0 {
        return Err(unimplemented(format!(
            "{name} takes no messages with the prefix of gRPC"
        )));
    }
    Ok(entry)
}

fn refusal(error: OpeningError) -> Status {
    let code = match error {
        OpeningError::Version(_) | OpeningError::Flags(_) | OpeningError::Compressed => {
            Code::UNIMPLEMENTED
        }
        _ => Code::INVALID_ARGUMENT,
    };
    Status::library(code, Processed::No, error.to_string())
}

/// Whether handlers can run here.
pub(super) fn check_runtime<M: Mode>() -> io::Result<()> {
    if !has_time() {
        let text = "handlers need a runtime of tokio, with time enabled";
        return Err(io::Error::other(text));
    }
    if !M::can_spawn() {
        let text = "handlers that are not Send need a LocalSet of tokio";
        return Err(io::Error::other(text));
    }
    Ok(())
}

// ---- polling in place -----------------------------------------------------------------------------

/// Polls a call where it was taken; it comes back if it waits.
fn poll_in_place<C: Future<Output = ()> + Unpin>(mut call: C) -> Option<C> {
    let polled = catch_unwind(AssertUnwindSafe(move || {
        // Woken again as a task.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match while_in_place(|| Pin::new(&mut call).poll(&mut cx)) {
            Poll::Ready(()) => None,
            Poll::Pending => Some(call),
        }
    }));
    polled.unwrap_or_else(|_| {
        // Of a destructor; the stream was cancelled by being dropped.
        paced!(
            Level::ERROR,
            "what a handler left behind panicked when it was dropped"
        );
        None
    })
}
