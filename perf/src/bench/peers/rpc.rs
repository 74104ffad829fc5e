//! The workloads of calls over other RPC stacks.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::client::Times;
use super::link::Closing;
use super::runtime::{block_on, during, waiting};
use ringmux_measure::calls::Ten;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::Wait;
use ringmux_measure::message::{Numbered, Order};
use ringmux_measure::pair::{Connected, Listening, Pair, Received, Sent};
use ringmux_measure::sample::Sample;
use ringmux_measure::window::Window;
use ringmux_measure::workload::{Codec, Shape};

/// The client's end of an RPC stack. Its calls may be made by any thread.
pub(in crate::bench) trait Rpc: Clone + Send + Sync + 'static {
    /// A unary call whose messages are bytes.
    fn call(&self, message: Bytes) -> impl Future<Output = Result<Bytes, Failure>> + Send;

    /// A unary call whose messages are encoded by prost.
    fn call_ten(&self, message: &Ten) -> impl Future<Output = Result<Ten, Failure>> + Send;

    /// A call whose answer is a stream: each message goes to `each`, until the end or until that says false.
    fn feed(
        &self,
        each: impl FnMut(&[u8]) -> Result<bool, Failure> + Send,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// One RPC stack with its settings.
pub(super) trait Stack: Clone + Send + 'static {
    type Client: Rpc;

    /// Listens, takes one connection, and serves its calls until the client closes it.
    async fn serve(self, listening: Listening, window: &Arc<Window>) -> Result<Received, Failure>;

    /// Connects. The future closes the connection in order, once the client is dropped.
    async fn connect(self, address: &str) -> Result<(Self::Client, Closing), Failure>;
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Job {
    /// So many calls at once, again and again.
    Calls(usize, Codec),
    /// So many streams of answers.
    Feeds(usize),
}

impl Job {
    /// That of a workload, if it is one for RPC stacks.
    pub(in crate::bench) const fn of(shape: Shape) -> Option<Self> {
        match shape {
            Shape::Call { calls, codec } => Some(Self::Calls(calls, codec)),
            Shape::Feed { calls } => Some(Self::Feeds(calls)),
            _ => None,
        }
    }
}

/// Measures one slice.
pub(super) fn measure<S: Stack>(
    stack: S,
    job: Job,
    wait: Wait,
    pair: &Pair,
) -> Result<Sample, Failure> {
    let serving = stack.clone();
    pair.measure(
        move |window, listening| block_on(waiting(wait, serving.serve(listening, window)))?,
        move |window, address, connected| {
            let calling = async {
                let (client, closing) = stack.connect(address).await?;
                let sent = run(client, job, window, connected).await?;
                closing.await?;
                Ok(sent)
            };
            block_on(waiting(wait, calling))?
        },
    )
}

/// Calls until the window is done: a task for each call in flight.
async fn run(
    client: impl Rpc,
    job: Job,
    window: &Arc<Window>,
    connected: Connected,
) -> Result<Sent, Failure> {
    connected.now();
    let times = Times::new(window);
    let mut tasks = JoinSet::new();
    let (Job::Calls(at_once, _) | Job::Feeds(at_once)) = job;
    for _ in 0..at_once {
        let (client, times, window) = (client.clone(), times.clone(), Arc::clone(window));
        match job {
            Job::Calls(_, Codec::Raw) => tasks.spawn_local(raw_calls(client, times)),
            Job::Calls(_, Codec::Prost) => tasks.spawn_local(prost_calls(client, times)),
            Job::Feeds(_) => tasks.spawn_local(feed(client, window)),
        };
    }
    drop(client);
    let mut one_way = 0;
    while let Some(ended) = tasks.join_next().await {
        one_way += ended.map_err(during("a task of the client panicked"))??;
    }
    let latencies = matches!(job, Job::Calls(..)).then(|| times.latencies());
    Ok(Sent { one_way, latencies })
}

async fn raw_calls(client: impl Rpc, times: Times) -> Result<u64, Failure> {
    let (mut message, mut order) = (Numbered::new(), Order::small());
    let mut started = Instant::now();
    while !times.is_done() {
        let request = Bytes::copy_from_slice(message.advance());
        let answer = client.call(request).await?;
        order.check([&answer[..]])?;
        started = times.round_trip_since(started);
    }
    Ok(0)
}

async fn prost_calls(client: impl Rpc, times: Times) -> Result<u64, Failure> {
    let mut request = Ten::with_number(0);
    let mut started = Instant::now();
    while !times.is_done() {
        request.number += 1;
        same(&request, &client.call_ten(&request).await?)?;
        started = times.round_trip_since(started);
    }
    Ok(0)
}

pub(in crate::bench) fn same(request: &Ten, answer: &Ten) -> Result<(), Failure> {
    if answer == request {
        return Ok(());
    }
    Err(Failure::new(format!("{request:?} came back as {answer:?}")))
}

/// Takes all messages of a feed.
async fn feed(client: impl Rpc, window: Arc<Window>) -> Result<u64, Failure> {
    let mut order = Order::small();
    let taken = client.feed(|message| {
        order.check([message])?;
        window.count(1);
        Ok(true)
    });
    taken.await?;
    Ok(order.received())
}
