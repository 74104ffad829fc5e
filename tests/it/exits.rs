//! The last messages of a program that exits at once: each in a process of its own.

use std::env;
use std::future::Future;
use std::process::{Command, Stdio};

use bytes::Bytes;
use ringmux::{Config, Driver, Engine, Session};
use tokio::io::AsyncWriteExt;

use crate::host::{Host, Net, Place, Soon, pattern, tokio_runtime};

/// Makes a process one of these programs: its driver, the engine's place, its idle strategy, and the address.
const PROGRAM: &str = "RINGMUX_PROGRAM";
/// Programs for each host and each way of waiting. Of programs that did not wait, one in a hundred delivered everything.
const RUNS: u64 = 8;
const MESSAGES: u64 = 50;

/// The ways in which a program waits until its messages have left.
const WAYS: [&str; 3] = ["closed", "written", "shutdown"];

on_sockets!(
    a_program_that_waits_before_it_ends_delivers_everything,
    a_flush_waits_until_the_socket_has_taken_what_was_written,
);

/// Not too much for a socket's buffer: an exiting process resets a connection on which it has left bytes unread, and
/// bytes not yet received at that moment are lost.
fn message(n: u64) -> Bytes {
    pattern(120, n)
}

async fn a_program_that_waits_before_it_ends_delivers_everything(net: Net) {
    let listener = net.listen(&Config::default()).await;
    for way in WAYS {
        for run in 0..RUNS {
            let program = [
                &net.host.driver.to_string(),
                place(net.host),
                way,
                &listener.local_addr().to_string(),
            ];
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "exits::program"])
                .env(PROGRAM, program.join(" "))
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let session = listener.accept().soon().await.unwrap();
            let (_send, mut recv) = session.accept().soon().await.unwrap().unwrap();
            for n in 0..MESSAGES {
                let received = recv.recv().soon().await;
                let received = received.unwrap_or_else(|e| panic!("{way} {run}, {n}: {e}"));
                assert_eq!(received, Some(message(n)), "{way} {run}");
            }
            let end = recv.recv().soon().await;
            assert!(matches!(end, Ok(None)), "{way} {run}: {end:?}");
            assert!(child.wait().unwrap().success());
        }
    }
}

const fn place(host: Host) -> &'static str {
    match host.place {
        Place::Inline | Place::Spinning => "inline",
        Place::BlockOn => "block_on",
        Place::Thread | Place::OneThread => "thread",
        Place::Shared => "shared",
    }
}

/// The program, if the environment requests one.
#[test]
fn program() {
    let Ok(program) = env::var(PROGRAM) else {
        return;
    };
    let words: Vec<&str> = program.split(' ').collect();
    let [driver, place, way, addr] = words[..] else {
        panic!("{program}");
    };
    let driver: Driver = driver.parse().unwrap();
    let run = |engine| last_messages(engine, way, addr);
    match place {
        "inline" => on_runtime(driver, async {
            run(Engine::inline(driver).unwrap()).await;
        }),
        "block_on" => Engine::builder(driver).block_on(run).unwrap(),
        "thread" => tokio_runtime().block_on(run(Engine::thread(driver).unwrap())),
        _ => tokio_runtime().block_on(run(Engine::auto().unwrap())),
    }
    // As at the end of `main`: no thread of an engine is waited for.
    std::process::exit(0);
}

fn on_runtime(driver: Driver, program: impl Future<Output = ()>) {
    match driver {
        Driver::TokioUring => tokio_uring::start(program),
        _ => tokio_runtime().block_on(program),
    }
}

async fn last_messages(engine: Engine, way: &str, addr: &str) {
    let addr = addr.parse().unwrap();
    let session: Session = engine.connect(&addr, &Config::default()).await.unwrap();
    let (mut send, _recv) = session.open("last").await.unwrap();
    for n in 0..MESSAGES {
        match way {
            "shutdown" => send.write_all(&message(n)).await.unwrap(),
            _ => send.send(message(n)).await.unwrap(),
        }
    }
    match way {
        "closed" => {
            send.finish().unwrap();
            session.close();
            session.closed().await;
        }
        "written" => {
            send.finish().unwrap();
            send.written().await.unwrap();
        }
        _ => send.shutdown().await.unwrap(),
    }
}

/// The peer does not read, because the test itself is the peer.
async fn a_flush_waits_until_the_socket_has_taken_what_was_written(net: Net) {
    /// Less than the initial credit of an outgoing stream.
    const WRITE: usize = 8 * 1024;
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    for n in 0..20 {
        ours_send
            .write_all(&pattern(WRITE, n))
            .soon()
            .await
            .unwrap();
        ours_send.flush().soon().await.unwrap();
        let written = client.stats().bytes_sent;
        assert!(written > (n + 1) * WRITE as u64, "{written} after {n}");
        // Now there is nothing left to wait for.
        ours_send.flush().soon().await.unwrap();
        let mut got = vec![0; WRITE];
        tokio::io::AsyncReadExt::read_exact(&mut theirs_recv, &mut got)
            .soon()
            .await
            .unwrap();
        assert!(got == pattern(WRITE, n));
    }
}
