//! An engine saturated with bulk in both directions, and the PINGs of its session and of a quiet one beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmux::{RecvStream, SendStream, Session};

use crate::count::alone;
use crate::host::{Host, Net, Place, Soon, eventually, pattern, run};

/// The p99 limit of PINGs. A build without optimization moves the same bulk several times slower, and
/// also the bytes queued ahead of a PING.
const BOUND: Duration = if cfg!(debug_assertions) {
    Duration::from_millis(20)
} else {
    Duration::from_millis(1)
};
/// Streams with bulk, each way.
const STREAMS: usize = 4;
const MESSAGE_BYTES: usize = 64 * 1024;
/// PINGs per measurement: the third greatest is the p99.
const PINGS: usize = 300;
/// How long the measurement is repeated. On an idle machine the first one is enough.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn a_busy_engine_answers_pings(host: Host) {
    let _alone = alone();
    run(host, |net: Net| async move {
        let (client, server) = net.pair().await;
        let (quiet, _its_peer) = net.pair().await;
        let bulk = Bulk::start(&net, &client, &server).await;
        let started = Instant::now();
        loop {
            let (before, began, ran) = (bulk.moved(), Instant::now(), ran());
            let (mut busy, mut beside) = (Vec::new(), Vec::new());
            for _ in 0..PINGS {
                busy.push(client.ping().soon().await.unwrap());
                beside.push(quiet.ping().soon().await.unwrap());
            }
            let (busy, beside) = (p99(busy), p99(beside));
            let after = bulk.moved();
            let bound = BOUND.mul_f64(slowdown(
                net.host,
                began.elapsed(),
                self::ran().saturating_sub(ran),
            ));
            println!(
                "p99 {busy:?} on the busy session, {beside:?} beside it, of {bound:?}, bulk {after:?}"
            );
            for (before, after) in before.into_iter().zip(after) {
                assert!(after > before, "the bulk went on meanwhile");
            }
            if busy <= bound && beside <= bound {
                break;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{busy:?} on the busy session, {beside:?} beside it"
            );
        }
        bulk.stop().await;
    });
}

/// The slowdown by other load of the machine: the measured time divided by the running time of threads that are always
/// busy.
fn slowdown(host: Host, took: Duration, ran: Duration) -> f64 {
    let threads = if host.place == Place::OneThread { 2 } else { 1 };
    let times = (took * threads).as_secs_f64() / ran.as_secs_f64().max(f64::MIN_POSITIVE);
    times.max(1.0)
}

/// How long the threads of this process have run.
fn ran() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this process has threads");
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        // Empty for a thread that has ended meanwhile.
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

/// Bulk at full speed, until it is stopped.
struct Bulk {
    stop: Arc<AtomicBool>,
    /// Messages received, in each direction.
    moved: [Arc<AtomicU64>; 2],
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Bulk {
    async fn start(net: &Net, client: &Session, server: &Session) -> Self {
        let mut bulk = Self {
            stop: Arc::default(),
            moved: Default::default(),
            tasks: Vec::new(),
        };
        for _ in 0..STREAMS {
            let ((ours_send, ours_recv), (theirs_send, theirs_recv)) =
                net.stream(client, server).await;
            let (ours_send, ours_recv) = (ours_send, ours_recv);
            let (theirs_send, theirs_recv) = (theirs_send, theirs_recv);
            for (send, recv, way) in [(ours_send, theirs_recv, 0), (theirs_send, ours_recv, 1)] {
                let stop = Arc::clone(&bulk.stop);
                bulk.tasks.push(tokio::spawn(fill(send, stop)));
                let moved = Arc::clone(&bulk.moved[way]);
                bulk.tasks.push(tokio::spawn(drain(recv, moved)));
            }
        }
        eventually("the bulk flows", || bulk.moved().iter().all(|&n| n > 100)).await;
        bulk
    }

    fn moved(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.moved[way].load(Ordering::Relaxed))
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.soon().await.unwrap();
        }
    }
}

async fn fill(mut stream: SendStream, stop: Arc<AtomicBool>) {
    let message: Bytes = pattern(MESSAGE_BYTES, 3);
    while !stop.load(Ordering::Relaxed) {
        stream.send(message.clone()).await.unwrap();
    }
    stream.finish().unwrap();
}

async fn drain(mut stream: RecvStream, moved: Arc<AtomicU64>) {
    while let Some(message) = stream.lease().await.unwrap() {
        assert_eq!(message.len(), MESSAGE_BYTES);
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() - times.len().div_ceil(100)]
}
