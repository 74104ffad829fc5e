//! The client's end: a task for each stream, or for each call in flight.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringmux::{Addr, Config, Engine, RecvStream, SendStream, Session};
use tokio::task::JoinSet;

use super::{Role, during};
use crate::failure::Failure;
use crate::message::{Numbered, Order, Slab};
use crate::pair::{Connected, Sent};
use crate::sample::Latencies;
use crate::window::Window;
use crate::workload::Shape;

/// State shared by the tasks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) window: Arc<Window>,
    latencies: Rc<RefCell<Latencies>>,
}

/// The tasks, each with the number of its messages that went one way.
pub(super) type Tasks = JoinSet<Result<u64, Failure>>;

/// Connects, sends until the window is done, and closes the session in order.
pub(super) async fn run(
    engine: Engine,
    config: &Config,
    shape: Shape,
    window: &Arc<Window>,
    address: &str,
    connected: Connected,
) -> Result<Sent, Failure> {
    let address = Addr::Tcp(address.to_owned());
    let session = engine
        .connect(&address, config)
        .await
        .map_err(during("cannot connect"))?;
    connected.now();
    let latencies = Rc::new(RefCell::new(Latencies::new()));
    let client = Client {
        session,
        window: Arc::clone(window),
        latencies,
    };
    let mut tasks = client.start(shape).await?;
    let mut one_way = 0;
    while let Some(ended) = tasks.join_next().await {
        one_way += ended.map_err(during("a task of the client panicked"))??;
    }
    client.session.close();
    client.session.closed().await;
    let latencies = shape
        .has_round_trips()
        .then(|| client.latencies.borrow().clone());
    Ok(Sent { one_way, latencies })
}

impl Client {
    async fn start(&self, shape: Shape) -> Result<Tasks, Failure> {
        let mut tasks = Tasks::new();
        match shape {
            Shape::Echo { streams } => {
                for _ in 0..streams {
                    let stream = self.open(Role::Echo).await?;
                    tasks.spawn_local(self.clone().round_trips(stream));
                }
            }
            Shape::Unary { calls } => {
                for _ in 0..calls {
                    tasks.spawn_local(self.clone().calls());
                }
            }
            Shape::Oneway { streams } => {
                for _ in 0..streams {
                    let stream = self.open(Role::Count).await?;
                    tasks.spawn_local(self.clone().small_messages(stream));
                }
            }
            Shape::Bulk => {
                let stream = self.open(Role::CountBulk).await?;
                tasks.spawn_local(self.clone().bulk_messages(stream));
            }
            Shape::Mixed => {
                let (bulk, echo) = (
                    self.open(Role::SideBulk).await?,
                    self.open(Role::Echo).await?,
                );
                tasks.spawn_local(self.clone().bulk_messages(bulk));
                tasks.spawn_local(self.clone().round_trips(echo));
            }
            Shape::Call { calls, codec } => self.start_calls(calls, codec, &mut tasks),
            Shape::Feed { calls } => self.start_feeds(calls, &mut tasks),
        }
        Ok(tasks)
    }

    async fn open(&self, role: Role) -> Result<(SendStream, RecvStream), Failure> {
        self.session
            .open(role.opening())
            .await
            .map_err(during("cannot open a stream"))
    }

    /// One message in flight, again and again.
    async fn round_trips(
        self,
        (mut send, mut recv): (SendStream, RecvStream),
    ) -> Result<u64, Failure> {
        let (mut message, mut order) = (Numbered::new(), Order::small());
        let mut started = Instant::now();
        while !self.window.is_done() {
            send.send_slice(message.advance())
                .await
                .map_err(during("cannot send"))?;
            receive_echo(&mut recv, &mut order).await?;
            started = self.round_trip_since(started);
        }
        end(&mut send, &mut recv).await?;
        Ok(0)
    }

    /// One call in flight, again and again: open, a message each way, both ends finished.
    async fn calls(self) -> Result<u64, Failure> {
        let mut started = Instant::now();
        while !self.window.is_done() {
            let (mut send, mut recv) = self.open(Role::Echo).await?;
            let mut message = Numbered::new();
            send.send_slice(message.advance())
                .await
                .map_err(during("cannot send"))?;
            send.finish().map_err(during("cannot finish a stream"))?;
            receive_echo(&mut recv, &mut Order::small()).await?;
            receive_end(&mut recv).await?;
            started = self.round_trip_since(started);
        }
        Ok(0)
    }

    /// Small messages as fast as the session takes them.
    async fn small_messages(
        self,
        (mut send, mut recv): (SendStream, RecvStream),
    ) -> Result<u64, Failure> {
        let mut message = Numbered::new();
        while !self.window.is_done() {
            send.send_slice(message.advance())
                .await
                .map_err(during("cannot send"))?;
        }
        end(&mut send, &mut recv).await?;
        Ok(message.number())
    }

    /// Large messages, by reference, as fast as the session takes them.
    async fn bulk_messages(
        self,
        (mut send, mut recv): (SendStream, RecvStream),
    ) -> Result<u64, Failure> {
        let slab = Slab::new();
        let mut number = 0;
        while !self.window.is_done() {
            number += 1;
            send.send(slab.message(number))
                .await
                .map_err(during("cannot send"))?;
        }
        end(&mut send, &mut recv).await?;
        Ok(number)
    }

    /// Counts a round trip; the next one begins where this one ends, so the clock is read once.
    pub(super) fn round_trip_since(&self, started: Instant) -> Instant {
        let now = Instant::now();
        if self.window.is_measuring() {
            self.latencies.borrow_mut().record(now - started);
        }
        self.window.count(1);
        now
    }
}

async fn receive_echo(recv: &mut RecvStream, order: &mut Order) -> Result<(), Failure> {
    match recv.lease().await.map_err(during("cannot receive"))? {
        Some(echo) => order.check(echo.chunks()),
        None => Err(Failure::new("a stream ended where an echo was expected")),
    }
}

async fn receive_end(recv: &mut RecvStream) -> Result<(), Failure> {
    match recv
        .lease()
        .await
        .map_err(during("cannot receive the end of a stream"))?
    {
        None => Ok(()),
        Some(_) => Err(Failure::new(
            "a message came where the end of a stream was expected",
        )),
    }
}

/// Finishes, and waits until the server, having taken everything, has finished too.
async fn end(send: &mut SendStream, recv: &mut RecvStream) -> Result<(), Failure> {
    send.finish().map_err(during("cannot finish a stream"))?;
    receive_end(recv).await
}
