//! Engines that end under their sessions, and engines that cannot be made.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ringmux::{
    Addr, Config, Driver, Engine, EngineError, ListenError, Listener, OpenError, SendError,
    Session, SessionError, StreamError,
};

use crate::host::{MAY_PANIC, Soon, run_with, tokio_runtime};

fn any_port() -> Addr {
    "127.0.0.1:0".parse().unwrap()
}

/// A pair whose dialling side lives on a runtime that has been dropped, and a stream of it.
fn dropped_under_a_session(
    driver: Driver,
) -> (
    Session,
    (ringmux::SendStream, ringmux::RecvStream),
    Session,
    (ringmux::SendStream, ringmux::RecvStream),
) {
    let (send, receive) = channel();
    let (listening, addr) = channel();
    // The accepting side continues.
    let (done, lives_on) = tokio::sync::oneshot::channel::<()>();
    thread::spawn(move || {
        tokio_runtime().block_on(async move {
            let engine = Engine::thread(driver).unwrap();
            let listener = engine
                .listen(&any_port(), &Config::default())
                .await
                .unwrap();
            listening.send(listener.local_addr().clone()).unwrap();
            let server = listener.accept().soon().await.unwrap();
            let theirs = server.accept().soon().await.unwrap().unwrap();
            send.send((server, theirs)).unwrap();
            let _ = lives_on.await;
        });
    });
    let addr = addr.recv().unwrap();
    let dialling = async move {
        let engine = Engine::inline(driver).unwrap();
        let client = engine
            .connect(&addr, &Config::default())
            .soon()
            .await
            .unwrap();
        let ours = client.open("").soon().await.unwrap();
        client.ping().soon().await.unwrap();
        (client, ours)
    };
    let (client, ours) = match driver {
        Driver::TokioUring => tokio_uring::start(dialling),
        _ => tokio_runtime().block_on(dialling),
    };
    let (server, theirs) = receive.recv().unwrap();
    drop(done);
    (client, ours, server, theirs)
}

#[test]
fn a_runtime_that_ends_before_a_listener_ran_is_told_to_whoever_accepts() {
    run_with(|| {
        let ends = tokio_runtime();
        let listening = async {
            let engine = Engine::inline(Driver::Tokio).unwrap();
            engine.listen(&any_port(), &Config::default()).await
        };
        let listener = Arc::new(ends.block_on(listening).unwrap());
        tokio_runtime().block_on(async {
            // On a task, which is polled again only if it is woken.
            let accepting = tokio::spawn({
                let listener = Arc::clone(&listener);
                async move { listener.accept().await }
            });
            tokio::task::yield_now().await;
            ends.shutdown_background();
            let error = accepting.soon().await.unwrap().unwrap_err();
            let stopped = matches!(error, ListenError::Engine(EngineError::Stopped));
            assert!(stopped, "{error}");
            let report = listener.shutdown(Duration::from_secs(30)).soon().await;
            assert_eq!(report, ringmux::Drained::default());
        });
    });
}

fn a_listener_learns_that_its_engine_has_ended(driver: Driver) {
    run_with(move || {
        let listening = |engine: Engine, addr: Addr| async move {
            let listener = engine.listen_shared(&addr, &Config::default()).await;
            (listener.unwrap(), engine)
        };
        let lives = Engine::thread(driver).unwrap();
        tokio_runtime().block_on(async {
            let (port, config) = (any_port(), Config::default());
            let other = lives.listen_shared(&port, &config).soon().await.unwrap();
            let addr = other.local_addr().clone();
            let ended = thread::spawn(move || {
                let hosting = Engine::builder(driver);
                hosting.block_on(|engine| listening(engine, addr)).unwrap()
            });
            let (listener, engine) = ended.join().unwrap();
            let error = listener.accept().soon().await.unwrap_err();
            let stopped = matches!(error, ListenError::Engine(EngineError::Stopped));
            assert!(stopped, "{error}");
            let report = listener.shutdown(Duration::from_secs(30)).soon().await;
            assert_eq!(report, ringmux::Drained::default());
            let error = engine.listen(&port, &config).soon().await;
            let stopped = matches!(error, Err(ListenError::Engine(EngineError::Stopped)));
            assert!(stopped, "{error:?}");
            // The port belongs to the other engine only.
            for _ in 0..20 {
                let client = lives.connect(other.local_addr(), &config);
                client.soon().await.unwrap();
            }
        });
    });
}

