//! Many calls by chance, and a ledger on the server: every call ends once, and what its status says about the handler is true.
//!
//! Most calls are frames (`Session::stats` counts them); the others are streams: those with a long request or much metadata, those
//! that find no permission or a session that is new, and all that stream. Answers that are longer than a frame, or have metadata,
//! make streams of calls in frames. Sessions end in each way that there is, from either side, and servers are replaced.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Code, Context, Origin, Receiver, Response, Sender, Server, Status};
use ringmux::{Processed, Session};
use tokio::task::{AbortHandle, JoinSet};

use crate::host::*;

const CALLS: u64 = 20_000;
const WORKERS: u64 = 32;
/// Calls from one end of a session to the next: a number below the sum of both, and not below the first.
const BETWEEN_ENDS: (u64, u64) = (100, 300);
/// More than a frame carries.
const LONG_BYTES: usize = 17_000;
/// Metadata that an opening block has no room for, in bytes.
const LONG_METADATA: usize = 8150;

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

/// What the tenth byte of a request asks for besides its echo.
#[derive(Clone, Copy)]
struct Asked {
    long: bool,
    headers: bool,
    trailers: bool,
}

impl Asked {
    fn of(request: &[u8]) -> Self {
        let byte = request[10];
        Self {
            long: byte < 20,
            headers: (10..30).contains(&byte),
            trailers: (15..40).contains(&byte),
        }
    }
}

