//! Calls that wait for a place: the places that they have meanwhile, their time limits, and their order.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{
    Channel, Code, Context, Method, MethodMetrics, MethodOptions, Raw, Receiver, Server,
    ServerBuilder, Status,
};
use ringmux::{ListenError, Processed, SendError, Session, SessionError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::host::*;

/// Clients of one server, each with a session of its own.
async fn clients<const N: usize>(builder: ServerBuilder) -> (Server, [Session; N]) {
    let server = builder.build().unwrap();
    let mut sessions = Vec::new();
    for _ in 0..N {
        let (client, session) = pipe(&settings().build().unwrap()).await;
        let server = server.clone();
        tokio::spawn(async move { server.serve_session(session).await });
        sessions.push(client);
    }
    (server, sessions.try_into().unwrap())
}

/// ECHO waits for a permit, OTHER for ever; both count the handlers that have begun.
struct Handlers {
    permits: Arc<Semaphore>,
    echo: Arc<AtomicUsize>,
    other: Arc<AtomicUsize>,
}

impl Handlers {
    fn new() -> (Self, ServerBuilder) {
        let own = Self {
            permits: Arc::new(Semaphore::new(0)),
            echo: Arc::default(),
            other: Arc::default(),
        };
        let (permits, begun) = (Arc::clone(&own.permits), Arc::clone(&own.echo));
        let echo = move |_: Context, request: Bytes| {
            begun.fetch_add(1, Ordering::SeqCst);
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.unwrap().forget();
                Ok(request)
            }
        };
        let begun = Arc::clone(&own.other);
        let other = move |_: Context, _: Bytes| {
            begun.fetch_add(1, Ordering::SeqCst);
            pending::<Result<Bytes, Status>>()
        };
        let builder = Server::builder().unary(ECHO, echo).unary(OTHER, other);
        (own, builder)
    }

    fn echoes(&self) -> usize {
        self.echo.load(Ordering::SeqCst)
    }
}

type Call = tokio::task::JoinHandle<Result<Bytes, Status>>;

/// A call without a deadline, in a task.
fn call(session: &Session, method: &Method<Bytes, Bytes>) -> Call {
    let channel = Channel::new(session.clone());
    tokio::spawn(
        channel
            .call(method, &Bytes::from("x"))
            .timeout(None)
            .detach(),
    )
}

#[tokio::test]
async fn a_session_that_has_no_place_keeps_none_of_a_method_from_the_others() {
    let (handlers, builder) = Handlers::new();
    let one = MethodOptions::default().max_calls(1);
    let builder = builder.options(ECHO, one).max_session_calls(1);
    let (server, [full, other]) = clients(builder).await;

    let first = call(&other, &ECHO);
    until("the method is full", || handlers.echoes() == 1).await;
    let waits = call(&full, &ECHO);
    until("a call waits for it", || server.stats().calls == 2).await;
    let stuck = call(&full, &OTHER);
    let begun = || handlers.other.load(Ordering::SeqCst) == 1;
    until("its session is full", begun).await;

    handlers.permits.add_permits(1);
    soon(first).await.unwrap().unwrap();
    for _ in 0..20 {
        // The call whose turn it is cannot run, and is in no one's way.
        handlers.permits.add_permits(1);
        assert_eq!(soon(call(&other, &ECHO)).await.unwrap().unwrap(), "x");
    }
    assert!(!waits.is_finished());
    stuck.abort();
    handlers.permits.add_permits(1);
    assert_eq!(soon(waits).await.unwrap().unwrap(), "x");
    until("the places are free", || server.stats().in_flight == 0).await;
}

/// Without deadlines, cancels aside: more calls than places, of a session, the server and a method, of which some give theirs up while
/// their requests are on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_each_others_places_all_end() {
    const SESSIONS: usize = 3;
    const ROUNDS: usize = 150;
    async fn twice(_: Context, request: Bytes) -> Result<Bytes, Status> {
        tokio::task::yield_now().await;
        Ok(request)
    }
    let one = MethodOptions::default().max_calls(1);
    let builder = Server::builder()
        .unary(ECHO, twice)
        .unary(OTHER, twice)
        .options(ECHO, one)
        .max_session_calls(1)
        .max_calls(2);
    let (server, sessions) = clients::<SESSIONS>(builder).await;
    let mut work = JoinSet::new();
    for session in sessions {
        for n in 0..8_usize {
            let session = session.clone();
            work.spawn(async move {
                for round in 0..ROUNDS {
                    if (n + round) % 3 == 0 {
                        slow_request(&session).await;
                        continue;
                    }
                    let method = if n % 2 == 0 { &ECHO } else { &OTHER };
                    let call = call(&session, method);
                    if (n + round) % 7 == 1 {
                        tokio::task::yield_now().await;
                        call.abort();
                        let _ = call.await;
                    } else {
                        assert_eq!(call.await.unwrap().unwrap(), "x");
                    }
                }
            });
        }
    }
    while let Some(done) = soon(work.join_next()).await {
        done.unwrap();
    }
    until("the places are free", || server.stats().in_flight == 0).await;
}