#[test]
fn a_listener_on_tokio_learns_that_its_engine_has_ended() {
    a_listener_learns_that_its_engine_has_ended(Driver::Tokio);
}

#[test]
fn a_listener_on_tokio_uring_learns_that_its_engine_has_ended() {
    a_listener_learns_that_its_engine_has_ended(Driver::TokioUring);
}

#[test]
fn a_listener_on_io_uring_learns_that_its_engine_has_ended() {
    a_listener_learns_that_its_engine_has_ended(Driver::Uring);
}

#[test]
fn a_thread_cannot_have_nul_in_its_name() {
    let refused = Engine::builder(Driver::Tokio).name("a\0b").thread();
    let unavailable = matches!(refused, Err(EngineError::Unavailable { .. }));
    assert!(unavailable, "{refused:?}");
}

#[test]
fn an_engine_on_io_uring_whose_host_panicked_before_it_ran_refuses_to_connect() {
    run_with(|| {
        let (given, engine) = channel();
        let hosting = thread::Builder::new().name(MAY_PANIC.to_owned());
        let hosting = hosting.spawn(move || {
            let _ = Engine::builder(Driver::Uring).block_on(|engine| {
                given.send(engine).unwrap();
                assert!(MAY_PANIC.is_empty(), "of the application");
                async {}
            });
        });
        assert!(hosting.unwrap().join().is_err());
        let engine = engine.recv().unwrap();
        tokio_runtime().block_on(async {
            let listener = ringmux::listen("tcp://127.0.0.1:0").soon().await.unwrap();
            let config = Config::default();
            let connecting = engine.connect(listener.local_addr(), &config);
            let error = connecting.soon().await.unwrap_err();
            assert!(matches!(error, ringmux::ConnectError::Engine(_)), "{error}");
        });
    });
}

fn a_dropped_runtime_is_told_to_every_handle(driver: Driver) {
    run_with(move || {
        let (client, mut ours, server, mut theirs) = dropped_under_a_session(driver);
        tokio_runtime().block_on(async {
            let end = client.closed().soon().await;
            assert!(matches!(end, SessionError::EngineStopped), "{end}");
            let error = client.open("").soon().await.unwrap_err();
            assert!(
                matches!(error, OpenError::Session(SessionError::EngineStopped)),
                "{error}"
            );
            assert!(client.accept().soon().await.is_err());
            assert!(client.ping().soon().await.is_err());
            let error = ours.1.recv().soon().await.unwrap_err();
            assert!(
                matches!(error, StreamError::Session(SessionError::EngineStopped)),
                "{error}"
            );
            let error = ours.0.send("x").soon().await.unwrap_err();
            assert!(
                matches!(
                    error,
                    SendError::Stream(StreamError::Session(SessionError::EngineStopped))
                ),
                "{error}"
            );
            // The other side sees a connection that ended without a GOAWAY.
            let end = server.closed().soon().await;
            assert!(
                matches!(end, SessionError::Disconnected | SessionError::Io(_)),
                "{end}"
            );
            let error = theirs.1.recv().soon().await.unwrap_err();
            assert!(matches!(error, StreamError::Session(_)), "{error}");
        });
    });
}

#[test]
fn a_dropped_tokio_runtime_is_told_to_every_handle() {
    a_dropped_runtime_is_told_to_every_handle(Driver::Tokio);
}

#[test]
fn a_dropped_tokio_uring_runtime_is_told_to_every_handle() {
    a_dropped_runtime_is_told_to_every_handle(Driver::TokioUring);
}

#[test]
fn a_dropped_runtime_of_an_io_uring_engine_is_told_to_every_handle() {
    a_dropped_runtime_is_told_to_every_handle(Driver::Uring);
}

