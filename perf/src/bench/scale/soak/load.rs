//! The load: streams that echo numbered messages and are killed at random by either side, and short-lived sessions
//! beside them. Every message that comes back is checked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringmux::{Addr, Config, Engine, Listener, RecvStream, SendStream, Session, StreamError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::bench::scale::during;
use ringmux_measure::failure::Failure;

/// Of one stream.
const MESSAGES_MAX: u64 = 64;
/// One stream in this many is killed by the client, and one by the server.
const KILLED_ONE_IN: u64 = 8;
/// Pause between short-lived sessions.
const SESSIONS_PAUSE: Duration = Duration::from_millis(200);
/// How long the load may take to end.
const PATIENCE: Duration = Duration::from_secs(30);
const CODE: u32 = 77;

/// Counts so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) streams: u64,
    pub(super) killed: u64,
    pub(super) sessions: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
    messages: AtomicU64,
    streams: AtomicU64,
    killed: AtomicU64,
    sessions: AtomicU64,
    /// Streams whose server waits for a message, and whose server waits for room.
    in_recv: AtomicU64,
    in_send: AtomicU64,
}

/// Counts a future while it is awaited.
async fn counted<F: Future>(gauge: &AtomicU64, future: F) -> F::Output {
    gauge.fetch_add(1, Ordering::Relaxed);
    let output = future.await;
    gauge.fetch_sub(1, Ordering::Relaxed);
    output
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The first failure is the cause, the others follow from it.
    fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
    }
}

/// The state of a worker, for the report on one that does not end.
#[derive(Debug, Default)]
struct Place {
    plan: Mutex<Option<Plan>>,
    /// Messages of the plan that were handed over, and that came back.
    sent: AtomicU64,
    received: AtomicU64,
    /// Whether the halves are done.
    sender_done: AtomicBool,
    receiver_done: AtomicBool,
}

impl Place {
    fn begin(&self, plan: Plan) {
        let mut current = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(plan);
        for count in [&self.sent, &self.received] {
            count.store(0, Ordering::Relaxed);
        }
        for done in [&self.sender_done, &self.receiver_done] {
            done.store(false, Ordering::Relaxed);
        }
    }
}

/// A load that runs until `end`.
pub(super) struct Load {
    shared: Arc<Shared>,
    session: Session,
    workers: Vec<(JoinHandle<()>, Arc<Place>)>,
    accepting: JoinHandle<()>,
}

impl Load {
    pub(super) async fn start(
        dialling: Engine,
        config: Config,
        listener: Listener,
        streams: u32,
        seed: u64,
    ) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        let addr = listener.local_addr().clone();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), Rng(seed)));
        let session = dialling.connect(&addr, &config).await;
        let session = session.map_err(during("cannot connect"))?;
        let mut workers = Vec::new();
        for n in 0..streams {
            let rng = Rng(seed ^ (u64::from(n) + 1) << 20);
            let place = Arc::new(Place::default());
            let worker = work(
                session.clone(),
                Arc::clone(&shared),
                Arc::clone(&place),
                rng,
            );
            workers.push((tokio::spawn(worker), place));
        }
        let rng = Rng(!seed);
        let visits = visit(dialling, addr, config, Arc::clone(&shared), rng);
        workers.push((tokio::spawn(visits), Arc::default()));
        Ok(Self {
            shared,
            session,
            workers,
            accepting,
        })
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            messages: read(&self.shared.messages),
            streams: read(&self.shared.streams),
            killed: read(&self.shared.killed),
            sessions: read(&self.shared.sessions),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        let failure = &self.shared.failure;
        failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Stops, and waits for every stream to end.
    ///
    /// # Errors
    /// The first failure, or a stream that does not end.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        let mut stuck = Vec::new();
        for (worker, place) in self.workers {
            match timeout_at(deadline, worker).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => self.shared.fail(Failure::new("a task panicked")),
                Err(_) => stuck.push(place),
            }
        }
        let gone = async {
            while self.session.stats().streams > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let all_gone = timeout_at(deadline, gone).await.is_ok();
        let left = self.session.stats().streams;
        let waiting = [&self.shared.in_recv, &self.shared.in_send];
        let [in_recv, in_send] = waiting.map(|gauge| gauge.load(Ordering::Relaxed));
        self.session.close();
        self.accepting.abort();
        let failure = self.shared.failure.lock();
        if let Some(failure) = failure.unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failure);
        }
        match stuck.first() {
            Some(place) => Err(Failure::new(format!(
                "{} streams are stuck, one of them here: {place:?}",
                stuck.len()
            ))),
            None if all_gone => Ok(()),
            None => Err(Failure::new(format!(
                "{left} streams are left that the client is done with; of the server's, \
                 {in_recv} wait for a message and {in_send} for room"
            ))),
        }
    }
}

