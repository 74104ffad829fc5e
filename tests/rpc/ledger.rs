//! Many calls by chance, and a ledger on the server: every call ends once, and what its status says about the handler is true.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Code, Context, Origin, Receiver, Sender, Server, Status};
use ringmux::{Processed, Session};

use crate::host::*;

const CALLS: u64 = 20_000;
const WORKERS: u64 = 32;

/// splitmix64.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// How often the handler of each call has begun, and whether it came to its end.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<HashMap<u64, (u32, bool)>>>);

impl Ledger {
    fn begin(&self, call: u64) {
        self.0.lock().unwrap().entry(call).or_default().0 += 1;
    }

    fn finish(&self, call: u64) {
        self.0.lock().unwrap().entry(call).or_default().1 = true;
    }

    fn of(&self, call: u64) -> (u32, bool) {
        self.0
            .lock()
            .unwrap()
            .get(&call)
            .copied()
            .unwrap_or_default()
    }
}

/// Does what the request says, which has the call's number in front.
async fn work(ledger: Ledger, request: Bytes) -> Result<Bytes, Status> {
    let call = u64::from_le_bytes(request[..8].try_into().unwrap());
    ledger.begin(call);
    match request[8] {
        0..=99 => {}
        100..=149 => tokio::task::yield_now().await,
        150..=189 => tokio::time::sleep(Duration::from_micros(u64::from(request[9]) * 20)).await,
        190..=209 => panic!("by chance"),
        210..=229 => {
            ledger.finish(call);
            return Err(Status::failed_precondition("by chance"));
        }
        _ => std::future::pending().await,
    }
    ledger.finish(call);
    Ok(request)
}

fn number(message: &Bytes) -> u64 {
    u64::from_le_bytes(message[..8].try_into().unwrap())
}

fn server(ledger: &Ledger) -> Server {
    let [a, b] = [(); 2].map(|()| ledger.clone());
    Server::builder()
        .unary(ECHO, move |_: Context, request: Bytes| {
            work(a.clone(), request)
        })
        .bidirectional(
            CHAT,
            move |_, mut from: Receiver<Bytes>, mut to: Sender<Bytes>| {
                let ledger = b.clone();
                async move {
                    while let Some(request) = from.recv().await? {
                        to.send(work(ledger.clone(), request).await?).await?;
                    }
                    Ok(())
                }
            },
        )
        .max_calls(24)
        .build()
        .unwrap()
}

/// The session of the moment, which is killed now and then.
struct Line {
    server: Server,
    now: Mutex<(Session, Channel)>,
}

impl Line {
    async fn session(server: &Server) -> (Session, Channel) {
        let (client, session) = pipe(&settings().build().unwrap()).await;
        let server = server.clone();
        tokio::spawn(async move { server.serve_session(session).await });
        (client.clone(), Channel::new(client))
    }

    async fn kill(&self, chance: &mut Chance) {
        let next = Self::session(&self.server).await;
        let old = std::mem::replace(&mut *self.now.lock().unwrap(), next).0;
        match chance.below(2) {
            0 => old.close(),
            _ => drop(tokio::spawn(async move {
                old.shutdown(Duration::from_millis(2)).await;
            })),
        }
    }

    fn channel(&self) -> Channel {
        self.now.lock().unwrap().1.clone()
    }
}

/// One call; its status, if its caller waited for one.
async fn call(channel: &Channel, id: u64, chance: &mut Chance) -> Option<Result<(), Status>> {
    let mut request = id.to_le_bytes().to_vec();
    request.extend([chance.next() as u8, chance.next() as u8]);
    if chance.below(50) == 0 {
        request.resize(30_000, 7);
    }
    let request = Bytes::from(request);
    let timeout = Duration::from_micros(500 + chance.below(16_000));
    let patience = match chance.below(5) {
        0 => Duration::from_micros(chance.below(2000)),
        _ => LIMIT,
    };
    if chance.below(4) > 0 {
        let call = channel.call(&ECHO, &request).timeout(timeout).into_future();
        let answer = tokio::time::timeout(patience, call).await.ok()?;
        return Some(answer.map(|answer| assert_eq!(number(&answer), id)));
    }
    let call = async {
        let (mut to, mut from) = channel.bidirectional(&CHAT).timeout(timeout).open().await?;
        // Why it failed receiving says.
        let _ = to.send(&request).await;
        let _ = to.finish();
        let answer = from.recv().await?;
        assert_eq!(number(&answer.expect("an answer before the end")), id);
        assert_eq!(from.recv().await?, None);
        Ok(())
    };
    tokio::time::timeout(patience, call).await.ok()
}

