//! Two threads, a client and a server, each on its own processor, and the window they run in.
//!
//! The same harness measures ringmux and plain sockets, so that they differ in
//! nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::machine::Cpus;
use super::sample::{Latencies, Sample};
use super::window::{Reading, Window};
use crate::failure::Failure;

/// How long the threads may take to begin, and to end after the stop signal.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for the other thread's error after one has failed.
const SECOND_REASON: Duration = Duration::from_millis(500);

/// How long to run, and where.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Run before each measurement and not measured.
    pub warmup: Duration,
    /// How long a measurement lasts.
    pub measured: Duration,
    /// Where the two threads are pinned.
    pub cpus: Cpus,
}

/// The client's result.
#[derive(Debug, Default)]
pub struct Sent {
    /// Messages that went one way, from here or to here; the server must have counted as many.
    pub one_way: u64,
    /// Round-trip times within the window.
    pub latencies: Option<Latencies>,
}

/// The server's result.
#[derive(Debug, Default)]
pub struct Received {
    /// Messages that went one way, to here or from here.
    pub one_way: u64,
}

enum Event {
    Listening(String),
    Connected,
    Client(Result<Sent, Failure>),
    Server(Result<Received, Failure>),
}

/// Reports the server's address.
#[derive(Debug)]
pub struct Listening(Sender<Event>);

impl Listening {
    /// `address` is `host:port`.
    pub fn at(self, address: impl Into<String>) {
        // Fails only if the run has failed already.
        let _ = self.0.send(Event::Listening(address.into()));
    }
}

/// Reports that the client is about to send.
#[derive(Debug)]
pub struct Connected(Sender<Event>);

impl Connected {
    /// Notifies the measuring thread, which starts the warm-up.
    pub fn now(self) {
        let _ = self.0.send(Event::Connected);
    }
}

impl Pair {
    /// Runs both until the window ends.
    ///
    /// # Errors
    /// The error of either thread; a thread that did not end in time; or fewer messages
    /// received than sent, in the direction that is not answered.
    pub fn measure<C, S>(&self, server: S, client: C) -> Result<Sample, Failure>
    where
        S: FnOnce(&Arc<Window>, Listening) -> Result<Received, Failure> + Send + 'static,
        C: FnOnce(&Arc<Window>, &str, Connected) -> Result<Sent, Failure> + Send + 'static,
    {
        let window = Arc::new(Window::default());
        let (events, inbox) = mpsc::channel();
        let result = self.direct(&window, &events, &inbox, server, client);
        // A failed run must not leave a thread running during the next one.
        window.stop();
        result
    }

    fn direct<C, S>(
        &self,
        window: &Arc<Window>,
        events: &Sender<Event>,
        inbox: &Receiver<Event>,
        server: S,
        client: C,
    ) -> Result<Sample, Failure>
    where
        S: FnOnce(&Arc<Window>, Listening) -> Result<Received, Failure> + Send + 'static,
        C: FnOnce(&Arc<Window>, &str, Connected) -> Result<Sent, Failure> + Send + 'static,
    {
        let (listening, shared) = (Listening(events.clone()), Arc::clone(window));
        self.spawn("server", events, Event::Server, move || {
            server(&shared, listening)
        })?;
        let address = match wait(inbox, PATIENCE)? {
            Some(Event::Listening(address)) => address,
            other => return Err(unexpected(other, "the server did not start", inbox)),
        };
        let (connected, shared) = (Connected(events.clone()), Arc::clone(window));
        self.spawn("client", events, Event::Client, move || {
            client(&shared, &address, connected)
        })?;
        match wait(inbox, PATIENCE)? {
            Some(Event::Connected) => {}
            other => return Err(unexpected(other, "the client did not connect", inbox)),
        }
        pause(inbox, self.warmup)?;
        let begin = window.begin();
        pause(inbox, self.measured)?;
        let end = window.end();
        let (sent, received) = results(inbox)?;
        account(begin, end, sent, &received)
    }

    fn spawn<T: Send + 'static>(
        &self,
        side: &'static str,
        events: &Sender<Event>,
        event: fn(Result<T, Failure>) -> Event,
        body: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let (events, cpus) = (events.clone(), self.cpus);
        let body = move || {
            let result = match side {
                "client" => cpus.pin_client(),
                _ => cpus.pin_server(),
            };
            let result = result.and_then(|()| {
                catch_unwind(AssertUnwindSafe(body))
                    .unwrap_or_else(|panic| Err(panicked(side, &*panic)))
            });
            let _ = events.send(event(result));
        };
        let spawned = thread::Builder::new()
            .name(format!("bench-{side}"))
            .spawn(body);
        spawned
            .map(drop)
            .map_err(|error| Failure::new("cannot start a thread").because(&error))
    }
}

fn panicked(side: &str, panic: &(dyn Any + Send)) -> Failure {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Failure::new(format!("the {side} panicked: {message}"))
}

