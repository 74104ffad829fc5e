//! The lock-free leaves, alone and against alternatives. Names are part/scenario/parameter.
//!
//! The module is included from its source, so that nothing private is made public for it.

#![allow(missing_docs)] // `criterion_group!` makes a public function

#[allow(dead_code, unused_imports)]
#[path = "../src/queue/mod.rs"]
mod queue;
#[allow(dead_code, unused_imports)]
#[path = "../src/sync.rs"]
mod sync;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::{ArrayQueue, SegQueue};
use queue::doorbell::Doorbell;
use queue::ready::{Node, ReadyList};
use queue::reasons::Reasons;
use queue::ring::{Reader, Ring, RingOwner, RingPair, Writer};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Clone)]
struct Owner(Arc<RingPair>);

// SAFETY: the `Arc` keeps one pair at one address.
unsafe impl RingOwner for Owner {
    const CHARGE: u32 = 256;

    fn ring(&self) -> Ring<'_> {
        self.0.forth()
    }
}

fn pair() -> (Writer<Owner>, Reader<Owner>) {
    let owner = Owner(Arc::new(RingPair::new()));
    // SAFETY: the only writer of this ring.
    let writer = unsafe { Writer::new(owner.clone()) };
    // SAFETY: the only reader of this ring.
    (writer, unsafe { Reader::new(owner) })
}

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    for size in [64, 512, 4096] {
        let payload = vec![7_u8; size];
        let (mut writer, mut reader) = pair();
        group.bench_function(BenchmarkId::new("push_pop", size), |bencher| {
            bencher.iter(|| {
                writer.push_slice(1, false, black_box(&payload));
                writer.publish();
                black_box(
                    reader
                        .peek()
                        .map(|record| record.payload.as_slice()[size - 1]),
                );
                reader.advance();
                reader.commit()
            });
        });
    }
    let payload = Bytes::from(vec![7_u8; 4096]);
    let (mut writer, mut reader) = pair();
    group.bench_function("push_pop_shared/4096", |bencher| {
        bencher.iter(|| {
            writer.push_bytes(1, false, payload.clone());
            writer.publish();
            black_box(reader.peek().map(|record| record.payload.as_slice()[0]));
            reader.advance();
            reader.commit()
        });
    });
    let payload = [7_u8; 64];
    for batch in [8, 64] {
        group.throughput(Throughput::Elements(batch));
        let (mut writer, mut reader) = pair();
        group.bench_function(BenchmarkId::new("batch", batch), |bencher| {
            bencher.iter(|| {
                for _ in 0..batch {
                    writer.push_slice(1, false, black_box(&payload));
                }
                writer.publish();
                while let Some(record) = reader.peek() {
                    black_box(record.payload.as_slice()[0]);
                    reader.advance();
                }
                reader.commit()
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    for publish_every in [1, 16] {
        let id = BenchmarkId::new("two_threads_64", format!("publish_{publish_every}"));
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|records| ring_two_threads(records, publish_every));
        });
    }
    group.finish();
}

/// Time for `records` records of 64 bytes to go from one thread to another. A thread that cannot continue yields: on a machine with
/// fewer free cores than threads, spinning would measure the scheduler.
fn ring_two_threads(records: u64, publish_every: u64) -> Duration {
    let (mut writer, mut reader) = pair();
    let payload = [7_u8; 64];
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for index in 0..records {
                while !writer.has_room(320, 64 * 1024) {
                    writer.publish();
                    std::thread::yield_now();
                }
                writer.push_slice(1, false, &payload);
                if index % publish_every == 0 {
                    writer.publish();
                }
            }
            writer.publish();
        });
        let mut seen = 0;
        while seen < records {
            let before = seen;
            while let Some(record) = reader.peek() {
                black_box(record.payload.as_slice()[0]);
                reader.advance();
                seen += 1;
                if seen - before == 16 {
                    break;
                }
            }
            if seen == before {
                std::thread::yield_now();
            }
            reader.commit();
        }
    });
    start.elapsed()
}

/// The ring's arithmetic alone: the position of the next record and whether it fits, for records of 2 to 17 words. The length is
/// a number that the compiler does not know, as in the ring.
fn arithmetic(criterion: &mut Criterion) {
    fn walk(len: u64, wrap: impl Fn(u64) -> u64) -> u64 {
        let (mut at, mut head, mut sum) = (0_u64, 0_u64, 0_u64);
        for index in 0..1024_u64 {
            let words = 2 + (index & 15);
            let mut contiguous = len - wrap(at);
            if words > contiguous {
                at += contiguous;
                contiguous = len;
            }
            if at + words >= head + len {
                head = at;
            }
            sum = sum.wrapping_add(wrap(at) ^ contiguous);
            at += words;
        }
        sum
    }
    let mut group = criterion.benchmark_group("ring/masking_vs_modulo");
    group.throughput(Throughput::Elements(1024));
    for (name, len) in [("256", 256_u64), ("4096", 4096)] {
        group.bench_function(BenchmarkId::new("masking", name), |bencher| {
            bencher.iter(|| {
                let mask = black_box(len) - 1;
                walk(mask + 1, |at| at & mask)
            });
        });
        group.bench_function(BenchmarkId::new("modulo", name), |bencher| {
            bencher.iter(|| {
                let len = black_box(len);
                walk(len, |at| at % len)
            });
        });
        // The alternative for rings of any length: cursors below twice the length, compared on each step.
        group.bench_function(BenchmarkId::new("compare", name), |bencher| {
            bencher.iter(|| {
                let len = black_box(len);
                let (mut at, mut free, mut sum) = (0_u64, len, 0_u64);
                for index in 0..1024_u64 {
                    let words = 2 + (index & 15);
                    if words > len - at {
                        free = free.saturating_sub(len - at);
                        at = 0;
                    }
                    if words >= free {
                        free = len;
                    }
                    sum = sum.wrapping_add(at ^ (len - at));
                    at += words;
                    free -= words;
                    if at == len {
                        at = 0;
                    }
                }
                sum
            });
        });
    }
    group.finish();
}