/// Whether the status is true, once the server is at rest.
fn check(id: u64, outcome: &Result<(), Status>, (begun, finished): (u32, bool)) {
    assert!(begun <= 1, "call {id} ran {begun} times");
    match outcome {
        Ok(()) => assert!(finished, "call {id} was answered and never finished"),
        Err(status) => {
            match status.was_processed() {
                Processed::No => assert_eq!(begun, 0, "call {id} ran: {status:?}"),
                Processed::Yes => assert_eq!(begun, 1, "call {id} did not run: {status:?}"),
                Processed::Maybe => {}
            }
            match status.code() {
                Code::FAILED_PRECONDITION => assert!(finished, "call {id}"),
                Code::INTERNAL => assert!(begun == 1 && !finished, "call {id}: {status:?}"),
                Code::DEADLINE_EXCEEDED | Code::UNAVAILABLE | Code::CANCELLED => {
                    assert_ne!(status.origin(), Origin::Handler, "call {id}: {status:?}");
                }
                _ => panic!("call {id}: {status:?}"),
            }
        }
    }
}

async fn run(seed: u64, calls: u64) {
    let ledger = Ledger::default();
    let server = server(&ledger);
    let now = Mutex::new(Line::session(&server).await);
    let line = Arc::new(Line { server, now });
    let stop = Arc::new(AtomicBool::new(false));
    let killer = {
        let (line, stop) = (Arc::clone(&line), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut chance, mut kills) = (Chance(!seed), 0);
            while !stop.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_micros(5000 + chance.below(30_000))).await;
                line.kill(&mut chance).await;
                kills += 1;
            }
            kills
        })
    };
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let line = Arc::clone(&line);
            tokio::spawn(async move {
                let mut chance = Chance(seed ^ (worker << 32));
                let mut outcomes = Vec::new();
                for id in (worker..calls).step_by(WORKERS as usize) {
                    let channel = line.channel();
                    outcomes.push((id, call(&channel, id, &mut chance).await));
                }
                outcomes
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    // More calls have more time.
    let limit = LIMIT * u32::try_from(1 + calls / CALLS).unwrap();
    for worker in workers {
        let ended = tokio::time::timeout(limit, worker).await;
        outcomes.extend(ended.expect("within the limit").expect("no caller panics"));
    }
    stop.store(true, Ordering::SeqCst);
    let kills = soon(killer).await.unwrap();
    let channel = line.channel();
    until("no call is left", || line.server.stats().in_flight == 0).await;
    soon(channel.call(&ECHO, &vec![0; 10].into()).into_future())
        .await
        .unwrap();

    let mut counts = HashMap::<String, u32>::new();
    for (id, outcome) in &outcomes {
        let name = match outcome {
            None => "given up".to_owned(),
            Some(Ok(())) => "answered".to_owned(),
            Some(Err(status)) => format!(
                "{} {:?} {:?}",
                status.code(),
                status.origin(),
                status.was_processed()
            ),
        };
        *counts.entry(name).or_default() += 1;
        // Call 0 has the number of the one above.
        if let (Some(outcome), 1..) = (outcome, *id) {
            check(*id, outcome, ledger.of(*id));
        }
    }
    println!(
        "seed {seed}: {kills} kills, {:?}, {counts:#?}",
        line.server.stats()
    );
    assert_eq!(outcomes.len() as u64, calls);
    // The machine may be busy, and a call is late then.
    assert!(counts["answered"] > 100);
    assert!(kills > 2);
}

#[tokio::test]
async fn every_call_ends_once_and_its_status_is_true() {
    let seed = std::env::var("RINGMUX_SEED")
        .ok()
        .map_or(1, |seed| seed.parse().unwrap());
    let calls = std::env::var("RINGMUX_CALLS")
        .ok()
        .map_or(CALLS, |calls| calls.parse().unwrap());
    println!("RINGMUX_SEED={seed}");
    std::panic::set_hook(Box::new({
        let hook = std::panic::take_hook();
        move |panic| match panic.payload().downcast_ref::<&str>() {
            Some(&"by chance") => {}
            _ => hook(panic),
        }
    }));
    run(seed, calls).await;
}
