//! A producer thread stopped in the middle of a push, and the other streams of its session.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use crate::addr::Driver;
use crate::config::Config;
use crate::connect::Engine;
use crate::handle::{RecvStream, SendStream, Session};
use crate::queue::step::{Step, stop_at};

/// Time limit of every wait.
const GUARD: Duration = Duration::from_secs(20);
/// Time limit of the stop, in which the others make all their round trips on a machine that may be busy.
const STOP_GUARD: Duration = Duration::from_secs(300);
const OTHERS: u64 = 2;
const ROUND_TRIPS: u64 = 200;

/// Tests of one step over every driver.
macro_rules! stopped {
    ($($name:ident: $step:ident;)+) => {
        $(mod $name {
            use super::{Driver, Step, others_go_on_beside_a_producer_stopped};

            #[test]
            fn tokio() {
                others_go_on_beside_a_producer_stopped(Step::$step, Driver::Tokio);
            }

            #[cfg(feature = "tokio-uring")]
            #[test]
            fn tokio_uring() {
                others_go_on_beside_a_producer_stopped(Step::$step, Driver::TokioUring);
            }

            #[test]
            fn uring() {
                others_go_on_beside_a_producer_stopped(Step::$step, Driver::Uring);
            }
        })+
    };
}

stopped! {
    a_producer_stopped_before_its_reason_delays_its_own_stream_only: Published;
    a_producer_stopped_before_its_push_delays_its_own_stream_only: Raised;
    a_producer_stopped_before_the_bell_delays_nobody_once_another_rings: Listed;
    a_producer_stopped_before_its_wake_delays_a_parked_engine_until_bytes_arrive: Chosen;
}

fn others_go_on_beside_a_producer_stopped(step: Step, driver: Driver) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (client, server) = sessions(&runtime, driver);
    let stream = || {
        let opened = runtime.block_on(async { client.open("").await.unwrap() });
        let accepted = runtime.block_on(async { server.accept().await.unwrap().unwrap() });
        runtime.spawn(echo(accepted));
        opened
    };
    let (stopped, is_stopped) = channel();
    let (go, may_go) = channel();
    let others: Vec<_> = (0..OTHERS).map(|_| stream()).collect();
    let (ours, handle) = (stream(), runtime.handle().clone());
    let producer = thread::spawn(move || stop_in_the_middle(ours, step, stopped, may_go, &handle));
    let before: u64 = is_stopped.recv_timeout(GUARD).expect("it gets to the step");

    // On threads of their own, as producers are.
    let others: Vec<_> = others
        .into_iter()
        .map(|stream| {
            let runtime = runtime.handle().clone();
            thread::spawn(move || round_trips(stream, &runtime))
        })
        .collect();
    if step == Step::Chosen {
        // A parked engine waits for the wake of the stopped producer; the peer's PING wakes it as well.
        let ping = async { timeout(GUARD, server.ping()).await };
        runtime.block_on(ping).expect("in time").unwrap();
    }
    for other in others {
        other.join().expect("the others go on");
    }

    let echoed = before + OTHERS * ROUND_TRIPS;
    let of_the_stopped = server.stats().messages_received - echoed;
    match step {
        Step::Published | Step::Raised => assert_eq!(of_the_stopped, 0, "the engine was not told"),
        // When the others ring, the engine takes everything on the list.
        Step::Listed | Step::Chosen => assert_eq!(of_the_stopped, 1),
    }
    go.send(()).unwrap();
    producer.join().expect("nothing is lost");
    assert_eq!(server.stats().messages_received, echoed + 1);
}

/// Sends until this thread is at the step; reports the echoes received before, and continues on request.
///
/// Not each message reaches each step: a listed stream is not pushed, a running engine is not woken.
fn stop_in_the_middle(
    (mut send, mut recv): (SendStream, RecvStream),
    step: Step,
    stopped: Sender<u64>,
    may_go: Receiver<()>,
    runtime: &Handle,
) {
    let returned = Rc::new(Cell::new(0));
    let before = Rc::clone(&returned);
    let was_stopped = Rc::new(Cell::new(false));
    let stops = Rc::clone(&was_stopped);
    stop_at(step, move || {
        stops.set(true);
        stopped.send(before.get()).unwrap();
        may_go.recv_timeout(STOP_GUARD).expect("told to go on");
    });
    while !was_stopped.get() {
        runtime.block_on(round_trip(&mut send, &mut recv, 2 * STOP_GUARD));
        returned.set(returned.get() + 1);
    }
}

fn sessions(runtime: &Runtime, driver: Driver) -> (Session, Session) {
    let (config, here) = (Config::default(), "127.0.0.1:0".parse().unwrap());
    runtime.block_on(async {
        let engine = || Engine::thread(driver).expect("the driver works here");
        let listener = engine().listen(&here, &config).await.unwrap();
        let client = engine().connect(listener.local_addr(), &config).await;
        (client.unwrap(), listener.accept().await.unwrap())
    })
}

async fn echo((mut send, mut recv): (SendStream, RecvStream)) {
    while let Ok(Some(message)) = recv.recv().await {
        if send.send(message).await.is_err() {
            return;
        }
    }
}

fn round_trips((mut send, mut recv): (SendStream, RecvStream), runtime: &Handle) {
    runtime.block_on(async {
        for _ in 0..ROUND_TRIPS {
            round_trip(&mut send, &mut recv, GUARD).await;
        }
    });
}

async fn round_trip(send: &mut SendStream, recv: &mut RecvStream, guard: Duration) {
    let round_trip = async {
        send.send("there and back").await.unwrap();
        assert_eq!(recv.recv().await.unwrap().unwrap(), "there and back");
    };
    timeout(guard, round_trip).await.expect("in time");
}
