//! Managed sessions over real sockets: the server fails in the middle of the calls, and returns.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringmux::manage::{Accept, Dial, Manager, Outbox, Outcome};
use ringmux::{Addr, Config, Driver, Engine, Listener, OpenError, Processed, StreamError};
use tokio::task::JoinHandle;

use crate::host::{Net, Soon, echo, eventually, round_trip, run_with, tokio_runtime};

const CALLS: usize = 1_000;
/// How long a caller may take to learn that the socket has closed. It learns so at once; the rest is the delay that a
/// busy machine may add for a thousand tasks.
const TOLD_WITHIN: Duration = Duration::from_secs(8);
/// Time until there is service again after the server's return from a short outage: 2 s (`lib::manage::tests::pace` checks that
/// with a clock of its own), and the delay of a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(2 + 8);

fn many_streams() -> Config {
    Config::builder().max_streams(2_000).build().unwrap()
}

fn managed(engine: &Engine, addr: &Addr) -> Manager {
    let dial = Dial::new(engine.clone(), addr.clone(), many_streams());
    let manager = Manager::builder(dial).build().unwrap();
    tokio::spawn(manager.start().unwrap());
    manager
}

/// Starts calls that the server takes and does not answer. Each ends with the error that it got.
async fn calls(manager: &Manager) -> Vec<JoinHandle<StreamError>> {
    let (started, mut all_started) = tokio::sync::mpsc::channel(CALLS);
    let calls = (0..CALLS)
        .map(|_| {
            let (manager, started) = (manager.clone(), started.clone());
            tokio::spawn(async move {
                let call = manager.with_session(|session| async move {
                    let (mut send, mut recv) = session.open("wait").await.unwrap();
                    send.send("for ever").await.unwrap();
                    assert_eq!(recv.recv().await.unwrap().unwrap(), "for ever");
                    started.send(()).await.unwrap();
                    recv.recv().await.unwrap_err()
                });
                call.await.unwrap()
            })
        })
        .collect();
    for _ in 0..CALLS {
        all_started.recv().soon().await.unwrap();
    }
    calls
}

/// All calls have ended, with an error that says that the peer may have seen them.
async fn assert_told(calls: Vec<JoinHandle<StreamError>>, at: Instant) {
    for error in join_all(calls).soon().await {
        let error = error.unwrap();
        assert!(matches!(error, StreamError::Session(_)), "{error:?}");
        assert_eq!(error.was_processed(), Processed::Maybe);
    }
    let took = at.elapsed();
    assert!(took < TOLD_WITHIN, "told after {took:?}");
}

/// Until a call gets through.
async fn assert_back(manager: &Manager, back: Instant) {
    let session = manager.session().soon().await.unwrap();
    round_trip(&session, "again".into()).await;
    let took = back.elapsed();
    assert!(
        took < BACK_WITHIN,
        "back after {took:?}: {}",
        manager.describe()
    );
}

async fn the_server_closes_in_the_middle_of_a_thousand_calls_and_comes_back(net: Net) {
    let config = many_streams();
    let listener = net.listen(&config).await;
    let addr = listener.local_addr().clone();
    let manager = managed(net.engine(), &addr);
    let session = listener.accept().soon().await.unwrap();
    let serving = echo(session.clone());
    let calls = calls(&manager).await;

    let gone = Instant::now();
    drop(listener);
    session.close();
    assert_told(calls, gone).await;
    serving.soon().await.unwrap();
    assert!(manager.try_session_or_else(|| ()).is_err());

    let listener = listens_again(&net, &addr, &config).await;
    let back = Instant::now();
    let serving = tokio::spawn(async move { echo(listener.accept().await.unwrap()).await });
    assert_back(&manager, back).await;
    manager.close();
    manager.closed().soon().await;
    serving.soon().await.unwrap().unwrap();
    assert_eq!(manager.metrics().ready, 2);
}

/// Retries: the listener's own task frees the address.
async fn listens_again(net: &Net, addr: &Addr, config: &Config) -> Listener {
    loop {
        if let Ok(listener) = net.engine().listen(addr, config).soon().await {
            return listener;
        }
        crate::host::pause().await;
    }
}

async fn a_manager_that_is_called_serves_whoever_called_last(net: Net) {
    let listener = net.listen(&Config::default()).await;
    let addr = listener.local_addr().clone();
    let manager = Manager::builder(Accept::new(listener)).build().unwrap();
    tokio::spawn(manager.start().unwrap());
    for n in 1..=3 {
        let peer = net.engine().connect(&addr, &Config::default()).soon().await;
        let peer = peer.unwrap();
        eventually("taken", || manager.metrics().ready == n).await;
        let _request = manager
            .session()
            .soon()
            .await
            .unwrap()
            .open("hello")
            .soon()
            .await
            .unwrap();
        assert_eq!(
            peer.accept().soon().await.unwrap().unwrap().0.opening(),
            "hello"
        );
        // The first session is lost, or still there when the peer reconnects: the next one counts.
        if n == 1 {
            peer.close();
            peer.closed().soon().await;
        }
    }
    manager.close();
    manager.closed().soon().await;
}