/// A call of ECHO whose request comes later than its opening.
async fn slow_request(session: &Session) {
    let (mut send, mut recv) = session
        .open(&b"\x01\0\0\x0etest.Test/Echo"[..])
        .await
        .unwrap();
    tokio::task::yield_now().await;
    send.send("late").await.unwrap();
    // The answer may have been made meanwhile, with the rest of the request not wanted.
    let finished = send.finish();
    assert!(
        matches!(finished, Ok(()) | Err(SendError::Stopped { .. })),
        "{finished:?}"
    );
    assert_eq!(recv.recv().await.unwrap().unwrap(), "late");
}

/// How a caller gives up its call.
#[derive(Clone, Copy, Debug)]
enum Ends {
    AtItsDeadline,
    Cancelled,
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_caller_has_gone_before_it_is_taken_never_runs() {
    for ends in [Ends::AtItsDeadline, Ends::Cancelled] {
        let (ran, permits) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (ran, permits) = (Arc::clone(&ran), Arc::clone(&permits));
            move |_: Context, request: Bytes| {
                ran.fetch_add(1, Ordering::SeqCst);
                let permits = Arc::clone(&permits);
                async move {
                    if request == "waits" {
                        permits.acquire().await.unwrap().forget();
                    }
                    Ok(request)
                }
            }
        };
        let host = Host::new(Server::builder().unary(ECHO, handler).max_calls(1)).await;
        let call = |request: &'static str, limit: Option<Duration>| {
            let request = Bytes::from(request);
            let call = host.channel.call(&ECHO, &request);
            call.timeout(limit).detach()
        };
        let first = tokio::spawn(call("waits", None));
        until("the first runs", || ran.load(Ordering::SeqCst) == 1).await;
        let second = tokio::spawn(call("quick", None));
        until("the second waits", || host.server.stats().calls == 2).await;
        match ends {
            Ends::AtItsDeadline => {
                let limit = Some(Duration::from_millis(20));
                let status = soon(call("gone", limit)).await.unwrap_err();
                assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
            }
            Ends::Cancelled => {
                let sent = host.client.stats().messages_sent;
                let third = tokio::spawn(call("gone", None));
                let left = || host.client.stats().messages_sent > sent;
                until("the third has left", left).await;
                third.abort();
                assert!(soon(third).await.unwrap_err().is_cancelled());
            }
        }
        // The answer is behind the cancel.
        soon(host.client.ping()).await.unwrap();
        permits.add_permits(1);
        assert_eq!(soon(first).await.unwrap().unwrap(), "waits");
        assert_eq!(soon(second).await.unwrap().unwrap(), "quick");
        let last = soon(call("quick", None)).await;
        assert_eq!(last.unwrap(), "quick");
        assert_eq!(ran.load(Ordering::SeqCst), 3, "{ends:?}");
        until("each was counted", || host.server.stats().in_flight == 0).await;
        let ended: u64 = host.server.metrics().iter().map(MethodMetrics::ended).sum();
        let stats = host.server.stats();
        assert_eq!((ended, stats.late + stats.cancelled), (4, 1), "{ends:?}");
    }
}

/// The caller does not keep the deadline: its engine stands still once the calls have left.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_in_a_frame_runs_while_it_waits_to_be_taken() {
    const LIMIT_MS: u64 = 50;
    let (handlers, builder) = Handlers::new();
    let ran = Arc::new(AtomicUsize::new(0));
    let quick = {
        let ran = Arc::clone(&ran);
        move |_: Context, request: Bytes| {
            ran.fetch_add(1, Ordering::SeqCst);
            async move { Ok(request) }
        }
    };
    const QUICK: Method<Bytes, Bytes> = Method::unary::<Raw>("test.Test/Quick");
    let (a, b) = tokio::io::duplex(256 * 1024);
    let (client, connection) = ringmux::client(a, &settings().build().unwrap());
    let stopped = Arc::new(AtomicBool::new(false));
    let stands = Arc::clone(&stopped);
    let mut connection = Box::pin(connection);
    let engine = tokio::spawn(std::future::poll_fn(move |cx| {
        match stands.load(Ordering::SeqCst) {
            true => Poll::Pending,
            false => connection.as_mut().poll(cx),
        }
    }));
    let (session, connection) = ringmux::server(b, &settings().build().unwrap());
    tokio::spawn(connection);
    client.established().await.unwrap();
    let server = builder.unary(QUICK, quick).max_calls(1).build().unwrap();
    let serving = server.clone();
    tokio::spawn(async move { serving.serve_session(session).await });

    let first = call(&client, &ECHO);
    until("the server is full", || handlers.echoes() == 1).await;
    let second = call(&client, &QUICK);
    until("the second waits", || server.stats().calls == 2).await;
    let sent = client.stats().messages_sent;
    let (channel, request) = (Channel::new(client.clone()), Bytes::new());
    let late = channel.call(&QUICK, &request);
    let late = tokio::spawn(late.timeout(Duration::from_millis(LIMIT_MS)).detach());
    until("the third has left", || client.stats().messages_sent > sent).await;
    soon(client.ping()).await.unwrap();
    stopped.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(LIMIT_MS * 2)).await;
    handlers.permits.add_permits(1);
    let ended = || {
        server
            .metrics()
            .iter()
            .map(MethodMetrics::ended)
            .sum::<u64>()
    };
    until("all three have ended", || ended() == 3).await;
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    assert_eq!(server.stats().late, 1);
    engine.abort();
    for call in [first, second, late] {
        assert!(soon(call).await.unwrap().is_err());
    }
}

