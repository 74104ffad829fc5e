//! Rolling restarts of servers under load, over TCP, on each driver: through a manager, and through tower's balancer over three
//! servers. A ledger on the servers has each run of each call: no call that could be tried again fails, and none runs twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use ringmux::manage::{Dial, Manager};
use ringmux::rpc::{Channel, Code, Context, Endpoint, Request, Retry, Server, Status};
use ringmux::{Addr, Config, Driver, Engine, Listener, Processed};
use tokio::task::JoinHandle;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::{ServiceBuilder, ServiceExt};

use crate::host::*;
use crate::tower::AgainBoxed;

const CALLERS: u64 = 8;
/// Calls between two restarts.
const BETWEEN: u64 = 100;
/// Every so many calls one waits in its handler, for so long.
const SLOW: u64 = 16;
const SLOW_TIME: Duration = Duration::from_millis(2);

/// The runs of each call: begun, and finished.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<HashMap<u64, (u32, u32)>>>);

impl Ledger {
    fn runs(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn of(&self, call: u64) -> (u32, u32) {
        let runs = self.0.lock().unwrap();
        runs.get(&call).copied().unwrap_or_default()
    }

    async fn handle(self, request: Bytes) -> Result<Bytes, Status> {
        let call = u64::from_le_bytes(request[..].try_into().unwrap());
        self.0.lock().unwrap().entry(call).or_default().0 += 1;
        match call % SLOW {
            0 => tokio::time::sleep(SLOW_TIME).await,
            1..=4 => tokio::task::yield_now().await,
            _ => {}
        }
        self.0.lock().unwrap().entry(call).or_default().1 += 1;
        Ok(request)
    }
}

/// A server that is restarted at its address.
struct Place {
    engine: Engine,
    config: Config,
    ledger: Ledger,
    listener: Arc<Listener>,
    serving: JoinHandle<()>,
}

impl Place {
    async fn new(driver: Driver, ledger: &Ledger) -> Self {
        let engine = Engine::thread(driver).unwrap();
        let config = settings().build().unwrap();
        let any = "tcp://127.0.0.1:0".parse().unwrap();
        let (listener, serving) = Self::serve(&engine, &any, &config, ledger).await;
        Self {
            engine,
            config,
            ledger: ledger.clone(),
            listener,
            serving,
        }
    }

    async fn serve(
        engine: &Engine,
        addr: &Addr,
        config: &Config,
        ledger: &Ledger,
    ) -> (Arc<Listener>, JoinHandle<()>) {
        let listener = Arc::new(listen(engine, addr, config).await);
        let ledger = ledger.clone();
        let handler = move |_: Context, request| ledger.clone().handle(request);
        let server = Server::builder().unary(ECHO, handler).build().unwrap();
        let served = Arc::clone(&listener);
        let serving = tokio::spawn(async move { server.serve(served).await.unwrap() });
        (listener, serving)
    }

    /// Ends the server, with this grace for its calls, and starts another one. How many sessions were cut.
    async fn restart(&mut self, grace: Duration) -> usize {
        let addr = self.listener.local_addr().clone();
        let drained = soon(self.listener.shutdown(grace)).await;
        soon(&mut self.serving).await.unwrap();
        (self.listener, self.serving) =
            Self::serve(&self.engine, &addr, &self.config, &self.ledger).await;
        drained.forced as usize
    }

    /// Calls that came as frames.
    fn framed(&self) -> u64 {
        self.engine.stats().sessions.calls
    }
}

fn manager(engine: &Engine, addr: &Addr) -> Manager {
    let dial = Dial::new(engine.clone(), addr.clone(), settings().build().unwrap());
    let manager = Manager::builder(dial).build().unwrap();
    tokio::spawn(manager.start().unwrap());
    manager
}

/// A call's request, by number, and its end.
type Called = (u64, Result<Bytes, Status>);

/// Callers, one call behind the other each, and the ends of their calls.
struct Load {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Vec<Called>>>,
}

impl Load {
    fn start<F, Fut>(call: F) -> Self
    where
        F: Fn(Bytes) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<Bytes, Status>> + Send,
    {
        let (stop, begun): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let callers = (0..CALLERS).map(|_| {
            let (stop, begun, call) = (Arc::clone(&stop), Arc::clone(&begun), call.clone());
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let id = begun.fetch_add(1, Ordering::SeqCst);
                    let request = Bytes::copy_from_slice(&id.to_le_bytes());
                    outcomes.push((id, soon(call(request)).await));
                }
                outcomes
            })
        });
        Self {
            callers: callers.collect(),
            stop,
            begun,
        }
    }

    /// So many more calls have run.
    async fn goes_on(&self, ledger: &Ledger, more: u64) {
        let before = ledger.runs();
        until("calls go on", || {
            ledger.runs() as u64 >= before as u64 + more
        })
        .await;
    }

    /// Ends the load, and compares the callers' statuses with the ledger. How many calls there were, and how many failed.
    async fn end(self, ledger: &Ledger) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let mut failed = 0;
        for caller in self.callers {
            for (id, outcome) in soon(caller).await.unwrap() {
                let (begun, finished) = ledger.of(id);
                assert!(begun <= 1, "call {id} ran {begun} times");
                match outcome {
                    Ok(answer) => {
                        assert_eq!(answer, &id.to_le_bytes()[..]);
                        assert_eq!((begun, finished), (1, 1), "call {id} was answered");
                    }
                    Err(status) => {
                        assert!(!status.is_retryable(), "call {id}: {status:?}");
                        assert_eq!(status.code(), Code::UNAVAILABLE, "call {id}: {status:?}");
                        assert_ne!(status.was_processed(), Processed::No, "{status:?}");
                        failed += 1;
                    }
                }
            }
        }
        (self.begun.load(Ordering::SeqCst), failed)
    }
}

