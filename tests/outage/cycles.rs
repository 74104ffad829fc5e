//! Ten thousand random sessions that begin, do some work, and end. No resource of them may remain.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use ringmux::{Addr, Config, Driver, Engine, Listener, Session};
use tokio::task::JoinHandle;

use crate::DRIVERS;
use crate::SLACK_BYTES;
use crate::child::{Child, follow_the_parent, tell};
use crate::count::Footprint;
use crate::host::{AWAIT_GUARD, Halves, Soon, eventually, tokio_runtime};

/// Over all drivers.
const CYCLES: u32 = 10_000;
/// Concurrent cycles.
const AT_ONCE: u32 = 8;
/// Cycles before the first sample: after them all one-time allocations are made.
const WARM_UP: u32 = 400;
/// Cycles after which the engine is dropped, with the sessions on it.
const ENGINE_CYCLES: u32 = 250;

#[test]
fn ten_thousand_random_sessions_leave_nothing() {
    Child::start(&[], "cycles", "").succeeds();
}

/// The whole test, in a process where nothing else runs.
pub(crate) fn alone() {
    follow_the_parent();
    let seed = std::env::var("RINGMUX_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    println!("RINGMUX_SEED={seed}");
    for driver in DRIVERS {
        cycles(driver, WARM_UP, seed);
    }
    let before = settled();
    let began = Instant::now();
    for driver in DRIVERS {
        cycles(driver, CYCLES / DRIVERS.len() as u32 + 1, seed + 1);
    }
    let after = wait_for(before);
    let totals = ringmux::process_stats().totals;
    tell(&format!(
        "{} sessions, {:.1?}, before {before:?}, after {after:?}, ended {:?}",
        totals.started,
        began.elapsed(),
        totals.ended
    ));
    assert_eq!(
        (
            totals.open(),
            totals.sessions.streams,
            totals.sessions.bytes_held
        ),
        (0, 0, 0)
    );
    assert!(
        totals.started >= 2 * u64::from(CYCLES - CYCLES / 10),
        "{totals:?}"
    );
    assert!(totals.ended.engine_stopped > 0, "{totals:?}");
}

/// Resources of the process, including threads.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: Footprint,
    threads: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            memory: Footprint::now(),
            threads: std::fs::read_dir("/proc/self/task").unwrap().count(),
        }
    }

    fn is_back_at(&self, before: &Self) -> bool {
        // No buffer was leaked to the kernel.
        self.memory.leaked_buffers == before.memory.leaked_buffers
            && self.memory.bytes <= before.memory.bytes + SLACK_BYTES
            && self.memory.descriptors <= before.memory.descriptors
            && self.threads <= before.threads
    }
}

/// Engines on threads end some time after their last session.
fn settled() -> Held {
    let began = Instant::now();
    let mut held = Held::now();
    while began.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(50));
        held = Held::now();
    }
    held
}