/// Serves all sessions.
async fn accept(listener: Listener, shared: Arc<Shared>, mut rng: Rng) {
    loop {
        match listener.accept().await {
            Ok(session) => {
                tokio::spawn(serve(session, Arc::clone(&shared), rng.fork()));
            }
            Err(error) => {
                return shared.fail(Failure::new("cannot accept any more").because(&error));
            }
        }
    }
}

async fn serve(session: Session, shared: Arc<Shared>, mut rng: Rng) {
    while let Ok(Some(stream)) = session.accept().await {
        tokio::spawn(echo(stream, Arc::clone(&shared), rng.fork()));
    }
}

/// Sends everything back, or kills the stream in one of a server's ways.
async fn echo((mut send, mut recv): (SendStream, RecvStream), shared: Arc<Shared>, mut rng: Rng) {
    let mut left = rng.one_in(KILLED_ONE_IN).then(|| rng.below(MESSAGES_MAX));
    loop {
        if left == Some(0) {
            shared.killed.fetch_add(1, Ordering::Relaxed);
            match rng.below(4) {
                0 => send.cancel(CODE),
                1 => drop(send.finish_with_error(CODE, "killed by the server")),
                2 => {
                    recv.stop(CODE);
                    drop(send.finish_with_error(CODE, "stopped by the server"));
                }
                _ => {}
            }
            return;
        }
        left = left.map(|left| left - 1);
        match counted(&shared.in_recv, recv.recv()).await {
            Ok(Some(message)) => {
                if counted(&shared.in_send, send.send(message)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return drop(send.finish()),
            // Dropped unfinished: the client sees a cancel, regardless of its own actions.
            Err(_) => return,
        }
    }
}

/// One stream after the other.
async fn work(session: Session, shared: Arc<Shared>, place: Arc<Place>, mut rng: Rng) {
    while !shared.is_stopping() {
        if let Err(failure) = one_stream(&session, &shared, &place, &mut rng).await {
            return shared.fail(failure);
        }
        shared.streams.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a client kills a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    Cancel,
    Error,
    Stop,
    DropSender,
    DropReceiver,
    DropBoth,
}

impl Kill {
    const ALL: [Self; 6] = [
        Self::Cancel,
        Self::Error,
        Self::Stop,
        Self::DropSender,
        Self::DropReceiver,
        Self::DropBoth,
    ];
}

/// A client's plan for one stream.
#[derive(Clone, Copy, Debug)]
struct Plan {
    messages: u64,
    /// The way, and before which message.
    kill: Option<(Kill, u64)>,
    seed: u64,
}

impl Plan {
    fn of(rng: &mut Rng) -> Self {
        let messages = 1 + rng.below(MESSAGES_MAX);
        let kill = rng.one_in(KILLED_ONE_IN).then(|| {
            let how = Kill::ALL[rng.below(Kill::ALL.len() as u64) as usize];
            (how, rng.below(messages))
        });
        Self {
            messages,
            kill,
            seed: rng.next(),
        }
    }

    fn kill_before(&self, number: u64) -> Option<Kill> {
        let (kill, at) = self.kill?;
        (at == number).then_some(kill)
    }

    /// Mostly small, some of several frames, few beyond their stream's window.
    fn len(&self, number: u64) -> usize {
        let mut rng = Rng(self.seed ^ number);
        let max = match rng.below(200) {
            0 => 256 << 10,
            1..20 => 16 << 10,
            _ => 1 << 10,
        };
        8 + rng.below(max) as usize
    }

    fn mark(&self, number: u64) -> [u8; 8] {
        (self.seed ^ number.rotate_left(32)).to_le_bytes()
    }

    fn write(&self, number: u64, message: &mut Vec<u8>) {
        message.clear();
        message.resize(self.len(number), number as u8);
        message[..8].copy_from_slice(&self.mark(number));
    }

    fn check(&self, number: u64, message: &[u8]) -> Result<(), Failure> {
        let fill = number as u8;
        let intact = message.len() == self.len(number)
            && message[..8] == self.mark(number)
            && message[8..].iter().all(|byte| *byte == fill);
        if intact {
            return Ok(());
        }
        Err(Failure::new(format!(
            "message {number} of a stream came back as something else ({} bytes)",
            message.len()
        )))
    }
}

async fn one_stream(
    session: &Session,
    shared: &Shared,
    place: &Place,
    rng: &mut Rng,
) -> Result<(), Failure> {
    let plan = Plan::of(rng);
    place.begin(plan);
    let (send, recv) = match session.open("").await {
        Ok(halves) => halves,
        Err(error) => return Err(Failure::new("cannot open a stream").because(&error)),
    };
    if plan.kill.is_some() {
        shared.killed.fetch_add(1, Ordering::Relaxed);
    }
    let sending = async {
        let finished = send_all(send, plan, place).await;
        place.sender_done.store(true, Ordering::Relaxed);
        finished
    };
    let receiving = async {
        let ended = receive_all(recv, plan, shared, place).await;
        place.receiver_done.store(true, Ordering::Relaxed);
        ended
    };
    let (finished, ended) = tokio::join!(sending, receiving);
    match ended? {
        // Every kill appears as an error, so a clean end means that all messages came back.
        Some(received) if !finished || received != plan.messages => Err(Failure::new(format!(
            "a stream ended in order after {received} of {} messages: {plan:?}",
            plan.messages
        ))),
        _ => Ok(()),
    }
}

/// Whether all was sent, and finished in order.
async fn send_all(mut send: SendStream, plan: Plan, place: &Place) -> bool {
    let mut message = Vec::new();
    for number in 0..plan.messages {
        match plan.kill_before(number) {
            Some(Kill::Cancel) => {
                send.cancel(CODE);
                return false;
            }
            Some(Kill::Error) => {
                drop(send.finish_with_error(CODE, "killed by the client"));
                return false;
            }
            Some(Kill::DropSender | Kill::DropBoth) => return false,
            _ => {}
        }
        plan.write(number, &mut message);
        // The server may have killed it; the receiving half learns why.
        if send.send_slice(&message).await.is_err() {
            return false;
        }
        place.sent.fetch_add(1, Ordering::Relaxed);
    }
    send.finish().is_ok()
}

/// How many messages came back before the end, if that came in order.
async fn receive_all(
    mut recv: RecvStream,
    plan: Plan,
    shared: &Shared,
    place: &Place,
) -> Result<Option<u64>, Failure> {
    let mut number = 0;
    loop {
        match plan.kill_before(number) {
            Some(Kill::Stop) => {
                recv.stop(CODE);
                return Ok(None);
            }
            Some(Kill::DropReceiver | Kill::DropBoth) => return Ok(None),
            _ => {}
        }
        match recv.lease().await {
            Ok(Some(message)) if number < plan.messages => {
                plan.check(number, &message.to_contiguous())?;
                number += 1;
                place.received.store(number, Ordering::Relaxed);
                shared.messages.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(_)) => return Err(Failure::new("more came back than was sent")),
            Ok(None) => return Ok(Some(number)),
            Err(StreamError::Cancelled { .. } | StreamError::Failed(_)) => return Ok(None),
            Err(error) => return Err(Failure::new("a stream failed").because(&error)),
        }
    }
}

/// Sessions that carry one message and end, in one of several ways.
async fn visit(engine: Engine, addr: Addr, config: Config, shared: Arc<Shared>, mut rng: Rng) {
    while !shared.is_stopping() {
        match engine.connect(&addr, &config).await {
            Ok(session) => {
                // The server kills some of these streams, which is no failure of the session.
                if let Ok((mut send, mut recv)) = session.open("").await
                    && send.send("a visit").await.is_ok()
                {
                    let _ = recv.recv().await;
                }
                if rng.one_in(2) {
                    session.close();
                }
            }
            Err(error) => {
                return shared.fail(Failure::new("cannot connect any more").because(&error));
            }
        }
        shared.sessions.fetch_add(1, Ordering::Relaxed);
        sleep(SESSIONS_PAUSE).await;
    }
}

/// splitmix64: the same choices for the same seed, as far as the order of events allows.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_changed_moved_or_cut_is_noticed() {
        let plan = Plan::of(&mut Rng(1));
        let mut message = Vec::new();
        plan.write(5, &mut message);
        plan.check(5, &message).unwrap();
        assert!(plan.check(6, &message).is_err());
        assert!(plan.check(5, &message[..message.len() - 1]).is_err());
        let last = message.len() - 1;
        message[last] ^= 1;
        assert!(plan.check(5, &message).is_err());
    }
}
