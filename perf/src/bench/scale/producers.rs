//! `producers`: the throughput of 1, 2, 4 threads sending into one session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use ringmux::{Addr, Config, RecvStream, SendStream, Session};
use serde::Serialize;

use super::{Options, during, introduce, median, print, print_json};
use crate::bench::report::table;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::Host;
use ringmux_measure::progress::Progress;
use ringmux_measure::units;
use ringmux_measure::workload::MESSAGE_LEN;

/// Share of one producer's throughput that many should keep.
const KEPT: f64 = 0.8;

/// Arguments of `producers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Threads that send 64-byte messages, each on a stream of its own.
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1,2,4",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: Vec<u32>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Serialize)]
struct Row {
    producers: u32,
    driver: &'static str,
    wait: &'static str,
    rate_per_s: f64,
    /// Ratio to the first row.
    ratio: f64,
    wakes_issued_per_message: f64,
    activations_per_message: f64,
}

/// One slice.
#[derive(Debug)]
struct Sample {
    rate_per_s: f64,
    wakes: f64,
    activations: f64,
}

/// Measures all, slice by slice in turn.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (options, pair) = (&args.options, args.options.pair());
    introduce(options.json)?;
    let progress = Progress::new(
        args.threads.len() * options.rounds as usize,
        pair.warmup + pair.measured,
    );
    let mut all: Vec<Vec<Sample>> = args.threads.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (threads, samples) in args.threads.iter().zip(&mut all) {
            progress.step(format!("{threads} producers"));
            samples.push(slice(options.host(), *threads, pair.warmup, pair.measured)?);
        }
    }
    progress.clear();
    report(args, &all)
}

fn report(args: &Args, all: &[Vec<Sample>]) -> Result<(), Failure> {
    let host = args.options.host();
    let mut table = table::start(
        &[
            "producers",
            "rate",
            "of the first",
            "wakes a message",
            "activations a message",
        ],
        0,
    );
    let mut first = None;
    for (producers, samples) in args.threads.iter().zip(all) {
        let rate_per_s = median(samples.iter().map(|sample| sample.rate_per_s));
        let row = Row {
            producers: *producers,
            driver: host.driver.name(),
            wait: host.wait.name(),
            rate_per_s,
            ratio: rate_per_s / *first.get_or_insert(rate_per_s),
            wakes_issued_per_message: median(samples.iter().map(|sample| sample.wakes)),
            activations_per_message: median(samples.iter().map(|sample| sample.activations)),
        };
        if args.options.json {
            print_json(&row)?;
            continue;
        }
        table.add_row([
            row.producers.to_string(),
            units::rate(row.rate_per_s),
            format!("{:.2}", row.ratio),
            format!("{:.4}", row.wakes_issued_per_message),
            format!("{:.4}", row.activations_per_message),
        ]);
    }
    if args.options.json {
        return Ok(());
    }
    print(&format!(
        "{table}\nwanted: at least {KEPT:.2} of one producer"
    ))
}

/// A session over two engines: one on a thread of its own, fed by the producers, and one that only counts.
fn slice(
    host: Host,
    producers: u32,
    warmup: Duration,
    measured: Duration,
) -> Result<Sample, Failure> {
    let counter = Counter::start(host)?;
    let runtime = runtime()?;
    let engine = host
        .builder()
        .thread()
        .map_err(during("cannot start the engine"))?;
    let session = runtime
        .block_on(engine.connect(&counter.addr, &Config::default()))
        .map_err(during("cannot connect"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<JoinHandle<Result<u64, Failure>>> = (0..producers)
        .map(|_| {
            let (session, stop) = (session.clone(), Arc::clone(&stop));
            thread::spawn(move || produce(&session, &stop))
        })
        .collect();
    thread::sleep(warmup);
    let (before, stats, began) = (counter.count(), session.stats(), Instant::now());
    thread::sleep(measured);
    let (after, later, elapsed) = (counter.count(), session.stats(), began.elapsed());
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for thread in threads {
        sent += thread
            .join()
            .map_err(|_| Failure::new("a producer panicked"))??;
    }
    session.close();
    runtime.block_on(session.closed());
    let received = counter.end()?;
    if received != sent {
        return Err(Failure::new(format!(
            "{sent} messages were sent, {received} arrived"
        )));
    }
    let messages = (after - before).max(1) as f64;
    Ok(Sample {
        rate_per_s: (after - before) as f64 / elapsed.as_secs_f64(),
        wakes: (later.wakes_issued - stats.wakes_issued) as f64 / messages,
        activations: (later.activations - stats.activations) as f64 / messages,
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(during("cannot make a runtime"))
}

/// Sends until `stop`, then waits until the other side has received everything.
fn produce(session: &Session, stop: &AtomicBool) -> Result<u64, Failure> {
    runtime()?.block_on(async {
        let (mut stream_send, mut stream_recv) = session
            .open("")
            .await
            .map_err(during("cannot open a stream"))?;
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            stream_send
                .send_slice(&[7; MESSAGE_LEN])
                .await
                .map_err(during("cannot send"))?;
            sent += 1;
        }
        stream_send
            .finish()
            .map_err(during("cannot finish a stream"))?;
        match stream_recv.recv().await.map_err(during("cannot receive"))? {
            None => Ok(sent),
            Some(_) => Err(Failure::new("an answer where none was expected")),
        }
    })
}

/// Accepts one session and counts the messages of its streams.
struct Counter {
    addr: Addr,
    count: Arc<CachePadded<AtomicU64>>,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Counter {
    fn start(host: Host) -> Result<Self, Failure> {
        let count = Arc::new(CachePadded::new(AtomicU64::new(0)));
        let (tell, listening) = mpsc::channel();
        let counted = Arc::clone(&count);
        let thread = thread::spawn(move || {
            host.block_on(async |engine| {
                let anywhere = Addr::Tcp("127.0.0.1:0".to_owned());
                let listener = engine.listen(&anywhere, &Config::default()).await;
                let listener = listener.map_err(during("cannot listen"))?;
                let _ = tell.send(listener.local_addr().clone());
                let session = listener.accept().await;
                let session = session.map_err(during("cannot accept the session"))?;
                while let Ok(Some(stream)) = session.accept().await {
                    tokio::task::spawn_local(count_messages(stream, Arc::clone(&counted)));
                }
                Ok(())
            })?
        });
        match listening.recv() {
            Ok(addr) => Ok(Self {
                addr,
                count,
                thread,
            }),
            Err(_) => Err(match thread.join() {
                Ok(Err(failure)) => failure,
                _ => Failure::new("the server did not start"),
            }),
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn end(self) -> Result<u64, Failure> {
        let ended = self.thread.join();
        ended.map_err(|_| Failure::new("the server panicked"))??;
        Ok(self.count.load(Ordering::Relaxed))
    }
}

async fn count_messages(
    (mut send, mut recv): (SendStream, RecvStream),
    count: Arc<CachePadded<AtomicU64>>,
) {
    while let Ok(Some(message)) = recv.lease().await {
        assert_eq!(message.len(), MESSAGE_LEN);
        // All streams are counted on one thread.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    // The client continues when it sees this end.
    let _ = send.finish();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use ringmux_measure::host::{Driver, Wait};

    #[test]
    fn every_message_of_every_producer_is_counted_over_every_driver() {
        for driver in Driver::value_variants() {
            let host = Host::nearest(*driver, Wait::Park);
            let moment = Duration::from_millis(30);
            let sample = slice(host, 3, moment, moment).unwrap();
            assert!(
                sample.rate_per_s > 0.0 && sample.activations > 0.0,
                "{sample:?}"
            );
        }
    }
}