fn wait_for(before: Held) -> Held {
    let deadline = Instant::now() + AWAIT_GUARD;
    loop {
        let now = Held::now();
        if now.is_back_at(&before) {
            return now;
        }
        assert!(
            Instant::now() < deadline,
            "before: {before:?}, after: {now:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// SplitMix64.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn cycles(driver: Driver, count: u32, seed: u64) {
    tokio_runtime().block_on(async {
        let mut done = 0;
        while done < count {
            let engine = Engine::thread(driver).expect("the driver works here");
            let dir = tempfile::tempdir().unwrap();
            let listeners = [
                listen(&engine, Addr::Tcp("127.0.0.1:0".to_owned())).await,
                listen(&engine, Addr::Unix(dir.path().join("socket"))).await,
            ];
            let upto = count.min(done + ENGINE_CYCLES);
            while done < upto {
                let some = AT_ONCE.min(upto - done);
                let chances = (done..done + some).map(|n| Chance(seed << 32 | u64::from(n)));
                join_all(chances.map(|chance| cycle(&engine, &listeners, chance))).await;
                done += some;
            }
        }
        let tasks = tokio::runtime::Handle::current().metrics();
        eventually("no task is left", || tasks.num_alive_tasks() == 0).await;
    });
}

struct Served {
    listener: Listener,
    config: Config,
}

async fn listen(engine: &Engine, addr: Addr) -> Served {
    let config = Config::builder()
        .close_linger(Duration::from_millis(50))
        .max_streams(64)
        .build()
        .unwrap();
    Served {
        listener: engine.listen(&addr, &config).soon().await.unwrap(),
        config,
    }
}

/// One session from its beginning to its end.
async fn cycle(engine: &Engine, listeners: &[Served; 2], mut chance: Chance) {
    let served = &listeners[chance.below(2) as usize];
    let connecting = engine.connect(served.listener.local_addr(), &served.config);
    let kind = chance.below(20);
    if kind == 0 {
        return abandoned(&served.config, chance).await;
    }
    if kind == 1 {
        // Dropped half-way. The accepting side may get it, or another.
        let _ = tokio::time::timeout(Duration::from_micros(chance.below(500)), connecting).await;
        return;
    }
    let client = connecting.soon().await.unwrap();
    // Perhaps the session of another cycle, which then gets this one; or a dropped one.
    let server = served.listener.accept().soon().await.unwrap();
    let mut streams = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..chance.below(6) {
        something(&client, &server, &mut chance, &mut streams, &mut tasks).await;
    }
    end(client, server, &mut chance).await;
    drop(streams);
    for task in tasks {
        task.soon().await.unwrap();
    }
}

/// A session whose engine is dropped first, on one side or on both.
async fn abandoned(config: &Config, mut chance: Chance) {
    let (near, far) = tokio::io::duplex(1 + chance.below(4096) as usize);
    let (client, connection) = ringmux::client(near, config);
    let dialling = tokio::spawn(connection);
    let (server, connection) = ringmux::server(far, config);
    let accepting = tokio::spawn(connection);
    if chance.below(2) == 0 {
        client.established().soon().await.unwrap();
    }
    let (mut streams, mut tasks) = (Vec::new(), Vec::new());
    something(&client, &server, &mut chance, &mut streams, &mut tasks).await;
    dialling.abort();
    if chance.below(2) == 0 {
        accepting.abort();
    }
    client.closed().soon().await;
    server.closed().soon().await;
    for task in tasks {
        task.soon().await.unwrap();
    }
}

/// Any of these may fail, as the other side may be ending the session.
async fn something(
    client: &Session,
    server: &Session,
    chance: &mut Chance,
    streams: &mut Vec<Halves>,
    tasks: &mut Vec<JoinHandle<()>>,
) {
    let size = [0, 10, 1000, 20_000, 100_000][chance.below(5) as usize];
    let message = Bytes::from(vec![1; size]);
    match chance.below(6) {
        0 => drop(client.ping().soon().await),
        1 => streams.extend(server.try_open("").ok()),
        2 => {
            // Opened and sent to, but never accepted.
            if let Ok((mut send, recv)) = client.try_open("unaccepted") {
                let _ = send.try_send(message);
                streams.push((send, recv));
            }
        }
        3 => {
            if let Ok((mut stream_send, _stream_recv)) = client.try_open("cancelled") {
                let _ = stream_send.try_send(message);
                stream_send.cancel(7);
            }
        }
        4 => {
            // A sender that may never finish.
            if let Ok((mut stream_send, _stream_recv)) = client.try_open("sent to") {
                let sending =
                    async move { while stream_send.send(message.clone()).await.is_ok() {} };
                tasks.push(tokio::spawn(async move {
                    let _ = tokio::time::timeout(Duration::from_millis(2), sending).await;
                }));
            }
        }
        _ => {
            let Ok((mut stream_send, stream_recv)) = client.try_open("there and back") else {
                return;
            };
            let _ = stream_send.try_send(message);
            let _ = stream_send.finish();
            let taking = server.accept();
            if let Ok(Ok(Some(mut taken))) =
                tokio::time::timeout(Duration::from_millis(2), taking).await
            {
                let _ = tokio::time::timeout(Duration::from_millis(2), taken.1.recv()).await;
                streams.push(taken);
            }
            streams.push((stream_send, stream_recv));
        }
    }
}

async fn end(client: Session, server: Session, chance: &mut Chance) {
    let grace = Duration::from_millis(chance.below(10));
    match chance.below(6) {
        0 => client.close(),
        1 => server.close(),
        2 => {
            client.close();
            client.closed().soon().await;
        }
        3 => drop(server.shutdown(grace).soon().await),
        4 => {
            tokio::join!(client.shutdown(grace).soon(), server.shutdown(grace).soon());
        }
        _ => {}
    }
}
