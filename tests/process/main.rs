//! Tests that need a process of their own: forks, system limits, ending threads, paused clocks.
//!
//! Each test runs this program again for itself only ([`alone`]), and fails if that fails, is killed, or hangs.

mod clock;
mod fork;
mod limits;
mod locals;
mod refused;

use std::env;
use std::future::Future;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringmux::{Addr, Config, Driver, Engine, Listener, Session};

/// Names the test that a process was started for.
const ALONE: &str = "RINGMUX_ALONE";
/// How long such a process may take.
const GUARD: Duration = Duration::from_secs(100);
/// How long one thing may be awaited there.
const AWAIT_GUARD: Duration = Duration::from_secs(20);

/// Runs a test in a process of its own. `name` is the test's, with its module.
fn alone(name: &str, case: impl FnOnce()) {
    if env::var(ALONE).as_deref() == Ok(name) {
        return case();
    }
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let [said, complained] = {
        let stdout: Box<dyn Read + Send> = Box::new(process.stdout.take().unwrap());
        let stderr: Box<dyn Read + Send> = Box::new(process.stderr.take().unwrap());
        [stdout, stderr].map(|mut pipe| {
            thread::spawn(move || {
                let mut text = Vec::new();
                let _ = pipe.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        })
    };
    let until = Instant::now() + GUARD;
    let status = loop {
        match process.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > until => break None,
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let text = format!("{}\n{}", said.join().unwrap(), complained.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("it hangs:\n{text}"));
    assert!(status.success(), "{status}:\n{text}");
    assert!(text.contains("1 passed"), "no such test:\n{text}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn any_port() -> Addr {
    "127.0.0.1:0".parse().unwrap()
}

/// Awaits with a time limit on the real clock.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(AWAIT_GUARD, what)
        .await
        .expect("it comes soon")
}

/// Serves the session's streams until it ends.
async fn echo(session: Session) {
    while let Ok(Some((mut send, mut recv))) = session.accept().await {
        tokio::spawn(async move {
            while let Ok(Some(message)) = recv.recv().await {
                if send.send(message).await.is_err() {
                    return;
                }
            }
            let _ = send.finish();
        });
    }
}

async fn round_trip(session: &Session) {
    let (mut send, mut recv) = soon(session.open("")).await.unwrap();
    soon(send.send("there and back")).await.unwrap();
    send.finish().unwrap();
    assert_eq!(soon(recv.recv()).await.unwrap().unwrap(), "there and back");
    assert_eq!(soon(recv.recv()).await.unwrap(), None);
}

/// A session over the engine, both sides of it.
async fn pair(engine: &Engine) -> (Session, Session, Listener) {
    let config = Config::default();
    let listener = soon(engine.listen(&any_port(), &config)).await.unwrap();
    let client = soon(engine.connect(listener.local_addr(), &config))
        .await
        .unwrap();
    let server = soon(listener.accept()).await.unwrap();
    (client, server, listener)
}

/// Runs a future on a runtime of the driver, for an inline engine.
fn on_a_runtime_of<T>(driver: Driver, future: impl Future<Output = T>) -> T {
    match driver {
        Driver::TokioUring => tokio_uring::start(future),
        _ => runtime().block_on(future),
    }
}
