//! A network partition: all packets are suddenly dropped, in both directions, without an error.
//!
//! The network is the loopback interface of a namespace that is made for it: taken down, it loses packets, and
//! connections get no error. All drivers at once, since the test mostly waits.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use ringmux::{Config, Driver, Engine, Session, SessionError};

use crate::DRIVERS;
use crate::SLACK_BYTES;
use crate::child::{Child, follow_the_parent, tell};
use crate::count::Footprint;
use crate::host::{Soon, echo, eventually, pattern, tokio_runtime};
use crate::still::Clock;

/// The promise: 15 s until a PING to a silent peer, and 10 s for its answer.
const KNOWN: Duration = Duration::from_secs(25);
/// For timers, and for a machine that is busy.
const SLACK: Duration = Duration::from_secs(8);
/// A stall of the process longer than this is forgiven.
const FORGIVEN: Duration = Duration::from_millis(900);
/// Time for bytes in transit at the cut to reach buffers.
const SETTLED: Duration = Duration::from_secs(2);
const IDLE_QUICK: Duration = Duration::from_millis(600);
/// Longer than the machine keeps an engine waiting before the cut, beside sessions that are saturated.
const TIMEOUT_QUICK: Duration = Duration::from_secs(3);

#[test]
fn both_sides_know_of_a_partition_in_time_and_hold_no_more_meanwhile() {
    Child::in_own_network("partition").succeeds();
}

/// The whole test, in a process with a network of its own.
pub(crate) fn inside() {
    follow_the_parent();
    loopback("up");
    let cut = Arc::new(AtomicBool::new(false));
    let cases: Vec<_> = DRIVERS
        .into_iter()
        .map(|driver| {
            let cut = Arc::clone(&cut);
            thread::spawn(move || {
                let engines = [(); 2].map(|()| Engine::thread(driver).expect("it works here"));
                tokio_runtime().block_on(is_noticed(driver, engines, cut));
            })
        })
        .collect();
    let busy = || ringmux::process_stats().totals;
    // 3 drivers × 3 sessions × 2 sides, and a third of them without pause.
    tokio_runtime().block_on(eventually("all are under way", || {
        busy().open() == 18 && busy().sessions.messages_received > 3000
    }));
    loopback("down");
    cut.store(true, Ordering::SeqCst);
    let watching = thread::spawn(watch_memory);
    for case in cases {
        case.join().expect("the driver notices");
    }
    watching.join().expect("memory is flat");
}

pub(crate) fn loopback(state: &str) {
    let ip = Command::new("ip")
        .args(["link", "set", "lo", state])
        .status();
    let ip = ip.expect("`ip`, of iproute2, is installed");
    assert!(ip.success(), "a network of one's own can be changed");
}

/// Checks that memory does not grow after the cut.
fn watch_memory() {
    thread::sleep(SETTLED);
    let before = Footprint::now();
    let mut most = before.bytes;
    while ringmux::process_stats().totals.open() > 0 {
        thread::sleep(Duration::from_millis(50));
        most = most.max(Footprint::now().bytes);
    }
    let grown = most - before.bytes;
    tell(&format!(
        "{} bytes were held, and at most {grown} more later",
        before.bytes
    ));
    assert!(grown <= SLACK_BYTES, "{grown} bytes more than at first");
}

async fn is_noticed(driver: Driver, [dialling, listening]: [Engine; 2], cut: Arc<AtomicBool>) {
    let quick = Config::builder()
        .keepalive_idle(Some(IDLE_QUICK))
        .keepalive_timeout(TIMEOUT_QUICK)
        .build()
        .unwrap();
    let defaults = Config::default();
    let mut sides = Vec::new();
    let kinds = [
        ("quick", &quick, IDLE_QUICK + TIMEOUT_QUICK, false),
        ("idle", &defaults, KNOWN, false),
        ("busy", &defaults, KNOWN, true),
    ];
    let mut sockets = Vec::new();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    for (kind, config, known, busy) in kinds {
        let listener = listening.listen(&anywhere, config);
        let listener = listener.soon().await.unwrap();
        let client = dialling.connect(listener.local_addr(), config);
        let client = client.soon().await.unwrap();
        let server = listener.accept().soon().await.unwrap();
        drop(echo(server.clone()));
        if busy {
            tokio::spawn(send_for_ever(client.clone()));
        }
        sides.push((format!("{kind} client"), client, known, config));
        sides.push((format!("{kind} server"), server, known, config));
        sockets.push(listener);
    }
    eventually("the network is cut", || cut.load(Ordering::SeqCst)).await;
    let clock = Clock::start();
    let ends = sides.iter().map(|(side, session, known, config)| {
        let clock = &clock;
        async move {
            let end = session.draining().within(4 * KNOWN).await;
            let took = clock.elapsed();
            tell(&format!("{driver}, {side}: {end}, after {took:.1?}"));
            // A session that was stalled itself sends another PING before it gives up its peer.
            let again = match clock.stood_still() {
                still if still >= FORGIVEN => config.keepalive_timeout(),
                _ => Duration::ZERO,
            };
            assert!(took <= *known + again + SLACK, "{driver}, {side}: {took:?}");
            let silence = matches!(
                end,
                SessionError::KeepaliveTimeout(_) | SessionError::WriteTimeout(_)
            );
            assert!(silence, "{driver}, {side}: {end}");
        }
    });
    join_all(ends).await;
}

/// Echoes without end, several in flight.
async fn send_for_ever(session: Session) {
    let (mut sender, mut receiver) = session.open("").await.unwrap();
    let receiving = async { while let Ok(Some(_)) = receiver.recv().await {} };
    let sending = async {
        for n in 0.. {
            if sender.send(pattern(1000, n % 100)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(receiving, sending);
}
