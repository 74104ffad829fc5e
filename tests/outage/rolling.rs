//! A rolling restart: servers shut down and restart one after another, while clients call.
//!
//! Before its shutdown each has calls that end after the shutdown has begun, and then takes no more, so that there are calls
//! that only its shutdown can refuse.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringmux::manage::{Manager, ProvideError, Provider};
use ringmux::{
    Addr, Config, Drained, Engine, Listener, Processed, RecvStream, SendStream, Session,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::host::{AWAIT_GUARD, Soon, eventually, pause};

const SERVERS: usize = 3;
const CALLERS: usize = 32;
/// Calls that are answered between two restarts, at least.
const CALLS: u64 = 500;
/// Minimum number of calls at a server's shutdown, both of running and of untaken ones.
const LAST: u64 = 4;
const GRACE: Duration = Duration::from_secs(15);

on_drivers!(calls_survive_a_rolling_restart_and_none_is_lost_or_run_twice);

/// How often each call was run, over all servers.
type Runs = Arc<Mutex<HashMap<u64, u32>>>;

/// A server's treatment of new calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// They run until the server's shutdown.
    Last,
    /// They are not taken.
    Going,
}

struct Server {
    listener: Arc<Listener>,
    phase: watch::Sender<Phase>,
    sessions: Arc<Mutex<Vec<Served>>>,
}

/// A session, how many calls were taken of it, and how many of them are its last.
#[derive(Clone)]
struct Served {
    session: Session,
    taken: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
}

impl Server {
    /// Listens on `addr`, as soon as its predecessor has freed it, and serves.
    async fn start(engine: &Engine, addr: &Addr, runs: &Runs) -> Self {
        let begun = Instant::now();
        let listener = loop {
            match engine.listen(addr, &Config::default()).await {
                Ok(listener) => break Arc::new(listener),
                Err(error) => assert!(begun.elapsed() < AWAIT_GUARD, "{addr}: {error}"),
            }
            pause().await;
        };
        let (phase, seen) = watch::channel(Phase::Serving);
        let sessions = Arc::default();
        let server = Self {
            listener: Arc::clone(&listener),
            phase,
            sessions: Arc::clone(&sessions),
        };
        let runs = Arc::clone(runs);
        tokio::spawn(async move {
            while let Ok(session) = listener.accept().await {
                let [taken, last] = [(); 2].map(|()| Arc::default());
                let served = Served {
                    session,
                    taken,
                    last,
                };
                sessions.lock().unwrap().push(served.clone());
                tokio::spawn(served.serve(Arc::clone(&runs), seen.clone()));
            }
        });
        server
    }

    /// Calls that run until its shutdown.
    fn last(&self) -> u64 {
        let sessions = self.sessions.lock().unwrap();
        let last = sessions
            .iter()
            .map(|served| served.last.load(Ordering::Relaxed));
        last.sum()
    }

    /// Calls received and not taken.
    fn untaken(&self) -> u64 {
        let sessions = self.sessions.lock().unwrap();
        let untaken = sessions.iter().map(|served| {
            let taken = served.taken.load(Ordering::Relaxed);
            served.session.stats().accepted - taken
        });
        untaken.sum()
    }
}

impl Served {
    async fn serve(self, runs: Runs, mut phase: watch::Receiver<Phase>) {
        loop {
            let stream = tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase == Phase::Going) => break,
                stream = self.session.accept() => stream,
            };
            let Ok(Some(stream)) = stream else { return };
            self.taken.fetch_add(1, Ordering::Relaxed);
            let last = *phase.borrow() == Phase::Last;
            self.last.fetch_add(u64::from(last), Ordering::Relaxed);
            let until = last.then(|| self.session.clone());
            tokio::spawn(run(stream, until, Arc::clone(&runs)));
        }
        self.session.closed().await;
    }
}

/// Runs a call, identified by its number, and sends the number back. One of the last calls waits for the session's
/// shutdown, and continues after it.
async fn run((mut send, mut recv): (SendStream, RecvStream), until: Option<Session>, runs: Runs) {
    let number = recv.recv().soon().await.unwrap().expect("a number");
    let bytes = number[..].try_into().expect("8 bytes");
    *runs
        .lock()
        .unwrap()
        .entry(u64::from_le_bytes(bytes))
        .or_default() += 1;
    if let Some(session) = until {
        session.draining().soon().await;
    }
    // The shutdown takes a moment.
    pause().await;
    send.send(number).soon().await.unwrap();
    send.finish().unwrap();
}

/// Whether no stream can be opened any more.
fn drains(session: &Session) -> bool {
    session.state().reason().is_some()
}

/// The client's sessions, one to each server.
type Sessions = Arc<tokio::sync::Mutex<Vec<(Addr, Option<Session>)>>>;

/// Dials a server without a session.
struct OneEach {
    engine: Engine,
    sessions: Sessions,
}

impl Provider for OneEach {
    async fn provide(&self) -> Result<Session, ProvideError> {
        let mut sessions = self.sessions.lock().await;
        let missing = sessions
            .iter_mut()
            .find(|(_, session)| session.as_ref().is_none_or(drains));
        let (addr, place) = missing.expect("as many sessions as servers");
        let session = self.engine.connect(addr, &Config::default()).await?;
        Ok(place.insert(session).clone())
    }

    fn describe(&self) -> String {
        "one to each server".to_owned()
    }
}

