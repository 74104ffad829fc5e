//! The client's calls: a task of the runtime for each that is under way, which keeps its own count and times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::bench::peers::rpc::{Job, Rpc, same};
use ringmux_measure::calls::Ten;
use ringmux_measure::failure::Failure;
use ringmux_measure::message::{Numbered, Order};
use ringmux_measure::sample::{Latencies, Sample};
use ringmux_measure::window::Window;
use ringmux_measure::workload::Codec;

/// How long the tasks may take to end after the window.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is called, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) job: Job,
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
}

/// What the tasks share.
struct Shared {
    window: Window,
    /// Calls of each task, or its messages.
    counts: Vec<CachePadded<AtomicU64>>,
}

impl Shared {
    fn sum(&self) -> u64 {
        let counts = self.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// From the task with this number only.
    fn count(&self, task: usize) {
        let count = &self.counts[task];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// Calls until the window is over.
pub(super) async fn run(client: impl Rpc, run: Run) -> Result<Sample, Failure> {
    let (Job::Calls(at_once, _) | Job::Feeds(at_once)) = run.job;
    let shared = Arc::new(Shared {
        window: Window::default(),
        counts: (0..at_once).map(|_| CachePadded::default()).collect(),
    });
    let mut tasks = JoinSet::new();
    for task in 0..at_once {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        match run.job {
            Job::Calls(_, Codec::Raw) => tasks.spawn(raw_calls(client, shared, task)),
            Job::Calls(_, Codec::Prost) => tasks.spawn(prost_calls(client, shared, task)),
            Job::Feeds(_) => tasks.spawn(feed(client, shared, task)),
        };
    }
    sleep(run.warmup).await;
    let (begin, before) = (shared.window.begin(), shared.sum());
    sleep(run.measured).await;
    let (after, end) = (shared.sum(), shared.window.end());
    let mut all = Latencies::new();
    let joined = timeout(PATIENCE, async {
        while let Some(ended) = tasks.join_next().await {
            let ended = ended
                .map_err(|error| Failure::new("a task of the client panicked").because(&error));
            if let Some(times) = ended?? {
                all.add(&times);
            }
        }
        Ok(())
    });
    let late = || {
        Failure::new(format!(
            "a call did not end within {} s",
            PATIENCE.as_secs()
        ))
    };
    joined.await.map_err(|_| late())??;
    Ok(Sample {
        count: after - before,
        side_bytes: 0,
        elapsed: end.at - begin.at,
        latencies: matches!(run.job, Job::Calls(..)).then_some(all),
    })
}

/// The times of a task's calls; none for streams.
type Ended = Result<Option<Latencies>, Failure>;

/// Counts a call; the next one begins where this one ends, so the clock is read once.
fn ended(shared: &Shared, task: usize, times: &mut Latencies, started: Instant) -> Instant {
    let now = Instant::now();
    if shared.window.is_measuring() {
        times.record(now - started);
    }
    shared.count(task);
    now
}

async fn raw_calls(client: impl Rpc, shared: Arc<Shared>, task: usize) -> Ended {
    let (mut message, mut order) = (Numbered::new(), Order::small());
    let mut times = Latencies::coarse();
    let mut started = Instant::now();
    while !shared.window.is_done() {
        let request = Bytes::copy_from_slice(message.advance());
        let answer = client.call(request).await?;
        order.check([&answer[..]])?;
        started = ended(&shared, task, &mut times, started);
    }
    Ok(Some(times))
}

async fn prost_calls(client: impl Rpc, shared: Arc<Shared>, task: usize) -> Ended {
    let mut request = Ten::with_number(0);
    let mut times = Latencies::coarse();
    let mut started = Instant::now();
    while !shared.window.is_done() {
        request.number += 1;
        same(&request, &client.call_ten(&request).await?)?;
        started = ended(&shared, task, &mut times, started);
    }
    Ok(Some(times))
}

/// Takes messages until the window is over, and leaves.
async fn feed(client: impl Rpc, shared: Arc<Shared>, task: usize) -> Ended {
    let mut order = Order::small();
    let taken = client.feed(|message| {
        order.check([message])?;
        shared.count(task);
        Ok(!shared.window.is_done())
    });
    taken.await?;
    Ok(None)
}
