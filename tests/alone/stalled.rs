//! The cost of a stalled consumer: in throughput of the 99 streams beside it, and in memory of the process.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmux::{Config, Session};
use tokio::task::JoinHandle;

use crate::WINDOW;
use crate::count::{Footprint, nothing_left_after};
use crate::host::{Halves, Host, Net, Soon, eventually, pattern};

/// The share of their throughput that the others must keep.
const KEPT: f64 = 0.95;
const ACTIVE: usize = 99;
const MESSAGE_BYTES: usize = 1024;
const FRAME_COST: u64 = 256;
/// Minimum length of a round. Shorter ones measure the start of tasks.
const ROUND: Duration = Duration::from_millis(30);
/// Pairs of rounds before the first evaluation.
const PAIRS_AT_LEAST: usize = 9;
/// How long pairs are added. On an idle machine the first evaluation is enough; on a busy one, single
/// pairs are off by half, and the median needs a hundred of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measurements of the memory that a stalled stream takes, at most.
const LOOKS: usize = 10;

/// Rounds with and without the stalled stream take turns on one session, so that other load of the machine affects both
/// alike. The figure is the median, over pairs of neighbouring rounds, of their ratio.
pub(crate) fn ninety_nine_streams_keep_their_throughput_beside_a_stalled_one(host: Host) {
    let compared = |pairs_at_most: usize| {
        move |net: Net| async move {
            let (client, server) = net.pair().await;
            let mut active = Active::new(&net, &client, &server).await;
            let started = Instant::now();
            let mut ratios = Vec::new();
            while ratios.len() < pairs_at_most {
                // Alternate, so that drift over time favours neither.
                let with_first = ratios.len() % 2 == 1;
                let mut took = [Duration::ZERO; 2];
                for with in [with_first, !with_first] {
                    // Both begin alike; in the round without, the stalled stream ends before the clock starts.
                    let stalled =
                        Stalled::new(&net, &client, &server, pattern(MESSAGE_BYTES, 2)).await;
                    let stalled = if with {
                        Some(stalled)
                    } else {
                        stalled.end().await;
                        eventually("the stalled stream is gone", || {
                            server.stats().streams == ACTIVE as u64
                        })
                        .await;
                        None
                    };
                    active.round(1).await;
                    took[usize::from(with)] = active.round(active.messages).await;
                    if let Some(stalled) = stalled {
                        stalled.end().await;
                    }
                }
                ratios.push(took[0].as_secs_f64() / took[1].as_secs_f64());
                if ratios.len() >= PAIRS_AT_LEAST && median(&ratios) >= KEPT {
                    break;
                }
                assert!(
                    started.elapsed() < PATIENCE,
                    "{:.3} of the throughput is left: {ratios:.2?}",
                    median(&ratios)
                );
            }
            println!(
                "{:.3} of the throughput, over {} pairs of rounds",
                median(&ratios),
                ratios.len()
            );
        }
    };
    nothing_left_after(host, compared(1), compared(usize::MAX));
}

/// No message is consumed, the sender's own queue is minimal, and the allocator counts.
///
/// Messages here fit into their window; a larger one would be held whole in addition. The stream itself holds the same on each
/// driver, for messages of 10,000 bytes 98,632: its ring with segments of 128 bytes, 32 and 64 KiB (six messages do not fit
/// the second one), and its lane. The rest of a measurement is a receive buffer, which a session has at some moments only
/// and which is no larger than its reception (32 KiB here): so the smallest of several measurements counts.
pub(crate) fn a_stalled_consumer_takes_at_most_twice_its_window_of_memory(host: Host) {
    let stalled = |sizes: &'static [usize]| {
        move |net: Net| async move {
            for &size in sizes {
                let mut least = i64::MAX;
                for _ in 0..LOOKS {
                    if least <= 2 * WINDOW as i64 {
                        break;
                    }
                    least = least.min(a_stalled_consumer_takes(&net, size).await);
                }
                println!("{least} bytes of memory for messages of {size} bytes");
                assert!(
                    least <= 2 * WINDOW as i64,
                    "{least} bytes, {size} a message"
                );
            }
        }
    };
    nothing_left_after(
        host,
        stalled(&[1000]),
        stalled(&[0, 1, 200, 1000, 10_000, 20_000, 30_000, 60_000]),
    );
}