/// Its handler begins with the opening, whether a request has come or not.
#[tokio::test]
async fn a_stream_of_requests_whose_caller_has_gone_before_it_is_taken_never_runs() {
    async fn collect(begun: Arc<AtomicUsize>, mut from: Receiver<Bytes>) -> Result<Bytes, Status> {
        begun.fetch_add(1, Ordering::SeqCst);
        Ok(from.recv().await?.unwrap_or_default())
    }
    let (handlers, builder) = Handlers::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let builder = builder
        .client_streaming(COLLECT, move |_, from| collect(Arc::clone(&counted), from))
        .max_calls(1);
    let host = Host::new(builder).await;
    let first = call(&host.client, &ECHO);
    until("the server is full", || handlers.echoes() == 1).await;
    let second = call(&host.client, &ECHO);
    until("the second waits", || host.server.stats().calls == 2).await;
    let gone = soon(host.channel.client_streaming(&COLLECT).open()).await;
    soon(host.client.ping()).await.unwrap();
    drop(gone.unwrap());
    soon(host.client.ping()).await.unwrap();
    handlers.permits.add_permits(2);
    soon(first).await.unwrap().unwrap();
    soon(second).await.unwrap().unwrap();
    until("the third was taken", || host.server.stats().cancelled == 1).await;
    assert_eq!(begun.load(Ordering::SeqCst), 0);
}

/// The loop of a session, polled by hand, beside a client whose calls have all arrived.
struct Burst {
    client: Session,
    server: Server,
    serving: Pin<Box<dyn Future<Output = Result<(), SessionError>> + Send>>,
}

impl Burst {
    async fn new(builder: ServerBuilder) -> Self {
        let config = settings().max_streams(4096).build().unwrap();
        let (client, session) = pipe(&config).await;
        let server = builder.build().unwrap();
        let serving = {
            let server = server.clone();
            Box::pin(async move { server.serve_session(session).await })
        };
        let mut burst = Self {
            client,
            server,
            serving,
        };
        burst.poll();
        burst
    }

    fn poll(&mut self) {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(self.serving.as_mut().poll(&mut cx).is_pending());
    }

    fn taken(&self) -> u64 {
        self.server.stats().calls
    }

    /// Polls it until one call was taken.
    async fn first(&mut self, method: &Method<Bytes, Bytes>) -> Call {
        let (first, before) = (call(&self.client, method), self.taken());
        until("the first is taken", || {
            self.poll();
            self.taken() > before
        })
        .await;
        first
    }

    /// Makes calls that wait to be taken.
    async fn calls(&self, method: &Method<Bytes, Bytes>, count: usize) -> Vec<Call> {
        let sent = self.client.stats().messages_sent + count as u64;
        let calls = (0..count).map(|_| call(&self.client, method)).collect();
        until("all have left", || {
            self.client.stats().messages_sent >= sent
        })
        .await;
        soon(self.client.ping()).await.unwrap();
        calls
    }
}

