//! A partition under sessions over DRPC, whose wire has no PING: the peer's system has to answer for it.
//!
//! The network is made and cut as in `partition`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use ringmux::drpc::Profile;
use ringmux::{Config, Driver, Engine, Listener, Session, SessionError};

use crate::DRIVERS;
use crate::child::{Child, follow_the_parent, tell};
use crate::host::{Soon, echo, eventually, pattern, tokio_runtime};
use crate::partition::loopback;
use crate::still::Clock;

const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(2);
/// A message is missed at once, and looked for every quarter of the shorter timeout.
const CALLER_KNOWS: Duration = Duration::from_millis(3500);
/// The system may have heard the peer just before the cut, and counts in whole seconds.
const WAITER_KNOWS: Duration = Duration::from_secs(5);
/// For timers, and for a machine that is busy.
const SLACK: Duration = Duration::from_secs(8);
/// A test that waits for so long has failed.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// Calls of the client that calls are this far apart: a small part of what a socket holds is sent in all.
const PAUSE: Duration = Duration::from_millis(200);

#[test]
fn over_drpc_small_calls_and_waiting_handlers_notice_a_partition_in_time() {
    Child::in_own_network("vanished").succeeds();
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
    // 3 drivers, 2 sessions, 2 sides.
    tokio_runtime().block_on(eventually("all are under way", || {
        busy().open() == 12 && busy().sessions.messages_received > 100
    }));
    loopback("down");
    cut.store(true, Ordering::SeqCst);
    for case in cases {
        case.join().expect("the driver notices");
    }
}

fn settings() -> ringmux::ConfigBuilder {
    Config::builder()
        .write_timeout(WRITE_TIMEOUT)
        .keepalive_idle(Some(IDLE))
        .keepalive_timeout(ANSWER)
}

/// Both sides of a session whose client has opened a stream and sent a message.
async fn pair(dialling: &Engine, listener: &Listener, config: &Config) -> (Session, Session) {
    let client = dialling.connect(listener.local_addr(), config);
    let client = client.soon().await.unwrap();
    let (mut send, recv) = client.open("wait").soon().await.unwrap();
    send.send("question").soon().await.unwrap();
    let server = listener.accept().soon().await.unwrap();
    let (answer, mut question) = server.accept().soon().await.unwrap().unwrap();
    assert!(question.recv().soon().await.unwrap().is_some());
    // A handler that runs, and a caller that waits for it.
    tokio::spawn(async move {
        let _open = (answer, question, send, recv);
        std::future::pending::<()>().await;
    });
    (client, server)
}

async fn is_noticed(driver: Driver, [dialling, listening]: [Engine; 2], cut: Arc<AtomicBool>) {
    let config = settings().drpc(Profile::COCKROACH).build().unwrap();
    let either = settings()
        .detect_drpc(Some(Profile::COCKROACH))
        .build()
        .unwrap();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let listener = listening.listen(&anywhere, &either).soon().await.unwrap();
    let (waiting, holding) = pair(&dialling, &listener, &config).await;
    let (calling, answering) = pair(&dialling, &listener, &config).await;
    drop(echo(answering.clone()));
    tokio::spawn(call_for_ever(calling.clone()));
    eventually("the network is cut", || cut.load(Ordering::SeqCst)).await;
    let clock = Clock::start();
    let sides = [
        ("a client that calls", calling, CALLER_KNOWS),
        ("its server", answering, WAITER_KNOWS),
        ("a server whose handler runs", holding, WAITER_KNOWS),
        ("its client", waiting, WAITER_KNOWS),
    ];
    let ends = sides.iter().map(|(side, session, known)| {
        let clock = &clock;
        async move {
            let end = session.draining().within(GIVEN_UP).await;
            let took = clock.elapsed();
            tell(&format!("{driver}, {side}: {end:?}, after {took:.1?}"));
            let again = match clock.stood_still() {
                Duration::ZERO => Duration::ZERO,
                _ => WRITE_TIMEOUT,
            };
            assert!(took <= *known + again + SLACK, "{driver}, {side}: {took:?}");
            let silence = matches!(end, SessionError::WriteTimeout(_) | SessionError::Io(_));
            assert!(silence, "{driver}, {side}: {end}");
        }
    });
    join_all(ends).await;
}

/// Small calls, also while earlier ones are not answered.
async fn call_for_ever(session: Session) {
    for n in 0.. {
        let Ok((mut send, mut recv)) = session.open("call").await else {
            return;
        };
        tokio::spawn(async move {
            if send.send(pattern(100, n)).await.is_ok() && send.finish().is_ok() {
                let _ = recv.recv().await;
            }
        });
        tokio::time::sleep(PAUSE).await;
    }
}