fn a_task_that_waits_is_woken_when_the_runtime_is_dropped(driver: Driver) {
    run_with(move || {
        let (handles, receive) = channel::<Session>();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let host = thread::spawn(move || {
            let hosting = async move {
                let engine = Engine::inline(driver).unwrap();
                let listener = engine
                    .listen(&any_port(), &Config::default())
                    .await
                    .unwrap();
                let config = Config::default();
                let connecting = engine.connect(listener.local_addr(), &config);
                let client = connecting.soon().await.unwrap();
                let _server = listener.accept().soon().await.unwrap();
                handles.send(client).unwrap();
                stopped.await.unwrap();
            };
            match driver {
                Driver::TokioUring => tokio_uring::start(hosting),
                _ => tokio_runtime().block_on(hosting),
            }
        });
        let client = receive.recv().unwrap();
        tokio_runtime().block_on(async {
            let (_send, mut recv) = client.open("").soon().await.unwrap();
            let accepting = tokio::spawn({
                let client = client.clone();
                async move { client.accept().soon().await }
            });
            let receiving = tokio::spawn(async move { recv.recv().soon().await });
            // Both have been polled: this runtime has one thread.
            tokio::task::yield_now().await;
            stop.send(()).unwrap();
            let accepted = accepting.soon().await.unwrap();
            // The two sessions of that runtime are dropped in any order.
            let expected = |end: &SessionError| {
                matches!(
                    end,
                    SessionError::EngineStopped
                        | SessionError::PeerClosed { .. }
                        | SessionError::Disconnected
                        | SessionError::Io(_)
                )
            };
            match accepted {
                Ok(stream) => assert!(stream.is_none(), "the peer closed in order"),
                Err(end) => assert!(expected(&end), "{end}"),
            }
            let error = receiving.soon().await.unwrap().unwrap_err();
            let (StreamError::Session(end) | StreamError::NotProcessed(end)) = &error else {
                panic!("{error}");
            };
            assert!(expected(end), "{end}");
        });
        host.join().unwrap();
    });
}

#[test]
fn a_task_that_waits_is_woken_when_its_tokio_runtime_is_dropped() {
    a_task_that_waits_is_woken_when_the_runtime_is_dropped(Driver::Tokio);
}

#[test]
fn a_task_that_waits_is_woken_when_its_tokio_uring_runtime_is_dropped() {
    a_task_that_waits_is_woken_when_the_runtime_is_dropped(Driver::TokioUring);
}

#[test]
fn a_task_that_waits_is_woken_when_the_runtime_of_its_io_uring_engine_is_dropped() {
    a_task_that_waits_is_woken_when_the_runtime_is_dropped(Driver::Uring);
}

fn a_listener_on_a_dropped_runtime_says_so(driver: Driver) {
    run_with(move || {
        let listening = async move {
            let engine = Engine::inline(driver).unwrap();
            engine
                .listen(&any_port(), &Config::default())
                .await
                .unwrap()
        };
        let listener: Listener = match driver {
            Driver::TokioUring => tokio_uring::start(listening),
            _ => tokio_runtime().block_on(listening),
        };
        let error = tokio_runtime().block_on(async { listener.accept().soon().await.unwrap_err() });
        assert!(error.to_string().contains("stopped"), "{error}");
    });
}

#[test]
fn a_listener_on_a_dropped_tokio_runtime_says_so() {
    a_listener_on_a_dropped_runtime_says_so(Driver::Tokio);
}

#[test]
fn a_listener_on_a_dropped_tokio_uring_runtime_says_so() {
    a_listener_on_a_dropped_runtime_says_so(Driver::TokioUring);
}

#[test]
fn a_listener_on_the_dropped_runtime_of_an_io_uring_engine_says_so() {
    a_listener_on_a_dropped_runtime_says_so(Driver::Uring);
}