/// One attempt at a call: done, or whether it may have been run.
async fn attempt(session: Session, number: u64) -> Result<(), Processed> {
    // An `OpenError`: nothing was sent.
    let (mut send, mut recv) = session.open("call").await.map_err(|_| Processed::No)?;
    let number = number.to_le_bytes();
    let sent = send.send_slice(&number).await.is_ok() && send.finish().is_ok();
    match recv.recv().await {
        Ok(Some(answer)) => {
            assert!(sent && answer == number[..], "{answer:?}");
            Ok(())
        }
        Ok(None) => panic!("call {number:?} was given up without a word"),
        Err(error) => Err(error.was_processed()),
    }
}

/// All callers, and their results.
#[derive(Clone)]
struct Client {
    manager: Manager,
    sessions: Sessions,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    calls: AtomicU64,
    answered: AtomicU64,
    tried_again: AtomicU64,
    stop: AtomicBool,
}

impl Client {
    fn start(engine: Engine, addrs: &[Addr]) -> Self {
        let sessions = addrs.iter().map(|addr| (addr.clone(), None)).collect();
        let sessions = Arc::new(tokio::sync::Mutex::new(sessions));
        let provider = OneEach {
            engine,
            sessions: Arc::clone(&sessions),
        };
        let places = u32::try_from(addrs.len()).unwrap();
        let manager = Manager::builder(provider).sessions(places).build().unwrap();
        tokio::spawn(manager.start().unwrap());
        Self {
            manager,
            sessions,
            seen: Arc::default(),
        }
    }

    fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::Relaxed)
    }

    /// One call, at first over this session if one is given. A call that was certainly not run is retried once.
    async fn call(&self, first: Option<Session>) {
        let number = self.seen.calls.fetch_add(1, Ordering::Relaxed);
        let anywhere = || {
            self.manager
                .with_session(|session| attempt(session, number))
        };
        let mut result = match first {
            Some(session) => attempt(session, number).soon().await,
            None => anywhere().soon().await.unwrap(),
        };
        if result == Err(Processed::No) {
            self.seen.tried_again.fetch_add(1, Ordering::Relaxed);
            result = anywhere().soon().await.unwrap();
        }
        assert_eq!(result, Ok(()), "call {number}");
        self.seen.answered.fetch_add(1, Ordering::Relaxed);
    }

    async fn call_on_and_on(self) {
        while !self.seen.stop.load(Ordering::Relaxed) {
            self.call(None).await;
        }
    }

    /// `calls` calls of this server.
    async fn call_at(&self, addr: &Addr, calls: u64) -> Vec<JoinHandle<()>> {
        let session = loop {
            let sessions = self.sessions.lock().await;
            let place = sessions.iter().find(|(of, _)| of == addr);
            let session = place.and_then(|(_, session)| session.clone());
            match session.filter(|session| session.state().reason().is_none()) {
                Some(session) => break session,
                None => drop(sessions),
            }
            pause().await;
        };
        let call = |_| {
            let (client, session) = (self.clone(), session.clone());
            tokio::spawn(async move { client.call(Some(session)).await })
        };
        (0..calls).map(call).collect()
    }
}

/// Shuts a server down once it has running and untaken calls.
async fn go(server: &Server, client: &Client) -> Drained {
    let addr = server.listener.local_addr();
    server.phase.send(Phase::Last).unwrap();
    let mut calls = client.call_at(addr, LAST).await;
    eventually("calls run", || server.last() >= LAST).await;
    server.phase.send(Phase::Going).unwrap();
    calls.extend(client.call_at(addr, LAST).await);
    eventually("calls wait", || server.untaken() >= LAST).await;
    let report = server.listener.shutdown(GRACE).await;
    for call in calls {
        call.await.unwrap();
    }
    report
}

async fn calls_survive_a_rolling_restart_and_none_is_lost_or_run_twice(engine: Engine) {
    // The servers have a thread of their own, as in production.
    let hosting = Engine::thread(engine.driver()).unwrap();
    let runs = Runs::default();
    let anywhere: Addr = "127.0.0.1:0".parse().unwrap();
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        let server = Server::start(&hosting, &anywhere, &runs);
        servers.push(server.soon().await);
    }
    let addrs = servers.iter().map(|server| server.listener.local_addr());
    let addrs: Vec<Addr> = addrs.cloned().collect();
    let client = Client::start(engine, &addrs);
    let callers = (0..CALLERS).map(|_| tokio::spawn(client.clone().call_on_and_on()));
    let callers: Vec<_> = callers.collect();
    let (mut finished, mut refused) = (0, 0);
    for (server, addr) in servers.iter_mut().zip(&addrs) {
        let before = client.answered();
        eventually("calls are answered", || client.answered() >= before + CALLS).await;
        let restarted = Server::start(&hosting, addr, &runs);
        let (report, restarted) = tokio::join!(go(server, &client).soon(), restarted.soon());
        assert_eq!((report.cancelled, report.forced), (0, 0), "{report:?}");
        assert!(report.finished >= LAST, "{report:?}");
        assert!(report.refused >= LAST, "{report:?}");
        finished += report.finished;
        refused += report.refused;
        *server = restarted;
    }
    let before = client.answered();
    eventually("calls are answered", || client.answered() >= before + CALLS).await;
    client.seen.stop.store(true, Ordering::Relaxed);
    for caller in join_all(callers).soon().await {
        caller.unwrap();
    }
    let runs = runs.lock().unwrap();
    let seen = &client.seen;
    println!("{finished} calls running at a shutdown, {refused} refused by it, {seen:?}");
    let calls = seen.calls.load(Ordering::Relaxed);
    let tried_again = seen.tried_again.load(Ordering::Relaxed);
    // Each of them once: a second refusal would have been a failed call.
    assert!(tried_again >= refused, "{tried_again} of {refused}");
    assert_eq!(client.answered(), calls, "none failed");
    assert_eq!(runs.len() as u64, calls, "each call was run");
    assert!(runs.values().all(|&times| times == 1), "and none twice");
}