/// The bytes that one takes with messages of this size.
async fn a_stalled_consumer_takes(net: &Net, size: usize) -> i64 {
    // The session's own memory does not grow meanwhile.
    let config = Config::builder().send_buffer(4 * 1024).receive_buffer(0);
    let config = config.build().unwrap();
    let (client, server) = net.pair_with(&config, &config).await;
    // What an application hands over is its own memory.
    let message = pattern(size, 2);
    // Buffers that the session makes once.
    let warm = Stalled::new(net, &client, &server, message.clone()).await;
    warm.end().await;
    for session in [&client, &server] {
        eventually("it is gone", || session.stats().streams == 0).await;
    }
    let before = Footprint::now().bytes;
    let stalled = Stalled::new(net, &client, &server, message.clone()).await;
    let taken = Footprint::now().bytes - before;
    assert!(server.stats().bytes_held <= 2 * WINDOW);
    stalled.end().await;
    taken
}

/// Streams that send from one side to the other as fast as they can.
struct Active {
    streams: Vec<(Halves, Halves)>,
    /// Messages on each stream in a round.
    messages: u64,
}

impl Active {
    async fn new(net: &Net, client: &Session, server: &Session) -> Self {
        let mut streams = Vec::new();
        for _ in 0..ACTIVE {
            streams.push(net.stream(client, server).await);
        }
        let mut new = Self {
            streams,
            messages: 16,
        };
        loop {
            let mut fastest = Duration::MAX;
            for _ in 0..3 {
                fastest = fastest.min(new.round(new.messages).await);
            }
            if fastest >= ROUND {
                return new;
            }
            new.messages *= 2;
        }
    }

    /// The time until `messages` messages of each stream are received.
    async fn round(&mut self, messages: u64) -> Duration {
        let message = pattern(MESSAGE_BYTES, 1);
        let started = Instant::now();
        let mut tasks = Vec::new();
        for (mut ours, mut theirs) in self.streams.drain(..) {
            let message = message.clone();
            let sender = tokio::spawn(async move {
                for _ in 0..messages {
                    ours.0.send(message.clone()).await.unwrap();
                }
                ours
            });
            let receiver = tokio::spawn(async move {
                for _ in 0..messages {
                    let received = theirs.1.recv().await.unwrap().unwrap();
                    assert_eq!(received.len(), MESSAGE_BYTES);
                }
                theirs
            });
            tasks.push((sender, receiver));
        }
        for (sender, receiver) in tasks {
            let streams = (sender.soon().await.unwrap(), receiver.soon().await.unwrap());
            self.streams.push(streams);
        }
        started.elapsed()
    }
}

/// A stream without credit, whose sender waits.
struct Stalled {
    theirs: Halves,
    sender: JoinHandle<()>,
}

impl Stalled {
    async fn new(net: &Net, client: &Session, server: &Session, message: Bytes) -> Self {
        let before = server.stats().messages_received;
        let (mut ours, theirs) = net.stream(client, server).await;
        let fitting = WINDOW / (message.len() as u64 + FRAME_COST);
        let sender = tokio::spawn(async move {
            while ours.0.send(message.clone()).await.is_ok() {}
            drop(ours);
        });
        eventually("the stalled stream has used its window up", || {
            server.stats().messages_received - before >= fitting
        })
        .await;
        // A partially admitted message is completed; after these PINGs its bytes have arrived.
        for _ in 0..2 {
            client.ping().soon().await.unwrap();
            server.ping().soon().await.unwrap();
        }
        Self { theirs, sender }
    }

    async fn end(self) {
        drop(self.theirs);
        self.sender.soon().await.unwrap();
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (low + high) / 2.0
}