fn sessions_go_on_when_their_engine_is_dropped(driver: Driver) {
    run_with(move || {
        tokio_runtime().block_on(async {
            let engine = Engine::thread(driver).unwrap();
            let listener = engine
                .listen(&any_port(), &Config::default())
                .await
                .unwrap();
            let config = Config::default();
            let connecting = engine.connect(listener.local_addr(), &config);
            let client = connecting.soon().await.unwrap();
            let server = listener.accept().soon().await.unwrap();
            drop((engine, listener));
            crate::host::echo(server);
            for n in 0..10 {
                crate::host::round_trip(&client, crate::host::pattern(100, n)).await;
            }
        });
    });
}

#[test]
fn sessions_go_on_when_their_tokio_engine_is_dropped() {
    sessions_go_on_when_their_engine_is_dropped(Driver::Tokio);
}

#[test]
fn sessions_go_on_when_their_tokio_uring_engine_is_dropped() {
    sessions_go_on_when_their_engine_is_dropped(Driver::TokioUring);
}

#[test]
fn sessions_go_on_when_their_io_uring_engine_is_dropped() {
    sessions_go_on_when_their_engine_is_dropped(Driver::Uring);
}

#[test]
fn an_inline_engine_outside_of_its_runtime_is_refused_by_name() {
    run_with(|| {
        // The only way to detect tokio-uring is a panic, which is caught.
        let asking = thread::Builder::new().name(MAY_PANIC.to_owned()).spawn(|| {
            let bare = Engine::inline(Driver::TokioUring).unwrap_err();
            let in_tokio =
                tokio_runtime().block_on(async { Engine::inline(Driver::TokioUring).unwrap_err() });
            (bare, in_tokio, Engine::inline(Driver::Tokio).unwrap_err())
        });
        let (bare, in_tokio, tokio) = asking.unwrap().join().unwrap();
        for (error, driver) in [
            (bare, Driver::TokioUring),
            (in_tokio, Driver::TokioUring),
            (tokio, Driver::Tokio),
        ] {
            let named = matches!(error, EngineError::NoRuntime { driver: d } if d == driver);
            assert!(named, "{error}");
        }
    });
}

#[test]
fn an_inline_engine_on_a_ring_is_refused_by_a_runtime_of_many_threads_without_a_panic() {
    run_with(|| {
        let threads = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        for driver in [Driver::TokioUring, Driver::Uring] {
            let error = threads
                .block_on(async { Engine::inline(driver) })
                .unwrap_err();
            let named = matches!(error, EngineError::ManyThreads { driver: d } if d == driver);
            assert!(named, "{error}");
        }
    });
}

#[test]
fn a_connection_future_that_is_dropped_ends_its_session() {
    run_with(|| {
        tokio_runtime().block_on(async {
            let (a, b) = tokio::io::duplex(64);
            let (client, connection) = ringmux::client(a, &Config::default());
            let (server, serving) = ringmux::server(b, &Config::default());
            tokio::spawn(serving);
            let (_send, mut recv) = client.open("").soon().await.unwrap();
            drop(connection);
            assert!(matches!(
                client.closed().soon().await,
                SessionError::EngineStopped
            ));
            let error = recv.recv().soon().await.unwrap_err();
            assert!(
                matches!(
                    error,
                    StreamError::NotProcessed(SessionError::EngineStopped)
                ),
                "it never left: {error}"
            );
            assert!(error.is_retryable());
            let end = server.closed().soon().await;
            assert!(matches!(end, SessionError::Disconnected), "{end}");
        });
    });
}

#[test]
fn a_connection_future_returns_why_the_session_ended() {
    run_with(|| {
        tokio_runtime().block_on(async {
            let (a, b) = tokio::io::duplex(64);
            let (client, connection) = ringmux::client(a, &Config::default());
            let (_server, serving) = ringmux::server(b, &Config::default());
            let (near, far) = (tokio::spawn(connection), tokio::spawn(serving));
            client.established().soon().await.unwrap();
            client.close();
            assert!(matches!(near.soon().await.unwrap(), SessionError::Closed));
            let end = far.soon().await.unwrap();
            assert!(matches!(end, SessionError::PeerClosed { .. }), "{end}");
        });
    });
}