struct Lane {
    next: AtomicPtr<Self>,
    reasons: Reasons,
}

// SAFETY: `next` is private to the list; a lane is pushed only by the thread that turned its reasons from zero, which are taken
// after the list has handed it out.
unsafe impl Node for Lane {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

fn lanes(count: usize) -> Vec<Arc<Lane>> {
    let lane = || Lane {
        next: AtomicPtr::default(),
        reasons: Reasons::new(),
    };
    (0..count).map(|_| Arc::new(lane())).collect()
}

/// A structure that carries ready lanes from producers to the engine.
trait Ready: Sync {
    fn push(&self, lane: Arc<Lane>);
    /// Passes each ready lane to `serve`.
    fn drain(&self, serve: impl FnMut(Arc<Lane>));
}

impl Ready for ReadyList<Lane> {
    fn push(&self, lane: Arc<Lane>) {
        assert!(Self::push(self, lane).is_ok());
    }

    fn drain(&self, serve: impl FnMut(Arc<Lane>)) {
        self.take_all().for_each(serve);
    }
}

impl Ready for SegQueue<Arc<Lane>> {
    fn push(&self, lane: Arc<Lane>) {
        Self::push(self, lane);
    }

    fn drain(&self, serve: impl FnMut(Arc<Lane>)) {
        std::iter::from_fn(|| self.pop()).for_each(serve);
    }
}

impl Ready for ArrayQueue<Arc<Lane>> {
    fn push(&self, lane: Arc<Lane>) {
        assert!(Self::push(self, lane).is_ok(), "as long as there are lanes");
    }

    fn drain(&self, serve: impl FnMut(Arc<Lane>)) {
        std::iter::from_fn(|| self.pop()).for_each(serve);
    }
}

const LANES: usize = 64;

/// One thread: each of `batch` lanes is raised and pushed, then all are served.
fn ready_single(criterion: &mut Criterion, name: &str, batch: usize, ready: &impl Ready) {
    let mut group = criterion.benchmark_group("ready/push_take");
    group.throughput(Throughput::Elements(batch as u64));
    let lanes = lanes(batch);
    group.bench_function(format!("{name}/1_thread_batch_{batch}"), |bencher| {
        bencher.iter(|| {
            for lane in &lanes {
                if lane.reasons.raise(1) {
                    ready.push(Arc::clone(lane));
                }
            }
            ready.drain(|lane| {
                black_box(lane.reasons.take());
            });
        });
    });
    group.finish();
}

/// Time until two producers have each raised `raises` times, every time on another of their lanes, while the engine
/// serves them.
fn ready_two_producers(raises: u64, ready: &impl Ready) -> Duration {
    let lanes = [lanes(LANES / 2), lanes(LANES / 2)];
    let running = AtomicUsize::new(2);
    let go = AtomicBool::new(false);
    let mut start = Instant::now();
    std::thread::scope(|scope| {
        for lanes in &lanes {
            let (running, go) = (&running, &go);
            scope.spawn(move || {
                while !go.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                for index in 0..raises as usize {
                    let lane = &lanes[index % lanes.len()];
                    if lane.reasons.raise(1) {
                        ready.push(Arc::clone(lane));
                    }
                }
                running.fetch_sub(1, Ordering::Release);
            });
        }
        start = Instant::now();
        go.store(true, Ordering::Release);
        while running.load(Ordering::Acquire) > 0 {
            ready.drain(|lane| {
                black_box(lane.reasons.take());
            });
        }
        ready.drain(drop);
    });
    start.elapsed()
}

fn ready_both(criterion: &mut Criterion, name: &str, ready: &impl Ready) {
    for batch in [1, LANES] {
        ready_single(criterion, name, batch, ready);
    }
    let mut group = criterion.benchmark_group("ready/push_take");
    group.throughput(Throughput::Elements(2));
    group.bench_function(format!("{name}/2_producers"), |bencher| {
        bencher.iter_custom(|raises| ready_two_producers(raises, ready));
    });
    group.finish();
}

fn ready(criterion: &mut Criterion) {
    ready_both(criterion, "ready_list", &ReadyList::new());
    ready_both(criterion, "seg_queue", &SegQueue::new());
    ready_both(criterion, "array_queue", &ArrayQueue::new(LANES));
}

fn doorbell(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("doorbell");
    let bell = Doorbell::new();
    group.bench_function("ring_not_parked", |bencher| bencher.iter(|| bell.ring()));
    let waker = std::task::Waker::noop();
    group.bench_function("prepare_cancel", |bencher| {
        bencher.iter(|| {
            bell.prepare(waker);
            bell.cancel();
        });
    });
    group.bench_function("prepare_ring", |bencher| {
        bencher.iter(|| {
            bell.prepare(waker);
            bell.ring()
        });
    });
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(40)
}

criterion_group! {
    name = benches;
    config = quick();
    targets = ring, arithmetic, ready, doorbell
}
criterion_main!(benches);
