//! The client's end of an open loop: one task that sends due messages, and one for each stream that
//! takes the echoes.
//!
//! The sender never waits for echoes. It does not sleep either, because timers are a thousand times
//! coarser than the measured times: it reads the clock again after all other tasks had a [`Turn`].
//! So this side's thread is always awake, for every candidate; the server's sleeps when idle.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::task::{self, JoinSet};

use super::client::check_echo;
use super::link::{Client, Messages, Receiver, Role, Sender};
use super::runtime::during;
use crate::bench::open_loop::Schedule;
use ringmux_measure::failure::Failure;
use ringmux_measure::message::{Numbered, Order};
use ringmux_measure::pair::{Connected, Sent};
use ringmux_measure::sample::Latencies;
use ringmux_measure::window::Window;
use ringmux_measure::workload::MESSAGE_LEN;

/// Opens all streams, and sends on schedule until the window is done.
pub(super) async fn run(
    client: impl Client,
    schedule: Schedule,
    window: &Arc<Window>,
    connected: Connected,
) -> Result<Sent, Failure> {
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for _ in 0..schedule.streams {
        let (sender, receiver) = client.open(Role::Echo).await?;
        senders.push(Numbering::new(sender));
        receivers.push(Messages::new(receiver, MESSAGE_LEN));
    }
    let echoes = Echoes {
        schedule,
        start: Instant::now(),
        window: Arc::clone(window),
        latencies: Rc::new(RefCell::new(Latencies::new())),
    };
    connected.now();
    let mut tasks = JoinSet::new();
    for (stream, receiver) in (0..).zip(receivers) {
        tasks.spawn_local(echoes.clone().take(stream, receiver));
    }
    send_on_schedule(senders, &echoes).await?;
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(during("a task of the client panicked"))??;
    }
    let latencies = echoes.latencies.borrow().clone();
    Ok(Sent {
        one_way: 0,
        latencies: Some(latencies),
    })
}

/// The sending end of a stream, and the number of its latest message.
struct Numbering<S> {
    sender: S,
    message: Numbered,
}

impl<S: Sender> Numbering<S> {
    const fn new(sender: S) -> Self {
        let message = Numbered::new();
        Self { sender, message }
    }

    async fn send_next(&mut self) -> Result<(), Failure> {
        let message = Bytes::copy_from_slice(self.message.advance());
        self.sender.send(message).await
    }
}

async fn send_on_schedule<S: Sender>(
    mut senders: Vec<Numbering<S>>,
    echoes: &Echoes,
) -> Result<(), Failure> {
    let mut turn = Turn::new()?;
    let mut sent = 0;
    loop {
        // In this order, so that everything due within the window is sent, however late.
        let is_done = echoes.window.is_done();
        let due = echoes.schedule.due(echoes.start.elapsed());
        while sent < due {
            let stream = sent as usize % echoes.schedule.streams;
            senders[stream].send_next().await?;
            sent += 1;
        }
        if is_done {
            break;
        }
        turn.pass().await?;
    }
    for stream in &mut senders {
        stream.sender.finish().await?;
    }
    Ok(())
}

/// Lets all other tasks run, and the thread poll for I/O, without sleeping.
#[derive(Debug)]
enum Turn {
    /// On a ring of ringmux's own, which is polled between two turns.
    Yield,
    /// On a tokio runtime. Yielding would not do: tokio-uring submits only when its thread has
    /// nothing left to run. So this waits for a byte that is available already, which only the kernel
    /// can report.
    Kernel { near: UnixStream, far: UnixStream },
}

impl Turn {
    fn new() -> Result<Self, Failure> {
        if Handle::try_current().is_err() {
            return Ok(Self::Yield);
        }
        let (near, far) = UnixStream::pair().map_err(during("cannot make a pair of sockets"))?;
        Ok(Self::Kernel { near, far })
    }

    async fn pass(&mut self) -> Result<(), Failure> {
        let Self::Kernel { near, far } = self else {
            task::yield_now().await;
            return Ok(());
        };
        let lost = during("a local socket failed");
        far.write_all(&[0]).await.map_err(&lost)?;
        // A read that could have got more tells tokio to ask the kernel before the next one.
        near.read(&mut [0; 2]).await.map_err(&lost)?;
        Ok(())
    }
}

/// State shared by the tasks that take echoes.
#[derive(Clone, Debug)]
struct Echoes {
    schedule: Schedule,
    start: Instant,
    window: Arc<Window>,
    latencies: Rc<RefCell<Latencies>>,
}

impl Echoes {
    async fn take<R: Receiver>(
        self,
        stream: usize,
        mut messages: Messages<R>,
    ) -> Result<(), Failure> {
        let mut order = Order::small();
        while let Some(echo) = messages.next().await? {
            let nth = order.received();
            check_echo(Some(echo), &mut order)?;
            self.window.count(1);
            if let Some(latency) = self.schedule.latency(self.start, stream, nth) {
                self.latencies.borrow_mut().record(latency);
            }
        }
        Ok(())
    }
}