/// The next event, or none within this time.
fn wait(inbox: &Receiver<Event>, time: Duration) -> Result<Option<Event>, Failure> {
    match inbox.recv_timeout(time) {
        Ok(event) => Ok(Some(event)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::new("the measured threads have ended")),
    }
}

/// Lets the threads run for this time; an event before its end is a failure.
fn pause(inbox: &Receiver<Event>, time: Duration) -> Result<(), Failure> {
    match wait(inbox, time)? {
        None => Ok(()),
        event => Err(unexpected(event, "the measurement ended early", inbox)),
    }
}

fn results(inbox: &Receiver<Event>) -> Result<(Sent, Received), Failure> {
    let (mut sent, mut received) = (None, None);
    loop {
        match (sent.take(), received.take()) {
            (Some(sent), Some(received)) => return Ok((sent, received)),
            unfinished => (sent, received) = unfinished,
        }
        match wait(inbox, PATIENCE)? {
            Some(Event::Client(Ok(result))) => sent = Some(result),
            Some(Event::Server(Ok(result))) => received = Some(result),
            None => {
                let side = if sent.is_none() { "client" } else { "server" };
                let wait = PATIENCE.as_secs();
                return Err(Failure::new(format!(
                    "the {side} did not end within {wait} s after its window"
                )));
            }
            other => {
                return Err(unexpected(
                    other,
                    "the measurement did not end in order",
                    inbox,
                ));
            }
        }
    }
}

/// The failure behind an unexpected event.
fn unexpected(event: Option<Event>, what: &str, inbox: &Receiver<Event>) -> Failure {
    let reason = match event {
        Some(Event::Client(Err(failure)) | Event::Server(Err(failure))) => failure,
        None => return Failure::new(format!("{what} within {} s", PATIENCE.as_secs())),
        _ => return Failure::new(what),
    };
    // The first thread to fail often only reports the other's failure, which may be behind other events.
    let until = Instant::now() + SECOND_REASON;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(left) {
            Ok(Event::Client(Err(other)) | Event::Server(Err(other))) => {
                return Failure::new(format!("{reason}; the other side: {other}"));
            }
            Ok(_) => {}
            Err(_) => return reason,
        }
    }
}

fn account(
    begin: Reading,
    end: Reading,
    sent: Sent,
    received: &Received,
) -> Result<Sample, Failure> {
    if sent.one_way != received.one_way {
        return Err(Failure::new(format!(
            "the client counted {} messages and the server {}",
            sent.one_way, received.one_way
        )));
    }
    Ok(Sample {
        count: end.count - begin.count,
        side_bytes: end.side_bytes - begin.side_bytes,
        elapsed: end.at - begin.at,
        latencies: sent.latencies,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        let (warmup, measured) = (Duration::from_millis(1), Duration::from_millis(20));
        Pair {
            warmup,
            measured,
            cpus: Cpus::unpinned(),
        }
    }

    fn until_done(window: &Window) {
        while !window.is_done() {
            window.count(1);
            thread::yield_now();
        }
    }

    fn run(sent: u64, received: u64) -> Result<Sample, Failure> {
        pair().measure(
            move |window, listening| {
                listening.at("nowhere");
                until_done(window);
                Ok(Received { one_way: received })
            },
            move |window, address, connected| {
                assert_eq!(address, "nowhere");
                connected.now();
                while !window.is_done() {
                    thread::yield_now();
                }
                Ok(Sent {
                    one_way: sent,
                    latencies: None,
                })
            },
        )
    }

    #[test]
    fn a_sample_covers_the_window() {
        let sample = run(7, 7).unwrap();
        assert!(sample.count > 0);
        assert!(
            sample.elapsed >= Duration::from_millis(20),
            "{:?}",
            sample.elapsed
        );
    }

    #[test]
    fn a_lost_message_fails_the_run() {
        let failure = run(7, 6).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "the client counted 7 messages and the server 6"
        );
    }

    #[test]
    fn a_thread_that_ends_early_fails_the_run_with_both_reasons() {
        let failure = pair()
            .measure(
                |_, listening| {
                    listening.at("nowhere");
                    Err(Failure::new("the server gave up"))
                },
                |_, _, connected| {
                    connected.now();
                    Err(Failure::new("the client gave up"))
                },
            )
            .unwrap_err();
        let text = failure.to_string();
        // Either may be the first.
        for part in [
            "the client gave up",
            "; the other side: ",
            "the server gave up",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_panic_fails_the_run_with_its_message() {
        let failure = pair()
            .measure(
                |window, listening| {
                    listening.at("nowhere");
                    until_done(window);
                    Ok(Received::default())
                },
                |_, _, _| panic!("as the test wants"),
            )
            .unwrap_err();
        assert_eq!(
            failure.to_string(),
            "the client panicked: as the test wants"
        );
    }
}
