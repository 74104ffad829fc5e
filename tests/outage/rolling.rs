//! Servers that are restarted one after another, in order, while clients call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use ringmux::manage::{Manager, ProvideError, Provider};
use ringmux::{Addr, Config, Engine, Listener, Processed, Session, Stream};

use crate::host::{Soon, eventually, pause};

const SERVERS: usize = 3;
const CALLERS: usize = 32;
/// Calls that are answered between two restarts, at least.
const CALLS: u64 = 500;
const GRACE: Duration = Duration::from_secs(15);

on_drivers!(calls_survive_a_rolling_restart_and_none_is_lost_or_run_twice);

/// How often each call was run, whichever server did it.
type Runs = Arc<Mutex<HashMap<u64, u32>>>;

/// Listens where it is told to, as soon as its predecessor is gone from there, and serves.
async fn serve(engine: &Engine, addr: &Addr, runs: &Runs) -> Arc<Listener> {
    let listener = loop {
        match engine.listen(addr, &Config::default()).await {
            Ok(listener) => break Arc::new(listener),
            Err(_) => pause().await,
        }
    };
    let (accepting, runs) = (Arc::clone(&listener), Arc::clone(runs));
    tokio::spawn(async move {
        while let Ok(session) = accepting.accept().await {
            let runs = Arc::clone(&runs);
            tokio::spawn(async move {
                while let Ok(stream) = session.accept().await {
                    tokio::spawn(run(stream, Arc::clone(&runs)));
                }
            });
        }
    });
    listener
}

/// Runs a call, which is known by its number, and sends the number back.
async fn run(mut stream: Stream, runs: Runs) {
    let number = stream.recv().soon().await.unwrap().expect("a number");
    let bytes = number[..].try_into().expect("8 bytes");
    *runs
        .lock()
        .unwrap()
        .entry(u64::from_le_bytes(bytes))
        .or_default() += 1;
    // It takes a moment, so that some are running at any time.
    pause().await;
    stream.send(number).soon().await.unwrap();
    stream.finish().unwrap();
}

/// Dials one server after another.
struct InTurn {
    engine: Engine,
    addrs: Vec<Addr>,
    next: AtomicUsize,
}

impl Provider for InTurn {
    async fn provide(&self) -> Result<Session, ProvideError> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.addrs.len();
        let config = Config::default();
        Ok(self.engine.connect(&self.addrs[next], &config).await?)
    }

    fn describe(&self) -> String {
        format!("one of {:?}", self.addrs)
    }
}

/// What the callers saw, all together.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    tried_again: AtomicU64,
}

/// One attempt at a call: done, or whether it may have been run.
async fn attempt(session: Session, number: u64) -> Result<(), Processed> {
    // By its type: nothing was sent.
    let mut stream = session.open("call").await.map_err(|_| Processed::No)?;
    let number = number.to_le_bytes();
    let sent = stream.send_slice(&number).await.is_ok() && stream.finish().is_ok();
    match stream.recv().await {
        Ok(Some(answer)) => {
            assert!(sent && answer == number[..], "{answer:?}");
            Ok(())
        }
        Ok(None) => panic!("call {number:?} was given up without a word"),
        Err(error) => Err(error.was_processed()),
    }
}

/// Calls until it is told to stop. What was surely not run is tried again, once.
async fn call_on_and_on(
    manager: Manager,
    numbers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
) {
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let once = || manager.with_session(|session| attempt(session, number));
        let mut result = once().soon().await.unwrap();
        if result == Err(Processed::No) {
            seen.tried_again.fetch_add(1, Ordering::Relaxed);
            result = once().soon().await.unwrap();
        }
        assert_eq!(result, Ok(()), "call {number}");
        seen.answered.fetch_add(1, Ordering::Relaxed);
    }
}

async fn calls_survive_a_rolling_restart_and_none_is_lost_or_run_twice(engine: Engine) {
    // The servers have a thread of their own, as they would have.
    let hosting = Engine::thread(engine.driver()).unwrap();
    let runs = Runs::default();
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(
            serve(&hosting, &"127.0.0.1:0".parse().unwrap(), &runs)
                .soon()
                .await,
        );
    }
    let addrs: Vec<Addr> = servers
        .iter()
        .map(|server| server.local_addr().clone())
        .collect();
    let provider = InTurn {
        engine,
        addrs: addrs.clone(),
        next: AtomicUsize::new(0),
    };
    let manager = Manager::builder(provider)
        .sessions(SERVERS as u32)
        .build()
        .unwrap();
    tokio::spawn(manager.start().unwrap());

    let (numbers, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let seen = Arc::new(Seen::default());
    let callers = (0..CALLERS).map(|_| {
        let (numbers, stop) = (Arc::clone(&numbers), Arc::clone(&stop));
        tokio::spawn(call_on_and_on(
            manager.clone(),
            numbers,
            stop,
            Arc::clone(&seen),
        ))
    });
    let callers: Vec<_> = callers.collect();
    let answered = || seen.answered.load(Ordering::Relaxed);
    let mut finished = 0;
    for (server, addr) in servers.iter_mut().zip(&addrs) {
        let before = answered();
        eventually("calls are answered", || answered() >= before + CALLS).await;
        let restarted = serve(&hosting, addr, &runs);
        let (report, restarted) = tokio::join!(server.shutdown(GRACE).soon(), restarted.soon());
        assert_eq!((report.cancelled, report.forced), (0, 0), "{report:?}");
        finished += report.finished;
        *server = restarted;
    }
    let before = answered();
    eventually("calls are answered", || answered() >= before + CALLS).await;
    stop.store(true, Ordering::Relaxed);
    for caller in join_all(callers).soon().await {
        caller.unwrap();
    }
    let runs = runs.lock().unwrap();
    let calls = numbers.load(Ordering::Relaxed);
    println!("{calls} calls, {finished} running at a shutdown, {seen:?}");
    assert!(finished > 0, "no server was busy when it went");
    assert_eq!(answered(), calls);
    assert_eq!(runs.len() as u64, calls, "each call was run");
    assert!(runs.values().all(|&times| times == 1), "and none twice");
}