/// A call that is refused costs its time as well.
#[tokio::test]
async fn calls_that_are_refused_let_others_on_the_thread_have_their_turn() {
    const CALLS: usize = 1000;
    /// The fewest and the most calls of a turn, which is half of those that wait.
    const FEWEST: u64 = 32;
    const MOST: u64 = 256;
    /// Those that wait are counted once in so many.
    const LOOK: u64 = 4;
    const MISSING: Method<Bytes, Bytes> = Method::unary::<Raw>("test.Test/Missing");
    let mut burst = Burst::new(Server::builder().unary(ECHO, echo)).await;
    let first = burst.first(&ECHO).await;
    assert_eq!(soon(first).await.unwrap().unwrap(), "x");
    let calls = burst.calls(&MISSING, CALLS).await;
    // Their number alone ends a turn. Streams that wait are not counted.
    tokio::time::pause();
    let most = if over_streams() { FEWEST } else { MOST };
    while burst.taken() <= CALLS as u64 {
        let before = burst.taken();
        let waiting = CALLS as u64 + 1 - before;
        burst.poll();
        let half = waiting.div_ceil(2).next_multiple_of(LOOK);
        let turn = half.clamp(FEWEST, most).min(waiting);
        assert_eq!(burst.taken() - before, turn, "{waiting} wait");
    }
    tokio::time::resume();
    for call in calls {
        let status = soon(call).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::UNIMPLEMENTED);
    }
}

/// All are taken before one of those that wait has had its turn.
#[tokio::test]
async fn a_burst_of_calls_to_a_full_method_is_refused_beyond_those_that_may_wait() {
    const CALLS: usize = 3000;
    const WAITING_MAX: usize = 1024;
    let (handlers, builder) = Handlers::new();
    let builder = builder.options(ECHO, MethodOptions::default().max_calls(1));
    let mut burst = Burst::new(builder).await;
    let first = burst.first(&ECHO).await;
    let calls = burst.calls(&ECHO, CALLS).await;
    while burst.taken() <= CALLS as u64 {
        burst.poll();
    }
    let refused = burst.server.stats().refused;
    assert_eq!(refused, (CALLS - WAITING_MAX) as u64);
    handlers.permits.add_permits(CALLS);
    soon(first).await.unwrap().unwrap();
    let mut answered = 0;
    for call in calls {
        match soon(call).await.unwrap() {
            Ok(_) => answered += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
                assert_eq!(status.was_processed(), Processed::No);
            }
        }
    }
    assert_eq!(answered, WAITING_MAX);
}

#[tokio::test]
async fn a_session_that_ends_in_order_while_a_call_waits_for_a_place_has_no_error() {
    let (handlers, builder) = Handlers::new();
    let (server, [other]) = clients(builder.max_calls(1)).await;
    let first = call(&other, &ECHO);
    until("the server is full", || handlers.echoes() == 1).await;
    let (client, session) = pipe(&settings().build().unwrap()).await;
    let serving = {
        let server = server.clone();
        tokio::spawn(async move { server.serve_session(session).await })
    };
    let waits = call(&client, &ECHO);
    until("one waits", || server.stats().calls == 2).await;
    client.close();
    soon(serving).await.unwrap().unwrap();
    assert!(soon(waits).await.unwrap().is_err());
    handlers.permits.add_permits(1);
    soon(first).await.unwrap().unwrap();
    assert_eq!(handlers.echoes(), 1);
    assert_eq!(server.stats().cancelled, 1);
}

/// The first is the one that waits for a place; it need not wait for it to learn that it is too late.
#[tokio::test]
async fn a_call_that_waits_for_a_place_of_the_server_is_over_at_its_deadline() {
    let (handlers, builder) = Handlers::new();
    let (server, [full, other]) = clients(builder.max_calls(1)).await;
    let stuck = call(&full, &OTHER);
    let begun = || handlers.other.load(Ordering::SeqCst) == 1;
    until("the server is full", begun).await;
    // Of a caller that does not keep the deadline.
    let mut opening = b"\x01\x04\0\x0e".to_vec();
    opening.extend_from_slice(&20_000_u64.to_le_bytes());
    opening.extend_from_slice(b"test.Test/Echo");
    let (mut send, mut recv) = soon(other.open(opening)).await.unwrap();
    send.send("late").await.unwrap();
    send.finish().unwrap();
    let status = Status::from(soon(recv.recv()).await.unwrap_err());
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(status.was_processed(), Processed::No);
    assert!(!stuck.is_finished());
    assert_eq!((handlers.echoes(), server.stats().late), (0, 1));
}

#[tokio::test]
async fn a_local_server_outside_of_a_local_set_is_an_error_and_no_panic() {
    let server = Server::local().unary(ECHO, echo).build().unwrap();
    let (_client, session) = pipe(&settings().build().unwrap()).await;
    let named = |error: &io::Error| assert!(error.to_string().contains("LocalSet"), "{error}");
    match soon(server.serve_session(session)).await.unwrap_err() {
        SessionError::Io(error) => named(&error),
        other => panic!("{other:?}"),
    }
    let listener = ringmux::listen("tcp://127.0.0.1:0").await.unwrap();
    match soon(server.serve(&listener)).await.unwrap_err() {
        ListenError::Io { error, .. } => named(&error),
        other => panic!("{other:?}"),
    }
}