/// Does what the request says, which has the call's number in front.
async fn work(ledger: Ledger, cx: &Context, mut request: Bytes) -> Result<Bytes, Status> {
    let call = number(&request);
    ledger.begin(call);
    if let Some(said) = cx.metadata().get("call") {
        assert_eq!(*said, request[..8], "the metadata of another call");
    }
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
    let asked = Asked::of(&request);
    if asked.headers {
        cx.add_header("call", &request[..8])?;
    }
    if asked.trailers {
        cx.add_trailer("call", &request[..8])?;
    }
    if asked.long {
        request = [&request[..], &[9; LONG_BYTES]].concat().into();
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
        .unary(ECHO, move |cx: Context, request: Bytes| {
            let ledger = a.clone();
            async move { work(ledger, &cx, request).await }
        })
        .bidirectional(
            CHAT,
            move |cx: Context, mut from: Receiver<Bytes>, mut to: Sender<Bytes>| {
                let ledger = b.clone();
                async move {
                    while let Some(request) = from.recv().await? {
                        to.send(work(ledger.clone(), &cx, request).await?).await?;
                    }
                    Ok(())
                }
            },
        )
        .max_calls(24)
        .build()
        .unwrap()
}

/// A session from both sides, and its two connections.
struct Link {
    client: Session,
    session: Session,
    connections: [AbortHandle; 2],
    channel: Channel,
}

impl Link {
    async fn new(server: &Server) -> Self {
        let config = settings().build().unwrap();
        let (a, b) = tokio::io::duplex(256 * 1024);
        let (client, connection) = ringmux::client(a, &config);
        let dialling = tokio::spawn(connection).abort_handle();
        let (session, connection) = ringmux::server(b, &config);
        let listening = tokio::spawn(connection).abort_handle();
        client.established().await.unwrap();
        let (server, served) = (server.clone(), session.clone());
        tokio::spawn(async move { server.serve_session(served).await });
        Self {
            channel: Channel::new(client.clone()),
            client,
            session,
            connections: [dialling, listening],
        }
    }
}

/// The session of the moment, which is killed now and then, and the server, which is replaced.
struct Line {
    ledger: Ledger,
    servers: Mutex<Vec<Server>>,
    now: Mutex<Link>,
    /// Calls in frames of the sessions that are over.
    framed: Arc<AtomicU64>,
    counting: Mutex<JoinSet<()>>,
}

impl Line {
    async fn new() -> Self {
        let ledger = Ledger::default();
        let server = server(&ledger);
        Self {
            ledger,
            now: Mutex::new(Link::new(&server).await),
            servers: Mutex::new(vec![server]),
            framed: Arc::default(),
            counting: Mutex::default(),
        }
    }

    async fn kill(&self, chance: &mut Chance) {
        let server = {
            let mut servers = self.servers.lock().unwrap();
            if chance.below(8) == 0 {
                servers.push(server(&self.ledger));
            }
            servers.last().unwrap().clone()
        };
        let next = Link::new(&server).await;
        let old = std::mem::replace(&mut *self.now.lock().unwrap(), next);
        let side = match chance.below(2) {
            0 => old.client.clone(),
            _ => old.session.clone(),
        };
        match chance.below(5) {
            0 | 1 => side.close(),
            2 | 3 => drop(tokio::spawn(async move {
                side.shutdown(Duration::from_millis(2)).await;
            })),
            _ => old.connections[chance.below(2) as usize].abort(),
        }
        self.count(old.client);
    }

    /// Adds up the frames of a session when it is over.
    fn count(&self, client: Session) {
        let framed = Arc::clone(&self.framed);
        let mut counting = self.counting.lock().unwrap();
        while counting.try_join_next().is_some() {}
        counting.spawn(async move {
            client.closed().await;
            framed.fetch_add(client.stats().calls, Ordering::SeqCst);
        });
    }

    fn channel(&self) -> Channel {
        self.now.lock().unwrap().channel.clone()
    }

    /// All calls of all servers are over.
    async fn rests(&self) {
        let servers = self.servers.lock().unwrap().clone();
        let in_flight = || servers.iter().map(|it| it.stats().in_flight).sum::<u64>();
        until("no call is left", || in_flight() == 0).await;
    }

    /// Ends the last session; how many calls were frames.
    async fn end(&self) -> u64 {
        let last = self.now.lock().unwrap().client.clone();
        last.close();
        self.count(last);
        let counting = std::mem::take(&mut *self.counting.lock().unwrap());
        soon(counting.join_all()).await;
        self.framed.load(Ordering::SeqCst)
    }
}

/// One call; its status, if its caller waited for one.
async fn call(channel: &Channel, id: u64, chance: &mut Chance) -> Option<Result<(), Status>> {
    let mut request = id.to_le_bytes().to_vec();
    request.extend([(); 3].map(|()| chance.next() as u8));
    if chance.below(50) == 0 {
        request.resize(30_000, 7);
    }
    let metadata = match chance.below(100) {
        0 => vec![7; LONG_METADATA],
        1..=9 => vec![7],
        _ => vec![],
    };
    let request = Bytes::from(request);
    let timeout = Duration::from_micros(500 + chance.below(16_000));
    let patience = match chance.below(5) {
        0 => Duration::from_micros(chance.below(2000)),
        _ => LIMIT,
    };
    if chance.below(8) > 0 {
        let mut call = channel.call(&ECHO, &request).timeout(timeout);
        if !metadata.is_empty() {
            call = call.metadata("call", &request[..8]).metadata("m", metadata);
        }
        let answer = call.detailed();
        let answer = tokio::time::timeout(patience, answer).await.ok()?;
        return Some(answer.map(|answer| is_answer(&answer, &request)));
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

/// Checks that an answer is the one that the request asks for.
fn is_answer(answer: &Response<Bytes>, request: &Bytes) {
    let asked = Asked::of(request);
    let more = if asked.long { LONG_BYTES } else { 0 };
    assert_eq!(answer.message.len(), request.len() + more);
    assert_eq!(answer.message[..request.len()], request[..]);
    let of_it = |asked: bool| asked.then_some(&request[..8]);
    assert_eq!(answer.headers.get("call"), of_it(asked.headers));
    assert_eq!(answer.trailers.get("call"), of_it(asked.trailers));
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
    let since = std::time::Instant::now();
    let line = Arc::new(Line::new().await);
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicU64::new(0));
    let killer = {
        let (line, stop, begun) = (Arc::clone(&line), Arc::clone(&stop), Arc::clone(&begun));
        tokio::spawn(async move {
            let (mut chance, mut kills, mut next) = (Chance(!seed), 0, 0);
            let (least, spread) = BETWEEN_ENDS;
            loop {
                next += least + chance.below(spread);
                while begun.load(Ordering::SeqCst) < next {
                    if stop.load(Ordering::SeqCst) {
                        return kills;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                line.kill(&mut chance).await;
                kills += 1;
            }
        })
    };
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (line, begun) = (Arc::clone(&line), Arc::clone(&begun));
            tokio::spawn(async move {
                let mut chance = Chance(seed ^ (worker << 32));
                let mut outcomes = Vec::new();
                for id in (worker..calls).step_by(WORKERS as usize) {
                    begun.fetch_add(1, Ordering::SeqCst);
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
    line.rests().await;
    soon(
        line.channel()
            .call(&ECHO, &vec![0; 11].into())
            .into_future(),
    )
    .await
    .unwrap();
    let framed = line.end().await;

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
            check(*id, outcome, line.ledger.of(*id));
        }
    }
    let servers = line.servers.lock().unwrap().len();
    let took = since.elapsed();
    println!(
        "seed {seed}: {calls} calls in {took:?}, {framed} in frames, {kills} kills, {servers} servers, {counts:#?}"
    );
    assert_eq!(outcomes.len() as u64, calls);
    // The machine may be busy, and a call is late then.
    assert!(counts["answered"] > 100);
    assert!(kills > 2);
    match over_streams() {
        true => assert_eq!(framed, 0),
        false => assert!(framed > calls / 2, "{framed} of {calls} were frames"),
    }
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
