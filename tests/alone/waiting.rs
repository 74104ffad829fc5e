//! An adaptive engine where spinning costs other threads: at most a tenth slower than a sleeping one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringmux::{Addr, Config, Driver, Engine, Wait};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::count::alone;

/// Maximum ratio of an adaptive engine's time to a sleeping one's.
const TIMES: f64 = 1.1;
/// How long one engine is measured at a time, and how long it runs before.
const SLICE: Duration = Duration::from_millis(150);
const WARM_UP: Duration = Duration::from_millis(150);
/// Slices of each, at least and at most: on an idle machine the minimum is enough.
const SLICES: std::ops::RangeInclusive<usize> = 3..=40;
/// Time limit for an answer, reached only by a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Placement of the two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Engines and applications on one processor, as where only one is allowed.
    OneCpu,
    /// Engines on threads of their own, on one processor; applications on another one.
    OneCpuEngines,
    /// On a processor each, which another thread keeps busy.
    Busy,
}

#[test]
fn adaptive_is_as_fast_as_park_where_one_processor_is_allowed() {
    compare(Place::OneCpu);
}

#[test]
fn adaptive_is_as_fast_as_park_where_two_engines_share_a_processor() {
    compare(Place::OneCpuEngines);
}

#[test]
fn adaptive_is_as_fast_as_park_where_the_processors_are_busy() {
    compare(Place::Busy);
}

/// In turn, so that other load affects both. Compares the best slice of each, the least
/// disturbed one; adds slices while the claim does not hold.
fn compare(place: Place) {
    let _alone = alone();
    let cpus = allowed();
    let _crowd: Vec<_> = match place {
        Place::Busy => cpus.iter().map(|cpu| Busy::on(*cpu)).collect(),
        Place::OneCpu | Place::OneCpuEngines => Vec::new(),
    };
    let (mut park, mut adaptive) = (Vec::new(), Vec::new());
    for slice in 1..=*SLICES.end() {
        park.push(round_trip(place, Wait::Park, &cpus));
        adaptive.push(round_trip(place, Wait::Adaptive, &cpus));
        let (park, adaptive) = (best(&park), best(&adaptive));
        println!("{place:?}: best of {slice}: park {park:?}, adaptive {adaptive:?}");
        if slice >= *SLICES.start() && adaptive <= park.mul_f64(TIMES) {
            return;
        }
    }
    panic!("{place:?}: park {park:?}, adaptive {adaptive:?}");
}

fn best(times: &[Duration]) -> Duration {
    times.iter().copied().min().expect("one was measured")
}

fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("the kernel says where a thread may run");
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .take(2)
        .collect()
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("the processor is allowed");
}

/// The mean time of a round trip in one slice: the mean includes stalls, which a median would hide.
fn round_trip(place: Place, wait: Wait, cpus: &[usize]) -> Duration {
    let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
    let (server_cpu, client_cpu) = match place {
        Place::OneCpu => (first, first),
        Place::OneCpuEngines => (last, last),
        Place::Busy => (last, first),
    };
    let engine_cpu = (place == Place::OneCpuEngines).then_some(first);
    let (listening, address) = channel();
    let server = thread::spawn(move || {
        pin(server_cpu);
        on_engine(wait, engine_cpu, |engine| serve(engine, listening));
    });
    let client = thread::spawn(move || {
        pin(client_cpu);
        on_engine(wait, engine_cpu, |engine| measure(engine, address))
    });
    let time = client.join().expect("the client is done");
    server.join().expect("the server is done");
    time
}

/// Under the application's future, or on a thread of its own.
fn on_engine<T, F: Future<Output = T>>(
    wait: Wait,
    cpu: Option<usize>,
    application: impl FnOnce(Engine) -> F,
) -> T {
    let builder = Engine::builder(Driver::Uring).wait(wait);
    match cpu {
        None => builder.block_on(application).expect("io_uring works"),
        Some(cpu) => {
            let engine = builder.cpu(cpu).thread().expect("io_uring works");
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(application(engine))
        }
    }
}

async fn serve(engine: Engine, listening: Sender<Addr>) {
    let anywhere = "127.0.0.1:0".parse().expect("an address");
    let listener = engine
        .listen(&anywhere, &Config::default())
        .await
        .expect("a free port");
    listening
        .send(listener.local_addr().clone())
        .expect("the client waits");
    let session = listener.accept().await.expect("the client connects");
    let (mut send, mut recv) = session
        .accept()
        .await
        .unwrap()
        .expect("the client opens a stream");
    while let Ok(Some(message)) = recv.recv().await {
        if send.send(message).await.is_err() {
            break;
        }
    }
    session.closed().await;
}

async fn measure(engine: Engine, address: Receiver<Addr>) -> Duration {
    let address = address.recv_timeout(PATIENCE).expect("the server listens");
    let session = engine
        .connect(&address, &Config::default())
        .await
        .expect("it accepts");
    let (mut send, mut recv) = session.open("echo").await.expect("it accepts");
    let mut mean = Duration::ZERO;
    for time in [WARM_UP, SLICE] {
        let (started, mut count) = (Instant::now(), 0);
        while started.elapsed() < time {
            send.send("0123456789").await.expect("it is there");
            let echo = recv.recv().await.expect("it is there");
            assert_eq!(echo.expect("it goes on"), "0123456789");
            count += 1;
        }
        mean = started.elapsed() / count;
    }
    session.close();
    session.closed().await;
    mean
}

/// A thread that keeps a processor busy while it lives.
struct Busy {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn on(cpu: usize) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        let thread = thread::spawn(move || {
            pin(cpu);
            while !until.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        Self {
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it only spins");
        }
    }
}
