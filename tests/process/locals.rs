//! Handles in thread-locals, which are dropped when the thread ends.

use std::cell::RefCell;
use std::thread;
use std::time::Duration;

use ringmux::{Driver, Engine, Listener, RecvStream, SendStream, Session, SessionError};

use super::{alone, on_a_runtime_of, pair, runtime, soon};

type Kept = (Session, (SendStream, RecvStream), Engine, Listener);

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// Gives engines the time to park, so that a drop usually has to wake them.
async fn engines_sleep() {
    tokio::task::LocalSet::new().run_until(async {}).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The handles are dropped after thread-locals that were used later, and the peer learns of the end.
fn kept_by_a_thread(driver: Driver) {
    let engine = Engine::thread(driver).unwrap();
    let (client, server, listener) = runtime().block_on(pair(&engine));
    let keeping = thread::spawn(move || {
        // Initialised first, so that it is destroyed last.
        KEPT.with(|_| {});
        runtime().block_on(async {
            let stream = soon(client.open("")).await.unwrap();
            soon(client.ping()).await.unwrap();
            engines_sleep().await;
            KEPT.set(Some((client, stream, engine, listener)));
        });
    });
    keeping.join().unwrap();
    let end = runtime().block_on(soon(server.closed()));
    assert!(matches!(end, SessionError::PeerClosed { .. }), "{end}");
}

/// The same for an inline engine on that thread.
fn kept_by_the_engines_thread(driver: Driver) {
    let ended = thread::spawn(move || {
        KEPT.with(|_| {});
        on_a_runtime_of(driver, async {
            let engine = Engine::inline(driver).unwrap();
            let (client, server, listener) = pair(&engine).await;
            let stream = soon(client.open("")).await.unwrap();
            KEPT.set(Some((client, stream, engine, listener)));
            server
        })
    });
    let server = ended.join().unwrap();
    runtime().block_on(soon(server.closed()));
}

/// And for an engine whose runtime continues on another thread.
fn of_another_threads_engine(driver: Driver) {
    let (given, kept) = std::sync::mpsc::channel();
    let hosting = thread::spawn(move || {
        on_a_runtime_of(driver, async {
            let engine = Engine::inline(driver).unwrap();
            let (client, server, listener) = pair(&engine).await;
            let stream = soon(client.open("")).await.unwrap();
            given.send((client, stream, engine, listener)).ok().unwrap();
            soon(server.closed()).await
        })
    });
    let kept = kept.recv().unwrap();
    let keeping = thread::spawn(move || {
        KEPT.with(|_| {});
        runtime().block_on(async {
            soon(kept.0.ping()).await.unwrap();
            engines_sleep().await;
            KEPT.set(Some(kept));
        });
    });
    keeping.join().unwrap();
    let end = hosting.join().unwrap();
    assert!(matches!(end, SessionError::PeerClosed { .. }), "{end}");
}

fn all(driver: Driver) {
    for _ in 0..10 {
        kept_by_a_thread(driver);
        kept_by_the_engines_thread(driver);
        of_another_threads_engine(driver);
    }
}

#[test]
fn handles_kept_by_a_thread_that_ends_tell_a_tokio_engine() {
    alone(
        "locals::handles_kept_by_a_thread_that_ends_tell_a_tokio_engine",
        || all(Driver::Tokio),
    );
}

#[test]
fn handles_kept_by_a_thread_that_ends_tell_a_tokio_uring_engine() {
    alone(
        "locals::handles_kept_by_a_thread_that_ends_tell_a_tokio_uring_engine",
        || {
            all(Driver::TokioUring);
        },
    );
}

#[test]
fn handles_kept_by_a_thread_that_ends_tell_an_io_uring_engine() {
    alone(
        "locals::handles_kept_by_a_thread_that_ends_tell_an_io_uring_engine",
        || {
            all(Driver::Uring);
        },
    );
}
