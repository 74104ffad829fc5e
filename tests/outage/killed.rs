//! `kill -9` of the server: the callers' errors, and the time of the clients' return.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringmux::manage::{Dial, Manager, ProvideError, Provider};
use ringmux::{Addr, Config, Engine, OpenError, Processed, Session, StreamError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::{Child, GRANTED, Manner};
use crate::host::{Soon, eventually};
use crate::still::{Clock, Processors};

const CALLS: usize = 1000;
const CLIENTS: usize = 1000;
/// Length of the outage: long enough for a manager's pauses to grow beyond the promised time.
const AWAY: Duration = Duration::from_secs(4);
/// Time after the server's return within which every caller is served.
const BACK: Duration = Duration::from_secs(2);
/// Attempts until one return of the server is as promised.
const CHANCES: usize = 6;
/// Maximum share of clients that reconnect within the same 100 ms, in percent. A machine with other load runs them in batches,
/// so the limit rises with their slowdown; `lib::manage::tests::pace` has the same claim on a clock of its own.
const SHARE_MAX: f64 = 25.0;

on_drivers!(
    every_caller_learns_at_once_whether_its_call_may_have_run,
    service_is_back_soon_and_a_thousand_clients_do_not_come_at_once,
);

fn anywhere() -> Addr {
    "127.0.0.1:0".parse().unwrap()
}

/// The caller's knowledge of its call.
async fn call(session: Session) -> Processed {
    let (mut send, mut recv) = match session.open("call").await {
        Ok(halves) => halves,
        // An `OpenError`: nothing was sent.
        Err(OpenError::Session(_)) => return Processed::No,
        Err(error) => panic!("{error}"),
    };
    // If sending fails, `recv` returns the reason.
    let _ = send.send("do it").await;
    match recv.recv().await {
        Err(error @ (StreamError::Session(_) | StreamError::NotProcessed(_))) => {
            error.was_processed()
        }
        other => panic!("{other:?}"),
    }
}

async fn every_caller_learns_at_once_whether_its_call_may_have_run(engine: Engine) {
    let (server, addr) = Child::server(engine.driver(), Manner::Hold, &anywhere());
    let config = Config::builder()
        .max_pending_opens(CALLS as u32)
        .build()
        .unwrap();
    let session = engine.connect(&addr, &config).soon().await.unwrap();
    let calls = (0..CALLS).map(|_| tokio::spawn(call(session.clone())));
    let calls: Vec<_> = calls.collect();
    // The server has as many as it granted; the others wait for a grant.
    eventually("all calls are under way", || {
        session.stats().streams == CALLS as u64
    })
    .await;
    server.told(&format!("holding {GRANTED}"));
    server.kill();
    let clock = Clock::start();
    let mut known = BTreeMap::new();
    for result in join_all(calls).soon().await {
        *known.entry(format!("{:?}", result.unwrap())).or_insert(0) += 1;
    }
    let took = clock.elapsed();
    let expected = [
        ("Maybe".to_owned(), GRANTED as usize),
        ("No".to_owned(), CALLS - GRANTED as usize),
    ];
    assert_eq!(
        known,
        expected.into(),
        "calls taken by the server, and the rest"
    );
    // The socket closes with the process. Far below the 25 s of keepalive.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Dials, and records the times.
struct Remembering {
    dial: Dial,
    attempts: Arc<Mutex<Vec<Instant>>>,
}

impl Provider for Remembering {
    async fn provide(&self) -> Result<Session, ProvideError> {
        self.attempts.lock().unwrap().push(Instant::now());
        self.dial.provide().await
    }

    fn describe(&self) -> String {
        self.dial.describe()
    }
}

/// One call there and back; false if the session was lost under it.
async fn echoed(session: Session) -> bool {
    let Ok((mut send, mut recv)) = session.open("call").await else {
        return false;
    };
    let sent = send.send("hello").await.is_ok() && send.finish().is_ok();
    sent && recv.recv().await.is_ok_and(|answer| answer.is_some())
}

/// A client: calls once, loses its session, and calls until it is served again. Returns that time.
async fn client(manager: Manager, begun: Arc<AtomicUsize>) -> Instant {
    let first = manager.session().await.unwrap();
    assert!(echoed(first.clone()).await);
    begun.fetch_add(1, Ordering::Relaxed);
    first.draining().await;
    while !manager.with_session(echoed).await.unwrap() {}
    Instant::now()
}

/// With several attempts: a stalled machine delays timers, and then clients do reconnect at once.
async fn service_is_back_soon_and_a_thousand_clients_do_not_come_at_once(engine: Engine) {
    raise_descriptor_limit();
    let mut seen = Vec::new();
    for _ in 0..CHANCES {
        match a_server_is_restarted(&engine).await {
            Ok(()) => return,
            Err(problem) => seen.push(problem),
        }
    }
    panic!("{seen:#?}");
}

/// The error describes the broken promise.
async fn a_server_is_restarted(engine: &Engine) -> Result<(), String> {
    let (server, addr) = Child::server(engine.driver(), Manner::Echo, &anywhere());
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let managers: Vec<Manager> = (0..CLIENTS)
        .map(|_| {
            let dial = Dial::new(engine.clone(), addr.clone(), Config::default());
            let attempts = Arc::clone(&attempts);
            Manager::builder(Remembering { dial, attempts })
                .build()
                .unwrap()
        })
        .collect();
    for manager in &managers {
        tokio::spawn(manager.start().unwrap());
    }
    let begun = Arc::new(AtomicUsize::new(0));
    let clients = managers.iter().cloned();
    let clients: Vec<_> = clients
        .map(|manager| tokio::spawn(client(manager, Arc::clone(&begun))))
        .collect();
    eventually("each has called", || {
        begun.load(Ordering::Relaxed) == CLIENTS
    })
    .await;
    server.kill();
    eventually("all know it", || engine.stats().open() == 0).await;
    tokio::time::sleep(AWAY).await;
    // It listens a little before its line arrives.
    let (began, restarted) = (
        Instant::now(),
        Child::server(engine.driver(), Manner::Echo, &addr),
    );
    assert_eq!(restarted.1, addr);
    let (back, processors) = (Instant::now(), Processors::now());
    let served = join_all(clients).soon().await;
    let slowdown = processors.slowdown_since();
    let took = back.elapsed().div_f64(slowdown);
    let times = served.into_iter().map(Result::unwrap);

    let served = histogram(times, began);
    let tried = histogram(attempts.lock().unwrap().iter().copied(), began);
    println!("served, in steps of 100 ms: {served:?}");
    println!("attempts, in steps of 100 ms: {tried:?}");
    if took > BACK {
        return Err(format!("served {took:?} after the return"));
    }
    for (what, histogram) in [("served", served), ("attempts", tried)] {
        let most = *histogram.values().max().unwrap() as f64;
        if most * 100.0 > SHARE_MAX * slowdown * CLIENTS as f64 {
            return Err(format!(
                "{what}: {histogram:?}, slowed down {slowdown:.1} times"
            ));
        }
    }
    Ok(())
}

/// The counts per 100 ms since `since`.
fn histogram(times: impl Iterator<Item = Instant>, since: Instant) -> BTreeMap<u128, usize> {
    let mut steps = BTreeMap::new();
    for time in times.filter(|time| *time >= since) {
        *steps.entry((time - since).as_millis() / 100).or_insert(0) += 1;
    }
    steps
}

/// A client is a descriptor.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("allowed up to the hard limit");
}