/// Most calls were frames.
fn were_frames(calls: u64, framed: u64) {
    match over_streams() {
        true => assert_eq!(framed, 0),
        false => assert!(framed > calls / 2, "{framed} of {calls} were frames"),
    }
}

async fn a_server_is_restarted_under_a_manager_and_no_call_is_lost(driver: Driver) {
    let ledger = Ledger::default();
    let mut place = Place::new(driver, &ledger).await;
    let engine = Engine::thread(driver).unwrap();
    let manager = manager(&engine, place.listener.local_addr());
    let retry = Retry::new(1000).pause(Duration::from_millis(2));
    let channel = Channel::builder(manager.clone()).retry(retry).build();
    let caller = channel.clone();
    let load = Load::start(move |request: Bytes| {
        caller
            .call(&ECHO, &request)
            .timeout(LIMIT)
            .detach()
            .into_future()
    });
    for round in 1..=3 {
        load.goes_on(&ledger, BETWEEN).await;
        assert_eq!(place.restart(LIMIT).await, 0, "round {round}");
    }
    load.goes_on(&ledger, BETWEEN).await;
    let (calls, failed) = load.end(&ledger).await;
    println!("{driver}: {calls} calls, {} in frames", place.framed());
    assert_eq!(failed, 0);
    were_frames(calls, place.framed());
    manager.close();
    let status = soon(channel.call(&ECHO, &Bytes::new()).into_future()).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert_eq!(status.was_processed(), Processed::No);
}

/// Each of three servers is restarted in order, and then each is cut off in the middle of its calls: those may fail, and say that
/// they may have run.
async fn a_balancer_over_three_servers_loses_no_call_that_could_be_tried_again(driver: Driver) {
    let ledger = Ledger::default();
    let engine = Engine::thread(driver).unwrap();
    let mut places = Vec::new();
    for _ in 0..3 {
        places.push(Place::new(driver, &ledger).await);
    }
    let managers: Vec<_> = places
        .iter()
        .map(|place| manager(&engine, place.listener.local_addr()))
        .collect();
    let found = managers.iter().cloned().enumerate().map(|(at, manager)| {
        let endpoint = Endpoint::new(Channel::from(manager));
        Ok::<_, Status>(Change::Insert(at, endpoint))
    });
    let balance = Balance::new(stream::iter(found.collect::<Vec<_>>()));
    let service = ServiceBuilder::new().buffer(64).service(balance);
    let service = ServiceBuilder::new().retry(AgainBoxed).service(service);
    let load = Load::start(move |request: Bytes| {
        let request = Request::new(&ECHO, &request).unwrap().timeout(LIMIT);
        service.clone().oneshot(request).map(|answer| {
            let status = |error: tower::BoxError| *error.downcast::<Status>().expect("a status");
            answer.map_err(status)?.decode(&ECHO)
        })
    });
    for place in &mut places {
        load.goes_on(&ledger, BETWEEN).await;
        assert_eq!(place.restart(LIMIT).await, 0);
    }
    load.goes_on(&ledger, BETWEEN).await;
    for place in &mut places {
        load.goes_on(&ledger, BETWEEN).await;
        place.restart(Duration::ZERO).await;
    }
    load.goes_on(&ledger, BETWEEN).await;
    let (calls, failed) = load.end(&ledger).await;
    let framed = places.iter().map(Place::framed);
    let framed: Vec<_> = framed.collect();
    println!("{driver}: {calls} calls, {framed:?} in frames, {failed} cut off");
    // Those under way at the three cuts.
    assert!(failed <= 3 * CALLERS, "{failed} of {calls}");
    were_frames(calls, framed.iter().sum());
    managers.iter().for_each(Manager::close);
}

macro_rules! on_each_driver {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            use ringmux::Driver;

            #[tokio::test]
            async fn tokio() {
                super::$case(Driver::Tokio).await;
            }

            #[tokio::test]
            async fn tokio_uring() {
                super::$case(Driver::TokioUring).await;
            }

            #[tokio::test]
            async fn uring() {
                super::$case(Driver::Uring).await;
            }
        })+
    };
}

on_each_driver! {
    a_server_is_restarted_under_a_manager_and_no_call_is_lost,
    a_balancer_over_three_servers_loses_no_call_that_could_be_tried_again,
}