async fn a_session_that_is_closed_for_a_new_one_still_ends_its_calls_with_an_error(net: Net) {
    let listener = net.listen(&Config::default()).await;
    let manager = managed(net.engine(), listener.local_addr());
    let first = listener.accept().soon().await.unwrap();
    let old = manager.session().soon().await.unwrap();
    let (mut send, mut recv) = old.open("").soon().await.unwrap();
    send.send("x").soon().await.unwrap();
    let _theirs = first.accept().soon().await.unwrap();
    manager.close_and_reconnect();
    assert!(matches!(
        old.open("").soon().await,
        Err(OpenError::Session(_))
    ));
    assert!(matches!(
        recv.recv().soon().await,
        Err(StreamError::Session(_))
    ));
    let second = listener.accept().soon().await.unwrap();
    let serving = echo(second);
    round_trip(&manager.session().soon().await.unwrap(), "new".into()).await;
    manager.close();
    serving.soon().await.unwrap();
}

/// A burst of more streams than a peer lets wait for its application is refused by the peer's library.
async fn messages_that_a_peers_limit_turns_away_are_sent_again_until_each_is_delivered_once(
    net: Net,
) {
    const MESSAGES: u32 = 5_000;
    let narrow = Config::builder().max_unaccepted(Some(2)).build().unwrap();
    let listener = net.listen(&narrow).await;
    let manager = managed(net.engine(), listener.local_addr());
    let session = listener.accept().soon().await.unwrap();
    let taking = tokio::spawn(async move {
        let mut times = vec![0_u32; MESSAGES as usize];
        while let Ok(Some((mut send, mut recv))) = session.accept().await {
            if let Ok(Some(message)) = recv.recv().await {
                let number: u32 = std::str::from_utf8(&message).unwrap().parse().unwrap();
                times[number as usize] += 1;
            }
            let _ = send.finish();
        }
        times
    });
    let outbox = Outbox::builder(manager.clone())
        .max_messages(MESSAGES)
        .at_once(64)
        .keep_for(Duration::from_secs(600))
        .build()
        .unwrap();
    tokio::spawn(outbox.start().unwrap());
    let push = |n: u32| outbox.push("", n.to_string()).unwrap();
    let receipts: Vec<_> = (0..MESSAGES).map(push).collect();
    for receipt in receipts {
        let outcome = receipt.soon().await;
        assert!(
            matches!(outcome, Outcome::Finished),
            "{outcome:?}, {:?}",
            outbox.stats()
        );
    }
    let stats = outbox.stats();
    assert!(stats.sent_again > 0, "no message was refused: {stats:?}");
    assert_eq!(stats.finished, u64::from(MESSAGES), "{stats:?}");
    manager.close();
    let times = taking.soon().await.unwrap();
    assert!(times.iter().all(|&times| times == 1));
}

test_on!(
    messages_that_a_peers_limit_turns_away_are_sent_again_until_each_is_delivered_once:
    tokio_thread_tcp tokio_uring_thread_tcp uring_thread_tcp
);

on_sockets!(
    the_server_closes_in_the_middle_of_a_thousand_calls_and_comes_back,
    a_manager_that_is_called_serves_whoever_called_last,
    a_session_that_is_closed_for_a_new_one_still_ends_its_calls_with_an_error,
);

// ---- a server that is killed ----------------------------------------------------------------

/// Tells a process of this program its address.
const SERVE: &str = "RINGMUX_TEST_SERVE";
const LISTENING: &str = "listening on ";

/// Does nothing, unless the process was started for it.
#[test]
fn serves_where_it_is_told_to() {
    let Ok(addr) = std::env::var(SERVE) else {
        return;
    };
    tokio_runtime().block_on(async {
        let engine = Engine::inline(Driver::Tokio).unwrap();
        let listener = engine.listen(&addr.parse().unwrap(), &many_streams()).await;
        let listener = listener.unwrap();
        println!("\n{LISTENING}{}", listener.local_addr());
        loop {
            drop(echo(listener.accept().await.unwrap()));
        }
    });
}

struct Server(Child);

impl Server {
    /// Starts a process, and waits until it listens. Returns its address.
    fn start(addr: &str) -> (Self, Addr) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "manage::serves_where_it_is_told_to",
                "--nocapture",
            ])
            .env(SERVE, addr)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        let addr = lines.find_map(|line| line.strip_prefix(LISTENING).map(str::to_owned));
        (Self(child), addr.expect("it listens").parse().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap(); // SIGKILL
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_thousand_calls_ends_them_and_is_found_again() {
    run_with(|| {
        let (mut server, addr) = Server::start("tcp://127.0.0.1:0");
        tokio_runtime().block_on(async move {
            let manager = managed(&Engine::inline(Driver::Tokio).unwrap(), &addr);
            for _ in 0..3 {
                let calls = calls(&manager).await;
                let gone = Instant::now();
                server.kill();
                assert_told(calls, gone).await;
                assert!(manager.try_session_or_else(|| ()).is_err());
                server = Server::start(&addr.to_string()).0;
                assert_back(&manager, Instant::now()).await;
            }
            assert_eq!(manager.metrics().ready, 4);
            manager.close();
            manager.closed().soon().await;
        });
    });
}
