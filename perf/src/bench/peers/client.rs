//! The client's end of a closed loop: a task for each stream, or for each call in flight.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::link::{Client, Messages, Role, Sender, Source};
use super::runtime::during;
use ringmux_measure::failure::Failure;
use ringmux_measure::message::{Numbered, Order};
use ringmux_measure::pair::{Connected, Sent};
use ringmux_measure::sample::Latencies;
use ringmux_measure::window::Window;
use ringmux_measure::workload::{MESSAGE_LEN, Shape};

/// The tasks, each with the number of messages that it sent one way.
type Tasks = JoinSet<Result<u64, Failure>>;

/// Sends until the window is done.
pub(super) async fn run(
    client: impl Client,
    shape: Shape,
    window: &Arc<Window>,
    connected: Connected,
) -> Result<Sent, Failure> {
    connected.now();
    let load = Load {
        client,
        times: Times::new(window),
    };
    let mut tasks = load.start(shape);
    let mut one_way = 0;
    while let Some(ended) = tasks.join_next().await {
        one_way += ended.map_err(during("a task of the client panicked"))??;
    }
    let latencies = shape.has_round_trips().then(|| load.times.latencies());
    Ok(Sent { one_way, latencies })
}

/// Counts round trips and keeps their times.
#[derive(Clone, Debug)]
pub(super) struct Times {
    window: Arc<Window>,
    latencies: Rc<RefCell<Latencies>>,
}

impl Times {
    pub(super) fn new(window: &Arc<Window>) -> Self {
        Self {
            window: Arc::clone(window),
            latencies: Rc::new(RefCell::new(Latencies::new())),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.window.is_done()
    }

    /// Counts a round trip; the next one begins where this one ends, so the clock is read once.
    #[inline]
    pub(super) fn round_trip_since(&self, started: Instant) -> Instant {
        let now = Instant::now();
        if self.window.is_measuring() {
            self.latencies.borrow_mut().record(now - started);
        }
        self.window.count(1);
        now
    }

    pub(super) fn latencies(&self) -> Latencies {
        self.latencies.borrow().clone()
    }
}

/// State shared by the tasks.
#[derive(Clone, Debug)]
struct Load<C> {
    client: C,
    times: Times,
}

impl<C: Client> Load<C> {
    fn start(&self, shape: Shape) -> Tasks {
        let mut tasks = Tasks::new();
        match shape {
            Shape::Echo { streams } => {
                for _ in 0..streams {
                    tasks.spawn_local(self.clone().round_trips());
                }
            }
            Shape::Unary { calls } => {
                for _ in 0..calls {
                    tasks.spawn_local(make_calls(self.client.clone(), self.times.clone()));
                }
            }
            Shape::Oneway { streams } => {
                for _ in 0..streams {
                    tasks.spawn_local(self.clone().one_way(Role::Count));
                }
            }
            Shape::Bulk => {
                tasks.spawn_local(self.clone().one_way(Role::CountBulk));
            }
            Shape::Mixed => {
                // The server takes the first stream for the one with bulk.
                tasks.spawn_local(self.clone().one_way(Role::SideBulk));
                tasks.spawn_local(self.clone().round_trips());
            }
            Shape::Call { .. } | Shape::Feed { .. } => unreachable!("these are for RPC stacks"),
        }
        tasks
    }

    /// One message in flight on one stream, again and again.
    async fn round_trips(self) -> Result<u64, Failure> {
        let (mut sender, receiver) = self.client.open(Role::Echo).await?;
        let mut echoes = Messages::new(receiver, MESSAGE_LEN);
        let (mut message, mut order) = (Numbered::new(), Order::small());
        let mut started = Instant::now();
        while !self.times.is_done() {
            sender
                .send(Bytes::copy_from_slice(message.advance()))
                .await?;
            check_echo(echoes.next().await?, &mut order)?;
            started = self.times.round_trip_since(started);
        }
        sender.finish().await?;
        echoes.expect_end().await?;
        Ok(0)
    }

    /// Messages as fast as the peer takes them.
    async fn one_way(self, role: Role) -> Result<u64, Failure> {
        let source = Source::new(role, &self.times.window);
        let sent = source.counter();
        self.client.one_way(role, source).await?;
        Ok(sent.load(Ordering::Relaxed))
    }
}

/// One call in flight, again and again. None of its messages goes one way.
async fn make_calls(client: impl Client, times: Times) -> Result<u64, Failure> {
    let mut started = Instant::now();
    while !times.is_done() {
        let message = Bytes::copy_from_slice(Numbered::new().advance());
        let reply = client.call(message).await?;
        Order::small().check([&reply[..]])?;
        started = times.round_trip_since(started);
    }
    Ok(0)
}

/// Checks the next echo of a stream.
pub(super) fn check_echo(echo: Option<&[Bytes]>, order: &mut Order) -> Result<(), Failure> {
    match echo {
        Some(pieces) => order.check(pieces.iter().map(|piece| &piece[..])),
        None => Err(Failure::new("a stream ended where an echo was expected")),
    }
}
