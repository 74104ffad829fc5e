//! Calls under an engine that hosts futures itself, where no runtime of tokio is entered.

use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Code, Context, Sender, Server, Status};
use ringmux::{Config, Driver, Engine, SessionError};

use crate::host::*;

async fn feed(_: Context, _: Bytes, out: Sender<Bytes>) -> Result<(), Status> {
    // Longer than the caller looks.
    let _out = out;
    std::future::pending().await
}

#[test]
fn what_needs_tokios_clock_fails_by_name_where_there_is_none_and_the_rest_works() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (addr, serving) = runtime.block_on(async {
        let listener = ringmux::listen("tcp://127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().clone();
        let server = Server::builder().unary(ECHO, echo);
        let server = server.server_streaming(FEED, feed).build().unwrap();
        (
            addr,
            tokio::spawn(async move { server.serve(listener).await }),
        )
    });
    let hosted = Engine::builder(Driver::Uring).block_on(|engine| async move {
        let session = engine.connect(&addr, &Config::default()).await.unwrap();
        let channel = Channel::new(session.clone());
        let request = Bytes::from("a call");
        assert_eq!(channel.call(&ECHO, &request).await.unwrap(), request);

        let call = channel.server_streaming(&FEED, &request);
        let opened = call.timeout(Duration::from_secs(30)).open().await;
        let status = match opened {
            Ok(mut answers) => answers.recv().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::FAILED_PRECONDITION, "{status}");
        assert!(status.message().contains("tokio"), "{status}");

        let server = Server::builder().unary(ECHO, echo).build().unwrap();
        let error = server.serve_session(session).await.unwrap_err();
        assert!(matches!(error, SessionError::Io(_)), "{error}");
        let local = "tcp://127.0.0.1:0".parse().unwrap();
        let listener = engine.listen(&local, &Config::default()).await.unwrap();
        let error = server.serve(listener).await.unwrap_err();
        assert!(format!("{error:?}").contains("tokio"), "{error:?}");
    });
    hosted.unwrap();
    serving.abort();
}
