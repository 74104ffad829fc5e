//! Sessions on a runtime with a paused clock, which advances when all of its tasks wait.

use std::time::{Duration, Instant};

use ringmux::{Chain, Driver, Engine, SessionError, Wait};

use super::{alone, echo, pair, round_trip, runtime};

/// Far longer than the case takes, and far shorter than the times that pass on tokio's clock.
const REAL_MAX: Duration = Duration::from_secs(30);

/// An hour passes at once for an idle session with keepalive, and a silent peer is given up.
fn passes(engine: impl FnOnce() -> Engine, driver: Driver) {
    let began = Instant::now();
    let case = async {
        tokio::time::pause();
        let engine = engine();
        let (client, server, _listener) = pair(&engine).await;
        tokio::spawn(echo(server));
        round_trip(&client).await;
        let before = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(before.elapsed() >= Duration::from_secs(3600));
        round_trip(&client).await;
        client.close();
        let end = client.closed().await;
        assert!(matches!(end, SessionError::Closed), "{end}");
    };
    match driver {
        Driver::TokioUring => tokio_uring::start(case),
        _ => runtime().block_on(case),
    }
    assert!(began.elapsed() < REAL_MAX, "{:?}", began.elapsed());
}

#[test]
fn an_inline_tokio_engine_lets_a_paused_clock_go_on() {
    alone(
        "clock::an_inline_tokio_engine_lets_a_paused_clock_go_on",
        || {
            passes(|| Engine::inline(Driver::Tokio).unwrap(), Driver::Tokio);
        },
    );
}

#[test]
fn an_inline_tokio_uring_engine_lets_a_paused_clock_go_on() {
    alone(
        "clock::an_inline_tokio_uring_engine_lets_a_paused_clock_go_on",
        || {
            passes(
                || Engine::inline(Driver::TokioUring).unwrap(),
                Driver::TokioUring,
            );
        },
    );
}

#[test]
fn an_inline_io_uring_engine_lets_a_paused_clock_go_on() {
    alone(
        "clock::an_inline_io_uring_engine_lets_a_paused_clock_go_on",
        || {
            passes(|| Engine::inline(Driver::Uring).unwrap(), Driver::Uring);
        },
    );
}

#[test]
fn an_inline_io_uring_engine_lets_a_paused_clock_go_on_however_it_waits() {
    alone(
        "clock::an_inline_io_uring_engine_lets_a_paused_clock_go_on_however_it_waits",
        || {
            for wait in [Wait::Park, Wait::Spin] {
                let engine = move || Engine::builder(Driver::Uring).wait(wait).inline().unwrap();
                passes(engine, Driver::Uring);
            }
        },
    );
}

/// The engine's thread has its own time, independent of the clock of the caller's runtime.
fn a_thread(driver: Driver) {
    let began = Instant::now();
    runtime().block_on(async {
        tokio::time::pause();
        // A day ahead of the engine's time.
        tokio::time::advance(Duration::from_secs(24 * 3600)).await;
        let engine = Engine::thread(driver).unwrap();
        let config = ringmux::Config::builder()
            .handshake_timeout(Duration::from_millis(200))
            .build()
            .unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = silent.local_addr().unwrap().to_string().parse().unwrap();
        let error = engine.connect(&addr, &config).await.unwrap_err();
        let said = Chain(&error).to_string();
        assert!(said.contains("handshake"), "{said}");
    });
    assert!(began.elapsed() < REAL_MAX, "{:?}", began.elapsed());
}

#[test]
fn an_engine_on_its_own_thread_keeps_real_time_whatever_clock_its_caller_has() {
    alone(
        "clock::an_engine_on_its_own_thread_keeps_real_time_whatever_clock_its_caller_has",
        || {
            for driver in [Driver::Tokio, Driver::TokioUring, Driver::Uring] {
                a_thread(driver);
            }
        },
    );
}
